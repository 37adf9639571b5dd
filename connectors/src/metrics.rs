//! Figures about capture.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{Atomic, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::session::now_millis;

type Labels = [(&'static str, String); 1];

/// Metrics of all connectors of a process, each labelled with its `source`.
#[derive(Clone, Debug)]
pub struct CaptureMetrics {
    events: Family<Labels, Counter>,
    snapshot_rows: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
    batches: Family<Labels, Counter>,
    dead_letters: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    append_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    stalled_seconds: Family<Labels, Counter<f64, AtomicU64>>,
    lag_bytes: Family<Labels, Gauge>,
    lag_seconds: Family<Labels, Gauge<f64, AtomicU64>>,
    retained_wal_bytes: Family<Labels, Gauge>,
    safe_wal_bytes: Family<Labels, Gauge>,
    streaming: Family<Labels, Gauge>,
    refused_tables: Family<Labels, Gauge>,
}

impl Default for CaptureMetrics {
    fn default() -> Self {
        Self {
            events: Family::default(),
            snapshot_rows: Family::default(),
            bytes: Family::default(),
            batches: Family::default(),
            dead_letters: Family::default(),
            retries: Family::default(),
            append_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 16))),
            stalled_seconds: Family::default(),
            lag_bytes: Family::default(),
            lag_seconds: Family::default(),
            retained_wal_bytes: Family::default(),
            safe_wal_bytes: Family::default(),
            streaming: Family::default(),
            refused_tables: Family::default(),
        }
    }
}

impl CaptureMetrics {
    /// Makes the metrics known under their names.
    pub fn register(&self, registry: &mut Registry) {
        let capture = registry.sub_registry_with_prefix("headwater_capture");
        capture.register("events", "Change events put into the log", self.events.clone());
        capture.register("snapshot_rows", "Rows read by snapshots", self.snapshot_rows.clone());
        capture.register("event_bytes", "Bytes of events put into the log", self.bytes.clone());
        capture.register("batches", "Appends to the log", self.batches.clone());
        capture.register("dead_letters", "Events that could not be represented", self.dead_letters.clone());
        capture.register("retries", "Times a source had to be connected again", self.retries.clone());
        capture.register(
            "append_duration_seconds",
            "Time from handing a batch to the log until it is durable",
            self.append_seconds.clone(),
        );
        capture.register(
            "stalled_seconds",
            "Time in which no change was read because the log was not done with earlier ones",
            self.stalled_seconds.clone(),
        );
        capture.register("lag_bytes", "Bytes of the source's log not yet captured", self.lag_bytes.clone());
        capture.register("lag_seconds", "Age of the state to which capture is complete", self.lag_seconds.clone());
        capture.register("retained_wal_bytes", "Bytes of log the source keeps for us", self.retained_wal_bytes.clone());
        capture.register(
            "safe_wal_bytes",
            "Bytes the source will yet write before it may drop our slot",
            self.safe_wal_bytes.clone(),
        );
        capture.register("streaming", "1 while following the source's log", self.streaming.clone());
        capture.register(
            "refused_tables",
            "Configured tables that are not captured; the status says why",
            self.refused_tables.clone(),
        );
    }

    /// The metrics of one source.
    pub(crate) fn of(&self, source: &str) -> SourceMetrics {
        let labels = [("source", source.to_owned())];
        SourceMetrics {
            events: self.events.get_or_create_owned(&labels),
            snapshot_rows: self.snapshot_rows.get_or_create_owned(&labels),
            bytes: self.bytes.get_or_create_owned(&labels),
            batches: self.batches.get_or_create_owned(&labels),
            dead_letters: self.dead_letters.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            append_seconds: self.append_seconds.get_or_create_owned(&labels),
            stalled_seconds: self.stalled_seconds.get_or_create_owned(&labels),
            lag_bytes: OptionalGauge { gauges: self.lag_bytes.clone(), labels: labels.clone() },
            lag_seconds: OptionalGauge { gauges: self.lag_seconds.clone(), labels: labels.clone() },
            retained_wal_bytes: OptionalGauge { gauges: self.retained_wal_bytes.clone(), labels: labels.clone() },
            safe_wal_bytes: OptionalGauge { gauges: self.safe_wal_bytes.clone(), labels: labels.clone() },
            streaming: self.streaming.get_or_create_owned(&labels),
            refused_tables: self.refused_tables.get_or_create_owned(&labels),
        }
    }
}

/// The metrics of one source, found once.
#[derive(Clone, Debug)]
pub(crate) struct SourceMetrics {
    pub(crate) events: Counter,
    pub(crate) snapshot_rows: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) retries: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) stalled_seconds: Counter<f64, AtomicU64>,
    pub(crate) lag_bytes: OptionalGauge,
    pub(crate) lag_seconds: OptionalGauge<Gauge<f64, AtomicU64>>,
    pub(crate) retained_wal_bytes: OptionalGauge,
    pub(crate) safe_wal_bytes: OptionalGauge,
    pub(crate) streaming: Gauge,
    pub(crate) refused_tables: Gauge,
}

impl SourceMetrics {
    /// Tells how old the captured state is, of which this is the source's time.
    pub(crate) fn tell_age_of(&self, at_micros: i64) {
        self.lag_seconds.set(Some((now_millis() as f64 / 1000.0 - at_micros as f64 / 1e6).max(0.0)));
    }
}

/// A figure that is not told while it is not known: a 0 would be taken for one.
#[derive(Clone, Debug)]
pub(crate) struct OptionalGauge<G = Gauge> {
    gauges: Family<Labels, G>,
    labels: Labels,
}

impl<N, A: Atomic<N> + Default> OptionalGauge<Gauge<N, A>> {
    pub(crate) fn set(&self, value: Option<N>) {
        match value {
            Some(value) => {
                self.gauges.get_or_create(&self.labels).set(value);
            }
            None => {
                self.gauges.remove(&self.labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn what_is_not_known_is_not_told() {
        let (metrics, mut registry) = (CaptureMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let of_source = metrics.of("shop");
        let told = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("writing into memory does not fail");
            text.lines().find(|line| line.starts_with("headwater_capture_safe_wal_bytes{")).map(str::to_owned)
        };
        assert_eq!(told(), None);
        of_source.safe_wal_bytes.set(Some(0));
        assert_eq!(told().as_deref(), Some("headwater_capture_safe_wal_bytes{source=\"shop\"} 0"));
        of_source.safe_wal_bytes.set(None);
        assert_eq!(told(), None);
    }
}
