//! A reader in front of the store's that keeps documents at hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use headwater_store::{
    Counted, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, VersionId, VersionRecord,
};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::DocumentCache;

/// Messages about changed documents that a slow listener may be behind before it misses some.
const CHANGES_KEPT: usize = 256;

type Changes = Arc<Vec<DocumentChange>>;
type Frontiers = Arc<BTreeMap<String, Frontier>>;

/// Reads documents from a cache where they are in it.
pub(crate) struct CachedReader {
    store: Arc<dyn DocumentReader>,
    cache: Arc<DocumentCache>,
    /// Whether changes are heard. Nothing is kept while they are not.
    hears: AtomicBool,
    changes: broadcast::Sender<Changes>,
    frontiers: watch::Sender<Frontiers>,
}

/// Hears the store's changes.
pub(crate) struct Follower {
    reader: Arc<CachedReader>,
    changes: broadcast::Receiver<Changes>,
    frontiers: watch::Receiver<Frontiers>,
}

impl CachedReader {
    /// A reader of `store`, and what must be run for it. Until that runs, and when it has ended, nothing is kept.
    pub(crate) fn new(store: Arc<dyn DocumentReader>, cache: Arc<DocumentCache>) -> (Arc<Self>, Follower) {
        // Listened to before anything is read.
        let changes = store.changes();
        let mut frontiers = store.frontiers();
        let now = frontiers.borrow_and_update().clone();
        let reader = Arc::new(Self {
            store,
            cache,
            hears: AtomicBool::new(false),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            frontiers: watch::Sender::new(now),
        });
        (reader.clone(), Follower { reader, changes, frontiers })
    }

    fn hears(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }
}

#[async_trait]
impl DocumentReader for CachedReader {
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>> {
        self.store.versions()
    }

    /// Behind what was forgotten for them: the documents they promise are not older in the cache.
    fn frontiers(&self) -> watch::Receiver<Frontiers> {
        self.frontiers.subscribe()
    }

    /// Behind what was forgotten for them.
    fn changes(&self) -> broadcast::Receiver<Changes> {
        self.changes.subscribe()
    }

    fn silent_for(&self) -> Duration {
        self.store.silent_for()
    }

    fn at_hand(&self, version: VersionId, id: &[u8]) -> Option<Document> {
        if self.hears() { self.cache.get(version, id) } else { None }
    }

    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error> {
        let read = self.store.get(version, id);
        if self.hears() { self.cache.fetch(version, id, read).await } else { read.await }
    }

    /// From the store, for they are of one moment.
    async fn get_many(
        &self,
        version: VersionId,
        ids: &[Vec<u8>],
        bytes_max: usize,
    ) -> Result<Option<Vec<Option<Document>>>, Error> {
        self.store.get_many(version, ids, bytes_max).await
    }

    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error> {
        self.store.query(version, query).await
    }

    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<Counted, Error> {
        self.store.count(version, query, limit).await
    }

    async fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        self.store.document_count(version).await
    }

    async fn shared_secret(&self, fresh: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.store.shared_secret(fresh).await
    }
}

impl Follower {
    /// Follows until `stop` is cancelled, or the store ends.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        // However this ends, nothing that is kept is answered afterwards.
        let deaf = Deaf(self.reader.clone());
        deaf.0.hears.store(true, Ordering::Release);
        loop {
            // All are cancellation-safe: a message that was not taken stays, a change that was not seen stays marked.
            let goes_on = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                received = self.changes.recv() => match received {
                    Ok(changes) => self.heard(changes),
                    Err(RecvError::Lagged(_)) => self.heard(Arc::default()),
                    Err(RecvError::Closed) => false,
                },
                changed = self.frontiers.changed() => changed.is_ok() && self.advanced(),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn heard(&self, changes: Changes) -> bool {
        self.reader.cache.changed(&changes);
        // Nobody listens: nothing is lost.
        let _ = self.reader.changes.send(changes);
        true
    }

    /// The store is further. The messages about what that promises lie here already.
    fn advanced(&mut self) -> bool {
        let now = self.frontiers.borrow_and_update().clone();
        loop {
            match self.changes.try_recv() {
                Ok(changes) => self.heard(changes),
                Err(TryRecvError::Lagged(_)) => self.heard(Arc::default()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return false,
            };
        }
        self.reader.frontiers.send_replace(now);
        true
    }
}

struct Deaf(Arc<CachedReader>);

impl Drop for Deaf {
    fn drop(&mut self) {
        self.0.hears.store(false, Ordering::Release);
    }
}
