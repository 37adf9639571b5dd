//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the trace that a request says it belongs to goes on here with
//! a span of its own. No trace is begun where none comes: nothing here collects spans, and the request's id names it.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Trace, span and flags.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add for themselves.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of `00-{trace}-{span}-{flags}`.
const LEN: usize = 55;
/// Longest state that is passed on, in bytes: as much as the standard wants to be.
const STATE_LEN_MAX: usize = 512;
/// Entries of a state, at most, by the standard.
const STATE_ENTRIES_MAX: usize = 32;
/// Flags that are passed on: sampled, and random trace id.
const FLAGS: u8 = 0b11;

/// The trace a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// `00-{trace}-{span}-{flags}` with the span of this request.
    parent: [u8; LEN],
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace that these headers tell of, with `span` as that of this request. What does not follow the standard is as
    /// good as nothing.
    pub(crate) fn of(headers: &HeaderMap, span: impl FnOnce() -> [u8; 8]) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (Some(one), None) = (given.next(), given.next()) else { return None };
        let (trace, flags) = parse(one.as_bytes())?;
        let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
        parent[3..35].copy_from_slice(trace);
        for (at, byte) in span().into_iter().enumerate() {
            [parent[36 + 2 * at], parent[37 + 2 * at]] = hex(byte);
        }
        [parent[53], parent[54]] = hex(flags & FLAGS);
        Some(Self { parent, state: state(headers) })
    }

    /// The trace's id, 32 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        std::str::from_utf8(&self.parent[3..35]).expect("checked to be digits")
    }

    /// Adds the trace to an answer.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(&self.parent).expect("digits and hyphens"));
        headers.extend(self.state.clone().map(|state| (TRACESTATE, state)));
    }
}

/// Trace id and flags.
fn parse(text: &[u8]) -> Option<(&[u8], u8)> {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let head = text.get(..LEN)?;
    let (version, trace, span, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
    let is_whole = match version {
        b"00" => text.len() == LEN,
        b"ff" => false,
        // Later versions may say more behind another hyphen.
        _ => text.get(LEN).is_none_or(|byte| *byte == b'-'),
    };
    let hyphens = [head[2], head[35], head[52]] == [b'-'; 3];
    let digits = [version, trace, span, flags].into_iter().all(is_hex);
    if !(is_whole && hyphens && digits) || is_zero(trace) || is_zero(span) {
        return None;
    }
    let flags = std::str::from_utf8(flags).ok()?;
    Some((trace, u8::from_str_radix(flags, 16).ok()?))
}

/// The state as it came, where it is fit to be passed on.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let given: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
    let state = given.join(&b","[..]);
    let entries = state.split(|byte| *byte == b',').filter(|entry| !entry.trim_ascii().is_empty()).count();
    let fits = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    if entries == 0 || entries > STATE_ENTRIES_MAX || state.len() > STATE_LEN_MAX || !state.iter().all(fits) {
        return None;
    }
    HeaderValue::from_bytes(&state).ok()
}

fn hex(byte: u8) -> [u8; 2] {
    let digits = b"0123456789abcdef";
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 0xf8];
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(headers: &[(HeaderName, &str)]) -> Option<Trace> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        Trace::of(&map, || SPAN)
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let trace = trace(&[(TRACEPARENT, GIVEN), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]).expect("a trace");
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let mut told = HeaderMap::new();
        trace.tell(&mut told);
        assert_eq!(told[TRACEPARENT], "00-4bf92f3577b34da6a3ce929d0e0e4736-01020304050607f8-01");
        assert_eq!(told[TRACESTATE], "a=1,b=2");
    }

    #[test]
    fn only_what_follows_the_standard_is_a_trace() {
        let zero = "0".repeat(32);
        for (given, is_one) in [
            (GIVEN.to_string(), true),
            (format!("cc{}", &GIVEN[2..]), true),
            (format!("cc{}-what-comes", &GIVEN[2..]), true),
            (format!("cc{}.what", &GIVEN[2..]), false),
            (format!("{GIVEN}-more"), false),
            (format!("ff{}", &GIVEN[2..]), false),
            (GIVEN.to_uppercase(), false),
            (GIVEN[..54].to_string(), false),
            (GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zero), false),
            (GIVEN.replace("00f067aa0ba902b7", &zero[..16]), false),
            (GIVEN.replace('-', "_"), false),
            ("é".repeat(30), false),
            (String::new(), false),
        ] {
            assert_eq!(trace(&[(TRACEPARENT, &given)]).is_some(), is_one, "{given}");
        }
        assert_eq!(trace(&[(TRACEPARENT, GIVEN), (TRACEPARENT, GIVEN)]), None, "which of the two?");
        let long = format!("a={}", "x".repeat(STATE_LEN_MAX));
        assert_eq!(trace(&[(TRACEPARENT, GIVEN), (TRACESTATE, &long)]).expect("a trace").state, None);
        assert_eq!(trace(&[(TRACESTATE, "a=1")]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in proptest::collection::vec(0u8..255, 0..70)) {
            let _ = parse(&text);
        }
    }
}
