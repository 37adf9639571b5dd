//! Follows what is written, by whatever process, through a change stream of the server.
//!
//! Documents are told to listeners a transaction at a time; frontiers and versions are published. What this process wrote
//! itself it has told already. When the server's history does not reach back to where we were, everything is read again
//! and listeners are told that they missed some.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mongodb::error::{ErrorKind, RESUMABLE_CHANGE_STREAM_ERROR};
use serde::Deserialize;

use super::registry::{FRONTIERS, Registry, VERSIONS};
use crate::mongodb::server::{Fault, Server};
use crate::mongodb::text;
use crate::{DocumentChange, VersionId, VersionState};

/// Changes told in one message, at most, however large the transaction is.
const CHANGES_MAX: usize = 10_000;

/// How long the server may wait for a change before it answers that there is none.
const ANSWER_EVERY: Duration = Duration::from_secs(1);
/// Without an answer for so long, the connection is given up: it may be dead without having said so.
const SILENCE_MAX: Duration = Duration::from_secs(10);

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) type Stream = ChangeStream<Event>;

/// A change, as far as it concerns us.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    operation_type: String,
    ns: Namespace,
    document_key: Option<DocumentKey>,
    full_document: Option<RawDocumentBuf>,
    lsid: Option<Document>,
    txn_number: Option<i64>,
}

#[derive(Deserialize)]
struct Namespace {
    coll: Option<String>,
}

#[derive(Deserialize)]
struct DocumentKey {
    #[serde(rename = "_id")]
    id: Bson,
}

/// A transaction: who made it, and its number there.
type Transaction = Option<(Vec<u8>, i64)>;

impl Event {
    fn transaction(&self) -> Transaction {
        match self.lsid.as_ref()?.get("id")? {
            Bson::Binary(id) => Some((id.bytes.clone(), self.txn_number?)),
            _ => None,
        }
    }
}

/// Begins to watch, then reads everything there is: nothing falls between the two.
pub(super) async fn begin(server: &Server, registry: &Registry) -> Result<Stream, Fault> {
    let stream = watch(server, None).await?;
    registry.read(server).await?;
    Ok(stream)
}

async fn watch(server: &Server, after: Option<ResumeToken>) -> Result<Stream, Fault> {
    let pipeline = [
        doc! { "$match": {
            "operationType": { "$in": ["insert", "update", "replace", "delete"] },
            "ns.coll": { "$regex": format!("^({}|{}|[^.]*_v[0-9]+)$", escaped(VERSIONS), escaped(FRONTIERS)) },
        } },
        doc! { "$project": {
            "operationType": 1,
            "ns": 1,
            "documentKey": 1,
            "lsid.id": 1,
            "txnNumber": 1,
            "fullDocument._hw.stamp": 1,
            "fullDocument.projector": 1,
            "fullDocument.source": 1,
            "fullDocument.position": 1,
            "fullDocument.at_micros": 1,
            "fullDocument.snapshot_done": 1,
        } },
    ];
    let watch = server.database.watch().pipeline(pipeline).resume_after(after);
    Ok(watch.max_await_time(ANSWER_EVERY).await?.with_type())
}

fn escaped(name: &str) -> String {
    name.replace('.', "\\.")
}

/// Follows until it is aborted.
pub(super) async fn follow(server: Arc<Server>, registry: Arc<Registry>, mut stream: Stream) {
    let mut follower = Follower { server, registry, token: None, told: None, changes: Vec::new() };
    loop {
        let ended = follower.read(&mut stream).await;
        follower.tell();
        stream = follower.again(ended).await;
    }
}

struct Follower {
    server: Arc<Server>,
    registry: Arc<Registry>,
    /// Behind the last change that was taken.
    token: Option<ResumeToken>,
    /// The transaction to which `changes` belong.
    told: Transaction,
    changes: Vec<DocumentChange>,
}

impl Follower {
    /// Takes changes as they come, until something fails.
    async fn read(&mut self, stream: &mut Stream) -> Fault {
        loop {
            let answered = {
                let mut next = pin!(stream.next_if_any());
                // What has come already is taken without waiting; before waiting, what was taken is told.
                match next.as_mut().now_or_never() {
                    Some(answered) => answered,
                    None => {
                        self.tell();
                        let Ok(answered) = tokio::time::timeout(SILENCE_MAX, next).await else {
                            return Fault::NoAnswer;
                        };
                        answered
                    }
                }
            };
            let taken = match answered {
                Ok(Some(event)) => self.take(event).await,
                Ok(None) if stream.is_alive() => Ok(()),
                Ok(None) => Err(Fault::Refused("the server ended the stream of changes".into())),
                Err(error) => Err(error.into()),
            };
            if let Err(fault) = taken {
                return fault;
            }
            self.registry.heard();
            // It moves on also where nothing of what changes concerns us: the server's history does not reach back for ever.
            self.token = stream.resume_token();
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), Fault> {
        let transaction = event.transaction();
        let own = transaction.as_ref().is_some_and(|(session, _)| self.registry.is_own(session));
        match event.ns.coll.as_deref() {
            Some(FRONTIERS) if self.registry.learns_frontiers_of(own) => {
                // Behind the documents it promises.
                self.tell();
                if let Some(frontier) = &event.full_document {
                    let mut learned = Ok(());
                    self.registry.change_frontiers(|state| learned = state.learn_frontier(frontier));
                    learned?;
                }
            }
            _ if own => {}
            Some(VERSIONS) => {
                self.tell();
                self.registry.read_versions(&self.server).await?;
            }
            Some(FRONTIERS) | None => {}
            Some(collection) => {
                if let Some(change) = self.change(collection, &event) {
                    if self.told != transaction || self.changes.len() == CHANGES_MAX {
                        self.tell();
                    }
                    self.told = transaction;
                    self.changes.push(change);
                }
            }
        }
        Ok(())
    }

    /// The change of a document of a version that is not on its way out.
    fn change(&self, collection: &str, event: &Event) -> Option<DocumentChange> {
        if self.registry.changes.receiver_count() == 0 {
            return None;
        }
        let version = collection.rsplit_once("_v").and_then(|(_, id)| id.parse().ok()).map(VersionId)?;
        let retired = self.registry.with(|state| {
            let known = state.versions.get(&version).filter(|known| known.collection == collection);
            known.is_none_or(|it| it.record.as_ref().is_some_and(|it| it.state == VersionState::Retired))
        });
        if retired {
            return None;
        }
        let mut id = Vec::new();
        let known = text::decode(&mut id, event.document_key.as_ref()?.id.as_str()?);
        let stamp = match event.operation_type.as_str() {
            "delete" => None,
            _ => Some(event.full_document.as_ref()?.get_document("_hw").ok()?.get_i64("stamp").ok()? as u64),
        };
        known.then(|| DocumentChange { version, id: Bytes::from(id), stamp })
    }

    fn tell(&mut self) {
        if !self.changes.is_empty() {
            self.registry.tell(std::mem::take(&mut self.changes));
        }
        self.told = None;
    }

    /// Watches again: from where it was, or, where that is lost, from now on, after everything was read again.
    async fn again(&mut self, mut fault: Fault) -> Stream {
        let mut pause = PAUSE_MIN;
        loop {
            if is_lost(&fault) {
                self.token = None;
            }
            tracing::debug!(?fault, resumes = self.token.is_some(), "watching for changes again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let resumed = self.token.is_some();
            let watched = self.server.bounded(async {
                match self.token.clone() {
                    Some(token) => watch(&self.server, Some(token)).await,
                    None => {
                        let stream = watch(&self.server, None).await?;
                        // Before the frontiers that promise what was missed.
                        self.registry.tell(Vec::new());
                        self.registry.read(&self.server).await?;
                        Ok(stream)
                    }
                }
            });
            match watched.await {
                Ok(stream) => {
                    self.registry.heard();
                    if !resumed {
                        tracing::warn!("changes of documents were missed; listeners read again");
                    }
                    return stream;
                }
                Err(failed) => fault = failed,
            }
        }
    }
}

/// Whether the stream cannot go on where it was. When in doubt it cannot: reading all again is always right.
fn is_lost(fault: &Fault) -> bool {
    match fault {
        Fault::NoAnswer => false,
        Fault::Driver(error) => {
            let of_connection = matches!(
                &*error.kind,
                ErrorKind::Io(_) | ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. }
            );
            !(of_connection || error.contains_label(RESUMABLE_CHANGE_STREAM_ERROR))
        }
        _ => true,
    }
}
