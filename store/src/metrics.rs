//! What the store counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::Written;

/// Counters and gauges of one store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Micro-batches committed.
    pub commits: Counter,
    /// From the call of commit until readers could see the batch.
    pub commit_seconds: Histogram,
    /// Rows written or removed, tombstones included.
    pub written_rows: Counter,
    /// Documents created or changed.
    pub written_documents: Counter,
    /// Documents deleted.
    pub deleted_documents: Counter,
    /// Documents that were as stored, and not written.
    pub unchanged_documents: Counter,
    /// Bytes of rows, join entries and documents written.
    pub written_bytes: Counter,
    /// Bytes of the store's file in use.
    pub used: Gauge,
    /// Greatest size the store's file may have, in bytes.
    pub size_max: Gauge,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
            written_rows: Counter::default(),
            written_documents: Counter::default(),
            deleted_documents: Counter::default(),
            unchanged_documents: Counter::default(),
            written_bytes: Counter::default(),
            used: Gauge::default(),
            size_max: Gauge::default(),
        }
    }
}

impl StoreMetrics {
    /// Registers them under `headwater_store_…`.
    pub fn register(&self, registry: &mut Registry) {
        let store = registry.sub_registry_with_prefix("headwater_store");
        store.register("commits", "Micro-batches committed", self.commits.clone());
        store.register_with_unit(
            "commit",
            "Time until a micro-batch was committed and visible",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        store.register("written_rows", "Rows written or removed, tombstones included", self.written_rows.clone());
        store.register("written_documents", "Documents created or changed", self.written_documents.clone());
        store.register("deleted_documents", "Documents deleted", self.deleted_documents.clone());
        store.register(
            "unchanged_documents",
            "Documents that were as stored, and not written",
            self.unchanged_documents.clone(),
        );
        store.register_with_unit(
            "written",
            "Bytes of rows, join entries and documents written",
            Unit::Bytes,
            self.written_bytes.clone(),
        );
        store.register_with_unit("used", "Bytes of the store's file in use", Unit::Bytes, self.used.clone());
        store.register_with_unit("size_max", "Greatest size of the store's file", Unit::Bytes, self.size_max.clone());
    }

    pub(crate) fn committed(&self, took: Duration, rows: u64, bytes: u64, documents: Written) {
        self.commits.inc();
        self.commit_seconds.observe(took.as_secs_f64());
        self.written_rows.inc_by(rows);
        self.written_bytes.inc_by(bytes);
        self.written_documents.inc_by(documents.written);
        self.deleted_documents.inc_by(documents.deleted);
        self.unchanged_documents.inc_by(documents.unchanged);
    }
}
