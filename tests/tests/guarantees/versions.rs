//! Definitions change and models are replayed while readers are served.

use std::time::Duration;

use headwater_tests::{post, wait_until};
use serde_json::json;

use crate::shop::{self, Workload};

#[test]
fn a_changed_definition_is_built_beside_the_old_one_and_switched() {
    let world = shop::world();
    world.postgres.psql("insert into customers select n, 'name ' || n, null, 1, 0 from generate_series(1, 3000) n");
    let mut running = world.start_ready();
    let before = world.get("/v1/customer_account/1").unwrap();
    assert!(before.json().get("display").is_none());

    // Reloaded without a restart; while the new version is built, the old one answers every read.
    let changed = shop::CUSTOMER_ACCOUNT.replace(
        "fields: { id: id, name: full_name,",
        "fields: { id: id, display: { concat: [id, full_name] }, name: full_name,",
    );
    assert_ne!(changed, shop::CUSTOMER_ACCOUNT);
    world.write_model("customer_account", &changed);
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_until("the new version", Duration::from_secs(30), || {
        let answer = world.get("/v1/customer_account/1").unwrap();
        assert_eq!(answer.status, 200, "a reader saw the switch: {}", answer.body);
        if answer.json()["display"] == "1name 1" { Ok(()) } else { Err(answer.body) }
    });
    world.verify();

    // A definition with a mistake is refused with its place; the rest runs on.
    world.write_model("customer_account", &changed.replace("order: [-issued_on]", "ordr: [-issued_on]"));
    let answer = post(&world.admin_url("/reload"), &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["refused"].as_array().map(Vec::len), Some(1), "{}", answer.body);
    assert!(answer.body.contains("customer_account.yaml:") && answer.body.contains("order"), "{}", answer.body);
    world.postgres.psql("update customers set n = 77 where id = 1");
    world.document_when("/v1/customer_account/1", "a change after the refused reload", |doc| doc["n"] == 77);
    assert!(running.stop().success());

    // The same on start: the old version serves while a third one is built.
    world.write_model("customer_account", shop::CUSTOMER_ACCOUNT);
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the first definition again", |doc| {
        doc.get("display").is_none() && doc["n"] == 77
    });
    world.verify();
    assert!(running.stop().success());
}

#[test]
fn a_replay_rebuilds_beside_the_serving_version() {
    let world = shop::world();
    world.postgres.psql("insert into customers select n, 'name ' || n, null, 1, 0 from generate_series(1, 5000) n");
    let mut running = world.start_ready();
    let workload = Workload::start(&world, 7);
    let etag = world.get("/v1/customer_account/1").unwrap().header("etag").to_string();

    for from in ["earliest", "2020-01-01T00:00:00Z", "0"] {
        let output = world.cli(&["replay", "--model", "customer_account", "--from", from]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "--from {from}: {text}\n{}", world.log());
        let answer = world.get("/v1/customer_account/1").unwrap();
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("etag"), etag, "the version that serves is a new one");
    }
    let transactions = workload.finish();
    assert!(transactions > 0);
    world.verify();

    let output = world.cli(&["replay", "--model", "custmer_account", "--from", "earliest"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("customer_account"), "the nearest name is told: {text}");
    assert!(running.stop().success());
}
