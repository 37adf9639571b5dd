//! Compression on the way out, of answers that were made for one request. Documents that are sent as they are stored come
//! here compressed already ([`super::point`]).

use hyper::header::{CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use crate::http::{Body, COMPRESSED_MIN, Effort, accepts_gzip, compressed_etag, gzip, has_compressed};

pub(super) const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// What a client can do with compressed answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compression {
    /// Whether it takes them.
    pub(super) accepted: bool,
    /// Whether it asks if one that it has is still right.
    has_one: bool,
}

impl Compression {
    /// What the request's headers say; nothing where `enabled` is not set.
    pub(super) fn of(headers: &HeaderMap, enabled: bool) -> Self {
        let accepted = enabled && accepts_gzip(headers);
        Self { accepted, has_one: accepted && has_compressed(headers) }
    }

    /// Whether a body of `len` bytes is sent compressed.
    pub(super) fn is_for(self, len: usize) -> bool {
        self.accepted && len >= COMPRESSED_MIN
    }

    /// Compresses an answer where that is wanted and worth it. Problems never are: they repeat what the request said.
    pub(super) async fn apply(self, response: &mut Response<Body>) {
        if !self.accepted || response.headers().contains_key(CONTENT_ENCODING) {
            return;
        }
        if response.status() == StatusCode::NOT_MODIFIED && self.has_one {
            rename(response.headers_mut());
        }
        if response.status() != StatusCode::OK {
            return;
        }
        let Body::Whole(body) = response.body() else { return };
        if !self.is_for(body.len()) {
            return;
        }
        if let Some(compressed) = Box::pin(gzip(body.clone(), Effort::Once)).await {
            *response.body_mut() = Body::Whole(compressed);
            response.headers_mut().insert(CONTENT_ENCODING, GZIP);
            rename(response.headers_mut());
        }
    }
}

/// Gives an answer the validator of its compressed form.
fn rename(headers: &mut HeaderMap) {
    if let Some(etag) = headers.get(ETAG).and_then(compressed_etag) {
        headers.insert(ETAG, etag);
    }
}
