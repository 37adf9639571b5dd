//! The store, where every document has the same stamp: as two of one version may where several writers share it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_store::{
    Counted, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, VersionId, VersionRecord,
};
use tokio::sync::{broadcast, watch};

/// The store, all of whose documents have this stamp when they are read by id.
pub(crate) struct OneStamp(pub(crate) Arc<dyn DocumentReader>);

impl OneStamp {
    pub(crate) const STAMP: u64 = 7;
}

#[async_trait]
impl DocumentReader for OneStamp {
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>> {
        self.0.versions()
    }

    fn frontiers(&self) -> watch::Receiver<Arc<BTreeMap<String, Frontier>>> {
        self.0.frontiers()
    }

    fn changes(&self) -> broadcast::Receiver<Arc<Vec<DocumentChange>>> {
        self.0.changes()
    }

    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error> {
        let found = self.0.get(version, id).await?;
        Ok(found.map(|document| Document { stamp: Self::STAMP, ..document }))
    }

    async fn get_many(
        &self,
        version: VersionId,
        ids: &[Vec<u8>],
        bytes_max: usize,
    ) -> Result<Option<Vec<Option<Document>>>, Error> {
        self.0.get_many(version, ids, bytes_max).await
    }

    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error> {
        self.0.query(version, query).await
    }

    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<Counted, Error> {
        self.0.count(version, query, limit).await
    }

    async fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        self.0.document_count(version).await
    }
}
