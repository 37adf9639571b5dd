//! What lies in the data folder belongs together: a part of it that is gone or of another time is refused, in words that
//! name both parts and the remedy, and the remedy helps.

use std::fs;
use std::time::Duration;

use headwater_tests::{World, wait_until};

use crate::shop;

/// Starts, and waits for an end with these words.
fn refused(world: &World, words: &[&str]) {
    let before = world.log().len();
    let mut running = world.start();
    let status = wait_until("the end of a start that is refused", Duration::from_secs(30), || {
        running.ended().ok_or_else(|| world.log())
    });
    let log = world.log();
    assert!(!status.success(), "it ended as if all were well:\n{log}");
    for word in words {
        assert!(log[before..].contains(word), "nothing of {word}:\n{}", &log[before..]);
    }
}

#[test]
fn a_log_that_does_not_belong_to_the_store_is_refused() {
    let world = shop::world();
    let (log, kept) = (world.path("data/broker"), world.path("kept"));
    let remedy = ["data/broker", "data/store", "restore log and store both", "remove the store as well"];
    let changed = |name: &str| {
        let mut running = world.start_ready();
        world.postgres.psql(&format!("update customers set full_name = '{name}' where id = 1"));
        world.document_when("/v1/customer_account/1", "the change", |doc| doc["name"] == name);
        assert!(running.stop().success(), "{}", world.log());
    };
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    changed("Ada L.");
    fs::create_dir(&kept).unwrap();
    fs::copy(log.join("data.mdb"), kept.join("data.mdb")).unwrap();
    changed("Ada Lovelace");

    // Restored from before the store's time.
    let now = world.path("now");
    fs::rename(&log, &now).unwrap();
    fs::rename(&kept, &log).unwrap();
    refused(&world, &[&remedy[..], &["the log ends at"]].concat());
    // Gone.
    fs::remove_dir_all(&log).unwrap();
    refused(&world, &[&remedy[..], &["filled from another log"]].concat());

    // One remedy.
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&now, &log).unwrap();
    changed("A. Lovelace");
    // The other.
    fs::remove_dir_all(&log).unwrap();
    refused(&world, &remedy);
    fs::remove_dir_all(world.path("data/store")).unwrap();
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the row, read anew", |doc| doc["name"] == "A. Lovelace");
    world.verify();
    assert!(running.stop().success(), "{}", world.log());
}
