//! The same documents as JSON, CBOR, and a line each.

use ciborium::Value as Cbor;
use serde_json::{Map, Value, json};

use crate::fixture::World;

fn to_json(value: Cbor) -> Value {
    match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => value.into(),
        Cbor::Integer(n) => json!(i64::try_from(i128::from(n)).unwrap()),
        Cbor::Float(n) => n.into(),
        Cbor::Text(text) => text.into(),
        Cbor::Array(items) => items.into_iter().map(to_json).collect(),
        Cbor::Map(members) => {
            let member = |(name, value): (Cbor, Cbor)| (name.into_text().unwrap(), to_json(value));
            Value::Object(members.into_iter().map(member).collect::<Map<_, _>>())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn cbor_says_what_json_says() {
    let world = World::new();
    for path in [
        "/v1/customer/7",
        "/v1/customer/7?fields=id,invoices.total",
        "/v1/customer/7/invoices?limit=2",
        "/v1/customer?limit=7&count=exact&sort=-n",
        "/v1/customer?ids=7,999,8",
        "/v1/rate/a%2Fb%257E%2525~1970-01-01",
    ] {
        let as_json = world.get(path);
        let as_cbor = world.get_with(path, &[("accept", "application/cbor")]);
        assert_eq!((as_cbor.status, as_cbor.header("content-type")), (200, "application/cbor"), "{path}");
        let value = to_json(ciborium::from_reader(as_cbor.bytes.as_slice()).unwrap());
        assert_eq!(value, as_json.json(), "{path}");
        if !as_json.header("etag").is_empty() {
            assert_ne!(as_cbor.header("etag"), as_json.header("etag"), "{path}");
            let again = [("accept", "application/cbor"), ("if-none-match", as_cbor.header("etag"))];
            assert_eq!(world.get_with(path, &again).status, 304, "{path}");
            assert_eq!(world.get_with(path, &again[1..]).status, 200, "{path}");
        }
        assert!(as_cbor.header("vary").contains("accept"));
    }
}

#[test]
fn a_list_comes_a_document_a_line() {
    let world = World::new();
    let lines = [("accept", "application/x-ndjson")];
    for path in
        ["/v1/customer?limit=7&count=exact&sort=-n", "/v1/customer?ids=7,999,8", "/v1/customer?limit=100&fields=id"]
    {
        let (as_json, as_lines) = (world.get(path), world.get_with(path, &lines));
        assert_eq!((as_lines.status, as_lines.header("content-type")), (200, "application/x-ndjson"), "{path}");
        let documents: Vec<Value> = as_lines.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let page = as_json.json();
        assert_eq!(json!(documents), page["data"], "{path}");
        assert_eq!(as_lines.header("link"), as_json.header("link"), "{path}");
        assert_eq!(as_lines.header("x-next-cursor"), page["page"]["next"].as_str().unwrap_or_default(), "{path}");
        let count = page["count"]["value"].as_u64().map(|n| n.to_string()).unwrap_or_default();
        assert_eq!(as_lines.header("x-count"), count, "{path}");
    }
}

#[test]
fn what_there_is_not_is_told() {
    let world = World::new();
    for (path, accept, has_lines) in [
        ("/v1/customer/7", "application/x-ndjson", false),
        ("/v1/customer/7", "text/html", false),
        ("/v1/customer/7/invoices", "image/*", false),
        ("/v1/customer", "text/csv", true),
        ("/v1/customer?ids=7", "application/json;q=0", true),
    ] {
        let answer = world.get_with(path, &[("accept", accept)]);
        assert_eq!((answer.status, &answer.json()["code"]), (406, &json!("not_acceptable")), "{path} {accept}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let detail = answer.json()["detail"].as_str().unwrap().to_string();
        assert!(detail.contains("application/json, application/cbor"), "{detail}");
        assert_eq!(detail.contains("application/x-ndjson"), has_lines, "{detail}");
    }
}
