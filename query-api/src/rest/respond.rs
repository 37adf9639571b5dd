//! Heads of answers.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY};
use hyper::{Response, StatusCode};

use super::format::Format;
use crate::context::ReadContext;
use crate::freshness::Moment;
use crate::http::{Body, X_MODEL_VERSION, X_REQUEST_ID};
use crate::problem::Problem;
use crate::serving::Model;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Headers of an answer, about.
const HEADERS: usize = 12;

/// An answer made of documents of a model. Headers of its own can be added.
pub(super) fn documents(
    body: impl Into<Bytes>,
    format: Format,
    model: &Model,
    moment: Moment,
    etag: Option<HeaderValue>,
    context: &ReadContext,
) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, format.content_type());
    describe(&mut headers, model, moment, etag, context);
    let mut response = Response::new(Body::Whole(body.into()));
    *response.headers_mut() = headers;
    response
}

/// The answer to a reader who has it already.
pub(super) fn not_modified(model: &Model, moment: Moment, etag: HeaderValue, context: &ReadContext) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    describe(response.headers_mut(), model, moment, Some(etag), context);
    response
}

/// The headers that every answer about documents has.
pub(super) fn describe(
    headers: &mut HeaderMap,
    model: &Model,
    moment: Moment,
    etag: Option<HeaderValue>,
    context: &ReadContext,
) {
    if let Some(etag) = etag {
        headers.insert(ETAG, etag);
    }
    moment.tell(headers);
    headers.insert(X_MODEL_VERSION, model.version_header.clone());
    headers.insert(X_REQUEST_ID, context.request_id.header());
    // Caches keep an answer and ask each time whether it is still right.
    headers.insert(CACHE_CONTROL, context.cache_control());
    headers.insert(VARY, context.vary());
}

/// An answer that is not made of documents.
pub(super) fn plain(body: impl Into<Bytes>, kind: HeaderValue, context: &ReadContext) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, context.cache_control());
    headers.insert(VARY, context.vary());
    headers.insert(X_REQUEST_ID, context.request_id.header());
    response
}

/// A header made of text that came from a request or a document.
pub(super) fn header(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, Problem> {
    HeaderValue::from_bytes(value).map_err(|_| Problem::internal(format!("{name} cannot be written")))
}
