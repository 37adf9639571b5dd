//! `growth`: what folding a change costs over 10^5 rows and over 10^7. Events are made here and folded without a source or
//! a log, so that nothing but the state's size differs.
//!
//! `growth` is measured in micro-batches as they come at the load of `freshness`, some twenty changes each.
//! `growth_backlog` is the same in micro-batches of 2,000 changes spread over all rows: there the small state shares
//! pages and documents among the changes of a batch, and the large one cannot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::{Fold, FoldOptions, Input};
use headwater_schemas::model::ParseContext;
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, RowBuilder, SourcePosition, SourceProgress, TableId, TableSchema, ValueRef,
    key, progress_topic,
};
use headwater_store::ProjectionStore;
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};

use crate::load::MODEL;
use crate::pipeline::{PREFIX, SOURCE};
use crate::report::{Demand, Figure, median};

const SMALL: u64 = 100_000;
const LARGE: u64 = 10_000_000;
/// Changes in a micro-batch, and how many micro-batches are timed.
#[derive(Clone, Copy)]
struct Load {
    changes: u64,
    batches: usize,
}

const STEADY: Load = Load { changes: 20, batches: 300 };
const BACKLOG: Load = Load { changes: 2_000, batches: 30 };

/// A fold over made-up rows: of a hundred rows four are customers, twenty invoices, and the others lines.
struct Made {
    fold: Fold,
    tables: [Table; 3],
    commit: u64,
    _folder: tempfile::TempDir,
}

struct Table {
    schema: TableSchema,
    prelude: Bytes,
    rows: u64,
    next: u64,
}

impl Made {
    fn new(rows: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).expect("a fresh folder opens");
        let context = ParseContext { sources: BTreeMap::from([(SOURCE.to_string(), "public".to_string())]) };
        let model = headwater_schemas::model::parse("model.yaml", MODEL, &context).expect("the bench's model is right");
        let options = FoldOptions { prefix: PREFIX.into(), ..FoldOptions::default() };
        let fold = Fold::open(store as Arc<dyn ProjectionStore>, &[model], options).expect("the fold opens");
        use ColumnType::{Date, Decimal, Int32, Text, TimestampTz};
        let tables = [
            table(
                "customers",
                rows / 25,
                &[("id", Int32), ("full_name", Text), ("email", Text), ("city", Text), ("created_at", TimestampTz)],
            ),
            table(
                "invoices",
                rows / 5,
                &[
                    ("id", Int32),
                    ("customer_id", Int32),
                    ("number", Text),
                    ("status", Text),
                    ("issued_on", Date),
                    ("due_on", Date),
                    ("total", Decimal),
                ],
            ),
            table(
                "invoice_lines",
                rows - rows / 25 - rows / 5,
                &[
                    ("id", Int32),
                    ("invoice_id", Int32),
                    ("position", Int32),
                    ("description", Text),
                    ("quantity", Decimal),
                    ("amount", Decimal),
                ],
            ),
        ];
        let mut made = Self { fold, tables, commit: 1, _folder: folder };
        for number in 0..made.tables.len() {
            let rows: Vec<u64> = (1..=made.tables[number].rows).collect();
            for chunk in rows.chunks(20_000) {
                made.fold_rows(number, Op::Read, chunk, 0);
            }
        }
        made.snapshot_done();
        made
    }

    /// Folds one event for each of these rows, in one micro-batch.
    fn fold_rows(&mut self, number: usize, op: Op, ids: &[u64], salt: u64) {
        let (customers, invoices) = (self.tables[0].rows, self.tables[1].rows);
        let lines = self.tables[2].rows;
        self.commit += 1;
        let table = &mut self.tables[number];
        let mut records = RecordBuffer::default();
        for (at, &id) in ids.iter().enumerate() {
            let header = EventHeader {
                op,
                position: SourcePosition { epoch: 1, commit: self.commit, ordinal: at as u32 + 1 },
                transaction: self.commit,
                committed_at_micros: 0,
                last_in_transaction: false,
                before_is_key_only: false,
            };
            let mut row = |out: &mut Vec<u8>| {
                let mut row = RowBuilder::new(out);
                let int = |n: u64| ValueRef::Int(n as i64);
                let amount = format!("{}.{:02}", (id + salt) % 1000, id % 100);
                row.push(int(id));
                match number {
                    0 => {
                        row.push(ValueRef::Text(&format!("Customer number {id}")));
                        row.push(ValueRef::Text(&format!("c{id}@example.com")));
                        row.push(ValueRef::Text(&format!("City {}", id % 997)));
                        row.push(ValueRef::TimestampTz(id as i64 * 60_000_000));
                    }
                    1 => {
                        row.push(int(1 + id * 7919 % customers));
                        row.push(ValueRef::Text(&format!("INV-{id:09}")));
                        row.push(ValueRef::Text(["open", "paid", "paid", "overdue"][id as usize % 4]));
                        row.push(ValueRef::Date(19_000 + (id % 700) as i32));
                        row.push(ValueRef::Date(19_014 + (id % 700) as i32));
                        row.push(ValueRef::Decimal(&amount));
                    }
                    _ => {
                        row.push(int(1 + (id - 1) * invoices / lines));
                        row.push(int(id % 4));
                        row.push(ValueRef::Text(&format!("Line item number {id} of the invoice")));
                        row.push(ValueRef::Decimal("2.00"));
                        row.push(ValueRef::Decimal(&amount));
                    }
                }
            };
            records.push(
                0,
                &key::of(ValueRef::Int(id as i64)),
                Some(|out: &mut Vec<u8>| header.encode(out, None, Some(&mut row))),
            );
        }
        let topic = table.schema.table.topic(PREFIX);
        let batch = fetched(&topic, table.next, table.prelude.clone(), &records);
        table.next = batch.next().0;
        self.fold
            .micro_batch(&[Input::whole(&batch)], &mut |letters| panic!("dead letters: {letters:?}"))
            .expect("the fold goes on");
    }

    /// Says that the snapshot is complete, and waits for the documents.
    fn snapshot_done(&mut self) {
        let watermarks = self.tables.iter().map(|table| (table.schema.table.topic(PREFIX), vec![table.next])).collect();
        let progress = SourceProgress {
            position: SourcePosition::after_commit(1, self.commit),
            at_micros: 0,
            snapshot_done: true,
            watermarks,
        };
        let json = serde_json::to_vec(&progress).expect("text keys");
        let mut records = RecordBuffer::default();
        records.push(0, b"progress", Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
        let batch = fetched(&progress_topic(PREFIX, SOURCE), 0, Bytes::new(), &records);
        let letters = &mut |letters: &[headwater_schemas::DeadLetter]| panic!("dead letters: {letters:?}");
        self.fold.micro_batch(&[Input::whole(&batch)], letters).expect("the fold goes on");
        while self.fold.background(Duration::from_millis(500), letters).expect("the fold goes on").is_some() {}
    }

    /// Microseconds per changed line: the middle one of some micro-batches.
    fn cost(&mut self, load: Load) -> f64 {
        let lines = self.tables[2].rows;
        let mut random = 88_172_645_463_325_252u64 ^ self.commit;
        let mut times = Vec::new();
        for batch in 0..load.batches {
            let mut ids: Vec<u64> = (0..load.changes)
                .map(|_| {
                    // xorshift64: any spread of keys will do.
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    1 + random % lines
                })
                .collect();
            ids.sort_unstable();
            ids.dedup();
            let begin = Instant::now();
            self.fold_rows(2, Op::Update, &ids, 1 + batch as u64);
            times.push(begin.elapsed().as_secs_f64() * 1e6 / ids.len() as f64);
        }
        median(&mut times)
    }
}

fn table(name: &str, rows: u64, columns: &[(&str, ColumnType)]) -> Table {
    let column = |(at, (name, kind)): (usize, &(&str, ColumnType))| Column {
        name: (*name).into(),
        kind: kind.clone(),
        source_type: String::new(),
        key_ordinal: (at == 0).then_some(0),
    };
    let schema = TableSchema {
        table: TableId::new(SOURCE, "public", name),
        columns: columns.iter().enumerate().map(column).collect(),
    };
    Table { prelude: schema.to_bytes().into(), schema, rows, next: 0 }
}

fn fetched(topic: &str, base: u64, prelude: Bytes, records: &RecordBuffer) -> FetchedBatch {
    let from = TopicPartition { topic: topic.into(), partition: 0 };
    FetchedBatch::new(from, Offset(base), prelude, Bytes::copy_from_slice(records.as_bytes()), records.count())
}

pub(crate) fn measure(scale: f64) -> Vec<Figure> {
    let large_rows = ((LARGE as f64 * scale) as u64).max(SMALL);
    println!("growth: making {SMALL} and {large_rows} rows");
    let mut small = Made::new(SMALL);
    let mut large = Made::new(large_rows);
    let mut figures = Vec::new();
    for (name, load, demand) in
        [("growth", STEADY, Demand::RatioAtMost(1.5, "ratio ≤ 1.5")), ("growth_backlog", BACKLOG, Demand::Report)]
    {
        small.cost(load);
        large.cost(load);
        // In turn, so that the machine's mood hits both.
        let (mut at_small, mut at_large) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            at_small.push(small.cost(load));
            at_large.push(large.cost(load));
        }
        figures.push(Figure::new(name, median(&mut at_large), "µs/event", Some(median(&mut at_small)), demand));
    }
    figures
}
