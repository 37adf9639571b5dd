//! The seam through which readers see documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_schemas::SourcePosition;
use tokio::sync::{broadcast, watch};

use crate::{Counted, Error, IndexQuery, Page, VersionId, VersionRecord};

/// One document as readers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Rises with every write of this document; together with the version and the id it identifies the bytes. Two documents
    /// may have the same: writers that share a projection take stamps from several partitions of one topic.
    pub stamp: u64,
    /// Source time up to which the document was known to be complete when it was written, microseconds since 1970.
    pub as_of_micros: i64,
    /// Final JSON bytes.
    pub body: Bytes,
}

/// A document was written or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentChange {
    /// Of which version.
    pub version: VersionId,
    /// Its id.
    pub id: Bytes,
    /// Its new stamp; `None`: deleted.
    pub stamp: Option<u64>,
}

/// How far a source is projected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    /// Everything up to here is in the documents.
    pub position: SourcePosition,
    /// Source time of that, microseconds since 1970.
    pub at_micros: i64,
    /// Whether the source's initial snapshot is complete.
    pub snapshot_done: bool,
}

impl Frontier {
    /// This one, told after another. Its time does not go back: transactions commit in another order than their times have,
    /// and after a failover by another clock, while what readers were told as there is there.
    pub fn after(self, before: Option<&Self>) -> Self {
        Self { at_micros: before.map_or(self.at_micros, |before| self.at_micros.max(before.at_micros)), ..self }
    }
}

/// Reads documents while they are being written. A read sees whole micro-batches only.
#[async_trait]
pub trait DocumentReader: Send + Sync {
    /// The registry of versions, kept current.
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>>;

    /// How far each source is projected, kept current. A frontier is published behind the message about the documents it
    /// promises ([`Self::changes`]).
    fn frontiers(&self) -> watch::Receiver<Arc<BTreeMap<String, Frontier>>>;

    /// Changes as they are committed, one message a micro-batch. A receiver that falls behind is told that it missed
    /// some and must read again; an empty message says so too, when the store itself missed some. A read that starts when
    /// a change was received sees it.
    fn changes(&self) -> broadcast::Receiver<Arc<Vec<DocumentChange>>>;

    /// How long the store has not said whether documents have changed: what is at hand may be as old. It says so every
    /// second or so, and stays silent when it cannot be reached.
    fn silent_for(&self) -> Duration {
        Duration::ZERO
    }

    /// A document that is at hand without reading the store: a reader that keeps some says so here. What it keeps is no
    /// older than what it said in [`Self::changes`].
    fn at_hand(&self, _version: VersionId, _id: &[u8]) -> Option<Document> {
        None
    }

    /// One document.
    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error>;

    /// Several documents of one moment, in the order of `ids`. `None`: two or more of them have over `bytes_max` bytes
    /// together, and the rest was not kept. An id that is named again may be counted again.
    async fn get_many(
        &self,
        version: VersionId,
        ids: &[Vec<u8>],
        bytes_max: usize,
    ) -> Result<Option<Vec<Option<Document>>>, Error>;

    /// A page of documents by index. Does work bounded by [`IndexQuery::entries_max`], and holds no more than
    /// [`IndexQuery::bytes_max`].
    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error>;

    /// Number of documents that match. Counting ends at `limit`, and when [`IndexQuery::entries_max`] entries were looked
    /// at: then nobody knows whether there are others.
    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<Counted, Error>;

    /// Number of documents of a version.
    async fn document_count(&self, version: VersionId) -> Result<u64, Error>;

    /// A secret that all who read these documents share, in whatever process: `fresh` becomes it where there is none yet.
    /// `None`: only one process reads them, and may keep a secret of its own.
    async fn shared_secret(&self, _fresh: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
}
