//! `freshness`: from a commit's return to the moment its change can be read in a document, at 2,000 changes a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_schemas::{ValueRef, key};
use headwater_store::DocumentReader;
use parking_lot::Mutex;

use crate::load::{self, Scale};
use crate::pipeline::{Capture, Projection};
use crate::report::{Demand, Figure, percentile};

const CHANGES_PER_SECOND: u32 = 2_000;
const WRITERS: u32 = 4;
const SECONDS: u64 = 15;
/// Not counted: caches fill, connections open.
const WARM_UP: Duration = Duration::from_secs(3);

/// Changes of which only one side is known yet: (customer, counter) → commit or sight.
type Waiting = Arc<Mutex<HashMap<(i32, i64), Side>>>;

#[derive(Clone, Copy)]
enum Side {
    /// The commit returned then, and the change was not seen yet.
    Committed(Instant),
    /// The change was seen before its commit had returned to the writer: as fresh as can be.
    Seen,
}

pub(crate) async fn measure() -> Vec<Figure> {
    let postgres = load::server();
    postgres.psql("alter table customers add column counter bigint not null default 0");
    let scale = Scale(0.1);
    load::write(&postgres, scale);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = Capture::start(&postgres, &load::TABLES, folder.path());
    let model = load::MODEL.replace("city: city }", "city: city, counter: counter }");
    let projection = Projection::start(&capture.log, folder.path(), &model);
    projection.reached(&load::wal_end(&postgres)).await;

    let waiting: Waiting = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let customers = scale.customers() as i32;
        writers.push(tokio::spawn(write(postgres.url(), writer as i32, customers, waiting.clone(), stop.clone())));
    }
    let latencies = watch(&projection, &waiting, Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("the writer does not panic");
    }
    projection.stop().await;
    capture.stop().await;

    let mut sorted = latencies;
    sorted.sort_by(f64::total_cmp);
    assert!(sorted.len() > 10_000, "too few changes were seen to mean anything: {}", sorted.len());
    let rate = f64::from(written) / SECONDS as f64;
    println!("  {} changes seen at {rate:.0} changes/s", sorted.len());
    vec![
        Figure::new(
            "freshness_p50",
            percentile(&sorted, 0.5),
            "ms",
            Some(10.0),
            Demand::RatioAtMost(1.0, "p50 ≤ 10 ms"),
        ),
        Figure::new(
            "freshness_p99",
            percentile(&sorted, 0.99),
            "ms",
            Some(50.0),
            Demand::RatioAtMost(1.0, "p99 ≤ 50 ms"),
        ),
        Figure::new(
            "freshness_changes_per_second",
            rate,
            "changes/s",
            Some(2000.0),
            Demand::RatioAtLeast(0.95, "≥ 1,900"),
        ),
    ]
}

/// Updates one row a transaction at a steady rate; answers how many.
async fn write(url: String, writer: i32, customers: i32, waiting: Waiting, stop: Arc<AtomicBool>) -> u32 {
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("the server accepts connections");
    tokio::spawn(connection);
    let update = "update customers set counter = $1 where id = $2";
    let update = client.prepare(update).await.expect("the statement is right");
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / (CHANGES_PER_SECOND / WRITERS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut count = 0u32;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        // Each writer has customers of its own, so that a counter is written once.
        let customer = 1 + (count as i32 * WRITERS as i32 * 7 + writer) % customers;
        client.execute(&update, &[&i64::from(count), &customer]).await.expect("the update succeeds");
        let committed = Side::Committed(Instant::now());
        waiting.lock().entry((customer, i64::from(count))).or_insert(committed);
        count += 1;
    }
    count
}

/// Reads every document that is told to have changed, and notes how long its change had been committed.
async fn watch(projection: &Projection, waiting: &Waiting, time: Duration) -> Vec<f64> {
    let mut changes = projection.store.changes();
    let version = projection.version();
    let (begin, mut latencies) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let Ok(Ok(changed)) = tokio::time::timeout(Duration::from_millis(200), changes.recv()).await else { continue };
        let seen = Instant::now();
        for change in changed.iter().filter(|change| change.version == version) {
            let Some(document) = projection.store.get(version, &change.id).await.expect("the store reads") else {
                continue;
            };
            let body: serde_json::Value = serde_json::from_slice(&document.body).expect("documents are JSON");
            let (Some(id), Some(counter)) = (body["id"].as_i64(), body["counter"].as_i64()) else { continue };
            debug_assert_eq!(&change.id[..], key::of(ValueRef::Int(id)));
            let side = waiting.lock().insert((id as i32, counter), Side::Seen);
            if begin.elapsed() > WARM_UP {
                let waited = match side {
                    Some(Side::Committed(at)) => seen.saturating_duration_since(at),
                    None => Duration::ZERO,
                    // A later change of another table made the same counter appear again.
                    Some(Side::Seen) => continue,
                };
                latencies.push(waited.as_secs_f64() * 1000.0);
            }
        }
    }
    latencies
}
