//! `freshness`: from a commit's return to the moment its change can be read in a document, at 2,000 changes a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_test_servers::Postgres;
use parking_lot::Mutex;

use crate::load::{self, Scale};
use crate::pipeline::{Capture, Projection};
use crate::report::{Demand, Figure, percentile};

/// The model, with the counter that is changed.
pub(crate) fn model() -> String {
    load::MODEL.replace("city: city }", "city: city, counter: counter }")
}

const CHANGES_PER_SECOND: u32 = 2_000;
const WRITERS: u32 = 4;
/// Documents read at once.
const READS_MAX: usize = 32;
const SCALE: Scale = Scale(0.1);
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
    let postgres = server();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let capture = Capture::start(&postgres, &load::TABLES, folder.path());
    let projection = Projection::start(&capture.log, folder.path(), &model());
    let seen = watch_changes(&postgres, &projection, CHANGES_PER_SECOND).await;
    projection.stop().await;
    capture.stop().await;
    seen.figures("freshness", (10.0, "p50 ≤ 10 ms"), (50.0, "p99 ≤ 50 ms"), CHANGES_PER_SECOND)
}

/// A server with a tenth of the usual rows and the counter that is changed.
pub(crate) fn server() -> Postgres {
    let postgres = load::server();
    postgres.psql("alter table customers add column counter bigint not null default 0");
    load::write(&postgres, SCALE.rows());
    postgres
}

/// How long changes took, milliseconds, ascending, and how many there were in a second.
pub(crate) struct Seen {
    sorted: Vec<f64>,
    rate: f64,
}

impl Seen {
    pub(crate) fn figures(
        &self,
        name: &str,
        p50: (f64, &'static str),
        p99: (f64, &'static str),
        wanted: u32,
    ) -> Vec<Figure> {
        let figure = |part: &str, value, unit, limit, demand| {
            Figure::new(&format!("{name}_{part}"), value, unit, Some(limit), demand)
        };
        let at = |share| percentile(&self.sorted, share);
        vec![
            figure("p50", at(0.5), "ms", p50.0, Demand::RatioAtMost(1.0, p50.1)),
            figure("p99", at(0.99), "ms", p99.0, Demand::RatioAtMost(1.0, p99.1)),
            figure("rate", self.rate, "changes/s", f64::from(wanted), Demand::RatioAtLeast(0.95, "ratio ≥ 0.95")),
        ]
    }
}

/// Waits until all rows are in documents, and then changes rows at a steady rate while the documents are watched.
pub(crate) async fn watch_changes(postgres: &Postgres, projection: &Projection, changes_per_second: u32) -> Seen {
    projection.reached(&load::wal_end(postgres)).await;
    let waiting: Waiting = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_secs(1) / (changes_per_second / WRITERS);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let customers = SCALE.rows().customers as i32;
        writers.push(tokio::spawn(write(
            postgres.url(),
            writer as i32,
            customers,
            pause,
            waiting.clone(),
            stop.clone(),
        )));
    }
    let mut sorted = watch(projection, &waiting, Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("the writer does not panic");
    }
    sorted.sort_by(f64::total_cmp);
    let rate = f64::from(written) / SECONDS as f64;
    println!("  {} changes seen at {rate:.0} changes/s", sorted.len());
    assert!(sorted.len() as u32 > changes_per_second * 5, "too few changes were seen to mean anything");
    Seen { sorted, rate }
}

/// Updates one row a transaction at a steady rate; answers how many.
async fn write(
    url: String,
    writer: i32,
    customers: i32,
    pause: Duration,
    waiting: Waiting,
    stop: Arc<AtomicBool>,
) -> u32 {
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("the server accepts connections");
    tokio::spawn(connection);
    let update = "update customers set counter = $1 where id = $2";
    let update = client.prepare(update).await.expect("the statement is right");
    let mut ticks = tokio::time::interval(pause);
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

/// Reads every document that is told to have changed, and notes how long its change had been committed. Many are read at
/// once, as many readers would.
async fn watch(projection: &Projection, waiting: &Waiting, time: Duration) -> Vec<f64> {
    let mut changes = projection.store.changes();
    let (version, begin) = (projection.version(), Instant::now());
    let latencies: Arc<Mutex<Vec<f64>>> = Arc::default();
    let mut reads = tokio::task::JoinSet::new();
    while begin.elapsed() < time {
        let Ok(Ok(changed)) = tokio::time::timeout(Duration::from_millis(200), changes.recv()).await else { continue };
        for change in changed.iter().filter(|change| change.version == version) {
            while reads.len() >= READS_MAX {
                reads.join_next().await;
            }
            let (store, waiting, latencies) = (projection.store.clone(), waiting.clone(), latencies.clone());
            let id = change.id.clone();
            reads.spawn(async move {
                let Some(document) = store.get(version, &id).await.expect("the store reads") else { return };
                let seen = Instant::now();
                let body: serde_json::Value = serde_json::from_slice(&document.body).expect("documents are JSON");
                let (Some(id), Some(counter)) = (body["id"].as_i64(), body["counter"].as_i64()) else { return };
                let side = waiting.lock().insert((id as i32, counter), Side::Seen);
                if begin.elapsed() < WARM_UP {
                    return;
                }
                match side {
                    Some(Side::Committed(at)) => {
                        latencies.lock().push(seen.saturating_duration_since(at).as_secs_f64() * 1000.0);
                    }
                    None => latencies.lock().push(0.0),
                    // A later change of another table made the same counter appear again.
                    Some(Side::Seen) => {}
                }
            });
        }
    }
    reads.join_all().await;
    std::mem::take(&mut *latencies.lock())
}
