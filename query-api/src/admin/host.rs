//! By which names the admin port may be asked.
//!
//! A page of another site can point a name of its own at this port (DNS rebinding). To the browser of someone who can
//! reach the port, both are one origin then, and the page reads every answer. What it cannot hide is the name.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{HOST, HeaderMap};

use crate::problem::Problem;

/// Ends of names that nobody can own on the internet: of this machine, a cluster, a cloud, and a local network.
const PRIVATE_ENDS: [&str; 4] = [".localhost", ".svc", ".internal", ".local"];

/// Refuses a request for a host that somebody else may own, unless it is one of `hosts`.
pub(super) fn check_host(headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    // A browser always names one.
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let host = String::from_utf8_lossy(host.as_bytes());
    let name = without_port(&host);
    if is_private(name) || hosts.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let title = "The admin port does not answer to this name";
    let detail = format!(
        "`{name}` may be the name of another site whose page sent this; ask by address, or by a name that is known only \
         inside your network, or add `{name}` to the setting `admin.hosts`"
    );
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign_host", title, detail))
}

/// The name or address alone, without brackets and the dot of the root.
fn without_port(host: &str) -> &str {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether it is an address, or a name that no server of the internet resolves.
fn is_private(name: &str) -> bool {
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.to_ascii_lowercase();
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    is_plain && (!name.contains('.') || PRIVATE_ENDS.iter().any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn is_let_in(host: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
        check_host(&headers, &["Ops.example.com".into()]).is_ok()
    }

    #[test]
    fn names_that_nobody_else_owns_are_let_in() {
        for host in [
            "127.0.0.1",
            "10.0.0.7:9090",
            "[::1]:9090",
            "[::1]",
            "localhost:1234",
            "LOCALHOST",
            "a.localhost",
            "headwater:9090",
            "headwater.billing.svc",
            "headwater.billing.svc.cluster.local.:9090",
            "ip-10-0-0-7.eu-west-1.compute.internal",
            "printer.local",
            "ops.example.com:9090",
        ] {
            assert!(is_let_in(host), "{host}");
        }
        assert!(check_host(&HeaderMap::new(), &[]).is_ok());
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example:9090",
            "evil.example.:9090",
            "127.0.0.1.evil.example",
            "127.0.0.1.evil.example:9090",
            "localhost.evil.example",
            "[evil.example]:9090",
            "evilsvc.example",
            "x.ops.example.com",
            "",
            ":9090",
            "a@evil.example",
            "a/b",
        ] {
            assert!(!is_let_in(host), "{host}");
        }
    }
}
