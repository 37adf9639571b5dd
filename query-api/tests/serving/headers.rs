//! The headers of every kind of answer.

use std::num::NonZeroU32;

use headwater_query_api::{AccessOptions, Rate};

use crate::fixture::World;

/// Headers of every answer there is.
const ALWAYS: [&str; 5] =
    ["content-security-policy", "ratelimit", "ratelimit-policy", "x-content-type-options", "x-request-id"];
/// Headers of answers made of documents.
const DATA: [&str; 4] = ["cache-control", "consistency-token", "vary", "x-data-as-of"];

#[test]
fn every_kind_of_answer_has_its_headers() {
    let mut access = AccessOptions::default();
    let rate = NonZeroU32::new(100_000).unwrap();
    access.limits.principal = Some(Rate { requests: rate, per: std::time::Duration::from_secs(1), burst: rate });
    let world = World::with(access);
    let etag = world.get("/v1/customer/7").header("etag").to_string();
    let json = ("content-type", "application/json");
    let graphql = "{\"query\": \"{customer(id: 7) {id}}\"}";
    type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], Option<&'c str>, u16, &'c [&'c str], &'c [&'c str]);
    let cases: &[Case<'_>] = &[
        ("GET", "/v1/customer/7", &[], None, 200, &["content-type", "etag", "x-model-version"], &["link"]),
        ("HEAD", "/v1/customer/7", &[], None, 200, &["content-type", "etag", "x-model-version"], &["link"]),
        ("GET", "/v1/customer/7", &[("if-none-match", &etag)], None, 304, &["etag", "x-model-version"], &["link"]),
        ("GET", "/v1/customer/7?fields=id", &[], None, 200, &["etag", "x-model-version"], &["link"]),
        ("GET", "/v1/customer?limit=2", &[], None, 200, &["link", "x-model-version"], &["x-next-cursor"]),
        ("GET", "/v1/customer?limit=100", &[], None, 200, &["x-model-version"], &["link"]),
        (
            "GET",
            "/v1/customer?limit=2",
            &[("accept", "application/x-ndjson")],
            None,
            200,
            &["link", "x-next-cursor"],
            &[],
        ),
        ("GET", "/v1/customer?ids=7", &[], None, 200, &["x-model-version"], &["link"]),
        ("GET", "/v1/customer/7/invoices?limit=1", &[], None, 200, &["etag", "link", "x-model-version"], &[]),
        ("QUERY", "/v1/customer", &[json], Some("{\"limit\": 2}"), 200, &["x-model-version"], &["link"]),
        ("POST", "/v1/customer:query", &[json], Some("{}"), 200, &["x-model-version"], &["link"]),
        ("POST", "/graphql", &[json], Some(graphql), 200, &["content-type"], &["link"]),
        ("GET", "/v1/customer/schema", &[], None, 200, &["content-type"], &["etag"]),
        ("GET", "/openapi.json", &[], None, 200, &["content-type"], &["etag"]),
        ("GET", "/v1/customer/999", &[], None, 404, &["cache-control"], &["etag"]),
        ("GET", "/v1/customer?limit=x", &[], None, 400, &["cache-control"], &["etag"]),
        ("GET", "/v1/customer/7", &[("accept", "text/html")], None, 406, &["cache-control"], &["etag"]),
        ("POST", "/v1/customer/7", &[], None, 405, &["allow"], &["etag"]),
        ("QUERY", "/v1/customer", &[], Some("{}"), 415, &["cache-control"], &["etag"]),
        ("GET", "/v1/customer/7", &[("consistency-token", "billing=ff")], None, 503, &["retry-after"], &["etag"]),
        ("GET", "/nothing", &[], None, 404, &["cache-control"], &["etag"]),
    ];
    for (method, path, headers, body, status, wanted, unwanted) in cases {
        let answer = world.ask(method, path, headers, *body);
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.body);
        for name in ALWAYS.iter().chain(*wanted) {
            assert_ne!(answer.header(name), "", "{method} {path}: {name}");
        }
        for name in *unwanted {
            assert_eq!(answer.header(name), "", "{method} {path}: {name}");
        }
        let is_described = path.ends_with("schema") || path.ends_with(".json");
        if (200..400).contains(status) && !is_described {
            for name in DATA {
                assert_ne!(answer.header(name), "", "{method} {path}: {name}");
            }
            assert_eq!(answer.header("vary"), "accept, accept-encoding", "{method} {path}");
            assert_eq!(answer.header("cache-control"), "no-cache", "{method} {path}");
        }
        if *status >= 400 {
            assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        }
    }
}
