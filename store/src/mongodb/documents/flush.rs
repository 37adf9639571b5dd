//! Brings what was gathered to the server.
//!
//! A gathering is one transaction, unless it is very large: then documents go ahead in several, and versions and frontiers
//! follow with the last. A transaction that is in another's way is made again as it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mongodb::ClientSession;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::MongoDocuments;
use super::gathered::{Gathered, Item, Now};
use super::registry::{COUNTS, FRONTIERS, Known, VERSIONS, collection_name, frontier_document, state_word};
use super::transaction::MongoDocumentTransaction;
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::context::{Within, block};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{DocumentChange, Error, VersionId, VersionState};

/// Bytes and documents of one transaction. The server keeps all of it in its cache until the commit.
const TRANSACTION_BYTES: usize = 32 << 20;
const TRANSACTION_DOCUMENTS: usize = 20_000;

/// Bytes and documents of one command.
const COMMAND_BYTES: usize = 4 << 20;
const COMMAND_DOCUMENTS: usize = 2_000;

/// Names of the two indexes over the entries.
pub(super) const ENTRIES_UP: &str = "entries_up";
pub(super) const ENTRIES_DOWN: &str = "entries_down";

const TRIES: u32 = 5;

/// A command, and how many documents it must meet.
struct Write {
    command: RawDocumentBuf,
    documents: usize,
}

/// What goes in one transaction.
#[derive(Default)]
struct Part {
    writes: Vec<Write>,
    counts: BTreeMap<VersionId, i64>,
    /// Versions and frontiers: behind the documents and their counts.
    registry: Vec<RawDocumentBuf>,
    bytes: usize,
    documents: usize,
}

pub(super) fn flush(transaction: MongoDocumentTransaction<'_>) -> Result<(), Error> {
    let started = Instant::now();
    let MongoDocumentTransaction { store, mut writing, gathered, written, bytes_written } = transaction;
    let nothing =
        gathered.documents.values().all(|items| items.items.iter().all(|item| matches!(item.now, Now::AsStored)));
    if nothing && gathered.versions.is_empty() && gathered.removed.is_empty() && gathered.frontiers.is_empty() {
        store.metrics.committed(started.elapsed(), 0, 0, written);
        return Ok(());
    }
    let server = &store.reader.server;
    writing.unsettled = true;
    server.block("make collections", store.make_collections(&gathered))?;
    let mut parts = parts(store, &gathered);
    let mut last = parts.pop().unwrap_or_default();
    last.registry = registry_writes(store, &gathered);
    parts.push(last);
    for part in &parts {
        block(store.write(part)).map_err(|fault| server.fail("write documents", fault))?;
    }
    writing.unsettled = false;
    let dropped = store.publish(&gathered);
    for collection in dropped {
        // It is empty, and nobody looks for it any more.
        let drop = server.database.collection::<Document>(&collection);
        if let Err(error) = server.block("remove a collection", async { Ok(drop.drop().await?) }) {
            tracing::warn!(collection, %error, "an empty collection stays behind");
        }
    }
    store.metrics.committed(started.elapsed(), 0, bytes_written, written);
    Ok(())
}

impl MongoDocuments {
    /// Makes the collections of versions that have none. Not part of a transaction, which may not do so.
    async fn make_collections(&self, gathered: &Gathered) -> Result<(), Fault> {
        let reader = &self.reader;
        let server = &reader.server;
        for version in gathered.documents.keys().chain(gathered.versions.keys()) {
            if reader.registry.collection(*version).is_some() || gathered.removed.contains(version) {
                continue;
            }
            let model = gathered.versions.get(version).map(|record| record.model.as_str());
            let collection = collection_name(model, *version);
            let max_time_ms = i64::try_from(server.operation_max().as_millis()).unwrap_or(i64::MAX);
            let indexes = doc! {
                "createIndexes": &collection,
                "indexes": [
                    { "key": { "_hw.e": 1, "_id": 1 }, "name": ENTRIES_UP },
                    { "key": { "_hw.e": -1, "_id": -1 }, "name": ENTRIES_DOWN },
                ],
                "writeConcern": { "w": "majority" },
                "maxTimeMS": max_time_ms,
            };
            server.database.run_command(indexes).await?;
            let versions = server.database.collection::<Document>(VERSIONS);
            versions
                .update_one(
                    doc! { "_id": i64::from(version.0) },
                    doc! { "$setOnInsert": { "collection": &collection, "projector": &self.projector } },
                )
                .upsert(true)
                .await?;
            let known = Known { collection, projector: self.projector.clone(), record: None };
            reader.registry.change(|state| drop(state.versions.insert(*version, known)));
        }
        Ok(())
    }

    /// Writes a part in a transaction of its own.
    async fn write(&self, part: &Part) -> Result<(), Fault> {
        let server = &self.reader.server;
        let mut tries = 0;
        loop {
            let written = server.bounded(async {
                let mut session = server.begin().await?;
                self.reader.registry.own(&session);
                let written = self.write_all(part, &mut session).await;
                if written.is_err() {
                    // It is over already; this only frees what it holds sooner.
                    let _ = session.abort_transaction().await;
                    return written;
                }
                self.owner.commit(server, &mut session).await
            });
            match written.await {
                Err(fault) if fault.is_transient() && tries < TRIES => {
                    tries += 1;
                    let pause = Duration::from_millis(10 << tries);
                    Within::new(server.handle(), async { tokio::time::sleep(pause).await }).await;
                }
                Err(fault) => return server.bounded(async { Err(self.owner.explain(server, fault).await) }).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn write_all(&self, part: &Part, session: &mut ClientSession) -> Result<(), Fault> {
        let server = &self.reader.server;
        for write in &part.writes {
            let answer = server.write(write.command.clone(), session).await?;
            if answer.get_i32("n").ok() != i32::try_from(write.documents).ok() {
                return Err(Fault::Refused("documents were changed by somebody else meanwhile".into()));
            }
        }
        for (VersionId(version), difference) in &part.counts {
            let counts = server.database.collection::<Document>(COUNTS);
            counts
                .update_one(doc! { "_id": i64::from(*version) }, doc! { "$inc": { "documents": *difference } })
                .upsert(true)
                .session(&mut *session)
                .await?;
        }
        for command in &part.registry {
            server.write(command.clone(), session).await?;
        }
        Ok(())
    }

    /// Makes this process's readers see what was flushed; answers the collections that nobody needs any more.
    fn publish(&self, gathered: &Gathered) -> Vec<String> {
        let registry = &self.reader.registry;
        let mut dropped = Vec::new();
        if !(gathered.versions.is_empty() && gathered.removed.is_empty() && gathered.frontiers.is_empty()) {
            registry.change(|state| {
                for (id, record) in &gathered.versions {
                    let Some(known) = state.versions.get(id) else { continue };
                    let known = Known {
                        collection: known.collection.clone(),
                        projector: self.projector.clone(),
                        record: Some(record.clone()),
                    };
                    state.put_version(*id, known);
                }
                for id in &gathered.removed {
                    dropped.extend(state.versions.remove(id).map(|known| known.collection));
                }
                for (source, frontier) in &gathered.frontiers {
                    state.frontiers.insert((self.projector.clone(), source.clone()), *frontier);
                }
            });
        }
        if registry.changes.receiver_count() > 0 {
            let changes: Vec<DocumentChange> = gathered
                .documents
                .iter()
                .flat_map(|(version, items)| items.items.iter().filter_map(|item| change(*version, item)))
                .collect();
            if !changes.is_empty() {
                registry.tell(changes);
            }
        }
        dropped
    }
}

/// What listeners are told of a document.
fn change(version: VersionId, item: &Item) -> Option<DocumentChange> {
    let stamp = match (&item.now, item.stored) {
        (Now::Put { stamp, .. }, _) => Some(*stamp),
        (Now::Deleted, Some(_)) if !item.quiet => None,
        _ => return None,
    };
    Some(DocumentChange { version, id: Bytes::copy_from_slice(&item.id), stamp })
}

/// The documents, in as few transactions as they fit.
fn parts(store: &MongoDocuments, gathered: &Gathered) -> Vec<Part> {
    let server = &store.reader.server;
    let mut parts = vec![Part::default()];
    for (version, items) in &gathered.documents {
        let Some(collection) = store.reader.registry.collection(*version) else { continue };
        let mut builder = Builder { server, collection: &collection, version: *version, parts: &mut parts };
        let puts = |new: bool| {
            items.items.iter().filter_map(move |item| match &item.now {
                Now::Put { document, stamp, .. } if item.stored.is_none() == new => {
                    Some((item, document.as_slice(), *stamp))
                }
                _ => None,
            })
        };
        builder.commands(
            "insert",
            "documents",
            1,
            puts(true),
            |(_, document, _)| document.len(),
            |array, (_, document, _)| {
                array.bytes.extend_from_slice(document);
            },
        );
        builder.commands(
            "update",
            "updates",
            0,
            puts(false),
            |(_, document, _)| document.len(),
            |array, (item, document, stamp)| {
                let update = array.begin();
                array.within(DOCUMENT, "q", |query| {
                    query.element(STRING, "_id");
                    query.text_with(|bytes| text::push(bytes, &item.id));
                    // A stamp never goes back, whatever else may have gone wrong.
                    query.within(DOCUMENT, "_hw.stamp", |condition| condition.int("$lt", stamp as i64));
                });
                array.element(DOCUMENT, "u");
                array.bytes.extend_from_slice(document);
                array.end(update);
            },
        );
        let deletes = items.items.iter().filter(|item| matches!(item.now, Now::Deleted) && item.stored.is_some());
        builder.commands(
            "delete",
            "deletes",
            -1,
            deletes,
            |item| item.id.len(),
            |array, item| {
                let delete = array.begin();
                array.within(DOCUMENT, "q", |query| {
                    query.element(STRING, "_id");
                    query.text_with(|bytes| text::push(bytes, &item.id));
                });
                array.int("limit", 1);
                array.end(delete);
            },
        );
    }
    parts
}

struct Builder<'b> {
    server: &'b Server,
    collection: &'b str,
    version: VersionId,
    parts: &'b mut Vec<Part>,
}

impl Builder<'_> {
    /// Commands of one kind for documents of which each makes one element, and each changes the count by `difference`.
    fn commands<T>(
        &mut self,
        name: &str,
        list: &str,
        difference: i64,
        items: impl Iterator<Item = T>,
        size: impl Fn(&T) -> usize,
        mut write: impl FnMut(&mut Writer, T),
    ) {
        let mut items = items.peekable();
        while items.peek().is_some() {
            let mut documents = 0;
            let command = self.server.bounded_command(name, self.collection, |command| {
                command.within(ARRAY, list, |array| {
                    let start = array.bytes.len();
                    while let Some(item) = items.next_if(|next| {
                        documents == 0
                            || documents < COMMAND_DOCUMENTS && array.bytes.len() - start + size(next) < COMMAND_BYTES
                    }) {
                        array.item(DOCUMENT, documents);
                        write(array, item);
                        documents += 1;
                    }
                });
            });
            self.add(command, documents, difference);
        }
    }

    fn add(&mut self, command: RawDocumentBuf, documents: usize, difference: i64) {
        let bytes = command.as_bytes().len();
        let full = self.parts.last().is_none_or(|part| {
            part.documents > 0
                && (part.bytes + bytes > TRANSACTION_BYTES || part.documents + documents > TRANSACTION_DOCUMENTS)
        });
        if full {
            self.parts.push(Part::default());
        }
        let part = self.parts.last_mut().expect("there is one now");
        part.bytes += bytes;
        part.documents += documents;
        if difference != 0 {
            let changed = i64::try_from(documents).expect("few thousand") * difference;
            *part.counts.entry(self.version).or_default() += changed;
        }
        part.writes.push(Write { command, documents });
    }
}

/// Versions and frontiers.
fn registry_writes(store: &MongoDocuments, gathered: &Gathered) -> Vec<RawDocumentBuf> {
    let server = &store.reader.server;
    let mut writes = Vec::new();
    let update = |collection: &str, query: Document, update: Document, upsert: bool| {
        let update = doc! { "q": query, "u": update, "upsert": upsert, "multi": !upsert };
        RawDocumentBuf::try_from(&doc! { "update": collection, "updates": [update] }).expect("names without zero bytes")
    };
    for (VersionId(id), record) in &gathered.versions {
        let id = i64::from(*id);
        if record.state == VersionState::Active {
            let others = doc! { "model": &record.model, "state": "active", "_id": { "$ne": id } };
            writes.push(update(VERSIONS, others, doc! { "$set": { "state": "retired" } }, false));
        }
        let fields = doc! {
            "projector": &store.projector,
            "model": &record.model,
            "state": state_word(record.state),
            "record": serde_json::to_string(record).expect("a record has only string keys"),
        };
        writes.push(update(VERSIONS, doc! { "_id": id }, doc! { "$set": fields }, true));
    }
    if !gathered.removed.is_empty() {
        let ids: Vec<i64> = gathered.removed.iter().map(|VersionId(id)| i64::from(*id)).collect();
        for collection in [VERSIONS, COUNTS] {
            let delete = doc! { "q": { "_id": { "$in": ids.clone() } }, "limit": 0 };
            let command = doc! { "delete": collection, "deletes": [delete] };
            writes.push(RawDocumentBuf::try_from(&command).expect("names without zero bytes"));
        }
    }
    for (source, frontier) in &gathered.frontiers {
        let document = frontier_document(&store.projector, source, frontier);
        writes.push(server.bounded_command("update", FRONTIERS, |command| {
            command.within(ARRAY, "updates", |updates| {
                updates.item(DOCUMENT, 0);
                let update = updates.begin();
                updates.within(DOCUMENT, "q", |query| query.text("_id", &format!("{}/{source}", store.projector)));
                updates.element(DOCUMENT, "u");
                updates.bytes.extend_from_slice(document.as_bytes());
                updates.bool("upsert", true);
                updates.end(update);
            });
        }));
    }
    writes
}
