//! Header names of our own, and what some headers of requests mean.

use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};

/// Source time up to which an answer is complete.
pub(crate) const X_DATA_AS_OF: HeaderName = HeaderName::from_static("x-data-as-of");
/// Version number the model's author gave it.
pub(crate) const X_MODEL_VERSION: HeaderName = HeaderName::from_static("x-model-version");
/// Names a request in logs and error reports.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What an answer reflects, and what a request wants reflected.
pub(crate) const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// How a request is to be dealt with (RFC 7240).
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// What of that was done.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// How long the parts of an answer took.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// What a client of a live stream saw last.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether `If-None-Match` names `etag` (with its quotes), compared weakly as the standard wants it.
pub(crate) fn etag_matches(headers: &HeaderMap, etag: &[u8]) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|given| {
        given.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
            tag == b"*" || tag == etag || is_compressed(tag, etag)
        })
    })
}

/// End of the ETag of an answer that was compressed: another representation of the same.
const COMPRESSED: &[u8] = b"-gz\"";

/// Whether `tag` is the ETag of what has the ETag `etag`, compressed.
fn is_compressed(tag: &[u8], etag: &[u8]) -> bool {
    tag.strip_suffix(COMPRESSED).is_some_and(|begin| etag.strip_suffix(b"\"") == Some(begin))
}

/// The ETag of a compressed answer.
pub(crate) fn compressed_etag(etag: &HeaderValue) -> Option<HeaderValue> {
    let begin = etag.as_bytes().strip_suffix(b"\"")?;
    HeaderValue::from_bytes(&[begin, COMPRESSED].concat()).ok()
}

/// Whether the client has something compressed.
pub(crate) fn has_compressed(headers: &HeaderMap) -> bool {
    let ends = |tag: &[u8]| tag.trim_ascii().ends_with(COMPRESSED);
    headers.get_all(IF_NONE_MATCH).iter().any(|given| given.as_bytes().split(|byte| *byte == b',').any(ends))
}

/// The seconds of `wait=N` in a `Prefer` header. What is no number is passed over, as the standard wants it.
pub(crate) fn preferred_wait(prefer: &HeaderValue) -> Option<u32> {
    prefer.to_str().ok()?.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| value.parse().ok()).flatten()
    })
}

/// Whether the client takes a live stream, whatever else it likes better: for what is answered in no other way.
pub(crate) fn accepts_event_stream(headers: &HeaderMap) -> bool {
    event_stream_weights(headers).0 > 0
}

/// Whether the client asks for a live stream: nothing else it names is liked better.
pub(crate) fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let (stream, others) = event_stream_weights(headers);
    stream > 0 && stream >= others
}

/// The weight of a live stream in `Accept`, and the highest of everything else that is named.
fn event_stream_weights(headers: &HeaderMap) -> (u16, u16) {
    let (mut stream, mut others) = (0, 0);
    for given in headers.get_all(ACCEPT) {
        for range in given.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let of = if kind.eq_ignore_ascii_case("text/event-stream") { &mut stream } else { &mut others };
            if !kind.is_empty() {
                *of = weight(parts.map(str::as_bytes)).max(*of);
            }
        }
    }
    (stream, others)
}

/// The weight among the parameters of a media range, in thousandths: 1000 where none is given, and nothing where what is
/// given is none.
pub(crate) fn weight<'p>(mut parameters: impl Iterator<Item = &'p [u8]>) -> u16 {
    let given = parameters.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let Some(given) = given else { return 1000 };
    let weight = std::str::from_utf8(given).ok().and_then(|given| given.parse::<f32>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(0, |weight| (weight * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_found_among_preferences() {
        for (given, wanted) in [
            ("wait=2", Some(2)),
            ("respond-async, Wait = \"10\"; x=1", Some(10)),
            ("wait", None),
            ("wait=-1", None),
            ("await=2", None),
            ("wait=99999999999", None),
        ] {
            assert_eq!(preferred_wait(&HeaderValue::from_static(given)), wanted, "{given}");
        }
    }

    #[test]
    fn a_stream_is_for_those_who_like_nothing_better() {
        for (given, accepted, preferred) in [
            ("text/event-stream", true, true),
            ("Text/Event-Stream; charset=utf-8", true, true),
            ("application/json, text/event-stream", true, true),
            ("text/event-stream;q=0.5, application/json;q=0.5", true, true),
            ("text/event-stream, */*;q=0.1", true, true),
            ("application/json, text/event-stream;q=0.9", true, false),
            ("*/*, text/event-stream; q=0.5", true, false),
            ("application/json, text/event-stream;q=0", false, false),
            ("text/event-stream;Q=0.000", false, false),
            ("text/event-stream;q=x", false, false),
            ("text/event-stream-2", false, false),
            ("*/*", false, false),
            ("application/json", false, false),
            ("", false, false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(given))]);
            assert_eq!(
                (accepts_event_stream(&headers), prefers_event_stream(&headers)),
                (accepted, preferred),
                "{given}"
            );
        }
        let mut headers = HeaderMap::new();
        assert!(!prefers_event_stream(&headers));
        headers.append(ACCEPT, HeaderValue::from_static("application/json"));
        headers.append(ACCEPT, HeaderValue::from_static("text/event-stream;q=0.2"));
        assert!(!prefers_event_stream(&headers), "the header may come in several lines");
    }

    #[test]
    fn validators_are_compared_weakly() {
        for (given, wanted) in [
            ("\"1-7\"", true),
            ("W/\"1-7\"", true),
            ("\"1-6\", \"1-7\"", true),
            ("*", true),
            ("\"1-7-gz\"", true),
            ("\"1-70-gz\"", false),
            ("\"1-70\"", false),
            ("1-7", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(given))]);
            assert_eq!(etag_matches(&headers, b"\"1-7\""), wanted, "{given}");
        }
    }
}
