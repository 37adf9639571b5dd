//! The commands that bring what was gathered to the server, and in which transaction each goes.

use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::MongoDocuments;
use super::gathered::{Gathered, Now};
use super::registry::{COUNTS, FRONTIERS, VERSIONS, count_ids, frontier_document, state_word};
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::server::Server;
use crate::mongodb::text;
use crate::{VersionId, VersionState};

/// Bytes and documents of one transaction. The server keeps all of it in its cache until the commit.
pub(super) const TRANSACTION_BYTES: usize = 32 << 20;
pub(super) const TRANSACTION_DOCUMENTS: usize = 20_000;

/// Bytes and documents of one command.
const COMMAND_BYTES: usize = 4 << 20;
const COMMAND_DOCUMENTS: usize = 2_000;

/// A command, how many documents it must meet, and by how much it changes the number of which version's documents.
pub(super) struct Write {
    pub(super) command: RawDocumentBuf,
    pub(super) documents: usize,
    pub(super) counted: (VersionId, i64),
}

/// What goes in one transaction.
#[derive(Default)]
pub(super) struct Part {
    pub(super) writes: Vec<Write>,
    /// Versions and frontiers: behind the documents and their counts.
    pub(super) registry: Vec<RawDocumentBuf>,
    pub(super) bytes: usize,
    pub(super) documents: usize,
}

impl Part {
    /// Whether it does nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.registry.is_empty()
    }
}

/// The documents, in as few transactions as they fit.
pub(super) fn parts(store: &MongoDocuments, gathered: &Gathered) -> Vec<Part> {
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

/// Adds commands to the last part, and parts where that is full.
pub(super) struct Builder<'b> {
    pub(super) server: &'b Server,
    pub(super) collection: &'b str,
    pub(super) version: VersionId,
    pub(super) parts: &'b mut Vec<Part>,
}

impl Builder<'_> {
    /// Commands of one kind for documents of which each makes one element, and each changes the count by `difference`.
    pub(super) fn commands<T>(
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
        let counted = (self.version, i64::try_from(documents).expect("few thousand") * difference);
        part.writes.push(Write { command, documents, counted });
    }
}

/// Versions and frontiers.
pub(super) fn registry_writes(store: &MongoDocuments, gathered: &Gathered) -> Vec<RawDocumentBuf> {
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
        // Who has not heard that its version was retired is refused, since there can be no second of this id.
        let own = match record.state {
            VersionState::Retired => doc! { "_id": id },
            _ => doc! { "_id": id, "state": { "$ne": state_word(VersionState::Retired) } },
        };
        writes.push(update(VERSIONS, own, doc! { "$set": fields }, true));
    }
    if !gathered.removed.is_empty() {
        let ids: Vec<i64> = gathered.removed.iter().map(|VersionId(id)| i64::from(*id)).collect();
        let counts: Vec<i64> = gathered.removed.iter().flat_map(|version| count_ids(*version)).collect();
        for (collection, ids) in [(VERSIONS, ids), (COUNTS, counts)] {
            let delete = doc! { "q": { "_id": { "$in": ids } }, "limit": 0 };
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
                updates.within(DOCUMENT, "q", |query| {
                    query.text("_id", &format!("{}/{source}", store.projector));
                    // A leader that is late finds a newer one, and is refused, since there can be no second of this id.
                    if store.owner.is_none() {
                        let position = frontier.position.to_bytes();
                        query.within(DOCUMENT, "position", |bound| bound.binary("$lte", &position));
                    }
                });
                updates.element(DOCUMENT, "u");
                updates.bytes.extend_from_slice(document.as_bytes());
                updates.bool("upsert", true);
                updates.end(update);
            });
        }));
    }
    writes
}
