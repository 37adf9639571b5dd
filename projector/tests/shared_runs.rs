//! The running worker of a shared projection between a real log and a real MongoDB.
#![allow(clippy::unwrap_used)]

#[path = "runs/source.rs"]
#[allow(dead_code, reason = "some of it is for the projector that works alone")]
mod source;

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_projector::{
    ModelState, ProjectorHandle, ProjectorMetrics, ProjectorOptions, ProjectorStatus, WorkerOptions, start_shared,
};
use headwater_schemas::{Op, Value, ValueRef, key};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoRows};
use headwater_store::{DocumentReader, VersionId};
use headwater_test_servers::Mongo;
use source::{ADA, MODEL, PREFIX, Source, fill, model, schemas};
use tokio_util::sync::CancellationToken;

/// Partitions of the tables, each of one, and those of dirty roots.
const PLACES: usize = 3 + 2;

struct Running {
    handle: ProjectorHandle,
    cancel: CancellationToken,
    documents: Arc<MongoDocuments>,
}

impl Running {
    async fn start(source: &Source, options: &MongoOptions) -> Self {
        let rows = MongoRows::open(options.clone()).await.unwrap();
        let documents = MongoDocuments::open(options.clone()).await.unwrap();
        let (log, metrics, cancel) = (source.log.clone(), ProjectorMetrics::default(), CancellationToken::new());
        let projector = ProjectorOptions::new(PREFIX, vec![model(MODEL)]);
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
            assert!(began.elapsed() < Duration::from_secs(30), "waited for {what}: {:#?}", self.handle.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The document of a version that serves.
    async fn document(&self, id: i64) -> Option<String> {
        let status = self.handle.status();
        let version = status.models.iter().find(|it| it.state == ModelState::Active)?.version_id;
        let document = self.documents.reader().get(VersionId(version), &key::of(ValueRef::Int(id))).await.unwrap()?;
        Some(String::from_utf8(document.body.to_vec()).unwrap())
    }
}

fn is_told(status: &ProjectorStatus) -> bool {
    status.models.iter().any(|it| it.problem.as_ref().is_some_and(|it| it.contains("removed by retention")))
}

fn is_all_read(status: &ProjectorStatus) -> bool {
    status.consumers.len() == PLACES && status.consumers.iter().all(|it| it.lag == 0)
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
        let running = Running::start(&source, &options).await;
        running.status_when("the problem", is_told).await;
        running.status_when("all that is left", is_all_read).await;
        running.stop().await;
        // Another worker takes the place over, and leads.
        let running = Running::start(&source, &options).await;
        running.status_when("all that is left", is_all_read).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(running.document(1).await, None);
        assert!(is_told(&running.handle.status()), "{:#?}", running.handle.status());

        let rows = [
            vec![Value::Int(100), Value::Int(10), Value::Decimal("1.50".into())],
            vec![Value::Int(101), Value::Int(10), Value::Decimal("2.25".into())],
            vec![Value::Int(102), Value::Int(11), Value::Null],
        ];
        source.read_again(&lines, &rows).await;
        running.status_when("it to be served", |it| it.models.iter().all(|it| it.state == ModelState::Active)).await;
        assert!(!is_told(&running.handle.status()), "{:#?}", running.handle.status());
        assert_eq!(running.document(1).await.as_deref(), Some(ADA));
        running.stop().await;
    }
}
