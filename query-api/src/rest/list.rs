//! Lists: a page by index, or several documents by id.

use std::borrow::Cow;

use headwater_schemas::model::Operator;
use headwater_schemas::nearest;
use headwater_store::Document;
use hyper::Response;
use hyper::header::LINK;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::parameters::{self, Parameter, limit, once, parse, unknown};
use super::respond;
use crate::access::Bound;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::Body;
use crate::problem::Problem;
use crate::projection::Selection;
use crate::query::{CONDITIONS_MAX, Condition, Count, ListQuery, ListRequest, Sort, VALUES_MAX};
use crate::serving::Model;

/// Documents of a page, unless asked otherwise.
pub(super) const LIMIT_DEFAULT: usize = 20;
/// Documents of a page, at most.
pub(super) const LIMIT_MAX: usize = 100;
/// Documents counted for `count=exact`, at most.
pub(super) const COUNT_MAX: u64 = 10_000;
/// Parameters of a list beside the filters.
const NAMES: [&str; 7] = ["fields", "sort", "limit", "after", "count", "ids", "filter[path][operator]"];
/// Characters that cannot stand in a query string inside `<…>`.
const LINK_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'<').add(b'>').add(b'"');

/// What a list request asks for.
struct Request {
    selection: Option<Selection>,
    what: What,
}

enum What {
    Ids(Vec<String>),
    Page(PageRequest),
}

struct PageRequest {
    conditions: Vec<Condition>,
    sort: Option<Sort>,
    limit: usize,
    after: Option<String>,
    count: Counting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    None,
    Estimated,
    Exact,
}

/// Answers with a page, or with the documents named. The second part tells which.
pub(super) async fn list(
    api: &Api,
    model: &Model,
    query: &str,
    context: &ReadContext,
) -> (bool, Result<Response<Body>, Problem>) {
    match Request::parse(query, model) {
        Err(problem) => (false, Err(problem)),
        Ok(Request { selection, what: What::Ids(ids) }) => {
            (true, batch(api, model, &ids, selection.as_ref(), context).await)
        }
        Ok(Request { selection, what: What::Page(page) }) => {
            let (path, bound) = (format!("/v1/{}", model.name()), model.visibility.bound(&context.principal));
            (false, paged(api, model, (&path, query), &page, selection.as_ref(), bound, context).await)
        }
    }
}

/// Answers with a page of what is the caller's own.
pub(super) async fn own(
    api: &Api,
    model: &Model,
    bound: Bound,
    query: &str,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let Request { selection, what } = Request::parse(query, model)?;
    let What::Page(page) = what else {
        return Err(Problem::parameter("ids", "`ids` cannot stand here, where the documents are the caller's own"));
    };
    let path = format!("/v1/me/{}", model.name());
    paged(api, model, (&path, query), &page, selection.as_ref(), bound, context).await
}

async fn paged(
    api: &Api,
    model: &Model,
    (path, query): (&str, &str),
    request: &PageRequest,
    selection: Option<&Selection>,
    bound: Bound,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let as_of = api.freshness.as_of();
    let reader = &*api.reader;
    let wanted = ListRequest {
        visibility: &model.visibility,
        bound,
        conditions: &request.conditions,
        sort: request.sort,
        after: request.after.as_deref(),
        limit: request.limit,
    };
    let list = ListQuery::new(reader, wanted, context).await?;
    let count = match request.count {
        Counting::None => None,
        Counting::Estimated => list.estimate(reader).await?,
        Counting::Exact => Some(exact(list.count(reader, COUNT_MAX + 1).await?)?),
    };
    let page = list.page(reader, false).await?;
    let next = page.next.as_ref().map(|place| list.cursor(place, context));

    let documents = page.documents.iter().map(|(_, document)| Some(document));
    let mut body = write_data(documents, selection)?;
    body.extend_from_slice(b",\"page\":{\"next\":");
    match &next {
        Some(next) => {
            body.push(b'"');
            body.extend_from_slice(next.as_bytes());
            body.extend_from_slice(b"\",\"hasMore\":true}");
        }
        None => body.extend_from_slice(b"null,\"hasMore\":false}"),
    }
    body.extend_from_slice(b",\"count\":");
    match count {
        None => body.extend_from_slice(b"null"),
        Some(count) => {
            let (kind, value) = match count {
                Count::Exact(value) => ("exact", value),
                Count::AtLeast(value) => ("atLeast", value),
            };
            body.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"value\":{value}}}").as_bytes());
        }
    }
    body.push(b'}');

    let mut response = respond::documents(body, model, as_of, None, context);
    if let Some(next) = next {
        let link = format!("<{}>; rel=\"next\"", next_link(path, query, &next));
        response.headers_mut().insert(LINK, respond::header(&LINK, link.as_bytes())?);
    }
    Ok(response)
}

fn exact(count: Option<Count>) -> Result<Count, Problem> {
    match count {
        Some(count @ Count::Exact(_)) => Ok(count),
        _ => {
            let detail =
                format!("these conditions leave too many documents to count (over {COUNT_MAX}); use count=estimated");
            Err(Problem { code: "count_too_large", ..Problem::parameter("count", detail) })
        }
    }
}

async fn batch(
    api: &Api,
    model: &Model,
    ids: &[String],
    selection: Option<&Selection>,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let as_of = api.freshness.as_of();
    let keys: Vec<Option<Vec<u8>>> = ids.iter().map(|id| model.visibility.shape.parse_id(id)).collect();
    let wanted: Vec<Vec<u8>> = keys.iter().flatten().cloned().collect();
    let mut found = model.visibility.get_many(&*api.reader, &wanted, context).await?.into_iter();
    let documents: Vec<Option<Document>> =
        keys.iter().map(|key| key.as_ref().and_then(|_| found.next().flatten())).collect();
    let mut body = write_data(documents.iter().map(Option::as_ref), selection)?;
    body.extend_from_slice(b",\"page\":{\"next\":null,\"hasMore\":false},\"count\":null}");
    Ok(respond::documents(body, model, as_of, None, context))
}

/// `{"data":[…]`, in one buffer of the right size.
fn write_data<'d>(
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
) -> Result<Vec<u8>, Problem> {
    let bytes: usize = documents.clone().map(|document| 5 + document.map_or(0, |document| document.body.len())).sum();
    let mut body = Vec::with_capacity(bytes + 400);
    body.extend_from_slice(b"{\"data\":[");
    for (at, document) in documents.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        match (document, selection) {
            (None, _) => body.extend_from_slice(b"null"),
            (Some(document), None) => body.extend_from_slice(&document.body),
            (Some(document), Some(selection)) => selection.write(&mut body, &document.body)?,
        }
    }
    body.push(b']');
    Ok(body)
}

/// The same request with another `after`.
fn next_link(path: &str, query: &str, next: &str) -> String {
    let mut link = format!("{path}?");
    for part in query.split('&').filter(|part| !part.is_empty() && !part.starts_with("after=")) {
        link.extend(utf8_percent_encode(part, LINK_ESCAPES));
        link.push('&');
    }
    link + "after=" + next
}

impl Request {
    fn parse(query: &str, model: &Model) -> Result<Self, Problem> {
        let visibility = &*model.visibility;
        let [mut fields, mut sort, mut limited, mut after, mut count, mut ids] = [const { None }; 6];
        let mut conditions = Vec::new();
        // What cannot stand beside `ids`.
        let mut paging: Option<String> = None;
        for parameter in parse(query)? {
            let name = parameter.name.clone();
            let place: &mut Option<Cow<'_, str>> = match &*name {
                "fields" => &mut fields,
                "ids" => &mut ids,
                "sort" => &mut sort,
                "limit" => &mut limited,
                "after" => &mut after,
                "count" => &mut count,
                _ => {
                    conditions.push(condition(&parameter, model)?);
                    paging.get_or_insert(name.into_owned());
                    continue;
                }
            };
            if !matches!(&*name, "fields" | "ids") {
                paging.get_or_insert(name.clone().into_owned());
            }
            once(place, parameter)?;
        }
        if conditions.len() > CONDITIONS_MAX {
            return Err(Problem::parameter("filter", format!("a request has {CONDITIONS_MAX} filters at most")));
        }
        let selection = fields.map(|fields| Selection::new(&fields, &visibility.shape.fields)).transpose()?;
        if let Some(ids) = ids {
            if let Some(other) = paging {
                let detail = format!("`{other}` cannot stand beside `ids`, which names the documents one by one");
                return Err(Problem::parameter(other, detail));
            }
            let ids = parameters::split_list(&ids);
            if ids.len() > VALUES_MAX {
                return Err(Problem::parameter("ids", format!("at most {VALUES_MAX} ids can be asked for at once")));
            }
            return Ok(Self { selection, what: What::Ids(ids) });
        }
        let sort = match sort {
            None => None,
            Some(given) => {
                let path = given.strip_prefix('-');
                Some(Sort::new(visibility, path.unwrap_or(&given), path.is_some(), "sort")?)
            }
        };
        let count = match count.as_deref() {
            None | Some("none") => Counting::None,
            Some("estimated") => Counting::Estimated,
            Some("exact") => Counting::Exact,
            Some(_) => return Err(Problem::parameter("count", "`count` must be none, estimated or exact")),
        };
        let limit = limit(limited.as_deref(), LIMIT_DEFAULT, LIMIT_MAX)?;
        let after = after.map(Cow::into_owned);
        Ok(Self { selection, what: What::Page(PageRequest { conditions, sort, limit, after, count }) })
    }
}

/// `filter[path][operator]=value`.
fn condition(parameter: &Parameter<'_>, model: &Model) -> Result<Condition, Problem> {
    let name = &*parameter.name;
    let inside = name.strip_prefix("filter").ok_or_else(|| unknown(name, &NAMES))?;
    let form = || {
        Problem::parameter(name, format!("`{name}` must be `filter[path][operator]`, for example `filter[email][eq]`"))
    };
    let inside = inside.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).ok_or_else(form)?;
    let (path, word) = inside.split_once("][").ok_or_else(form)?;
    let operator = Operator::from_word(word).ok_or_else(|| {
        let words = || Operator::ALL.iter().map(|(word, _)| *word);
        let guess = nearest(word, words()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let all = words().collect::<Vec<_>>().join(", ");
        Problem::unknown_parameter(name, format!("there is no operator `{word}`, but {all}{guess}"))
    })?;
    let values = match operator {
        Operator::In | Operator::Nin => parameters::split_list(&parameter.value),
        _ => vec![parameter.value.clone().into_owned()],
    };
    Condition::new(&model.visibility, path, operator, values, name)
}
