//! HTTP by itself: bodies, connections, headers. Knows nothing of documents.

mod body;
mod connection;
mod header;

pub(crate) use body::{Body, Unreadable, read_body};
pub(crate) use connection::serve;
pub(crate) use header::{
    LAST_EVENT_ID, X_DATA_AS_OF, X_MODEL_VERSION, X_REQUEST_ID, accepts_event_stream, etag_matches,
};
