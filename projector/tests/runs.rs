//! The running projector between a real log and a real store.
#![allow(clippy::unwrap_used)]

#[path = "follow_rows/flaky.rs"]
#[allow(dead_code, reason = "its documents alone are for the tests of paired engines")]
mod flaky;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions as LogOptions};
use headwater_broker::{AppendBatch, EventLog, Offset, Producer, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_projector::{
    ModelState, ProjectorHandle, ProjectorMetrics, ProjectorOptions, ProjectorStatus, ReplayFrom, start,
};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, Payload, RowBuilder, SourcePosition, SourceProgress, TableId, TableSchema,
    Value, key, progress_topic,
};
use headwater_store::embedded::{EmbeddedOptions as StoreOptions, EmbeddedStore};
use headwater_store::{DocumentReader, ProjectionStore, VersionState};
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "t";

const MODEL: &str = "
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

fn model(yaml: &str) -> ReadModel {
    parse("model.yaml", yaml, &ParseContext::default()).expect("a sound model")
}

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

fn schemas() -> [TableSchema; 3] {
    use ColumnType as T;
    [
        schema("customers", &[("id", T::Int64), ("name", T::Text)]),
        schema("invoices", &[("id", T::Int64), ("customer_id", T::Int64), ("status", T::Text)]),
        schema("lines", &[("id", T::Int64), ("invoice_id", T::Int64), ("amount", T::Decimal)]),
    ]
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A log that tests write like a connector.
struct Source {
    log: Arc<EmbeddedLog>,
    producer: Arc<dyn Producer>,
    epoch: u32,
    commit: u64,
}

impl Source {
    async fn new(folder: &std::path::Path) -> Self {
        let options =
            LogOptions { maintenance_interval: Duration::from_millis(50), ..LogOptions::new(folder.join("log")) };
        let log = EmbeddedLog::open(options).unwrap();
        let producer = log.producer("shop").await.unwrap();
        let names = schemas().map(|schema| schema.table.topic(PREFIX));
        let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: Retention::default() };
        let mut specs: Vec<TopicSpec> = names.iter().map(|name| spec(name)).collect();
        specs.push(spec(&progress_topic(PREFIX, "shop")));
        log.create_topics(&specs).await.unwrap();
        let mut source = Self { log, producer, epoch: 1, commit: 0 };
        for schema in schemas() {
            source.append(&schema, Op::Schema, &[]).await;
        }
        source
    }

    /// Appends rows (deletes: their keys) as one transaction, with progress.
    async fn append(&mut self, schema: &TableSchema, op: Op, rows: &[Vec<Value>]) {
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
            let write: Option<headwater_schemas::WriteRow<'_>> = if row.is_some() { Some(&mut write) } else { None };
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
        self.tell(true, 0).await;
    }

    /// Appends progress: all there is, and so many offsets more.
    async fn tell(&self, snapshot_done: bool, ahead: u64) {
        let mut watermarks = BTreeMap::new();
        for schema in schemas() {
            let topic = schema.table.topic(PREFIX);
            let place = TopicPartition { topic: topic.as_str().into(), partition: 0 };
            watermarks.insert(topic, vec![self.log.watermarks(&place).await.unwrap().high.0 + ahead]);
        }
        let progress = SourceProgress {
            position: SourcePosition::after_commit(self.epoch, self.commit),
            at_micros: 1_000_000,
            snapshot_done,
            watermarks,
        };
        let mut records = RecordBuffer::default();
        let json = serde_json::to_vec(&progress).unwrap();
        records.push(0, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
        let to = TopicPartition { topic: progress_topic(PREFIX, "shop").into(), partition: 0 };
        self.producer.append(vec![AppendBatch { to, prelude: Bytes::new(), records }], None).await.unwrap();
    }

    /// Appends bytes that are no event.
    async fn append_garbage(&mut self, schema: &TableSchema, bytes: usize) {
        let mut records = RecordBuffer::default();
        records.push(0, b"key", Some(|out: &mut Vec<u8>| out.resize(out.len() + bytes, b'x')));
        let to = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
        let events = AppendBatch { to, prelude: schema.to_bytes().into(), records };
        self.producer.append(vec![events], None).await.unwrap();
    }
}

struct Running {
    handle: ProjectorHandle,
    cancel: CancellationToken,
    store: Arc<EmbeddedStore>,
}

impl Running {
    fn start(source: &Source, store: Arc<EmbeddedStore>, models: Vec<ReadModel>) -> Self {
        Self::start_over(source, store.clone(), store, models)
    }

    /// Writes by way of `writer`, which keeps everything in `store`.
    fn start_over(
        source: &Source,
        store: Arc<EmbeddedStore>,
        writer: Arc<dyn ProjectionStore>,
        models: Vec<ReadModel>,
    ) -> Self {
        let cancel = CancellationToken::new();
        let mut options = ProjectorOptions::new(PREFIX, models);
        options.retired_grace = Duration::ZERO;
        let handle = start(options, source.log.clone(), writer, ProjectorMetrics::default(), cancel.clone()).unwrap();
        Self { handle, cancel, store }
    }

    async fn stop(self) -> Arc<EmbeddedStore> {
        self.cancel.cancel();
        self.handle.join().await.unwrap();
        self.store
    }

    async fn status_when(&self, what: &str, done: impl Fn(&ProjectorStatus) -> bool) -> ProjectorStatus {
        let began = Instant::now();
        loop {
            let status = self.handle.status();
            if done(&status) {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "waited for {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn document(&self, id: i64) -> Option<String> {
        let version = self.store.versions().borrow().iter().find(|it| it.state == VersionState::Active)?.id;
        let document = self.store.get(version, &key::of(headwater_schemas::ValueRef::Int(id))).await.unwrap()?;
        Some(String::from_utf8(document.body.to_vec()).unwrap())
    }

    async fn document_of(&self, model: &str, id: i64, what: &str, wanted: &str) {
        let began = Instant::now();
        let id = key::of(headwater_schemas::ValueRef::Int(id));
        loop {
            let is_it = |it: &&headwater_store::VersionRecord| it.model == model && it.state == VersionState::Active;
            let version = self.store.versions().borrow().iter().find(is_it).map(|it| it.id);
            let document = match version {
                Some(version) => self.store.get(version, &id).await.unwrap(),
                None => None,
            };
            if document.as_ref().is_some_and(|document| document.body == wanted) {
                return;
            }
            let status = self.handle.status();
            assert!(began.elapsed() < Duration::from_secs(20), "waited for {what}: {document:?} {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn document_when(&self, id: i64, what: &str, done: impl Fn(Option<&str>) -> bool) -> Option<String> {
        let began = Instant::now();
        loop {
            let document = self.document(id).await;
            if done(document.as_deref()) {
                return document;
            }
            let status = self.handle.status();
            assert!(began.elapsed() < Duration::from_secs(20), "waited for {what}: {document:?} {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn open_store(folder: &std::path::Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(StoreOptions::new(folder.join("store"))).unwrap()
}

async fn fill(source: &mut Source) {
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

const ADA: &str = r#"{"id":1,"name":"Ada","invoices":[{"id":10,"status":"paid","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"},{"id":11,"status":"open","lines":[{"id":102,"amount":null}],"total":"0"}],"all":"3.75"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_become_documents_and_follow_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    let ada = running.document_when(1, "the first document", |document| document.is_some()).await;
    assert_eq!(ada.as_deref(), Some(ADA));
    assert_eq!(running.document(2).await.as_deref(), Some(r#"{"id":2,"name":"Bob","invoices":[],"all":"0"}"#));

    let [customers, invoices, lines] = schemas();
    // An invoice moves to another customer.
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), text("paid")]]).await;
    let bob = r#"{"id":2,"name":"Bob","invoices":[{"id":10,"status":"paid","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"}],"all":"3.75"}"#;
    running.document_when(2, "the moved invoice", |document| document == Some(bob)).await;
    assert_eq!(
        running.document(1).await.as_deref(),
        Some(
            r#"{"id":1,"name":"Ada","invoices":[{"id":11,"status":"open","lines":[{"id":102,"amount":null}],"total":"0"}],"all":"0"}"#
        )
    );
    source.append(&customers, Op::Delete, &[vec![Value::Int(1)]]).await;
    running.document_when(1, "the deletion", |document| document.is_none()).await;
    source.append(&lines, Op::Truncate, &[]).await;
    running
        .document_when(2, "the truncation", |document| document.is_some_and(|it| it.contains(r#""lines":[]"#)))
        .await;

    // A restart goes on where the last commit was.
    let store = running.stop().await;
    source.append(&customers, Op::Update, &[vec![Value::Int(2), text("Rob")]]).await;
    let running = Running::start(&source, store, vec![model(MODEL)]);
    running
        .document_when(2, "the change made meanwhile", |document| document.is_some_and(|it| it.contains("Rob")))
        .await;
    let status =
        running.status_when("no lag", |it| !it.consumers.is_empty() && it.consumers.iter().all(|it| it.lag == 0)).await;
    assert_eq!(status.models[0].state, ModelState::Active);
    assert_eq!(status.models[0].documents, 1);
    assert!(status.events_total < 4, "only what is new is read: {status:#?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_and_a_changed_definition_are_built_beside_and_switched() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.document_when(1, "the first document", |document| document == Some(ADA)).await;
    let version = running.handle.replay("customer", ReplayFrom::Earliest).await.unwrap();
    assert_eq!(version, 2);
    running
        .status_when(
            "the replay",
            |it| matches!(&it.models[..], [it] if it.version_id == 2 && it.state == ModelState::Active),
        )
        .await;
    assert_eq!(running.document(1).await.as_deref(), Some(ADA));
    let error = running.handle.replay("custmer", ReplayFrom::Earliest).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `customer`?"), "{error}");

    let changed =
        MODEL.replace("fields: { id: id, name: name }", "fields: { id: id, called: name }").replace("[name,", "[");
    running.handle.reload(vec![model(&changed)]).await.unwrap();
    running
        .document_when(1, "the changed definition", |it| it.expect("one version always serves").contains("called"))
        .await;
    running.handle.reload(vec![]).await.unwrap();
    running.status_when("no model", |it| it.models.is_empty()).await;
    assert_eq!(running.document(1).await, None);
    running.stop().await;
}

/// A column that a model reads is dropped, and the projector starts again: it goes on as it did before, with nulls, and
/// says what is wrong; until the column is back.
/// The frontier says that all is read, and the connector by now that a table is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_waits_for_the_snapshot_of_a_table_that_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let flat = model("model: customer\nroot: { table: shop.customers, key: id }\nfields: { id: id, name: name }\n");
    let running = Running::start(&source, open_store(folder.path()), vec![flat]);
    let served = running.document_when(1, "the first document", |document| document.is_some()).await;
    let store = running.stop().await;
    source.tell(false, 1000).await;
    let running = Running::start(&source, store, vec![model(MODEL)]);
    let building = |it: &ProjectorStatus| it.models.iter().any(|model| model.state == ModelState::Building);
    let read = |it: &ProjectorStatus| it.consumers.len() == 4 && it.consumers.iter().all(|it| it.lag == 0);
    running.status_when("all to be read", |it| building(it) && read(it)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(building(&running.handle.status()), "some of its rows are missing");
    assert_eq!(running.document(1).await, served);
    // All are in the log, and not yet read.
    source.tell(true, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(building(&running.handle.status()), "some of its rows are still on their way");
    assert_eq!(running.document(1).await, served);
    let [customers, invoices, lines] = schemas();
    source.append(&lines, Op::Create, &[vec![Value::Int(103), Value::Int(12), Value::Null]]).await;
    source.append(&invoices, Op::Update, &[vec![Value::Int(12), Value::Int(2), text("draft")]]).await;
    source.append(&customers, Op::Update, &[vec![Value::Int(2), text("Rob")]]).await;
    running.document_when(1, "the new version", |document| document == Some(ADA)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_although_the_model_does_not_fit_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.document_when(1, "the first document", |document| document == Some(ADA)).await;
    let [customers, invoices, _] = schemas();
    let nameless = schema("customers", &[("id", ColumnType::Int64)]);
    source.append(&nameless, Op::Schema, &[]).await;
    source.append(&nameless, Op::Update, &[vec![Value::Int(2)]]).await;
    let bob = r#"{"id":2,"name":null,"invoices":[],"all":"0"}"#;
    running.document_when(2, "a null", |document| document == Some(bob)).await;

    let running = Running::start(&source, running.stop().await, vec![model(MODEL)]);
    let status = running.status_when("its problem", |it| it.models.iter().any(|it| it.problem.is_some())).await;
    let problem = status.models[0].problem.clone().unwrap();
    assert!(problem.contains("has no column `name`"), "{problem}");
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), text("paid")]]).await;
    let moved = |name: &str| {
        format!(
            r#"{{"id":2,"name":{name},"invoices":[{{"id":10,"status":"paid","lines":[{{"id":100,"amount":"1.50"}},{{"id":101,"amount":"2.25"}}],"total":"3.75"}}],"all":"3.75"}}"#
        )
    };
    let bob = moved("null");
    running.document_when(2, "the moved invoice", |document| document == Some(&bob)).await;
    let ada = r#"{"id":1,"name":"Ada","invoices":[{"id":11,"status":"open","lines":[{"id":102,"amount":null}],"total":"0"}],"all":"0"}"#;
    assert_eq!(running.document(1).await.as_deref(), Some(ada));

    source.append(&customers, Op::Schema, &[]).await;
    source.append(&customers, Op::Update, &[vec![Value::Int(2), text("Rob")]]).await;
    let rob = moved(r#""Rob""#);
    running.document_when(2, "the name", |document| document == Some(&rob)).await;
    running.status_when("no problem", |it| it.models.iter().all(|it| it.problem.is_none())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_processed_is_kept_told_and_retried() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let [customers, _, lines] = schemas();
    // The second is too large for a list of letters, the third for a letter.
    for bytes in [8, 20_000, 3 << 20] {
        source.append_garbage(&lines, bytes).await;
    }
    source.append(&customers, Op::Create, &[vec![Value::Int(3), text("not a number")]]).await;
    let cast = MODEL.replace("name: name }", "name: { column: name, cast: integer } }");
    let running = Running::start(&source, open_store(folder.path()), vec![model(&cast)]);
    let status = running.status_when("dead letters", |it| it.dead_letters >= 6).await;
    assert_eq!(status.last_error, None);
    let letters = running.handle.list_dead_letters(100).await.unwrap();
    let causes: Vec<&str> = letters.iter().map(|it| it.letter.cause.as_str()).collect();
    assert!(causes.iter().any(|cause| cause.contains("malformed change event")), "{causes:?}");
    let left_out = letters.iter().filter_map(|it| match &it.letter.payload {
        Payload::Record { value, value_bytes, .. } => Some((value.is_some(), value_bytes.map(|bytes| bytes / 1_000))),
        _ => None,
    });
    assert_eq!(left_out.collect::<Vec<_>>(), [(true, None), (false, Some(20)), (false, Some(3_145))]);
    let roots: Vec<_> = letters.iter().filter_map(|it| it.letter.root.as_deref()).collect();
    assert_eq!(roots, ["1", "2", "3"]);
    assert_eq!(running.document(3).await, None);

    source.append(&customers, Op::Update, &[vec![Value::Int(3), text("33")]]).await;
    running.document_when(3, "the mended row", |it| it.is_some_and(|it| it.contains(r#""name":33"#))).await;
    let outcome = running.handle.retry_dead_letters(None).await.unwrap();
    assert_eq!((outcome.retried, outcome.resolved, outcome.failed, outcome.skipped), (6, 1, 5, 0));
    assert_eq!(running.handle.list_dead_letters(2).await.unwrap().len(), 2);
    running.status_when("the resolved letter gone", |it| it.dead_letters == 5).await;
    let committed = source.log.committed_offsets("t.projector").await.unwrap();
    drop(committed);
    running.stop().await;
    let committed = source.log.committed_offsets("t.projector").await.unwrap();
    assert!(committed.iter().any(|(place, offset)| place.topic.ends_with("lines") && *offset > Offset(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_is_tried_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    let store = open_store(folder.path());
    let calls_left = Arc::new(AtomicI64::new(-1));
    let flaky = Arc::new(flaky::FlakyStore {
        inner: store.clone(),
        calls_left: calls_left.clone(),
        rows_max: usize::MAX,
        swept_max: u64::MAX,
    });
    let cancel = CancellationToken::new();
    let options = ProjectorOptions::new(PREFIX, vec![model(MODEL)]);
    let metrics = ProjectorMetrics::default();
    let handle = start(options, source.log.clone(), flaky, metrics.clone(), cancel.clone()).unwrap();
    let running = Running { handle, cancel, store };
    for calls in 0..12 {
        let id = 10 + calls;
        calls_left.store(3 * calls, Ordering::Relaxed);
        source.append(&schemas()[0], Op::Create, &[vec![Value::Int(id), text("Eve")]]).await;
        running.document_when(id, "the document after a failure", |it| it.is_some()).await;
        calls_left.store(-1, Ordering::Relaxed);
    }
    assert!(metrics.retries.get() >= 3, "it failed {} times", metrics.retries.get());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_a_transaction_is_folded_in_smaller_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let store = open_store(folder.path());
    let inner: Arc<dyn ProjectionStore> = store.clone();
    let one_row = flaky::FlakyStore { inner, calls_left: Arc::new(AtomicI64::new(-1)), rows_max: 1, swept_max: 1 };
    let running = Running::start_over(&source, store, Arc::new(one_row), vec![model(MODEL)]);
    running.document_when(1, "the whole document", |document| document == Some(ADA)).await;
    assert_eq!(running.handle.status().last_error, None);
    running.stop().await;
}

/// What retention removed before anybody read it is missing: documents of it are not served, and the status says why, until
/// the table has been read again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_before_it_was_read_is_not_passed_over() {
    for is_empty in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source::new(folder.path()).await;
        fill(&mut source).await;
        let [_, _, lines] = schemas();
        let place = TopicPartition { topic: lines.table.topic(PREFIX).into(), partition: 0 };
        let keep = |age_max| TopicSpec {
            name: place.topic.clone(),
            partitions: 1,
            retention: Retention { age_max, ..Retention::default() },
        };
        // The records of these tests are as old as can be.
        source.log.create_topics(&[keep(Some(Duration::from_secs(3600)))]).await.unwrap();
        let began = Instant::now();
        while source.log.watermarks(&place).await.unwrap().low.0 == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "retention removes nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        source.log.create_topics(&[keep(None)]).await.unwrap();
        if !is_empty {
            source
                .append(&lines, Op::Create, &[vec![Value::Int(102), Value::Int(11), Value::Decimal("9".into())]])
                .await;
        }

        let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
        let told = |status: &ProjectorStatus| {
            status.models.iter().any(|it| it.problem.as_ref().is_some_and(|it| it.contains("removed by retention")))
        };
        running.status_when("the problem", told).await;
        running
            .status_when("all that is left", |it| it.consumers.len() > 3 && it.consumers.iter().all(|it| it.lag == 0))
            .await;
        // Also not after a restart.
        let running = Running::start(&source, running.stop().await, vec![model(MODEL)]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(running.document(1).await, None);
        assert!(told(&running.handle.status()), "{:?}", running.handle.status());

        // The connector reads the table again, and sweeps what is older.
        (source.epoch, source.commit) = (2, 50);
        let rows = [
            vec![Value::Int(100), Value::Int(10), Value::Decimal("1.50".into())],
            vec![Value::Int(101), Value::Int(10), Value::Decimal("2.25".into())],
            vec![Value::Int(102), Value::Int(11), Value::Null],
        ];
        source.append(&lines, Op::Read, &rows).await;
        source.commit = 40;
        source.append(&lines, Op::Truncate, &[]).await;
        source.commit = 60;
        source.tell(true, 0).await;
        running.document_when(1, "the whole document", |document| document == Some(ADA)).await;
        running.status_when("no problem", |status| !told(status)).await;
        running.stop().await;
    }
}

/// Retention goes on, and a model that comes back finds what was changed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_followed_on_when_their_last_model_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let [_, invoices, lines] = schemas();
    let customers = "model: plain\nroot: { table: shop.customers, key: id }\nfields: { id: id }\n";
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL), model(customers)]);
    running.document_when(1, "the first document", |document| document == Some(ADA)).await;
    running.handle.reload(vec![model(customers)]).await.unwrap();
    running.document_when(1, "the model that is left", |document| document == Some(r#"{"id":1}"#)).await;
    source.append(&lines, Op::Delete, &[vec![Value::Int(101)]]).await;
    let store = running.stop().await;
    source.append(&invoices, Op::Delete, &[vec![Value::Int(11)]]).await;
    let running = Running::start(&source, store, vec![model(customers)]);
    let all_read = |it: &ProjectorStatus| it.consumers.len() == 4 && it.consumers.iter().all(|it| it.lag == 0);
    running.status_when("all to be read", all_read).await;
    // Whoever stops cleanly tells the log what was read: retention may remove it.
    let store = running.stop().await;
    for schema in schemas() {
        let place = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
        let read = source.log.committed_offsets("t.projector").await.unwrap();
        let end = source.log.watermarks(&place).await.unwrap().high;
        assert!(read.contains(&(place.clone(), end)), "{place} to {end:?}: {read:?}");
    }
    let running = Running::start(&source, store, vec![model(MODEL), model(customers)]);
    let left = r#"{"id":1,"name":"Ada","invoices":[{"id":10,"status":"paid","lines":[{"id":100,"amount":"1.50"}],"total":"1.50"}],"all":"1.50"}"#;
    running.document_of("customer", 1, "the model that came back", left).await;
    running.stop().await;
}
