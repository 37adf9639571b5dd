//! All roles in one process, put together: read from top to bottom.
//!
//! Started in the order in which data needs them: the two engines, then the projector and the query API (which serve what
//! there is already), then the connectors. Stopped in the order of the data: no intake any more, what is underway is made
//! durable, the projector commits its batch, readers are served to the end, and with the last handle the engines close.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_broker::embedded::EmbeddedLog;
use headwater_broker::{EventLog, Retention};
use headwater_connectors::{CaptureMetrics, CaptureOptions};
use headwater_projector::{ProjectorHandle, ProjectorMetrics, ProjectorOptions};
use headwater_query_api::{ApiHandle, ApiOptions};
use headwater_store::DocumentReader;
use headwater_store::embedded::EmbeddedStore;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Configuration;
use crate::control::{AskSource, Control};
use crate::failure::{Failure, chain};

/// How long the roles may take to end in order, all together.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What is not configured in files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PipelineOptions {
    /// Whether the query API serves the constant answer that reads are measured against.
    pub(crate) bench_route: bool,
}

/// The running roles.
pub(crate) struct Pipeline {
    control: Arc<Control>,
    connectors: JoinSet<Result<(), headwater_connectors::Error>>,
    projector: ProjectorHandle,
    api: ApiHandle,
    log: Arc<EmbeddedLog>,
    stop: StopOrder,
}

/// One token a role, so that they end one after another.
#[derive(Default)]
struct StopOrder {
    connectors: CancellationToken,
    projector: CancellationToken,
    api: CancellationToken,
}

impl Pipeline {
    /// Starts every role. What cannot be started is said with its remedy; a source that cannot be reached is no failure,
    /// it is tried for ever.
    pub(crate) async fn start(configuration: &Configuration, options: PipelineOptions) -> Result<Self, Failure> {
        let settings = &configuration.settings;
        let data = configuration.data_folder();
        let stop = StopOrder::default();

        let log = EmbeddedLog::open(headwater_broker::embedded::EmbeddedOptions {
            size_max: settings.broker.embedded.size_max.value.0,
            ..headwater_broker::embedded::EmbeddedOptions::new(data.join("broker"))
        })
        .map_err(|error| Failure::caused("cannot open the broker's log", &error))?;
        let store = EmbeddedStore::open(headwater_store::embedded::EmbeddedOptions {
            size_max: settings.store.embedded.size_max.value.0,
            ..headwater_store::embedded::EmbeddedOptions::new(data.join("store"))
        })
        .map_err(|error| Failure::caused("cannot open the store", &error))?;

        let (projecting, capturing) = (ProjectorMetrics::default(), CaptureMetrics::default());
        let mut registry = Registry::default();
        log.metrics().register(&mut registry);
        store.metrics().register(&mut registry);
        projecting.register(&mut registry);
        capturing.register(&mut registry);

        let events: Arc<dyn EventLog> = log.clone();
        let projector = headwater_projector::start(
            ProjectorOptions {
                batch_bytes_max: usize::try_from(settings.projector.batch_bytes_max.value.0).unwrap_or(usize::MAX),
                ..ProjectorOptions::new(settings.prefix.value.clone(), configuration.definitions())
            },
            events.clone(),
            store.clone(),
            projecting,
            stop.projector.clone(),
        )
        .map_err(|error| Failure::caused("cannot start the projector", &error))?;

        let capture = CaptureOptions {
            prefix: settings.prefix.value.clone(),
            partitions: settings.broker.embedded.partitions.value,
            retention: retention(configuration),
        };
        let mut connectors = JoinSet::new();
        let mut sources: Vec<AskSource> = Vec::new();
        for config in configuration.connector_configs() {
            let (capture, cancel) = (capture.clone(), stop.connectors.clone());
            let handle = headwater_connectors::start(config, capture, events.clone(), capturing.clone(), cancel);
            sources.push(Box::new(handle.status_reader()));
            connectors.spawn(handle.join());
        }

        let reader: Arc<dyn DocumentReader> = store;
        let control = Arc::new(Control {
            sources,
            projector: projector.clone(),
            reader: reader.clone(),
            configuration: configuration.clone(),
            models: Mutex::new(configuration.models.clone()),
            stopping: AtomicBool::new(false),
        });
        let secret = cursor_secret(&data)?;
        let api = headwater_query_api::start(
            ApiOptions {
                bench_route: options.bench_route,
                ..ApiOptions::new(settings.api.listen.value, settings.admin.listen.value, secret)
            },
            reader,
            control.clone(),
            Arc::new(Mutex::new(registry)),
            stop.api.clone(),
        )
        .await
        .map_err(|error| Failure::caused("cannot start the query API", &error))?;
        Ok(Self { control, connectors, projector, api, log, stop })
    }

    /// What operators can see and do.
    pub(crate) fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// The addresses of the query API and of the admin port.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.api.address, self.api.admin_address)
    }

    /// Waits until a role ends without which nothing can go on: what ended it, and the remedy.
    ///
    /// A source that had to stop (its slot is lost, say) is no such role: a person must decide, and meanwhile the
    /// other sources are captured and the documents there are go on being served. The status, the metrics and the log
    /// tell.
    pub(crate) async fn ended(&mut self) -> Failure {
        loop {
            // Each arm only waits; a role that has ended stays ended.
            tokio::select! {
                Some(ended) = self.connectors.join_next() => match ended {
                    Ok(Err(error)) => tracing::error!(
                        error = error.chain(),
                        "a source is no longer captured; everything else goes on, start again once it is mended"
                    ),
                    Ok(Ok(())) => return Failure::new("a connector stopped without being told to"),
                    Err(error) => return Failure::caused("a connector broke; please report this", &error),
                },
                ended = self.projector.join() => return match ended {
                    Err(error) => Failure::caused("the projector stopped", &error),
                    Ok(()) => Failure::new("the projector stopped without being told to"),
                },
                _ = &mut self.api.join => return Failure::new("the query API stopped without being told to"),
            }
        }
    }

    /// Stops intake, drains, commits, closes.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { control, mut connectors, projector, api, log, stop } = self;
        let in_order = async {
            // Not ready from here on: no new readers are sent to us.
            control.stopping.store(true, Ordering::Relaxed);
            // Intake: what was gathered is appended and acknowledged, the slots are released.
            stop.connectors.cancel();
            while let Some(ended) = connectors.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(error = error.chain(), "a connector did not end in order");
                }
            }
            // The batch underway is committed; what lies in the log behind it waits there for the next start.
            stop.projector.cancel();
            if let Err(error) = projector.join().await {
                tracing::warn!(error = chain(&error), "the projector did not end in order");
            }
            // Requests that are being answered are answered.
            stop.api.cancel();
            api.join.await.ok();
            // Everything is durable; this ends the log's writer.
            log.close().await.ok();
        };
        tokio::time::timeout(STOP_MAX, in_order).await.map_err(|_| {
            Failure::new(format_args!(
                "did not stop in order within {} s; everything acknowledged is safe, and the next start goes on from there",
                STOP_MAX.as_secs()
            ))
        })
    }
}

fn retention(configuration: &Configuration) -> Retention {
    let settings = &configuration.settings.broker.embedded.retention;
    Retention { age_max: settings.age.map(|age| age.0), bytes_max: settings.size.map(|size| size.0), compact: false }
}

/// What cursors are signed with: made once, so that they outlive a restart.
fn cursor_secret(data: &Path) -> Result<Vec<u8>, Failure> {
    let path = data.join("cursor.key");
    if let Ok(secret) = std::fs::read(&path)
        && secret.len() == 32
    {
        return Ok(secret);
    }
    let secret: [u8; 32] = rand::random();
    let written = std::fs::create_dir_all(data).and_then(|()| std::fs::write(&path, secret));
    written.map_err(|error| Failure::caused(format_args!("cannot write {}", path.display()), &error))?;
    Ok(secret.to_vec())
}
