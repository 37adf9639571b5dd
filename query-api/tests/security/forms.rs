//! What is not shown is not shown in any form: as a body's query, in CBOR, as lines, compressed, from the cache.

use headwater_query_api::{Mask, ModelRule};
use serde_json::{Value, json};

use crate::fixture::{Answer, customer, int_key, put, wait_until};
use crate::issuer::good;
use crate::world::{Guarded, by_index, mask};

fn ask(
    world: &Guarded,
    claims: &Value,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let token = format!("Bearer {}", good(claims.clone()));
    let mut all = vec![("authorization", token.as_str()), ("content-type", "application/json")];
    all.extend(headers);
    let body = (!body.is_null()).then(|| body.to_string());
    world.ask(method, path, &all, body.as_deref())
}

#[test]
fn a_query_by_body_finds_what_is_the_callers_own() {
    let world = Guarded::new(by_index());
    let me = json!({"group": 3});
    for way in [("QUERY", "/v1/customer"), ("POST", "/v1/customer:query")] {
        for body in [
            json!({"limit": 100}),
            json!({"filter": {"n": {"in": [1, 2, 3, 4]}}, "limit": 100}),
            json!({"filter": {"name": {"startsWith": "name"}}, "sort": "-name", "limit": 100}),
        ] {
            let answer = ask(&world, &me, way, &[], &body);
            let data = answer.json()["data"].as_array().unwrap().clone();
            assert!(!data.is_empty() && data.iter().all(|document| document["n"] == 3), "{body}: {}", answer.body);
            let lines = ask(&world, &me, way, &[("accept", "application/x-ndjson")], &body);
            assert_eq!(lines.body.lines().count(), data.len());
        }
        let foreign = ask(&world, &me, way, &[], &json!({"filter": {"n": {"eq": 4}}}));
        assert_eq!(foreign.json()["data"], json!([]));
        assert_eq!(
            ask(&world, &me, way, &[], &json!({"ids": [14, 13], "fields": ["id"]})).json()["data"],
            json!([null, {"id": 13}])
        );
        assert_eq!(world.ask(way.0, way.1, &[("content-type", "application/json")], Some("{}")).status, 401);
    }
    for way in [("QUERY", "/v1/me/customer"), ("POST", "/v1/me/customer:query")] {
        let own = ask(&world, &me, way, &[], &json!({"limit": 100}));
        let data = own.json()["data"].as_array().unwrap().clone();
        assert!(data.len() == 5 && data.iter().all(|document| document["n"] == 3), "{}", own.body);
        let named = ask(&world, &me, way, &[], &json!({"ids": [14]}));
        assert_eq!((named.status, &named.json()["pointer"]), (400, &json!("/ids")));
    }
}

#[test]
fn a_hidden_field_is_unknown_to_a_body() {
    let world = Guarded::new(ModelRule { masks: vec![mask(&["name"], Mask::Hidden)], ..ModelRule::default() });
    for body in [
        json!({"filter": {"FIELD": {"eq": "x"}}}),
        json!({"filter": {"FIELD": {"startsWith": "name 4"}}}),
        json!({"sort": "FIELD"}),
        json!({"fields": ["FIELD"]}),
    ] {
        let told = |field: &str| {
            let body = serde_json::from_str(&body.to_string().replace("FIELD", field)).unwrap();
            let answer = ask(&world, &json!({}), ("QUERY", "/v1/customer"), &[], &body);
            let said = answer.body.replace(answer.header("x-request-id"), "").replace(field, "FIELD");
            (answer.status, said)
        };
        assert_eq!(told("name"), told("zzzz"), "{body}");
        assert_eq!(told("name").0, 400);
    }
}

#[test]
fn what_one_caller_was_sent_another_is_not() {
    let world = Guarded::new(ModelRule { masks: vec![mask(&["name"], Mask::Hidden)], ..ModelRule::default() });
    let mut large = customer(7);
    large["name"] = "secret ".repeat(500).into();
    large["invoices"] = (0..80).map(|n| json!({"number": n, "status": "open", "total": "1.00"})).collect();
    put(&world.store, 1, &int_key(7), Some(&large));
    let support = json!({"roles": ["support"]});
    wait_until("the document", || world.get_as(&support, "/v1/customer/7").json() == large);
    for headers in [
        &[][..],
        &[("accept-encoding", "gzip")],
        &[("accept", "application/cbor")],
        &[("accept", "application/cbor"), ("accept-encoding", "gzip")],
    ] {
        let text = |answer: &Answer| {
            let mut bytes = Vec::new();
            match answer.header("content-encoding") {
                "gzip" => {
                    std::io::copy(&mut flate2::read::GzDecoder::new(answer.bytes.as_slice()), &mut bytes).unwrap();
                }
                _ => bytes.clone_from(&answer.bytes),
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let way = ("GET", "/v1/customer/7");
        let whole = ask(&world, &support, way, headers, &Value::Null);
        let (seen, again) =
            (ask(&world, &json!({}), way, headers, &Value::Null), ask(&world, &support, way, headers, &Value::Null));
        assert!(text(&whole).contains("secret") && text(&again).contains("secret"), "{headers:?}");
        assert!(!text(&seen).contains("secret") && !text(&seen).contains("name"), "{headers:?}");
        assert_ne!(seen.header("etag"), whole.header("etag"), "{headers:?}");
    }
}
