//! What happens at the source: random transactions over its tables, as change events for the partitions of their topics.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_schemas::{
    Column, ColumnType, EventHeader, EventRef, Op, RowBuilder, RowRef, SourcePosition, SourceProgress, Value, ValueRef,
};

use crate::random::Random;
use crate::tables::{Table, row_bytes};

/// How much of what there is. Shares are of a hundred.
pub(crate) struct Habits {
    /// Rows of a table, at most.
    pub(crate) rows_max: usize,
    /// Changes that are not inserts: up to here a row is updated,
    pub(crate) updates: usize,
    /// up to here it gets another key,
    pub(crate) new_keys: usize,
    /// up to here it is deleted; above, the table is truncated.
    pub(crate) deletes: usize,
    /// Transactions after which a table gets a column more.
    pub(crate) new_columns: usize,
    /// Transactions after which a column of a table gets another type, and the table is read again.
    pub(crate) new_types: usize,
    /// Changes that make the row that was updated last what it was before: documents go from A to B to A.
    pub(crate) reversals: usize,
}

/// A change event.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) table: usize,
    pub(crate) partition: usize,
    pub(crate) prelude: Bytes,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

pub(crate) struct Changes {
    pub(crate) tables: Vec<Table>,
    /// Partitions of each table's topic.
    pub(crate) partitions: Vec<usize>,
    pub(crate) commit: u64,
    habits: Habits,
    /// Whether events carry the whole row before, as with `REPLICA IDENTITY FULL`.
    full: bool,
    /// The row that was updated last, as it was before: table, key, row.
    before: Option<(usize, Vec<u8>, Vec<Value>)>,
    /// Events of the transaction under way.
    events: Vec<Event>,
}

impl Changes {
    pub(crate) fn new(tables: Vec<Table>, partitions: Vec<usize>, habits: Habits, full: bool) -> Self {
        Self { tables, partitions, commit: 0, habits, full, before: None, events: Vec::new() }
    }

    /// Says what the tables look like.
    pub(crate) fn describe(&mut self) -> Vec<Event> {
        for table in 0..self.tables.len() {
            self.commit += 1;
            self.record(table, 0, Op::Schema, 1, &[], None, None);
        }
        std::mem::take(&mut self.events)
    }

    /// One transaction.
    pub(crate) fn transaction(&mut self, random: &mut Random) -> Vec<Event> {
        self.commit += 1;
        let mut ordinal = 1;
        for _ in 0..random.between(1, 3) {
            let reversals = self.habits.reversals;
            if let Some((at, key, row)) = self.before.take_if(|_| random.chance(reversals))
                && let Some(old) = self.tables[at].rows.get(&key).filter(|old| old.len() == row.len()).cloned()
            {
                self.tables[at].rows.insert(key.clone(), row.clone());
                self.row(random, at, Op::Update, ordinal, &key, Some(&old), Some(&row));
                ordinal += 1;
                continue;
            }
            let at = random.below(self.tables.len());
            let table = &self.tables[at];
            let kind = random.below(100);
            let existing: Vec<Vec<u8>> = table.rows.keys().cloned().collect();
            if existing.is_empty() || (kind < 35 && existing.len() < self.habits.rows_max) {
                let row = table.random_row(random);
                let key = table.key_of(&row);
                let old = self.tables[at].rows.insert(key.clone(), row.clone());
                let op = if old.is_some() { Op::Update } else { *random.pick(&[Op::Create, Op::Read]) };
                self.row(random, at, op, ordinal, &key, old.as_deref(), Some(&row));
            } else {
                let key = random.pick(&existing).clone();
                let old = table.rows[&key].clone();
                if kind <= self.habits.updates {
                    let mut row = old.clone();
                    for _ in 0..random.between(1, 2) {
                        let column = random.below(row.len());
                        if table.schema.columns[column].key_ordinal.is_none() {
                            row[column] = table.random_value(random, column);
                        }
                    }
                    self.tables[at].rows.insert(key.clone(), row.clone());
                    self.row(random, at, Op::Update, ordinal, &key, Some(&old), Some(&row));
                    self.before = Some((at, key, old));
                } else if kind <= self.habits.new_keys {
                    let mut row = old.clone();
                    let column = *random.pick(&table.schema.key_columns());
                    row[column] = table.random_value(random, column);
                    let new_key = table.key_of(&row);
                    if table.rows.contains_key(&new_key) {
                        continue;
                    }
                    self.tables[at].rows.remove(&key);
                    self.tables[at].rows.insert(new_key.clone(), row.clone());
                    self.row(random, at, Op::Delete, ordinal, &key, Some(&old), None);
                    ordinal += 1;
                    self.row(random, at, Op::Create, ordinal, &new_key, None, Some(&row));
                } else if kind <= self.habits.deletes {
                    self.tables[at].rows.remove(&key);
                    self.row(random, at, Op::Delete, ordinal, &key, Some(&old), None);
                } else {
                    self.tables[at].rows.clear();
                    self.truncate(random, at, ordinal);
                }
            }
            ordinal += 1;
        }
        if random.chance(self.habits.new_columns) {
            self.add_column(random);
        }
        if random.chance(self.habits.new_types) {
            self.change_type(random);
        }
        std::mem::take(&mut self.events)
    }

    /// The record that says that everything up to now is in the log, which ends there, by topic.
    pub(crate) fn progress(&self, snapshot_done: bool, watermarks: BTreeMap<String, Vec<u64>>) -> Vec<u8> {
        let progress = SourceProgress {
            position: SourcePosition::after_commit(1, self.commit),
            at_micros: self.commit as i64,
            snapshot_done,
            watermarks,
        };
        serde_json::to_vec(&progress).unwrap()
    }

    fn add_column(&mut self, random: &mut Random) {
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
        self.record(at, 0, Op::Schema, 1, &[], None, None);
    }

    /// Whole numbers become decimals, or the other way round; rows without one are as they were.
    fn change_type(&mut self, random: &mut Random) {
        let at = random.below(self.tables.len());
        let table = &mut self.tables[at];
        let column = table.schema.column_index("b").unwrap();
        let kind = &mut table.schema.columns[column].kind;
        *kind = if *kind == ColumnType::Int64 { ColumnType::Decimal } else { ColumnType::Int64 };
        for row in table.rows.values_mut() {
            row[column] = match &row[column] {
                Value::Int(n) => Value::Decimal(n.to_string()),
                Value::Decimal(text) => Value::Int(text.split('.').next().unwrap().parse().unwrap()),
                none => none.clone(),
            };
        }
        // What it was before was of the other type.
        self.before.take_if(|(table, ..)| *table == at);
        let rows = self.tables[at].rows.clone();
        self.commit += 1;
        self.record(at, 0, Op::Schema, 1, &[], None, None);
        for (ordinal, (key, row)) in (2..).zip(&rows) {
            self.row(random, at, Op::Read, ordinal, key, None, Some(row));
        }
    }

    /// An event of a row; what did not change may be missing from it.
    #[expect(clippy::too_many_arguments)]
    fn row(
        &mut self,
        random: &mut Random,
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
            let unsent = op == Op::Update && old.is_some_and(|old| old[big] == row[big]) && random.chance(50);
            let mut bytes = Vec::new();
            for (at, value) in row.iter().enumerate() {
                let mut cells = RowBuilder::new(&mut bytes);
                match value {
                    _ if unsent && at == big => cells.push(ValueRef::Missing),
                    Value::Missing => cells.push_lost(),
                    value => cells.push_value(value),
                }
            }
            bytes
        });
        let before = old.filter(|_| self.full || op == Op::Delete).map(|old| {
            let whole = self.full && !old.contains(&Value::Missing);
            let key_only = |(column, value): (&Column, &Value)| match column.key_ordinal {
                None if !whole => Value::Missing,
                _ => value.clone(),
            };
            row_bytes(&schema.columns.iter().zip(old).map(key_only).collect::<Vec<_>>())
        });
        let hash = key.iter().fold(0usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        let partition = hash % self.partitions[at];
        self.record(at, partition, op, ordinal, key, before, new);
    }

    /// A truncation in every partition; or in fewer, as of a source that had not as many; or in one, by a writer that
    /// does not say how many there are.
    fn truncate(&mut self, random: &mut Random, table: usize, ordinal: u32) {
        let all = self.partitions[table];
        if random.chance(10) {
            return self.record(table, random.below(all), Op::Truncate, ordinal, &[], None, None);
        }
        let partitions = if random.chance(80) { all } else { random.between(1, all) };
        let header = self.header(Op::Truncate, ordinal);
        for partition in 0..partitions {
            let told = Some(partitions as u32);
            self.push(table, partition, &[], &EventRef { header, before: None, after: None, partitions: told });
        }
    }

    #[expect(clippy::too_many_arguments)]
    fn record(
        &mut self,
        table: usize,
        partition: usize,
        op: Op,
        ordinal: u32,
        key: &[u8],
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    ) {
        let (before, after) = (before.as_deref().map(RowRef), after.as_deref().map(RowRef));
        let before_is_key_only = before.is_some_and(RowRef::has_missing);
        let header = EventHeader { before_is_key_only, ..self.header(op, ordinal) };
        self.push(table, partition, key, &EventRef { header, before, after, partitions: None });
    }

    fn header(&self, op: Op, ordinal: u32) -> EventHeader {
        EventHeader {
            op,
            position: SourcePosition { epoch: 1, commit: self.commit, ordinal },
            transaction: self.commit,
            committed_at_micros: self.commit as i64,
            last_in_transaction: false,
            before_is_key_only: false,
        }
    }

    fn push(&mut self, table: usize, partition: usize, key: &[u8], event: &EventRef<'_>) {
        let mut value = Vec::new();
        event.encode(&mut value);
        let prelude = self.tables[table].schema.to_bytes().into();
        self.events.push(Event { table, partition, prelude, key: key.to_vec(), value });
    }
}
