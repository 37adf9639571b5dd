//! A micro-batch: one write transaction of the environment.

use std::collections::HashMap;
use std::time::Instant;

use headwater_schemas::{TableId, TableSchema};
use heed::RwTxn;
use parking_lot::MutexGuard;

use super::EmbeddedStore;
use super::catalog::{Catalog, Join, named, numbered};
use super::documents::DocumentWriter;
use super::environment::{Environment, Fault, Tables};
use super::key::{push_last, take_u32, take_u64};
use super::rows::{self, Scratch};
use crate::{
    Batch, ByteList, DocumentChange, Error, JoinIndex, RowArena, RowBatch, RowTransaction, RowWrite, SchemaId,
    VersionId, Written,
};

pub(super) struct EmbeddedBatch<'s> {
    // Before `catalog`: whoever waits for that finds the writer's lock of the environment free.
    pub(super) txn: RwTxn<'s>,
    pub(super) catalog: MutexGuard<'s, Catalog>,
    store: &'s EmbeddedStore,
    pub(super) tables: Tables,
    scratch: Scratch,
    pub(super) documents: DocumentWriter,
    /// Rows that are new, less those that were removed, by table number.
    added_rows: HashMap<u32, i64>,
    pub(super) changes: Vec<DocumentChange>,
    /// Whether anybody listens to `changes`.
    pub(super) listened: bool,
    pub(super) stamp_given: bool,
    pub(super) versions_changed: bool,
    pub(super) frontiers_changed: bool,
    rows_written: u64,
    pub(super) bytes_written: u64,
    pub(super) documents_written: Written,
}

impl<'s> EmbeddedBatch<'s> {
    pub(super) fn begin(store: &'s EmbeddedStore) -> Result<Self, Error> {
        let environment = &store.environment;
        store.settler.keep_up().map_err(|e| environment.fail("begin a batch", e))?;
        let mut catalog = store.catalog.lock();
        let txn = environment.env.write_txn().map_err(|e| environment.fail("begin a batch", e))?;
        if catalog.unsettled {
            let stamp = catalog.stamp;
            *catalog =
                Catalog::read(environment.tables.meta, &txn).map_err(|e| environment.fail("read its names", e))?;
            catalog.stamp = catalog.stamp.max(stamp);
        }
        Ok(Self {
            txn,
            catalog,
            store,
            tables: environment.tables,
            scratch: Scratch::default(),
            documents: DocumentWriter::default(),
            added_rows: HashMap::new(),
            changes: Vec::new(),
            listened: store.changes.receiver_count() > 0,
            stamp_given: false,
            versions_changed: false,
            frontiers_changed: false,
            rows_written: 0,
            bytes_written: 0,
            documents_written: Written::default(),
        })
    }

    pub(super) fn environment(&self) -> &'s Environment {
        &self.store.environment
    }

    fn put_counts(&mut self) -> Result<(), Fault> {
        for (table, added) in std::mem::take(&mut self.added_rows) {
            self.catalog.unsettled = true;
            let count = self.catalog.rows.entry(table).or_default();
            *count = count.saturating_add_signed(added);
            self.tables.meta.put(&mut self.txn, &numbered(b'R', table), &count.to_le_bytes())?;
        }
        if self.stamp_given {
            self.catalog.put_stamp(self.tables.meta, &mut self.txn)?;
        }
        Ok(())
    }

    fn put_row_and_entries(
        &mut self,
        table: &TableId,
        indexes: &[&JoinIndex],
        write: &RowWrite<'_>,
    ) -> Result<(), Fault> {
        self.remove_entries(indexes, write.key, write.removed)?;
        let Self { txn, catalog, tables, scratch, .. } = self;
        let number = catalog.table(tables.meta, txn, table)?;
        let place = match write.added.first() {
            Some((at, join_key)) if write.row.is_some() => {
                Some((catalog.join(tables.meta, txn, indexes[*at])?, *join_key))
            }
            _ => None,
        };
        if rows::put(tables.rows, txn, scratch, number, write, place)? {
            *self.added_rows.entry(number).or_default() += 1;
        }
        self.bytes_written += (scratch.key.len() + scratch.value.len()) as u64;
        let Some(row) = write.row else { return Ok(()) };
        for (at, join_key) in write.added {
            let index = catalog.join(tables.meta, txn, indexes[*at])?;
            rows::put_entry(tables.joins, txn, scratch, index, join_key, write, row)?;
            self.bytes_written += (scratch.key.len() + scratch.value.len()) as u64;
        }
        Ok(())
    }

    fn remove_row_and_entries(
        &mut self,
        table: &TableId,
        indexes: &[&JoinIndex],
        key: &[u8],
        removed: &[(usize, &[u8])],
    ) -> Result<(), Fault> {
        self.remove_entries(indexes, key, removed)?;
        let Self { txn, catalog, tables, scratch, .. } = self;
        let Some(number) = catalog.tables.get(table).copied() else { return Ok(()) };
        if rows::remove(tables.rows, txn, scratch, number, key)? {
            *self.added_rows.entry(number).or_default() -= 1;
        }
        Ok(())
    }

    fn remove_entries(&mut self, indexes: &[&JoinIndex], key: &[u8], removed: &[(usize, &[u8])]) -> Result<(), Fault> {
        let Self { txn, catalog, tables, scratch, .. } = self;
        for (at, join_key) in removed {
            let index = catalog.join(tables.meta, txn, indexes[*at])?;
            rows::remove_entry(tables.joins, txn, scratch, index, join_key, key)?;
        }
        Ok(())
    }

    fn read_offsets(&self) -> Result<Vec<(String, u32, u64)>, Fault> {
        let mut offsets = Vec::new();
        for entry in self.tables.meta.prefix_iter(&self.txn, b"O".as_slice())? {
            let (_, mut value) = entry?;
            let offset = (|| {
                let (partition, offset) = (take_u32(&mut value)?, take_u64(&mut value)?);
                Some((std::str::from_utf8(value).ok()?.to_owned(), partition, offset))
            })();
            offsets.push(offset.ok_or(Fault::Damaged("an offset cannot be read"))?);
        }
        Ok(offsets)
    }
}

impl Batch for EmbeddedBatch<'_> {
    fn unfinished(&self) -> Result<Vec<(VersionId, ByteList)>, Error> {
        Ok(Vec::new())
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        (*self).finish()
    }
}

impl RowTransaction for EmbeddedBatch<'_> {
    fn commit(self: Box<Self>) -> Result<(), Error> {
        (*self).finish()
    }
}

impl EmbeddedBatch<'_> {
    fn finish(mut self) -> Result<(), Error> {
        let started = Instant::now();
        let (store, environment) = (self.store, self.environment());
        self.put_counts().map_err(|e| environment.fail("write its counts", e))?;
        let Self { txn, mut catalog, .. } = self;
        txn.commit().map_err(|e| environment.fail("commit a batch", e))?;
        catalog.unsettled = false;
        store.settler.committed(environment.size());
        store.readers.renew();
        // Whoever began to listen within the batch missed its beginning.
        let missed = !self.listened && store.changes.receiver_count() > 0;
        if missed || !self.changes.is_empty() {
            // Nobody listens any more: nothing is lost.
            let _ = store.changes.send(std::sync::Arc::new(self.changes));
        }
        // Behind the documents it promises.
        if self.frontiers_changed {
            store.frontiers.send_replace(std::sync::Arc::new(catalog.frontiers.clone()));
        }
        if self.versions_changed {
            store.versions.send_replace(catalog.published_versions());
        }
        store.metrics.committed(started.elapsed(), self.rows_written, self.bytes_written, self.documents_written);
        store.metrics.used.set(i64::try_from(environment.size()).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl RowBatch for EmbeddedBatch<'_> {
    fn schema_id(&mut self, schema: &TableSchema) -> Result<SchemaId, Error> {
        let environment = self.environment();
        let number = self.catalog.schema(self.tables.meta, &mut self.txn, schema);
        number.map_err(|e| environment.fail("write a table schema", e))
    }

    fn schemas(&self) -> Result<Vec<(SchemaId, TableSchema)>, Error> {
        Ok((0..).map(SchemaId).zip(self.catalog.schemas.iter().cloned()).collect())
    }

    fn rows_by_key(&self, table: &TableId, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error> {
        let Some(table) = self.catalog.tables.get(table) else { return Ok(keys.len()) };
        rows::by_key(&self.tables, &self.txn, *table, keys, from, out)
            .map_err(|e| self.environment().fail("read rows", e))
    }

    fn rows_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        from: usize,
        out: &mut RowArena,
    ) -> Result<usize, Error> {
        let Some(join) = self.catalog.joins.get(index) else { return Ok(join_keys.len()) };
        rows::by_join(self.tables.joins, &self.txn, join.number, join_keys, from, out)
            .map_err(|e| self.environment().fail("read joined rows", e))
    }

    fn visit_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        visit: &mut dyn FnMut(&RowArena),
    ) -> Result<(), Error> {
        let Some(join) = self.catalog.joins.get(index) else { return Ok(()) };
        rows::visit_by_join(self.tables.joins, &self.txn, join.number, join_keys, visit)
            .map_err(|e| self.environment().fail("read joined rows", e))
    }

    fn put_row(&mut self, table: &TableId, indexes: &[&JoinIndex], write: RowWrite<'_>) -> Result<(), Error> {
        let environment = self.environment();
        self.rows_written += 1;
        self.put_row_and_entries(table, indexes, &write).map_err(|e| environment.fail("write a row", e))
    }

    fn remove_row(
        &mut self,
        table: &TableId,
        indexes: &[&JoinIndex],
        key: &[u8],
        removed: &[(usize, &[u8])],
    ) -> Result<(), Error> {
        let environment = self.environment();
        self.rows_written += 1;
        self.remove_row_and_entries(table, indexes, key, removed).map_err(|e| environment.fail("remove a row", e))
    }

    fn scan_rows(&self, table: &TableId, after: Option<&[u8]>, limit: usize, out: &mut RowArena) -> Result<(), Error> {
        let Some(table) = self.catalog.tables.get(table) else { return Ok(()) };
        rows::scan(&self.tables, &self.txn, *table, after, limit, out)
            .map_err(|e| self.environment().fail("scan rows", e))
    }

    fn row_count(&self, table: &TableId) -> Result<u64, Error> {
        let Some(number) = self.catalog.tables.get(table) else { return Ok(0) };
        let committed = self.catalog.rows.get(number).copied().unwrap_or(0);
        Ok(committed.saturating_add_signed(self.added_rows.get(number).copied().unwrap_or(0)))
    }

    fn join_indexes(&self) -> Result<Vec<JoinIndex>, Error> {
        let complete = self.catalog.joins.iter().filter(|(_, join)| join.complete);
        let mut indexes: Vec<_> = complete.map(|(index, _)| index.clone()).collect();
        indexes.sort();
        Ok(indexes)
    }

    fn add_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        let environment = self.environment();
        let Self { txn, catalog, tables, .. } = self;
        let added = catalog
            .join(tables.meta, txn, index)
            .and_then(|number| catalog.put_join(tables.meta, txn, index, Join { number, complete: true }));
        added.map_err(|e| environment.fail("add a join index", e))
    }

    fn drop_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        let environment = self.environment();
        let Some(join) = self.catalog.joins.get(index).copied() else { return Ok(()) };
        let Self { txn, catalog, tables, .. } = self;
        let table = catalog.tables.get(&index.table).copied();
        rows::clear_index(tables, txn, table, join.number)
            .and_then(|()| catalog.remove_join(tables.meta, txn, index))
            .map_err(|e| environment.fail("drop a join index", e))
    }

    fn offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        self.read_offsets().map_err(|e| self.environment().fail("read offsets", e))
    }

    fn set_offset(&mut self, topic: &str, partition: u32, offset: u64) -> Result<(), Error> {
        let mut key = numbered(b'O', partition).to_vec();
        push_last(&mut key, topic.as_bytes());
        let mut value = partition.to_le_bytes().to_vec();
        value.extend_from_slice(&offset.to_le_bytes());
        value.extend_from_slice(topic.as_bytes());
        let put = self.tables.meta.put(&mut self.txn, &key, &value);
        put.map_err(|e| self.environment().fail("write an offset", e))
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let note = self.tables.meta.get(&self.txn, &named(b'N', name));
        Ok(note.map_err(|e| self.environment().fail("read a note", e))?.map(<[u8]>::to_vec))
    }

    fn set_note(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Error> {
        let key = named(b'N', name);
        let put = match value {
            Some(value) => self.tables.meta.put(&mut self.txn, &key, value),
            None => self.tables.meta.delete(&mut self.txn, &key).map(|_| ()),
        };
        put.map_err(|e| self.environment().fail("write a note", e))
    }
}
