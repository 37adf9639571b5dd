//! Brings what was gathered to the server.
//!
//! A gathering is one transaction, unless it is very large: then documents go ahead in several, and versions and frontiers
//! follow with the last. A transaction that is in another's way is made again as it is; one that is too large for the server,
//! in halves.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use mongodb::ClientSession;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::MongoDocuments;
use super::gathered::{Gathered, Item, Items, Now};
use super::parts::{Part, Write, parts, registry_writes};
use super::registry::{COUNTS, Known, VERSIONS, collection_name, count_id};
use super::transaction::{MongoDocumentTransaction, registry_claim};
use crate::mongodb::context::block;
use crate::mongodb::owner::Owner;
use crate::mongodb::server::Fault;
use crate::{DocumentChange, Error, VersionId};

/// Names of the two indexes over the entries.
pub(super) const ENTRIES_UP: &str = "entries_up";
pub(super) const ENTRIES_DOWN: &str = "entries_down";

pub(super) fn flush(transaction: MongoDocumentTransaction<'_>) -> Result<(), Error> {
    let started = Instant::now();
    let MongoDocumentTransaction { store, mut writing, gathered, mut written, bytes_written } = transaction;
    if gathered.is_nothing() {
        tell_missed(store, std::mem::take(&mut writing.unsettled));
        store.metrics.committed(started.elapsed(), 0, 0, written);
        return Ok(());
    }
    let server = &store.reader.server;
    let unsettled = std::mem::replace(&mut writing.unsettled, true);
    server.block("make collections", store.make_collections(&gathered))?;
    let mut changes = Vec::new();
    for (version, documents) in &gathered.stamped {
        let done = block(store.write_stamped(*version, documents, &mut changes));
        let done = done.map_err(|fault| server.fail("write documents", fault))?;
        written.written += done.written;
        written.deleted += done.deleted;
        written.unchanged += done.unchanged;
    }
    let mut parts = parts(store, &gathered);
    let mut last = parts.pop().unwrap_or_default();
    last.registry = registry_writes(store, &gathered);
    parts.push(last);
    // What was put and deleted again leaves nothing to write but its mark.
    for part in parts.iter().filter(|part| !part.is_empty() || gathered.mark.is_some()) {
        block(store.write(part, &gathered)).map_err(|fault| server.fail("write documents", fault))?;
    }
    writing.unsettled = false;
    if store.owner.is_some() {
        writing.remembered.flushed(&gathered);
    }
    tell_missed(store, unsettled);
    let dropped = store.publish(&gathered, changes);
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

/// Tells readers that they may have missed what an earlier flush wrote before it broke off.
fn tell_missed(store: &MongoDocuments, unsettled: bool) {
    if unsettled {
        store.reader.registry.tell(Vec::new());
    }
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
            reader.registry.change_versions(|state| drop(state.versions.insert(*version, known)));
        }
        Ok(())
    }

    /// Writes a part; the claim must be the last to the registry, where there is one.
    async fn write(&self, part: &Part, of: &Gathered) -> Result<(), Fault> {
        // Commands that go together, the next ones last. What is behind the documents goes with the last of them.
        let mut left: Vec<&[Write]> = vec![&part.writes[..]];
        while let Some(writes) = left.pop() {
            let registry = if left.is_empty() { &part.registry[..] } else { &[] };
            match self.write_at_once(writes, registry, of).await {
                // How much the server takes depends on its cache. Made again as it is, it would fail again.
                Err(Fault::TooLarge(_)) if writes.len() > 1 => {
                    let (first, rest) = writes.split_at(writes.len() / 2);
                    left.extend([rest, first]);
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Writes in one transaction.
    async fn write_at_once(&self, writes: &[Write], registry: &[RawDocumentBuf], of: &Gathered) -> Result<(), Fault> {
        let server = &self.reader.server;
        let claim = of.claim.map(|number| Owner { name: registry_claim(&self.projector), number });
        let written = server.again_while_in_the_way(async || {
            let work = async |session: &mut ClientSession| self.write_all(writes, registry, session).await;
            let ((), mut session) = self.begun(work).await?;
            match (&self.owner, &claim) {
                (Some(owner), _) => owner.commit_marked(server, &mut session, of.mark).await,
                (None, Some(claim)) => match claim.commit(server, &mut session).await {
                    Err(Fault::TakenOver) => Err(Fault::Superseded),
                    done => done,
                },
                (None, None) => Ok(session.commit_transaction().await?),
            }
        });
        match (written.await, &self.owner) {
            (Err(fault), Some(owner)) => server.bounded(async { Err(owner.explain(server, fault).await) }).await,
            (done, _) => done,
        }
    }

    /// A transaction in which this work is done, and which is still to be committed.
    pub(super) async fn begun<T>(
        &self,
        work: impl AsyncFnOnce(&mut ClientSession) -> Result<T, Fault>,
    ) -> Result<(T, ClientSession), Fault> {
        let mut session = self.reader.server.begin().await?;
        self.reader.registry.own(&session);
        match work(&mut session).await {
            Ok(done) => Ok((done, session)),
            Err(fault) => {
                // It is over already; this only frees what it holds sooner.
                let _ = session.abort_transaction().await;
                Err(fault)
            }
        }
    }

    pub(super) async fn write_all(
        &self,
        writes: &[Write],
        registry: &[RawDocumentBuf],
        session: &mut ClientSession,
    ) -> Result<(), Fault> {
        let server = &self.reader.server;
        let mut counts: BTreeMap<VersionId, i64> = BTreeMap::new();
        for write in writes {
            let (version, difference) = write.counted;
            *counts.entry(version).or_default() += difference;
            let answer = server.write(write.command.clone(), session).await?;
            if answer.get_i32("n").ok() != i32::try_from(write.documents).ok() {
                return Err(Fault::Refused("documents were changed by somebody else meanwhile".into()));
            }
        }
        for (version, difference) in counts.iter().filter(|(_, difference)| **difference != 0) {
            let counts = server.database.collection::<Document>(COUNTS);
            counts
                .update_one(
                    doc! { "_id": count_id(*version, self.counter) },
                    doc! { "$inc": { "documents": *difference } },
                )
                .upsert(true)
                .session(&mut *session)
                .await?;
        }
        for command in registry {
            server.write(command.clone(), session).await?;
        }
        Ok(())
    }

    /// Makes this process's readers see what was flushed; answers the collections that nobody needs any more.
    fn publish(&self, gathered: &Gathered, mut changes: Vec<DocumentChange>) -> Vec<String> {
        let registry = &self.reader.registry;
        let mut dropped = Vec::new();
        // Before the frontiers that promise them.
        if registry.changes.receiver_count() > 0 {
            let items = |(version, items): (&VersionId, &Items)| -> Vec<DocumentChange> {
                items.items.iter().filter_map(|item| change(*version, item)).collect()
            };
            changes.extend(gathered.documents.iter().flat_map(items));
            if !changes.is_empty() {
                registry.tell(changes);
            }
        }
        // Before the frontiers: which of them count depends on the versions.
        if !(gathered.versions.is_empty() && gathered.removed.is_empty()) {
            registry.change_versions(|state| {
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
            });
        }
        if !gathered.frontiers.is_empty() {
            registry.set_frontiers(|state| {
                for (source, frontier) in &gathered.frontiers {
                    state.frontiers.insert((self.projector.clone(), source.clone()), *frontier);
                }
            });
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
