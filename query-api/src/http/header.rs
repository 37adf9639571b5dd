//! Header names of our own, and what some headers of requests mean.

use hyper::header::{ACCEPT, HeaderMap, HeaderName, IF_NONE_MATCH};

/// Source time up to which an answer is complete.
pub(crate) const X_DATA_AS_OF: HeaderName = HeaderName::from_static("x-data-as-of");
/// Version number the model's author gave it.
pub(crate) const X_MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Names a request in logs and error reports.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a client of a live stream saw last.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether `If-None-Match` names `etag` (with its quotes), compared weakly as the standard wants it.
pub(crate) fn etag_matches(headers: &HeaderMap, etag: &[u8]) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|given| {
        given.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag
        })
    })
}

/// Whether the client asks for a live stream.
pub(crate) fn accepts_event_stream(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|given| {
        given.as_bytes().split(|byte| *byte == b',').any(|kind| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        })
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn validators_are_compared_weakly() {
        for (given, wanted) in [
            ("\"1-7\"", true),
            ("W/\"1-7\"", true),
            ("\"1-6\", \"1-7\"", true),
            ("*", true),
            ("\"1-70\"", false),
            ("1-7", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(given))]);
            assert_eq!(etag_matches(&headers, b"\"1-7\""), wanted, "{given}");
        }
    }
}
