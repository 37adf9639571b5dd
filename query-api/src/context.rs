//! What accompanies a request from the edge to the store. Everything that depends on who reads (identity, channel,
//! limits) is decided at the edge and travels in here.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderMap, HeaderValue};

use crate::access::Principal;
use crate::channel::ChannelId;
use crate::http::X_REQUEST_ID;
use crate::observe::{Reads, Trace};
use crate::query::CursorKey;

/// Longest request id taken over from a client, in bytes.
const GIVEN_LEN_MAX: usize = 128;

/// What accompanies one request.
#[derive(Clone, Debug)]
pub(crate) struct ReadContext {
    /// Names the request.
    pub(crate) request_id: RequestId,
    /// Signs and checks cursors.
    pub(crate) cursors: Arc<CursorKey>,
    /// Index entries a query may look at, at most.
    pub(crate) entries_max: usize,
    /// Bytes of the documents that are read for one list, at most: a page ends early, and a batch is refused.
    pub(crate) documents_bytes_max: usize,
    /// Who asks.
    pub(crate) principal: Arc<Principal>,
    /// Where they are, behind the proxies that are trusted.
    pub(crate) address: IpAddr,
    /// Whether answers are for this caller only.
    pub(crate) is_private: bool,
    /// By which channel.
    pub(crate) channel: ChannelId,
    /// Value of `Vary`: the headers that decide what is answered.
    pub(crate) vary: HeaderValue,
    /// What is read for it.
    pub(crate) reads: Reads,
    /// Whether it was answered, and what is read now is read again for one who follows it.
    pub(crate) is_followed: bool,
}

impl ReadContext {
    /// Value of `Cache-Control` of answers that can be asked for again with their validator.
    pub(crate) fn cache_control(&self) -> HeaderValue {
        HeaderValue::from_static(if self.is_private { "private, no-cache" } else { "no-cache" })
    }

    /// Value of `Vary`.
    pub(crate) fn vary(&self) -> HeaderValue {
        self.vary.clone()
    }
}

/// Names a request in answers, logs and error reports: what the client sent, if that is fit for a log, or else a UUID
/// of version 7. With it goes the trace the request belongs to.
#[derive(Clone, Debug)]
pub(crate) struct RequestId {
    id: HeaderValue,
    trace: Option<Arc<Trace>>,
}

impl RequestId {
    /// The id of the request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let trace = Trace::of(headers, distinct_span).map(Arc::new);
        match headers.get(X_REQUEST_ID) {
            Some(given) if is_sane(given.as_bytes()) => Self { id: given.clone(), trace },
            _ => Self { trace, ..Self::new() },
        }
    }

    fn new() -> Self {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut text = [0; 36];
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &distinct_bytes()).into_uuid();
        id.as_hyphenated().encode_lower(&mut text);
        Self { id: HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens"), trace: None }
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        self.id.to_str().expect("checked to be ASCII")
    }

    /// As the value of a header.
    pub(crate) fn header(&self) -> HeaderValue {
        self.id.clone()
    }

    /// The id of the trace that the request belongs to, where it came with one.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.trace.as_deref().map(Trace::id)
    }

    /// Adds the trace to an answer.
    pub(crate) fn tell_trace(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.tell(headers);
        }
    }
}

fn is_sane(given: &[u8]) -> bool {
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    !given.is_empty() && given.len() <= GIVEN_LEN_MAX && given.iter().all(fit)
}

/// The id of a span that no other request has.
fn distinct_span() -> [u8; 8] {
    let bytes = distinct_bytes();
    let mut span = [0; 8];
    span.copy_from_slice(&bytes[2..]);
    // All zero would mean that there is none.
    span[0] |= u8::from(span == [0; 8]);
    span
}

/// Ten bytes that no other call returns: a counter, scrambled so that ids of two processes do not meet. They need not be
/// secret, so no system call is paid for them.
fn distinct_bytes() -> [u8; 10] {
    static SEED: LazyLock<u64> = LazyLock::new(|| uuid::Uuid::now_v7().as_u64_pair().1);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = SEED.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // The finaliser of SplitMix64: one to one.
    let mut mixed = (count ^ (count >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // The version overwrites half of the first byte and the variant a quarter of the third: the 64 bits go elsewhere.
    let mut bytes = [0; 10];
    [bytes[0], bytes[2]] = [(*SEED >> 8) as u8, *SEED as u8];
    bytes[1] = (mixed >> 56) as u8;
    bytes[3..].copy_from_slice(&mixed.to_be_bytes()[1..]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_of_version_7() {
        let ids: BTreeSet<String> = (0..10_000).map(|_| RequestId::new().as_str().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'7'), "{:?}", ids.first());
    }

    #[test]
    fn a_sane_id_is_kept_and_another_replaced() {
        for (given, kept) in [("abc-123", true), ("a b", false), ("", false), ("a\"b", false)] {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(given))]);
            assert_eq!(RequestId::of(&headers).as_str() == given, kept, "{given}");
        }
        let long = HeaderValue::from_str(&"x".repeat(GIVEN_LEN_MAX + 1)).expect("ASCII");
        assert_eq!(RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, long)])).as_str().len(), 36);
    }
}
