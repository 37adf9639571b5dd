//! GraphQL subscriptions, by events and through WebSockets.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_query_api::AccessOptions;
use headwater_store::{Error, VersionState};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::events::{Events, follow_with};
use crate::fixture::{
    World, customer, customers, int_key, put, put_with_statuses, record, set_version, set_versions, wait_until,
};
use crate::hooked::Hooked;
use crate::socket::{PROTOCOL, Socket};

const FOLLOW: &str = "subscription { customerChanged(id: 7) { n name } }";

fn changed(n: i64) -> Value {
    let mut document = customer(7);
    document["n"] = json!(n);
    document
}

fn set(world: &World, n: i64) {
    put(&world.store, 1, &int_key(7), Some(&changed(n)));
}

fn n_of(result: &Value) -> &Value {
    &result["data"]["customerChanged"]["n"]
}

fn by_events(world: &World, query: &str) -> Events {
    back_with(world, query, &[])
}

/// The stream for a client that has seen the event with this id.
fn back(world: &World, query: &str, id: &str) -> Events {
    back_with(world, query, &[("Last-Event-ID", id)])
}

fn back_with(world: &World, query: &str, headers: &[(&str, &str)]) -> Events {
    let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
    follow_with(world, &format!("/graphql?query={query}"), headers)
}

const FOLLOW_LIST: &str = "subscription { customersChanged(where: {n: {gte: 100}}, orderBy: n_ASC, first: 3) { nodes { id \
                           n } pageInfo { hasNextPage endCursor } } }";

fn set_one(world: &World, id: i64, n: i64) {
    let mut document = customer(id);
    document["n"] = json!(n);
    put(&world.store, 1, &int_key(id), Some(&document));
}

/// Ids of a list's result, and whether more follow.
fn page_of(result: &Value) -> (Vec<i64>, bool) {
    let page = &result["data"]["customersChanged"];
    let ids = page["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_i64().unwrap()).collect();
    (ids, page["pageInfo"]["hasNextPage"] == true)
}

#[test]
fn each_change_is_told_once_and_nothing_else_is() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW);
    assert_eq!(socket.result("a"), json!({"data": {"customerChanged": {"n": null, "name": customer(7)["name"]}}}));
    for n in [1, 2, 3] {
        put(&world.store, 1, &int_key(8), Some(&customer(8 * n)));
        set(&world, n);
        assert_eq!(n_of(&socket.result("a")), &json!(n));
        // What is not selected does not count as a change.
        let mut document = changed(n);
        document["tariff"] = json!({"code": format!("new {n}")});
        put(&world.store, 1, &int_key(7), Some(&document));
    }
    put(&world.store, 1, &int_key(7), None);
    assert_eq!(socket.result("a"), json!({"data": {"customerChanged": null}}));
    set(&world, 4);
    assert_eq!(n_of(&socket.result("a")), &json!(4));
    socket.say(&json!({"id": "a", "type": "complete"}));
    socket.say(&json!({"type": "ping"}));
    assert_eq!(socket.hear(), json!({"type": "pong"}));
    set(&world, 5);
    // The id is free again, and one that no document can have is null.
    socket.subscribe("a", "subscription { customerChanged(id: \"no number\") { n } }");
    assert_eq!(socket.result("a"), json!({"data": {"customerChanged": null}}));
    socket.subscribe("b", "query($id: ID = 3) { customer(id: $id) { id } }");
    assert_eq!(socket.result("b"), json!({"data": {"customer": {"id": 3}}}));
    assert_eq!(socket.hear(), json!({"id": "b", "type": "complete"}));
}

#[test]
fn the_protocol_is_kept_to_its_codes() {
    let world = World::with_options(|options| {
        options.graphql.subscriptions_max = 2;
        options.graphql.init_wait = Duration::from_millis(300);
    });
    let open = || Socket::open(&world, PROTOCOL, &[]).unwrap();
    assert_eq!(Socket::open(&world, "graphql-ws", &[]).err(), Some(400), "another protocol");
    let mut silent = open();
    assert_eq!(silent.closed(), 4408);
    let mut early = open();
    early.subscribe("a", FOLLOW);
    assert_eq!(early.closed(), 4401);
    let init = json!({"type": "connection_init"});
    let mut eager = open();
    eager.say(&init);
    eager.say(&init);
    eager.hear();
    assert_eq!(eager.closed(), 4429);
    for text in ["{", "{}", "{\"type\":\"start\",\"id\":\"1\"}", "{\"type\":\"subscribe\",\"payload\":{}}"] {
        let mut wrong = open();
        wrong.0.send(Message::text(text)).unwrap();
        assert_eq!(wrong.closed(), 4400, "{text}");
    }
    let mut binary = open();
    binary.0.send(Message::binary(init.to_string().into_bytes())).unwrap();
    assert_eq!(binary.closed(), 4400);
    let mut large = open();
    large.0.send(Message::text("x".repeat(300_000))).unwrap();
    assert_eq!(large.closed(), 1009);

    let mut socket = Socket::ready(&world, &Value::Null);
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    socket.subscribe("wrong", "subscription { customerChangd(id: 7) { n } }");
    let wrong = socket.hear();
    assert_eq!((&wrong["type"], &wrong["id"]), (&json!("error"), &json!("wrong")));
    assert!(wrong["payload"][0]["message"].as_str().unwrap().contains("customerChanged"), "{wrong}");
    socket.say(&json!({"id": "none", "type": "subscribe", "payload": {}}));
    assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "graphql_request");
    socket.subscribe("b", FOLLOW);
    socket.result("b");
    socket.subscribe("c", FOLLOW);
    assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "limit_exceeded");
    socket.subscribe("a", FOLLOW);
    assert_eq!(socket.closed(), 4409);
}

#[test]
fn a_client_that_says_goodbye_is_answered() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    socket.0.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).unwrap();
    assert_eq!(socket.closed(), 1000);
}

#[test]
fn a_slow_client_is_told_the_newest() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", "subscription { customerChanged(id: 7) { n name } }");
    socket.result("a");
    // More than the buffers between us hold.
    let long = "x".repeat(100_000);
    for n in 1..=300 {
        let mut document = changed(n);
        document["name"] = json!(long);
        put(&world.store, 1, &int_key(7), Some(&document));
    }
    let mut told = 0;
    loop {
        told += 1;
        if n_of(&socket.result("a")) == &json!(300) {
            break;
        }
    }
    assert!(told < 300, "all {told} states were kept for it");
}

#[test]
fn a_client_that_takes_nothing_keeps_nobody_from_what_it_follows() {
    let (is_slow, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (slow, count) = (is_slow.clone(), reads.clone());
    let world = World::over(
        AccessOptions::default(),
        |store| {
            let before = move || {
                count.fetch_add(1, Ordering::SeqCst);
                let waits = slow.swap(false, Ordering::SeqCst);
                async move {
                    if waits {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Ok(())
                }
            };
            Arc::new(Hooked { store, before })
        },
        |_| {},
    );
    let mut long = customer(8);
    long["tariff"] = json!({"code": "x".repeat(500_000)});
    put(&world.store, 1, &int_key(8), Some(&long));
    wait_until("the cache to listen", || {
        let before = reads.load(Ordering::SeqCst);
        world.get("/v1/customer/7");
        reads.load(Ordering::SeqCst) == before
    });
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    is_slow.store(true, Ordering::SeqCst);
    set(&world, 1);
    wait_until("the change to be read", || !is_slow.load(Ordering::SeqCst));
    // While it is read there comes more than the buffers between us hold.
    for n in 0..60 {
        let query = "{ a: customer(id: 8) { tariff { code } } b: customer(id: 8) { tariff { code } } }";
        socket.subscribe(&n.to_string(), query);
    }
    let begun = Instant::now();
    assert_eq!(world.get("/v1/customer/7").json()["n"], 1);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(socket);
}

#[test]
fn a_client_comes_back_after_a_read_that_failed() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let world = World::over(
        AccessOptions::default(),
        |store| {
            let before = move || {
                ready(match failing.swap(false, Ordering::SeqCst) {
                    true => {
                        Err(Error::Engine { place: "here".into(), action: "read", source: "it was told to".into() })
                    }
                    false => Ok(()),
                })
            };
            Arc::new(Hooked { store, before })
        },
        |options| options.cache_bytes = 0,
    );
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    set(&world, 1);
    assert_eq!(n_of(&socket.result("a")), &json!(1));
    fails.store(true, Ordering::SeqCst);
    set(&world, 2);
    // An `error` would be the operation's last word; after this code clients subscribe again.
    assert_eq!(socket.closed(), 1013);
    let mut again = Socket::ready(&world, &json!({}));
    again.subscribe("a", FOLLOW);
    assert_eq!(n_of(&again.result("a")), &json!(2));
}

#[test]
fn results_are_events_where_events_are_accepted() {
    let world = World::new();
    let mut events = by_events(&world, FOLLOW);
    let first = events.next().unwrap();
    assert_eq!((first.kind.as_str(), n_of(&first.json())), ("next", &Value::Null));
    set(&world, 1);
    assert_eq!(n_of(&events.next().unwrap().json()), &json!(1));
    put(&world.store, 1, &int_key(7), None);
    assert_eq!(events.next().unwrap().json(), json!({"data": {"customerChanged": null}}));
    let mut once = by_events(&world, "{ customer(id: 3) { id } }");
    assert_eq!(once.next().unwrap().json(), json!({"data": {"customer": {"id": 3}}}));
    assert_eq!(once.next().unwrap().kind, "complete");
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    for query in ["subscription { customerChanged(id: 7) { gone } }", "subscription { customerChanged { n } }"] {
        let answer = world.ask("POST", "/graphql", &headers, Some(&json!({"query": query}).to_string()));
        assert_eq!((answer.status, answer.json()["data"].clone()), (400, Value::Null), "{query}");
    }
    drop(events);
    wait_until("the stream to be forgotten", || {
        set(&world, Instant::now().elapsed().subsec_nanos().into());
        put(&world.store, 1, &int_key(7), None);
        world.admin("GET", "/metrics", &[], None).body.contains("headwater_api_live_streams 0")
    });
}

#[test]
fn subscriptions_go_over_to_a_new_version_and_end_with_the_server() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW);
    socket.subscribe("gone", "subscription { rateChanged(id: \"a~1970-01-01\") { rate } }");
    let mut events = by_events(&world, FOLLOW);
    socket.hear();
    socket.hear();
    events.next();
    set_version(&world.store, &record(3, customers(), VersionState::Building));
    put(&world.store, 3, &int_key(7), Some(&changed(77)));
    let switch = [
        record(1, customers(), VersionState::Retired),
        record(2, crate::fixture::rates(), VersionState::Retired),
        record(3, customers(), VersionState::Active),
    ];
    set_versions(&world.store, &switch);
    let mut heard = [socket.hear(), socket.hear()];
    heard.sort_by_key(|one| one["id"].to_string());
    assert_eq!(n_of(&heard[0]["payload"]), &json!(77));
    assert_eq!((&heard[1]["type"], &heard[1]["id"]), (&json!("error"), &json!("gone")));
    assert_eq!(n_of(&events.next().unwrap().json()), &json!(77));
    put(&world.store, 3, &int_key(7), Some(&changed(78)));
    assert_eq!(n_of(&socket.result("a")), &json!(78));
    assert_eq!(n_of(&events.next().unwrap().json()), &json!(78));

    let World { api, stop, runtime, .. } = world;
    stop.cancel();
    assert_eq!(socket.closed(), 1001);
    assert!(events.is_over());
    drop(socket);
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), api.join).await }).unwrap().unwrap();
}

#[test]
fn what_two_elements_meet_together_is_on_no_page() {
    let world = World::new();
    let list = "customersChanged(where: {invoices_status: {startsWith: \"TALK\", contains: \"FLAT\"}})";
    let mut events = by_events(&world, &format!("subscription {{ {list} {{ nodes {{ id }} }} }}"));
    assert_eq!(page_of(&events.next().unwrap().json()), (vec![], false));
    put_with_statuses(&world, 1, ["TALK-MIN", "DATA-FLAT"]);
    put_with_statuses(&world, 2, ["TALK-FLAT", "DATA-MIN"]);
    assert_eq!(page_of(&events.next().unwrap().json()), (vec![2], false));
}

#[test]
fn a_list_is_told_whole_whenever_what_is_selected_of_it_changes() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("a", FOLLOW_LIST);
    let mut events = by_events(&world, FOLLOW_LIST);
    let mut next = || {
        let (heard, event) = (socket.result("a"), events.next().unwrap());
        assert_eq!(heard, event.json(), "both are told the same");
        heard
    };
    let empty = json!({"nodes": [], "pageInfo": {"hasNextPage": false, "endCursor": null}});
    assert_eq!(next(), json!({"data": {"customersChanged": empty}}));
    set_one(&world, 5, 105);
    assert_eq!(page_of(&next()), (vec![5], false));
    // What is not on the list, or not selected, makes no event: the next one is of what is.
    set_one(&world, 6, 6);
    let mut unseen = customer(5);
    (unseen["n"], unseen["tariff"]) = (json!(105), json!({"code": "another"}));
    put(&world.store, 1, &int_key(5), Some(&unseen));
    set_one(&world, 3, 103);
    assert_eq!(page_of(&next()), (vec![3, 5], false));
    set_one(&world, 9, 100);
    assert_eq!(page_of(&next()), (vec![9, 3, 5], false));
    set_one(&world, 8, 101);
    let full = next();
    assert_eq!(page_of(&full), (vec![9, 8, 3], true), "one is behind the page");
    // Where the page ends is where a query of the same list goes on.
    let cursor = &full["data"]["customersChanged"]["pageInfo"]["endCursor"];
    let rest =
        format!("{{ customers(where: {{n: {{gte: 100}}}}, orderBy: n_ASC, after: {cursor}) {{ nodes {{ id }} }} }}");
    let body = json!({"query": rest}).to_string();
    let answer = world.ask("POST", "/graphql", &[("content-type", "application/json")], Some(&body)).json();
    assert_eq!(answer["data"]["customers"]["nodes"], json!([{"id": 5}]), "{answer}");
    // Further behind makes no difference; that nothing is there any more does.
    set_one(&world, 10, 500);
    put(&world.store, 1, &int_key(10), None);
    put(&world.store, 1, &int_key(5), None);
    assert_eq!(page_of(&next()), (vec![9, 8, 3], false));
    put(&world.store, 1, &int_key(9), None);
    assert_eq!(page_of(&next()), (vec![8, 3], false));
}

#[test]
fn a_list_is_followed_within_the_limits_of_a_page() {
    let world = World::new();
    let mut socket = Socket::ready(&world, &json!({}));
    for (arguments, selected, code) in [
        ("first: 101", "nodes { id }", "limit_exceeded"),
        ("first: 0", "nodes { id }", "invalid_parameter"),
        ("where: {n: {}}", "nodes { id }", "invalid_parameter"),
        ("first: 1", "totalCount", "graphql_invalid"),
        ("after: \"x\"", "nodes { id }", "graphql_invalid"),
    ] {
        socket.subscribe("a", &format!("subscription {{ customersChanged({arguments}) {{ {selected} }} }}"));
        let heard = socket.hear();
        assert_eq!(heard["payload"][0]["extensions"]["code"], code, "{arguments} {selected}: {heard}");
    }
}

#[test]
fn who_comes_back_to_a_subscription_is_told_what_was_missed_and_only_then() {
    let world = World::new();
    set_one(&world, 5, 105);
    for (query, change) in [(FOLLOW, 7), (FOLLOW_LIST, 5)] {
        let first = by_events(&world, query).next().unwrap();
        assert!(!first.id.is_empty());
        let mut events = back(&world, query, &first.id);
        set_one(&world, change, 200);
        let second = events.next().unwrap();
        assert!(second.json().to_string().contains("200"), "nothing was missed, so nothing was told again");
        drop(events);
        set_one(&world, change, 201);
        let third = back(&world, query, &second.id).next().unwrap();
        assert!(third.json().to_string().contains("201"));
        // What is again as it was when it was told is not news.
        set_one(&world, change, 200);
        wait_until("the change to be read", || world.get(&format!("/v1/customer/{change}")).json()["n"] == 200);
        assert!(back(&world, query, &second.id).next_within(Duration::from_millis(200)).is_none());
        // The same result of another operation has another id, as has none.
        let other = query.replace("subscription", "subscription S");
        for (query, id) in [(other.as_str(), second.id.as_str()), (query, "x"), (query, "")] {
            assert_eq!(back(&world, query, id).next().unwrap().json(), second.json(), "{query} {id}");
        }
    }
}

#[test]
fn a_followed_list_goes_over_to_a_new_version() {
    let world = World::new();
    set_one(&world, 5, 105);
    let mut events = by_events(&world, FOLLOW_LIST);
    assert_eq!(page_of(&events.next().unwrap().json()), (vec![5], false));
    set_version(&world.store, &record(3, customers(), VersionState::Building));
    let mut document = customer(7);
    document["n"] = json!(777);
    put(&world.store, 3, &int_key(7), Some(&document));
    let switch = [record(1, customers(), VersionState::Retired), record(3, customers(), VersionState::Active)];
    set_versions(&world.store, &switch);
    assert_eq!(page_of(&events.next().unwrap().json()), (vec![7], false));
    put(&world.store, 3, &int_key(7), None);
    assert_eq!(page_of(&events.next().unwrap().json()), (vec![], false));
}
