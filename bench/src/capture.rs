//! `capture_throughput`: rows per second from the server's log to our durable log, beside the reference client reading
//! the same log into nothing. Both read from copies of one slot, in turn.

use std::path::Path;

use headwater_test_servers::Postgres;
use tempfile::TempDir;

use crate::load::{self, Scale};
use crate::pipeline::{Capture, SOURCE};
use crate::report::{Demand, Figure, median};

/// A loaded server whose slot stands before the load, and the log's folder as it was then. Every run starts from a copy
/// of both.
pub(crate) struct Loaded {
    pub(crate) postgres: Postgres,
    folder: TempDir,
    end: String,
    scale: Scale,
}

const SLOT: &str = "headwater_billing";
const START: &str = "bench_start";

impl Loaded {
    pub(crate) async fn new(scale: Scale) -> Self {
        let postgres = load::server();
        let folder = tempfile::tempdir().expect("a temporary folder");
        // An empty snapshot makes slot, publication and checkpoint.
        let capture = Capture::start(&postgres, &load::TABLES, &folder.path().join("start"));
        capture.reached(&load::wal_end(&postgres)).await;
        capture.stop().await;
        postgres.psql(&format!("select pg_copy_logical_replication_slot('{SLOT}', '{START}')"));
        load::write(&postgres, scale.rows());
        let end = load::wal_end(&postgres);
        // Something behind the end, so that every reader notices that it has passed it.
        postgres.psql("select pg_logical_emit_message(false, 'bench', 'end')");
        Self { postgres, folder, end, scale }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.scale.rows().in_all()
    }

    pub(crate) fn customers(&self) -> u64 {
        self.scale.rows().customers
    }

    pub(crate) fn end(&self) -> &str {
        &self.end
    }

    /// Puts the slot and a fresh copy of the log's folder back to where the load begins.
    pub(crate) fn rewind(&self) -> TempDir {
        self.postgres.psql(&format!(
            "select pg_drop_replication_slot('{SLOT}'); select pg_copy_logical_replication_slot('{START}', '{SLOT}')"
        ));
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&self.folder.path().join("start"), folder.path());
        folder
    }

    /// The limit, once: rows per second of the reference client.
    pub(crate) fn reference(&self) -> f64 {
        self.postgres.psql(&format!("select pg_copy_logical_replication_slot('{START}', 'bench_reference')"));
        let rate = load::reference_client(
            &self.postgres,
            "bench_reference",
            &format!("headwater_{SOURCE}"),
            &self.end,
            self.rows(),
        );
        self.postgres.psql("select pg_drop_replication_slot('bench_reference')");
        rate
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder is writable");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a temporary folder is writable");
        }
    }
}

/// How often each side runs; the middle one counts.
pub(crate) const ROUNDS: usize = 3;

pub(crate) async fn measure(loaded: &Loaded) -> Vec<Figure> {
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(loaded.reference());
        let folder = loaded.rewind();
        let begin = std::time::Instant::now();
        let capture = Capture::start(&loaded.postgres, &load::TABLES, folder.path());
        capture.reached(loaded.end()).await;
        ours.push(loaded.rows() as f64 / begin.elapsed().as_secs_f64());
        capture.stop().await;
        println!("  capture {:.0} rows/s, reference {:.0}", ours[ours.len() - 1], limits[limits.len() - 1]);
    }
    vec![Figure::new(
        "capture_throughput",
        median(&mut ours),
        "rows/s",
        Some(median(&mut limits)),
        Demand::RatioAtLeast(0.8, "ratio ≥ 0.8"),
    )]
}
