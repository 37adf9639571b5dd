//! Starting a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::EventLog;
use headwater_store::{DocumentStore, RowStore};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assignment::Assignment;
use super::runtime::Worker;
use super::share::{Share, ShareOptions, apply_group};
use crate::dead_letters::LetterBox;
use crate::handle::{ProjectorOptions, QUEUE, Shared};
use crate::observer::Observer;
use crate::resolved::Resolved;
use crate::times::Times;
use crate::{Error, ProjectorHandle, ProjectorMetrics};

/// Events of one transaction, at most: the rows of a transaction and what waits to be emitted are bounded by it.
const BATCH_EVENTS_MAX: usize = 5_000;

/// Settings of one worker of several.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Partitions of the topics of dirty roots: so many workers can share the building of one model.
    pub dirty_partitions: u32,
}

impl Default for WorkerOptions {
    /// Six partitions.
    fn default() -> Self {
        Self { dirty_partitions: 6 }
    }
}

/// Starts a worker that shares a projection with others of the same [`ProjectorOptions::name`]: `rows` and `documents` are
/// the same stores for all of them. Must be called within a tokio runtime, which the worker uses to wait for the log.
pub fn start_shared(
    mut options: ProjectorOptions,
    worker: WorkerOptions,
    log: Arc<dyn EventLog>,
    rows: Arc<dyn RowStore>,
    documents: Arc<dyn DocumentStore>,
    metrics: ProjectorMetrics,
    cancel: CancellationToken,
) -> Result<ProjectorHandle, Error> {
    for (at, model) in options.models.iter().enumerate() {
        if options.models[..at].iter().any(|other| other.name == model.name) {
            return Err(Error::DuplicateModel { model: model.name.clone() });
        }
    }
    options.batch_events_max = options.batch_events_max.min(BATCH_EVENTS_MAX);
    let shared = Arc::new(Shared::default());
    *shared.resolved.lock() = Resolved::load(&*rows.begin()?)?;
    let runtime = Handle::current();
    let share = ShareOptions {
        name: options.name.clone(),
        prefix: options.prefix.clone(),
        models: options.models.clone(),
        dirty_partitions: worker.dirty_partitions,
        slice_rows: 2_048,
        retired_grace: options.retired_grace,
    };
    let share = Share::new(share, log.clone(), rows, documents, runtime.clone());
    let (commands, queue) = mpsc::channel(QUEUE);
    let prefix = options.prefix.clone();
    let worker = Worker {
        letters: LetterBox::new(log.clone(), &prefix),
        observer: Observer::new(log.clone(), &prefix, runtime.clone()),
        sources: Assignment::new(apply_group(&prefix, &options.name)),
        dirty: Assignment::new(share.build_group().to_string()),
        options,
        share,
        log: log.clone(),
        metrics,
        shared: shared.clone(),
        cancel,
        commands: queue,
        runtime,
        source_next: BTreeMap::new(),
        dirty_next: BTreeMap::new(),
        dirty_built: BTreeMap::new(),
        applied_in: Duration::ZERO,
        left_out: BTreeSet::new(),
        times: Times::default(),
        asked: Vec::new(),
        looked: None,
        settled: Instant::now(),
        publish_at: Instant::now(),
    };
    ProjectorHandle::spawn(log, &prefix, shared, commands, move || worker.run())
}
