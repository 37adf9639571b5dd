//! What the store knows about its rows: schemas, join indexes, counts, offsets and notes. Read once, then kept in memory;
//! changes are written with the transaction they belong to.

use std::collections::{BTreeMap, HashSet};

use headwater_schemas::{TableId, TableSchema};
use mongodb::ClientSession;
use mongodb::bson::{RawDocument, RawDocumentBuf};

use crate::JoinIndex;
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING, Writer};
use crate::mongodb::owner::Owner;
use crate::mongodb::server::{Fault, Server};

/// A join index: its number, never given twice, and whether it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) number: u32,
    pub(super) complete: bool,
}

#[derive(Default)]
pub(super) struct Catalog {
    pub(super) schemas: Vec<TableSchema>,
    pub(super) joins: BTreeMap<JoinIndex, Join>,
    next_join: u32,
    /// Rows by name of collection.
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) offsets: BTreeMap<(String, u32), u64>,
    pub(super) notes: BTreeMap<String, Vec<u8>>,
    /// Collections that are known to be there, with their index.
    pub(super) made: HashSet<String>,
    /// How often schemas and join indexes had been changed when they were read, where several processes do so.
    generation: Option<u64>,
    /// Whether the transaction at hand changes them.
    renamed: bool,
    /// Whether it holds what was not committed, or, where others write too, was read in a transaction that was not.
    pub(super) unsettled: bool,
    /// Documents to write with the transaction, by id; `None` removes.
    changed: BTreeMap<String, Option<RawDocumentBuf>>,
}

const BROKEN: Fault = Fault::Damaged("an entry about its rows cannot be read");

/// Where the generation is kept.
const GENERATION: &str = "generation:";

fn note_id(name: &str) -> String {
    format!("note:{name}")
}

/// Reads notes as a transaction sees them, by name.
pub(super) async fn read_notes(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
    names: &[&String],
) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
    let mut found = Catalog::default();
    let command = server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |filter| {
            filter.within(DOCUMENT, "_id", |id| {
                id.array("$in", STRING, names, |writer, name| writer.text_value(&note_id(name)));
            });
        });
        find.int("batchSize", 1_000_000);
    });
    server.read(command, Some(session), |document| found.learn(document)).await?;
    Ok(found.notes)
}

/// Asks for one entry.
fn by_id(server: &Server, collection: &str, id: &str) -> RawDocumentBuf {
    server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |filter| filter.text("_id", id));
        find.int("limit", 1);
    })
}

/// Reads the offsets as a transaction sees them.
pub(super) async fn read_offsets(
    server: &Server,
    session: &mut ClientSession,
    collection: &str,
) -> Result<BTreeMap<(String, u32), u64>, Fault> {
    let mut found = Catalog::default();
    let command = server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |filter| {
            filter.within(DOCUMENT, "_id", |id| {
                id.text("$gt", "offset:");
                id.text("$lt", "offset;");
            });
        });
        find.int("batchSize", 1_000_000);
    });
    server.read(command, Some(session), |document| found.learn(document)).await?;
    Ok(found.offsets)
}

impl Catalog {
    /// Everything, as its only writer left it. Read in a transaction, as the rows are, since a commit that got no answer may
    /// be there before majority reads see it; and that one is committed, so that it cannot go away any more.
    pub(super) async fn read(server: &Server, owner: &Owner, collection: &str) -> Result<Self, Fault> {
        let mut catalog = Self::default();
        let command = server.bounded_command("find", collection, |find| {
            find.within(DOCUMENT, "filter", |_| {});
            find.within(DOCUMENT, "sort", |sort| sort.int("_id", 1));
        });
        let mut session = server.begin().await?;
        server.read(command, Some(&mut session), |document| catalog.learn(document)).await?;
        owner.commit(server, &mut session).await?;
        Ok(catalog)
    }

    /// Makes it what a transaction sees, where others write too: schemas and join indexes are read if they have changed.
    /// Notes and offsets are not kept; those that are here are the transaction's own.
    pub(super) async fn refresh(
        &mut self,
        server: &Server,
        session: &mut ClientSession,
        collection: &str,
    ) -> Result<(), Fault> {
        let mut generation = 0;
        let command = by_id(server, collection, GENERATION);
        let each = |document: &RawDocument| {
            generation = document.get_i64("n").map_err(|_| BROKEN)? as u64;
            Ok(())
        };
        server.read(command, Some(&mut *session), each).await?;
        if self.unsettled || self.generation != Some(generation) {
            let made = std::mem::take(&mut self.made);
            // Until all is read.
            *self = Self { unsettled: true, made, ..Self::default() };
            let command = server.bounded_command("find", collection, |find| {
                // Everything but notes, of which some are large.
                find.within(DOCUMENT, "filter", |filter| {
                    filter.within(ARRAY, "$or", |either| {
                        for (at, (condition, bound)) in [("$lt", "note:"), ("$gt", "note;")].into_iter().enumerate() {
                            either.item(DOCUMENT, at);
                            let begun = either.begin();
                            either.within(DOCUMENT, "_id", |id| id.text(condition, bound));
                            either.end(begun);
                        }
                    });
                });
                find.within(DOCUMENT, "sort", |sort| sort.int("_id", 1));
            });
            server.read(command, Some(session), |document| self.learn(document)).await?;
            self.generation = Some(generation);
        }
        // Only the commit says that it was not read from a server that had been replaced.
        self.unsettled = true;
        self.notes.clear();
        self.offsets.clear();
        Ok(())
    }

    /// A note as this transaction has written it, if it has.
    pub(super) fn own_note(&self, name: &str) -> Option<Option<Vec<u8>>> {
        self.changed.contains_key(&note_id(name)).then(|| self.notes.get(name).cloned())
    }

    /// Has others read schemas and join indexes again, if this transaction changes them.
    pub(super) fn tell_others(&mut self) {
        if std::mem::take(&mut self.renamed) {
            let generation = self.generation.unwrap_or(0) + 1;
            self.put(GENERATION.into(), |document| document.int("n", generation as i64));
            self.generation = Some(generation);
        }
    }

    pub(super) fn learn(&mut self, document: &RawDocument) -> Result<(), Fault> {
        let id = document.get_str("_id").map_err(|_| BROKEN)?;
        let number = |name: &str| document.get_i64(name).ok().and_then(|n| u64::try_from(n).ok()).ok_or(BROKEN);
        let small = |name: &str| number(name).and_then(|n| u32::try_from(n).map_err(|_| BROKEN));
        let text = |name: &str| document.get_str(name).map_err(|_| BROKEN);
        match id.split_once(':').ok_or(BROKEN)? {
            ("schema", at) => {
                // They come in the order of their numbers.
                if at.parse() != Ok(self.schemas.len()) {
                    return Err(BROKEN);
                }
                self.schemas.push(serde_json::from_str(text("schema")?).map_err(|_| BROKEN)?);
            }
            ("join", _) => {
                let table = TableId::new(text("source")?, text("schema")?, text("table")?);
                let columns = document.get_array("columns").map_err(|_| BROKEN)?.into_iter();
                let columns: Option<Vec<String>> =
                    columns.map(|column| Some(column.ok()?.as_str()?.to_owned())).collect();
                let join =
                    Join { number: small("number")?, complete: document.get_bool("complete").map_err(|_| BROKEN)? };
                self.joins.insert(JoinIndex { table, columns: columns.ok_or(BROKEN)? }, join);
            }
            ("joins", _) => self.next_join = small("next")?,
            ("count", name) => {
                self.counts.insert(name.to_owned(), number("rows")?);
                self.made.insert(name.to_owned());
            }
            ("offset", _) => {
                self.offsets.insert((text("topic")?.to_owned(), small("partition")?), number("next")?);
            }
            ("note", name) => {
                let value = document.get_binary("value").map_err(|_| BROKEN)?;
                self.notes.insert(name.to_owned(), value.bytes.to_vec());
            }
            // Of a later version of this program.
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, id: String, write: impl FnOnce(&mut Writer)) {
        self.unsettled = true;
        let document = Writer::document(|writer| {
            writer.text("_id", &id);
            write(writer);
        });
        self.changed.insert(id, Some(document));
    }

    pub(super) fn schema(&mut self, schema: &TableSchema) -> u32 {
        let at = self.schemas.iter().position(|known| known == schema).unwrap_or_else(|| {
            let at = self.schemas.len();
            self.schemas.push(schema.clone());
            self.renamed = true;
            let json = serde_json::to_string(schema).expect("a schema has only string keys");
            self.put(format!("schema:{at:08}"), |document| document.text("schema", &json));
            at
        });
        u32::try_from(at).expect("far fewer schemas than that")
    }

    /// Number of a join index, also of one that is not complete.
    pub(super) fn join(&mut self, index: &JoinIndex) -> u32 {
        if let Some(join) = self.joins.get(index) {
            return join.number;
        }
        let number = self.next_join;
        self.next_join += 1;
        self.put("joins:".into(), |document| document.int("next", i64::from(number) + 1));
        self.put_join(index, Join { number, complete: false });
        number
    }

    pub(super) fn put_join(&mut self, index: &JoinIndex, join: Join) {
        self.renamed = true;
        self.put(format!("join:{}", join.number), |document| {
            document.int("number", i64::from(join.number));
            document.bool("complete", join.complete);
            document.text("source", &index.table.source);
            document.text("schema", &index.table.schema);
            document.text("table", &index.table.table);
            document.array("columns", STRING, &index.columns, |writer, column| writer.text_value(column));
        });
        self.joins.insert(index.clone(), join);
    }

    pub(super) fn remove_join(&mut self, index: &JoinIndex) {
        if let Some(join) = self.joins.remove(index) {
            (self.unsettled, self.renamed) = (true, true);
            self.changed.insert(format!("join:{}", join.number), None);
        }
    }

    /// There are so many rows more, or fewer.
    pub(super) fn add_rows(&mut self, collection: &str, added: i64) {
        let count = self.counts.entry(collection.to_owned()).or_default();
        *count = count.saturating_add_signed(added);
        let count = *count;
        self.put(format!("count:{collection}"), |document| document.int("rows", count as i64));
    }

    pub(super) fn put_offset(&mut self, topic: &str, partition: u32, offset: u64) {
        self.put(format!("offset:{partition}:{topic}"), |document| {
            document.text("topic", topic);
            document.int("partition", i64::from(partition));
            document.int("next", offset as i64);
        });
        self.offsets.insert((topic.to_owned(), partition), offset);
    }

    pub(super) fn put_note(&mut self, name: &str, value: Option<&[u8]>) {
        match value {
            Some(value) => {
                self.put(note_id(name), |document| document.binary("value", value));
                self.notes.insert(name.to_owned(), value.to_vec());
            }
            None => {
                self.unsettled = true;
                self.changed.insert(note_id(name), None);
                self.notes.remove(name);
            }
        }
    }

    /// What has changed since the last time it was asked, by id; `None` removes.
    pub(super) fn take_changed(&mut self) -> BTreeMap<String, Option<RawDocumentBuf>> {
        std::mem::take(&mut self.changed)
    }
}
