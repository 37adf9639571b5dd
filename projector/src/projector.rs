//! The projector's thread: reads the log, folds what it read, and in between does what it is asked and what is due.
//!
//! Everything blocks here, one thing after another, so that there is one writer to the store and no lock to hold. Only
//! the waiting for the log is asynchronous, and can be dropped at any point: a fetch changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::{EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, TopicPartition};
use headwater_schemas::model::definition::ReadModel;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{self, LetterBox, ListedLetter, Pages, RetryOutcome};
use crate::fold::{Fold, Folded};
use crate::handle::{Command, ProjectorOptions, Shared};
use crate::observer::{Observation, Observer};
use crate::records::{Input, divided, micro_batches, progress_source, record_count};
use crate::rounds::{self, BackOff, Woken};
use crate::status::ConsumerStatus;
use crate::times::Times;
use crate::{Error, ProjectorMetrics, replay};

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
    observer: Observer,
    metrics: ProjectorMetrics,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    commands: mpsc::Receiver<Command>,
    runtime: Handle,
    /// Where to read on.
    places: BTreeMap<TopicPartition, Offset>,
    /// How far behind in time each place is.
    times: Times,
    /// Whether the log was looked at since the start, the last error or the last command.
    looked: bool,
    committed: Option<Instant>,
    /// What the log is told at the next commit of offsets.
    settled: Vec<(TopicPartition, Offset)>,
    /// Events of a micro-batch: fewer after the store failed, since it may be too much for it in a way that it has no word
    /// for.
    events_max: usize,
    /// Letters that are being tried again, for each who asked.
    retries: VecDeque<Retry>,
}

/// Letters that somebody wants to be tried again.
struct Retry {
    /// Where the next ones are read.
    pages: Pages,
    left: VecDeque<ListedLetter>,
    /// Those that were named; `None`: all.
    offsets: Option<Vec<u64>>,
    outcome: RetryOutcome,
    answer: oneshot::Sender<Result<RetryOutcome, Error>>,
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
        let letters = LetterBox::of_one(log.clone(), &options.prefix);
        let observer = Observer::new(log.clone(), &options.prefix, runtime.clone());
        Self {
            events_max: options.batch_events_max,
            options,
            fold,
            log,
            letters,
            observer,
            metrics,
            shared,
            cancel,
            commands,
            runtime,
            places: BTreeMap::new(),
            times: Times::default(),
            looked: false,
            committed: None,
            settled: Vec::new(),
            retries: VecDeque::new(),
        }
    }

    /// Runs until it is cancelled, or an error cannot be mended by trying again.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut back_off = BackOff::new(BACK_OFF);
        while !self.cancel.is_cancelled() {
            let Err(error) = self.turn() else {
                back_off.reset();
                continue;
            };
            if matches!(error, Error::Store(_)) {
                self.events_max = (self.events_max / 2).max(1);
            }
            let time = back_off.after(error, &self.shared, &self.metrics)?;
            self.places.clear();
            self.looked = false;
            rounds::pause(&self.runtime, &self.cancel, time);
        }
        // The log learns what is durable, so that a clean stop holds nothing back.
        self.settled = self.consumed();
        self.commit_offsets(Duration::ZERO)
    }

    /// One round: take in what was observed, wait for events or commands, fold, work in the background.
    fn turn(&mut self) -> Result<(), Error> {
        let observed = match self.looked {
            true => self.observer.poll(self.places.keys())?,
            false => Some(self.observer.observe(self.places.keys())?),
        };
        if let Some(observed) = observed {
            self.look(observed)?;
        }
        let busy = self.fold.has_background_work() || !self.fold.replay_places().is_empty() || !self.retries.is_empty();
        match self.wait(if busy { Duration::ZERO } else { self.options.wait_max })? {
            Woken::Cancelled => return Ok(()),
            Woken::Asked(command) => {
                self.obey(command)?;
                // What it needs of the log is looked for before anything is built of it.
                self.looked = false;
                return Ok(());
            }
            Woken::Fetched(batches) => self.fold_fetched(&batches)?,
        }
        if busy {
            self.replay()?;
            self.background()?;
            self.retry()?;
        }
        Ok(())
    }

    /// Waits for events, a command or the end, whichever comes first. Commands come before events, so that a full log
    /// does not starve them; each arm may be dropped, since a fetch changes nothing and a received command is returned.
    fn wait(&mut self, wait_max: Duration) -> Result<Woken, Error> {
        let limits = FetchLimits { bytes_max: self.options.batch_bytes_max, wait_max };
        let Self { cancel, commands, log, runtime, places, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(Woken::Cancelled),
                Some(command) = commands.recv() => Ok(Woken::Asked(command)),
                fetched = rounds::fetch(&**log, places.iter(), limits) => Ok(Woken::Fetched(fetched?)),
            }
        })
    }

    /// Folds what was fetched, in as many micro-batches as it takes.
    fn fold_fetched(&mut self, batches: &[FetchedBatch]) -> Result<(), Error> {
        self.times.met(batches);
        micro_batches(batches, self.events_max, |inputs| self.in_parts(inputs, Self::micro_batch))
    }

    /// Does this with records at once, or in halves where that is too much for the store.
    fn in_parts(
        &mut self,
        inputs: &[Input<'_>],
        fold: fn(&mut Self, &[Input<'_>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match fold(self, inputs) {
            Err(error) if error.is_too_large() && record_count(inputs) > 1 => {
                let (first, rest) = divided(inputs);
                self.in_parts(&first, fold)?;
                self.in_parts(&rest, fold)
            }
            done => done,
        }
    }

    fn micro_batch(&mut self, inputs: &[Input<'_>]) -> Result<(), Error> {
        let began = Instant::now();
        let Self { fold, letters, runtime, .. } = self;
        let folded = fold.micro_batch(inputs, &mut |found| runtime.block_on(letters.append(found)))?;
        rounds::passed(inputs, &mut self.places, &mut self.times, &self.metrics);
        self.metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.fresh(&folded);
        self.shared.fresh.lock().note(&folded);
        self.metrics.batches.inc();
        self.shared.status.lock().batches_total += 1;
        self.events_max = self.events_max.saturating_mul(2).min(self.options.batch_events_max);
        self.count(&folded);
        Ok(())
    }

    fn count(&mut self, folded: &Folded) {
        // Whoever finds a letter in the list finds it in the status, too.
        self.looked &= folded.dead_letters == 0;
        self.metrics.count(folded);
        self.shared.count(folded);
    }

    /// Reads on in a replay, if there is one.
    fn replay(&mut self) -> Result<(), Error> {
        let from = self.fold.replay_places();
        if from.is_empty() {
            return Ok(());
        }
        let limits = FetchLimits { bytes_max: self.options.batch_bytes_max, wait_max: Duration::ZERO };
        let batches = match self.runtime.block_on(self.log.fetch(&from, limits)) {
            Err(error @ headwater_broker::Error::OffsetOutOfRange { .. }) => {
                return self.replay_what_is_left(&from, error);
            }
            fetched => fetched?,
        };
        let inputs: Vec<Input<'_>> = batches.iter().map(Input::whole).collect();
        self.in_parts(&inputs, Self::replay_batch)
    }

    fn replay_batch(&mut self, inputs: &[Input<'_>]) -> Result<(), Error> {
        let Self { fold, letters, runtime, .. } = self;
        let folded = fold.replay_batch(inputs, &mut |found| runtime.block_on(letters.append(found)))?;
        self.count(&folded);
        Ok(())
    }

    /// Retention, which does not wait for a replay, has removed what it was to read next: it goes on behind that. What it
    /// reads repairs rows that are there already, so nothing is missing for it.
    fn replay_what_is_left(&mut self, from: &[FetchFrom], error: headwater_broker::Error) -> Result<(), Error> {
        let mut lows = Vec::new();
        for FetchFrom { partition, offset } in from {
            let low = self.runtime.block_on(self.log.watermarks(partition))?.low;
            if low > *offset {
                tracing::warn!(%partition, offset = offset.0, low = low.0, "a replay was overtaken by retention");
                lows.push((partition.clone(), low));
            }
        }
        if lows.is_empty() { Err(error.into()) } else { self.fold.replay_behind(&lows) }
    }

    fn background(&mut self) -> Result<(), Error> {
        let Self { fold, letters, runtime, .. } = self;
        let budget = if fold.is_serving() { SLICE.0 } else { SLICE.1 };
        let letters = &mut |found: &[_]| runtime.block_on(letters.append(found));
        let folded = match fold.background(budget, letters) {
            // A slice alone.
            Err(error) if error.is_too_large() => fold.background(Duration::ZERO, letters)?,
            folded => folded?,
        };
        if let Some(folded) = folded {
            self.count(&folded);
        }
        Ok(())
    }

    /// Finds topics that exist by now, tells the log and the status how far things are, and does what is due rarely.
    fn look(&mut self, observed: Observation) -> Result<(), Error> {
        let Observation { topics, mut ends, letters } = observed;
        self.fold.refresh()?;
        self.find_topics(&topics, &mut ends)?;
        if !self.looked {
            self.forget_offsets()?;
        }
        if self.committed.is_none_or(|committed| committed.elapsed() >= COMMIT_INTERVAL) {
            self.commit_offsets(COMMIT_INTERVAL)?;
            self.settled = self.consumed();
            self.committed = Some(Instant::now());
        }
        // Retired versions are removed here, at the latest.
        self.background()?;
        let group = self.group();
        let consumers = ConsumerStatus::all(&group, self.places.iter(), &ends, &mut self.times);
        let behind: u64 = consumers.iter().map(|one| one.lag).sum();
        let models = self.fold.model_status()?;
        self.metrics.lag_records.set(i64::try_from(behind).unwrap_or(i64::MAX));
        let unresolved = letters.unresolved(&self.shared.resolved.lock());
        self.shared.look(models, consumers, unresolved);
        self.looked = true;
        Ok(())
    }

    /// Reads what is to be read of `topics`, and nothing else: the tables of the models, and those of which there are rows.
    /// A table whose last model is gone is followed on, so that a model that comes back, or another one, finds its rows as
    /// they are now. Adds the ends of partitions that are new to `ends`.
    fn find_topics(
        &mut self,
        topics: &[(Arc<str>, u32)],
        ends: &mut BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let prefix = self.options.prefix.clone();
        let (tables, sources) = (self.fold.topics(), self.fold.sources());
        let is_wanted = |topic: &str| tables.iter().any(|table| *table == topic);
        let kept: BTreeSet<String> = self.fold.offsets().keys().map(|(topic, _)| topic.clone()).collect();
        let is_read = |topic: &str| is_wanted(topic) || kept.contains(topic);
        self.places.retain(|place, _| match progress_source(&prefix, &place.topic) {
            Some(source) => sources.iter().any(|known| known == source),
            None => is_read(&place.topic),
        });
        let mut found = Vec::new();
        for (topic, partitions) in topics {
            let progress = progress_source(&prefix, topic).filter(|source| sources.iter().any(|it| it == source));
            if progress.is_none() && !is_read(topic) {
                continue;
            }
            for partition in 0..*partitions {
                let place = TopicPartition { topic: topic.clone(), partition };
                if self.places.contains_key(&place) {
                    continue;
                }
                let marks = self.runtime.block_on(self.log.watermarks(&place))?;
                let next = match self.fold.offsets().get(&(topic.to_string(), partition)) {
                    // Only the newest progress counts, and the offset of the last one read is not kept. Behind it may be
                    // offsets without records, such as the marks of transactions.
                    _ if progress.is_some() => marks.low.max(Offset(marks.high.0.saturating_sub(PROGRESS_BACK))),
                    // Nobody was told that it is kept: it was not read for a while, and cannot be read on.
                    Some(offset) if *offset < marks.low.0 && !is_wanted(topic) => continue,
                    // What a version that serves lacks cannot be made good: reading it tells.
                    Some(offset) if *offset >= marks.low.0 || self.fold.serves(topic) => Offset(*offset),
                    None if marks.low.0 == 0 => marks.low,
                    Some(_) | None => {
                        self.fold.begin_late(&place, marks)?;
                        marks.low
                    }
                };
                match progress {
                    None => {
                        self.fold.set_floor(topic, partition, marks.high.0);
                        found.push((place.clone(), marks.low));
                    }
                    Some(source) if marks.high > marks.low => self.fold.await_progress(source),
                    Some(_) => {}
                }
                ends.insert(place.clone(), marks.high);
                self.places.insert(place, next);
            }
        }
        self.hold(found)
    }

    /// Has retention wait for places that are read from now on, where nothing was told of them, or more than this store
    /// has read: it could overtake us before what was read is told. That nothing below the low watermark is read again
    /// is true whatever the store may lose, so it is told at once.
    fn hold(&mut self, mut found: Vec<(TopicPartition, Offset)>) -> Result<(), Error> {
        if found.is_empty() {
            return Ok(());
        }
        let group = self.group();
        let committed = self.runtime.block_on(self.log.committed_offsets(&group))?;
        let committed: BTreeMap<TopicPartition, Offset> = committed.into_iter().collect();
        found.retain(|(place, _)| committed.get(place).is_none_or(|told| *told > self.places[place]));
        if !found.is_empty() {
            self.runtime.block_on(self.log.commit_offsets(&group, &found))?;
        }
        for (place, low) in found {
            // Retention came first: it is found anew.
            if self.runtime.block_on(self.log.watermarks(&place))?.low > low {
                self.places.remove(&place);
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
            self.runtime.block_on(self.log.commit_offsets(&self.group(), &self.settled))?;
        }
        Ok(())
    }

    fn group(&self) -> String {
        ProjectorOptions::group(&self.options.prefix, &self.options.name)
    }

    /// Lets go of what is not read any more: retention would wait for it for ever.
    fn forget_offsets(&mut self) -> Result<(), Error> {
        let committed = self.runtime.block_on(self.log.committed_offsets(&self.group()))?;
        let is_read = |place: &TopicPartition| self.places.contains_key(place);
        let unread: Vec<TopicPartition> =
            committed.into_iter().map(|(place, _)| place).filter(|place| !is_read(place)).collect();
        self.settled.retain(|(place, _)| is_read(place));
        if !unread.is_empty() {
            self.runtime.block_on(self.log.forget_offsets(&self.group(), &unread))?;
        }
        Ok(())
    }

    /// Does what was asked.
    fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Reload { models, answer } => rounds::answer(answer, self.declare(&models)),
            Command::Replay { model, from, answer } => rounds::answer(answer, self.begin_replay(&model, &from)),
            Command::Retry { offsets, answer } => match self.begin_retry() {
                Ok(pages) => {
                    let (left, outcome) = (VecDeque::new(), RetryOutcome::default());
                    self.retries.push_back(Retry { pages, left, offsets, outcome, answer });
                    Ok(())
                }
                Err(error) => rounds::answer(answer, Err(error)),
            },
        }
    }

    fn declare(&mut self, models: &[ReadModel]) -> Result<(), Error> {
        self.raise_floors(models)?;
        self.fold.declare(models)
    }

    /// The frontier did not wait for tables that no model read until now, although they were followed on: a model that wants
    /// them is not built before they are read as far as they go.
    fn raise_floors(&mut self, models: &[ReadModel]) -> Result<(), Error> {
        let tables = self.fold.topics();
        let wanted = models.iter().flat_map(ReadModel::tables).map(|table| table.topic(&self.options.prefix));
        let wanted: BTreeSet<String> = wanted.filter(|topic| !tables.contains(topic)).collect();
        for place in self.places.keys().filter(|place| wanted.contains(&*place.topic)) {
            let end = self.runtime.block_on(self.log.watermarks(place))?.high;
            self.fold.set_floor(&place.topic, place.partition, end.0);
        }
        Ok(())
    }

    fn begin_replay(&mut self, model: &str, from: &replay::ReplayFrom) -> Result<u32, Error> {
        let topics = self.fold.model_topics(model)?;
        let parts = self.runtime.block_on(replay::plan(&*self.log, &topics, from))?;
        Ok(self.fold.begin_replay(model, parts)?.0)
    }

    /// The letters that are there.
    fn begin_retry(&mut self) -> Result<Pages, Error> {
        let pages = self.runtime.block_on(Pages::of_all(&*self.log, &self.options.prefix))?;
        // A document that fails after its letter was resolved has another one.
        self.letters.forget_told();
        Ok(pages)
    }

    /// Tries some letters again, and answers who asked when there are none left, or one fails in a way of its own: there may
    /// be very many, and changes must not wait for them.
    fn retry(&mut self) -> Result<(), Error> {
        let mut resolved = Vec::new();
        let tried = self.retry_some(&mut resolved);
        let noted = if resolved.is_empty() { Ok(()) } else { self.note_resolved(&resolved) };
        match tried.and_then(|is_done| noted.map(|()| is_done)) {
            Ok(false) => Ok(()),
            ended => {
                let Some(Retry { outcome, answer, .. }) = self.retries.pop_front() else { return ended.map(|_| ()) };
                // Whoever asks next finds what was resolved.
                self.looked = false;
                rounds::answer(answer, ended.and_then(|_| self.fold.weigh_again()).map(|()| outcome))
            }
        }
    }

    fn note_resolved(&mut self, offsets: &[u64]) -> Result<(), Error> {
        let first_left = self.runtime.block_on(dead_letters::first_left(&*self.log, &self.options.prefix));
        let all = self.fold.mark_resolved(offsets, first_left)?;
        self.shared.resolved.lock().extend(&all);
        Ok(())
    }

    /// Tries letters again for a slice of time; answers whether none are left.
    fn retry_some(&mut self, resolved: &mut Vec<u64>) -> Result<bool, Error> {
        let Self { retries, fold, letters, runtime, log, options, shared, .. } = self;
        let Some(Retry { pages, left, offsets, outcome, .. }) = retries.front_mut() else { return Ok(false) };
        let is_meant = |listed: &ListedLetter| offsets.as_ref().is_none_or(|meant| meant.contains(&listed.offset));
        let until = Instant::now() + SLICE.0;
        loop {
            let Some(listed) = left.front() else {
                let known = shared.resolved.lock().clone();
                let Some(page) = runtime.block_on(pages.next(&**log, &known))? else { return Ok(true) };
                left.extend(page.into_iter().filter(is_meant));
                if Instant::now() >= until {
                    return Ok(false);
                }
                continue;
            };
            if !fold.has(&listed.letter) {
                outcome.leave(offsets.is_some(), listed.offset, resolved);
                left.pop_front();
                continue;
            }
            let whole = runtime.block_on(dead_letters::whole(&**log, &options.prefix, listed))?;
            let tried = match &whole {
                Some(whole) => fold.retry(whole, &mut |found| runtime.block_on(letters.append(found)))?,
                None => None,
            };
            match tried {
                None => outcome.skip(&listed.letter),
                Some(done) => {
                    outcome.retried += 1;
                    outcome.resolved += u64::from(done);
                    outcome.failed += u64::from(!done);
                    resolved.extend(done.then_some(listed.offset));
                }
            }
            left.pop_front();
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}
