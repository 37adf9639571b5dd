//! Queries whose question is a body: `QUERY`, and `POST …:query`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_query_api::AccessOptions;
use serde_json::{Value, json};

use crate::fixture::{Answer, World, customer, int_key, put};
use crate::hooked::Hooked;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn query(world: &World, body: &Value) -> Answer {
    let answer = world.ask("QUERY", "/v1/customer", &JSON, Some(&body.to_string()));
    let posted = world.ask("POST", "/v1/customer:query", &JSON, Some(&body.to_string()));
    assert_eq!((answer.status, posted.status), (posted.status, answer.status));
    if answer.status == 200 {
        assert_eq!(answer.body, posted.body, "{body}");
    }
    answer
}

#[test]
fn a_body_is_answered_as_the_query_string_is() {
    let world = World::new();
    for (body, path) in [
        (json!({}), ""),
        (json!({"filter": {}}), ""),
        (json!({"filter": {"n": {"gte": 3, "lt": "6"}}, "limit": 4}), "filter[n][gte]=3&filter[n][lt]=6&limit=4"),
        (json!({"filter": {"n": {"nin": [1, 2.0, "3"]}}, "sort": "-n"}), "filter[n][nin]=1,2.0,3&sort=-n"),
        (json!({"filter": {"n": {"exists": false}}, "count": "exact"}), "filter[n][exists]=false&count=exact"),
        (
            json!({"filter": {"name": {"in": ["name 4, \"the even\"", "x"]}}, "fields": ["id", "tariff.code"]}),
            "filter[name][in]=name+4%5C%2C+%22the+even%22,x&fields=id,tariff.code",
        ),
        (
            json!({"filter": {"invoices.total": {"gte": 10.50}, "invoices.status": {"eq": "paid"}}}),
            "filter[invoices.total][gte]=10.50&filter[invoices.status][eq]=paid",
        ),
        (json!({"ids": [3, "999", "x", 1], "fields": ["id"]}), "ids=3,999,x,1&fields=id"),
    ] {
        let answer = query(&world, &body);
        let wanted = world.get(&format!("/v1/customer?{path}"));
        assert_eq!((answer.status, &answer.body), (200, &wanted.body), "{body}");
        assert_eq!(answer.header("x-data-as-of"), wanted.header("x-data-as-of"));
        assert_eq!(answer.header("link"), "", "a link cannot hold a body");
    }
}

#[test]
fn pages_follow_each_other_and_cursors_are_those_of_the_query_string() {
    let world = World::new();
    let (mut seen, mut body) =
        (Vec::new(), json!({"filter": {"n": {"gt": 2}}, "sort": "n", "limit": 7, "fields": ["id"]}));
    loop {
        let page = query(&world, &body).json();
        seen.extend(page["data"].as_array().unwrap().clone());
        if page["page"]["next"].is_null() {
            break;
        }
        body["after"] = page["page"]["next"].clone();
    }
    let wanted = world.get("/v1/customer?filter[n][gt]=2&sort=n&limit=100&fields=id").json();
    assert_eq!(json!(seen), wanted["data"]);
    let next = world.get("/v1/customer?filter[n][gt]=2&sort=n&limit=3").json()["page"]["next"].clone();
    let rest = query(&world, &json!({"filter": {"n": {"gt": 2}}, "sort": "n", "after": next, "limit": 100})).json();
    assert_eq!(rest["data"].as_array().unwrap().len(), seen.len() - 3);
}

#[test]
fn pages_go_on_behind_long_values() {
    let world = World::new();
    for (id, letter, length) in [(7, "a", 20_000), (8, "b", 50_000)] {
        let mut document = customer(id);
        document["name"] = json!(letter.repeat(length));
        put(&world.store, 1, &int_key(id), Some(&document));
    }
    let first = world.get("/v1/customer?sort=name&limit=1&fields=id").json();
    assert_eq!(first["data"], json!([{"id": 7}]));
    let next = first["page"]["next"].as_str().unwrap();
    let second = world.get(&format!("/v1/customer?sort=name&limit=3&fields=id&after={next}"));
    assert_eq!(second.json()["data"][0], json!({"id": 8}), "{}", second.body);
    // A place that fits into no address is not read from a body either, and that is what is said.
    let mut body = json!({"sort": "name", "limit": 2, "fields": ["id"]});
    body["after"] = query(&world, &body).json()["page"]["next"].clone();
    let refused = query(&world, &body);
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("cursor_too_long")), "{}", refused.body);
    assert_eq!(refused.json()["pointer"], "/after");
}

#[test]
fn mistakes_in_a_body_are_named_by_their_place() {
    let world = World::new();
    for (body, code, pointer) in [
        (json!({"filter": {"nmae": {"eq": "x"}}}), "unknown_parameter", "/filter/nmae/eq"),
        (json!({"filter": {"name": {"like": "x"}}}), "unknown_parameter", "/filter/name/like"),
        (json!({"filter": {"n": {"gt": "abc"}}}), "invalid_parameter", "/filter/n/gt"),
        (json!({"filter": {"n": {"gt": null}}}), "invalid_parameter", "/filter/n/gt"),
        (json!({"filter": {"n": {"gt": {"$ne": 1}}}}), "invalid_parameter", "/filter/n/gt"),
        (json!({"filter": {"n": {"in": 1}}}), "invalid_parameter", "/filter/n/in"),
        (json!({"filter": {"n": 1}}), "invalid_parameter", "/filter/n"),
        (json!({"filter": {"a/b~c": 1}}), "invalid_parameter", "/filter/a~1b~0c"),
        (json!({"filter": {"nosuch": {}}}), "invalid_parameter", "/filter/nosuch"),
        (json!({"filter": []}), "invalid_parameter", "/filter"),
        (json!({"filter": {"name": {"contains": "x"}}}), "invalid_parameter", "/filter/name/contains"),
        (json!({"limt": 5}), "unknown_parameter", "/limt"),
        (json!({"limit": 0}), "invalid_parameter", "/limit"),
        (json!({"sort": 1}), "invalid_parameter", "/sort"),
        (json!({"sort": "nme"}), "unknown_parameter", "/sort"),
        (json!({"fields": "id"}), "invalid_parameter", "/fields"),
        (json!({"fields": ["id,name"]}), "invalid_parameter", "/fields"),
        (json!({"fields": []}), "invalid_parameter", "/fields"),
        (json!({"after": "forged"}), "invalid_cursor", "/after"),
        (json!({"count": "some"}), "invalid_parameter", "/count"),
        (json!({"ids": ["1"], "limit": 2}), "invalid_parameter", "/limit"),
        (json!([]), "invalid_body", ""),
        (json!("x"), "invalid_body", ""),
    ] {
        let answer = query(&world, &body);
        let problem = answer.json();
        assert_eq!((answer.status, problem["code"].as_str()), (400, Some(code)), "{body}: {}", answer.body);
        assert_eq!(problem["pointer"], pointer, "{body}: {}", answer.body);
        assert!(problem.get("parameter").is_none(), "{body}");
    }
    for (body, status, code) in [
        ("{", 400, "invalid_body"),
        ("", 400, "invalid_body"),
        ("{\"limit\": 1, \"limit\": 2}", 400, "invalid_body"),
        ("{\"filter\": {\"n\": {\"gt\": 1, \"gt\": 2}}}", 400, "invalid_body"),
    ] {
        let answer = world.ask("QUERY", "/v1/customer", &JSON, Some(body));
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{body}");
    }
    let deep = format!("{{\"filter\": {}", "{\"a\":".repeat(60_000));
    assert_eq!(world.ask("QUERY", "/v1/customer", &JSON, Some(&deep)).status, 413);
    let deep = format!("{{\"filter\": {}", "{\"a\":".repeat(10_000));
    assert_eq!(world.ask("QUERY", "/v1/customer", &JSON, Some(&deep)).json()["code"], "invalid_body");
    for kind in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/x-www-form-urlencoded")]] {
        let answer = world.ask("QUERY", "/v1/customer", kind, Some("{}"));
        assert_eq!((answer.status, &answer.json()["code"]), (415, &json!("unsupported_media_type")), "{kind:?}");
    }
    let both = world.ask("QUERY", "/v1/customer?limit=3", &JSON, Some("{}"));
    assert_eq!((both.status, &both.json()["parameter"]), (400, &json!("limit")), "{}", both.body);
    for (method, path, status, allow) in [
        ("POST", "/v1/customer", 405, "GET, HEAD, QUERY"),
        ("GET", "/v1/customer:query", 405, "POST"),
        ("QUERY", "/v1/customer:query", 405, "POST"),
        ("QUERY", "/v1/customer/7", 405, "GET, HEAD"),
        ("QUERY", "/v1/custmer", 404, ""),
        ("POST", "/v1/me/customer:query", 404, ""),
    ] {
        let answer = world.ask(method, path, &JSON, Some("{}"));
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path}: {}", answer.body);
    }
}

#[test]
fn an_operation_of_many_fields_reads_a_few_at_a_time() {
    let (reading, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, seen) = (reading.clone(), most.clone());
    let world = World::over(
        AccessOptions::default(),
        |store| {
            let before = move || {
                let (now, seen) = (now.clone(), seen.clone());
                async move {
                    seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            };
            Arc::new(Hooked { store, before })
        },
        |options| options.cache_bytes = 0,
    );
    let fields: String = (0..40).map(|n| format!("a{n}: customer(id: {}) {{ id }} ", n + 1)).collect();
    let body = json!({"query": format!("{{ {fields} }}")}).to_string();
    let answer = world.ask("POST", "/graphql", &JSON, Some(&body));
    let data = &answer.json()["data"];
    assert!((0..40).all(|n| data[format!("a{n}")]["id"] == n + 1), "{}", answer.body);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} reads at the same time");
    assert_eq!(reading.load(Ordering::SeqCst), 0);
}
