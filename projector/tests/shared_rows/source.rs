//! The source and its connector: random changes, appended to the log as change events.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::{AppendBatch, EventLog, Producer, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_schemas::progress_topic;
use tokio::runtime::Runtime;

use crate::changes::{Changes, Event, Habits};
use crate::random::Random;
use crate::tables::Table;

pub(crate) const PREFIX: &str = "p";
pub(crate) const SOURCE: &str = "s";

const HABITS: Habits =
    Habits { rows_max: 12, updates: 80, new_keys: 86, deletes: 96, new_columns: 3, new_types: 2, reversals: 30 };

pub(crate) struct Source {
    pub(crate) changes: Changes,
    producer: Arc<dyn Producer>,
    /// Records that were appended, to be appended again: partition, prelude, key and value.
    sent: Vec<(TopicPartition, Bytes, Vec<u8>, Vec<u8>)>,
    ends: BTreeMap<TopicPartition, u64>,
    pub(crate) snapshot_done: bool,
}

impl Source {
    pub(crate) fn new(random: &mut Random, log: &dyn EventLog, runtime: &Runtime) -> Self {
        let tables: Vec<Table> =
            (0..random.between(2, 4)).map(|number| Table::random(random, SOURCE, number)).collect();
        let partitions: Vec<usize> = tables.iter().map(|_| random.between(1, 3)).collect();
        let spec = |name: String, partitions: usize| TopicSpec {
            name: name.into(),
            partitions: partitions as u32,
            retention: Retention::default(),
        };
        let mut specs: Vec<TopicSpec> =
            tables.iter().zip(&partitions).map(|(table, count)| spec(table.id().topic(PREFIX), *count)).collect();
        specs.push(spec(progress_topic(PREFIX, SOURCE), 1));
        runtime.block_on(log.create_topics(&specs)).unwrap();
        let producer = runtime.block_on(log.producer("connector")).unwrap();
        Self {
            changes: Changes::new(tables, partitions, HABITS, random.chance(50)),
            producer,
            sent: Vec::new(),
            ends: BTreeMap::new(),
            snapshot_done: false,
        }
    }

    /// Every partition of the tables' topics.
    pub(crate) fn places(&self) -> Vec<TopicPartition> {
        let of = |(table, count): (&Table, &usize)| {
            let topic: Arc<str> = table.id().topic(PREFIX).into();
            (0..*count as u32).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        };
        self.changes.tables.iter().zip(&self.changes.partitions).flat_map(of).collect()
    }

    /// Says what the tables look like.
    pub(crate) fn describe(&mut self, runtime: &Runtime) {
        let events = self.changes.describe();
        self.write(runtime, events);
    }

    /// One transaction at the source.
    pub(crate) fn change(&mut self, random: &mut Random, runtime: &Runtime) {
        let events = self.changes.transaction(random);
        self.write(runtime, events);
        if random.chance(15) {
            // A connector that did not hear that its append went well appends it again.
            let again = random.pick(&self.sent).clone();
            self.append(runtime, again);
        }
    }

    fn write(&mut self, runtime: &Runtime, events: Vec<Event>) {
        for event in events {
            let topic = self.changes.tables[event.table].id().topic(PREFIX).into();
            let to = TopicPartition { topic, partition: event.partition as u32 };
            let record = (to, event.prelude, event.key, event.value);
            self.sent.push(record.clone());
            self.append(runtime, record);
        }
    }

    fn append(&mut self, runtime: &Runtime, (to, prelude, key, value): (TopicPartition, Bytes, Vec<u8>, Vec<u8>)) {
        let mut records = RecordBuffer::default();
        records.push(0, &key, Some(|out: &mut Vec<u8>| out.extend_from_slice(&value)));
        let batch = AppendBatch { to: to.clone(), prelude, records };
        let at = runtime.block_on(self.producer.append(vec![batch], None)).unwrap()[0];
        self.ends.insert(to, at.0 + 1);
    }

    /// Says that everything up to now is in the log.
    pub(crate) fn progress(&mut self, runtime: &Runtime) {
        let mut watermarks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for place in self.places() {
            let end = self.ends.get(&place).copied().unwrap_or(0);
            watermarks.entry(place.topic.to_string()).or_default().push(end);
        }
        let json = self.changes.progress(self.snapshot_done, watermarks);
        let to = TopicPartition { topic: progress_topic(PREFIX, SOURCE).into(), partition: 0 };
        self.append(runtime, (to, Bytes::new(), Vec::new(), json));
    }
}
