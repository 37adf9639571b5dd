//! No room, on the disk or within an engine's greatest size: it says where and what to do, serves what there is, loses
//! nothing, and goes on once there is room.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use headwater_test_servers::on_small_disk;
use headwater_tests::{Running, World, wait_until};

use crate::shop::{self, Workload};

const PATIENCE: Duration = Duration::from_secs(90);
/// The smallest size that the configuration allows.
const SMALL: &str = "16MiB";
/// The disk, most of it taken by others at first.
const DISK_MIB: u32 = 400;

/// Rows that together do not fit.
fn write_too_much(world: &World) {
    for part in 0..4 {
        world.postgres.psql(&format!(
            "insert into customers select n, repeat(md5(n::text), 90), null, 1, 0
               from generate_series(1000 + {part} * 2000, 2999 + {part} * 2000) n"
        ));
    }
}

/// Waits until the process says, in its status or with its last words, that it has no room: the place and the remedy.
fn wait_until_full(world: &World, running: &mut Running, words: &[&str]) {
    wait_until(&format!("words about {words:?}"), PATIENCE, || {
        let said = match running.ended() {
            Some(status) => {
                assert!(!status.success(), "it ended as if all were well:\n{}", world.log());
                world.log()
            }
            None => world.admin("/status").map(|answer| answer.body)?,
        };
        if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    });
}

fn full_then_more_room(section: &str) {
    let world = shop::world();
    let size = |size: &str| world.write_config(&format!("{section}: {{ embedded: {{ size_max: {size} }} }}\n"));
    size(SMALL);
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut running = world.start_ready();
    world.document_when("/v1/customer_account/1", "the first row", |doc| doc["name"] == "Ada");
    let workload = Workload::start(&world, 3);
    write_too_much(&world);
    let remedy = format!("{section}.embedded.size_max");
    let folder = format!("data/{section}");
    wait_until_full(&world, &mut running, &["cannot grow", &remedy, &folder]);
    if running.ended().is_none() {
        // What was folded before is served, and a stop is a stop like any other.
        assert_eq!(world.get("/v1/customer_account/1").unwrap().status, 200);
        // Between two attempts; during one it says that it is connecting.
        wait_until("the remedy in words", PATIENCE, || {
            let status = world.cli(&["status"]);
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            if text.contains(&remedy) { Ok(()) } else { Err(text) }
        });
        assert!(running.stop().success(), "{}", world.log());
    }
    assert!(!world.log().contains("panicked"), "{}", world.log());

    // As full as before: it does not heal by itself, it also does not get worse.
    let mut running = world.start();
    wait_until_full(&world, &mut running, &["cannot grow", &remedy]);
    // Also a kill harms nothing now.
    running.kill();

    size("1GiB");
    let mut running = world.start_ready();
    workload.finish();
    world.verify();
    let listed = world.cli(&["dead-letters", "list", "--json"]);
    assert!(listed.status.success() && listed.stdout.is_empty(), "{listed:?}");
    assert!(!world.log().contains("panicked"), "{}", world.log());
    assert!(running.stop().success());
}

#[test]
fn a_full_log_loses_nothing_and_resumes() {
    full_then_more_room("broker");
}

#[test]
fn a_full_store_loses_nothing_and_resumes() {
    full_then_more_room("store");
}

/// A disk with room for little until a file of somebody else's goes away.
fn full_disk_then_room(disk: &Path) {
    let world = shop::world();
    symlink(disk, world.path("data")).unwrap();
    let other = disk.join("other");
    fs::write(&other, vec![1; (DISK_MIB as usize - 24) << 20]).unwrap();
    world.postgres.psql("insert into customers values (1, 'Ada', null, 1, 0)");
    let mut running = world.start_ready();
    let workload = Workload::start(&world, 4);
    write_too_much(&world);
    // Which of the two finds no room first is chance, as is whether it is a page without which the engine cannot go on.
    wait_until_full(&world, &mut running, &["data/", "start again"]);
    if running.ended().is_none() {
        assert_eq!(world.get("/v1/customer_account/1").unwrap().status, 200);
        // On a full disk, too, a kill harms nothing.
        running.kill();
    }
    assert!(!world.log().contains("panicked"), "{}", world.log());
    let mut running = world.start();
    wait_until_full(&world, &mut running, &["data/", "start again"]);

    fs::remove_file(other).unwrap();
    if running.ended().is_some() {
        running = world.start();
    }
    world.wait_ready(&mut running);
    workload.finish();
    world.verify();
    let listed = world.cli(&["dead-letters", "list", "--json"]);
    assert!(listed.status.success() && listed.stdout.is_empty(), "{listed:?}");
    assert!(!world.log().contains("panicked"), "{}", world.log());
    assert!(running.stop().success());
}

#[test]
fn a_full_disk_loses_nothing_and_resumes() {
    on_small_disk("disk_full::a_full_disk_loses_nothing_and_resumes", DISK_MIB, full_disk_then_room);
}
