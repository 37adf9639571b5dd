//! What can be wrong with the source is explained with its remedy, retried where that helps, and never skipped over.

use std::time::Duration;

use headwater_test_servers::PostgresOptions;
use headwater_tests::{Postgres, World, wait_until};

use crate::shop;

fn billing_source(world: &World) -> serde_json::Value {
    let status = world.admin("/status").map(|answer| answer.json()).unwrap_or_default();
    status["sources"][0].clone()
}

fn wait_for_phase(world: &World, wanted: &[&str]) -> String {
    wait_until(&format!("a source that says {wanted:?}"), Duration::from_secs(30), || {
        let text = billing_source(world).to_string();
        if wanted.iter().all(|word| text.contains(word)) { Ok(text) } else { Err(format!("{text}\n{}", world.log())) }
    })
}

#[test]
fn wal_level_is_explained() {
    let postgres = Postgres::start_with(&PostgresOptions::default().setting("wal_level", "replica"));
    let world = World::with_postgres(
        postgres,
        shop::SCHEMA,
        &shop::TABLES,
        &[("customer_account", shop::CUSTOMER_ACCOUNT), ("invoice", shop::INVOICE)],
    );
    let output = world.cli(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("wal_level") && text.contains("logical"), "{text}");

    let _running = world.start();
    let phase = wait_for_phase(&world, &["wal_level", "logical"]);
    assert!(phase.contains("restart") || phase.contains("postgresql.conf"), "the remedy is told: {phase}");
}

#[test]
fn an_unreachable_source_is_retried_for_ever_and_seen() {
    let mut world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the row", |doc| doc["name"] == "Ada");

    world.postgres.kill();
    wait_for_phase(&world, &["retrying"]);
    // Readers are served meanwhile.
    assert_eq!(world.get("/v1/customer_account/1").unwrap().status, 200);
    assert_eq!(world.admin("/livez").unwrap().status, 200);

    world.postgres.resume();
    world.postgres.psql("update customers set full_name = 'Ada L.' where id = 1");
    world.document_when("/v1/customer_account/1", "the change", |doc| doc["name"] == "Ada L.");
    world.verify();
    assert!(running.stop().success());
}

#[test]
fn a_lost_slot_stops_the_source_and_is_never_skipped_over() {
    let world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0), (2, 'Bob', null, 1, 0)");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the row", |doc| doc["name"] == "Ada");
    assert!(running.stop().success());

    // While Headwater is away somebody drops the slot and goes on writing.
    let slot = world.postgres.psql("select slot_name from pg_replication_slots").trim().to_string();
    world.postgres.psql(&format!("select pg_drop_replication_slot('{slot}')"));
    world.postgres.psql("update customers set n = 1 where id = 1; delete from customers where id = 2");
    let _running = world.start();
    let phase = wait_for_phase(&world, &["stopped", &slot]);
    assert!(phase.contains("resnapshot"), "the remedy is told: {phase}");
    // What was projected is still served.
    wait_until("the old document", Duration::from_secs(10), || match world.get("/v1/customer_account/1") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // With the operator's word it starts again from a snapshot, and nothing is missing.
    drop(_running);
    world.write_connector(&shop::TABLES, "  on_lost_slot: resnapshot\n");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the change made meanwhile", |doc| doc["n"] == 1);
    world.wait_status("/v1/customer_account/2", 404);
    world.verify();
    assert!(running.stop().success());
}

#[test]
fn a_slot_ahead_of_the_checkpoint_stops_the_source() {
    let world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the row", |doc| doc["name"] == "Ada");
    assert!(running.stop().success());
    let slot = world.postgres.psql("select slot_name from pg_replication_slots").trim().to_string();
    world.postgres.psql("update customers set n = 1 where id = 1");
    world.postgres.psql(&format!("select pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())"));
    let _running = world.start();
    let phase = wait_for_phase(&world, &["stopped", &slot]);
    assert!(phase.contains("ahead"), "{phase}");
}

#[test]
fn a_slot_taken_by_another_is_explained_and_waited_for() {
    let world = shop::world();
    let mut first = world.start_ready();
    let slot = world.postgres.psql("select slot_name from pg_replication_slots where active").trim().to_string();
    assert!(!slot.is_empty());
    // A second installation over the same slot, with a folder and ports of its own.
    let other = World::with_postgres(
        Postgres::start(),
        shop::SCHEMA,
        &shop::TABLES,
        &[("customer_account", shop::CUSTOMER_ACCOUNT)],
    );
    std::fs::copy(world.path("connectors/billing.yaml"), other.path("connectors/billing.yaml")).unwrap();
    let _second = other.start();
    wait_for_phase(&other, &[&slot]);
    assert!(first.ended().is_none());
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    world.document_when("/v1/customer_account/1", "the first one goes on", |doc| doc["name"] == "Ada");
    assert!(first.stop().success());
}

#[test]
fn a_table_that_was_out_of_the_publication_is_read_again() {
    let world = shop::world();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0), (2, 'Bob', null, 1, 0)");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/2", "the row", |doc| doc["name"] == "Bob");
    assert!(running.stop().success());

    // Somebody takes the table out of the publication; what changes then is in no stream.
    world.postgres.psql("alter publication headwater_billing drop table customers");
    world.postgres.psql("update customers set n = 5 where id = 1; delete from customers where id = 2");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the unseen change", |doc| doc["n"] == 5);
    world.wait_status("/v1/customer_account/2", 404);
    world.verify();
    assert!(running.stop().success());
}
