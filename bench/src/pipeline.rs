//! The real parts, put together as the binary does, in this process so that they can be measured from inside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions as LogOptions};
use headwater_broker::{EventLog, Retention};
use headwater_connectors::{CaptureHandle, CaptureMetrics, CaptureOptions, ConnectorConfig};
use headwater_projector::{ProjectorHandle, ProjectorMetrics, ProjectorOptions, WorkerOptions};
use headwater_schemas::model::ParseContext;
use headwater_store::embedded::{EmbeddedOptions as StoreOptions, EmbeddedStore};
use headwater_store::{DocumentReader, DocumentStore, ProjectionStore, RowStore, VersionId, VersionState};
use headwater_test_servers::Postgres;
use tokio_util::sync::CancellationToken;

pub(crate) const PREFIX: &str = "bench";
pub(crate) const SOURCE: &str = "billing";

/// A running connector and its log.
pub(crate) struct Capture {
    pub(crate) log: Arc<dyn EventLog>,
    /// The log once more if it is inside this process.
    embedded: Option<Arc<EmbeddedLog>>,
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
        Self { embedded: Some(log.clone()), ..Self::start_into(postgres, tables, log) }
    }

    /// Starts the connector over a log that is open. Must be called within a runtime.
    pub(crate) fn start_into(postgres: &Postgres, tables: &[&str], log: Arc<dyn EventLog>) -> Self {
        let cancel = CancellationToken::new();
        let options = CaptureOptions { prefix: PREFIX.into(), partitions: 1, retention: Retention::default() };
        let handle = headwater_connectors::start(
            connector_config(postgres, tables),
            options,
            log.clone(),
            CaptureMetrics::default(),
            cancel.clone(),
        );
        Self { log, embedded: None, handle, cancel }
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
        if let Some(log) = self.embedded {
            log.close().await.expect("the log closes");
        }
    }
}

/// The number behind PostgreSQL's `16/B374D848`.
fn position(text: &str) -> u64 {
    let (high, low) = text.trim().split_once('/').expect("PostgreSQL's notation");
    let part = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    part(high) << 32 | part(low)
}

/// A running projector with one model, and what reads its documents.
pub(crate) struct Projection {
    pub(crate) store: Arc<dyn DocumentReader>,
    handle: ProjectorHandle,
    cancel: CancellationToken,
}

impl Projection {
    /// Starts a projector over a fresh store in `folder`. Must be called within a runtime.
    pub(crate) fn start(log: &Arc<dyn EventLog>, folder: &Path, model: &str) -> Self {
        let store = EmbeddedStore::open(StoreOptions::new(folder.join("store"))).expect("a fresh folder opens");
        Self::start_over(log, store.clone(), store, model)
    }

    /// Starts a projector over an open store, whose documents `reader` reads. Must be called within a runtime.
    pub(crate) fn start_over(
        log: &Arc<dyn EventLog>,
        store: Arc<dyn ProjectionStore>,
        reader: Arc<dyn DocumentReader>,
        model: &str,
    ) -> Self {
        let cancel = CancellationToken::new();
        let (options, metrics) = (options(model), ProjectorMetrics::default());
        let handle = headwater_projector::start(options, log.clone(), store, metrics, cancel.clone());
        Self { store: reader, handle: handle.expect("the projector starts"), cancel }
    }

    /// As [`Self::start_over`], in the two stages in which several projectors share their rows; here there is one.
    pub(crate) fn start_shared_over(
        log: &Arc<dyn EventLog>,
        (rows, documents): (Arc<dyn RowStore>, Arc<dyn DocumentStore>),
        reader: Arc<dyn DocumentReader>,
        model: &str,
    ) -> Self {
        let cancel = CancellationToken::new();
        let (options, worker, metrics) = (options(model), WorkerOptions::default(), ProjectorMetrics::default());
        let log = log.clone();
        let handle = headwater_projector::start_shared(options, worker, log, rows, documents, metrics, cancel.clone());
        Self { store: reader, handle: handle.expect("the projector starts"), cancel }
    }

    /// Waits until the model serves and everything up to `end` (as PostgreSQL writes positions) is in its documents.
    pub(crate) async fn reached(&self, end: &str) {
        let end = position(end);
        let (frontiers, versions) = (self.store.frontiers(), self.store.versions());
        let begin = Instant::now();
        loop {
            let there = frontiers.borrow().get(SOURCE).is_some_and(|frontier| frontier.position.commit >= end);
            if there && versions.borrow().iter().any(|version| version.state == VersionState::Active) {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(900),
                "the projector did not reach its end: {:?}",
                self.handle.status()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The version that serves.
    pub(crate) fn version(&self) -> VersionId {
        let versions = self.store.versions();
        let versions = versions.borrow();
        let active = versions.iter().find(|version| version.state == VersionState::Active);
        active.expect("it was waited for").id
    }

    /// Number of documents of the version that serves.
    pub(crate) async fn documents(&self) -> u64 {
        self.store.document_count(self.version()).await.expect("the store counts")
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.handle.join().await.expect("the projector stops cleanly");
    }
}

fn options(model: &str) -> ProjectorOptions {
    let context = ParseContext { sources: BTreeMap::from([(SOURCE.to_string(), "public".to_string())]) };
    let model = headwater_schemas::model::parse("model.yaml", model, &context).expect("the bench's model is right");
    ProjectorOptions::new(PREFIX, vec![model])
}
