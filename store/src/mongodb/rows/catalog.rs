//! What the store knows about its rows: schemas, join indexes, counts, offsets and notes. Read once, then kept in memory;
//! changes are written with the transaction they belong to.

use std::collections::{BTreeMap, HashSet};

use headwater_schemas::{TableId, TableSchema};
use mongodb::bson::{RawDocument, RawDocumentBuf};

use crate::JoinIndex;
use crate::mongodb::bson::{STRING, Writer};
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
    /// Whether it holds what was not committed.
    pub(super) unsettled: bool,
    /// Documents to write with the transaction, by id; `None` removes.
    changed: BTreeMap<String, Option<RawDocumentBuf>>,
}

const BROKEN: Fault = Fault::Damaged("an entry about its rows cannot be read");

impl Catalog {
    pub(super) async fn read(server: &Server, collection: &str) -> Result<Self, Fault> {
        let mut catalog = Self::default();
        let command = server.bounded_command("find", collection, |find| {
            find.within(crate::mongodb::bson::DOCUMENT, "filter", |_| {});
            find.within(crate::mongodb::bson::DOCUMENT, "sort", |sort| sort.int("_id", 1));
            find.within(crate::mongodb::bson::DOCUMENT, "readConcern", |concern| concern.text("level", "majority"));
        });
        server.read(command, None, |document| catalog.learn(document)).await?;
        Ok(catalog)
    }

    fn learn(&mut self, document: &RawDocument) -> Result<(), Fault> {
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
            self.unsettled = true;
            self.changed.insert(format!("join:{}", join.number), None);
        }
    }

    pub(super) fn add_rows(&mut self, collection: &str, added: u64) {
        let count = self.counts.entry(collection.to_owned()).or_default();
        *count += added;
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
                self.put(format!("note:{name}"), |document| document.binary("value", value));
                self.notes.insert(name.to_owned(), value.to_vec());
            }
            None => {
                self.unsettled = true;
                self.changed.insert(format!("note:{name}"), None);
                self.notes.remove(name);
            }
        }
    }

    /// What has changed since the last time it was asked, by id; `None` removes.
    pub(super) fn take_changed(&mut self) -> BTreeMap<String, Option<RawDocumentBuf>> {
        std::mem::take(&mut self.changed)
    }
}
