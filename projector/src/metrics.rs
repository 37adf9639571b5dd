//! What the projector counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::now_micros;
use crate::fold::Folded;

/// Counters of one projector.
#[derive(Clone, Debug)]
pub struct ProjectorMetrics {
    /// Events read.
    pub events: Counter,
    /// Bytes of records read.
    pub events_bytes: Counter,
    /// Rows that changed.
    pub rows: Counter,
    /// Micro-batches committed.
    pub batches: Counter,
    /// Documents created or changed.
    pub documents_written: Counter,
    /// Documents deleted.
    pub documents_deleted: Counter,
    /// Documents rebuilt whose bytes were the same.
    pub documents_unchanged: Counter,
    /// Events and documents that became dead letters, each time they failed.
    pub dead_letters: Counter,
    /// Errors after which a batch was done again.
    pub retries: Counter,
    /// Records in the log that are not folded yet, of all partitions.
    pub lag_records: Gauge,
    /// From the beginning of a micro-batch to its commit.
    pub batch_seconds: Histogram,
    /// From the source's commit to the readable document, a sample per source transaction.
    pub freshness_seconds: Histogram,
}

impl Default for ProjectorMetrics {
    fn default() -> Self {
        Self {
            events: Counter::default(),
            events_bytes: Counter::default(),
            rows: Counter::default(),
            batches: Counter::default(),
            documents_written: Counter::default(),
            documents_deleted: Counter::default(),
            documents_unchanged: Counter::default(),
            dead_letters: Counter::default(),
            retries: Counter::default(),
            lag_records: Gauge::default(),
            batch_seconds: Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
            freshness_seconds: Histogram::new([
                0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0,
            ]),
        }
    }
}

impl ProjectorMetrics {
    /// Counts what a step did.
    pub(crate) fn count(&self, folded: &Folded) {
        self.events.inc_by(folded.events);
        self.rows.inc_by(folded.rows);
        self.documents_written.inc_by(folded.documents.written);
        self.documents_deleted.inc_by(folded.documents.deleted);
        self.documents_unchanged.inc_by(folded.documents.unchanged);
        self.dead_letters.inc_by(folded.dead_letters);
    }

    /// Notes how fresh the documents are that a step has made readable just now.
    pub(crate) fn fresh(&self, folded: &Folded) {
        let now = now_micros();
        for at in &folded.committed_at {
            self.freshness_seconds.observe(now.saturating_sub(*at).max(0) as f64 / 1e6);
        }
    }

    /// Registers them under `headwater_projector_…`.
    pub fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("headwater_projector");
        own.register("events", "Events read", self.events.clone());
        own.register_with_unit("events", "Bytes of records read", Unit::Bytes, self.events_bytes.clone());
        own.register("rows", "Rows changed", self.rows.clone());
        own.register("batches", "Micro-batches committed", self.batches.clone());
        own.register("documents_written", "Documents created or changed", self.documents_written.clone());
        own.register("documents_deleted", "Documents deleted", self.documents_deleted.clone());
        own.register("documents_unchanged", "Documents rebuilt and found the same", self.documents_unchanged.clone());
        own.register(
            "dead_letters",
            "Events and documents that became dead letters, each time they failed",
            self.dead_letters.clone(),
        );
        own.register("retries", "Batches done again after an error", self.retries.clone());
        own.register("lag_records", "Records that are not folded yet", self.lag_records.clone());
        own.register_with_unit("batch", "Time of a micro-batch", Unit::Seconds, self.batch_seconds.clone());
        own.register_with_unit(
            "freshness",
            "From the source's commit to the readable document",
            Unit::Seconds,
            self.freshness_seconds.clone(),
        );
    }
}
