//! Versions come and go while requests do.

use headwater_store::VersionState;
use serde_json::json;

use crate::fixture::{World, customer, customers, int_key, put, record, set_version, wait_until};

#[test]
fn a_new_version_is_served_when_it_is_active() {
    let world = World::new();
    let mut shape = customers();
    shape.version = 4;
    set_version(&world.store, &record(3, shape.clone(), VersionState::Building));
    put(&world.store, 3, &int_key(7), Some(&json!({"id": 7, "new": true})));
    assert_eq!(world.get("/v1/customer/7").json(), customer(7), "a version that is being built is not seen");
    let cursor = world.get("/v1/customer?limit=1").json()["page"]["next"].as_str().unwrap().to_string();
    let etag = world.get("/v1/customer/7").header("etag").to_string();

    set_version(&world.store, &record(1, customers(), VersionState::Retired));
    set_version(&world.store, &record(3, shape, VersionState::Active));
    wait_until("the switch", || world.get("/v1/customer/7").header("x-model-version") == "4");
    let answer = world.get_with("/v1/customer/7", &[("if-none-match", &etag)]);
    assert_eq!((answer.status, answer.json()), (200, json!({"id": 7, "new": true})));
    let stale = world.get(&format!("/v1/customer?limit=1&after={cursor}"));
    assert_eq!((stale.status, &stale.json()["code"]), (400, &json!("invalid_cursor")));
}

#[test]
fn a_model_that_is_being_built_says_so() {
    let world = World::new();
    let mut shape = customers();
    shape.model = "account".into();
    set_version(&world.store, &record(4, shape.clone(), VersionState::Building));
    wait_until("the model to be known", || world.get("/v1/account/1").status == 503);
    let answer = world.get("/v1/account");
    assert_eq!((answer.header("retry-after"), &answer.json()["code"]), ("2", &json!("model_building")));
    set_version(&world.store, &record(4, shape, VersionState::Active));
    wait_until("the model to be served", || world.get("/v1/account/1").status == 404);
    assert!(world.get("/openapi.json").body.contains("/v1/account/{id}"));
}
