//! The roles of a process, put together: read from top to bottom.
//!
//! The ports are taken first, and the admin port tells from then on how the start goes. Started in the order in which data needs
//! them: the engines, then the projector, the connectors, and the query API. Stopped in the order of the data: no intake any
//! more, what is underway is made durable, the projector commits its batch, readers are served to the end, and with the last
//! handle the engines close.

use std::fs::{File, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_broker::{EventLog, Retention, TopicSpec};
use headwater_connectors::{CaptureMetrics, CaptureOptions};
use headwater_projector::{ProjectorHandle, ProjectorMetrics, ProjectorOptions, WorkerOptions};
use headwater_query_api::{AdminServer, ApiHandle, ApiOptions, BoundPort};
use headwater_schemas::dead_letter_topic;
use headwater_store::DocumentReader;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Configuration;
use crate::control::{AskSource, Control, serves_any};
use crate::engines::{Engines, Projection, broker_is_away, patiently, store_is_away};
use crate::failure::{Failure, chain};
use crate::gauges::StateGauges;
use crate::preflight::{Known, Preflight};
use crate::roles::Roles;
use crate::watch::LogWatch;

/// How long the roles may take to end in order, all together, beside [`LINGER`]. What operators are told to allow for a stop
/// (README, "On Kubernetes") is the sum of both, of what the runtime then waits for leftovers, and some seconds.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long new readers are let in once we say that we are not ready. Whoever balances the load hears of it some seconds
/// later, and goes on sending until then.
const LINGER: Duration = Duration::from_secs(5);

/// What is not configured in files.
#[derive(Clone, Debug)]
pub(crate) struct PipelineOptions {
    /// What this process does.
    pub(crate) roles: Roles,
    /// Tells this projector apart from others over the same broker and store.
    pub(crate) projector: String,
    /// Whether the query API serves the constant answer that reads are measured against.
    pub(crate) bench_route: bool,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self { roles: Roles::ALL, projector: "projector".into(), bench_route: false }
    }
}

/// The running roles.
pub(crate) struct Pipeline {
    control: Arc<Control>,
    parts: Parts,
}

/// What has been begun. It ends in order by [`Parts::end`], however far the start came.
struct Parts {
    connectors: Connectors,
    projector: Option<ProjectorHandle>,
    ports: Ports,
    engines: Engines,
    stop: StopOrder,
}

/// The connectors that run here; each ends with the name of its source.
type Connectors = JoinSet<(String, Result<(), headwater_connectors::Error>)>;

/// What is listened on.
struct Ports {
    /// The query API, where this process serves.
    api: Option<ApiHandle>,
    admin: AdminServer,
}

impl Ports {
    /// Waits until one of them is closed, and says which.
    async fn ended(&mut self) -> &'static str {
        match &mut self.api {
            // Each arm only waits; who has ended stays ended.
            Some(api) => tokio::select! {
                _ = &mut api.join => "the query API",
                () = self.admin.ended() => "the admin port",
            },
            None => {
                self.admin.ended().await;
                "the admin port"
            }
        }
    }
}

/// One token a role, so that they end one after another.
#[derive(Default)]
struct StopOrder {
    connectors: CancellationToken,
    projector: CancellationToken,
    api: CancellationToken,
}

impl Pipeline {
    /// Starts the roles; `None` when `stopped` is cancelled before that is done. What cannot be started is said with its
    /// remedy. In both cases what was begun before has ended when this returns. A source that cannot be reached is no
    /// failure, it is tried for ever.
    pub(crate) async fn start(
        configuration: &Configuration,
        options: PipelineOptions,
        stopped: &CancellationToken,
    ) -> Result<Option<Self>, Failure> {
        let (roles, settings) = (options.roles, &configuration.settings);
        let cannot = |error| Failure::caused("cannot listen", &error);
        let listening = AdminServer::listen(settings.admin.listen.value, settings.admin.hosts());
        let admin = listening.await.map_err(cannot)?;
        let readers = roles.serve.then(|| BoundPort::bind("api.listen", settings.api.listen.value));
        let readers = readers.transpose().map_err(cannot)?;
        let mut parts = Parts {
            connectors: JoinSet::new(),
            projector: None,
            ports: Ports { api: None, admin },
            engines: Engines::default(),
            stop: StopOrder::default(),
        };
        // A start that is dropped while it waits leaves in `parts` what it has begun.
        let begun = tokio::select! {
            begun = parts.begin(configuration, &options, readers) => begun.map(Some),
            () = stopped.cancelled() => Ok(None),
        };
        match begun {
            Ok(Some(control)) => Ok(Some(Self { control, parts })),
            not_begun => {
                // How this goes is nothing beside why it was for nothing.
                parts.end(None).await.ok();
                not_begun.map(|_| None)
            }
        }
    }

    /// What operators can see and do.
    pub(crate) fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// The addresses of the query API, where this process serves, and of the admin port.
    pub(crate) fn addresses(&self) -> (Option<SocketAddr>, SocketAddr) {
        let ports = &self.parts.ports;
        (ports.api.as_ref().map(|api| api.address), ports.admin.address())
    }

    /// Waits until a role ends without which nothing can go on: what ended it, and the remedy.
    ///
    /// A source that had to stop (its slot is lost, say) is no such role: a person must decide, and meanwhile the
    /// other sources are captured and the documents there are go on being served. The status, the metrics and the log
    /// tell.
    pub(crate) async fn ended(&mut self) -> Failure {
        let Parts { connectors, projector, ports, .. } = &mut self.parts;
        loop {
            // Each arm only waits; a role that has ended stays ended.
            tokio::select! {
                Some(ended) = connectors.join_next() => match ended {
                    // A process that only captures has nothing left to do without its last source.
                    Ok((source, Err(error))) if projector.is_none() && connectors.is_empty() => {
                        return Failure::caused(
                            format_args!("no source is captured any more; the last was `{source}`"),
                            &error,
                        );
                    }
                    Ok((source, Err(error))) => tracing::error!(
                        source,
                        error = error.chain(),
                        "a source is no longer captured; everything else goes on, start again once it is mended"
                    ),
                    Ok((source, Ok(()))) => {
                        return Failure::new(format_args!("the connector of `{source}` stopped without being told to"));
                    }
                    Err(error) => return Failure::caused("a connector broke; please report this", &error),
                },
                ended = joined(projector) => return match ended {
                    Err(error) => Failure::caused("the projector stopped", &error),
                    Ok(()) => Failure::new("the projector stopped without being told to"),
                },
                port = ports.ended() => {
                    return Failure::new(format_args!("{port} stopped without being told to"));
                }
            }
        }
    }

    /// Stops intake, drains, commits, closes.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.parts.end(Some(&self.control)).await
    }
}

impl Parts {
    /// Starts what the roles need, and gives what operators can see and do.
    async fn begin(
        &mut self,
        configuration: &Configuration,
        options: &PipelineOptions,
        readers: Option<BoundPort>,
    ) -> Result<Arc<Control>, Failure> {
        let (roles, settings) = (options.roles, &configuration.settings);
        let Self { connectors, projector, ports: Ports { api, admin }, engines, stop } = self;
        let mut registry = Registry::default();
        engines.open(configuration, roles, &options.projector, &mut registry, admin).await?;
        check_sources(configuration, options, engines, admin).await?;
        // As the store was found: a projector that starts now may build something at once.
        let reader = engines.reader.as_ref();
        let is_serving = reader.is_some_and(|reader| serves_any(&configuration.models, &reader.versions().borrow()));
        // Who serves asks for it; where that is another process, it may be allowed to read only.
        if let Some(reader) = engines.reader.as_ref().filter(|_| roles.project && !roles.serve) {
            let fresh: [u8; 32] = rand::random();
            reader.shared_secret(&fresh).await.inspect_err(|error| tracing::debug!(%error, "no secret is made")).ok();
        }
        if roles.project {
            *projector = Some(project(configuration, options, engines, &mut registry, admin, stop).await?);
        }
        if let (Some(log), None) = (&engines.log, &settings.broker.kafka) {
            let prefix = &settings.prefix.value;
            let kept = keep_as_configured(&**log, prefix, &configuration.sources, &retention(configuration)).await;
            kept.map_err(|error| Failure::caused("cannot set the retention of the log", &error))?;
        }
        let sources = match (&engines.log, roles.connect) {
            (Some(log), true) => connect(configuration, log, &mut registry, stop, connectors),
            _ => Vec::new(),
        };
        let control = Arc::new(Control {
            roles,
            sources,
            projector: projector.clone(),
            broker: watched(roles, configuration, engines),
            reader: engines.reader.clone(),
            configuration: configuration.clone(),
            models: Mutex::new(configuration.models.clone()),
            reading_again: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            has_let_readers_in: AtomicBool::new(is_serving),
        });
        registry.register_collector(Box::new(StateGauges(control.clone())));
        let registry = Arc::new(Mutex::new(registry));
        if let (Some(port), Some(reader)) = (readers, &engines.reader) {
            *api = Some(serve(configuration, options, port, reader, &registry, admin, stop).await?);
        }
        admin.open(control.clone(), registry, api.as_ref());
        control.tell_undeclared();
        control.tell_unknown_rules();
        Ok(control)
    }

    /// Ends what was begun, in the order of the data. `control`: what operators see, where the start came so far.
    async fn end(self, control: Option<&Control>) -> Result<(), Failure> {
        let Self { mut connectors, projector, ports: Ports { api, admin }, engines, stop } = self;
        let linger = lingering(api.as_ref().map(|api| api.address));
        let in_order = async {
            // Not ready from here on: soon no new readers are sent to us. Meanwhile the other roles end.
            if let Some(control) = control {
                control.stopping.store(true, Ordering::Relaxed);
            }
            let left_by_readers = tokio::time::Instant::now() + linger;
            if !linger.is_zero() {
                tracing::info!("not ready any more; readers who come within {} s are still served", linger.as_secs());
            }
            // Intake: what was gathered is appended and acknowledged, the slots are released.
            stop.connectors.cancel();
            while let Some(ended) = connectors.join_next().await {
                if let Ok((source, Err(error))) = ended {
                    tracing::warn!(source, error = error.chain(), "a connector did not end in order");
                }
            }
            // The batch underway is committed; what lies in the log behind it waits there for the next start.
            stop.projector.cancel();
            if let Some(projector) = projector
                && let Err(error) = projector.join().await
            {
                tracing::warn!(error = chain(&error), "the projector did not end in order");
            }
            tokio::time::sleep_until(left_by_readers).await;
            // Requests that are being answered are answered.
            stop.api.cancel();
            // One that has ended has been waited for.
            if let Some(api) = api.filter(|api| !api.join.is_finished()) {
                api.join.await.ok();
            }
            // Probes and status stay until nothing else runs.
            admin.close().await;
            // Everything is durable; this ends the log's writer.
            engines.close().await;
        };
        let stop_max = STOP_MAX + linger;
        tokio::time::timeout(stop_max, in_order).await.map_err(|_| {
            Failure::new(format_args!(
                "did not stop in order within {} s; everything acknowledged is safe, and the next start goes on from there",
                stop_max.as_secs()
            ))
        })
    }
}

/// How long new readers are let in while we stop: not at all where nobody but this machine reaches us, since nobody balances
/// the load there.
fn lingering(api: Option<SocketAddr>) -> Duration {
    match api {
        Some(address) if !address.ip().to_canonical().is_loopback() => LINGER,
        _ => Duration::ZERO,
    }
}

/// The broker, if it is in another place and is needed for being ready: who serves is ready without.
fn watched(roles: Roles, configuration: &Configuration, engines: &Engines) -> Option<LogWatch> {
    let is_needed = configuration.settings.broker.kafka.is_some() && !roles.serve;
    engines.log.clone().filter(|_| is_needed).map(LogWatch::start)
}

/// Waits for the end of the projector; for ever where there is none.
async fn joined(projector: &Option<ProjectorHandle>) -> Result<(), headwater_projector::Error> {
    match projector {
        Some(projector) => projector.join().await,
        None => std::future::pending().await,
    }
}

/// Refuses what the sources lack, unless it was there before: see [`Preflight::refused`].
async fn check_sources(
    configuration: &Configuration,
    options: &PipelineOptions,
    engines: &Engines,
    admin: &AdminServer,
) -> Result<(), Failure> {
    // A server of documents needs nothing of the sources.
    let Some(log) = &engines.log else { return Ok(()) };
    let preflight = Preflight::of(configuration).await;
    let topics = patiently(admin, "list the topics", broker_is_away, || log.topics()).await?;
    let reader = engines.reader.as_ref().filter(|_| options.roles.project);
    let versions = reader.map(|reader| reader.versions().borrow().clone());
    let refused = preflight.refused(&Known {
        prefix: &configuration.settings.prefix.value,
        topics: topics.into_iter().map(|(topic, _)| topic.to_string()).collect(),
        versions: versions.as_ref().map(|versions| versions.as_slice()),
    });
    if refused.is_empty() { Ok(()) } else { Err(refused.into()) }
}

async fn project(
    configuration: &Configuration,
    options: &PipelineOptions,
    engines: &Engines,
    registry: &mut Registry,
    admin: &AdminServer,
    stop: &StopOrder,
) -> Result<ProjectorHandle, Failure> {
    let settings = &configuration.settings;
    let metrics = ProjectorMetrics::default();
    metrics.register(registry);
    let projector = ProjectorOptions {
        name: options.projector.clone(),
        batch_bytes_max: usize::try_from(settings.projector.batch_bytes_max.value.0).unwrap_or(usize::MAX),
        ..ProjectorOptions::new(settings.prefix.value.clone(), configuration.definitions())
    };
    let cancel = stop.projector.clone();
    let (log, projection) = engines.for_projection();
    let start = || async {
        let (projector, log, metrics, cancel) = (projector.clone(), log.clone(), metrics.clone(), cancel.clone());
        match projection.clone() {
            Projection::Alone(store) => {
                headwater_projector::check_log(&*log, &*store).await?;
                if settings.broker.kafka.is_none() {
                    headwater_projector::check_ends(&*log, &*store).await?;
                }
                headwater_projector::start(projector, log, store, metrics, cancel)
            }
            Projection::Shared { rows, documents } => {
                headwater_projector::check_shared_log(&*log, &*rows).await?;
                let worker = WorkerOptions { dirty_partitions: settings.broker.partitions() };
                headwater_projector::start_shared(projector, worker, log, rows, documents, metrics, cancel)
            }
        }
    };
    // A store in another place may go away between its opening and this.
    let is_away = |error: &headwater_projector::Error| {
        error.kind() == headwater_projector::ErrorKind::Retryable && !error.is_refusal()
    };
    let (from, into) = (configuration.log_place(), configuration.rows_place());
    patiently(admin, &format!("project from the log in {from} into the store in {into}"), is_away, start).await
}

fn connect(
    configuration: &Configuration,
    log: &Arc<dyn EventLog>,
    registry: &mut Registry,
    stop: &StopOrder,
    connectors: &mut Connectors,
) -> Vec<AskSource> {
    let settings = &configuration.settings;
    let metrics = CaptureMetrics::default();
    metrics.register(registry);
    let options = CaptureOptions {
        prefix: settings.prefix.value.clone(),
        partitions: settings.broker.partitions(),
        retention: retention(configuration),
    };
    let mut sources: Vec<AskSource> = Vec::new();
    for config in configuration.connector_configs() {
        let (source, cancel) = (config.source.clone(), stop.connectors.clone());
        let handle = headwater_connectors::start(config, options.clone(), log.clone(), metrics.clone(), cancel);
        sources.push(Box::new(handle.status_reader()));
        connectors.spawn(async move { (source, handle.join().await) });
    }
    sources
}

async fn serve(
    configuration: &Configuration,
    options: &PipelineOptions,
    port: BoundPort,
    reader: &Arc<dyn DocumentReader>,
    registry: &Arc<Mutex<Registry>>,
    admin: &AdminServer,
    stop: &StopOrder,
) -> Result<ApiHandle, Failure> {
    let api = &configuration.settings.api;
    let secret = match &api.cursor_secret {
        Some(secret) => secret.value.reveal().as_bytes().to_vec(),
        None => cursor_secret(reader.as_ref(), &configuration.data_folder(), admin).await?,
    };
    let options = ApiOptions {
        access: configuration.access(),
        cache_bytes: api.cache.bytes.0,
        compression: api.compression,
        graphql: configuration.graphql(),
        channels: api.channels_options(),
        slow_query: api.slow_query.0,
        server_timing: api.server_timing,
        bench_route: options.bench_route,
        ..ApiOptions::new(secret)
    };
    let started = headwater_query_api::start(options, port, reader.clone(), registry.clone(), stop.api.clone());
    started.await.map_err(|error| Failure::caused("cannot serve documents", &error))
}

fn retention(configuration: &Configuration) -> Retention {
    let settings = configuration.settings.broker.retention();
    let (age, size) = (settings.age.as_ref(), settings.size.as_ref());
    Retention { age_max: age.map(|age| age.value.0), bytes_max: size.map(|size| size.value.0), compact: false }
}

/// Topics that are there already keep what is configured now: the embedded log has no other tool to change that by.
async fn keep_as_configured(
    log: &dyn EventLog,
    prefix: &str,
    sources: &[String],
    retention: &Retention,
) -> Result<(), headwater_broker::Error> {
    log.create_topics(&as_configured(log.topics().await?, prefix, sources, retention)).await
}

/// Of these topics those of the sources' rows and that of dead letters, as they are to be.
fn as_configured(
    topics: Vec<(Arc<str>, u32)>,
    prefix: &str,
    sources: &[String],
    retention: &Retention,
) -> Vec<TopicSpec> {
    let own: Vec<String> = sources.iter().map(|source| format!("{prefix}.{source}.")).collect();
    // Beside those of the tables there is that of the source's progress.
    let is_of_rows =
        |topic: &str| own.iter().filter_map(|own| topic.strip_prefix(own)).any(|rest| !rest.starts_with("__"));
    let letters = dead_letter_topic(prefix);
    let spec = |(name, partitions): (Arc<str>, u32)| {
        if *name == *letters {
            return Some(TopicSpec::dead_letters(name));
        }
        is_of_rows(&name).then(|| TopicSpec { name, partitions, retention: retention.clone() })
    };
    topics.into_iter().filter_map(spec).collect()
}

/// What cursors are signed with: made once, so that they outlive a restart, and the same in all processes that serve the
/// same documents, so that a page of one goes on at another.
async fn cursor_secret(reader: &dyn DocumentReader, data: &Path, admin: &AdminServer) -> Result<Vec<u8>, Failure> {
    let fresh: [u8; 32] = rand::random();
    let action = "read or make the secret of cursors beside the documents (`api.cursor_secret` is not set)";
    match patiently(admin, action, store_is_away, || reader.shared_secret(&fresh)).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => secret_in_folder(data, fresh),
        Err(failure) => {
            // A server may only be allowed to read, and come before any process that may write.
            tracing::warn!(%failure, "cursors of this server are good at no other one: set `api.cursor_secret`");
            secret_in_folder(data, fresh)
        }
    }
}

/// The secret of a process that alone has the documents: that of its data folder, or `fresh`, which is kept there.
fn secret_in_folder(data: &Path, fresh: [u8; 32]) -> Result<Vec<u8>, Failure> {
    let path = data.join("cursor.key");
    if let Ok(secret) = std::fs::read(&path)
        && secret.len() == 32
    {
        // Earlier versions left it to the umask. Where the file is somebody else's, it is theirs to guard.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).ok();
        return Ok(secret);
    }
    let written = std::fs::create_dir_all(data).and_then(|()| write_privately(&path, &fresh));
    written.map_err(|error| Failure::caused(format_args!("cannot write {}", path.display()), &error))?;
    Ok(fresh.to_vec())
}

/// Writes a file that nobody else may read, in place of what was there.
fn write_privately(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // The mode is that of a new file: one that is there might be open to everybody.
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
    use headwater_broker::{AppendBatch, RecordBuffer, TopicPartition};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn topics_that_are_there_keep_what_is_configured_now() {
        let folder = tempfile::tempdir().unwrap();
        let interval = Duration::from_millis(20);
        let log = EmbeddedLog::open(EmbeddedOptions {
            maintenance_interval: interval,
            ..EmbeddedOptions::new(folder.path())
        });
        let log = log.unwrap();
        let at = |topic: &str| TopicPartition { topic: topic.into(), partition: 0 };
        let all = ["hw.billing.public.invoices", "hw.billing.__progress", "hw.other.public.invoices"].map(at);
        for place in &all {
            let (name, retention) = (place.topic.clone(), Retention::default());
            log.create_topics(&[TopicSpec { name, partitions: 1, retention }]).await.unwrap();
            for _ in 0..3 {
                let mut records = RecordBuffer::default();
                records.push(1, b"key", Some(|out: &mut Vec<u8>| out.extend_from_slice(b"value")));
                let batch = AppendBatch { to: place.clone(), prelude: Bytes::new(), records };
                log.append(vec![batch]).await.unwrap();
            }
        }
        let old = Retention { age_max: Some(Duration::from_secs(60)), ..Retention::default() };
        keep_as_configured(&*log, "hw", &["billing".into()], &old).await.unwrap();
        let begin = std::time::Instant::now();
        while log.watermarks(&all[0]).await.unwrap().low.0 < 3 {
            assert!(begin.elapsed() < Duration::from_secs(10), "nothing is removed");
            tokio::time::sleep(interval).await;
        }
        for place in &all[1..] {
            assert_eq!(log.watermarks(place).await.unwrap().low.0, 0, "{place} is not of this source's rows");
        }
    }

    #[test]
    fn dead_letters_have_a_bound_of_their_own() {
        let topics = ["hw.__dead_letters", "hw.billing.__progress", "hw.billing.public.invoices", "hw.other.public.x"];
        let topics: Vec<(Arc<str>, u32)> = topics.map(|name| (name.into(), 1)).to_vec();
        let specs = as_configured(topics, "hw", &["billing".into()], &Retention::default());
        let bounds: Vec<_> = specs.iter().map(|spec| (&*spec.name, spec.retention.bytes_max)).collect();
        assert_eq!(bounds, [("hw.__dead_letters", Some(1 << 30)), ("hw.billing.public.invoices", None)]);
    }

    /// An existing key stays as it is: with another one, cursors that are out there would be refused.
    #[test]
    fn the_secret_of_cursors_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (data, path) = (folder.path().join("data"), folder.path().join("data/cursor.key"));
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(secret_in_folder(&data, [7; 32]).unwrap(), [7; 32]);
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(secret_in_folder(&data, [8; 32]).unwrap(), [7; 32]);
        assert_eq!(mode(), 0o600, "an earlier version left it open");
        // What is no key is replaced, whoever could read it.
        std::fs::write(&path, "torn").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(secret_in_folder(&data, [9; 32]).unwrap(), [9; 32]);
        assert_eq!((mode(), std::fs::read(&path).unwrap()), (0o600, vec![9; 32]));
    }

    /// A source that takes connections and says nothing holds up the start, when the log is open already.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_that_is_broken_off_closes_what_it_has_opened() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "headwater.yaml",
            "data: data\nconnectors: [billing.yaml]\nmodels: []\napi: { listen: 127.0.0.1:0 }\nadmin: { listen: \
             127.0.0.1:0 }\n"
                .into(),
        );
        let port = silent.local_addr().unwrap().port();
        write(
            "billing.yaml",
            format!(
                "source: billing\npostgres: {{ host: 127.0.0.1, port: {port}, database: d, user: u, tables: [t] }}\n"
            ),
        );
        let file = folder.path().join("headwater.yaml");
        let configuration = Configuration::load_with(&file, &crate::config::Environment::new()).unwrap();
        let stopped = CancellationToken::new();
        let (start, waiting) = (std::time::Instant::now(), stopped.clone());
        let asked = std::thread::spawn(move || {
            let connection = silent.accept();
            waiting.cancel();
            connection
        });
        let pipeline = Pipeline::start(&configuration, PipelineOptions::default(), &stopped).await.unwrap();
        assert!(pipeline.is_none(), "it was told to stop");
        assert!(start.elapsed() < Duration::from_secs(4), "it waited for the source");
        asked.join().unwrap().unwrap();
        // Whoever opens the log while it is open is refused.
        let log = EmbeddedLog::open(EmbeddedOptions::new(configuration.data_folder().join("broker")));
        log.unwrap().close().await.unwrap();
    }

    #[test]
    fn readers_are_let_in_for_a_while_where_others_reach_us() {
        let after = |address: &str| lingering(Some(address.parse().unwrap()));
        for address in ["0.0.0.0:8080", "10.1.2.3:8080", "[::]:8080", "[::ffff:10.1.2.3]:8080"] {
            assert_eq!(after(address), LINGER, "{address}");
        }
        for address in ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(after(address), Duration::ZERO, "{address}");
        }
        assert_eq!(lingering(None), Duration::ZERO, "a process that does not serve");
    }
}
