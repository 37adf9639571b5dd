//! A worker's thread: reads the log, takes its part through both stages, and in between does what is due and asked.
//!
//! Everything blocks here, one thing after another, as in a projector that works alone. Any number of workers may run, in
//! one process or in many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::{
    AppendBatch, EventLog, FetchLimits, FetchedBatch, Offset, Retention, TopicPartition, TopicSpec,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::applying::Applied;
use super::assignment::Assignment;
use super::building::Passed;
use super::share::{Share, leader_topic};
use super::telling::Asked;
use crate::dead_letters::LetterBox;
use crate::fold::Folded;
use crate::handle::{Command, ProjectorOptions, Shared};
use crate::observer::Observer;
use crate::records::{Input, divided, micro_batches};
use crate::rounds::{self, BackOff, Woken};
use crate::times::Times;
use crate::{Error, ProjectorMetrics};

/// How often assignments, topics and claims are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the store may not know that something was emitted, while there is more to apply. What is applied next in the same
/// partition says so, too; a transaction for it alone is a seventh of a round.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

/// How often the leader looks whether a frontier can be moved, at most.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

/// How long the leader works for versions and join indexes before it looks for events again.
const SLICE: Duration = Duration::from_millis(25);

/// How long documents are built before it is looked what else there is, of other models too. At least as long as the events
/// before took, so that these do not take all the time there is.
const BUILD_SLICE: Duration = Duration::from_millis(100);

/// Part of the bytes of a fetch that is fetched while documents wait to be built.
const WAITING_PART: usize = 4;

/// Back-off after an error that may pass. Two workers that were in each other's way are the usual case.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));

/// How long a worker keeps its partitions while a store does not answer it. Others may reach the store.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// Records appended at once.
const APPEND_BYTES: usize = 4 << 20;

pub(crate) struct Worker {
    pub(super) options: ProjectorOptions,
    pub(super) share: Share,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) letters: LetterBox,
    pub(super) observer: Observer,
    pub(super) metrics: ProjectorMetrics,
    pub(super) shared: Arc<Shared>,
    pub(super) cancel: CancellationToken,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) runtime: Handle,
    pub(super) sources: Assignment,
    pub(super) dirty: Assignment,
    /// Where to read on, in the partitions of the sources and in those of dirty roots.
    pub(super) source_next: BTreeMap<TopicPartition, Offset>,
    pub(super) dirty_next: BTreeMap<TopicPartition, Offset>,
    /// What of dirty roots is in documents.
    pub(super) dirty_built: BTreeMap<TopicPartition, Offset>,
    /// How long stage one took last.
    pub(super) applied_in: Duration,
    /// Partitions of tables that no model reads, which were not read for so long that they cannot be read on.
    pub(super) left_out: BTreeSet<TopicPartition>,
    /// How far behind in time each place is.
    pub(super) times: Times,
    pub(super) asked: Vec<Asked>,
    pub(super) looked: Option<Instant>,
    pub(super) settled: Instant,
    /// When the leader looks at frontiers next.
    pub(super) publish_at: Instant,
}

impl Worker {
    /// Runs until it is cancelled, or an error cannot be mended by trying again.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut back_off = BackOff::new(BACK_OFF);
        let mut away = Away::default();
        while !self.cancel.is_cancelled() {
            let Err(error) = self.turn() else {
                back_off.reset();
                away = Away::default();
                continue;
            };
            let is_away = away.is_for_long(&error, Instant::now());
            let time = back_off.after(error, &self.shared, &self.metrics)?;
            self.start_over();
            if is_away {
                self.leave();
            }
            rounds::pause(&self.runtime, &self.cancel, time);
        }
        // What is left undone here, whoever claims the partitions next finds and does.
        self.emit()?;
        self.share.settle()
    }

    /// Forgets what may not be so: partitions are claimed anew, and dirty roots read again.
    fn start_over(&mut self) {
        for at in std::mem::take(&mut self.source_next).into_keys() {
            self.share.release(&at);
        }
        self.dirty_next.clear();
        self.dirty_built.clear();
        self.left_out.clear();
        self.share.forget_taken();
        self.looked = None;
    }

    /// Lets others have the partitions, and the lead, until the stores answer again. The log sees by itself who does not reach
    /// the log.
    fn leave(&mut self) {
        if self.dirty.is_joined() {
            tracing::warn!(
                after = ?AWAY_MAX,
                "a store does not answer this projector: it leaves its partitions to others until it does"
            );
        }
        self.sources.leave();
        self.dirty.leave();
    }

    /// One round: look around if it is time, finish what is begun, wait for records, take them through their stage.
    fn turn(&mut self) -> Result<(), Error> {
        let anew = self.looked.is_none();
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if due || self.sources.has_changed() || self.dirty.has_changed() {
            self.look()?;
        }
        let places = self.source_next.keys().chain(self.dirty_next.keys());
        let observed = if anew { Some(self.observer.observe(places)?) } else { self.observer.poll(places)? };
        if let Some(observed) = observed {
            self.tell(observed)?;
        }
        self.emit()?;
        let working = self.lead()?;
        let has_more = working || self.share.has_unsettled() || !self.share.is_built();
        let wait_max = match (has_more, self.share.leads()) {
            (true, _) => Duration::ZERO,
            (false, true) => self.options.wait_max.min(PUBLISH_INTERVAL),
            (false, false) => self.options.wait_max,
        };
        let batches = match self.wait(wait_max)? {
            Woken::Cancelled => return Ok(()),
            Woken::Asked(command) => {
                self.obey(command)?;
                self.looked = None;
                return Ok(());
            }
            Woken::Fetched(batches) => batches,
        };
        self.times.met(&batches);
        let (events, roots): (Vec<FetchedBatch>, Vec<FetchedBatch>) =
            batches.into_iter().partition(|batch| self.source_next.contains_key(&batch.from));
        self.build(&roots)?;
        if self.share.has_unsettled() && (events.is_empty() || self.settled.elapsed() >= SETTLE_INTERVAL) {
            self.share.settle()?;
            self.settled = Instant::now();
        }
        let began = Instant::now();
        self.apply(&events)?;
        self.applied_in = began.elapsed();
        Ok(())
    }

    /// Waits for records, a command or the end, whichever comes first. Commands come before records, so that a full log does
    /// not starve them; each arm may be dropped, since a fetch changes nothing and a received command is returned.
    fn wait(&mut self, wait_max: Duration) -> Result<Woken, Error> {
        let bytes_max = self.options.batch_bytes_max;
        let bytes_max = if self.share.is_built() { bytes_max } else { bytes_max / WAITING_PART };
        let limits = FetchLimits { bytes_max, wait_max };
        let Self { cancel, commands, log, runtime, sources, dirty, source_next, dirty_next, share, .. } = self;
        let places = dirty_next.iter().filter(|(at, _)| !share.is_full(&at.topic)).chain(&*source_next);
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Ok(Woken::Cancelled),
                Some(command) = commands.recv() => Ok(Woken::Asked(command)),
                fetched = rounds::fetch(&**log, places, limits) => Ok(Woken::Fetched(fetched?)),
                // Nothing is fetched of what moves away, and what comes is looked at in the next round.
                () = sources.changed() => Ok(Woken::Fetched(Vec::new())),
                () = dirty.changed() => Ok(Woken::Fetched(Vec::new())),
            }
        })
    }

    /// Stage one, in as many batches as it takes.
    fn apply(&mut self, batches: &[FetchedBatch]) -> Result<(), Error> {
        micro_batches(batches, self.options.batch_events_max, |inputs| self.apply_inputs(inputs))
    }

    fn apply_inputs(&mut self, inputs: &[Input<'_>]) -> Result<(), Error> {
        // Partitions that were lost on the way are not gone on with.
        let mut inputs: Vec<Input<'_>> =
            inputs.iter().filter(|input| self.share.owns(&input.batch.from)).copied().collect();
        let began = Instant::now();
        while !inputs.is_empty() {
            let Self { share, letters, runtime, .. } = self;
            match share.apply(&inputs, &mut |found| runtime.block_on(letters.append(found)))? {
                Applied::Part => {}
                Applied::TooMuch => {
                    let (first, rest) = divided(&inputs);
                    self.apply_inputs(&first)?;
                    self.emit()?;
                    inputs = rest;
                    inputs.retain(|input| self.share.owns(&input.batch.from));
                    continue;
                }
                Applied::Whole { folded, lost } => {
                    rounds::passed(&inputs, &mut self.source_next, &mut self.times, &self.metrics);
                    inputs.clear();
                    if !lost.is_empty() {
                        // Another worker has claimed them; whether they are ours again is looked at at once.
                        self.source_next.retain(|at, _| !lost.contains(at));
                        self.looked = None;
                    }
                    self.metrics.batches.inc();
                    self.metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
                    self.shared.status.lock().batches_total += 1;
                    self.count(&folded);
                }
            }
            self.emit()?;
        }
        Ok(())
    }

    /// Looks up the roots that wait, and appends them.
    fn emit(&mut self) -> Result<(), Error> {
        while self.share.has_unemitted() {
            let batches = self.share.ascend()?;
            self.append(batches)?;
            self.share.emitted();
        }
        Ok(())
    }

    pub(super) fn append(&mut self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        let mut batches = batches.into_iter().peekable();
        while batches.peek().is_some() {
            let mut some: Vec<AppendBatch> = Vec::new();
            let mut bytes = 0;
            while let Some(batch) =
                batches.next_if(|batch| bytes == 0 || bytes + batch.records.byte_len() <= APPEND_BYTES)
            {
                bytes += batch.records.byte_len();
                some.push(batch);
            }
            self.runtime.block_on(self.log.append(some))?;
        }
        Ok(())
    }

    /// Stage two, for a while: what is not built by then waits, and nothing else does.
    fn build(&mut self, batches: &[FetchedBatch]) -> Result<(), Error> {
        self.share.take(batches);
        self.dirty_next.extend(batches.iter().map(|batch| (batch.from.clone(), batch.next())));
        let until = Instant::now() + self.applied_in.max(BUILD_SLICE);
        while !self.share.is_built() && Instant::now() < until {
            let began = Instant::now();
            self.share.read()?;
            let Self { share, letters, runtime, .. } = self;
            let folded = share.write(&mut |found| runtime.block_on(letters.append(found)))?;
            share.took(began.elapsed());
            self.metrics.fresh(&folded);
            self.shared.fresh.lock().note(&folded);
            self.count(&folded);
        }
        let mut built: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for Passed { partition, next, written_at } in self.share.passed() {
            if let Some(written_at) = written_at {
                self.times.folded(&partition, written_at);
            }
            // What has moved away meanwhile is others' to commit, and they may be further.
            if self.dirty_built.get(&partition).is_some_and(|known| *known < next) {
                built.insert(partition, next);
            }
        }
        if !built.is_empty() {
            let next: Vec<(TopicPartition, Offset)> = built.into_iter().collect();
            self.runtime.block_on(self.log.commit_offsets(self.share.build_group(), &next))?;
            self.dirty_built.extend(next);
        }
        Ok(())
    }

    /// What the leader does between batches; answers whether there is more to do at once.
    fn lead(&mut self) -> Result<bool, Error> {
        if !self.share.leads() {
            return Ok(false);
        }
        if Instant::now() >= self.publish_at {
            let began = Instant::now();
            self.share.publish()?;
            // A log or store that is far away must not take all the time there is.
            self.publish_at = Instant::now() + PUBLISH_INTERVAL.max(2 * began.elapsed());
        }
        let until = Instant::now() + SLICE;
        while self.share.work()? {
            if Instant::now() >= until {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn count(&mut self, folded: &Folded) {
        if folded.dead_letters > 0 {
            // Whoever finds a letter in the list finds it in the status, too.
            self.looked = None;
        }
        self.metrics.count(folded);
        self.shared.count(folded);
    }

    /// Learns what is ours by now.
    fn look(&mut self) -> Result<(), Error> {
        self.share.refresh()?;
        if !self.dirty.is_joined() {
            // Nothing is taken from others that would be stuck here.
            self.share.reach_documents()?;
        }
        let leader: Arc<str> = leader_topic(&self.options.prefix, &self.options.name).into();
        if self.looked.is_none() {
            let spec = TopicSpec { name: leader.clone(), partitions: 1, retention: Retention::default() };
            self.runtime.block_on(self.log.create_topics(&[spec]))?;
        }
        let Self { share, log, runtime, sources, dirty, .. } = self;
        sources.join(&**log, runtime, share.source_topics().into_iter().map(Into::into).collect())?;
        let roots = share.dirty_topics().into_iter().map(|(topic, _)| topic.into());
        dirty.join(&**log, runtime, roots.chain([leader.clone()]).collect())?;
        let (own, mut roots) = (self.sources.take(), self.dirty.take());
        let leads = take_lead(&mut roots, &leader);
        let gone: Vec<TopicPartition> = self.source_next.keys().filter(|at| !own.contains(at)).cloned().collect();
        for at in gone {
            self.share.release(&at);
            self.source_next.remove(&at);
        }
        for at in &own {
            let is_left_out = self.left_out.contains(at) && !self.share.is_wanted(&at.topic);
            if !is_left_out && (!self.source_next.contains_key(at) || !self.share.owns(at)) {
                let marks = self.runtime.block_on(self.log.watermarks(at))?;
                let next = self.share.claim(at, marks)?;
                if next < marks.low.0 && !self.share.is_wanted(&at.topic) {
                    self.share.release(at);
                    self.left_out.insert(at.clone());
                    continue;
                }
                self.left_out.remove(at);
                self.source_next.insert(at.clone(), Offset(next));
            }
        }
        self.find_dirty(&roots)?;
        if leads != self.share.leads() {
            self.share.lead(leads)?;
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Takes up the dirty topics' partitions where they were left.
    fn find_dirty(&mut self, roots: &BTreeSet<TopicPartition>) -> Result<(), Error> {
        self.dirty_next.retain(|at, _| roots.contains(at));
        self.dirty_built.retain(|at, _| roots.contains(at));
        let committed = self.runtime.block_on(self.log.committed_offsets(self.share.build_group()))?;
        let committed: BTreeMap<TopicPartition, Offset> = committed.into_iter().collect();
        let mut further = Vec::new();
        for at in roots {
            let known = committed.get(at).copied();
            let own = match self.dirty_built.get(at) {
                Some(own) => *own,
                None => {
                    // Records below the low watermark are gone only where later ones of the same roots are there.
                    let low = self.runtime.block_on(self.log.watermarks(at))?.low;
                    let own = known.unwrap_or_default().max(low);
                    self.dirty_next.insert(at.clone(), own);
                    self.dirty_built.insert(at.clone(), own);
                    own
                }
            };
            // A worker that is late may have committed less, and the leader waits for more.
            if known.is_none_or(|known| known < own) {
                further.push((at.clone(), own));
            }
        }
        if !further.is_empty() {
            self.runtime.block_on(self.log.commit_offsets(self.share.build_group(), &further))?;
        }
        Ok(())
    }
}

/// How long a store has not answered.
#[derive(Default)]
struct Away(Option<Instant>);

impl Away {
    /// Whether a store has not answered in all rounds of [`AWAY_MAX`], the last of which ended now with this error. One that
    /// answers otherwise, because another worker was faster, say, is not away.
    fn is_for_long(&mut self, error: &Error, now: Instant) -> bool {
        self.0 = error.is_store_away().then(|| self.0.unwrap_or(now));
        self.0.is_some_and(|since| now.duration_since(since) >= AWAY_MAX)
    }
}

/// Takes the leader's topic out of what is assigned, and tells whether it makes us the leader. Its first partition alone
/// does: an operator may have given the topic more, and two leaders would take turns.
fn take_lead(assigned: &mut BTreeSet<TopicPartition>, leader: &str) -> bool {
    let leads = assigned.iter().any(|at| *at.topic == *leader && at.partition == 0);
    assigned.retain(|at| *at.topic != *leader);
    leads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_away_that_did_not_answer_all_the_while() {
        use headwater_store::Error as StoreError;
        let (place, began) = (|| "here".to_owned(), Instant::now());
        let silent = || StoreError::Unreachable { place: place(), action: "read", source: "silence".into() };
        let conflict = || StoreError::Engine { place: place(), action: "commit", source: "a conflict".into() };
        let fenced = || StoreError::Superseded { place: place() };
        let mut away = Away::default();
        let mut after = |seconds, error| away.is_for_long(&Error::Store(error), began + Duration::from_secs(seconds));
        assert!(!after(0, silent()) && !after(9, silent()) && after(10, silent()) && after(11, silent()));
        assert!(!after(12, conflict()) && !after(13, silent()) && !after(22, silent()) && after(23, silent()));
        assert!(!after(24, fenced()) && !after(60, conflict()) && !after(61, silent()));
    }

    #[test]
    fn the_first_partition_alone_makes_a_leader() {
        let at = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        for (number, leads) in [(0, true), (1, false), (2, false)] {
            let mut assigned = BTreeSet::from([at("hw.p.leader", number), at("hw.p.dirty.m.1", 0)]);
            assert_eq!(take_lead(&mut assigned, "hw.p.leader"), leads, "partition {number}");
            assert_eq!(assigned, BTreeSet::from([at("hw.p.dirty.m.1", 0)]));
        }
    }
}
