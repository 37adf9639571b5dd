//! One random case from its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater_broker::{EventLog, TopicPartition};
use headwater_projector::naive;
use headwater_projector::{Error, ErrorKind, Share, ShareOptions};
use headwater_schemas::SourcePosition;
use headwater_schemas::model::definition::ReadModel;
use tokio::runtime::Runtime;

use crate::engine::{Engine, Kind};
use crate::flaky::FlakyRows;
use crate::log::MemoryLog;
use crate::models::{is_held, percent_max, random_model, spoil};
use crate::random::Random;
use crate::source::{PREFIX, Source};
use crate::tables;
use crate::worker::{Step, Worker, World, options};

/// What the cases did, to see that they do enough.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) documents: u64,
    pub(crate) deleted: u64,
    /// Partitions that moved.
    pub(crate) moves: u64,
    /// Batches that met a partition which another worker had claimed.
    pub(crate) taken_over: u64,
    /// Claims that found roots to be emitted.
    pub(crate) recovered: u64,
    /// Documents that were not written because there was something newer.
    pub(crate) late_writes: u64,
    pub(crate) crashes: u64,
    pub(crate) failures: u64,
    /// Large changes that took several transactions.
    pub(crate) parts: u64,
    pub(crate) frontiers: u64,
    /// Models of which an older version served because the declared one lacked too much.
    pub(crate) held: u64,
    pub(crate) checks: u64,
    pub(crate) steps: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.documents += other.documents;
        self.deleted += other.deleted;
        self.moves += other.moves;
        self.taken_over += other.taken_over;
        self.recovered += other.recovered;
        self.late_writes += other.late_writes;
        self.crashes += other.crashes;
        self.failures += other.failures;
        self.parts += other.parts;
        self.frontiers += other.frontiers;
        self.held += other.held;
        self.checks += other.checks;
        self.steps += other.steps;
    }
}

pub(crate) struct Case {
    random: Random,
    verbose: bool,
    workers: Vec<Worker>,
    source: Source,
    models: Vec<ReadModel>,
    /// Every model that was ever declared, by its hash.
    declared: BTreeMap<String, ReadModel>,
    /// Which worker has which partition.
    assignment: BTreeMap<TopicPartition, usize>,
    leader: usize,
    engine: Engine,
    commits_left: Arc<AtomicI64>,
    log: Arc<dyn EventLog>,
    slice_rows: usize,
    started: u64,
    tally: Tally,
    runtime: Runtime,
}

impl Case {
    pub(crate) fn new(kind: Kind, seed: u64, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::default());
        let mut source = Source::new(&mut random, &*log, &runtime);
        let models: Vec<ReadModel> = (0..random.between(1, 2))
            .map(|at| random_model(&mut random, &source.changes.tables, &format!("m{at}")))
            .collect();
        if verbose {
            println!("{models:#?}");
        }
        source.describe(&runtime);
        let commits_left = Arc::new(AtomicI64::new(-1));
        let mut case = Self {
            verbose,
            workers: Vec::new(),
            source,
            declared: models.iter().map(|model| (model.hash(), model.clone())).collect(),
            models,
            assignment: BTreeMap::new(),
            leader: 0,
            engine: Engine::open(kind),
            commits_left,
            log,
            slice_rows: random.between(1, 6),
            started: 0,
            tally: Tally::default(),
            runtime,
            random,
        };
        for _ in 0..case.random.between(2, 4) {
            let worker = case.start();
            case.workers.push(worker);
        }
        case
    }

    fn start(&mut self) -> Worker {
        self.started += 1;
        let options = ShareOptions {
            dirty_partitions: self.random.between(1, 3) as u32,
            slice_rows: self.slice_rows,
            ..options(PREFIX, self.models.clone())
        };
        let runtime = self.runtime.handle().clone();
        let (inner, documents) = self.engine.join();
        let rows = Arc::new(FlakyRows { inner, commits_left: self.commits_left.clone() });
        let share = Share::new(options, self.log.clone(), rows, documents, runtime);
        let producer = self.runtime.block_on(self.log.producer(&format!("worker{}", self.started))).unwrap();
        Worker::new(share, self.log.clone(), producer)
    }

    pub(crate) fn run(mut self) -> Tally {
        if self.random.chance(60) {
            self.source.snapshot_done = true;
        }
        for _ in 0..self.random.between(1, 3) {
            for _ in 0..self.random.between(30, 200) {
                self.something();
            }
            self.drain();
            self.check("drained");
        }
        self.source.snapshot_done = true;
        self.drain();
        self.check("at the end");
        // Those who slept through all of it wake up, and do what they were about to do.
        for at in 0..self.workers.len() {
            if self.workers[at].asleep {
                for _ in 0..60 {
                    self.step(at);
                }
            }
        }
        self.check("after late writes");
        self.workers.iter_mut().for_each(|worker| worker.asleep = false);
        self.drain();
        self.check("when all are awake");
        self.tally.late_writes = self.engine.late();
        self.tally
    }

    /// Whatever may happen next.
    fn something(&mut self) {
        if self.random.chance(4) {
            let left = self.random.between(0, 11) as i64;
            self.commits_left.store(left, Ordering::Relaxed);
        }
        let at = self.random.below(self.workers.len());
        match self.random.below(100) {
            0..=17 => self.source.change(&mut self.random, &self.runtime),
            18..=20 => self.source.progress(&self.runtime),
            21..=23 => {
                // Partitions move.
                let to = self.random.below(self.workers.len());
                let half: Vec<TopicPartition> = self.assignment.keys().cloned().collect();
                for place in half {
                    if self.random.chance(40) {
                        self.tally.moves += 1;
                        self.assignment.insert(place, to);
                    }
                }
                if self.random.chance(30) {
                    self.leader = to;
                }
            }
            24..=31 => self.learn(at),
            32 => {
                self.tally.crashes += 1;
                // Where there is more to lose.
                let unemitted = self.workers.iter().position(|worker| worker.share.has_unemitted());
                let at = unemitted.filter(|_| self.random.chance(50)).unwrap_or(at);
                self.workers[at] = self.start();
            }
            33..=34 => self.workers[at].asleep = !self.workers[at].asleep,
            35 if self.random.chance(40) => {
                let number = self.random.between(0, 2);
                let name = format!("m{number}");
                let known = self.models.iter().find(|known| known.name == name).cloned();
                let mut model = match known.filter(|_| self.random.chance(25)) {
                    // The same, with another share of documents that may be missing.
                    Some(known) => ReadModel { dead_letters_percent_max: percent_max(&mut self.random), ..known },
                    None => random_model(&mut self.random, &self.source.changes.tables, &name),
                };
                if self.random.chance(25) && !model.has_field("spoilt") {
                    spoil(&mut model);
                }
                self.declared.insert(model.hash(), model.clone());
                match self.models.iter_mut().find(|known| known.name == model.name) {
                    Some(known) => *known = model,
                    None => self.models.push(model),
                }
                let models = self.models.clone();
                for at in 0..self.workers.len() {
                    let models = models.clone();
                    self.attempt(at, |worker, _| worker.share.declare(models.clone()));
                }
            }
            // Mostly it is as still as it sleeps: what it has begun gets old.
            _ if self.workers[at].asleep && self.random.chance(80) => {}
            _ => drop(self.step(at)),
        }
    }

    /// Tells a worker what is its own by now.
    fn learn(&mut self, at: usize) {
        if self.workers[at].asleep {
            return;
        }
        for place in self.source.places() {
            self.assignment.entry(place).or_insert(at);
        }
        let mut roots = BTreeSet::new();
        for (topic, partitions) in self.workers[at].share.dirty_topics() {
            for partition in 0..partitions {
                let place = TopicPartition { topic: topic.as_str().into(), partition };
                if *self.assignment.entry(place.clone()).or_insert(at) == at {
                    roots.insert(place);
                }
            }
        }
        let own = |place: &TopicPartition| self.assignment.get(place) == Some(&at);
        let own: BTreeSet<TopicPartition> = self.source.places().into_iter().filter(own).collect();
        let leads = self.leader == at;
        self.attempt(at, |worker, world| worker.learn(world, &own, &roots, leads));
    }

    /// A worker's next step; answers whether it did anything.
    fn step(&mut self, at: usize) -> bool {
        let steps = self.workers[at].steps();
        if steps.is_empty() {
            return false;
        }
        let step = *self.random.pick(&steps);
        self.do_step(at, step)
    }

    fn do_step(&mut self, at: usize, step: Step) -> bool {
        self.tally.steps += 1;
        // No other step moves frontiers.
        let before = (step == Step::Publish).then(|| self.engine.frontier());
        let done = self.attempt(at, |worker, world| worker.step(world, step)).unwrap_or(true);
        if self.verbose {
            println!("worker {at}: {step:?} {done}");
        }
        let Some(before) = before else { return done };
        let after = self.engine.frontier();
        assert!(before <= after, "a frontier went back");
        if before != after {
            self.tally.frontiers += 1;
            if after == SourcePosition::after_commit(1, self.source.changes.commit) {
                // What is promised to readers must be there at once.
                self.compare("as the frontier says");
            }
        }
        done
    }

    fn attempt<T>(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut Worker, &mut World<'_>) -> Result<T, Error>,
    ) -> Option<T> {
        let Self { workers, random, runtime, tally, .. } = self;
        let mut world = World { random, runtime, tally };
        match step(&mut workers[at], &mut world) {
            Ok(done) => Some(done),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
                self.tally.failures += 1;
                None
            }
        }
    }

    /// Lets those who are awake do everything there is to do.
    fn drain(&mut self) {
        self.commits_left.store(-1, Ordering::Relaxed);
        self.source.progress(&self.runtime);
        let awake: Vec<usize> = (0..self.workers.len()).filter(|at| !self.workers[*at].asleep).collect();
        let awake = if awake.is_empty() {
            self.workers[0].asleep = false;
            vec![0]
        } else {
            awake
        };
        for at in self.assignment.values_mut() {
            if !awake.contains(at) {
                *at = *self.random.pick(&awake);
            }
        }
        if !awake.contains(&self.leader) {
            self.leader = *self.random.pick(&awake);
        }
        self.rest(&awake);
        // What is held was weighed on the way: all that came since counts when somebody asks.
        self.attempt(awake[0], |worker, _| worker.share.weigh_again());
        self.rest(&awake);
    }

    /// Lets these do everything there is to do.
    fn rest(&mut self, awake: &[usize]) {
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 3 {
            rounds += 1;
            assert!(rounds < 3_000, "it does not come to rest");
            let mut busy = false;
            for at in awake {
                self.learn(*at);
                for step in self.workers[*at].steps() {
                    // An earlier step of this round may have changed what can be done.
                    if self.workers[*at].steps().contains(&step) {
                        let done = self.do_step(*at, step);
                        busy |= done && !matches!(step, Step::Publish | Step::Settle);
                    }
                }
            }
            quiet = if busy { 0 } else { quiet + 1 };
        }
    }

    fn check(&mut self, when: &str) {
        if !self.source.snapshot_done {
            return;
        }
        assert_eq!(self.engine.frontier(), SourcePosition::after_commit(1, self.source.changes.commit), "{when}");
        let tables = tables::naive(&self.source.changes.tables);
        for model in &self.models {
            let active = self.engine.active(&model.name);
            assert_eq!(active.len(), 1, "{when}: one version of {} serves", model.name);
            if active[0].definition_hash != model.hash() {
                self.tally.held += 1;
                assert!(is_held(model, &naive::evaluate(model, &tables)), "{when}: {} is not served", model.name);
            }
        }
        self.compare(when);
    }

    /// Every document and every index entry of what serves is what the naive evaluator says.
    fn compare(&mut self, when: &str) {
        let tables = tables::naive(&self.source.changes.tables);
        for model in &self.models {
            for record in self.engine.active(&model.name) {
                // The one before the declared one serves until that is built, or where it is held.
                let model = &self.declared[&record.definition_hash];
                self.tally.checks += 1;
                let expected = naive::evaluate(model, &tables);
                let wanted = (expected.bodies.clone(), expected.entries.clone());
                let (bodies, entries) = self.engine.contents(record.id, model, &wanted);
                let readable = |bodies: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<(Vec<u8>, String)> {
                    bodies.iter().map(|(id, body)| (id.clone(), String::from_utf8_lossy(body).into_owned())).collect()
                };
                assert_eq!(readable(&bodies), readable(&expected.bodies), "{when}: documents of {}", model.name);
                assert_eq!(entries, expected.entries, "{when}: index entries of {}", model.name);
            }
        }
    }
}
