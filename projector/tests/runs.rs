//! The running projector between a real log and a real store.
#![allow(clippy::unwrap_used)]

#[path = "follow_rows/flaky.rs"]
#[allow(dead_code, reason = "its documents alone are for the tests of paired engines")]
mod flaky;
#[path = "runs/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::{AppendBatch, EventLog, Offset, RecordBuffer, TopicPartition, TopicSpec};
use headwater_projector::{
    Fold, FoldOptions, ModelState, ProjectorHandle, ProjectorMetrics, ProjectorOptions, ProjectorStatus, ReplayFrom,
    ReplayPart, start,
};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{ColumnType, Op, Payload, SourcePosition, Value, dead_letter_topic, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{DocumentReader, ProjectionStore, VersionRecord, VersionState};
use source::{ADA, MODEL, PREFIX, Source, fill, model, schema, schemas, text};
use tokio_util::sync::CancellationToken;

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
            assert!(began.elapsed() < Duration::from_secs(60), "waited for {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How far the source is projected, as readers are told.
    fn frontier(&self) -> SourcePosition {
        self.store.frontiers().borrow()["shop"].position
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
            assert!(began.elapsed() < Duration::from_secs(60), "waited for {what}: {document:?} {status:#?}");
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
            assert!(began.elapsed() < Duration::from_secs(60), "waited for {what}: {document:?} {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether all that the log has of the tables is folded.
fn is_read(status: &ProjectorStatus) -> bool {
    status.consumers.len() == 4 && status.consumers.iter().all(|it| it.lag == 0)
}

fn open_store(folder: &std::path::Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedOptions::new(folder.join("store"))).unwrap()
}

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
    // Nor does it silently begin elsewhere.
    let beyond = BTreeMap::from([("t.shop.public.lines".to_owned(), 1_000)]);
    let error = running.handle.replay("customer", ReplayFrom::Offsets(beyond)).await.unwrap_err();
    assert!(error.to_string().contains("offset 1000 is behind the end"), "{error}");

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

/// Retention removes what a replay is about to read. It goes on with what is left, and that is not what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_retention_overtakes_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.document_when(1, "the first document", |document| document == Some(ADA)).await;
    let store = running.stop().await;
    let topic = "t.shop.public.lines";
    let end = source.log.watermarks(&TopicPartition { topic: topic.into(), partition: 0 }).await.unwrap().high.0;
    {
        let writer: Arc<dyn ProjectionStore> = store.clone();
        let mut fold =
            Fold::open(writer, &[model(MODEL)], FoldOptions { prefix: PREFIX.into(), ..FoldOptions::default() })
                .unwrap();
        let part = ReplayPart { topic: topic.to_owned(), partition: 0, next: 0, end };
        fold.begin_replay("customer", vec![part]).unwrap();
    }
    source.forget_topic(topic).await;
    let is_told = |it: &ProjectorStatus| matches!(&it.models[..], [it] if it.version_id == 2 && it.state == ModelState::Active && it.replay_missed == end);
    let running = Running::start(&source, store, vec![model(MODEL)]);
    running.status_when("the end of the replay", is_told).await;
    assert_eq!(running.document(1).await.as_deref(), Some(ADA));
    let running = Running::start(&source, running.stop().await, vec![model(MODEL)]);
    running.status_when("the same after a restart", is_told).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_model_that_is_being_built_is_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    source.tell(false, 0).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.status_when("a first version", |it| it.models.iter().any(|it| it.state == ModelState::Building)).await;
    let error = running.handle.replay("customer", ReplayFrom::Earliest).await.unwrap_err();
    assert!(error.to_string().contains("is being built already"), "{error}");
    running.stop().await;
}

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
    running.status_when("all to be read", |it| building(it) && is_read(it)).await;
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

/// A column that a model reads is dropped, and comes back: what the rows hold in it is not known for a while. Nothing of the
/// model is served that is made of less than its definition says, and nobody is told that it is newer than it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_its_tables_stays_as_it_is_until_it_fits_again() {
    const PLAIN: &str = "model: plain\nroot: { table: shop.invoices, key: id }\nfields: { status: status }\n";
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let models = || vec![model(MODEL), model(PLAIN)];
    let running = Running::start(&source, open_store(folder.path()), models());
    running.document_of("customer", 1, "the first document", ADA).await;
    running.document_of("plain", 10, "the other model", r#"{"status":"paid"}"#).await;
    running.status_when("all to be read", is_read).await;
    let frontier = source.position();
    assert_eq!(running.frontier(), frontier);

    let [customers, invoices, _] = schemas();
    let nameless = schema("customers", &[("id", ColumnType::Int64)]);
    source.append(&nameless, Op::Schema, &[]).await;
    source.append(&nameless, Op::Update, &[vec![Value::Int(2)]]).await;
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), text("open")]]).await;
    let bob = r#"{"id":2,"name":"Bob","invoices":[],"all":"0"}"#;
    let is_as_before = async |running: &Running| {
        running.document_of("plain", 10, "a change of the other model", r#"{"status":"open"}"#).await;
        let problem =
            |it: &ProjectorStatus| it.models.iter().find(|it| it.model == "customer").and_then(|it| it.problem.clone());
        let status = running.status_when("the problem", |it| is_read(it) && problem(it).is_some()).await;
        let problem = problem(&status).unwrap();
        for said in
            ["shop.public.customers", "no column `name`", "change the model's definition", "give the table back"]
        {
            assert!(problem.contains(said), "{problem}");
        }
        running.document_of("customer", 1, "the document of before", ADA).await;
        running.document_of("customer", 2, "the document of before", bob).await;
        assert_eq!(running.frontier(), frontier, "documents are as old as they were");
    };
    is_as_before(&running).await;
    let running = Running::start(&source, running.stop().await, models());
    source.append(&nameless, Op::Create, &[vec![Value::Int(3)]]).await;
    is_as_before(&running).await;

    // The column is back, and the table is about to be read again: what is there of it by now lacks names.
    source.tells = false;
    source.append(&customers, Op::Update, &[vec![Value::Int(2), text("Rob")]]).await;
    running.status_when("all to be read", is_read).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.document_of("customer", 2, "the document of before", bob).await;
    assert_eq!(running.frontier(), frontier);
    source.tells = true;
    let all = [vec![Value::Int(1), text("Ada")], vec![Value::Int(2), text("Rob")], vec![Value::Int(3), text("Cyd")]];
    source.read_again(&customers, &all).await;
    let rob = r#"{"id":2,"name":"Rob","invoices":[{"id":10,"status":"open","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"}],"all":"3.75"}"#;
    running.document_of("customer", 2, "the new version", rob).await;
    running.document_of("customer", 3, "the new customer", r#"{"id":3,"name":"Cyd","invoices":[],"all":"0"}"#).await;
    let status = running.status_when("no problem", |it| it.models.iter().all(|it| it.problem.is_none())).await;
    assert_eq!(status.models.len(), 2, "{status:#?}");
    let began = Instant::now();
    while running.frontier() <= frontier {
        assert!(began.elapsed() < Duration::from_secs(60), "the frontier does not go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await;
}

/// A column gets another name, the definition too: the new version is built beside what is served, and of all rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_follows_the_tables_is_built_beside_what_stayed_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.document_of("customer", 1, "the first document", ADA).await;
    running.status_when("all to be read", is_read).await;
    let frontier = running.frontier();
    let renamed = schema("customers", &[("id", ColumnType::Int64), ("called", ColumnType::Text)]);
    source.read_again(&renamed, &[vec![Value::Int(1), text("Ada")], vec![Value::Int(2), text("Rob")]]).await;
    running.status_when("the problem", |it| is_read(it) && it.models[0].problem.is_some()).await;
    running.document_of("customer", 1, "the document of before", ADA).await;
    assert_eq!(running.frontier(), frontier);

    let changed = MODEL.replace("name: name }", "name: called }");
    running.handle.reload(vec![model(&changed)]).await.unwrap();
    running.document_of("customer", 2, "the new version", r#"{"id":2,"name":"Rob","invoices":[],"all":"0"}"#).await;
    running.document_of("customer", 1, "the new version", ADA).await;
    let status = running.status_when("no problem", |it| it.models.iter().all(|it| it.problem.is_none())).await;
    assert_eq!(status.models.len(), 1, "{status:#?}");
    assert!(running.frontier() > frontier);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_condition_leaves_out_stays_so_when_its_column_gets_a_type_that_it_does_not_fit() {
    const LIVE: &str = "
model: customer
root: { table: shop.customers, key: id, where: { deleted: { ne: true } } }
fields: [id]
nest:
  invoices: { many: shop.invoices, on: { customer_id: id }, where: { void: { ne: true } }, fields: [id] }
";
    use ColumnType as T;
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    let customers = |kind: T| schema("customers", &[("id", T::Int64), ("deleted", kind)]);
    let invoices = |kind: T| schema("invoices", &[("id", T::Int64), ("customer_id", T::Int64), ("void", kind)]);
    let customer = |id, deleted| vec![Value::Int(id), deleted];
    let invoice = |id, void| vec![Value::Int(id), Value::Int(1), void];
    let (no, yes) = (Value::Bool(false), Value::Bool(true));
    source.append(&invoices(T::Bool), Op::Schema, &[]).await;
    source.append(&invoices(T::Bool), Op::Create, &[invoice(10, no.clone()), invoice(11, yes.clone())]).await;
    source.append(&customers(T::Bool), Op::Schema, &[]).await;
    source.append(&customers(T::Bool), Op::Create, &[customer(1, no), customer(2, yes)]).await;
    let running = Running::start(&source, open_store(folder.path()), vec![model(LIVE)]);
    let ada = r#"{"id":1,"invoices":[{"id":10}]}"#;
    running.document_when(1, "the first document", |document| document == Some(ada)).await;
    assert_eq!(running.document(2).await, None);

    let (no, yes) = (Value::Int(0), Value::Int(1));
    source.append(&invoices(T::Int64), Op::Schema, &[]).await;
    source.read_again(&invoices(T::Int64), &[invoice(10, no.clone()), invoice(11, yes.clone())]).await;
    let has = |words: [&str; 2], status: &ProjectorStatus| {
        let problem = status.models[0].problem.as_deref().unwrap_or_default();
        words.iter().all(|word| problem.contains(word))
    };
    running.status_when("its problem", |it| has(["condition of `invoices`", "invoices.void"], it)).await;
    source.append(&customers(T::Int64), Op::Schema, &[]).await;
    source.append(&customers(T::Int64), Op::Update, &[customer(2, yes)]).await;
    running.status_when("its problem", |it| has(["condition of `root`", "customers.deleted"], it)).await;
    assert_eq!(running.document(1).await.as_deref(), Some(ada), "without the void invoice");
    assert_eq!(running.document(2).await, None, "a deleted customer");

    source.append(&customers(T::Int64), Op::Update, &[customer(1, no)]).await;
    let mended = LIVE.replace("{ ne: true }", "{ ne: 1 }");
    let running = Running::start(&source, running.stop().await, vec![model(&mended)]);
    running.document_when(1, "the mended document", |document| document == Some(ada)).await;
    assert_eq!(running.document(2).await, None);
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

/// Its letters would push out those of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_fails_with_each_change_has_one_letter() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let customers = &schemas()[0];
    let cast = MODEL.replace("name: name }", "name: { column: name, cast: integer } }");
    let running = Running::start(&source, open_store(folder.path()), vec![model(&cast)]);
    let roots = async || {
        let letters = running.handle.list_dead_letters(100).await.unwrap();
        letters.into_iter().map(|it| it.letter.root.unwrap()).collect::<Vec<_>>()
    };
    running.status_when("their letters", |it| it.dead_letters == 2).await;
    for n in 0..20 {
        let before = running.handle.status().events_total;
        source.append(customers, Op::Update, &[vec![Value::Int(1), text(&format!("no {n}"))]]).await;
        running.status_when("the change", |it| it.events_total > before).await;
    }
    assert_eq!(roots().await, ["1", "2"]);

    source.append(customers, Op::Update, &[vec![Value::Int(1), text("11")]]).await;
    running.document_when(1, "the mended row", |it| it.is_some_and(|it| it.contains(r#""name":11"#))).await;
    let outcome = running.handle.retry_dead_letters(None).await.unwrap();
    assert_eq!((outcome.retried, outcome.resolved), (2, 1));
    assert_eq!(roots().await, ["2"]);
    // That letter is done with, so that this is another one.
    source.append(customers, Op::Update, &[vec![Value::Int(1), text("no")]]).await;
    running.status_when("its letter", |it| it.dead_letters == 2).await;
    assert_eq!(roots().await, ["2", "1"]);
    running.stop().await;
}

/// The note of them is read whole, and written anew, with every retry.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_resolved_letters_is_little() {
    const NOTE: &str = "dead_letters/resolved";
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    // Three that were resolved, and that retention has removed since.
    let letters = TopicPartition { topic: dead_letter_topic(PREFIX).into(), partition: 0 };
    source.log.create_topics(&[TopicSpec::dead_letters(letters.topic.clone())]).await.unwrap();
    let mut records = RecordBuffer::default();
    for _ in 0..3 {
        records.push(0, &[], Some(|out: &mut Vec<u8>| out.push(b'x')));
    }
    source.log.append(vec![AppendBatch { to: letters.clone(), prelude: Bytes::new(), records }]).await.unwrap();
    source.forget_topic(&letters.topic).await;
    let first = source.log.watermarks(&letters).await.unwrap().low.0;
    assert_eq!(first, 3);
    let store = open_store(folder.path());
    let mut batch = ProjectionStore::begin(&*store).unwrap();
    batch.set_note(NOTE, Some(b"[0,1,2]")).unwrap();
    batch.commit().unwrap();

    let cast = MODEL.replace("name: name }", "name: { column: name, cast: integer } }");
    let running = Running::start(&source, store, vec![model(&cast)]);
    running.status_when("their letters", |it| it.dead_letters == 2).await;
    let mended = [vec![Value::Int(1), text("11")], vec![Value::Int(2), text("22")]];
    source.append(&schemas()[0], Op::Update, &mended).await;
    running.document_when(2, "the mended row", |it| it.is_some_and(|it| it.contains(r#""name":22"#))).await;
    let outcome = running.handle.retry_dead_letters(None).await.unwrap();
    assert_eq!((outcome.retried, outcome.resolved), (2, 2));
    running.status_when("no letters", |it| it.dead_letters == 0).await;
    assert!(running.handle.list_dead_letters(10).await.unwrap().is_empty());
    let store = running.stop().await;
    let note = ProjectionStore::begin(&*store).unwrap().note(NOTE).unwrap().unwrap();
    assert_eq!(String::from_utf8(note).unwrap(), "[[3,4]]");
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
        source.forget(&lines).await;
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
        let rows = [
            vec![Value::Int(100), Value::Int(10), Value::Decimal("1.50".into())],
            vec![Value::Int(101), Value::Int(10), Value::Decimal("2.25".into())],
            vec![Value::Int(102), Value::Int(11), Value::Null],
        ];
        source.read_again(&lines, &rows).await;
        running.document_when(1, "the whole document", |document| document == Some(ADA)).await;
        running.status_when("no problem", |status| !told(status)).await;
        running.stop().await;
    }
}

/// Not only once the projector has told what it read: by then much may have come and gone.
#[tokio::test(flavor = "multi_thread")]
async fn retention_waits_for_a_projector_from_its_first_look_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let places = schemas().map(|schema| TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 });
    // A store that was removed since had read this.
    let end = source.log.watermarks(&places[0]).await.unwrap().high;
    source.log.commit_offsets("t.projector", &[(places[0].clone(), end)]).await.unwrap();
    let running = Running::start(&source, open_store(folder.path()), vec![model(MODEL)]);
    running.status_when("the tables", |it| it.consumers.len() == 4).await;
    let committed = source.log.committed_offsets("t.projector").await.unwrap();
    for place in places {
        assert!(committed.contains(&(place.clone(), Offset(0))), "{place}: {committed:?}");
    }
    running.stop().await;
}

/// Those of all projectors of a prefix lie in one topic.
#[tokio::test(flavor = "multi_thread")]
async fn letters_about_models_of_another_projector_are_left_to_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    // No name is a number.
    let impossible = |name: &str| {
        model(&format!(
            "model: {name}\nroot: {{ table: shop.customers, key: id }}\n\
             fields: {{ id: id, name: {{ column: name, cast: integer }} }}\n"
        ))
    };
    let running = Running::start(&source, open_store(folder.path()), vec![impossible("one")]);
    running.status_when("the letters of one", |it| it.dead_letters == 2).await;
    running.stop().await;
    let running = Running::start(&source, open_store(other.path()), vec![impossible("two")]);
    running.status_when("those of the other", |it| it.dead_letters == 4).await;
    let outcome = running.handle.retry_dead_letters(None).await.unwrap();
    assert_eq!((outcome.retried, outcome.resolved, outcome.failed, outcome.elsewhere), (2, 0, 2, 2));
    let listed = running.handle.list_dead_letters(10).await.unwrap();
    assert_eq!(listed.len(), 4);
    // One that is named is done with, for example where its model is gone.
    let outcome = running.handle.retry_dead_letters(Some(vec![listed[0].offset])).await.unwrap();
    assert_eq!((outcome.resolved, outcome.elsewhere), (1, 0));
    running.stop().await;
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

/// Nothing waited for what was followed on without a model, and it may be far behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_comes_back_waits_for_all_that_its_tables_have_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let [_, _, lines] = schemas();
    let customers = "model: plain\nroot: { table: shop.customers, key: id }\nfields: { id: id }\n";
    let (store, cancel) = (open_store(folder.path()), CancellationToken::new());
    let mut options = ProjectorOptions::new(PREFIX, vec![model(MODEL), model(customers)]);
    // One append after the other.
    options.batch_bytes_max = 1;
    let metrics = ProjectorMetrics::default();
    let handle = start(options, source.log.clone(), store.clone(), metrics, cancel.clone()).unwrap();
    let running = Running { handle, cancel, store };
    running.document_of("customer", 1, "the first document", ADA).await;
    running.handle.reload(vec![model(customers)]).await.unwrap();

    // Meanwhile the projector cannot write.
    let held = ProjectionStore::begin(&*running.store).unwrap();
    for amount in 1..=200 {
        let line = vec![Value::Int(100), Value::Int(10), Value::Decimal(amount.to_string())];
        source.append(&lines, Op::Update, &[line]).await;
    }
    let handle = running.handle.clone();
    let reloaded = tokio::spawn(async move { handle.reload(vec![model(MODEL), model(customers)]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(held);
    reloaded.await.unwrap().unwrap();
    let is_it = |it: &VersionRecord| it.model == "customer" && it.state == VersionState::Active;
    let mut versions = running.store.versions();
    let served = versions.wait_for(|versions| versions.iter().any(is_it));
    let served = tokio::time::timeout(Duration::from_secs(20), served).await.unwrap().unwrap().clone();
    let version = served.iter().find(|it| is_it(it)).unwrap().id;
    let ada = running.store.get(version, &key::of(headwater_schemas::ValueRef::Int(1))).await.unwrap().unwrap();
    let ada = String::from_utf8_lossy(&ada.body);
    assert!(ada.contains(r#"{"id":100,"amount":"200"}"#), "{ada}");
    running.stop().await;
}
