//! What the log counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::AppendBatch;

/// A partition, as labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabels {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: u32,
}

/// A consumer group, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabels {
    /// Its name.
    pub group: String,
}

/// Counters and gauges of one log.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// Records appended.
    pub appended_records: Counter,
    /// Their bytes.
    pub appended_bytes: Counter,
    /// Batches appended.
    pub appended_batches: Counter,
    /// From the start of a group's transaction until it was durable.
    pub commit_seconds: Histogram,
    /// Appends and other writes that became durable together.
    pub commit_writes: Histogram,
    /// Bytes of records fetched.
    pub fetched_bytes: Counter,
    /// Records removed by retention and compaction.
    pub removed_records: Counter,
    /// Bytes in use, of the log as a whole.
    pub size_bytes: Gauge,
    /// First offset present.
    pub low_watermark: Family<PartitionLabels, Gauge>,
    /// Next offset to be written.
    pub high_watermark: Family<PartitionLabels, Gauge>,
    /// Times that partitions of a group came to this process, or went.
    pub rebalances: Family<GroupLabels, Counter>,
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            appended_records: Counter::default(),
            appended_bytes: Counter::default(),
            appended_batches: Counter::default(),
            commit_seconds: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
            commit_writes: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
            fetched_bytes: Counter::default(),
            removed_records: Counter::default(),
            size_bytes: Gauge::default(),
            low_watermark: Family::default(),
            high_watermark: Family::default(),
            rebalances: Family::default(),
        }
    }
}

impl LogMetrics {
    /// Counts an append that became durable by itself, after so long.
    pub(crate) fn appended(&self, batches: &[AppendBatch], took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_writes.observe(1.0);
        for batch in batches {
            self.appended_batches.inc();
            self.appended_records.inc_by(u64::from(batch.records.count()));
            self.appended_bytes.inc_by(batch.records.byte_len() as u64);
        }
    }

    /// Registers them under `headwater_log_…`.
    pub fn register(&self, registry: &mut Registry) {
        let log = registry.sub_registry_with_prefix("headwater_log");
        log.register("appended_records", "Records appended", self.appended_records.clone());
        log.register_with_unit("appended", "Bytes of records appended", Unit::Bytes, self.appended_bytes.clone());
        log.register("appended_batches", "Batches appended", self.appended_batches.clone());
        log.register_with_unit(
            "commit",
            "Time until a group of writes was durable",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        log.register("commit_writes", "Writes made durable together", self.commit_writes.clone());
        log.register_with_unit("fetched", "Bytes of records fetched", Unit::Bytes, self.fetched_bytes.clone());
        log.register("removed_records", "Records removed by retention and compaction", self.removed_records.clone());
        log.register_with_unit("size", "Bytes in use", Unit::Bytes, self.size_bytes.clone());
        log.register("low_watermark", "First offset present", self.low_watermark.clone());
        log.register("high_watermark", "Next offset to be written", self.high_watermark.clone());
        let help = "Times that partitions of a consumer group came to this process, or went";
        log.register("rebalances", help, self.rebalances.clone());
    }
}
