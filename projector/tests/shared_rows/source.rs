//! The source and its connector: random changes, appended to the log as change events.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::{AppendBatch, EventLog, Producer, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, SourcePosition, SourceProgress, Value, WriteRow, progress_topic,
};
use tokio::runtime::Runtime;

use crate::random::Random;
use crate::tables::{Table, row_bytes};

pub(crate) const PREFIX: &str = "p";
pub(crate) const SOURCE: &str = "s";

pub(crate) struct Source {
    pub(crate) tables: Vec<Table>,
    partitions: Vec<usize>,
    producer: Arc<dyn Producer>,
    /// Records that were appended, to be appended again: partition, prelude, key and value.
    sent: Vec<(TopicPartition, Bytes, Vec<u8>, Vec<u8>)>,
    ends: BTreeMap<TopicPartition, u64>,
    pub(crate) commit: u64,
    /// The row that was updated last, as it was before: table, key, row.
    before: Option<(usize, Vec<u8>, Vec<Value>)>,
    /// Whether events carry the whole row before, as with `REPLICA IDENTITY FULL`.
    full: bool,
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
            tables,
            partitions,
            producer,
            sent: Vec::new(),
            ends: BTreeMap::new(),
            commit: 0,
            before: None,
            full: random.chance(50),
            snapshot_done: false,
        }
    }

    /// Every partition of the tables' topics.
    pub(crate) fn places(&self) -> Vec<TopicPartition> {
        let of = |(table, count): (&Table, &usize)| {
            let topic: Arc<str> = table.id().topic(PREFIX).into();
            (0..*count as u32).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        };
        self.tables.iter().zip(&self.partitions).flat_map(of).collect()
    }

    /// Says what the tables look like.
    pub(crate) fn describe(&mut self, runtime: &Runtime) {
        for table in 0..self.tables.len() {
            self.commit += 1;
            self.record(runtime, table, 0, Op::Schema, 1, &[], None, None);
        }
    }

    /// One transaction at the source.
    pub(crate) fn change(&mut self, random: &mut Random, runtime: &Runtime) {
        self.commit += 1;
        let mut ordinal = 1;
        for _ in 0..random.between(1, 3) {
            // A row becomes what it was: documents go from A to B to A.
            if let Some((at, key, row)) = self.before.take_if(|_| random.chance(30))
                && let Some(old) = self.tables[at].rows.get(&key).filter(|old| old.len() == row.len()).cloned()
            {
                self.tables[at].rows.insert(key.clone(), row.clone());
                self.row(random, runtime, at, Op::Update, ordinal, &key, Some(&old), Some(&row));
                ordinal += 1;
                continue;
            }
            let at = random.below(self.tables.len());
            let table = &self.tables[at];
            let kind = random.below(100);
            let existing: Vec<Vec<u8>> = table.rows.keys().cloned().collect();
            if existing.is_empty() || (kind < 35 && existing.len() < 12) {
                let row = table.random_row(random);
                let key = table.key_of(&row);
                let old = self.tables[at].rows.insert(key.clone(), row.clone());
                let op = if old.is_some() { Op::Update } else { *random.pick(&[Op::Create, Op::Read]) };
                self.row(random, runtime, at, op, ordinal, &key, old.as_deref(), Some(&row));
            } else {
                let key = random.pick(&existing).clone();
                let old = table.rows[&key].clone();
                match kind {
                    0..=80 => {
                        let mut row = old.clone();
                        for _ in 0..random.between(1, 2) {
                            let column = random.below(row.len());
                            if table.schema.columns[column].key_ordinal.is_none() {
                                row[column] = table.random_value(random, column);
                            }
                        }
                        self.tables[at].rows.insert(key.clone(), row.clone());
                        self.row(random, runtime, at, Op::Update, ordinal, &key, Some(&old), Some(&row));
                        self.before = Some((at, key, old));
                    }
                    81..=86 => {
                        let mut row = old.clone();
                        let column = *random.pick(&table.schema.key_columns());
                        row[column] = table.random_value(random, column);
                        let new_key = table.key_of(&row);
                        if table.rows.contains_key(&new_key) {
                            continue;
                        }
                        self.tables[at].rows.remove(&key);
                        self.tables[at].rows.insert(new_key.clone(), row.clone());
                        self.row(random, runtime, at, Op::Delete, ordinal, &key, Some(&old), None);
                        ordinal += 1;
                        self.row(random, runtime, at, Op::Create, ordinal, &new_key, None, Some(&row));
                    }
                    87..=96 => {
                        self.tables[at].rows.remove(&key);
                        self.row(random, runtime, at, Op::Delete, ordinal, &key, Some(&old), None);
                    }
                    _ => {
                        self.tables[at].rows.clear();
                        let partition = random.below(self.partitions[at]);
                        self.record(runtime, at, partition, Op::Truncate, ordinal, &[], None, None);
                    }
                }
            }
            ordinal += 1;
        }
        if random.chance(3) {
            self.add_column(random, runtime);
        }
        if random.chance(15) {
            // A connector that did not hear that its append went well appends it again.
            let again = random.pick(&self.sent).clone();
            self.append(runtime, again);
        }
    }

    fn add_column(&mut self, random: &mut Random, runtime: &Runtime) {
        let at = random.below(self.tables.len());
        let table = &mut self.tables[at];
        let name = format!("x{}", table.schema.columns.len());
        table.schema.columns.push(Column {
            name: name.as_str().into(),
            kind: ColumnType::Int64,
            source_type: String::new(),
            key_ordinal: None,
        });
        table.rows.values_mut().for_each(|row| row.push(Value::Null));
        self.commit += 1;
        self.record(runtime, at, 0, Op::Schema, 1, &[], None, None);
    }

    /// An event of a row; what did not change may be missing from it.
    #[expect(clippy::too_many_arguments)]
    fn row(
        &mut self,
        random: &mut Random,
        runtime: &Runtime,
        at: usize,
        op: Op,
        ordinal: u32,
        key: &[u8],
        old: Option<&[Value]>,
        new: Option<&[Value]>,
    ) {
        let schema = &self.tables[at].schema;
        let big = schema.column_index("big").unwrap();
        let new = new.map(|row| {
            let mut row = row.to_vec();
            if op == Op::Update && old.is_some_and(|old| old[big] == row[big]) && random.chance(50) {
                row[big] = Value::Missing;
            }
            row_bytes(&row)
        });
        let before = old.filter(|_| self.full || op == Op::Delete).map(|old| {
            let key_only = |(column, value): (&Column, &Value)| match column.key_ordinal {
                None if !self.full => Value::Missing,
                _ => value.clone(),
            };
            row_bytes(&schema.columns.iter().zip(old).map(key_only).collect::<Vec<_>>())
        });
        let hash = key.iter().fold(0usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        let partition = hash % self.partitions[at];
        self.record(runtime, at, partition, op, ordinal, key, before, new);
    }

    #[expect(clippy::too_many_arguments)]
    fn record(
        &mut self,
        runtime: &Runtime,
        at: usize,
        partition: usize,
        op: Op,
        ordinal: u32,
        key: &[u8],
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    ) {
        let header = EventHeader {
            op,
            position: SourcePosition { epoch: 1, commit: self.commit, ordinal },
            transaction: self.commit,
            committed_at_micros: self.commit as i64,
            last_in_transaction: false,
            before_is_key_only: !self.full && before.is_some(),
        };
        let mut value = Vec::new();
        let writer = |row: Option<Vec<u8>>| row.map(|row| move |out: &mut Vec<u8>| out.extend_from_slice(&row));
        let (mut before, mut after) = (writer(before), writer(after));
        header.encode(
            &mut value,
            before.as_mut().map(|write| write as WriteRow<'_>),
            after.as_mut().map(|write| write as WriteRow<'_>),
        );
        let topic = self.tables[at].id().topic(PREFIX).into();
        let to = TopicPartition { topic, partition: partition as u32 };
        let record = (to, self.tables[at].schema.to_bytes().into(), key.to_vec(), value);
        self.sent.push(record.clone());
        self.append(runtime, record);
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
        let progress = SourceProgress {
            position: SourcePosition::after_commit(1, self.commit),
            at_micros: self.commit as i64,
            snapshot_done: self.snapshot_done,
            watermarks,
        };
        let json = serde_json::to_vec(&progress).unwrap();
        let to = TopicPartition { topic: progress_topic(PREFIX, SOURCE).into(), partition: 0 };
        self.append(runtime, (to, Bytes::new(), Vec::new(), json));
    }
}
