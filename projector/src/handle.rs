//! The running projector, seen from outside.

use std::sync::Arc;
use std::time::Duration;

use headwater_broker::EventLog;
use headwater_schemas::model::definition::ReadModel;
use headwater_store::ProjectionStore;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{self, ListedLetter, RetryOutcome};
use crate::fold::{Fold, FoldOptions, Folded};
use crate::fresh::Recent;
use crate::projector::Projector;
use crate::resolved::Resolved;
use crate::shared::Agreement;
use crate::{ConsumerStatus, Error, ModelStatus, ProjectorMetrics, ProjectorStatus, ReplayFrom};

/// Commands that may wait before a further one waits for room.
pub(crate) const QUEUE: usize = 16;

/// Settings of a projector.
#[derive(Clone, Debug)]
pub struct ProjectorOptions {
    /// Tells projectors of one log and store apart: names the consumer group under which the log is told what was read,
    /// and who writes dead letters.
    pub name: String,
    /// Prefix of all topics.
    pub prefix: String,
    /// The declared models.
    pub models: Vec<ReadModel>,
    /// Events folded in one micro-batch, at most about.
    pub batch_events_max: usize,
    /// Bytes of events read for a micro-batch, at most about.
    pub batch_bytes_max: usize,
    /// How long an empty log is waited on before other work is looked for.
    pub wait_max: Duration,
    /// How long a retired version's documents are kept.
    pub retired_grace: Duration,
}

impl ProjectorOptions {
    /// 20,000 events or 16 MiB a micro-batch, 100 ms of waiting, ten seconds of grace.
    pub fn new(prefix: impl Into<String>, models: Vec<ReadModel>) -> Self {
        Self {
            name: "projector".into(),
            prefix: prefix.into(),
            models,
            batch_events_max: 20_000,
            batch_bytes_max: 16 << 20,
            wait_max: Duration::from_millis(100),
            retired_grace: Duration::from_secs(10),
        }
    }

    /// The consumer group under which the log is told what was read.
    pub fn group(prefix: &str, name: &str) -> String {
        format!("{prefix}.{name}")
    }
}

/// A running projector. Clones are the same projector; it runs on when all are dropped, until it is cancelled.
#[derive(Clone)]
pub struct ProjectorHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    log: Arc<dyn EventLog>,
    prefix: Arc<str>,
    ended: Arc<tokio::sync::Mutex<Option<Ended>>>,
}

/// Tells how the projector ended.
type Ended = oneshot::Receiver<Result<(), Error>>;

/// What the projector's thread shows.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) status: Mutex<ProjectorStatus>,
    /// Letters that were resolved, those included that retention has removed since: they were counted before.
    pub(crate) resolved: Mutex<Resolved>,
    /// How soon what was folded of late was readable.
    pub(crate) fresh: Mutex<Recent>,
}

impl Shared {
    /// Shows what a step did. The last error is over once events were folded again: a step without any may have touched
    /// nothing of what failed.
    pub(crate) fn count(&self, folded: &Folded) {
        let mut status = self.status.lock();
        status.events_total += folded.events;
        status.documents_written_total += folded.documents.written + folded.documents.deleted;
        if folded.events > 0 {
            status.last_error = None;
        }
    }

    /// Shows how far things are, and that the last error is over where nothing is left to be read.
    pub(crate) fn look(&self, mut models: Vec<ModelStatus>, consumers: Vec<ConsumerStatus>, dead_letters: u64) {
        let mut fresh = self.fresh.lock();
        fresh.retain(|version| models.iter().any(|model| model.version_id == version));
        models.iter_mut().for_each(|model| model.freshness = fresh.of(model.version_id));
        drop(fresh);
        let mut status = self.status.lock();
        if consumers.iter().all(|one| one.lag == 0) {
            status.last_error = None;
        }
        (status.models, status.consumers, status.dead_letters) = (models, consumers, dead_letters);
    }
}

/// What the projector is asked to do between two micro-batches.
pub(crate) enum Command {
    Reload { models: Vec<ReadModel>, answer: oneshot::Sender<Result<(), Error>> },
    Replay { model: String, from: ReplayFrom, answer: oneshot::Sender<Result<u32, Error>> },
    Retry { offsets: Option<Vec<u64>>, answer: oneshot::Sender<Result<RetryOutcome, Error>> },
}

/// Opens the projection in `store`, and starts the thread that takes it further. Must be called within a tokio runtime,
/// which the thread uses to wait for the log. Fails when a model is declared twice, or the store does.
pub fn start(
    options: ProjectorOptions,
    log: Arc<dyn EventLog>,
    store: Arc<dyn ProjectionStore>,
    metrics: ProjectorMetrics,
    cancel: CancellationToken,
) -> Result<ProjectorHandle, Error> {
    if Agreement::exists(&*store.begin()?)? {
        return Err(Error::SharedRows { name: options.name });
    }
    let fold_options =
        FoldOptions { prefix: options.prefix.clone(), retired_grace: options.retired_grace, ..FoldOptions::default() };
    let mut fold = Fold::open(store, &options.models, fold_options)?;
    fold.stop = cancel.clone();
    let shared = Arc::new(Shared::default());
    *shared.resolved.lock() = fold.resolved_letters()?;
    shared.status.lock().models = fold.model_status()?;
    let (commands, queue) = mpsc::channel(QUEUE);
    let prefix = options.prefix.clone();
    let runtime = tokio::runtime::Handle::current();
    let projector = Projector::new(options, fold, log.clone(), metrics, shared.clone(), cancel, queue, runtime);
    ProjectorHandle::spawn(log, &prefix, shared, commands, move || projector.run())
}

impl ProjectorHandle {
    /// Starts a thread that runs a projector, and answers with the way to it.
    pub(crate) fn spawn(
        log: Arc<dyn EventLog>,
        prefix: &str,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        run: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let (done, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("projector".into());
        // Whether the caller still wants to know how it ended is its business.
        thread.spawn(move || drop(done.send(run()))).map_err(Error::Thread)?;
        let ended = Arc::new(tokio::sync::Mutex::new(Some(ended)));
        Ok(Self { shared, commands, log, prefix: prefix.into(), ended })
    }

    /// What it tells about itself; at most about a second old.
    pub fn status(&self) -> ProjectorStatus {
        self.shared.status.lock().clone()
    }

    /// Makes these the declared models: changed ones are built beside those that serve, missing ones are retired.
    pub async fn reload(&self, models: Vec<ReadModel>) -> Result<(), Error> {
        self.ask(|answer| Command::Reload { models, answer }).await
    }

    /// Begins to rebuild a model from the log, beside the version that serves; answers with the new version's id.
    /// [`Self::status`] tells how far it is.
    pub async fn replay(&self, model: &str, from: ReplayFrom) -> Result<u32, Error> {
        let model = model.to_string();
        self.ask(|answer| Command::Replay { model, from, answer }).await
    }

    /// Tries dead letters again: those at `offsets`, or all.
    pub async fn retry_dead_letters(&self, offsets: Option<Vec<u64>>) -> Result<RetryOutcome, Error> {
        self.ask(|answer| Command::Retry { offsets, answer }).await
    }

    /// The newest dead letters that were not resolved by a retry, at most `limit`, oldest first.
    pub async fn list_dead_letters(&self, limit: usize) -> Result<Vec<ListedLetter>, Error> {
        let resolved = self.shared.resolved.lock().clone();
        dead_letters::list(&*self.log, &self.prefix, &resolved, limit).await
    }

    /// Waits until the projector has ended, after its cancellation or by a fatal error. The first caller is told how;
    /// later ones get [`Error::Stopped`].
    pub async fn join(&self) -> Result<(), Error> {
        let mut ended = self.ended.lock().await;
        let Some(receiver) = ended.as_mut() else { return Err(Error::Stopped) };
        let how = receiver.await.unwrap_or(Err(Error::Panicked));
        *ended = None;
        how
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }
}
