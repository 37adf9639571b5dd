//! HTTP by itself: bodies, connections, headers. Knows nothing of documents.

mod body;
mod connection;
mod gzip;
mod header;

pub(crate) use body::{Body, Unreadable, read_body};
pub(crate) use connection::{ConnectionsMax, Held, WRITE_WAIT, serve};
pub(crate) use gzip::{COMPRESSED_MIN, Effort, accepts_gzip, gzip};
pub(crate) use header::{
    CONSISTENCY_TOKEN, LAST_EVENT_ID, PREFER, PREFERENCE_APPLIED, SERVER_TIMING, X_DATA_AS_OF, X_MODEL_VERSION,
    X_REQUEST_ID, accepts_event_stream, compressed_etag, etag_matches, has_compressed, preferred_wait,
    prefers_event_stream, weight,
};
