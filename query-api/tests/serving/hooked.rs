//! The store, where something comes before one document is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_store::{
    Counted, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, VersionId, VersionRecord,
};
use tokio::sync::{broadcast, watch};

/// The store, which is asked for a document only behind `before`, and where that has nothing against it.
pub(crate) struct Hooked<F> {
    pub(crate) store: Arc<dyn DocumentReader>,
    pub(crate) before: F,
}

#[async_trait]
impl<F, W> DocumentReader for Hooked<F>
where
    F: Fn() -> W + Send + Sync,
    W: Future<Output = Result<(), Error>> + Send,
{
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>> {
        self.store.versions()
    }

    fn frontiers(&self) -> watch::Receiver<Arc<BTreeMap<String, Frontier>>> {
        self.store.frontiers()
    }

    fn changes(&self) -> broadcast::Receiver<Arc<Vec<DocumentChange>>> {
        self.store.changes()
    }

    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error> {
        (self.before)().await?;
        self.store.get(version, id).await
    }

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
}
