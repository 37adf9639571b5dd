//! The real binary under a workload, killed again and again, also at the worst moments: afterwards every document equals
//! the source, and nothing a reader saw went backwards.
//!
//! Perturbations that must break it are noted in the commit that touched it last. `HEADWATER_SEED` replays a run,
//! `HEADWATER_KILLS` makes it longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_tests::{World, get, wait_until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::from_environment;
use crate::shop::{self, Workload};

const KILLS: u32 = 40;

/// How long a named moment may take to come. A change of a tariff rewrites thousands of documents, and the slower the
/// machine, the more such changes are in a micro-batch.
const REACHED_MAX: Duration = Duration::from_secs(240);

/// Named moments and how often they may pass before the kill. The first ones exist only while the snapshot is taken, so
/// they come first and in this order.
const SNAPSHOT_POINTS: [&str; 4] =
    ["capture::before_slot@1", "capture::mid_copy@1", "capture::mid_copy@2", "capture::mid_copy@3"];
const STREAM_POINTS: [&str; 3] = ["capture::after_append", "projector::mid_batch", "projector::before_commit"];

/// Reads a few counters over and over; a counter that decreases was applied out of order.
fn watch_counters(world: &World, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let url = world.url("/v1/customer_account/1");
    std::thread::spawn(move || {
        let mut seen = HashMap::new();
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            if let Ok(answer) = get(&url)
                && answer.status == 200
            {
                let n = answer.json()["n"].as_i64().unwrap();
                let last = seen.insert("customer 1", n).unwrap_or(i64::MIN);
                assert!(n >= last, "customer 1's counter went back from {last} to {n}");
                reads += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        reads
    })
}

/// Waits until a replay that an earlier kill broke off has ended: until then another one would be refused.
fn end_of_replay(world: &World) {
    let running = world.start_ready();
    wait_until("the end of the replay before", Duration::from_secs(60), || {
        let status = world.admin("/status")?.json();
        let models = status["models"].as_array().ok_or("no models")?;
        let is_building = models.iter().any(|model| model["state"] == "building");
        if is_building { Err(status["models"].to_string()) } else { Ok(()) }
    });
    running.kill();
}

#[test]
fn killed_at_any_moment_it_resumes_exactly() {
    let seed = from_environment("HEADWATER_SEED").unwrap_or_else(rand::random);
    let kills = u32::try_from(from_environment("HEADWATER_KILLS").unwrap_or(u64::from(KILLS))).unwrap();
    println!("HEADWATER_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);

    let world = shop::world();
    // Enough rows that the snapshot has several chunks to be killed in.
    world.postgres.psql(
        "insert into customers select n, 'seed ' || n, null, 1 + n % 5, 0 from generate_series(1, 20000) n;
         insert into invoices select 1, n, n, 'open', n, '2026-01-01' from generate_series(101, 20000) n;",
    );
    let workload = Workload::start(&world, seed);
    let stop = Arc::new(AtomicBool::new(false));
    let counters = watch_counters(&world, stop.clone());

    let mut at_points: HashMap<String, u32> = HashMap::new();
    for kill in 0..kills {
        let point = match SNAPSHOT_POINTS.get(kill as usize) {
            Some(point) => Some((*point).to_string()),
            None if kill % 8 == 7 => Some("projector::replay@1".into()),
            None if random.random_bool(0.6) => {
                Some(format!("{}@{}", STREAM_POINTS[random.random_range(0..3)], random.random_range(1..40)))
            }
            None => None,
        };
        let patience = Duration::from_millis(random.random_range(100..1500));
        match point {
            None => {
                let running = world.start();
                std::thread::sleep(patience);
                running.kill();
                *at_points.entry("a random moment".into()).or_default() += 1;
            }
            Some(point) => {
                let replay = point.starts_with("projector::replay");
                if replay {
                    end_of_replay(&world);
                }
                let mut running = world.start_with(&[("HEADWATER_CRASH_AT", &point)]);
                if replay {
                    world.wait_ready(&mut running);
                    let output = world.cli(&["replay", "--model", "customer_account", "--from", "earliest"]);
                    // The client loses its server in the middle: whatever it says, it must not say that all is well.
                    assert!(!output.status.success(), "the replay was not interrupted");
                }
                // A point that is never reached would be a test that cannot fail: it must be reached.
                let begin = Instant::now();
                let status = loop {
                    if let Some(status) = running.ended() {
                        break status;
                    }
                    assert!(begin.elapsed() < REACHED_MAX, "{point} was not reached (seed {seed}):\n{}", world.log());
                    std::thread::sleep(Duration::from_millis(5));
                };
                use std::os::unix::process::ExitStatusExt;
                assert_eq!(
                    status.signal(),
                    Some(libc::SIGKILL),
                    "{point}: ended by itself (seed {seed}):\n{}",
                    world.log()
                );
                *at_points.entry(point.split('@').next().unwrap().into()).or_default() += 1;
            }
        }
        // Now and then all is compared in the middle, so that later changes cannot heal what was wrong.
        if kill % 10 == 9 {
            let mut running = world.start_ready();
            workload.pause(true);
            world.verify();
            workload.pause(false);
            assert!(running.ended().is_none(), "headwater ended by itself:\n{}", world.log());
            running.kill();
        }
    }
    println!("killed {kills} times: {at_points:?}");

    let transactions = workload.finish();
    let _running = world.start_ready();
    world.verify();
    stop.store(true, Ordering::Relaxed);
    let reads = counters.join().expect("a reader saw a counter go backwards");
    println!("{transactions} transactions, {reads} reads");
    assert!(transactions > 100 && reads > 100, "the test did too little to mean anything");
    wait_until("no dead letters", Duration::from_secs(5), || {
        let output = world.cli(&["dead-letters", "list", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        if output.status.success() && (text.is_empty() || text == "[]") { Ok(()) } else { Err(text) }
    });
}
