//! The running worker of a shared projection between a real log and a real MongoDB.
#![allow(clippy::unwrap_used)]

#[path = "shared_runs/group_log.rs"]
mod group_log;
#[path = "runs/source.rs"]
#[allow(dead_code, reason = "some of it is for the projector that works alone")]
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use group_log::GroupLog;
use headwater_broker::EventLog;
use headwater_projector::{
    ModelState, ModelStatus, ProjectorHandle, ProjectorMetrics, ProjectorOptions, ProjectorStatus, WorkerOptions,
    start_shared,
};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{ColumnType, Op, SourcePosition, Value, ValueRef, key};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoRows};
use headwater_store::{DocumentReader, Error, RowStore, RowTransaction, VersionId};
use headwater_test_servers::Mongo;
use source::{ADA, MODEL, PREFIX, Source, fill, model, schema, schemas, text};
use tokio_util::sync::CancellationToken;

/// Partitions of the tables, each of one, and those of dirty roots.
const PLACES: usize = 3 + 2;

struct Running {
    handle: ProjectorHandle,
    cancel: CancellationToken,
    documents: Arc<MongoDocuments>,
}

impl Running {
    async fn start(source: &Source, options: &MongoOptions, models: Vec<ReadModel>) -> Self {
        let rows = MongoRows::open(options.clone()).await.unwrap();
        Self::start_with(source.log.clone(), rows, options, models).await
    }

    async fn start_with(
        log: Arc<dyn EventLog>,
        rows: Arc<dyn RowStore>,
        options: &MongoOptions,
        models: Vec<ReadModel>,
    ) -> Self {
        let documents = MongoDocuments::open(options.clone()).await.unwrap();
        let (metrics, cancel) = (ProjectorMetrics::default(), CancellationToken::new());
        let projector = ProjectorOptions::new(PREFIX, models);
        let worker = WorkerOptions { dirty_partitions: 2 };
        let handle = start_shared(projector, worker, log, rows, documents.clone(), metrics, cancel.clone()).unwrap();
        Self { handle, cancel, documents }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.handle.join().await.unwrap();
    }

    async fn status_when(&self, what: &str, done: impl Fn(&ProjectorStatus) -> bool) {
        let began = Instant::now();
        while !done(&self.handle.status()) {
            assert!(began.elapsed() < Duration::from_secs(60), "waited for {what}: {:#?}", self.handle.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a document of a model.
    async fn document_of(&self, model: &str, id: i64, wanted: &str) {
        let began = Instant::now();
        loop {
            let status = self.handle.status();
            let is_it = |it: &&ModelStatus| it.model == model && it.state == ModelState::Active;
            let document = match status.models.iter().find(is_it) {
                Some(it) => {
                    self.documents.reader().get(VersionId(it.version_id), &key::of(ValueRef::Int(id))).await.unwrap()
                }
                None => None,
            };
            if document.as_ref().is_some_and(|document| document.body == wanted) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "waited for {wanted}: {document:?} {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the source is projected so far.
    async fn frontier_when(&self, is_it: impl Fn(SourcePosition) -> bool) {
        let mut frontiers = self.documents.reader().frontiers();
        let done = frontiers.wait_for(|it| it.get("shop").is_some_and(|frontier| is_it(frontier.position)));
        tokio::time::timeout(Duration::from_secs(30), done).await.expect("the frontier").unwrap();
    }

    /// The document of a version that serves.
    async fn document(&self, id: i64) -> Option<String> {
        let status = self.handle.status();
        let version = status.models.iter().find(|it| it.state == ModelState::Active)?.version_id;
        let document = self.documents.reader().get(VersionId(version), &key::of(ValueRef::Int(id))).await.unwrap()?;
        Some(String::from_utf8(document.body.to_vec()).unwrap())
    }
}

/// Rows that cannot be reached for a while.
struct Unreachable {
    inner: Arc<MongoRows>,
    is_away: AtomicBool,
}

impl RowStore for Unreachable {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(Error::Unreachable {
                place: "test".into(),
                action: "begin",
                source: "of the test's making".into(),
            });
        }
        self.inner.begin()
    }
}

fn is_told(status: &ProjectorStatus) -> bool {
    status.models.iter().any(|it| it.problem.as_ref().is_some_and(|it| it.contains("removed by retention")))
}

fn is_all_read(status: &ProjectorStatus) -> bool {
    status.consumers.len() == PLACES && status.consumers.iter().all(|it| it.lag == 0)
}

fn is_served(status: &ProjectorStatus) -> bool {
    status.models.iter().all(|it| it.state == ModelState::Active)
}

/// The lines that a document is made of.
fn all_lines() -> [Vec<Value>; 3] {
    [
        vec![Value::Int(100), Value::Int(10), Value::Decimal("1.50".into())],
        vec![Value::Int(101), Value::Int(10), Value::Decimal("2.25".into())],
        vec![Value::Int(102), Value::Int(11), Value::Null],
    ]
}

/// What retention removed before any worker read it is missing: documents of it are not served, and the status of whoever
/// works, now or later, says why, until the table has been read again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_before_it_was_read_is_not_passed_over_where_rows_are_shared() {
    let server = Mongo::start();
    for is_empty in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source::new(folder.path()).await;
        fill(&mut source).await;
        let [_, _, lines] = schemas();
        source.forget(&lines).await;
        if !is_empty {
            source.append(&lines, Op::Create, &[vec![Value::Int(102), Value::Int(11), Value::Null]]).await;
        }

        let database = if is_empty { "empty" } else { "some" };
        let options = MongoOptions { shared: true, ..MongoOptions::new(server.url(), database) };
        let running = Running::start(&source, &options, vec![model(MODEL)]).await;
        running.status_when("the problem", is_told).await;
        running.status_when("all that is left", is_all_read).await;
        running.stop().await;
        // Another worker takes the place over, and leads.
        let running = Running::start(&source, &options, vec![model(MODEL)]).await;
        running.status_when("all that is left", is_all_read).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(running.document(1).await, None);
        assert!(is_told(&running.handle.status()), "{:#?}", running.handle.status());

        source.read_again(&lines, &all_lines()).await;
        running.status_when("it to be served", is_served).await;
        assert!(!is_told(&running.handle.status()), "{:#?}", running.handle.status());
        assert_eq!(running.document(1).await.as_deref(), Some(ADA));
        running.stop().await;
    }
}

/// A table that no model reads and that was not read for too long is left out. A model that wants it again waits until it has
/// been read again; nothing stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_left_out_is_taken_up_when_a_model_wants_it_again() {
    const PLAIN: &str = "model: plain\nroot: { table: shop.customers, key: id }\nfields: { id: id }\n";
    let (server, folder) = (Mongo::start(), tempfile::tempdir().unwrap());
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let options = MongoOptions { shared: true, ..MongoOptions::new(server.url(), "left_out") };
    let both = || vec![model(MODEL), model(PLAIN)];
    let running = Running::start(&source, &options, both()).await;
    running.status_when("both models", |it| it.models.len() == 2 && is_served(it)).await;
    running.handle.reload(vec![model(PLAIN)]).await.unwrap();
    running.status_when("one model", |it| it.models.len() == 1).await;
    running.stop().await;

    let [_, _, lines] = schemas();
    source.append(&lines, Op::Delete, &[vec![Value::Int(101)]]).await;
    source.forget(&lines).await;
    let running = Running::start(&source, &options, vec![model(PLAIN)]).await;
    running
        .status_when("all but the lines", |it| {
            it.consumers.len() == PLACES - 1
                && it.consumers.iter().all(|it| it.lag == 0 && !it.topic.ends_with("lines"))
        })
        .await;

    running.handle.reload(both()).await.unwrap();
    running.status_when("the problem", is_told).await;
    running.status_when("the lines", |it| it.consumers.iter().any(|it| it.topic.ends_with("lines"))).await;
    assert_eq!(running.document(2).await.as_deref(), Some(r#"{"id":2}"#), "of the model that served all along");
    source.read_again(&lines, &all_lines()).await;
    running.status_when("both models again", |it| it.models.len() == 2 && is_served(it)).await;
    assert!(!is_told(&running.handle.status()), "{:#?}", running.handle.status());
    assert_eq!(running.document(1).await.as_deref(), Some(ADA));
    running.stop().await;
}

/// As where a projector works alone; and the workers go on with what they have of other models.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_its_tables_stays_as_it_is_where_rows_are_shared() {
    const PLAIN: &str = "model: plain\nroot: { table: shop.invoices, key: id }\nfields: { status: status }\n";
    let (server, folder) = (Mongo::start(), tempfile::tempdir().unwrap());
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let options = MongoOptions { shared: true, ..MongoOptions::new(server.url(), "frozen") };
    let models = || vec![model(MODEL), model(PLAIN)];
    let is_read = |it: &ProjectorStatus| it.consumers.len() == PLACES + 2 && it.consumers.iter().all(|it| it.lag == 0);
    let running = Running::start(&source, &options, models()).await;
    running.status_when("both models", |it| it.models.len() == 2 && is_served(it) && is_read(it)).await;
    running.document_of("customer", 1, ADA).await;
    running.frontier_when(|at| at == source.position()).await;
    let frontier = source.position();

    let [customers, invoices, _] = schemas();
    let nameless = schema("customers", &[("id", ColumnType::Int64)]);
    source.append(&nameless, Op::Schema, &[]).await;
    source.append(&nameless, Op::Update, &[vec![Value::Int(2)]]).await;
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), text("open")]]).await;
    let is_told = |it: &ProjectorStatus| {
        let mut problems = it.models.iter().filter_map(|it| it.problem.as_ref());
        problems.any(|it| it.contains("no column `name`") && it.contains("change the model's definition"))
    };
    let bob = r#"{"id":2,"name":"Bob","invoices":[],"all":"0"}"#;
    let is_as_before = async |running: &Running| {
        running.document_of("plain", 10, r#"{"status":"open"}"#).await;
        running.status_when("the problem", |it| is_told(it) && is_read(it)).await;
        running.document_of("customer", 1, ADA).await;
        running.document_of("customer", 2, bob).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.frontier_when(|at| at == frontier).await;
    };
    is_as_before(&running).await;
    running.stop().await;
    let running = Running::start(&source, &options, models()).await;
    source.append(&nameless, Op::Create, &[vec![Value::Int(3)]]).await;
    is_as_before(&running).await;

    let all = [vec![Value::Int(1), text("Ada")], vec![Value::Int(2), text("Rob")], vec![Value::Int(3), text("Cyd")]];
    source.read_again(&customers, &all).await;
    let rob = r#"{"id":2,"name":"Rob","invoices":[{"id":10,"status":"open","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"}],"all":"3.75"}"#;
    running.document_of("customer", 2, rob).await;
    running.document_of("customer", 3, r#"{"id":3,"name":"Cyd","invoices":[],"all":"0"}"#).await;
    running.frontier_when(|at| at > frontier).await;
    running
        .status_when("no problem", |it| it.models.len() == 2 && it.models.iter().all(|it| it.problem.is_none()))
        .await;
    running.stop().await;
}

/// Whoever may make the topic reads in the status of any worker which one, and nothing else waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_made_is_told_by_all_workers() {
    const PLAIN: &str = "model: plain\nroot: { table: shop.customers, key: id }\nfields: { id: id }\n";
    let (server, folder) = (Mongo::start(), tempfile::tempdir().unwrap());
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let options = MongoOptions { shared: true, ..MongoOptions::new(server.url(), "refused") };
    let log = GroupLog::new(source.log.clone());
    *log.refused.lock() = Some("dirty.plain");
    let both = || vec![model(PLAIN), model(MODEL)];
    let rows = async || MongoRows::open(options.clone()).await.unwrap();
    let leader = Running::start_with(log.clone(), rows().await, &options, both()).await;
    let is_told = |it: &ProjectorStatus| {
        let plain = it.models.iter().find(|it| it.model == "plain");
        plain.and_then(|it| it.problem.as_ref()).is_some_and(|it| it.contains("run: make-topic"))
    };
    let serves =
        |it: &ProjectorStatus| it.models.iter().any(|it| it.model == "customer" && it.state == ModelState::Active);
    leader.status_when("the problem, and the other model", |it| is_told(it) && serves(it)).await;
    let other = Running::start_with(log.clone(), rows().await, &options, both()).await;
    other.status_when("the same of another worker", |it| is_told(it) && serves(it)).await;
    *log.refused.lock() = None;
    for worker in [&leader, &other] {
        worker.status_when("both", |it| it.models.len() == 2 && is_served(it) && !is_told(it)).await;
    }
    other.stop().await;
    leader.stop().await;
}

/// A worker that reaches the log and not the rows leaves its partitions to the others, and comes back when it reaches them.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_rows_do_not_answer_leaves_its_share_to_others() {
    let (server, folder) = (Mongo::start(), tempfile::tempdir().unwrap());
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let options = MongoOptions { shared: true, ..MongoOptions::new(server.url(), "away") };
    let log = GroupLog::new(source.log.clone());
    let rows = async || MongoRows::open(options.clone()).await.unwrap();
    let flaky = Arc::new(Unreachable { inner: rows().await, is_away: AtomicBool::new(false) });
    let sick = Running::start_with(log.clone(), flaky.clone(), &options, vec![model(MODEL)]).await;
    sick.status_when("it to be served", |it| !it.models.is_empty() && is_served(it)).await;
    let well = Running::start_with(log.clone(), rows().await, &options, vec![model(MODEL)]).await;
    sick.status_when("a part of the partitions", |it| !it.consumers.is_empty() && it.consumers.len() < PLACES).await;
    well.status_when("the other part", |it| !it.consumers.is_empty()).await;

    flaky.is_away.store(true, Ordering::Relaxed);
    let [customers, invoices, lines] = schemas();
    source.append(&customers, Op::Update, &[vec![Value::Int(1), text("Ada King")]]).await;
    source.append(&invoices, Op::Update, &[vec![Value::Int(11), Value::Int(1), text("paid")]]).await;
    let line = vec![Value::Int(102), Value::Int(11), Value::Decimal("4.00".into())];
    source.append(&lines, Op::Update, &[line]).await;
    let names = ["Ada King", r#"{"id":11,"status":"paid""#, "4.00"];
    let began = Instant::now();
    loop {
        let document = well.document(1).await.unwrap_or_default();
        if names.iter().all(|name| document.contains(name)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{document}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    well.status_when("all partitions", is_all_read).await;
    assert!(sick.handle.status().last_error.is_some());

    flaky.is_away.store(false, Ordering::Relaxed);
    well.status_when("one that shares", |it| it.consumers.len() < PLACES).await;
    sick.stop().await;
    well.stop().await;
}
