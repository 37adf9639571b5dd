//! Where a request comes from.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a request's sender. Each trusted proxy appends the address it saw to `X-Forwarded-For`, so that what
/// stands so many places from the end was written by one of ours; what stands before it was written by the sender, who
/// may write anything.
pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted_hops: usize) -> IpAddr {
    let Some(place) = trusted_hops.checked_sub(1) else { return peer };
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut from_the_end = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let seen = from_the_end.nth(place).and_then(|entry| std::str::from_utf8(entry).ok()).and_then(parse);
    // Fewer entries than there are proxies: it did not come through all of them.
    seen.unwrap_or(peer)
}

/// An address, perhaps with brackets and a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    entry
        .parse()
        .ok()
        .or_else(|| entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn only_what_our_proxies_wrote_is_believed() {
        let peer: IpAddr = "10.0.0.9".parse().expect("an address");
        for (lines, hops, wanted) in [
            (&["1.1.1.1"][..], 0, "10.0.0.9"),
            (&["1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1"], 1, "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1", "10.0.0.8"], 2, "1.1.1.1"),
            (&["1.1.1.1:443"], 1, "1.1.1.1"),
            (&["[2001:db8::1]:443"], 1, "2001:db8::1"),
            (&["[2001:db8::1]"], 1, "2001:db8::1"),
            (&["nonsense"], 1, "10.0.0.9"),
            (&[], 1, "10.0.0.9"),
            (&["1.1.1.1"], 3, "10.0.0.9"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            assert_eq!(of(peer, &headers, hops).to_string(), wanted, "{lines:?} {hops}");
        }
    }
}
