//! One worker, driven step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_broker::{AppendBatch, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, Producer, TopicPartition};
use headwater_projector::{Applied, Error, Input, Share, ShareOptions};
use headwater_schemas::model::definition::ReadModel;
use tokio::runtime::Runtime;

use crate::case::Tally;
use crate::random::Random;

/// Settings of a worker with these models, whose topics begin with `prefix`.
pub(crate) fn options(prefix: &str, models: Vec<ReadModel>) -> ShareOptions {
    ShareOptions {
        name: "w".into(),
        prefix: prefix.into(),
        models,
        dirty_partitions: 1,
        slice_rows: 100,
        retired_grace: Duration::ZERO,
    }
}

pub(crate) struct Worker {
    pub(crate) share: Share,
    log: Arc<dyn EventLog>,
    producer: Arc<dyn Producer>,
    /// Where it reads on in the sources' partitions that it believes to have.
    pub(crate) source: BTreeMap<TopicPartition, u64>,
    /// The same of dirty topics.
    pub(crate) dirty: BTreeMap<TopicPartition, u64>,
    /// Looked up, and not appended yet.
    ascended: Option<Vec<AppendBatch>>,
    /// Next offsets behind the dirty roots that are in documents, and not committed.
    passed: BTreeMap<TopicPartition, u64>,
    /// Sleeps, and learns nothing.
    pub(crate) asleep: bool,
}

/// What a worker can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Apply,
    Ascend,
    Append,
    Settle,
    Take,
    Read,
    Write,
    Commit,
    Publish,
    Work,
}

/// Everything a step needs from outside.
pub(crate) struct World<'w> {
    pub(crate) random: &'w mut Random,
    pub(crate) runtime: &'w Runtime,
    pub(crate) tally: &'w mut Tally,
}

impl Worker {
    pub(crate) fn new(share: Share, log: Arc<dyn EventLog>, producer: Arc<dyn Producer>) -> Self {
        Self {
            share,
            log,
            producer,
            source: BTreeMap::new(),
            dirty: BTreeMap::new(),
            ascended: None,
            passed: BTreeMap::new(),
            asleep: false,
        }
    }

    /// Learns which partitions are its own by now. `roots` are of dirty topics.
    pub(crate) fn learn(
        &mut self,
        world: &mut World<'_>,
        own: &BTreeSet<TopicPartition>,
        roots: &BTreeSet<TopicPartition>,
        leads: bool,
    ) -> Result<(), Error> {
        self.share.refresh()?;
        let gone: Vec<TopicPartition> = self.source.keys().filter(|at| !own.contains(at)).cloned().collect();
        for at in gone {
            self.share.release(&at);
            self.source.remove(&at);
        }
        for at in own {
            if !self.source.contains_key(at) || !self.share.owns(at) {
                let unemitted = self.share.has_unemitted();
                let marks = world.runtime.block_on(self.log.watermarks(at))?;
                let next = self.share.claim(at, marks)?;
                world.tally.recovered += u64::from(!unemitted && self.share.has_unemitted());
                self.source.insert(at.clone(), next);
            }
        }
        let committed = world.runtime.block_on(self.log.committed_offsets(self.share.build_group()))?;
        self.dirty.retain(|at, _| roots.contains(at));
        for at in roots {
            let next = committed.iter().find(|(place, _)| place == at).map_or(0, |(_, next)| next.0);
            let own = *self.dirty.entry(at.clone()).or_insert(next);
            // A worker that is late may have committed less.
            if own > next && self.share.is_built() {
                self.passed.insert(at.clone(), own);
            }
        }
        if leads != self.share.leads() {
            self.share.lead(leads)?;
        }
        Ok(())
    }

    /// What it could do now.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.ascended.is_some() {
            steps.push(Step::Append);
        } else if self.share.has_unemitted() {
            steps.push(Step::Ascend);
        } else {
            if !self.source.is_empty() {
                steps.push(Step::Apply);
            }
            if self.share.has_unsettled() {
                steps.push(Step::Settle);
            }
        }
        if self.share.is_evaluated() {
            steps.push(Step::Write);
        } else {
            if !self.share.is_built() {
                steps.push(Step::Read);
            }
            if !self.passed.is_empty() {
                steps.push(Step::Commit);
            } else if !self.dirty.is_empty() {
                steps.push(Step::Take);
            }
        }
        if self.share.leads() {
            steps.extend([Step::Publish, Step::Work]);
        }
        steps
    }

    /// Does one step; answers whether it did anything.
    pub(crate) fn step(&mut self, world: &mut World<'_>, step: Step) -> Result<bool, Error> {
        let runtime = world.runtime;
        match step {
            Step::Apply => return self.apply(world),
            Step::Ascend => self.ascended = Some(self.share.ascend()?),
            Step::Append => {
                let batches = self.ascended.take().unwrap();
                if !batches.is_empty() {
                    runtime.block_on(self.producer.append(batches, None))?;
                }
                self.share.emitted();
            }
            Step::Settle => self.share.settle()?,
            Step::Take => {
                let batches = self.fetch(world, &self.dirty.clone())?;
                self.share.take(&batches);
                self.dirty.extend(batches.iter().map(|batch| (batch.from.clone(), batch.next().0)));
                self.pass();
                return Ok(!batches.is_empty());
            }
            Step::Read => {
                self.share.read()?;
                self.pass();
            }
            Step::Write => {
                let folded = self.share.write(&mut |_| Ok(()))?;
                self.pass();
                world.tally.documents += folded.documents.written;
                world.tally.deleted += folded.documents.deleted;
            }
            Step::Commit => {
                let offsets = std::mem::take(&mut self.passed);
                let offsets: Vec<_> = offsets.into_iter().map(|(at, next)| (at, Offset(next))).collect();
                runtime.block_on(self.log.commit_offsets(self.share.build_group(), &offsets))?;
            }
            Step::Publish => self.share.publish()?,
            Step::Work => {
                let done = self.share.work();
                // What the leader does not wait for gets its turn.
                runtime.block_on(tokio::task::yield_now());
                return done;
            }
        }
        Ok(true)
    }

    /// Takes note of what is in documents by now.
    fn pass(&mut self) {
        self.passed.extend(self.share.passed().into_iter().map(|it| (it.partition, it.next.0)));
    }

    fn apply(&mut self, world: &mut World<'_>) -> Result<bool, Error> {
        let batches = self.fetch(world, &self.source.clone())?;
        if batches.is_empty() {
            return Ok(false);
        }
        let take = *world.random.pick(&[1, 2, 5, 50]);
        let mut inputs: Vec<Input<'_>> = Vec::new();
        for batch in &batches {
            // Only consecutive records of a partition may be applied.
            if !inputs.iter().any(|input| input.batch.from == batch.from) {
                inputs.push(Input { batch, skip: 0, take: take.min(batch.count() as usize) });
            }
        }
        match self.share.apply(&inputs, &mut |_| Ok(()))? {
            Applied::Whole { folded, lost } => {
                world.tally.events += folded.events;
                for input in &inputs {
                    let next = input.batch.base.0 + (input.skip + input.take) as u64;
                    self.source.insert(input.batch.from.clone(), next);
                }
                world.tally.taken_over += lost.len() as u64;
                self.source.retain(|at, _| !lost.contains(at));
            }
            Applied::Part => world.tally.parts += 1,
            Applied::TooMuch => unreachable!("the test's batches are small"),
        }
        Ok(true)
    }

    /// Some records of some of these partitions.
    fn fetch(&self, world: &mut World<'_>, from: &BTreeMap<TopicPartition, u64>) -> Result<Vec<FetchedBatch>, Error> {
        let all: Vec<FetchFrom> =
            from.iter().map(|(at, next)| FetchFrom { partition: at.clone(), offset: Offset(*next) }).collect();
        let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::ZERO };
        let mut some: Vec<FetchFrom> = all.iter().filter(|_| world.random.chance(60)).cloned().collect();
        if some.is_empty() {
            some = all.clone();
        }
        let mut batches = world.runtime.block_on(self.log.fetch(&some, limits))?;
        if batches.is_empty() {
            batches = world.runtime.block_on(self.log.fetch(&all, limits))?;
        }
        let skip = world.random.below(3);
        if batches.len() > 4 && skip > 0 {
            batches.truncate(skip * 2);
        }
        Ok(batches)
    }
}
