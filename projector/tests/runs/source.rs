//! A source of three tables, and its log, which tests write as its connector would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{AppendBatch, EventLog, Producer, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, RowBuilder, SourcePosition, SourceProgress, TableId, TableSchema, Value,
    WriteRow, key, progress_topic,
};

pub(crate) const PREFIX: &str = "t";

pub(crate) const MODEL: &str = "
model: customer
root: { table: shop.customers, key: id }
fields: { id: id, name: name }
nest:
  invoices:
    many: shop.invoices
    on: { customer_id: id }
    where: { status: { ne: draft } }
    fields: [id, status]
    nest:
      lines: { many: shop.lines, on: { invoice_id: id }, fields: [id, amount] }
    compute: { total: { sum: lines.amount } }
compute:
  all: { sum: invoices.lines.amount }
indexes: [name, invoices.status]
";

pub(crate) fn model(yaml: &str) -> ReadModel {
    parse("model.yaml", yaml, &ParseContext::default()).expect("a sound model")
}

pub(crate) fn schema(table: &str, columns: &[(&str, ColumnType)]) -> TableSchema {
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

pub(crate) fn schemas() -> [TableSchema; 3] {
    use ColumnType as T;
    [
        schema("customers", &[("id", T::Int64), ("name", T::Text)]),
        schema("invoices", &[("id", T::Int64), ("customer_id", T::Int64), ("status", T::Text)]),
        schema("lines", &[("id", T::Int64), ("invoice_id", T::Int64), ("amount", T::Decimal)]),
    ]
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A log that tests write like a connector.
pub(crate) struct Source {
    pub(crate) log: Arc<EmbeddedLog>,
    producer: Arc<dyn Producer>,
    epoch: u32,
    commit: u64,
    /// Whether progress goes with what is appended.
    pub(crate) tells: bool,
}

impl Source {
    pub(crate) async fn new(folder: &Path) -> Self {
        let options = EmbeddedOptions {
            maintenance_interval: Duration::from_millis(50),
            ..EmbeddedOptions::new(folder.join("log"))
        };
        let log = EmbeddedLog::open(options).unwrap();
        let producer = log.producer("shop").await.unwrap();
        let names = schemas().map(|schema| schema.table.topic(PREFIX));
        let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: Retention::default() };
        let mut specs: Vec<TopicSpec> = names.iter().map(|name| spec(name)).collect();
        specs.push(spec(&progress_topic(PREFIX, "shop")));
        log.create_topics(&specs).await.unwrap();
        let mut source = Self { log, producer, epoch: 1, commit: 0, tells: true };
        for schema in schemas() {
            source.append(&schema, Op::Schema, &[]).await;
        }
        source
    }

    /// Behind everything that was appended.
    pub(crate) fn position(&self) -> SourcePosition {
        SourcePosition::after_commit(self.epoch, self.commit)
    }

    /// Appends rows (deletes: their keys) as one transaction, with progress where it [tells](Self::tells).
    pub(crate) async fn append(&mut self, schema: &TableSchema, op: Op, rows: &[Vec<Value>]) {
        self.commit += 1;
        let mut records = RecordBuffer::default();
        let mut ordinal = 0;
        let mut push = |key: &[u8], row: Option<&[Value]>| {
            ordinal += 1;
            let header = EventHeader {
                op,
                position: SourcePosition { epoch: self.epoch, commit: self.commit, ordinal },
                transaction: self.commit,
                committed_at_micros: 1_000_000,
                last_in_transaction: false,
                before_is_key_only: false,
            };
            let mut write = |out: &mut Vec<u8>| {
                let mut builder = RowBuilder::new(out);
                row.unwrap_or_default().iter().for_each(|value| builder.push_value(value));
            };
            let write: Option<WriteRow<'_>> = if row.is_some() { Some(&mut write) } else { None };
            records.push(0, key, Some(|out: &mut Vec<u8>| header.encode(out, None, write)));
        };
        if matches!(op, Op::Schema | Op::Truncate) {
            push(&[], None);
        }
        for row in rows {
            let key = key::of(row[0].scalar().unwrap());
            push(&key, (op != Op::Delete).then_some(row));
        }
        let to = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
        let events = AppendBatch { to, prelude: schema.to_bytes().into(), records };
        self.producer.append(vec![events], None).await.unwrap();
        if self.tells {
            self.tell(true, 0).await;
        }
    }

    /// Appends all rows of a table, read again in a later epoch, and behind them what sweeps the others.
    pub(crate) async fn read_again(&mut self, schema: &TableSchema, rows: &[Vec<Value>]) {
        let before = self.commit;
        self.epoch += 1;
        self.commit = before + 10;
        self.append(schema, Op::Read, rows).await;
        self.commit = before;
        self.append(schema, Op::Truncate, &[]).await;
        self.commit = before + 20;
        self.tell(true, 0).await;
    }

    /// Has retention remove everything that is in a table's topic.
    pub(crate) async fn forget(&self, schema: &TableSchema) {
        self.forget_topic(&schema.table.topic(PREFIX)).await;
    }

    /// The same for any topic.
    pub(crate) async fn forget_topic(&self, topic: &str) {
        let place = TopicPartition { topic: topic.into(), partition: 0 };
        let keep = |age_max| TopicSpec {
            name: place.topic.clone(),
            partitions: 1,
            retention: Retention { age_max, ..Retention::default() },
        };
        // The records of these tests are as old as can be.
        self.log.create_topics(&[keep(Some(Duration::from_secs(3600)))]).await.unwrap();
        let began = Instant::now();
        while self.log.watermarks(&place).await.unwrap().low.0 == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "retention removes nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.log.create_topics(&[keep(None)]).await.unwrap();
    }

    /// Appends progress: all there is, and so many offsets more.
    pub(crate) async fn tell(&self, snapshot_done: bool, ahead: u64) {
        let mut watermarks = BTreeMap::new();
        for schema in schemas() {
            let topic = schema.table.topic(PREFIX);
            let place = TopicPartition { topic: topic.as_str().into(), partition: 0 };
            watermarks.insert(topic, vec![self.log.watermarks(&place).await.unwrap().high.0 + ahead]);
        }
        let progress = SourceProgress { position: self.position(), at_micros: 1_000_000, snapshot_done, watermarks };
        let mut records = RecordBuffer::default();
        let json = serde_json::to_vec(&progress).unwrap();
        records.push(0, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
        let to = TopicPartition { topic: progress_topic(PREFIX, "shop").into(), partition: 0 };
        self.producer.append(vec![AppendBatch { to, prelude: Bytes::new(), records }], None).await.unwrap();
    }

    /// Appends bytes that are no event.
    pub(crate) async fn append_garbage(&mut self, schema: &TableSchema, bytes: usize) {
        let mut records = RecordBuffer::default();
        records.push(0, b"key", Some(|out: &mut Vec<u8>| out.resize(out.len() + bytes, b'x')));
        let to = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
        let events = AppendBatch { to, prelude: schema.to_bytes().into(), records };
        self.producer.append(vec![events], None).await.unwrap();
    }
}

pub(crate) async fn fill(source: &mut Source) {
    let [customers, invoices, lines] = schemas();
    source
        .append(
            &lines,
            Op::Create,
            &[
                vec![Value::Int(100), Value::Int(10), Value::Decimal("1.50".into())],
                vec![Value::Int(101), Value::Int(10), Value::Decimal("2.25".into())],
                vec![Value::Int(102), Value::Int(11), Value::Null],
            ],
        )
        .await;
    source
        .append(
            &invoices,
            Op::Create,
            &[
                vec![Value::Int(11), Value::Int(1), text("open")],
                vec![Value::Int(10), Value::Int(1), text("paid")],
                vec![Value::Int(12), Value::Int(1), text("draft")],
            ],
        )
        .await;
    source.append(&customers, Op::Create, &[vec![Value::Int(1), text("Ada")], vec![Value::Int(2), text("Bob")]]).await;
}

pub(crate) const ADA: &str = r#"{"id":1,"name":"Ada","invoices":[{"id":10,"status":"paid","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"},{"id":11,"status":"open","lines":[{"id":102,"amount":null}],"total":"0"}],"all":"3.75"}"#;
