//! Server-sent events as they are written.

use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};

use crate::context::ReadContext;
use crate::http::{Body, X_REQUEST_ID};

/// A comment is sent after this time without change, so that nothing between takes the stream for dead.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// That comment.
pub(crate) const COMMENT: Bytes = Bytes::from_static(b": still here\n\n");

/// An event.
pub(crate) fn of(kind: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(32 + kind.len() + id.map_or(0, str::len) + data.len());
    write(&mut event, kind, id, data);
    event.into()
}

/// Appends an event.
pub(crate) fn write(out: &mut Vec<u8>, kind: &str, id: Option<&str>, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    out.push(b'\n');
    // Line ends can stand between the parts of an embedded JSON column.
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// An answer that is a stream of events.
pub(crate) fn response(body: Body, context: &ReadContext) -> Response<Body> {
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(VARY, context.vary());
    head.insert(X_REQUEST_ID, context.request_id.header());
    response
}
