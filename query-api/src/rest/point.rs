//! One document: the way most requests go, so it is one function that copies little.

use std::time::Instant;

use hyper::Response;
use hyper::header::{ETAG, HeaderMap};

use super::parameters::{once, parse, unknown};
use super::respond;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::{Body, etag_matches};
use crate::problem::Problem;
use crate::projection::Selection;
use crate::serving::Model;

/// Answers with a document as the caller sees it, or the parts of it that are wanted. `None` is an id that no document
/// can have.
pub(super) async fn point(
    api: &Api,
    model: &Model,
    id: Option<Vec<u8>>,
    query: Option<&str>,
    headers: &HeaderMap,
    context: &ReadContext,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let selection = match query {
        None | Some("") => None,
        Some(query) => selection(query, model)?,
    };
    let absent = || Problem::no_document(model.name());
    let id = id.ok_or_else(absent)?;
    // Before the document is read, so that nothing that came later is promised.
    let as_of = api.freshness.as_of();
    let document = model.visibility.get(&*api.reader, &id, context).await?.ok_or_else(absent)?;
    let etag = model.etag(document.stamp, selection.as_ref().map(Selection::fingerprint));
    let validator = respond::header(&ETAG, &etag)?;
    if etag_matches(headers, &etag) {
        let response = respond::not_modified(model, as_of, validator, context);
        model.point_metrics.not_modified(started.elapsed());
        return Ok(response);
    }
    let body = match selection {
        None => document.body,
        Some(selection) => {
            let mut out = Vec::with_capacity(document.body.len());
            selection.write(&mut out, &document.body)?;
            out.into()
        }
    };
    let len = body.len();
    let response = respond::documents(body, model, as_of, Some(validator), context);
    model.point_metrics.sent(len, started.elapsed());
    Ok(response)
}

/// The `fields` of a query string that may have nothing else.
pub(crate) fn selection(query: &str, model: &Model) -> Result<Option<Selection>, Problem> {
    let mut fields = None;
    for parameter in parse(query)? {
        match &*parameter.name {
            "fields" => once(&mut fields, parameter)?,
            name => return Err(unknown(name, &["fields"])),
        }
    }
    fields.map(|fields| Selection::new(&fields, &model.visibility.shape.fields)).transpose()
}
