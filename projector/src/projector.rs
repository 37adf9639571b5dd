//! The projector's thread: reads the log, folds what it read, and in between does what it is asked and what is due.
//!
//! Everything blocks here, one thing after another, so that there is one writer to the store and no lock to hold. Only
//! the waiting for the log is asynchronous, and can be dropped at any point: a fetch changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::{EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::{now_micros, now_ms};
use crate::dead_letters::{self, LetterBox, RetryOutcome};
use crate::fold::{Fold, Folded};
use crate::handle::{Command, ProjectorOptions, Shared};
use crate::records::{Input, progress_source};
use crate::status::ConsumerStatus;
use crate::{Error, ErrorKind, ProjectorMetrics, replay};

/// How often topics are looked for, and the status is made anew.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the log is told what was read. It is told what was so one interval before: a store may lose its last
/// commits when the machine stops, and must find in the log what it lost.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// How far before the end of a source's progress its newest record is looked for.
const PROGRESS_BACK: u64 = 8;

/// Time of one slice of background work: short where readers wait for changes, longer where there are none yet.
const SLICE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// Back-off after an error that may pass.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

pub(crate) struct Projector {
    options: ProjectorOptions,
    fold: Fold,
    log: Arc<dyn EventLog>,
    letters: LetterBox,
    metrics: ProjectorMetrics,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    commands: mpsc::Receiver<Command>,
    runtime: Handle,
    /// Where to read on.
    places: BTreeMap<TopicPartition, Offset>,
    /// When the last folded record of a place was written, milliseconds since 1970.
    written_at: BTreeMap<TopicPartition, i64>,
    looked: Option<Instant>,
    committed: Option<Instant>,
    /// What the log is told at the next commit of offsets.
    settled: Vec<(TopicPartition, Offset)>,
}

/// What waiting for the log ended with.
enum Woken {
    Fetched(Vec<FetchedBatch>),
    Asked(Command),
    Cancelled,
}

impl Projector {
    #[expect(clippy::too_many_arguments, reason = "called once, by the function that makes all of them")]
    pub(crate) fn new(
        options: ProjectorOptions,
        fold: Fold,
        log: Arc<dyn EventLog>,
        metrics: ProjectorMetrics,
        shared: Arc<Shared>,
        cancel: CancellationToken,
        commands: mpsc::Receiver<Command>,
        runtime: Handle,
    ) -> Self {
        let letters = LetterBox::new(log.clone(), &options.prefix, &options.name);
        Self {
            options,
            fold,
            log,
            letters,
            metrics,
            shared,
            cancel,
            commands,
            runtime,
            places: BTreeMap::new(),
            written_at: BTreeMap::new(),
            looked: None,
            committed: None,
            settled: Vec::new(),
        }
    }

    /// Runs until it is cancelled, or an error cannot be mended by trying again.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut back_off = BACK_OFF.0;
        while !self.cancel.is_cancelled() {
            let error = match self.turn() {
                Ok(()) => {
                    back_off = BACK_OFF.0;
                    continue;
                }
                Err(error) => error,
            };
            self.shared.status.lock().last_error = Some(explained(&error));
            if error.kind() == ErrorKind::Fatal {
                tracing::error!(error = explained(&error), "projector stops");
                return Err(error);
            }
            tracing::warn!(error = explained(&error), again_in = ?back_off, "projector tries again");
            self.metrics.retries.inc();
            self.places.clear();
            self.looked = None;
            self.runtime.block_on(async {
                tokio::select! {
                    () = self.cancel.cancelled() => {}
                    () = tokio::time::sleep(back_off) => {}
                }
            });
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
        // The log learns what is durable, so that a clean stop holds nothing back.
        self.settled = self.consumed();
        self.commit_offsets(Duration::ZERO)
    }

    /// One round: look around if it is time, wait for events or commands, fold, work in the background.
    fn turn(&mut self) -> Result<(), Error> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.look()?;
        }
        let busy = self.fold.has_background_work() || !self.fold.replay_places().is_empty();
        match self.wait(if busy { Duration::ZERO } else { self.options.wait_max })? {
            Woken::Cancelled => return Ok(()),
            Woken::Asked(command) => {
                self.obey(command)?;
                self.looked = None;
            }
            Woken::Fetched(batches) => self.fold_fetched(&batches)?,
        }
        if busy {
            self.replay()?;
            self.background()?;
        }
        Ok(())
    }

    /// Waits for events, a command or the end, whichever comes first. Commands come before events, so that a full log
    /// does not starve them; each arm may be dropped, since a fetch changes nothing and a received command is returned.
    fn wait(&mut self, wait_max: Duration) -> Result<Woken, Error> {
        let from: Vec<FetchFrom> = self
            .places
            .iter()
            .map(|(partition, offset)| FetchFrom { partition: partition.clone(), offset: *offset })
            .collect();
        let limits = FetchLimits { bytes_max: self.options.batch_bytes_max, wait_max };
        let Self { cancel, commands, log, runtime, .. } = self;
        runtime.block_on(async {
            let fetch = async {
                if from.is_empty() {
                    tokio::time::sleep(wait_max).await;
                    return Ok(Vec::new());
                }
                log.fetch(&from, limits).await
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(Woken::Cancelled),
                Some(command) = commands.recv() => Ok(Woken::Asked(command)),
                fetched = fetch => Ok(Woken::Fetched(fetched?)),
            }
        })
    }

    /// Folds what was fetched, in as many micro-batches as it takes.
    fn fold_fetched(&mut self, batches: &[FetchedBatch]) -> Result<(), Error> {
        let mut inputs: Vec<Input<'_>> = Vec::new();
        let mut room = self.options.batch_events_max.max(1);
        for batch in batches {
            let mut skip = 0;
            let count = batch.count() as usize;
            // It has no records, and says that reading goes on behind offsets that have none.
            if count == 0 {
                inputs.push(Input::whole(batch));
            }
            if count == 0 {
                // Nothing but a place behind records that are not for us, such as the marks of transactions.
                inputs.push(Input::whole(batch));
            }
            while skip < count {
                let take = (count - skip).min(room);
                inputs.push(Input { batch, skip, take });
                (skip, room) = (skip + take, room - take);
                if room == 0 {
                    self.micro_batch(&inputs)?;
                    inputs.clear();
                    room = self.options.batch_events_max.max(1);
                }
            }
        }
        if !inputs.is_empty() {
            self.micro_batch(&inputs)?;
        }
        Ok(())
    }

    fn micro_batch(&mut self, inputs: &[Input<'_>]) -> Result<(), Error> {
        let began = Instant::now();
        let Self { fold, letters, runtime, .. } = self;
        let folded = fold.micro_batch(inputs, &mut |found| runtime.block_on(letters.append(found)))?;
        for input in inputs {
            let next = match input.skip + input.take >= input.batch.count() as usize {
                true => input.batch.next(),
                false => Offset(input.batch.base.0 + (input.skip + input.take) as u64),
            };
            self.places.insert(input.batch.from.clone(), next);
            if let Some(last) = input.batch.records().skip(input.skip).take(input.take).last() {
                self.written_at.insert(input.batch.from.clone(), last.timestamp_ms);
            }
            // A batch that is folded in parts counts with the first.
            if input.skip == 0 {
                self.metrics.events_bytes.inc_by(input.batch.byte_len() as u64);
            }
        }
        self.metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
        let now = now_micros();
        for at in &folded.committed_at {
            self.metrics.freshness_seconds.observe(now.saturating_sub(*at).max(0) as f64 / 1e6);
        }
        self.metrics.batches.inc();
        self.shared.status.lock().batches_total += 1;
        self.count(&folded);
        Ok(())
    }

    fn count(&self, folded: &Folded) {
        self.metrics.events.inc_by(folded.events);
        self.metrics.rows.inc_by(folded.rows);
        self.metrics.documents_written.inc_by(folded.documents.written);
        self.metrics.documents_deleted.inc_by(folded.documents.deleted);
        self.metrics.documents_unchanged.inc_by(folded.documents.unchanged);
        self.metrics.dead_letters.inc_by(folded.dead_letters);
        let mut status = self.shared.status.lock();
        status.events_total += folded.events;
        status.documents_written_total += folded.documents.written + folded.documents.deleted;
        status.last_error = None;
    }

    /// Reads on in a replay, if there is one.
    fn replay(&mut self) -> Result<(), Error> {
        let from = self.fold.replay_places();
        if from.is_empty() {
            return Ok(());
        }
        let limits = FetchLimits { bytes_max: self.options.batch_bytes_max, wait_max: Duration::ZERO };
        let batches = self.runtime.block_on(self.log.fetch(&from, limits))?;
        let inputs: Vec<Input<'_>> = batches.iter().map(Input::whole).collect();
        let Self { fold, letters, runtime, .. } = self;
        let folded = fold.replay_batch(&inputs, &mut |found| runtime.block_on(letters.append(found)))?;
        self.count(&folded);
        Ok(())
    }

    fn background(&mut self) -> Result<(), Error> {
        let Self { fold, letters, runtime, .. } = self;
        let budget = if fold.is_serving() { SLICE.0 } else { SLICE.1 };
        let folded = fold.background(budget, &mut |found| runtime.block_on(letters.append(found)))?;
        if let Some(folded) = folded {
            self.count(&folded);
        }
        Ok(())
    }

    /// Finds topics that exist by now, tells the log and the status how far things are, and does what is due rarely.
    fn look(&mut self) -> Result<(), Error> {
        self.fold.refresh()?;
        self.find_topics()?;
        if self.committed.is_none_or(|committed| committed.elapsed() >= COMMIT_INTERVAL) {
            self.commit_offsets(COMMIT_INTERVAL)?;
            self.settled = self.consumed();
            self.committed = Some(Instant::now());
        }
        // Retired versions are removed here, at the latest.
        self.background()?;
        let mut consumers = Vec::new();
        let mut behind = 0;
        for (place, offset) in &self.places {
            let high = self.runtime.block_on(self.log.watermarks(place))?.high;
            let lag = high.0.saturating_sub(offset.0);
            behind += lag;
            consumers.push(ConsumerStatus {
                topic: place.topic.to_string(),
                partition: place.partition,
                offset: offset.0,
                high: high.0,
                lag,
                lag_seconds: match (lag, self.written_at.get(place)) {
                    (0, _) => Some(0.0),
                    (_, Some(at)) => Some(now_ms().saturating_sub(*at).max(0) as f64 / 1000.0),
                    (_, None) => None,
                },
            });
        }
        let letters = self.runtime.block_on(self.letters.count())?;
        let models = self.fold.model_status()?;
        self.metrics.lag_records.set(i64::try_from(behind).unwrap_or(i64::MAX));
        let mut status = self.shared.status.lock();
        status.dead_letters = letters.saturating_sub(self.shared.resolved.lock().len() as u64);
        status.consumers = consumers;
        status.models = models;
        drop(status);
        self.looked = Some(Instant::now());
        Ok(())
    }

    fn find_topics(&mut self) -> Result<(), Error> {
        let prefix = self.options.prefix.clone();
        let (tables, sources) = (self.fold.topics(), self.fold.sources());
        self.places.retain(|place, _| match progress_source(&prefix, &place.topic) {
            Some(source) => sources.iter().any(|known| known == source),
            None => tables.iter().any(|table| **table == *place.topic),
        });
        for (topic, partitions) in self.runtime.block_on(self.log.topics())? {
            let progress = progress_source(&prefix, &topic).filter(|source| sources.iter().any(|it| it == source));
            if progress.is_none() && !tables.iter().any(|table| **table == *topic) {
                continue;
            }
            for partition in 0..partitions {
                let place = TopicPartition { topic: topic.clone(), partition };
                if self.places.contains_key(&place) {
                    continue;
                }
                let marks = self.runtime.block_on(self.log.watermarks(&place))?;
                let next = match self.fold.offsets().get(&(topic.to_string(), partition)) {
                    // Only the newest progress counts, and the offset of the last one read is not kept. Behind it may be
                    // offsets without records, such as the marks of transactions.
                    _ if progress.is_some() => marks.low.max(Offset(marks.high.0.saturating_sub(PROGRESS_BACK))),
                    Some(offset) => Offset(*offset),
                    None => marks.low,
                };
                if progress.is_none() {
                    self.fold.set_floor(&topic, partition, marks.high.0);
                }
                self.places.insert(place, next);
            }
        }
        Ok(())
    }

    fn consumed(&self) -> Vec<(TopicPartition, Offset)> {
        let tables =
            self.places.iter().filter(|(place, _)| progress_source(&self.options.prefix, &place.topic).is_none());
        tables.map(|(place, offset)| (place.clone(), *offset)).collect()
    }

    /// Tells the log what was read so long ago, once the store cannot lose it any more.
    fn commit_offsets(&mut self, age: Duration) -> Result<(), Error> {
        if !self.settled.is_empty() {
            self.fold.settle(age)?;
            let group = format!("{}.{}", self.options.prefix, self.options.name);
            self.runtime.block_on(self.log.commit_offsets(&group, &self.settled))?;
        }
        Ok(())
    }

    /// Does what was asked. What was wrong about the request is the asker's; what may pass or stop the projector is ours.
    fn obey(&mut self, command: Command) -> Result<(), Error> {
        fn answered<T>(
            to: tokio::sync::oneshot::Sender<Result<T, Error>>,
            result: Result<T, Error>,
        ) -> Result<(), Error> {
            let (answer, ours) = match result {
                Err(error) if error.kind() == ErrorKind::Fatal => (Err(Error::Stopped), Err(error)),
                result => (result, Ok(())),
            };
            // An asker that has gone away does not mind.
            drop(to.send(answer));
            ours
        }
        match command {
            Command::Reload { models, answer } => answered(answer, self.fold.declare(&models)),
            Command::Replay { model, from, answer } => answered(answer, self.begin_replay(&model, &from)),
            Command::Retry { offsets, answer } => answered(answer, self.retry(offsets)),
        }
    }

    fn begin_replay(&mut self, model: &str, from: &replay::ReplayFrom) -> Result<u32, Error> {
        let topics = self.fold.model_topics(model)?;
        let parts = self.runtime.block_on(replay::plan(&*self.log, &topics, from))?;
        Ok(self.fold.begin_replay(model, parts)?.0)
    }

    fn retry(&mut self, offsets: Option<Vec<u64>>) -> Result<RetryOutcome, Error> {
        let resolved = self.shared.resolved.lock().clone();
        let prefix = &self.options.prefix;
        let letters = self.runtime.block_on(dead_letters::list(&*self.log, prefix, &resolved, usize::MAX))?;
        let mut outcome = RetryOutcome::default();
        for listed in letters {
            if offsets.as_ref().is_some_and(|offsets| !offsets.contains(&listed.offset)) {
                continue;
            }
            match self.fold.retry(&listed)? {
                None => outcome.skipped += 1,
                Some(done) => {
                    outcome.retried += 1;
                    outcome.resolved += u64::from(done);
                    outcome.failed += u64::from(!done);
                }
            }
        }
        *self.shared.resolved.lock() = self.fold.resolved_letters()?;
        Ok(outcome)
    }
}

/// An error with its causes.
fn explained(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
