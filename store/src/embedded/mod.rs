//! The embedded engine: rows, documents and offsets in one LMDB environment.
//!
//! A micro-batch is one write transaction, so that it is visible and durable as a whole. A row lies under its key, and
//! once more, whole, under each of its join keys: finding the children of a parent is one scan over neighbours.
//! A document lies under its id as final bytes, with its index entries beside it, so that filters are checked and index
//! entries are maintained without looking into the JSON.
//!
//! Readers read the memory map beside the writer and never wait for it. Their calls do not go to a thread of their own:
//! a read takes microseconds, less than the hand-over would, and a query's work is bounded by its budget of entries.

mod batch;
mod batch_documents;
mod catalog;
mod documents;
mod environment;
mod key;
mod readers;
mod rows;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use self::batch::EmbeddedBatch;
use self::catalog::{Catalog, numbered};
use self::environment::{Environment, Fault};
use self::readers::Readers;
use crate::{
    Batch, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, ProjectionStore, RowStore,
    RowTransaction, StoreMetrics, VersionId, VersionRecord,
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
    /// What a commit waits for.
    pub sync: Sync,
}

impl EmbeddedOptions {
    /// In this folder, at most 64 GiB, [`Sync::NoMetaSync`].
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), size_max: 64 << 30, sync: Sync::default() }
    }
}

/// What a commit waits for. The store stays whole in every case, and loses nothing when only the process ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Until the batch is on disk.
    Full,
    /// Until the batch's data is on disk, but not the page that makes it count: when the machine stops, the last commits
    /// may be missing. They are made again from the broker, since the offsets are missing with them.
    #[default]
    NoMetaSync,
}

/// An open embedded store.
pub struct EmbeddedStore {
    // Before `environment`, which they keep open.
    readers: Readers,
    catalog: Mutex<Catalog>,
    environment: Environment,
    versions: watch::Sender<Arc<Vec<VersionRecord>>>,
    frontiers: watch::Sender<Arc<BTreeMap<String, Frontier>>>,
    changes: broadcast::Sender<Arc<Vec<DocumentChange>>>,
    metrics: StoreMetrics,
}

impl EmbeddedStore {
    /// Opens the store, or makes an empty one. Fails with [`Error::InUse`] while another process has it open.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, Error> {
        let environment = Environment::open(&options)?;
        let readers = Readers::new(environment.env.clone());
        let catalog = readers
            .read(|txn| Catalog::read(environment.tables.meta, txn))
            .map_err(|e| environment.fail("read its names", e))?;
        let metrics = StoreMetrics::default();
        metrics.size_max.set(i64::try_from(options.size_max).unwrap_or(i64::MAX));
        metrics.used.set(i64::try_from(environment.size()).unwrap_or(i64::MAX));
        Ok(Arc::new(Self {
            readers,
            versions: watch::Sender::new(catalog.published_versions()),
            frontiers: watch::Sender::new(Arc::new(catalog.frontiers.clone())),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            catalog: Mutex::new(catalog),
            environment,
            metrics,
        }))
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}

impl ProjectionStore for EmbeddedStore {
    /// A batch is bound to the thread that began it.
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error> {
        Ok(Box::new(EmbeddedBatch::begin(self)?))
    }
}

impl RowStore for EmbeddedStore {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        Ok(Box::new(EmbeddedBatch::begin(self)?))
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

    async fn get_many(&self, version: VersionId, ids: &[Vec<u8>]) -> Result<Vec<Option<Document>>, Error> {
        let documents = self.environment.tables.documents;
        let mut key = Vec::with_capacity(64);
        self.readers
            .read(|txn| {
                let mut get = |id: &Vec<u8>| {
                    Ok(documents::get(documents, txn, &mut key, version, id)?.map(|found| found.to_document()))
                };
                ids.iter().map(&mut get).collect()
            })
            .map_err(|e| self.environment.fail("read documents", e))
    }

    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error> {
        self.readers
            .read(|txn| walk::page(&self.environment.tables, txn, version, query))
            .map_err(|e| self.environment.fail("query documents", e))
    }

    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<u64, Error> {
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
