//! Intervals in a fold: `where`, `order`, `min`, `max` and joins take them by their length, as the database does.
#![allow(clippy::unwrap_used)]

mod progress;
#[path = "runs/source.rs"]
#[allow(dead_code, reason = "its log is for tests of the whole projector")]
mod source;

use std::time::Duration;

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::{Fold, FoldOptions, Input};
use headwater_schemas::{
    ColumnType, EventHeader, Op, RowBuilder, SourcePosition, TableSchema, Value, ValueRef, WriteRow, key,
};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{DocumentReader, ProjectionStore};
use progress::progress;
use source::{model, schema};

const PREFIX: &str = "t";

const MODEL: &str = "
model: contract
root: { table: shop.contracts, key: id }
fields: { id: id }
nest:
  calls:
    many: shop.calls
    on: { contract_id: id }
    where: { lasted: { gte: PT59S } }
    order: [lasted]
    fields: [lasted]
  plan: { one: shop.plans, on: { period: period }, fields: [id] }
compute:
  shortest: { min: calls.lasted }
  longest: { max: calls.lasted }
";

fn span(text: &str) -> Value {
    Value::parse(text, &ColumnType::Interval).unwrap()
}

/// The rows of a table, as all there is in its topic.
fn records(schema: &TableSchema, rows: &[Vec<Value>]) -> FetchedBatch {
    let mut records = RecordBuffer::default();
    for (at, row) in (1..).zip(rows) {
        let header = EventHeader {
            op: Op::Create,
            position: SourcePosition { epoch: 1, commit: at, ordinal: 1 },
            transaction: at,
            committed_at_micros: 1_000_000,
            last_in_transaction: true,
            before_is_key_only: false,
        };
        let mut write = |out: &mut Vec<u8>| {
            let mut builder = RowBuilder::new(out);
            row.iter().for_each(|value| builder.push_value(value));
        };
        let after: Option<WriteRow<'_>> = Some(&mut write);
        let key = key::of(row[0].scalar().unwrap());
        records.push(1, &key, Some(|out: &mut Vec<u8>| header.encode(out, None, after)));
    }
    let place = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
    let bytes = Bytes::copy_from_slice(records.as_bytes());
    FetchedBatch::new(place, Offset(0), schema.to_bytes().into(), bytes, records.count())
}

/// Says that these are all records there are.
fn all_of(batches: &[FetchedBatch]) -> FetchedBatch {
    let watermark = |batch: &FetchedBatch| (batch.from.topic.to_string(), vec![batch.next().0]);
    progress(PREFIX, SourcePosition::after_commit(1, 100), batches.iter().map(watermark).collect())
}

#[test]
fn they_are_taken_by_their_length() {
    let (int, interval) = (ColumnType::Int64, ColumnType::Interval);
    let contracts = schema("contracts", &[("id", int.clone()), ("period", interval.clone())]);
    let calls = schema("calls", &[("id", int.clone()), ("contract_id", int.clone()), ("lasted", interval.clone())]);
    let plans = schema("plans", &[("id", int), ("period", interval)]);
    let call = |(id, lasted): (i64, &&str)| vec![Value::Int(id), Value::Int(7), span(lasted)];
    // By their texts PT10M would be the least and PT9S the greatest.
    let lasted = ["PT10M", "PT59S", "P1D", "PT1M5S", "PT9S", "PT23H"];
    let batches = [
        records(&contracts, &[vec![Value::Int(7), span("PT24H")]]),
        records(&calls, &(1..).zip(&lasted).map(call).collect::<Vec<_>>()),
        records(&plans, &[vec![Value::Int(3), span("P1D")]]),
    ];

    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    let model = model(MODEL);
    let options = FoldOptions { prefix: PREFIX.into(), ..FoldOptions::default() };
    let mut fold = Fold::open(store.clone(), &[model], options).unwrap();
    let told = all_of(&batches);
    let inputs: Vec<Input<'_>> = batches.iter().chain([&told]).map(Input::whole).collect();
    fold.micro_batch(&inputs, &mut |letters| panic!("{letters:?}")).unwrap();
    while fold.has_background_work() {
        fold.background(Duration::from_secs(1), &mut |letters| panic!("{letters:?}")).unwrap();
    }

    let version = store.begin().unwrap().versions().unwrap()[0].id;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let document = runtime.block_on(store.get(version, &key::of(ValueRef::Int(7)))).unwrap().unwrap();
    let wanted = concat!(
        r#"{"id":7,"calls":[{"lasted":"PT59S"},{"lasted":"PT1M5S"},{"lasted":"PT10M"},{"lasted":"PT23H"},"#,
        r#"{"lasted":"P1D"}],"plan":{"id":3},"shortest":"PT59S","longest":"P1D"}"#
    );
    assert_eq!(String::from_utf8_lossy(&document.body), wanted);
}
