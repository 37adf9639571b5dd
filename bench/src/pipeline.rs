//! The real parts, put together as the binary does, in this process so that they can be measured from inside.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions as LogOptions};
use headwater_broker::{EventLog, Retention};
use headwater_connectors::{CaptureHandle, CaptureMetrics, CaptureOptions, ConnectorConfig};
use headwater_test_servers::Postgres;
use tokio_util::sync::CancellationToken;

pub(crate) const PREFIX: &str = "bench";
pub(crate) const SOURCE: &str = "billing";

/// A running connector and its log.
pub(crate) struct Capture {
    pub(crate) log: Arc<EmbeddedLog>,
    handle: CaptureHandle,
    cancel: CancellationToken,
}

pub(crate) fn open_log(folder: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(LogOptions::new(folder.join("log"))).expect("a fresh folder opens")
}

fn connector_config(postgres: &Postgres, tables: &[&str]) -> ConnectorConfig {
    serde_json::from_value(serde_json::json!({
        "source": SOURCE,
        "postgres": {
            "host": "127.0.0.1", "port": postgres.port(), "database": postgres.database(),
            "user": postgres.user(), "password": postgres.password(), "tables": tables,
        }
    }))
    .expect("the config has the shape its type asks for")
}

impl Capture {
    /// Starts the connector over the log in `folder`. Must be called within a runtime.
    pub(crate) fn start(postgres: &Postgres, tables: &[&str], folder: &Path) -> Self {
        let log = open_log(folder);
        let cancel = CancellationToken::new();
        let options = CaptureOptions { prefix: PREFIX.into(), partitions: 1, retention: Retention::default() };
        let handle = headwater_connectors::start(
            connector_config(postgres, tables),
            options,
            log.clone() as Arc<dyn EventLog>,
            CaptureMetrics::default(),
            cancel.clone(),
        );
        Self { log, handle, cancel }
    }

    /// Waits until everything the server committed up to `end` (as PostgreSQL writes positions) is durable in the log.
    pub(crate) async fn reached(&self, end: &str) {
        let end = position(end);
        let begin = Instant::now();
        loop {
            let status = self.handle.status();
            if status.source_position.as_deref().is_some_and(|reached| position(reached) >= end) {
                return;
            }
            assert!(!self.handle.is_finished(), "capture ended: {status:?}");
            assert!(begin.elapsed() < Duration::from_secs(900), "capture did not reach its end: {status:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.handle.join().await.expect("capture stops cleanly");
        self.log.close().await.expect("the log closes");
    }
}

/// The number behind PostgreSQL's `16/B374D848`.
fn position(text: &str) -> u64 {
    let (high, low) = text.trim().split_once('/').expect("PostgreSQL's notation");
    let part = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    part(high) << 32 | part(low)
}
