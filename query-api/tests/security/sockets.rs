//! WebSockets as an attacker sees them: nobody hears what is not theirs, or hears it longer than they may.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_query_api::{AccessOptions, ModelRule, Rate};
use serde_json::{Value, json};

use crate::events::follow_with;
use crate::fixture::{World, customer, int_key, put, wait_until};
use crate::issuer::{Signing, claims, ec_jwk, ec_key, good, token};
use crate::socket::{PROTOCOL, Socket};
use crate::world::{API_KEY, Guarded, by_id};

const FOLLOW: &str = "subscription { customerChanged(id: 7) { n } }";

fn bearer(claims: Value) -> String {
    format!("Bearer {}", good(claims))
}

fn init(socket: &mut Socket, payload: Value) {
    socket.say(&json!({"type": "connection_init", "payload": payload}));
}

#[test]
fn who_asks_is_shown_once_and_is_believed_nowhere_else() {
    let world = Guarded::new(by_id());
    let mine = bearer(json!({"customer_id": 7}));
    let ack = json!({"type": "connection_ack"});
    let open = |headers: &[(&str, &str)]| Socket::open(&world, PROTOCOL, headers);
    // In the first message, or by headers.
    for payload in [json!({"Authorization": mine}), json!({"authorization": mine}), json!({"X-API-Key": API_KEY})] {
        let mut socket = open(&[]).unwrap();
        init(&mut socket, payload);
        assert_eq!(socket.hear(), ack);
        socket.subscribe("a", FOLLOW);
        assert_eq!(socket.result("a")["data"]["customerChanged"], json!({"n": null}));
    }
    let mut socket = open(&[("authorization", &mine)]).unwrap();
    init(&mut socket, Value::Null);
    assert_eq!(socket.hear(), ack);
    // Nobody, somebody who is not known, two at once, and those who say who they are in other words.
    for payload in [
        Value::Null,
        json!({}),
        json!({"authorization": "Bearer x.y.z"}),
        json!({"authorization": ["Bearer"]}),
        json!({"authorization": mine, "Authorization": bearer(json!({"customer_id": 8}))}),
        json!({"authorization": mine, "x-api-key": API_KEY}),
        json!({"customer_id": 7, "token": mine, "x-user-id": 7}),
    ] {
        let mut socket = open(&[]).unwrap();
        init(&mut socket, payload.clone());
        assert_eq!(socket.closed(), 4403, "{payload}");
    }
    let mut twice = open(&[("authorization", &mine)]).unwrap();
    init(&mut twice, json!({"authorization": bearer(json!({"customer_id": 8}))}));
    assert_eq!(twice.closed(), 4403, "another one than the one who opened it");
    assert_eq!(open(&[("authorization", "Bearer x.y.z")]).err(), Some(401));
    assert_eq!(open(&[("origin", "https://evil.example")]).err(), Some(403), "a page of another origin");
    let own = format!("http://{}", world.api.address);
    assert!(open(&[("origin", &own)]).is_ok());
}

#[test]
fn a_foreign_document_is_never_told() {
    let world = Guarded::new(by_id());
    let mut socket = Socket::ready(&world, &json!({"authorization": bearer(json!({"customer_id": 8}))}));
    socket.subscribe("foreign", FOLLOW);
    assert_eq!(socket.result("foreign"), json!({"data": {"customerChanged": null}}));
    socket.subscribe("own", "subscription { customerChanged(id: 8) { n } }");
    socket.result("own");
    for n in [100, 101, 102] {
        let mut document = customer(7);
        document["n"] = json!(n);
        put(&world.store, 1, &int_key(7), Some(&document));
        let mut document = customer(8);
        document["n"] = json!(n);
        put(&world.store, 1, &int_key(8), Some(&document));
        // The next message is always of the own: nothing is said of the other, not even that it changed.
        assert_eq!(socket.result("own")["data"]["customerChanged"]["n"], n);
    }
}

#[test]
fn a_connection_ends_with_its_credentials() {
    let world = Guarded::with(by_id(), |access| {
        access.auth.as_mut().unwrap().issuers[0].leeway = Duration::ZERO;
    });
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2;
    let mut socket = Socket::ready(&world, &json!({"authorization": bearer(json!({"customer_id": 7, "exp": soon}))}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    assert_eq!(socket.closed(), 4403);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((soon..=soon + 2).contains(&now), "{now}, and not {soon}");
}

#[test]
fn what_is_open_ends_with_the_keys_that_vouched_for_it() {
    let world = Guarded::with(by_id(), |access| {
        access.auth.as_mut().unwrap().issuers[0].refresh = Duration::from_millis(200);
    });
    let (mine, path) = (bearer(json!({"customer_id": 7})), "/v1/customer/7");
    let mut socket = Socket::ready(&world, &json!({"authorization": mine}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    let mut by_key = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    let mut all =
        ["/v1/customer/7", "/v1/customer"].map(|path| follow_with(&world, path, &[("Authorization", mine.as_str())]));
    for events in &mut all {
        assert!(events.next().is_some());
    }
    // A key that comes ends nothing.
    let own = ec_key();
    let header = json!({"alg": "ES256", "kid": "new"});
    let new = format!("Bearer {}", token(&header, &claims(json!({"customer_id": 7})), &Signing::Es256(&own)));
    world.issuer.keys.lock().unwrap().push(ec_jwk("new", &own));
    wait_until("the new key", || world.get_with(path, &[("authorization", &new)]).status == 200);
    socket.say(&json!({"type": "ping"}));
    assert_eq!(socket.hear(), json!({"type": "pong"}));
    // One that goes does.
    *world.issuer.keys.lock().unwrap() = vec![ec_jwk("new", &own)];
    assert_eq!(socket.closed(), 4403);
    for events in &mut all {
        assert!(events.is_over(), "the stream ended");
    }
    assert_eq!(world.get_with(path, &[("authorization", &mine)]).status, 401);
    // Whoever shows something else, or again, goes on.
    by_key.subscribe("a", FOLLOW);
    by_key.result("a");
    let mut again = Socket::ready(&world, &json!({"authorization": new}));
    again.subscribe("a", FOLLOW);
    again.result("a");
}

/// Of five operations the first three, and the others are over the limit.
fn three_are_answered(socket: &mut Socket) {
    for n in 0..5 {
        socket.subscribe(&n.to_string(), "{ customer(id: 7) { id } }");
        let heard = socket.hear();
        if n < 3 {
            assert_eq!(heard["type"], "next", "{heard}");
            assert_eq!(socket.hear()["type"], "complete");
        } else {
            assert_eq!(heard["payload"][0]["extensions"]["code"], "rate_limited", "{heard}");
        }
    }
}

#[test]
fn each_operation_counts_as_a_request() {
    let world = Guarded::with(ModelRule::default(), |access| {
        let requests = NonZeroU32::new(3).unwrap();
        access.limits.principal = Some(Rate { requests, per: Duration::from_secs(3600), burst: requests });
    });
    let mut socket = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    three_are_answered(&mut socket);
}

#[test]
fn each_operation_counts_for_its_address() {
    let world = Guarded::with(ModelRule::default(), |access| {
        let requests = NonZeroU32::new(4).unwrap();
        access.limits.address = Some(Rate { requests, per: Duration::from_secs(3600), burst: requests });
    });
    // Opening it is the first request.
    let mut socket = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    three_are_answered(&mut socket);
    assert_eq!(world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]).status, 429, "all of one address");
}

#[test]
fn a_client_that_reads_nothing_holds_no_place_of_others() {
    let mut access = AccessOptions::default();
    (access.limits.requests_max, access.limits.deadline) = (8, Duration::from_secs(1));
    let world = World::with(access);
    for id in [7, 8] {
        let mut document = customer(id);
        document["tariff"] = json!({"code": "x".repeat(500_000)});
        put(&world.store, 1, &int_key(id), Some(&document));
    }
    let mut socket = Socket::ready(&world, &json!({}));
    // More than the buffers between us hold.
    for n in 0..60 {
        socket.subscribe(
            &n.to_string(),
            "{ a: customer(id: 7) { tariff { code } } b: customer(id: 8) { tariff { code } } }",
        );
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.get("/v1/customer/9").status, 200, "those that were answered have left");
    drop(socket);
}

#[test]
fn limits_of_queries_hold_here_too() {
    let world = Guarded::new(ModelRule::default());
    let mut socket = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    let aliases: String = (0..200).map(|n| format!("a{n}: n ")).collect();
    for (query, limit) in [
        (format!("subscription {{ customerChanged(id: 7) {{ {aliases} }} }}"), "aliases"),
        ("subscription { customerChanged(id: 7) { invoices(first: 1000000) { number } } }".into(), "cost"),
        ("{ customers(first: 100) { nodes { invoices(first: 1000000) { number } } } }".into(), "cost"),
    ] {
        socket.subscribe("a", &query);
        let heard = socket.hear();
        assert_eq!((&heard["type"], &heard["payload"][0]["extensions"]["limit"]), (&json!("error"), &json!(limit)));
    }
    socket.subscribe("a", "subscription { a: customerChanged(id: 7) { n } b: customerChanged(id: 8) { n } }");
    assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "graphql_invalid");
}
