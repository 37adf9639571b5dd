//! A page inside a nested array of one document.

use std::hash::{DefaultHasher, Hash, Hasher};

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ShapeField};
use headwater_schemas::nearest;
use hyper::Response;
use hyper::header::{HeaderMap, LINK};
use sha2::{Digest, Sha256};

use super::format::Format;
use super::parameters::{limit, once, parse, unknown};
use super::respond;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::{Body, etag_matches};
use crate::problem::Problem;
use crate::projection::{Selection, array_page};
use crate::serving::Model;

const NAMES: [&str; 3] = ["fields", "limit", "after"];

/// Answers with some elements of the array at `path` (names with points between). The cursor is the number of the next
/// element: elements that come or go before it between two requests shift what follows.
pub(super) async fn array(
    api: &Api,
    model: &Model,
    (id, path): (&str, &str),
    query: &str,
    format: Format,
    headers: &HeaderMap,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let names: Vec<&str> = decoded.split('.').collect();
    let element_fields = find(model, &names)?;
    let [mut fields, mut limited, mut after] = [const { None }; 3];
    for parameter in parse(query)? {
        match &*parameter.name {
            "fields" => once(&mut fields, parameter)?,
            "limit" => once(&mut limited, parameter)?,
            "after" => once(&mut after, parameter)?,
            name => return Err(unknown(name, &NAMES)),
        }
    }
    let selection = fields.map(|fields| Selection::new(&fields, element_fields)).transpose()?;
    let limit = limit(limited.as_deref(), model.visibility.page)?;
    let absent = || Problem::no_document(model.name());
    let key = model.parse_id(id).ok_or_else(absent)?;
    let fingerprint = fingerprint(model, &key, &decoded, context);
    let start = match &after {
        None => 0,
        Some(cursor) => {
            let place = context.cursors.open(&fingerprint, cursor).and_then(|place| place.try_into().ok());
            let refused = || {
                let detail = "this `after` is not a cursor of this array, or the model has a new version since; start \
                              again without it";
                Problem { code: "invalid_cursor", ..Problem::parameter("after", detail) }
            };
            u64::from_be_bytes(place.ok_or_else(refused)?) as usize
        }
    };

    let moment = api.freshness.now();
    let document = model.visibility.get(&*api.reader, &key, context).await?.ok_or_else(absent)?;
    let mut hasher = DefaultHasher::new();
    (selection.as_ref().map(Selection::fingerprint), start, limit, &*decoded).hash(&mut hasher);
    // The cursor in the body is another for each caller, and so is what stands for it here; who asks cannot be read from it.
    context.cursors.name(&fingerprint, b"").hash(&mut hasher);
    let validator = model.etag(document.stamp, format.etag_shape(Some(hasher.finish())));
    if etag_matches(headers, validator.as_bytes()) {
        return Ok(respond::not_modified(model, moment, validator, context));
    }

    let page = array_page(&document.body, &names, start, limit)?;
    let next = page.has_more.then(|| {
        let place = (start + page.elements.len()) as u64;
        context.cursors.seal(&fingerprint, &place.to_be_bytes())
    });
    let mut body = Vec::with_capacity(256 + page.elements.iter().map(|element| element.len() + 1).sum::<usize>());
    body.extend_from_slice(b"{\"data\":[");
    for (at, element) in page.elements.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let element = &document.body[element.clone()];
        match &selection {
            None => body.extend_from_slice(element),
            Some(selection) => selection.write(&mut body, element)?,
        }
    }
    let next_json = next.as_ref().map_or("null".to_string(), |next| format!("\"{next}\""));
    let (more, len) = (page.has_more, page.len);
    let tail = format!(
        "],\"page\":{{\"next\":{next_json},\"hasMore\":{more}}},\"count\":{{\"kind\":\"exact\",\"value\":{len}}}}}"
    );
    body.extend_from_slice(tail.as_bytes());
    let mut response = respond::documents(format.of_json(body)?, format, model, moment, Some(validator), context);
    if let Some(next) = next {
        let kept: String = query
            .split('&')
            .filter(|part| !part.is_empty() && !part.starts_with("after="))
            .fold(String::new(), |kept, part| kept + part + "&");
        let link = format!("</v1/{}/{id}/{path}?{kept}after={next}>; rel=\"next\"", model.name());
        response.headers_mut().insert(LINK, respond::header(&LINK, link.as_bytes())?);
    }
    Ok(response)
}

/// The fields of the elements of the array at `names`.
fn find<'m>(model: &'m Model, names: &[&str]) -> Result<&'m [ShapeField], Problem> {
    let mut fields: &[ShapeField] = &model.visibility.shape.fields;
    for (at, name) in names.iter().enumerate() {
        let is_last = at + 1 == names.len();
        let field = fields.iter().find(|field| field.name == *name);
        match field.map(|field| &field.kind) {
            Some(FieldType::Nested { cardinality: Cardinality::Many, fields }) if is_last => return Ok(fields),
            Some(FieldType::Nested { cardinality: Cardinality::One, fields: inner }) if !is_last => fields = inner,
            Some(FieldType::Nested { cardinality: Cardinality::Many, .. }) => {
                let detail =
                    format!("`{name}` has many elements; page in `{}` and look into each", names[..=at].join("."));
                return Err(Problem::not_found(detail));
            }
            _ => {
                let is_array = |field: &&ShapeField| {
                    matches!(field.kind, FieldType::Nested { cardinality: Cardinality::Many, .. })
                };
                let arrays = || fields.iter().filter(is_array).map(|field| field.name.as_str());
                let help = match nearest(name, arrays()) {
                    Some(near) if near != *name => format!("did you mean `{near}`?"),
                    _ if arrays().next().is_none() => "there are none".to_string(),
                    _ => {
                        format!("there are {}", arrays().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
                    }
                };
                let detail = format!("{} has no array `{}`; {help}", model.name(), names.join("."));
                let problem = Problem::not_found(detail);
                return Err(Problem { code: "unknown_array", title: "There is no such array", ..problem });
            }
        }
    }
    Err(Problem::not_found("no array is named"))
}

fn fingerprint(model: &Model, key: &[u8], path: &str, context: &ReadContext) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"array");
    hash.update(model.visibility.version.0.to_be_bytes());
    hash.update(context.principal.tag);
    let channel = model.visibility.channel.as_deref().unwrap_or_default();
    hash.update((channel.len() as u64).to_be_bytes());
    hash.update(channel);
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(path.as_bytes());
    let digest = hash.finalize();
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&digest[..16]);
    fingerprint
}
