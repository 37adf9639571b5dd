//! Compression of answers. One coding, because each is kept beside the document: gzip is what every client has.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// Bodies below this number of bytes are sent as they are: they fit a segment or two, and gain nothing.
pub(crate) const COMPRESSED_MIN: usize = 1024;
/// Bodies over this number of bytes are compressed on a thread of their own: others would wait too long.
const INLINE_MAX: usize = 64 << 10;

/// What compressing may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For bytes that are kept and sent many times.
    Kept,
    /// For bytes that are sent once.
    Once,
}

/// Whether the client takes gzip. One that names nothing is sent nothing of the kind, although it would be allowed.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    for coding in headers.get_all(ACCEPT_ENCODING).iter().flat_map(|given| given.as_bytes().split(|byte| *byte == b','))
    {
        let mut parts = coding.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        // `q=0`, `q=0.0`: not at all.
        let refused = parts.any(|part| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            named = Some(!refused);
        } else if name == b"*" {
            any = Some(!refused);
        }
    }
    named.or(any).unwrap_or(false)
}

/// `body` compressed; `None` when that failed, which memory alone could make it.
pub(crate) async fn gzip(body: Bytes, effort: Effort) -> Option<Bytes> {
    if body.len() <= INLINE_MAX {
        return compress(&body, effort);
    }
    tokio::task::spawn_blocking(move || compress(&body, effort)).await.ok().flatten()
}

fn compress(body: &[u8], effort: Effort) -> Option<Bytes> {
    let level = match effort {
        Effort::Kept => Compression::new(6),
        Effort::Once => Compression::new(1),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3 + 64), level);
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_ask_for_it() {
        for (given, wanted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
            ("*;q=0, gzip;q=1", true),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(given))]);
            assert_eq!(accepts_gzip(&headers), wanted, "{given}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
