//! Where a case keeps its rows and documents.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoRows};
use headwater_store::{DocumentReader, Paired, ProjectionStore};
use headwater_test_servers::Mongo;

use crate::flaky::{EmbeddedDocuments, FlakyDocuments};

/// A kind of engine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Rows and documents in one, in a temporary folder.
    Embedded,
    /// Rows in one embedded store, documents in another: a break may come between their commits.
    Paired,
    /// Rows and documents in a database of their own, on one server for all cases.
    Mongo,
}

/// An open engine.
pub(crate) struct Engine {
    pub(crate) writer: Arc<dyn ProjectionStore>,
    pub(crate) reader: Arc<dyn DocumentReader>,
    _folders: Vec<tempfile::TempDir>,
}

impl Engine {
    /// Opens an empty one. Where rows and documents are not one engine, `calls_left` also counts what lies between the
    /// commit of the rows and the documents.
    pub(crate) fn open(kind: Kind, calls_left: &Arc<AtomicI64>) -> Self {
        match kind {
            Kind::Embedded => embedded(),
            Kind::Paired => paired(calls_left),
            Kind::Mongo => mongo(calls_left),
        }
    }
}

fn embedded() -> Engine {
    let (store, folder) = embedded_store();
    Engine { writer: store.clone(), reader: store, _folders: vec![folder] }
}

fn paired(calls_left: &Arc<AtomicI64>) -> Engine {
    let ((rows, rows_folder), (inner, folder)) = (embedded_store(), embedded_store());
    let documents = EmbeddedDocuments { inner: inner.clone(), calls_left: calls_left.clone() };
    let writer = Paired::new(rows, Arc::new(documents));
    Engine { writer, reader: inner, _folders: vec![rows_folder, folder] }
}

fn embedded_store() -> (Arc<EmbeddedStore>, tempfile::TempDir) {
    let folder = match std::path::Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let mut options = EmbeddedOptions::new(folder.path());
    options.size_max = 1 << 30;
    (EmbeddedStore::open(options).unwrap(), folder)
}

fn mongo(calls_left: &Arc<AtomicI64>) -> Engine {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    // Ends with this process, by its watchdog.
    static SERVER: LazyLock<Mongo> = LazyLock::new(Mongo::start);
    let database = format!("case{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let options = MongoOptions::new(SERVER.url(), database);
    let (rows, documents) = RUNTIME.block_on(async {
        (MongoRows::open(options.clone()).await.unwrap(), MongoDocuments::open(options).await.unwrap())
    });
    let reader = documents.reader();
    let documents = Arc::new(FlakyDocuments { inner: documents, calls_left: calls_left.clone() });
    Engine { writer: Paired::new(rows, documents), reader, _folders: Vec::new() }
}
