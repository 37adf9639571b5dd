//! One random case from its seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::naive::{self, NaiveDocuments};
use headwater_projector::{Error, ErrorKind, Fold, FoldOptions, Folded, Input, ReplayPart};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::progress_topic;
use headwater_store::{Filter, IndexQuery, KeyRange, VersionId, VersionState};

use crate::changes::{Changes, Event, Habits};
use crate::delivery::{Partition, next_batches};
use crate::engine::{Engine, Kind};
use crate::flaky::FlakyStore;
use crate::models::{is_held, percent_max, random_model, spoil};
use crate::random::Random;
use crate::tables::{self, Table};

const PREFIX: &str = "p";
const SOURCE: &str = "s";

const HABITS: Habits =
    Habits { rows_max: 14, updates: 74, new_keys: 84, deletes: 96, new_columns: 4, new_types: 2, reversals: 0 };

/// What the cases did, to see that they do enough.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) documents: u64,
    pub(crate) deleted: u64,
    pub(crate) poisoned: u64,
    pub(crate) failures: u64,
    pub(crate) restarts: u64,
    pub(crate) replays: u64,
    /// Models of which an older version served because the declared one lacked too much.
    pub(crate) held: u64,
    pub(crate) checks: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.documents += other.documents;
        self.deleted += other.deleted;
        self.poisoned += other.poisoned;
        self.failures += other.failures;
        self.restarts += other.restarts;
        self.replays += other.replays;
        self.held += other.held;
        self.checks += other.checks;
    }
}

pub(crate) struct Case {
    random: Random,
    verbose: bool,
    /// Before the engine, which it has open.
    fold: Option<Fold>,
    engine: Engine,
    calls_left: Arc<AtomicI64>,
    runtime: tokio::runtime::Runtime,
    changes: Changes,
    partitions: Vec<Vec<Partition>>,
    models: Vec<ReadModel>,
    /// Every model that was ever declared, by its hash.
    declared: BTreeMap<String, ReadModel>,
    snapshot_done: bool,
    slice_rows: usize,
    tally: Tally,
}

impl Case {
    pub(crate) fn new(kind: Kind, seed: u64, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let calls_left = Arc::new(AtomicI64::new(-1));
        let engine = Engine::open(kind, &calls_left);
        let tables: Vec<Table> =
            (0..random.between(2, 5)).map(|number| Table::random(&mut random, SOURCE, number)).collect();
        let partitions = tables.iter().map(|table| {
            let topic = table.id().topic(PREFIX);
            (0..random.between(1, 2)).map(|number| Partition::new(&topic, number as u32)).collect()
        });
        let partitions: Vec<Vec<Partition>> = partitions.collect();
        let models: Vec<ReadModel> =
            (0..random.between(1, 3)).map(|at| random_model(&mut random, &tables, &format!("m{at}"))).collect();
        let counts = partitions.iter().map(Vec::len).collect();
        let changes = Changes::new(tables, counts, HABITS, random.chance(50));
        Self {
            verbose,
            fold: None,
            engine,
            calls_left,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            changes,
            partitions,
            declared: models.iter().map(|model| (model.hash(), model.clone())).collect(),
            models,
            snapshot_done: false,
            slice_rows: random.between(1, 6),
            tally: Tally::default(),
            random,
        }
    }

    pub(crate) fn run(mut self) -> Tally {
        if self.verbose {
            println!("{:#?}", self.models);
        }
        let events = self.changes.describe();
        self.write(events);
        self.open();
        if self.random.chance(60) {
            self.finish_snapshot();
        }
        for _ in 0..self.random.between(1, 5) {
            for _ in 0..self.random.between(1, 30) {
                self.change();
            }
            self.sometimes_redefine();
            self.drain();
            self.check();
        }
        self.finish_snapshot();
        self.drain();
        self.check();
        // Everything once more, from the start: nothing may change.
        self.partitions.iter_mut().flatten().for_each(|partition| partition.next = 0);
        while let Some(folded) = self.deliver() {
            let documents = folded.documents;
            assert_eq!((folded.rows, documents.written, documents.deleted), (0, 0, 0), "a replay changed something");
        }
        self.check();
        self.tally
    }

    /// One transaction at the source.
    fn change(&mut self) {
        let events = self.changes.transaction(&mut self.random);
        self.write(events);
    }

    fn write(&mut self, events: Vec<Event>) {
        for event in events {
            self.partitions[event.table][event.partition].records.push((event.prelude, event.key, event.value));
        }
    }

    /// Declares other models, or begins a replay, while things are under way.
    fn sometimes_redefine(&mut self) {
        if self.random.chance(15) {
            let number = self.random.between(0, 3);
            let name = format!("m{number}");
            let known = self.models.iter().find(|known| known.name == name).cloned();
            let mut model = match known.filter(|_| self.random.chance(25)) {
                // The same, with another share of documents that may be missing.
                Some(known) => ReadModel { dead_letters_percent_max: percent_max(&mut self.random), ..known },
                None => random_model(&mut self.random, &self.changes.tables, &name),
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
            self.patiently(|fold| fold.declare(&models));
        }
        if self.random.chance(15) {
            let model = self.random.pick(&self.models).name.clone();
            let mut parts = Vec::new();
            for partition in self.partitions.iter().flatten().filter(|it| it.next > 0) {
                let (topic, partition, end) =
                    (partition.place.topic.to_string(), partition.place.partition, partition.next as u64);
                let next = if self.random.chance(70) { 0 } else { self.random.below(end as usize) as u64 };
                parts.push(ReplayPart { topic, partition, next, end });
            }
            let begun = self.patiently(|fold| match fold.begin_replay(&model, parts.clone()) {
                Err(Error::RebuildRunning { .. } | Error::UnknownModel { .. }) => Ok(false),
                other => other.map(|_| true),
            });
            if begun {
                self.tally.replays += 1;
                for part in parts {
                    self.replay_part(&part);
                }
            }
        }
    }

    fn replay_part(&mut self, part: &ReplayPart) {
        let mut next = part.next as usize;
        while next < part.end as usize {
            let same = |partition: &&Partition| {
                *partition.place.topic == *part.topic && partition.place.partition == part.partition
            };
            let batch = self.partitions.iter().flatten().find(same).unwrap().batch(next, self.random.between(1, 30));
            self.patiently(|fold| fold.replay_batch(&[Input::whole(&batch)], &mut |_| Ok(())));
            next = batch.next().0 as usize;
            if self.random.chance(30) {
                self.deliver();
            }
        }
    }

    fn finish_snapshot(&mut self) {
        self.snapshot_done = true;
        self.progress();
    }

    fn progress(&mut self) {
        let mut watermarks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for partition in self.partitions.iter().flatten() {
            watermarks.entry(partition.place.topic.to_string()).or_default().push(partition.records.len() as u64);
        }
        let json = self.changes.progress(self.snapshot_done, watermarks);
        let mut buffer = RecordBuffer::default();
        buffer.push(0, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
        let place = TopicPartition { topic: progress_topic(PREFIX, SOURCE).into(), partition: 0 };
        let records = Bytes::copy_from_slice(buffer.as_bytes());
        let batch = FetchedBatch::new(place, Offset(self.changes.commit), Bytes::new(), records, 1);
        self.patiently(|fold| fold.micro_batch(&[Input::whole(&batch)], &mut |_| Ok(())));
    }

    /// Delivers everything, with what may happen on the way, and lets the background work end.
    fn drain(&mut self) {
        while self.deliver().is_some() {
            match self.random.below(100) {
                0..=7 => {
                    // Read again from an earlier offset.
                    let at = self.random.below(self.partitions.len());
                    let partition = self.random.below(self.partitions[at].len());
                    let partition = &mut self.partitions[at][partition];
                    partition.next -= self.random.below(partition.next + 1);
                }
                8..=14 => {
                    self.tally.restarts += 1;
                    self.open();
                }
                15..=29 => self.background(),
                30..=36 => self.progress(),
                _ => {}
            }
        }
        self.progress();
        while self.patiently(|fold| Ok(fold.has_background_work())) {
            self.background();
        }
        self.background();
    }

    fn background(&mut self) {
        // Sometimes many slices in one commit.
        let budget = if self.random.chance(30) { Duration::from_secs(1) } else { Duration::ZERO };
        let folded = self.patiently(|fold| fold.background(budget, &mut |_| Ok(())));
        self.count(&folded.unwrap_or_default());
    }

    fn deliver(&mut self) -> Option<Folded> {
        let size_max = *self.random.pick(&[1, 3, 10, 100]);
        let all: Vec<Partition> = self.partitions.drain(..).flatten().collect();
        let batches = next_batches(&mut self.random, &all, size_max);
        for partition in all {
            match self.partitions.last_mut().filter(|last| last[0].place.topic == partition.place.topic) {
                Some(last) => last.push(partition),
                None => self.partitions.push(vec![partition]),
            }
        }
        if batches.is_empty() {
            return None;
        }
        let inputs: Vec<Input<'_>> = batches.iter().map(Input::whole).collect();
        let folded = self.patiently(|fold| fold.micro_batch(&inputs, &mut |_| Ok(())));
        for batch in &batches {
            let partitions = self.partitions.iter_mut().flatten();
            let partition = { partitions }.find(|partition| partition.place == batch.from).unwrap();
            partition.next = batch.next().0 as usize;
        }
        self.count(&folded);
        Some(folded)
    }

    fn count(&mut self, folded: &Folded) {
        self.tally.events += folded.events;
        self.tally.documents += folded.documents.written;
        self.tally.deleted += folded.documents.deleted;
        self.tally.poisoned += folded.dead_letters;
    }

    fn open(&mut self) {
        self.fold = None;
        let inner = self.engine.writer.clone();
        // A large table goes in parts, a small one with the batch that truncates it.
        let swept_max = if self.random.chance(50) { 4 } else { u64::MAX };
        let calls_left = self.calls_left.clone();
        let store = Arc::new(FlakyStore { inner, calls_left, rows_max: usize::MAX, swept_max });
        let options = FoldOptions { prefix: PREFIX.into(), retired_grace: Duration::ZERO, slice_rows: self.slice_rows };
        self.fold = Some(Fold::open(store, &self.models, options).unwrap());
    }

    /// Does something until it goes well; sometimes the store fails on the way, and sometimes that is the end of the
    /// process.
    fn patiently<T>(&mut self, mut work: impl FnMut(&mut Fold) -> Result<T, Error>) -> T {
        if self.random.chance(8) {
            self.calls_left.store(self.random.below(40) as i64, Ordering::Relaxed);
        }
        loop {
            let done = work(self.fold.as_mut().unwrap());
            match done {
                Ok(done) => {
                    self.calls_left.store(-1, Ordering::Relaxed);
                    return done;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
                    self.tally.failures += 1;
                    self.calls_left.store(-1, Ordering::Relaxed);
                    if self.random.chance(30) {
                        self.open();
                    }
                }
            }
        }
    }

    /// Every document and every index entry is what the naive evaluator says.
    fn check(&mut self) {
        if !self.snapshot_done {
            return;
        }
        let tables = tables::naive(&self.changes.tables);
        // What is held was weighed at some time: the changes since count when somebody asks.
        self.patiently(Fold::weigh_again);
        while self.patiently(|fold| Ok(fold.has_background_work())) {
            self.background();
        }
        let versions = self.engine.reader.versions().borrow().clone();
        for model in &self.models {
            self.tally.checks += 1;
            let active = versions.iter().filter(|it| it.state == VersionState::Active && it.model == model.name);
            let active: Vec<_> = active.collect();
            assert_eq!(active.len(), 1, "one version of {} serves: {versions:?}", model.name);
            let expected = naive::evaluate(model, &tables);
            let serves = active[0].definition_hash == model.hash();
            if serves {
                self.check_documents(active[0].id, model, &expected);
                self.check_entries(active[0].id, model, &expected);
                continue;
            }
            self.tally.held += 1;
            assert!(is_held(model, &expected), "{} is not served: {versions:?}", model.name);
            let before = &self.declared[&active[0].definition_hash];
            let expected = naive::evaluate(before, &tables);
            self.check_documents(active[0].id, before, &expected);
            self.check_entries(active[0].id, before, &expected);
        }
    }

    fn check_documents(&self, version: VersionId, model: &ReadModel, expected: &NaiveDocuments) {
        let found = self.query(version, None);
        let readable = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let documents = self.runtime.block_on(async {
            let mut documents = BTreeMap::new();
            for id in found {
                documents.insert(id.clone(), self.engine.reader.get(version, &id).await.unwrap().unwrap().body);
            }
            documents
        });
        let found: Vec<_> = documents.iter().map(|(id, body)| (id, readable(body))).collect();
        let wanted: Vec<_> = expected.bodies.iter().map(|(id, body)| (id, readable(body))).collect();
        assert_eq!(found, wanted, "documents of {}", model.name);
        let count = self.runtime.block_on(self.engine.reader.document_count(version)).unwrap();
        assert_eq!(count, expected.bodies.len() as u64);
    }

    fn check_entries(&self, version: VersionId, model: &ReadModel, expected: &NaiveDocuments) {
        for number in 0..model.indexes.len() as u16 {
            let mut by_value: BTreeMap<&[u8], Vec<Vec<u8>>> = BTreeMap::new();
            for (id, entries) in &expected.entries {
                for (_, value) in entries.iter().filter(|(index, _)| *index == number) {
                    by_value.entry(value).or_default().push(id.clone());
                }
            }
            // No document has a value that lies between the expected ones.
            let mut between = Vec::new();
            let mut low = Vec::new();
            for (value, ids) in &by_value {
                let exactly = KeyRange::exactly(value);
                between.push(KeyRange { low: std::mem::take(&mut low), high: Some(exactly.low.clone()) });
                low = exactly.high.clone().unwrap();
                let found = self.query(version, Some(Filter { index: number, ranges: vec![exactly], negated: false }));
                assert_eq!(&found, ids, "{:?} of {}", model.indexes[usize::from(number)], model.name);
            }
            between.push(KeyRange { low, high: None });
            let found = self.query(version, Some(Filter { index: number, ranges: between, negated: false }));
            assert!(found.is_empty(), "stale entries of {:?} of {}", model.indexes[usize::from(number)], model.name);
        }
    }

    /// Ids in order.
    fn query(&self, version: VersionId, walk: Option<Filter>) -> Vec<Vec<u8>> {
        let query = IndexQuery {
            walk,
            descending: false,
            filters: Vec::new(),
            after: None,
            limit: 10_000,
            entries_max: 1_000_000,
            bytes_max: usize::MAX,
        };
        let page = self.runtime.block_on(self.engine.reader.query(version, &query)).unwrap();
        assert!(page.next.is_none());
        page.documents.into_iter().map(|(id, _)| id).collect()
    }
}
