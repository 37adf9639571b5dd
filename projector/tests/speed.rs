//! What a row costs, end to end within the projector. Not a check: run it with
//! `cargo test --release -p headwater-projector --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)]

mod progress;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::{Fold, FoldOptions, Input};
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, RowBuilder, SourcePosition, TableId, TableSchema, ValueRef, WriteRow, key,
};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use progress::progress;

const MODEL: &str = "
model: customer
root: { table: shop.customers, key: id }
fields: [id, name, email]
nest:
  invoices:
    many: shop.invoices
    on: { customer_id: id }
    order: [-issued_on]
    fields: [id, issued_on, status]
    nest:
      lines: { many: shop.lines, on: { invoice_id: id }, fields: [id, text, amount] }
compute:
  total: { sum: invoices.lines.amount }
indexes: [email, total]
";

const CUSTOMERS: i64 = 10_000;
const BATCH: i64 = 20_000;

fn schema(table: &str, columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(at, (name, kind)): (usize, &(&str, ColumnType))| Column {
        name: (*name).into(),
        kind: kind.clone(),
        source_type: String::new(),
        key_ordinal: (at == 0).then_some(0),
    };
    TableSchema {
        table: TableId::new("shop", "public", table),
        columns: columns.iter().enumerate().map(column).collect(),
    }
}

fn batches(
    schema: &TableSchema,
    op: Op,
    rows: i64,
    commit: u64,
    row: &dyn Fn(i64, &mut RowBuilder<'_>),
) -> Vec<FetchedBatch> {
    let mut out = Vec::new();
    for start in (0..rows).step_by(BATCH as usize) {
        let mut buffer = RecordBuffer::default();
        for id in start..rows.min(start + BATCH) {
            let header = EventHeader {
                op,
                position: SourcePosition { epoch: 1, commit, ordinal: id as u32 + 1 },
                transaction: commit,
                committed_at_micros: 0,
                last_in_transaction: false,
                before_is_key_only: false,
            };
            let mut write = |out: &mut Vec<u8>| {
                let mut builder = RowBuilder::new(out);
                builder.push(ValueRef::Int(id));
                row(id, &mut builder);
            };
            let key = key::of(ValueRef::Int(id));
            buffer.push(
                0,
                &key,
                Some(|out: &mut Vec<u8>| {
                    header.encode(out, None, (op != Op::Schema).then_some(&mut write as WriteRow<'_>))
                }),
            );
        }
        let place = TopicPartition { topic: schema.table.topic("p").into(), partition: 0 };
        let records = Bytes::copy_from_slice(buffer.as_bytes());
        out.push(FetchedBatch::new(place, Offset(start as u64), schema.to_bytes().into(), records, buffer.count()));
    }
    out
}

fn tell_progress(fold: &mut Fold) {
    let batch = progress("p", SourcePosition::after_commit(1, 1), Default::default());
    fold.micro_batch(&[Input::whole(&batch)], &mut |_| Ok(())).unwrap();
}

#[test]
#[ignore = "measures; see the head of the file"]
fn cost_of_a_row() {
    use ColumnType as T;
    let customers = schema("customers", &[("id", T::Int64), ("name", T::Text), ("email", T::Text)]);
    let invoices =
        schema("invoices", &[("id", T::Int64), ("customer_id", T::Int64), ("issued_on", T::Date), ("status", T::Text)]);
    let lines =
        schema("lines", &[("id", T::Int64), ("invoice_id", T::Int64), ("text", T::Text), ("amount", T::Decimal)]);
    let customer = |id: i64, row: &mut RowBuilder<'_>| {
        row.push(ValueRef::Text(&format!("Customer number {id}")));
        row.push(ValueRef::Text(&format!("customer{id}@example.org")));
    };
    let invoice = |id: i64, row: &mut RowBuilder<'_>| {
        row.push(ValueRef::Int(id / 5));
        row.push(ValueRef::Date((id % 1000) as i32));
        row.push(ValueRef::Text("open"));
    };
    let line = |id: i64, row: &mut RowBuilder<'_>| {
        row.push(ValueRef::Int(id / 4));
        row.push(ValueRef::Text("A line of an invoice"));
        row.push(ValueRef::Decimal("12.34"));
    };
    for live in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).unwrap();
        let model = parse("model.yaml", MODEL, &ParseContext::default()).unwrap();
        let options = FoldOptions { prefix: "p".into(), ..FoldOptions::default() };
        let mut fold = Fold::open(store as Arc<_>, &[model], options).unwrap();
        for schema in [&customers, &invoices, &lines] {
            let first = batches(schema, Op::Schema, 1, 0, &|_, _| {});
            fold.micro_batch(&[Input::whole(&first[0])], &mut |_| Ok(())).unwrap();
        }
        if live {
            tell_progress(&mut fold);
            while fold.has_background_work() {
                fold.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap();
            }
        }
        let load = [
            ("customers", batches(&customers, Op::Create, CUSTOMERS, 1, &customer)),
            ("invoices", batches(&invoices, Op::Create, 5 * CUSTOMERS, 2, &invoice)),
            ("lines", batches(&lines, Op::Create, 20 * CUSTOMERS, 3, &line)),
        ];
        let began = Instant::now();
        let mut rows = 0;
        for (name, batches) in &load {
            let began = Instant::now();
            let (mut count, mut documents) = (0, 0);
            for batch in batches {
                let folded = fold.micro_batch(&[Input::whole(batch)], &mut |_| Ok(())).unwrap();
                (count, documents) = (count + folded.rows, documents + folded.documents.written);
            }
            rows += count;
            let cost = began.elapsed().as_secs_f64() * 1e6 / count as f64;
            println!("live {live} {name}: {cost:.2} µs/row, {count} rows, {documents} documents");
        }
        if !live {
            let began = Instant::now();
            tell_progress(&mut fold);
            while fold.has_background_work() {
                fold.background(Duration::from_millis(400), &mut |_| Ok(())).unwrap();
            }
            println!("live {live} scan: {:.2} µs/document", began.elapsed().as_secs_f64() * 1e6 / CUSTOMERS as f64);
        }
        println!("live {live} all: {:.2} µs/row", began.elapsed().as_secs_f64() * 1e6 / rows as f64);
    }
}
