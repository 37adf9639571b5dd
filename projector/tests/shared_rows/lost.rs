//! The rows are lost, and the documents are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::{AppendBatch, EventLog, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_projector::Share;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{SourcePosition, SourceProgress, progress_topic};
use headwater_store::{DocumentStore, RowStore};
use tokio::runtime::Runtime;

use crate::case::Tally;
use crate::engine::{Engine, Kind};
use crate::items::{PREFIX, at, item, schema};
use crate::log::MemoryLog;
use crate::random::Random;
use crate::worker::{Worker, World, options};

fn model() -> ReadModel {
    let yaml = "model: item\nroot: { table: shop.items, key: id }\nfields: { id: id }\n";
    parse("item.yaml", yaml, &ParseContext::default()).unwrap()
}

/// The log, and whoever writes it.
struct Place {
    runtime: Runtime,
    log: Arc<dyn EventLog>,
    items: TopicPartition,
}

impl Place {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::default());
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
        self.runtime.block_on(self.log.append(vec![batch])).unwrap();
    }

    /// Items that come now.
    fn bring(&self, ids: &[i64]) {
        for id in ids {
            let (key, value) = item(at(1, id.unsigned_abs() + 1), *id);
            self.append(&self.items, schema().to_bytes().into(), &key, &value);
        }
    }

    /// Says that all that the source has up to a position is in the log.
    fn tell(&self, position: SourcePosition, snapshot_done: bool) {
        let end = self.runtime.block_on(self.log.watermarks(&self.items)).unwrap().high.0;
        let watermarks = BTreeMap::from([(self.items.topic.to_string(), vec![end])]);
        let progress = SourceProgress { position, at_micros: 1, snapshot_done, watermarks };
        let to = TopicPartition { topic: progress_topic(PREFIX, "shop").into(), partition: 0 };
        self.append(&to, Bytes::new(), &[], &serde_json::to_vec(&progress).unwrap());
    }

    fn worker(&self, rows: Arc<dyn RowStore>, documents: Arc<dyn DocumentStore>, models: Vec<ReadModel>) -> Worker {
        let share =
            Share::new(options(PREFIX, models), self.log.clone(), rows, documents, self.runtime.handle().clone());
        let producer = self.runtime.block_on(self.log.producer("worker")).unwrap();
        Worker::new(share, self.log.clone(), producer)
    }

    /// Lets a worker that has all partitions do everything there is to do.
    fn drain(&self, worker: &mut Worker) {
        let (mut random, mut tally) = (Random::new(1), Tally::default());
        let mut world = World { random: &mut random, runtime: &self.runtime, tally: &mut tally };
        for _ in 0..60 {
            let dirty = worker.share.dirty_topics().into_iter().flat_map(|(topic, partitions)| {
                let topic: Arc<str> = topic.into();
                (0..partitions).map(move |partition| TopicPartition { topic: topic.clone(), partition })
            });
            let (own, roots) = (BTreeSet::from([self.items.clone()]), dirty.collect());
            worker.learn(&mut world, &own, &roots, true).unwrap();
            for step in worker.steps() {
                // An earlier step may have changed what can be done.
                if worker.steps().contains(&step) {
                    worker.step(&mut world, step).unwrap();
                }
            }
        }
    }
}

/// What serves lacks every change since: no frontier promises one until the next version serves.
#[test]
fn no_frontier_goes_beyond_what_serves_without_rows() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let frontier = || documents.state.lock().frontiers["shop"].position;
    let serving = || documents.state.lock().active("item").iter().map(|record| record.id.0).collect::<Vec<_>>();
    let mut worker = place.worker(rows, documents.clone(), vec![model()]);
    place.bring(&[0, 1]);
    place.tell(at(1, 2), true);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![1], at(1, 2)));
    drop(worker);

    let Engine::Here { rows, _folder, .. } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), vec![model()]);
    place.bring(&[2]);
    place.tell(at(1, 3), false);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![1], at(1, 2)));
    place.tell(at(1, 4), true);
    place.drain(&mut worker);
    assert_eq!((serving(), frontier()), (vec![2], at(1, 4)));
    let version = documents.state.lock().active("item")[0].id;
    assert_eq!(documents.state.lock().contents(version).0.len(), 3);
}

/// Nobody builds a successor of it.
#[test]
fn what_serves_without_rows_is_retired_with_its_model() {
    let place = Place::open();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), vec![model()]);
    place.bring(&[0]);
    place.tell(at(1, 1), true);
    place.drain(&mut worker);
    assert_eq!(documents.state.lock().active("item").len(), 1);
    drop(worker);
    let Engine::Here { rows, _folder, .. } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let mut worker = place.worker(rows, documents.clone(), Vec::new());
    place.drain(&mut worker);
    assert!(documents.state.lock().active("item").is_empty());
}
