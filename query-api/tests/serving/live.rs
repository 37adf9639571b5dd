//! Live documents.

use std::net::TcpStream;
use std::time::Duration;

use headwater_store::VersionState;
use serde_json::{Value, json};

use crate::events::{Events, follow_with};
use crate::fixture::{World, customer, customers, int_key, put, record, set_version, set_versions, wait_until};

fn follow(world: &World, path: &str, last: Option<&str>) -> Events {
    let headers: Vec<(&str, &str)> = last.iter().map(|last| ("Last-Event-ID", *last)).collect();
    follow_with(world, path, &headers)
}

#[test]
fn every_change_is_told_and_a_client_resumes() {
    let world = World::new();
    let mut events = follow(&world, "/v1/customer/7", None);
    let first = events.next().unwrap();
    assert_eq!((first.kind.as_str(), first.json()), ("document", customer(7)));
    let mut document = customer(7);
    for n in [100, 101] {
        document["n"] = json!(n);
        put(&world.store, 1, &int_key(8), Some(&customer(8 * n)));
        put(&world.store, 1, &int_key(7), Some(&document));
        assert_eq!(events.next().unwrap().json()["n"], n);
    }
    put(&world.store, 1, &int_key(7), None);
    let deleted = events.next().unwrap();
    assert_eq!((deleted.kind.as_str(), deleted.json()), ("deleted", Value::Null));
    put(&world.store, 1, &int_key(7), Some(&document));
    let back = events.next().unwrap();
    assert_eq!(back.json()["n"], 101);
    drop(events);

    // What the client has is not told again; what came since is.
    let mut resumed = follow(&world, "/v1/customer/7", Some(&back.id));
    document["n"] = json!(102);
    put(&world.store, 1, &int_key(7), Some(&document));
    assert_eq!(resumed.next().unwrap().json()["n"], 102);
    let mut behind = follow(&world, "/v1/customer/7?fields=n", Some(&first.id));
    assert_eq!(behind.next().unwrap().json(), json!({"n": 102}));
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    assert!(metrics.contains("headwater_api_live_streams 2"), "{metrics}");
    let absent = world.get_with("/v1/customer/999", &[("accept", "text/event-stream")]);
    assert_eq!(absent.status, 404);
    drop((resumed, behind));
    wait_until("the streams to be forgotten", || {
        // A closed connection is seen at the next write.
        document["n"] = json!(document["n"].as_i64().unwrap() + 1);
        put(&world.store, 1, &int_key(7), Some(&document));
        world.admin("GET", "/metrics", &[], None).body.contains("headwater_api_live_streams 0")
    });
}

#[test]
fn a_client_that_comes_back_for_other_fields_is_told_them() {
    let world = World::new();
    let whole = follow(&world, "/v1/customer/8", None).next().unwrap();
    let some = follow(&world, "/v1/customer/8?fields=n,id", Some(&whole.id)).next().unwrap();
    assert_eq!((some.kind.as_str(), some.json()), ("document", json!({"id": 8, "n": 8})));
    let mut same = follow(&world, "/v1/customer/8?fields=id,n", Some(&some.id));
    assert!(same.next_within(Duration::from_millis(200)).is_none(), "nothing happened, and it has these fields");
    assert_eq!(follow(&world, "/v1/customer/8", Some(&some.id)).next().unwrap().json(), customer(8));
    let etag = world.get("/v1/customer/8?fields=id,n").header("etag").to_string();
    assert_eq!(etag, format!("\"{}\"", some.id));
}

#[test]
fn a_client_that_likes_json_better_gets_no_stream() {
    let world = World::new();
    for accept in ["application/json, text/event-stream;q=0", "text/event-stream;q=0.5, application/json"] {
        for path in ["/v1/customer/7", "/v1/customer"] {
            let answer = world.get_with(path, &[("accept", accept)]);
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path} {accept}");
        }
    }
}

#[test]
fn a_stream_goes_over_to_a_new_version_and_ends_with_the_server() {
    let world = World::new();
    let mut events = follow(&world, "/v1/customer/7", None);
    events.next().unwrap();
    set_version(&world.store, &record(3, customers(), VersionState::Building));
    put(&world.store, 3, &int_key(7), Some(&json!({"id": 7, "new": true})));
    let switch = [record(1, customers(), VersionState::Retired), record(3, customers(), VersionState::Active)];
    set_versions(&world.store, &switch);
    assert_eq!(events.next().unwrap().json()["new"], true);
    put(&world.store, 3, &int_key(7), Some(&json!({"id": 7, "new": false})));
    assert_eq!(events.next().unwrap().json()["new"], false);

    let World { api, admin, stop, runtime, .. } = world;
    stop.cancel();
    assert!(events.next().is_none());
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), api.join).await }).unwrap().unwrap();
    let address = admin.address();
    TcpStream::connect(address).expect("probes are answered to the end");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(15), admin.close()).await }).unwrap();
    assert!(TcpStream::connect(address).is_err(), "the admin port is closed last");
}
