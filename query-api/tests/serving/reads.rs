//! Point reads, lists, batches, pages inside arrays.

use std::sync::Arc;
use std::time::Duration;

use headwater_query_api::AccessOptions;
use headwater_store::Error;
use serde_json::{Value, json};

use crate::fixture::{World, customer, int_key, put};
use crate::hooked::Hooked;

fn ids(list: &Value) -> Vec<i64> {
    list["data"].as_array().unwrap().iter().map(|document| document["id"].as_i64().unwrap()).collect()
}

/// Every page, by cursors; each item of a list once.
fn all(world: &World, path: &str) -> Vec<i64> {
    pages(world, path).iter().flat_map(ids).collect()
}

fn pages(world: &World, path: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut next = path.to_string();
    loop {
        let answer = world.get(&next);
        assert_eq!(answer.status, 200, "{next}: {}", answer.body);
        let page = answer.json();
        let cursor = page["page"]["next"].as_str().map(str::to_string);
        assert_eq!(page["page"]["hasMore"], json!(cursor.is_some()));
        seen.push(page);
        match answer.header("link").strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")) {
            Some((link, _)) => {
                assert!(link.ends_with(&format!("after={}", cursor.unwrap())), "{link}");
                next = link.to_string();
            }
            None => {
                assert!(cursor.is_none());
                return seen;
            }
        }
    }
}

#[test]
fn a_document_comes_as_it_is_stored() {
    let world = World::new();
    let answer = world.get_with("/v1/customer/7", &[("x-request-id", "abc-123")]);
    assert_eq!((answer.status, answer.json()), (200, customer(7)));
    assert_eq!(answer.body, customer(7).to_string());
    for (name, wanted) in [
        ("content-type", "application/json"),
        ("x-request-id", "abc-123"),
        ("x-data-as-of", "2026-01-31T12:00:00Z"),
        ("x-model-version", "3"),
        ("cache-control", "no-cache"),
        ("vary", "accept, accept-encoding"),
    ] {
        assert_eq!(answer.header(name), wanted, "{name}");
    }
    assert_eq!(world.get("/v1/customer/7").header("x-request-id").len(), 36);

    let etag = answer.header("etag");
    let again = world.get_with("/v1/customer/7", &[("if-none-match", &format!("W/{etag}, \"x\""))]);
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", etag));
    let chosen = world.get_with("/v1/customer/7?fields=invoices.total,id,tariff", &[("if-none-match", etag)]);
    assert_eq!(chosen.status, 200, "another shape is another answer");
    assert_eq!(
        chosen.json(),
        json!({"id": 7, "tariff": {"code": "T7"}, "invoices": [{"total": "7.00"}, {"total": "7.10"}, {"total": "7.20"}]})
    );
    assert_eq!(chosen.header("etag"), world.get("/v1/customer/7?fields=id,tariff,invoices.total").header("etag"));
    let head = world.ask("HEAD", "/v1/customer/7", &[], None);
    assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", etag));

    // Parts of an id with every letter that means something in a URL or in an id.
    assert_eq!(world.get("/v1/rate/a%2Fb%257E%2525~1970-01-01").json(), json!({"rate": "1.5"}));
    for absent in ["/v1/customer/999", "/v1/customer/abc", "/v1/customer/", "/v1/customer/1~2", "/v1/customer/%ff"] {
        let answer = world.get(absent);
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("document_not_found")), "{absent}");
    }
}

#[test]
fn pages_together_are_the_list() {
    let world = World::new();
    assert_eq!(all(&world, "/v1/customer?limit=7"), (1..=50).collect::<Vec<i64>>());
    let n = |id: i64| (id % 7 != 0).then_some(id % 10);
    let status = |id: i64, wanted: &[&str]| {
        customer(id)["invoices"].as_array().unwrap().iter().any(|one| wanted.contains(&one["status"].as_str().unwrap()))
    };
    let total = |id: i64| id as f64;
    type Holds<'h> = Box<dyn Fn(i64) -> bool + 'h>;
    let cases: Vec<(&str, Holds<'_>)> = vec![
        ("filter[n][gte]=3&filter[n][lt]=6", Box::new(|id| n(id).is_some_and(|n| (3..6).contains(&n)))),
        ("filter[n][lte]=2.5", Box::new(|id| n(id).is_some_and(|n| n <= 2))),
        ("filter[n][gt]=8", Box::new(|id| n(id).is_some_and(|n| n > 8))),
        ("filter[n][ne]=3", Box::new(|id| n(id).is_some_and(|n| n != 3))),
        ("filter[n][nin]=1,2,3", Box::new(|id| n(id).is_some_and(|n| ![1, 2, 3].contains(&n)))),
        ("filter[n][in]=9,1", Box::new(|id| n(id).is_some_and(|n| [1, 9].contains(&n)))),
        ("filter[n][exists]=false", Box::new(|id| n(id).is_none())),
        ("filter[n][exists]=true", Box::new(|id| n(id).is_some())),
        ("filter[n][gt]=5&filter[n][lt]=5", Box::new(|_| false)),
        ("filter[name][startsWith]=name+1", Box::new(|id| id.to_string().starts_with('1'))),
        ("filter[name][eq]=name+4%2C+%22the+even%22", Box::new(|id| id == 4)),
        ("filter[name][in]=name+4%5C%2C+%22the+even%22,x", Box::new(|id| id == 4)),
        (
            "filter[n][gte]=4&filter[name][contains]=%22the+odd",
            Box::new(|id| n(id).is_some_and(|n| n >= 4) && id % 2 == 1),
        ),
        ("filter[invoices.status][in]=open,overdue", Box::new(|id| status(id, &["open", "overdue"]))),
        ("filter[invoices.status][ne]=open", Box::new(|id| id % 4 != 0 && !status(id, &["open"]))),
        (
            "filter[invoices.total][gte]=10&filter[invoices.total][lt]=20&filter[invoices.status][eq]=paid",
            Box::new(|id| id % 4 != 0 && (10.0..20.0).contains(&total(id)) && status(id, &["paid"])),
        ),
    ];
    for (filter, holds) in &cases {
        let wanted: Vec<i64> = (1..=50).filter(|id| holds(*id)).collect();
        for rest in ["", "&sort=n", "&sort=-n", "&sort=name"] {
            for limit in [3, 100] {
                let path = format!("/v1/customer?{filter}{rest}&limit={limit}");
                let seen = all(&world, &path);
                let mut sorted = seen.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, wanted, "{path}");
                let ordered: Vec<_> = seen.iter().map(|id| (n(*id), *id)).collect();
                match rest {
                    // Null is least; the id decides among equals.
                    "&sort=n" => assert!(ordered.is_sorted(), "{path}: {ordered:?}"),
                    "&sort=-n" => assert!(ordered.iter().rev().is_sorted(), "{path}: {ordered:?}"),
                    _ => {}
                }
            }
        }
        if !filter.contains("contains") {
            let counted = world.get(&format!("/v1/customer?{filter}&count=exact&limit=1")).json();
            assert_eq!(counted["count"], json!({"kind": "exact", "value": wanted.len()}), "{filter}");
        }
    }
    assert_eq!(world.get("/v1/customer?count=exact&limit=1").json()["count"]["value"], 50);
    assert_eq!(world.get("/v1/customer?count=estimated&sort=n&limit=1").json()["count"]["value"], 50);
    assert!(world.get("/v1/customer?limit=1").json()["count"].is_null());
    let chosen = world.get("/v1/customer?fields=id&limit=2").json();
    assert_eq!(chosen["data"], json!([{"id": 1}, {"id": 2}]));
}

#[test]
fn one_element_meets_everything_that_is_asked_of_its_path() {
    let world = World::new();
    for (id, statuses) in [(1, ["TALK-MIN", "DATA-FLAT"]), (2, ["TALK-FLAT", "DATA-MIN"]), (3, ["DATA-FLAT", "TALK"])] {
        let mut document = customer(id);
        document["invoices"] =
            statuses.iter().map(|status| json!({"number": 0, "status": status, "total": "1.00"})).collect();
        put(&world.store, 1, &int_key(id), Some(&document));
    }
    let asked = |what: &str| what.replace("status", "filter[invoices.status]");
    for filter in [
        asked("status[startsWith]=TALK&status[contains]=FLAT"),
        asked("status[in]=TALK-MIN,TALK-FLAT,x&status[contains]=FLAT"),
        asked("status[startsWith]=TALK&status[contains]=T&status[contains]=FLAT"),
        asked("status[gte]=D&status[contains]=TALK&status[contains]=FLAT"),
        asked("status[contains]=TALK&status[contains]=FLAT&filter[n][gte]=0"),
        asked("status[ne]=DATA-FLAT&status[startsWith]=T&status[contains]=FLAT"),
    ] {
        for rest in ["", "&sort=n", "&sort=-name"] {
            assert_eq!(all(&world, &format!("/v1/customer?{filter}{rest}&limit=5")), [2], "{filter}{rest}");
        }
    }
    let apart = asked("status[startsWith]=TALK&status[contains]=TALK&filter[n][gte]=0");
    assert_eq!(all(&world, &format!("/v1/customer?{apart}&sort=n")), [1, 2, 3], "each by an element of its own");
}

#[test]
fn a_page_ends_before_it_has_too_many_bytes() {
    const BYTES_MAX: usize = 600;
    let world = World::with_options(|options| options.documents_bytes_max = BYTES_MAX);
    let mut large = customer(20);
    large["name"] = json!(format!("name 20, \"the even\" {}", "x".repeat(1_000)));
    put(&world.store, 1, &int_key(20), Some(&large));
    let everything: Vec<i64> = (1..=50).collect();
    let not_null: Vec<i64> = (1..=50).filter(|id| id % 7 != 0).collect();
    let is_open = |id: &i64| customer(*id)["invoices"].to_string().contains("open");
    let open: Vec<i64> = not_null.iter().copied().filter(is_open).collect();
    for (path, wanted) in [
        ("/v1/customer?limit=100", &everything),
        ("/v1/customer?limit=100&sort=-n", &everything),
        ("/v1/customer?limit=100&sort=n&filter[n][gte]=0&filter[invoices.status][eq]=open", &open),
        ("/v1/customer?limit=100&filter[n][gte]=0&filter[name][contains]=name", &not_null),
    ] {
        let pages = pages(&world, path);
        let mut seen: Vec<i64> = pages.iter().flat_map(ids).collect();
        seen.sort_unstable();
        assert_eq!(&seen, wanted, "{path}");
        for page in &pages {
            let bytes: usize = page["data"].as_array().unwrap().iter().map(|one| one.to_string().len()).sum();
            assert!(bytes <= BYTES_MAX || ids(page) == [20], "{path}: {bytes} bytes in {:?}", ids(page));
        }
        assert!(pages.iter().any(|page| ids(page).len() > 1), "{path}");
    }
}

#[test]
fn documents_that_are_too_large_together_are_refused() {
    let world = World::with_options(|options| options.documents_bytes_max = 600);
    let mut large = customer(20);
    large["name"] = json!("x".repeat(1_000));
    put(&world.store, 1, &int_key(20), Some(&large));
    assert_eq!(ids(&world.get("/v1/customer?ids=1,2").json()), [1, 2]);
    let alone = world.get("/v1/customer?ids=20,999").json();
    assert_eq!(alone["data"], json!([large, null]), "one alone is read, whatever its size");
    let refused = world.get("/v1/customer?ids=1,2,3,4,5,6,7,8&fields=id");
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("documents_too_large")));
    assert!(refused.body.contains("8 documents") && refused.body.contains("600 bytes"), "{}", refused.body);
    // Read once, and written as often as it is named.
    for (path, accept) in [
        ("/v1/customer?ids=20,20", "application/json"),
        ("/v1/customer?ids=20,20", "application/cbor"),
        ("/v1/customer?ids=20,20", "application/x-ndjson"),
        ("/v1/customer?ids=20,20&fields=name", "application/json"),
    ] {
        let refused = world.get_with(path, &[("accept", accept)]);
        assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("documents_too_large")), "{path} {accept}");
        assert!(refused.body.contains("2 documents") && refused.body.contains("600 bytes"), "{}", refused.body);
    }
    assert_eq!(ids(&world.get("/v1/customer?ids=20,20&fields=id").json()), [20, 20]);
    let query = json!({"query": "{ customersByIds(ids: [1, 2, 3, 4, 5, 6, 7, 8]) { id } }"}).to_string();
    let refused = world.ask("POST", "/graphql", &[("content-type", "application/json")], Some(&query));
    assert_eq!(refused.json()["errors"][0]["extensions"]["limit"], "document bytes", "{}", refused.body);
}

#[test]
fn documents_named_come_in_their_order() {
    let world = World::new();
    let batch = world.get("/v1/customer?ids=3,999,x,1,3&fields=id").json();
    assert_eq!(batch["data"], json!([{"id": 3}, null, null, {"id": 1}, {"id": 3}]));
    assert_eq!(world.get("/v1/rate?ids=a/b%257E%2525~1970-01-01").json()["data"], json!([{"rate": "1.5"}]));
}

#[test]
fn an_array_is_paged() {
    let world = World::new();
    let first = world.get("/v1/customer/7/invoices?limit=2&fields=number");
    let page = first.json();
    assert_eq!((&page["data"], &page["count"]["value"]), (&json!([{"number": 0}, {"number": 1}]), &json!(3)));
    let link = first.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_string();
    let last = world.get(&link).json();
    assert_eq!((&last["data"], &last["page"]), (&json!([{"number": 2}]), &json!({"next": null, "hasMore": false})));
    let again = world.get_with(&link, &[("if-none-match", world.get(&link).header("etag"))]);
    assert_eq!(again.status, 304);
    assert_eq!(world.get("/v1/customer/4/invoices").json()["data"], json!([]));
    let moved = link.replace("/7/", "/11/");
    assert_eq!(world.get(&moved).json()["code"], "invalid_cursor", "a cursor is good for its document only");
    for (path, code) in [
        ("/v1/customer/999/invoices", "document_not_found"),
        ("/v1/customer/7/invoces", "unknown_array"),
        ("/v1/customer/7/tariff", "unknown_array"),
        ("/v1/customer/7/invoices.status", "not_found"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!(code)), "{path}");
    }
}

#[test]
fn graphql_is_served_beside() {
    let world = World::new();
    let kind = [("content-type", "application/json")];
    let body = json!({"query": "query One($id: ID!) { customer(id: $id) { name } }", "variables": {"id": "7"}});
    let answer = world.ask("POST", "/graphql", &kind, Some(&body.to_string()));
    assert_eq!(
        (answer.status, &answer.json()["data"]["customer"]["name"]),
        (200, &customer(7)["name"]),
        "{}",
        answer.body
    );
    let answer = world.get("/graphql?query=%7Bcustomer(id:7)%7Bid%7D%7D");
    assert_eq!(answer.json(), json!({"data": {"customer": {"id": 7}}}));
    assert!(world.get("/graphql/schema").body.contains("type Customer "));
    for (kind, body, status) in
        [("text/plain", "{}", 415), ("application/json", "[]", 400), ("application/json", "{", 400)]
    {
        let answer = world.ask("POST", "/graphql", &[("content-type", kind)], Some(body));
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{body}");
    }
}

#[test]
fn a_read_that_does_not_end_is_ended() {
    let mut access = AccessOptions::default();
    access.limits.deadline = Duration::from_millis(300);
    let never = || std::future::pending::<Result<(), Error>>();
    let world = World::over(access, |store| Arc::new(Hooked { store, before: never }), |_| {});
    for path in ["/v1/customer/7", "/v1/customer/7/invoices", "/graphql?query=%7Bcustomer(id:7)%7Bid%7D%7D"] {
        let answer = world.get(path);
        let told = (answer.status, answer.header("retry-after"), answer.json()["code"].clone());
        assert_eq!(told, (503, "1", json!("deadline")), "{path}");
    }
}

#[test]
fn a_count_that_ended_early_tells_what_it_saw() {
    let world = World::with_options(|options| options.entries_max = 4);
    // Only the first of these has an open invoice, and the fourth is the last that is looked at.
    for (id, n) in [(9, 101), (1, 102), (5, 103), (4, 104), (13, 105)] {
        let mut document = customer(id);
        document["n"] = json!(n);
        put(&world.store, 1, &int_key(id), Some(&document));
    }
    let path = "/v1/customer?filter[n][gte]=100&filter[invoices.status][eq]=open&sort=n";
    let counted = world.get(&format!("{path}&count=estimated"));
    assert_eq!(counted.json()["count"], json!({"kind": "atLeast", "value": 1}), "{}", counted.body);
    let refused = world.get(&format!("{path}&count=exact"));
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("count_too_large")));
    assert!(refused.body.contains("more work than one request may do"), "{}", refused.body);
}
