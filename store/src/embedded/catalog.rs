//! What the store knows by name, kept in memory and in the table `meta`.
//!
//! Keys of `meta` are a letter and a number or name:
//!
//! | letter | key | value |
//! |---|---|---|
//! | `M` | | format of the store |
//! | `T` | table number | the table's id, JSON |
//! | `R` | table number | its number of rows |
//! | `S` | schema number | the schema |
//! | `J` | join index number | whether it is complete (1 byte), the index, JSON |
//! | `V` | version | the record, JSON |
//! | `D` | version | its number of documents |
//! | `O` | partition, topic | offset, topic |
//! | `F` | source | frontier, source |
//! | `N` | name | a note |
//! | `C` | | last stamp given |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_schemas::{SourcePosition, TableId, TableSchema};
use heed::{RoTxn, RwTxn};

use super::environment::{Fault, Table};
use super::key::{push_last, take, take_u64};
use crate::{Frontier, JoinIndex, SchemaId, VersionId, VersionRecord};

/// Format of the store; a change that older code cannot read makes it greater, and so does one of the keys' bytes.
const FORMAT: u32 = 3;

/// Says in an empty `meta` of what format the store is.
pub(super) fn put_format(meta: Table, txn: &mut RwTxn<'_>) -> heed::Result<()> {
    meta.put(txn, b"M", &FORMAT.to_le_bytes())
}

/// One join index.
#[derive(Clone, Copy)]
pub(super) struct Join {
    pub number: u32,
    pub complete: bool,
}

/// Everything that has a name. Guarded by a lock that a batch holds from its beginning to its end.
#[derive(Default)]
pub(super) struct Catalog {
    pub tables: HashMap<TableId, u32>,
    pub schemas: Vec<TableSchema>,
    schema_numbers: HashMap<TableSchema, u32>,
    pub joins: HashMap<JoinIndex, Join>,
    last_join: u32,
    pub versions: BTreeMap<VersionId, VersionRecord>,
    pub frontiers: BTreeMap<String, Frontier>,
    /// By table number.
    pub rows: HashMap<u32, u64>,
    pub documents: BTreeMap<VersionId, u64>,
    /// Last stamp given.
    pub stamp: u64,
    /// A batch changed this and has not been committed (yet): what is on disk counts.
    pub unsettled: bool,
}

/// A key of `meta` with a number.
pub(super) fn numbered(letter: u8, number: u32) -> [u8; 5] {
    let n = number.to_be_bytes();
    [letter, n[0], n[1], n[2], n[3]]
}

/// A key of `meta` with a name.
pub(super) fn named(letter: u8, name: &str) -> Vec<u8> {
    let mut key = vec![letter];
    push_last(&mut key, name.as_bytes());
    key
}

impl Catalog {
    /// Reads it from `meta`.
    pub(super) fn read(meta: Table, txn: &RoTxn<'_>) -> Result<Self, Fault> {
        let found = meta.get(txn, b"M")?.and_then(|format| format.try_into().ok()).map(u32::from_le_bytes);
        if found != Some(FORMAT) {
            return Err(Fault::OtherFormat { found, read: FORMAT });
        }
        let mut catalog = Self::default();
        for entry in meta.iter(txn)? {
            let (key, value) = entry?;
            let Some((letter, name)) = key.split_first() else { continue };
            catalog.take_entry(*letter, name, value).ok_or(Fault::Damaged("its list of names cannot be read"))?;
        }
        // Stamps are never used again, even if the machine stopped and took the last commits along, or the store is a
        // new one: they start from the clock. They would overtake it only at a million documents a second.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        catalog.stamp = catalog.stamp.max(u64::try_from(now).unwrap_or(0));
        Ok(catalog)
    }

    fn take_entry(&mut self, letter: u8, name: &[u8], mut value: &[u8]) -> Option<()> {
        let number = || Some(u32::from_be_bytes(name.try_into().ok()?));
        match letter {
            b'T' => {
                self.tables.insert(serde_json::from_slice(value).ok()?, number()?);
            }
            b'R' => {
                self.rows.insert(number()?, take_u64(&mut value)?);
            }
            b'S' => {
                let schema = TableSchema::from_bytes(value)?;
                // They come in the order of their numbers.
                if number()? as usize != self.schemas.len() {
                    return None;
                }
                self.schema_numbers.insert(schema.clone(), number()?);
                self.schemas.push(schema);
            }
            b'J' => {
                let number = number()?;
                let complete = take(&mut value, 1)? == [1];
                self.last_join = self.last_join.max(number);
                // One that was dropped keeps its number out of use.
                if !value.is_empty() {
                    let (table, columns) = serde_json::from_slice(value).ok()?;
                    self.joins.insert(JoinIndex { table, columns }, Join { number, complete });
                }
            }
            b'V' => {
                self.versions.insert(VersionId(number()?), serde_json::from_slice(value).ok()?);
            }
            b'D' => {
                self.documents.insert(VersionId(number()?), take_u64(&mut value)?);
            }
            b'F' => {
                let (frontier, source) = decode_frontier(value)?;
                self.frontiers.insert(source, frontier);
            }
            b'C' => self.stamp = take_u64(&mut value)?,
            _ => {}
        }
        Some(())
    }

    /// Number of a table, given the first time.
    pub(super) fn table(&mut self, meta: Table, txn: &mut RwTxn<'_>, table: &TableId) -> Result<u32, Fault> {
        if let Some(number) = self.tables.get(table) {
            return Ok(*number);
        }
        self.unsettled = true;
        let number = self.tables.values().max().map_or(1, |last| last + 1);
        meta.put(txn, &numbered(b'T', number), &json(table))?;
        self.tables.insert(table.clone(), number);
        Ok(number)
    }

    /// Number of a join index, given the first time.
    pub(super) fn join(&mut self, meta: Table, txn: &mut RwTxn<'_>, index: &JoinIndex) -> Result<u32, Fault> {
        if let Some(join) = self.joins.get(index) {
            return Ok(join.number);
        }
        self.last_join += 1;
        let join = Join { number: self.last_join, complete: false };
        self.put_join(meta, txn, index, join)?;
        Ok(join.number)
    }

    /// Stores the state of a join index.
    pub(super) fn put_join(
        &mut self,
        meta: Table,
        txn: &mut RwTxn<'_>,
        index: &JoinIndex,
        join: Join,
    ) -> Result<(), Fault> {
        self.unsettled = true;
        let mut value = vec![u8::from(join.complete)];
        value.extend_from_slice(&json(&(&index.table, &index.columns)));
        meta.put(txn, &numbered(b'J', join.number), &value)?;
        self.joins.insert(index.clone(), join);
        Ok(())
    }

    /// Forgets a join index; its number is not used again.
    pub(super) fn remove_join(&mut self, meta: Table, txn: &mut RwTxn<'_>, index: &JoinIndex) -> Result<(), Fault> {
        self.unsettled = true;
        if let Some(join) = self.joins.remove(index) {
            meta.put(txn, &numbered(b'J', join.number), &[0])?;
        }
        Ok(())
    }

    /// Number of a schema, given the first time.
    pub(super) fn schema(&mut self, meta: Table, txn: &mut RwTxn<'_>, schema: &TableSchema) -> Result<SchemaId, Fault> {
        if let Some(number) = self.schema_numbers.get(schema) {
            return Ok(SchemaId(*number));
        }
        self.unsettled = true;
        let number = u32::try_from(self.schemas.len()).map_err(|_| Fault::Damaged("it holds 2^32 table schemas"))?;
        meta.put(txn, &numbered(b'S', number), &schema.to_bytes())?;
        self.schema_numbers.insert(schema.clone(), number);
        self.schemas.push(schema.clone());
        Ok(SchemaId(number))
    }

    /// Stores a version.
    pub(super) fn put_version(
        &mut self,
        meta: Table,
        txn: &mut RwTxn<'_>,
        record: &VersionRecord,
    ) -> Result<(), Fault> {
        self.unsettled = true;
        meta.put(txn, &numbered(b'V', record.id.0), &json(record))?;
        self.versions.insert(record.id, record.clone());
        Ok(())
    }

    /// Forgets a version and its number of documents.
    pub(super) fn remove_version(&mut self, meta: Table, txn: &mut RwTxn<'_>, version: VersionId) -> Result<(), Fault> {
        self.unsettled = true;
        meta.delete(txn, &numbered(b'V', version.0))?;
        meta.delete(txn, &numbered(b'D', version.0))?;
        self.versions.remove(&version);
        self.documents.remove(&version);
        Ok(())
    }

    /// Stores how far a source is projected.
    pub(super) fn put_frontier(
        &mut self,
        meta: Table,
        txn: &mut RwTxn<'_>,
        source: &str,
        frontier: Frontier,
    ) -> Result<(), Fault> {
        self.unsettled = true;
        meta.put(txn, &named(b'F', source), &encode_frontier(frontier, source))?;
        self.frontiers.insert(source.to_owned(), frontier);
        Ok(())
    }

    /// Stores the last stamp.
    pub(super) fn put_stamp(&self, meta: Table, txn: &mut RwTxn<'_>) -> Result<(), Fault> {
        Ok(meta.put(txn, b"C", &self.stamp.to_le_bytes())?)
    }

    /// The registry as readers are told.
    pub(super) fn published_versions(&self) -> Arc<Vec<VersionRecord>> {
        Arc::new(self.versions.values().cloned().collect())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have no maps with other keys than text, and nothing else can fail")
}

fn encode_frontier(frontier: Frontier, source: &str) -> Vec<u8> {
    let mut value = frontier.position.to_bytes().to_vec();
    value.extend_from_slice(&frontier.at_micros.to_le_bytes());
    value.push(u8::from(frontier.snapshot_done));
    value.extend_from_slice(source.as_bytes());
    value
}

fn decode_frontier(mut value: &[u8]) -> Option<(Frontier, String)> {
    let position = SourcePosition::from_bytes(take(&mut value, SourcePosition::LEN)?)?;
    let at_micros = take_u64(&mut value)? as i64;
    let snapshot_done = take(&mut value, 1)? == [1];
    Some((Frontier { position, at_micros, snapshot_done }, std::str::from_utf8(value).ok()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::environment::Environment;
    use super::super::{EmbeddedOptions, EmbeddedStore, checkpoint};
    use super::*;
    use crate::{ErrorKind, RowStore, RowWrite};

    /// The format that is found, where it is another one.
    fn other_format(meta: Table, txn: &RoTxn<'_>) -> Option<Option<u32>> {
        match Catalog::read(meta, txn) {
            Err(Fault::OtherFormat { found, read: FORMAT }) => Some(found),
            _ => None,
        }
    }

    #[test]
    fn a_store_of_another_format_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
        let boot = checkpoint::boot();
        let Ok((environment, settled)) = Environment::open(&options, boot) else { panic!("an empty store opens") };
        let (env, meta) = (&environment.env, environment.tables.meta);
        let mut txn = env.write_txn().expect("a transaction");
        assert!(Catalog::read(meta, &txn).is_ok());
        meta.put(&mut txn, b"M", &2_u32.to_le_bytes()).expect("room");
        assert_eq!(other_format(meta, &txn), Some(Some(2)));
        txn.commit().expect("room");
        drop(environment);
        drop(settled);
        let Err(refused) = EmbeddedStore::open(options) else { panic!("it is of another format") };
        assert_eq!(refused.kind(), ErrorKind::Fatal);
        let told = refused.to_string();
        assert!(told.contains("its format is 2, this version reads 3") && !told.contains("damaged"), "{told}");
    }

    #[test]
    fn a_store_of_rows_alone_says_its_format_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
        let store = EmbeddedStore::open(options.clone()).expect("an empty store opens");
        let mut batch = RowStore::begin(&*store).expect("a batch");
        let (schema, position) = (SchemaId(0), SourcePosition::after_commit(1, 1));
        let write = RowWrite { key: b"key", row: None, schema, position, removed: &[], added: &[] };
        batch.put_row(&TableId::new("billing", "public", "lines"), &[], write).expect("room");
        batch.commit().expect("room");
        drop(store);
        let Ok((environment, _settled)) = Environment::open(&options, None) else { panic!("it is sound") };
        let (env, meta) = (&environment.env, environment.tables.meta);
        let mut txn = env.write_txn().expect("a transaction");
        assert!(Catalog::read(meta, &txn).is_ok_and(|catalog| catalog.tables.len() == 1));
        meta.delete(&mut txn, b"M").expect("room");
        assert_eq!(other_format(meta, &txn), Some(None), "older versions did not say it");
    }
}
