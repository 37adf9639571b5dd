//! Documents with stamps of the caller's, written by several processes.
//!
//! A transaction reads what is there, and writes where the stamp is greater: the document, or, where it is deleted, a
//! trace with the stamp. A writer that is late finds one or the other. Two transactions about one document always write
//! something that both write, so that the later one fails and is made again: the document, where there is one; else the
//! trace, where there is one; else the document, which a delete inserts and removes for this.
//!
//! Traces stay for a day, longer than any writer is late.

use std::collections::HashMap;

use bytes::Bytes;
use mongodb::ClientSession;
use mongodb::bson::{DateTime, RawDocument, doc};

use super::MongoDocuments;
use super::gathered::Stamped;
use super::parts::{Builder, Part, TRANSACTION_BYTES, TRANSACTION_DOCUMENTS};
use super::stored::{self, BROKEN, Hash};
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{DocumentChange, VersionId, Written};

const TRACES: &str = "headwater.traces";

/// How long traces stay, in seconds.
const TRACES_SECONDS: i64 = 24 * 60 * 60;

/// Ids in one query.
const ASKED_IDS: usize = 5_000;

/// What is stored of the documents of one transaction, by id as it is stored.
#[derive(Default)]
struct There {
    documents: HashMap<String, (u64, Hash)>,
    traces: HashMap<String, u64>,
}

/// What is done about a document.
enum Step<'d> {
    /// The document is new, or new again, behind a trace.
    Insert(&'d Stamped, &'d [u8], bool),
    Replace(&'d Stamped, &'d [u8]),
    /// It is as it was; its stamp rises.
    Restamp(&'d Stamped),
    /// It goes, and leaves a trace.
    Remove(&'d Stamped),
    /// It is not there, and leaves a trace all the same.
    Trace(&'d Stamped, bool),
}

/// Makes the collection of traces.
pub(super) async fn make_traces(server: &Server) -> Result<(), Fault> {
    let index = doc! { "key": { "at": 1 }, "name": "at", "expireAfterSeconds": TRACES_SECONDS };
    let max_time_ms = i64::try_from(server.operation_max().as_millis()).unwrap_or(i64::MAX);
    let command = doc! {
        "createIndexes": TRACES, "indexes": [index], "writeConcern": { "w": "majority" }, "maxTimeMS": max_time_ms,
    };
    server.database.run_command(command).await?;
    Ok(())
}

impl MongoDocuments {
    /// Writes documents of a version, and adds to `changes` those that are other than before. Of a version that is gone,
    /// nothing is written.
    pub(super) async fn write_stamped(
        &self,
        version: VersionId,
        documents: &[Stamped],
        changes: &mut Vec<DocumentChange>,
    ) -> Result<Written, Fault> {
        let server = &self.reader.server;
        let mut written = Written::default();
        if self.reader.registry.collection(version).is_none() {
            // Another process made it a moment ago, or removed it.
            server.bounded(self.reader.registry.read_versions(server)).await?;
        }
        let Some(collection) = self.reader.registry.collection(version) else { return Ok(written) };
        let (mut rest, mut count_max) = (documents, TRANSACTION_DOCUMENTS);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |document: &&Stamped| {
                bytes += document.put.as_ref().map_or(0, |(_, document)| document.len());
                bytes <= TRANSACTION_BYTES
            };
            let count = rest.iter().take(count_max).take_while(fits).count().max(1);
            let (some, others) = rest.split_at(count);
            let transaction = async || self.try_stamped(version, &collection, some).await;
            let done = match server.again_while_in_the_way(transaction).await {
                // Made again with the same documents it would fail again.
                Err(Fault::TooLarge(_)) if count > 1 => {
                    count_max = count / 2;
                    continue;
                }
                done => done?,
            };
            written.written += done.0.written;
            written.deleted += done.0.deleted;
            written.unchanged += done.0.unchanged;
            changes.extend(done.1);
            rest = others;
        }
        Ok(written)
    }

    async fn try_stamped(
        &self,
        version: VersionId,
        collection: &str,
        documents: &[Stamped],
    ) -> Result<(Written, Vec<DocumentChange>), Fault> {
        let work = async |session: &mut ClientSession| {
            let there = self.read_there(version, collection, documents, session).await?;
            let (steps, written, changes) = decide(version, documents, &there);
            let part = self.stamped_part(version, collection, &steps);
            self.write_all(&part.writes, &part.registry, session).await?;
            Ok((written, changes))
        };
        let (done, mut session) = self.begun(work).await?;
        session.commit_transaction().await?;
        Ok(done)
    }

    async fn read_there(
        &self,
        version: VersionId,
        collection: &str,
        documents: &[Stamped],
        session: &mut ClientSession,
    ) -> Result<There, Fault> {
        let server = &self.reader.server;
        let mut there = There::default();
        for some in documents.chunks(ASKED_IDS) {
            let ids = some.iter().map(|document| text::of(&document.id));
            let query = find_ids(server, collection, ids, &["_hw.stamp", "_hw.hash"]);
            let each = |document: &RawDocument| {
                let id = document.get_str("_id").map_err(|_| BROKEN)?.to_owned();
                let stamp = stored::ours(document)?.get_i64("stamp").map_err(|_| BROKEN)?;
                there.documents.insert(id, (stamp as u64, stored::stored_hash(document)?));
                Ok(())
            };
            server.read(query, Some(&mut *session), each).await?;
            let others = some.iter().map(|document| text::of(&document.id));
            let others: Vec<String> = others.filter(|id| !there.documents.contains_key(id)).collect();
            if others.is_empty() {
                continue;
            }
            let beginning = trace_id(version, "");
            let query = find_ids(server, TRACES, others.iter().map(|id| trace_id(version, id)), &["stamp"]);
            let each = |trace: &RawDocument| {
                let id = trace.get_str("_id").ok().and_then(|id| id.strip_prefix(&beginning)).ok_or(BROKEN)?;
                let stamp = trace.get_i64("stamp").map_err(|_| BROKEN)?;
                there.traces.insert(id.to_owned(), stamp as u64);
                Ok(())
            };
            server.read(query, Some(&mut *session), each).await?;
        }
        Ok(there)
    }

    /// The commands of one transaction.
    fn stamped_part(&self, version: VersionId, collection: &str, steps: &[Step<'_>]) -> Part {
        let server = &self.reader.server;
        let mut parts = vec![Part::default()];
        let mut builder = Builder { server, collection, version, parts: &mut parts };
        let id = |writer: &mut Writer, id: &[u8]| {
            writer.element(STRING, "_id");
            writer.text_with(|bytes| text::push(bytes, id));
        };
        let inserts = steps.iter().filter_map(|step| match step {
            Step::Insert(_, document, _) => Some(*document),
            _ => None,
        });
        let append = |array: &mut Writer, document: &[u8]| array.bytes.extend_from_slice(document);
        builder.commands("insert", "documents", 1, inserts, |document| document.len(), append);
        // What nobody sees: it is removed below.
        let touched = steps.iter().filter_map(|step| match step {
            Step::Trace(document, false) => Some(*document),
            _ => None,
        });
        builder.commands(
            "insert",
            "documents",
            0,
            touched.clone(),
            |document| document.id.len(),
            |array, document| {
                let begun = array.begin();
                id(array, &document.id);
                array.end(begun);
            },
        );
        builder.commands(
            "delete",
            "deletes",
            0,
            touched,
            |document| document.id.len(),
            |array, document| {
                delete(array, |query| id(query, &document.id));
            },
        );
        let removes = steps.iter().filter_map(|step| match step {
            Step::Remove(document) => Some(*document),
            _ => None,
        });
        builder.commands(
            "delete",
            "deletes",
            -1,
            removes,
            |document| document.id.len(),
            |array, document| {
                delete(array, |query| id(query, &document.id));
            },
        );
        let updates = steps.iter().filter_map(|step| match step {
            Step::Replace(document, bytes) => Some((*document, Some(*bytes))),
            Step::Restamp(document) => Some((*document, None)),
            _ => None,
        });
        let size = |(document, bytes): &(&Stamped, Option<&[u8]>)| document.id.len() + bytes.map_or(64, <[u8]>::len);
        builder.commands("update", "updates", 0, updates, size, |array, (document, bytes)| {
            let update = array.begin();
            array.within(DOCUMENT, "q", |query| id(query, &document.id));
            match bytes {
                Some(bytes) => {
                    array.element(DOCUMENT, "u");
                    array.bytes.extend_from_slice(bytes);
                }
                None => array.within(DOCUMENT, "u", |change| {
                    change.within(DOCUMENT, "$set", |set| set.int("_hw.stamp", document.stamp as i64));
                }),
            }
            array.end(update);
        });
        let mut builder = Builder { server, collection: TRACES, version, parts: &mut parts };
        let gone = steps.iter().filter_map(|step| match step {
            Step::Insert(document, _, true) => Some(*document),
            _ => None,
        });
        builder.commands(
            "delete",
            "deletes",
            0,
            gone,
            |document| document.id.len(),
            |array, document| {
                delete(array, |query| query.text("_id", &trace_id(version, &text::of(&document.id))));
            },
        );
        let now = DateTime::now();
        let traces = steps.iter().filter_map(|step| match step {
            Step::Remove(document) | Step::Trace(document, _) => Some(*document),
            _ => None,
        });
        builder.commands(
            "update",
            "updates",
            0,
            traces,
            |document| document.id.len() + 64,
            |array, document| {
                let update = array.begin();
                let key = trace_id(version, &text::of(&document.id));
                array.within(DOCUMENT, "q", |query| query.text("_id", &key));
                array.within(DOCUMENT, "u", |trace| {
                    trace.text("_id", &key);
                    trace.int("stamp", document.stamp as i64);
                    trace.date("at", now.timestamp_millis());
                });
                array.bool("upsert", true);
                array.end(update);
            },
        );
        // One transaction, whatever it holds: it was cut to size before.
        let mut whole = Part::default();
        parts.into_iter().for_each(|part| whole.writes.extend(part.writes));
        whole
    }
}

/// What is to be done, what it comes to, and whom it concerns.
fn decide<'d>(
    version: VersionId,
    documents: &'d [Stamped],
    there: &There,
) -> (Vec<Step<'d>>, Written, Vec<DocumentChange>) {
    let (mut steps, mut written, mut changes) = (Vec::with_capacity(documents.len()), Written::default(), Vec::new());
    for document in documents {
        let id = text::of(&document.id);
        let (stored, trace) = (there.documents.get(&id), there.traces.get(&id));
        let newest = stored.map(|(stamp, _)| *stamp).max(trace.copied());
        if newest.is_some_and(|stamp| stamp >= document.stamp) {
            written.unchanged += 1;
            continue;
        }
        let mut tell = |stamp| {
            let id = Bytes::copy_from_slice(&document.id);
            changes.push(DocumentChange { version, id, stamp });
        };
        steps.push(match (&document.put, stored) {
            (Some((hash, _)), Some((_, before))) if hash == before => {
                written.unchanged += 1;
                Step::Restamp(document)
            }
            (Some((_, bytes)), stored) => {
                written.written += 1;
                tell(Some(document.stamp));
                match stored {
                    Some(_) => Step::Replace(document, bytes),
                    None => Step::Insert(document, bytes, trace.is_some()),
                }
            }
            (None, Some(_)) => {
                written.deleted += 1;
                tell(None);
                Step::Remove(document)
            }
            (None, None) => {
                written.unchanged += 1;
                Step::Trace(document, trace.is_some())
            }
        });
    }
    (steps, written, changes)
}

fn trace_id(VersionId(version): VersionId, id: &str) -> String {
    format!("{version}/{id}")
}

fn delete(array: &mut Writer, query: impl FnOnce(&mut Writer)) {
    let delete = array.begin();
    array.within(DOCUMENT, "q", query);
    array.int("limit", 1);
    array.end(delete);
}

fn find_ids(
    server: &Server,
    collection: &str,
    ids: impl Iterator<Item = String>,
    fields: &[&str],
) -> mongodb::bson::RawDocumentBuf {
    server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |filter| {
            filter.within(DOCUMENT, "_id", |condition| {
                condition.within(ARRAY, "$in", |array| {
                    for (at, id) in ids.enumerate() {
                        array.item(STRING, at);
                        array.text_value(&id);
                    }
                });
            });
        });
        find.within(DOCUMENT, "projection", |projection| fields.iter().for_each(|field| projection.int(field, 1)));
        find.int("batchSize", 1_000_000);
    })
}
