//! `Consistency-Token`: nobody who moves from one server to another reads back in time.

use std::time::{Duration, Instant};

use headwater_query_api::AccessOptions;
use serde_json::json;

use crate::fixture::{World, customer, int_key, put_at, set_frontier, wait_until};

/// Two servers, of which the second is behind.
fn two() -> (World, World) {
    let (ahead, behind) = (World::new(), World::new());
    let mut document = customer(7);
    document["n"] = json!(1000);
    put_at(&ahead.store, 0xab, &int_key(7), &document);
    set_frontier(&behind.store, "billing", 0xaa);
    wait_until("the frontier", || ahead.get("/v1/customer/7").json()["n"] == 1000);
    wait_until("the frontier", || {
        behind.get_with("/v1/customer/7", &[("consistency-token", "billing=aa")]).status == 200
    });
    (ahead, behind)
}

#[test]
fn a_server_that_is_behind_says_so() {
    let (ahead, behind) = two();
    wait_until("the frontier", || {
        ahead.get_with("/v1/customer/7", &[("consistency-token", "billing=ab")]).status == 200
    });
    let first = ahead.get("/v1/customer/7");
    let token = first.header("consistency-token");
    assert!(!token.is_empty());
    let kind = ("content-type", "application/json");
    for (method, path, body) in [
        ("GET", "/v1/customer/7", None),
        ("HEAD", "/v1/customer/7", None),
        ("GET", "/v1/customer?limit=2", None),
        ("GET", "/v1/customer?ids=7", None),
        ("GET", "/v1/customer/7/invoices", None),
        ("QUERY", "/v1/customer", Some("{}")),
        ("POST", "/graphql", Some("{\"query\": \"{customer(id: 7) {n}}\"}")),
    ] {
        let same = ahead.ask(method, path, &[("consistency-token", token), kind], body);
        assert_eq!((same.status, same.header("consistency-token")), (200, token), "{method} {path}");
        let answer = behind.ask(method, path, &[("consistency-token", token), kind], body);
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{method} {path}");
        assert_eq!(answer.header("cache-control"), "no-store");
        if method != "HEAD" {
            assert_eq!(answer.json()["code"], "not_yet_consistent");
        }
        assert_eq!(behind.ask(method, path, &[kind], body).status, 200, "without a token what there is is answered");
    }
    // The one that is ahead takes tokens of the one that is behind.
    let older = behind.get("/v1/customer/7");
    assert_eq!(
        ahead.get_with("/v1/customer/7", &[("consistency-token", older.header("consistency-token"))]).status,
        200
    );
}

#[test]
fn a_request_waits_as_long_as_it_prefers() {
    let (ahead, behind) = two();
    wait_until("the frontier", || {
        ahead.get_with("/v1/customer/7", &[("consistency-token", "billing=ab")]).status == 200
    });
    let token = ahead.get("/v1/customer/7").header("consistency-token").to_string();
    let begun = Instant::now();
    let early = behind.get_with("/v1/customer/7", &[("consistency-token", &token), ("prefer", "wait=1")]);
    assert_eq!((early.status, begun.elapsed() >= Duration::from_secs(1)), (503, true));
    let headers = [("consistency-token", token.as_str()), ("prefer", "respond-async, wait=9")];
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| behind.get_with("/v1/customer/7", &headers));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        let mut document = customer(7);
        document["n"] = json!(1001);
        let begun = Instant::now();
        put_at(&behind.store, 0xab, &int_key(7), &document);
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, &answer.json()["n"]), (200, &json!(1001)));
        assert_eq!(answer.header("preference-applied"), "wait=9");
        assert!(begun.elapsed() < Duration::from_secs(6), "it is told, and does not ask now and then");
    });
    // Who need not wait does not.
    let at_once = behind.get_with("/v1/customer/7", &[("consistency-token", &token), ("prefer", "wait=9")]);
    assert_eq!((at_once.status, at_once.header("preference-applied")), (200, ""));
}

#[test]
fn waiting_has_its_bounds() {
    let mut access = AccessOptions::default();
    access.limits.requests_max = 4;
    access.limits.deadline = Duration::from_secs(8);
    let world = World::with(access);
    let ask = |wait: &str| world.get_with("/v1/customer/7", &[("consistency-token", "billing=ffff"), ("prefer", wait)]);
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let long = scope.spawn(|| ask("wait=3600"));
        std::thread::sleep(Duration::from_secs(1));
        // One of four places may be taken by those who wait: others are told at once, and answered.
        assert_eq!((ask("wait=3600").status, world.get("/v1/customer/7").status), (503, 200));
        assert!(begun.elapsed() < Duration::from_secs(7));
        let answer = long.join().unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_yet_consistent")));
        assert!(begun.elapsed() < Duration::from_secs(20), "never longer than the deadline");
    });
}

#[test]
fn every_token_of_a_request_is_looked_at() {
    let (_, behind) = two();
    let ask = |tokens: [&str; 2]| {
        let headers = tokens.map(|token| ("consistency-token", token));
        behind.get_with("/v1/customer/7", &headers).status
    };
    assert_eq!(ask(["billing=aa", "billing=a9"]), 200);
    assert_eq!((ask(["billing=aa", "billing=ab"]), ask(["billing=ab", "billing=aa"])), (503, 503));
    assert_eq!(ask(["billing=aa", "x"]), 400);
}

#[test]
fn what_is_no_token_is_refused() {
    let world = World::new();
    for token in
        ["x", "", "AQ==", "AQID", "billing", "billing=", "billing=xyz", "=1", "nosuch=1", "billing=1,", "\u{e9}"]
    {
        let answer = world.get_with("/v1/customer/7", &[("consistency-token", token)]);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_consistency_token")), "{token}");
    }
}
