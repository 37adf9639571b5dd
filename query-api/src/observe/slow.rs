//! Requests that took long: one line each, with what was asked but none of its values.

use std::time::Duration;

use hyper::{Method, Uri};

use super::Reads;
use crate::context::RequestId;
use crate::metrics::Route;

/// Where the lines go; a filter of the log by this name keeps them apart.
const TARGET: &str = "headwater::slow";
/// Longest query that is told, in bytes.
const QUERY_LEN_MAX: usize = 1000;
/// Parameters whose names are told.
const NAMES: [&str; 12] = [
    "fields",
    "sort",
    "limit",
    "after",
    "count",
    "ids",
    "channel",
    "query",
    "variables",
    "operationName",
    "extensions",
    "documentId",
];
/// Parameters whose values are names of the model.
const TOLD: [&str; 3] = ["fields", "sort", "count"];

/// A request that took long.
pub(crate) struct Slow<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) route: Route,
    /// Empty where there was none.
    pub(crate) model: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) reads: &'a Reads,
    pub(crate) status: u16,
    pub(crate) took: Duration,
}

impl Slow<'_> {
    /// Writes the line.
    pub(crate) fn tell(&self) {
        let query = match self.reads.operation() {
            Some(operation) => operation.to_string(),
            None => normal_request(self.method, self.uri, self.model),
        };
        tracing::warn!(
            target: TARGET,
            request_id = self.request_id.as_str(),
            trace_id = self.request_id.trace_id(),
            route = self.route.name(),
            model = self.model,
            channel = self.channel,
            query,
            documents = self.reads.documents(),
            status = self.status,
            milliseconds = self.took.as_secs_f64() * 1e3,
            "slow query"
        );
    }
}

/// A request by REST without its values: requests that differ only in them read the same.
fn normal_request(method: &Method, uri: &Uri, model: &str) -> String {
    let mut out = format!("{method} ");
    let mut parts = uri.path().split('/').skip(1);
    // Where no model was found the path is whatever the client wrote.
    match (parts.next(), model) {
        (Some("v1"), model) if !model.is_empty() => {
            out += "/v1";
            for (at, part) in parts.enumerate() {
                out.push('/');
                out += match at {
                    _ if part.strip_suffix(":query").unwrap_or(part) == model || (at == 0 && part == "me") => part,
                    1 if part == "schema" => part,
                    2 if is_name(part) => part,
                    _ => "{id}",
                };
            }
        }
        (Some(first @ ("graphql" | "openapi.json")), _) => out += &format!("/{first}"),
        _ => out.push('…'),
    }
    let given = crate::rest::parameters(uri.query().unwrap_or_default()).unwrap_or_default();
    let mut told: Vec<String> = given
        .iter()
        .map(|parameter| {
            let name = &*parameter.name;
            match name {
                _ if TOLD.contains(&name) && is_name(&parameter.value) => format!("{name}={}", parameter.value),
                _ if NAMES.contains(&name) || (name.starts_with("filter[") && is_name(name)) => name.to_string(),
                _ => "?".to_string(),
            }
        })
        .collect();
    told.sort();
    for (at, one) in told.iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out += one;
    }
    shortened(out)
}

/// Whether a text can be names of fields, as they stand in parameters.
fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.,-[]".contains(&b))
}

/// The text of a GraphQL query without its values, comments and line ends.
pub(crate) fn normal_operation(query: &str) -> String {
    let mut out = String::with_capacity(query.len().min(QUERY_LEN_MAX));
    let bytes = query.as_bytes();
    let mut at = 0;
    let is_name = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    while let Some(&byte) = bytes.get(at) {
        let in_name = at > 0 && is_name(bytes.get(at - 1));
        let starts_number =
            byte.is_ascii_digit() || (byte == b'-' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit));
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                out.push('?');
                continue;
            }
            b'#' => {
                at += memchr::memchr2(b'\n', b'\r', &bytes[at..]).unwrap_or(bytes.len() - at);
                continue;
            }
            _ if starts_number && !in_name => {
                out.push('?');
                let is_number = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
                at += bytes[at..].iter().position(|b| !is_number(b)).unwrap_or(bytes.len() - at);
                continue;
            }
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            byte if byte.is_ascii_graphic() => out.push(byte as char),
            // Outside of texts and comments the language has no other letters.
            _ => out.push('?'),
        }
        at += 1;
        if out.len() > QUERY_LEN_MAX {
            break;
        }
    }
    out.truncate(out.trim_end().len());
    shortened(out)
}

/// The place behind the text that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    if bytes[at..].starts_with(b"\"\"\"") {
        let mut end = at + 3;
        while end < bytes.len() {
            match &bytes[end..] {
                [b'\\', b'"', b'"', b'"', ..] => end += 4,
                [b'"', b'"', b'"', ..] => return end + 3,
                _ => end += 1,
            }
        }
        return bytes.len();
    }
    let mut end = at + 1;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'\\' => end += 2,
            b'"' | b'\n' | b'\r' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

fn shortened(mut text: String) -> String {
    if text.len() > QUERY_LEN_MAX {
        let mut end = QUERY_LEN_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_without_values() {
        for (uri, model, wanted) in [
            ("/v1/invoice/2026~7", "invoice", "GET /v1/invoice/{id}"),
            ("/v1/invoice/7/lines?limit=3", "invoice", "GET /v1/invoice/{id}/lines?limit"),
            ("/v1/me/invoice", "invoice", "GET /v1/me/invoice"),
            ("/v1/invoice:query", "invoice", "GET /v1/invoice:query"),
            ("/v1/invoice/schema", "invoice", "GET /v1/invoice/schema"),
            ("/v1/secret/7", "", "GET …"),
            (
                "/v1/invoice?sort=-total&filter%5Bstatus%5D[in]=open,secret&fields=id,lines.amount&secret=1",
                "invoice",
                "GET /v1/invoice??&fields=id,lines.amount&filter[status][in]&sort=-total",
            ),
            ("/v1/invoice?sort=se%20cret&filter[se+cret][eq]=1", "invoice", "GET /v1/invoice??&sort"),
        ] {
            let told = normal_request(&Method::GET, &uri.parse().expect(uri), model);
            assert!(!told.contains("secret") && !told.contains("2026"), "{told}");
            assert_eq!(told, wanted, "{uri}");
        }
    }

    #[test]
    fn operations_are_told_without_values() {
        for (query, wanted) in [
            ("{ a(id: 7) { b1 } }", "{ a(id: ?) { b1 } }"),
            (
                "query Q($n: Int = -1.5e3) {\n  a(where: {x: {in: [\"s\\\"e\", \"c\"]}}, first: $n) { b }\n}",
                "query Q($n: Int = ?) { a(where: {x: {in: [? ?]}} first: $n) { b } }",
            ),
            ("{ a(t: \"\"\"se \\\"\"\" \"cret\"\"\") # secret\n { b } }", "{ a(t: ?) { b } }"),
            ("{ a(t: \"secret", "{ a(t: ?"),
            ("{ é }", "{ ?? }"),
            ("", ""),
        ] {
            assert_eq!(normal_operation(query), wanted, "{query}");
        }
        assert!(normal_operation(&"{ a }".repeat(1000)).ends_with('…'));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_told_short(query in ".*", more in "[\"\\\\#{}\n0-9a-]*") {
            proptest::prop_assert!(normal_operation(&query).len() <= QUERY_LEN_MAX + 4);
            proptest::prop_assert!(normal_operation(&more).len() <= QUERY_LEN_MAX + 4);
        }
    }
}
