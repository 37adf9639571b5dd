//! The readers' side of documents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{Document as Bson, RawDocument, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::registry::{COUNTS, Registry, count_ids};
use super::{follow, secret, stored, walk};
use crate::mongodb::MongoOptions;
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{
    Counted, Document, DocumentChange, DocumentReader, Error, Frontier, IndexQuery, Page, VersionId, VersionRecord,
};

/// `SnapshotUnavailable`: a collection was made or changed within the snapshot's last moments.
const SNAPSHOT_UNAVAILABLE: i32 = 246;

const SNAPSHOT_TRIES: u32 = 5;

/// Reads documents, whoever writes them, and is told of changes by the server.
pub struct MongoReader {
    pub(super) server: Arc<Server>,
    pub(super) registry: Arc<Registry>,
    following: AbortHandle,
}

impl MongoReader {
    /// Connects, for reading only. Uses the runtime it is called in from then on.
    pub async fn open(options: MongoOptions) -> Result<Arc<Self>, Error> {
        Self::follow(Server::connect(&options).await?, Registry::of_one_writer()).await
    }

    pub(super) async fn follow(server: Server, registry: Registry) -> Result<Arc<Self>, Error> {
        let (server, registry) = (Arc::new(server), Arc::new(registry));
        let stream = server.within("watch for changes", follow::begin(&server, &registry)).await?;
        let following = server.handle().spawn(follow::follow(server.clone(), registry.clone(), stream)).abort_handle();
        Ok(Arc::new(Self { server, registry, following }))
    }

    /// Number of documents of a version.
    pub(super) async fn read_count(&self, version: VersionId) -> Result<u64, Fault> {
        const BROKEN: Fault = Fault::Damaged("the number of documents cannot be read");
        let counts = self.server.database.collection::<Bson>(COUNTS);
        let of_version = doc! { "_id": { "$in": count_ids(version) } };
        let mut found = counts.find(of_version).max_time(self.server.operation_max()).await?;
        let mut sum = 0;
        while found.advance().await? {
            sum += found.current().get_i64("documents").map_err(|_| BROKEN)?;
        }
        // One process may have removed what another one counted, and is counted later than it is.
        Ok(sum.max(0) as u64)
    }

    /// `None`: two or more of them have over `bytes_max` bytes together.
    async fn find_many(
        &self,
        collection: &str,
        ids: &[&[u8]],
        bytes_max: usize,
    ) -> Result<Option<HashMap<Vec<u8>, Document>>, Fault> {
        let (mut found, mut bytes) = (HashMap::with_capacity(ids.len()), 0);
        let each = |document: &RawDocument| {
            let (id, document) = (stored::id(document)?, stored::read(document)?);
            bytes += document.body.len();
            found.insert(id, document);
            Ok(found.len() == 1 || bytes <= bytes_max)
        };
        let command = get_command(&self.server, collection, "snapshot", ids);
        let is_all = self.server.read_while(command, None, each).await?;
        Ok(is_all.then_some(found))
    }
}

/// Makes a read of a snapshot, again where the server had none for it. Not a function: what is made again borrows.
macro_rules! with_snapshot {
    ($read:expr) => {
        async {
            let mut tries = 0;
            loop {
                match $read.await {
                    Err(fault) if has_no_snapshot(&fault) && tries < SNAPSHOT_TRIES => tries += 1,
                    other => break other,
                }
            }
        }
    };
}

fn has_no_snapshot(fault: &Fault) -> bool {
    let Fault::Driver(error) = fault else { return false };
    matches!(&*error.kind, ErrorKind::Command(command) if command.code == SNAPSHOT_UNAVAILABLE)
}

impl Drop for MongoReader {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What of a document is needed to give it to a reader.
pub(super) fn project_body(projection: &mut Writer) {
    for field in ["_hw.json", "_hw.stamp", "_hw.as_of"] {
        projection.int(field, 1);
    }
}

fn get_command(server: &Server, collection: &str, level: &str, ids: &[&[u8]]) -> RawDocumentBuf {
    server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |filter| match ids {
            [id] => {
                filter.element(STRING, "_id");
                filter.text_with(|bytes| text::push(bytes, id));
            }
            ids => filter.within(DOCUMENT, "_id", |condition| {
                condition.within(ARRAY, "$in", |array| {
                    for (at, id) in ids.iter().enumerate() {
                        array.item(STRING, at);
                        array.text_with(|bytes| text::push(bytes, id));
                    }
                });
            }),
        });
        find.within(DOCUMENT, "projection", project_body);
        find.within(DOCUMENT, "readConcern", |concern| concern.text("level", level));
        find.int("batchSize", 1_000_000);
    })
}

#[async_trait]
impl DocumentReader for MongoReader {
    fn versions(&self) -> watch::Receiver<Arc<Vec<VersionRecord>>> {
        self.registry.versions.subscribe()
    }

    fn frontiers(&self) -> watch::Receiver<Arc<BTreeMap<String, Frontier>>> {
        self.registry.frontiers.subscribe()
    }

    fn changes(&self) -> broadcast::Receiver<Arc<Vec<DocumentChange>>> {
        self.registry.changes.subscribe()
    }

    fn silent_for(&self) -> Duration {
        self.registry.silent_for()
    }

    async fn get(&self, version: VersionId, id: &[u8]) -> Result<Option<Document>, Error> {
        let Some(collection) = self.registry.collection(version) else { return Ok(None) };
        let mut found = None;
        let read = self.server.read(get_command(&self.server, &collection, "majority", &[id]), None, |document| {
            found = Some(stored::read(document)?);
            Ok(())
        });
        self.server.within("read a document", read).await?;
        Ok(found)
    }

    async fn get_many(
        &self,
        version: VersionId,
        ids: &[Vec<u8>],
        bytes_max: usize,
    ) -> Result<Option<Vec<Option<Document>>>, Error> {
        let Some(collection) = self.registry.collection(version).filter(|_| !ids.is_empty()) else {
            return Ok(Some(vec![None; ids.len()]));
        };
        let asked: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
        let read = with_snapshot!(self.find_many(&collection, &asked, bytes_max));
        let found = self.server.within("read documents", read).await?;
        Ok(found.map(|found| ids.iter().map(|id| found.get(id).cloned()).collect()))
    }

    async fn query(&self, version: VersionId, query: &IndexQuery) -> Result<Page, Error> {
        let Some(collection) = self.registry.collection(version) else {
            return Ok(Page { documents: Vec::new(), next: None });
        };
        let read = with_snapshot!(walk::page(&self.server, &collection, query));
        self.server.within("query documents", read).await
    }

    async fn count(&self, version: VersionId, query: &IndexQuery, limit: u64) -> Result<Counted, Error> {
        let Some(collection) = self.registry.collection(version) else {
            return Ok(Counted { seen: 0, is_all: true });
        };
        let read = with_snapshot!(walk::count(&self.server, &collection, query, limit));
        self.server.within("count documents", read).await
    }

    async fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        self.server.within("read the number of documents", self.read_count(version)).await
    }

    async fn shared_secret(&self, fresh: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.server.within("read the secret of the servers", secret::shared(&self.server, fresh)).await.map(Some)
    }
}
