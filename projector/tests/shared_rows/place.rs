//! A log and its writer, and workers that do everything there is to do, one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::{AppendBatch, EventLog, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_projector::Share;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{RowBuilder, SourcePosition, SourceProgress, ValueRef, progress_topic};
use headwater_store::{DocumentStore, RowStore};
use tokio::runtime::Runtime;

use crate::case::Tally;
use crate::items::{PREFIX, at, created, item, schema};
use crate::log::MemoryLog;
use crate::random::Random;
use crate::worker::{Step, Worker, World, options};

/// A model of items alone.
pub(crate) fn model(name: &str) -> ReadModel {
    let yaml = format!("model: {name}\nroot: {{ table: shop.items, key: id }}\nfields: {{ id: id }}\n");
    parse("model.yaml", &yaml, &ParseContext::default()).unwrap()
}

/// The log, and whoever writes it.
pub(crate) struct Place {
    runtime: Runtime,
    pub(crate) log: MemoryLog,
    items: TopicPartition,
}

impl Place {
    pub(crate) fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log = MemoryLog::default();
        let items = TopicPartition { topic: schema().table.topic(PREFIX).into(), partition: 0 };
        let topics = [items.topic.clone(), progress_topic(PREFIX, "shop").into()];
        let specs = topics.map(|name| TopicSpec { name, partitions: 1, retention: Retention::default() });
        runtime.block_on(log.create_topics(&specs)).unwrap();
        Self { runtime, log, items }
    }

    fn append(&self, to: &TopicPartition, prelude: Bytes, key: &[u8], value: &[u8]) {
        let mut records = RecordBuffer::default();
        records.push(0, key, Some(|out: &mut Vec<u8>| out.extend_from_slice(value)));
        let batch = AppendBatch { to: to.clone(), prelude, records };
        self.runtime.block_on(EventLog::append(&self.log, vec![batch])).unwrap();
    }

    /// Items that come now.
    pub(crate) fn bring(&self, ids: &[i64]) {
        for id in ids {
            let (key, value) = item(at(1, id.unsigned_abs() + 1), *id);
            self.append(&self.items, schema().to_bytes().into(), &key, &value);
        }
    }

    /// An item that comes now, of a table that has lost the column `note`.
    pub(crate) fn bring_without_note(&self, id: i64) {
        let mut nameless = schema();
        nameless.columns.truncate(1);
        let mut row = Vec::new();
        RowBuilder::new(&mut row).push(ValueRef::Int(id));
        let (key, value) = created(at(1, id.unsigned_abs() + 1), id, &row);
        self.append(&self.items, nameless.to_bytes().into(), &key, &value);
    }

    /// Says that all that the source has up to a position is in the log.
    pub(crate) fn tell(&self, position: SourcePosition, snapshot_done: bool) {
        let end = self.runtime.block_on(self.log.watermarks(&self.items)).unwrap().high.0;
        let watermarks = BTreeMap::from([(self.items.topic.to_string(), vec![end])]);
        let progress = SourceProgress { position, at_micros: 1, snapshot_done, watermarks };
        let to = TopicPartition { topic: progress_topic(PREFIX, "shop").into(), partition: 0 };
        self.append(&to, Bytes::new(), &[], &serde_json::to_vec(&progress).unwrap());
    }

    pub(crate) fn worker(
        &self,
        rows: Arc<dyn RowStore>,
        documents: Arc<dyn DocumentStore>,
        models: Vec<ReadModel>,
    ) -> Worker {
        let (log, runtime): (Arc<dyn EventLog>, _) = (Arc::new(self.log.clone()), self.runtime.handle().clone());
        let share = Share::new(options(PREFIX, models), log.clone(), rows, documents, runtime);
        let producer = self.runtime.block_on(self.log.producer("worker")).unwrap();
        Worker::new(share, log, producer)
    }

    /// Lets a worker that has all partitions do everything there is to do.
    pub(crate) fn drain(&self, worker: &mut Worker) {
        self.work(worker, |_| true);
    }

    /// Lets a worker that has all partitions do everything there is to do by steps of some kinds.
    pub(crate) fn work(&self, worker: &mut Worker, is_wanted: impl Fn(Step) -> bool) {
        let (mut random, mut tally) = (Random::new(1), Tally::default());
        let mut world = World { random: &mut random, runtime: &self.runtime, tally: &mut tally };
        for _ in 0..60 {
            let dirty = worker.share.dirty_topics().into_iter().flat_map(|(topic, partitions)| {
                let topic: Arc<str> = topic.into();
                (0..partitions).map(move |partition| TopicPartition { topic: topic.clone(), partition })
            });
            let (own, roots) = (BTreeSet::from([self.items.clone()]), dirty.collect());
            worker.learn(&mut world, &own, &roots, true).unwrap();
            for step in worker.steps().into_iter().filter(|step| is_wanted(*step)) {
                // An earlier step may have changed what can be done.
                if worker.steps().contains(&step) {
                    worker.step(&mut world, step).unwrap();
                }
            }
        }
    }

    /// Lets a worker build one chunk.
    pub(crate) fn chunk(&self, worker: &mut Worker) {
        let (mut random, mut tally) = (Random::new(1), Tally::default());
        let mut world = World { random: &mut random, runtime: &self.runtime, tally: &mut tally };
        worker.step(&mut world, Step::Read).unwrap();
        worker.step(&mut world, Step::Write).unwrap();
    }

    /// How much of the dirty topic of a model is committed as built, and how much there is.
    pub(crate) fn built(&self, worker: &Worker, model: &str) -> (u64, u64) {
        let committed = self.runtime.block_on(self.log.committed_offsets(worker.share.build_group())).unwrap();
        let topics = worker.share.dirty_topics();
        let (topic, _) = topics.iter().find(|(topic, _)| topic.contains(&format!(".{model}."))).unwrap();
        let at = TopicPartition { topic: topic.as_str().into(), partition: 0 };
        let next = committed.iter().find(|(place, _)| *place == at).map_or(0, |(_, next)| next.0);
        (next, self.runtime.block_on(self.log.watermarks(&at)).unwrap().high.0)
    }
}
