//! The projector's side of documents: gathers writes, reads through them, flushes them.

use std::collections::{BTreeMap, HashMap};

use headwater_schemas::model::ModelShape;
use mongodb::bson::doc;
use parking_lot::MutexGuard;

use super::gathered::{Gathered, Items, Now, Stamped};
use super::registry::State;
use super::stored::{self, Hash, STORED_BYTES_MAX};
use super::{MongoDocuments, MongoReader, Writing};
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::owner::{self, Owner};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{DocumentBatch, DocumentTransaction, DocumentWrite, Error, Frontier, VersionId, VersionRecord, Written};

/// Bodies up to here, with their entries, cannot be over the limit once stored: no JSON grows tenfold as BSON.
const SURELY_FITS: usize = 1 << 20;

/// Ids in one query, in bytes and number.
const ASKED_BYTES: usize = 4 << 20;
const ASKED_IDS: usize = 10_000;

pub(super) struct MongoDocumentTransaction<'s> {
    pub(super) store: &'s MongoDocuments,
    pub(super) writing: MutexGuard<'s, Writing>,
    pub(super) gathered: Gathered,
    pub(super) written: Written,
    pub(super) bytes_written: u64,
}

impl<'s> MongoDocumentTransaction<'s> {
    pub(super) fn begin(store: &'s MongoDocuments) -> Result<Self, Error> {
        let mut writing = store.writing.lock();
        if writing.unsettled {
            writing.remembered.forget();
            let MongoReader { server, registry, .. } = &*store.reader;
            // What broke off may be there, with frontiers that promise it. It may also come to be there until the next good
            // flush, which tells that again.
            registry.tell(Vec::new());
            match &store.owner {
                Some(owner) => server.block("read its registry", async {
                    // Or what is asked below, and what documents are compared with, may be from before it.
                    owner.confirm(server).await?;
                    registry.read(server).await
                })?,
                None => server.block("read its registry", registry.read_versions(server))?,
            }
        }
        let (gathered, written) = (Gathered::default(), Written::default());
        Ok(Self { store, writing, gathered, written, bytes_written: 0 })
    }

    /// Hashes of those documents that are stored and not gathered. The server is asked for what is not remembered.
    fn stored_hashes(&self, version: VersionId, writes: &[DocumentWrite<'_>]) -> Result<HashMap<Vec<u8>, Hash>, Error> {
        let mut hashes = HashMap::new();
        let Some(collection) = self.store.reader.registry.collection(version) else { return Ok(hashes) };
        let gathered = self.gathered.documents.get(&version);
        let wanted = |id: &[u8]| gathered.is_none_or(|items| items.get(id).is_none());
        let mut unknown: Vec<&[u8]> = Vec::new();
        for id in writes.iter().map(|write| write.id).filter(|id| wanted(id)) {
            match self.writing.remembered.hash(version, id) {
                Some(Some(hash)) => drop(hashes.insert(id.to_vec(), hash)),
                Some(None) => {}
                None => unknown.push(id),
            }
        }
        let mut ids = unknown.into_iter().peekable();
        let server = &self.store.reader.server;
        while ids.peek().is_some() {
            let query = server.bounded_command("find", &collection, |find| {
                find.within(DOCUMENT, "filter", |filter| {
                    filter.within(DOCUMENT, "_id", |condition| {
                        condition.within(ARRAY, "$in", |array| {
                            let (start, mut at) = (array.bytes.len(), 0);
                            while let Some(id) = ids.next_if(|id| {
                                at == 0 || at < ASKED_IDS && array.bytes.len() - start + id.len() < ASKED_BYTES
                            }) {
                                array.item(STRING, at);
                                array.text_with(|bytes| text::push(bytes, id));
                                at += 1;
                            }
                        });
                    });
                });
                find.within(DOCUMENT, "projection", |projection| projection.int("_hw.hash", 1));
                find.within(DOCUMENT, "readConcern", |concern| concern.text("level", "majority"));
                find.int("batchSize", 1_000_000);
            });
            let read = server.read(query, None, |document| {
                hashes.insert(stored::id(document)?, stored::stored_hash(document)?);
                Ok(())
            });
            server.block("read documents", read)?;
        }
        Ok(hashes)
    }

    fn shape(&self, version: VersionId) -> Option<ModelShape> {
        match self.gathered.versions.get(&version) {
            Some(record) => record.shape.clone(),
            None => {
                self.store.reader.registry.with(|state| state.versions.get(&version)?.record.as_ref()?.shape.clone())
            }
        }
    }

    /// What becomes of them shows when they are flushed: until then each counts as what it is to be.
    fn put_stamped(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        if self.shape(version).is_none() {
            // The process that leads may have told the others a moment ago. Frontiers are not read: readers here must hear
            // of the documents first that others wrote.
            let server = &self.store.reader.server;
            server.block("read its registry", self.store.reader.registry.read_versions(server))?;
        }
        let shape = self.shape(version);
        self.check_sizes(writes, shape.as_ref())?;
        let mut written = Written::default();
        let stamped = self.gathered.stamped.entry(version).or_default();
        for write in writes {
            let stamp = write.stamp.unwrap_or_default();
            let put = write.body.map(|body| {
                let hash = stored::hash(body, write.entries);
                let mut writer = Writer::default();
                writer.bytes.reserve(2 * body.len() + 256);
                stored::write(&mut writer, write, body, shape.as_ref(), stamp, as_of_micros, &hash);
                self.bytes_written += writer.bytes.len() as u64;
                (hash, writer.bytes)
            });
            *(if put.is_some() { &mut written.written } else { &mut written.deleted }) += 1;
            stamped.push(Stamped { id: write.id.to_vec(), stamp, put });
        }
        Ok(written)
    }

    /// All or none of them can be stored.
    fn check_sizes(&self, writes: &[DocumentWrite<'_>], shape: Option<&ModelShape>) -> Result<(), Error> {
        for write in writes {
            let Some(body) = write.body else { continue };
            let entries: usize = write.entries.iter().map(|(_, value)| 2 * value.len() + 16).sum();
            if body.len() + entries <= SURELY_FITS {
                continue;
            }
            let mut bytes = body.len();
            if bytes <= STORED_BYTES_MAX {
                let mut writer = Writer::default();
                stored::write(&mut writer, write, body, shape, 0, 0, &Hash::default());
                bytes = writer.bytes.len();
            }
            if bytes > STORED_BYTES_MAX {
                return Err(Error::DocumentTooLarge { bytes, limit: STORED_BYTES_MAX });
            }
        }
        Ok(())
    }
}

/// Under which name the registry is owned, where several processes write documents.
pub(super) fn registry_claim(projector: &str) -> String {
    format!("registry/{projector}")
}

/// A number that no version has had. A restored database counts again from where it was when it was saved, while what was
/// made since may be there still: documents of another version, which nothing would ever remove from the new one.
async fn number_version(server: &Server) -> Result<u64, Fault> {
    loop {
        let number = owner::next(server, "version", 1).await?;
        let of_number = doc! { "name": { "$regex": format!("_v{number}$") } };
        let left = server.database.list_collection_names().filter(of_number).await?;
        if left.is_empty() {
            return Ok(number);
        }
        tracing::warn!(number, collections = ?left, "a new version gets another number: there are documents of one that had it");
    }
}

impl DocumentTransaction for MongoDocumentTransaction<'_> {
    fn flush(self: Box<Self>) -> Result<(), Error> {
        super::flush::flush(*self)
    }

    fn mark(&mut self) -> Option<u64> {
        // Where several processes write, nobody's mark would be the last.
        if self.store.owner.is_none() || self.gathered.is_nothing() {
            return None;
        }
        self.writing.stamp += 1;
        self.gathered.mark = Some(self.writing.stamp);
        self.gathered.mark
    }

    fn stored_mark(&self) -> Result<u64, Error> {
        let server = &self.store.reader.server;
        match &self.store.owner {
            Some(owner) => server.block("read the mark of its documents", owner.mark(server)),
            None => Ok(0),
        }
    }
}

impl DocumentBatch for MongoDocumentTransaction<'_> {
    fn versions(&self) -> Result<Vec<VersionRecord>, Error> {
        if self.store.owner.is_none() {
            // Others write too, and what this process follows may be a moment old.
            let server = &self.store.reader.server;
            server.block("read its registry", self.store.reader.registry.read_versions(server))?;
        }
        let mut versions: BTreeMap<VersionId, VersionRecord> = self.store.reader.registry.with(|state| {
            let own = state.versions.iter().filter(|(_, known)| known.projector == self.store.projector);
            own.filter_map(|(id, known)| Some((*id, known.record.clone()?))).collect()
        });
        versions.extend(self.gathered.versions.iter().map(|(id, record)| (*id, record.clone())));
        versions.retain(|id, _| !self.gathered.removed.contains(id));
        Ok(versions.into_values().collect())
    }

    fn new_version_id(&mut self) -> Result<VersionId, Error> {
        let server = &self.store.reader.server;
        let number = server.block("number a version", number_version(server))?;
        Ok(VersionId(u32::try_from(number).expect("far fewer versions than that")))
    }

    fn claim_registry(&mut self) -> Result<u64, Error> {
        let server = &self.store.reader.server;
        let name = registry_claim(&self.store.projector);
        // Where somebody else claimed a moment later, the first flush tells.
        let (claim, _) = server.block("claim its registry", Owner::shut_out(server, name))?;
        Ok(claim.number)
    }

    fn under_claim(&mut self, claim: u64) {
        self.gathered.claim = Some(claim);
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error> {
        let known = self.store.reader.registry.with(|state| {
            let known = state.versions.get(&version.id);
            known.is_some_and(|known| known.record.as_ref() == Some(version) && known.projector == self.store.projector)
        });
        if known && !self.gathered.versions.contains_key(&version.id) {
            return Ok(());
        }
        self.gathered.versions.insert(version.id, version.clone());
        Ok(())
    }

    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error> {
        let server = &self.store.reader.server;
        let items = self.gathered.documents.entry(version).or_default();
        let mut found: Vec<(Vec<u8>, Hash)> = Vec::new();
        if let Some(collection) = self.store.reader.registry.collection(version) {
            let enough = limit.saturating_add(items.items.len()).saturating_add(1);
            let query = server.bounded_command("find", &collection, |find| {
                find.within(DOCUMENT, "filter", |_| {});
                find.within(DOCUMENT, "sort", |sort| sort.int("_id", 1));
                find.within(DOCUMENT, "projection", |projection| projection.int("_hw.hash", 1));
                find.within(DOCUMENT, "readConcern", |concern| concern.text("level", "majority"));
                find.int("limit", i64::try_from(enough).unwrap_or(i64::MAX));
                find.int("batchSize", 1_000_000);
            });
            let read = server.read(query, None, |document| {
                found.push((stored::id(document)?, stored::stored_hash(document)?));
                Ok(())
            });
            server.block("find documents", read)?;
        }
        found.retain(|(id, _)| items.get(id).is_none_or(|item| item.hash().is_some()));
        let left = found.len() > limit;
        for (id, hash) in found.iter().take(limit) {
            let item = items.item(id, || Some(*hash));
            item.now = Now::Deleted;
            item.quiet = true;
        }
        if !left {
            self.gathered.versions.remove(&version);
            self.gathered.removed.insert(version);
        }
        Ok(found.len().min(limit))
    }

    fn put_documents(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        let stamped = writes.iter().any(|write| write.stamp.is_some());
        if stamped && self.store.owner.is_some() {
            return Err(Error::OneWriter { place: self.store.reader.server.place.clone() });
        }
        if stamped {
            return self.put_stamped(version, as_of_micros, writes);
        }
        let shape = self.shape(version);
        self.check_sizes(writes, shape.as_ref())?;
        let mut hashes = self.stored_hashes(version, writes)?;
        let items = self.gathered.documents.entry(version).or_default();
        let mut written = Written::default();
        for write in writes {
            let item = items.item(write.id, || hashes.remove(write.id));
            let new = write.body.map(|body| (body, stored::hash(body, write.entries)));
            match new {
                None if item.hash().is_none() => written.unchanged += 1,
                None => {
                    item.now = Now::Deleted;
                    written.deleted += 1;
                }
                Some((_, hash)) if item.hash() == Some(hash) => written.unchanged += 1,
                Some((body, hash)) => {
                    self.writing.stamp += 1;
                    let stamp = self.writing.stamp;
                    let mut writer = Writer::default();
                    writer.bytes.reserve(2 * body.len() + 256);
                    stored::write(&mut writer, write, body, shape.as_ref(), stamp, as_of_micros, &hash);
                    self.bytes_written += writer.bytes.len() as u64;
                    item.now = Now::Put { stamp, hash, document: writer.bytes };
                    written.written += 1;
                }
            }
        }
        self.written.written += written.written;
        self.written.deleted += written.deleted;
        self.written.unchanged += written.unchanged;
        Ok(written)
    }

    fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        let reader = &self.store.reader;
        let ask = || reader.server.block("read the number of documents", reader.read_count(version));
        let stored = match self.store.owner {
            Some(_) => self.writing.remembered.count(version, ask)?,
            None => ask()?,
        };
        let difference = self.gathered.documents.get(&version).map_or(0, Items::difference);
        Ok(stored.saturating_add_signed(difference))
    }

    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error> {
        let own = |state: &State| -> BTreeMap<String, Frontier> {
            let own = state.frontiers.iter().filter(|((projector, _), _)| *projector == self.store.projector);
            own.map(|((_, source), frontier)| (source.clone(), *frontier)).collect()
        };
        let MongoReader { server, registry, .. } = &*self.store.reader;
        let mut frontiers = match &self.store.owner {
            Some(_) => registry.with(own),
            // Not published: readers here must hear of the documents first that others wrote.
            None => own(&server.block("read its frontiers", State::read_frontiers(server))?),
        };
        frontiers.extend(self.gathered.frontiers.iter().map(|(source, frontier)| (source.clone(), *frontier)));
        Ok(frontiers)
    }

    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error> {
        let place = (self.store.projector.clone(), source.to_owned());
        let known = self.store.reader.registry.with(|state| state.frontiers.get(&place) == Some(&frontier));
        if !known || self.gathered.frontiers.contains_key(source) {
            self.gathered.frontiers.insert(place.1, frontier);
        }
        Ok(())
    }
}
