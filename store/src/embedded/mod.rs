//! The embedded engine: rows, documents and offsets in one LMDB environment.
//!
//! A micro-batch is one write transaction, so that it is visible and survives as a whole. When its commit returns,
//! readers see it and no end of the process can lose it; some hundred milliseconds later it is on disk. After the
//! machine has stopped the store is what it was at one of its last moments, whole, and the broker has what is missing:
//! the offsets went with it. (`checkpoint`, `settler`.)
//!
//! A row lies, whole, under each of its join keys: finding the children of a parent is one scan over neighbours. Under
//! its own key lies where that is. A document lies under its id as final bytes, with its index entries beside it, so
//! that filters are checked and index entries are maintained without looking into the JSON.
//!
//! Readers read the memory map beside the writer and never wait for it. Their calls do not go to a thread of their own:
//! a read takes microseconds, less than the hand-over would, and a query's work is bounded by its budget of entries.

mod batch;
mod batch_documents;
mod catalog;
mod checkpoint;
mod documents;
mod environment;
mod key;
mod readers;
mod room;
mod rows;
mod settler;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use self::batch::EmbeddedBatch;
use self::catalog::{Catalog, numbered};
use self::environment::{Environment, Fault};
use self::readers::Readers;
use self::settler::Settler;
use crate::{
    Batch, Counted, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, ProjectionStore,
    RowStore, RowTransaction, StoreMetrics, VersionId, VersionRecord,
};

/// Messages about changed documents that a slow listener may be behind before it misses some.
const CHANGES_KEPT: usize = 256;

/// Where and how an embedded store is kept.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The store's own folder, on a local disk; made if it is not there.
    pub folder: PathBuf,
    /// Greatest size of the store's file in bytes. Address space, not disk: the file grows as needed, and never shrinks.
    pub size_max: u64,
    /// How long a commit may wait until it is brought to disk with those that came after it.
    pub settle_interval: Duration,
}

impl EmbeddedOptions {
    /// In this folder, at most 64 GiB, to disk after 500 ms.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), size_max: 64 << 30, settle_interval: Duration::from_millis(500) }
    }
}

/// An open embedded store.
pub struct EmbeddedStore {
    // Before `environment`, which they keep open.
    readers: Readers,
    settler: Settler,
    catalog: Arc<Mutex<Catalog>>,
    environment: Environment,
    versions: watch::Sender<Arc<Vec<VersionRecord>>>,
    frontiers: watch::Sender<Arc<BTreeMap<String, Frontier>>>,
    changes: broadcast::Sender<Arc<Vec<DocumentChange>>>,
    metrics: StoreMetrics,
}

impl EmbeddedStore {
    /// Opens the store, or makes an empty one. Fails with [`Error::InUse`] while another process has it open.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, Error> {
        Self::open_in(options, checkpoint::boot())
    }

    /// Opens the store as if the machine had stopped since it was last open.
    #[cfg(feature = "test-util")]
    pub fn open_after_stop(options: EmbeddedOptions) -> Result<Arc<Self>, Error> {
        Self::open_in(options, None)
    }

    fn open_in(options: EmbeddedOptions, boot: Option<u128>) -> Result<Arc<Self>, Error> {
        let (environment, settled) = Environment::open(&options, boot)?;
        let readers = Readers::new(environment.env.clone());
        let catalog = readers
            .read(|txn| Catalog::read(environment.tables.meta, txn))
            .map_err(|e| environment.fail("read its names", e))?;
        let (versions, frontiers) = (catalog.published_versions(), Arc::new(catalog.frontiers.clone()));
        let catalog = Arc::new(Mutex::new(catalog));
        let settler = Settler::start(environment.env.clone(), settled, catalog.clone(), options.settle_interval)
            .map_err(|e| environment.fail("start the thread that brings commits to disk", heed::Error::Io(e)))?;
        let metrics = StoreMetrics::default();
        metrics.size_max.set(i64::try_from(options.size_max).unwrap_or(i64::MAX));
        metrics.used.set(i64::try_from(environment.size()).unwrap_or(i64::MAX));
        Ok(Arc::new(Self {
            readers,
            settler,
            versions: watch::Sender::new(versions),
            frontiers: watch::Sender::new(frontiers),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            catalog,
            environment,
            metrics,
        }))
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn settle_commits(&self, age: Duration) -> Result<(), Error> {
        self.settler.settle(age).map_err(|e| self.environment.fail("bring its commits to disk", e))
    }
}

impl ProjectionStore for EmbeddedStore {
    /// A batch is bound to the thread that began it.
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error> {
        Ok(Box::new(EmbeddedBatch::begin(self)?))
    }

    fn settle(&self, age: Duration) -> Result<(), Error> {
        self.settle_commits(age)
    }
}

impl RowStore for EmbeddedStore {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        Ok(Box::new(EmbeddedBatch::begin(self)?))
    }

    fn settle(&self, age: Duration) -> Result<(), Error> {
        self.settle_commits(age)
    }
}

#[async_trait]
impl DocumentReader for EmbeddedStore {
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>> {
        self.versions.subscribe()
    }

    fn frontiers(&self) -> watch::Receiver<Arc<BTreeMap<String, Frontier>>> {
        self.frontiers.subscribe()
    }

    fn changes(&self) -> broadcast::Receiver<Arc<Vec<DocumentChange>>> {
        self.changes.subscribe()
    }

    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error> {
        let documents = self.environment.tables.documents;
        self.readers
            .read(|txn| {
                let mut key = Vec::with_capacity(64);
                Ok(documents::get(documents, txn, &mut key, version, id)?.map(|found| found.to_document()))
            })
            .map_err(|e| self.environment.fail("read a document", e))
    }

    async fn get_many(
        &self,
        version: VersionId,
        ids: &[Vec<u8>],
        bytes_max: usize,
    ) -> Result<Option<Vec<Option<Document>>>, Error> {
        self.readers
            .read(|txn| documents::get_many(self.environment.tables.documents, txn, version, ids, bytes_max))
            .map_err(|e| self.environment.fail("read documents", e))
    }

    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error> {
        self.readers
            .read(|txn| walk::page(&self.environment.tables, txn, version, query))
            .map_err(|e| self.environment.fail("query documents", e))
    }

    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<Counted, Error> {
        self.readers
            .read(|txn| walk::count(&self.environment.tables, txn, version, query, limit))
            .map_err(|e| self.environment.fail("count documents", e))
    }

    async fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        let meta = self.environment.tables.meta;
        self.readers
            .read(|txn| match meta.get(txn, &numbered(b'D', version.0))? {
                None => Ok(0),
                Some(mut count) => {
                    key::take_u64(&mut count).ok_or(Fault::Damaged("the number of documents cannot be read"))
                }
            })
            .map_err(|e| self.environment.fail("read the number of documents", e))
    }
}
