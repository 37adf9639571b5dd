//! A micro-batch of rows: one transaction of the server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use headwater_schemas::{TableId, TableSchema};
use mongodb::ClientSession;
use mongodb::bson::doc;
use parking_lot::MutexGuard;

use super::catalog::{Catalog, Join, read_notes, read_offsets};
use super::writes::{Writes, check_size, replacements};
use super::{MongoRows, read};
use crate::mongodb::bson::{ARRAY, DOCUMENT, STRING};
use crate::mongodb::context::Within;
use crate::mongodb::server::Fault;
use crate::{ByteList, Error, JoinIndex, RowArena, RowBatch, RowTransaction, RowWrite, SchemaId, Written};

pub(super) struct MongoRowTransaction<'s> {
    store: &'s MongoRows,
    // Reads send what was gathered before, though they change nothing.
    inner: RefCell<Inner<'s>>,
    rows_written: u64,
}

struct Inner<'s> {
    catalog: MutexGuard<'s, Catalog>,
    /// From the first read or write that goes to the server on.
    session: Option<Within<ClientSession>>,
    /// Rows not yet sent, by collection.
    writes: BTreeMap<Arc<str>, Writes>,
    /// Names of the collections by table.
    names: BTreeMap<TableId, Arc<str>>,
    /// Numbers of join indexes, for the row at hand.
    joins: Vec<u32>,
    bytes_written: u64,
}

impl<'s> MongoRowTransaction<'s> {
    pub(super) fn begin(store: &'s MongoRows) -> Result<Self, Error> {
        let mut catalog = store.catalog.lock();
        if let Some(owner) = &store.owner
            && catalog.unsettled
        {
            let read = Catalog::read(&store.server, owner, &store.prefix);
            *catalog = store.server.block("read its names", read)?;
        }
        let mut inner = Inner {
            catalog,
            session: None,
            writes: BTreeMap::new(),
            names: BTreeMap::new(),
            joins: Vec::new(),
            bytes_written: 0,
        };
        if store.owner.is_none() {
            store.server.block("read its names", async {
                inner.session(store).await?;
                let Inner { catalog, session, .. } = &mut inner;
                let session = session.as_mut().expect("begun just now").get_mut();
                catalog.refresh(&store.server, session, &store.prefix).await
            })?;
        }
        Ok(Self { store, inner: RefCell::new(inner), rows_written: 0 })
    }

    /// Reads from a table's collection, if it has one, after sending what was written to it.
    fn read<T: Default>(
        &self,
        action: &'static str,
        table: &TableId,
        work: impl AsyncFnOnce(&mut ClientSession, &str) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let mut inner = self.inner.borrow_mut();
        let name = inner.name(&self.store.prefix, table);
        // Where others write, they also make collections; one that is not there is empty.
        if self.store.owner.is_some() && !inner.catalog.made.contains(&*name) {
            return Ok(T::default());
        }
        self.store.server.block(action, async {
            inner.send(self.store, &name).await?;
            let session = inner.session(self.store).await?;
            work(session, &name).await
        })
    }
}

impl Inner<'_> {
    fn name(&mut self, prefix: &str, table: &TableId) -> Arc<str> {
        if let Some(name) = self.names.get(table) {
            return name.clone();
        }
        let whole = table.to_string();
        let plain: String =
            whole.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).take(100).collect();
        // Two tables may look alike in plain letters.
        let hash = blake3::hash(whole.as_bytes()).to_hex();
        let name: Arc<str> = format!("{prefix}.{plain}_{}", &hash[..8]).into();
        self.names.insert(table.clone(), name.clone());
        name
    }

    async fn session(&mut self, store: &MongoRows) -> Result<&mut ClientSession, Fault> {
        if self.session.is_none() {
            let session = store.server.begin().await?;
            self.session = Some(Within::new(store.server.handle(), session));
        }
        Ok(self.session.as_mut().expect("begun just now").get_mut())
    }

    /// Makes a table's collection and its index. Not part of the transaction, which may not do so: an empty collection
    /// that is left of a dropped one does no harm. Where others write too the transaction has a snapshot by then, and fails
    /// where the collection is new.
    async fn make(&mut self, store: &MongoRows, name: &str) -> Result<(), Fault> {
        let command = doc! {
            "createIndexes": name,
            "indexes": [{ "key": { "j": 1, "_id": 1 }, "name": "joins" }],
            "writeConcern": { "w": "majority" },
            "maxTimeMS": i64::try_from(store.server.operation_max().as_millis()).unwrap_or(i64::MAX),
        };
        let made = store.server.database.run_command(command).await?;
        self.catalog.made.insert(name.to_owned());
        let indexes = (made.get_i32("numIndexesBefore").ok(), made.get_i32("numIndexesAfter").ok());
        if store.owner.is_none() && self.session.is_some() && (indexes.0.is_none() || indexes.0 != indexes.1) {
            // What the transaction sees is from before the collection, so that it cannot write there.
            let why = "the table was new, and only a transaction that begins now can write its rows";
            return Err(Fault::Refused(why.into()));
        }
        Ok(())
    }

    async fn send(&mut self, store: &MongoRows, name: &str) -> Result<(), Fault> {
        let Some(mut writes) = self.writes.remove(name).filter(|writes| !writes.is_empty()) else { return Ok(()) };
        self.bytes_written += writes.byte_len() as u64;
        let session = self.session(store).await?;
        let added = writes.send(&store.server, session, name).await?;
        // Where several write, they would be in each other's way.
        if added != 0 && store.owner.is_some() {
            self.catalog.add_rows(name, added);
        }
        Ok(())
    }

    async fn commit(&mut self, store: &MongoRows) -> Result<(), Fault> {
        let names: Vec<Arc<str>> = self.writes.keys().cloned().collect();
        for name in names {
            self.send(store, &name).await?;
        }
        if store.owner.is_none() {
            self.catalog.tell_others();
        }
        let changed = self.catalog.take_changed();
        let removed: Vec<&String> =
            changed.iter().filter(|(_, document)| document.is_none()).map(|(id, _)| id).collect();
        let written = changed.values().flatten().map(|document| document.as_bytes());
        let mut commands = replacements(&store.server, &store.prefix, written);
        if !removed.is_empty() {
            commands.push(store.server.bounded_command("delete", &store.prefix, |command| {
                command.within(ARRAY, "deletes", |deletes| {
                    deletes.item(DOCUMENT, 0);
                    let delete = deletes.begin();
                    deletes.within(DOCUMENT, "q", |query| {
                        query.within(DOCUMENT, "_id", |condition| {
                            condition.array("$in", STRING, removed, |writer, id| writer.text_value(id));
                        });
                    });
                    deletes.int("limit", 0);
                    deletes.end(delete);
                });
            }));
        }
        let session = self.session(store).await?;
        for command in commands {
            store.server.write(command, session).await?;
        }
        match &store.owner {
            Some(owner) => owner.commit(&store.server, session).await,
            None => Ok(session.commit_transaction().await?),
        }
    }
}

impl RowTransaction for MongoRowTransaction<'_> {
    fn commit(self: Box<Self>) -> Result<(), Error> {
        let started = Instant::now();
        let mut inner = self.inner.borrow_mut();
        // What others write too was only seen for sure once that is committed.
        if !inner.catalog.unsettled && self.store.owner.is_some() {
            return Ok(());
        }
        self.store.server.block("commit rows", async {
            match inner.commit(self.store).await {
                Err(fault) => Err(match &self.store.owner {
                    Some(owner) => owner.explain(&self.store.server, fault).await,
                    None => fault,
                }),
                Ok(()) => Ok(()),
            }
        })?;
        inner.catalog.unsettled = false;
        let metrics = &self.store.metrics;
        metrics.committed(started.elapsed(), self.rows_written, inner.bytes_written, Written::default());
        Ok(())
    }
}

impl Drop for MongoRowTransaction<'_> {
    /// Ends what was not committed, so that it is in nobody's way.
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        if let Some(mut session) = inner.session.take() {
            // Nothing to abort after a commit; where the server does not answer it aborts by itself.
            let abort = async { Ok(session.get_mut().abort_transaction().await?) };
            let _ = self.store.server.block("drop rows", abort);
        }
    }
}

impl RowBatch for MongoRowTransaction<'_> {
    fn schema_id(&mut self, schema: &TableSchema) -> Result<SchemaId, Error> {
        Ok(SchemaId(self.inner.get_mut().catalog.schema(schema)))
    }

    fn schemas(&self) -> Result<Vec<(SchemaId, TableSchema)>, Error> {
        Ok((0..).map(SchemaId).zip(self.inner.borrow().catalog.schemas.iter().cloned()).collect())
    }

    fn rows_by_key(&self, table: &TableId, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error> {
        if from >= keys.len() {
            return Ok(keys.len());
        }
        let read = self.read("read rows", table, async |session, name| {
            read::by_key(&self.store.server, session, name, keys, from, out).await.map(Some)
        });
        Ok(read?.unwrap_or(keys.len()))
    }

    fn rows_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        from: usize,
        out: &mut RowArena,
    ) -> Result<usize, Error> {
        let join = self.inner.borrow().catalog.joins.get(index).copied();
        let Some(Join { number, .. }) = join.filter(|_| from < join_keys.len()) else { return Ok(join_keys.len()) };
        let read = self.read("read joined rows", &index.table, async |session, name| {
            read::by_join(&self.store.server, session, name, number, join_keys, from, out).await.map(Some)
        });
        Ok(read?.unwrap_or(join_keys.len()))
    }

    fn visit_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        visit: &mut dyn FnMut(&RowArena),
    ) -> Result<(), Error> {
        let join = self.inner.borrow().catalog.joins.get(index).copied();
        let Some(Join { number, .. }) = join.filter(|_| !join_keys.is_empty()) else { return Ok(()) };
        let action = "read joined rows";
        let name = self.read(action, &index.table, async |_, name| Ok(Some(name.to_owned())))?;
        let Some(name) = name else { return Ok(()) };
        let mut inner = self.inner.borrow_mut();
        let session = inner.session.as_mut().expect("begun to read").get_mut();
        let server = &self.store.server;
        server.block_in_steps(action, read::visit_by_join(server, session, &name, number, join_keys, visit))
    }

    fn check_row_size(&self, cells: usize, keys: usize) -> Result<(), Error> {
        check_size(cells, keys)
    }

    fn put_row(&mut self, table: &TableId, indexes: &[&JoinIndex], write: RowWrite<'_>) -> Result<(), Error> {
        let inner = self.inner.get_mut();
        inner.joins.clear();
        for index in indexes {
            let number = inner.catalog.join(index);
            inner.joins.push(number);
        }
        let name = inner.name(&self.store.prefix, table);
        inner.catalog.unsettled = true;
        self.rows_written += 1;
        let made = inner.catalog.made.contains(&*name);
        let writes = inner.writes.entry(name.clone()).or_default();
        writes.put(&write, &inner.joins);
        let full = writes.is_full();
        if made && !full {
            return Ok(());
        }
        self.store.server.block("write rows", async {
            if !made {
                inner.make(self.store, &name).await?;
            }
            if full {
                inner.send(self.store, &name).await?;
            }
            Ok(())
        })
    }

    /// Its join keys go with it.
    fn remove_row(&mut self, table: &TableId, _: &[&JoinIndex], key: &[u8], _: &[(usize, &[u8])]) -> Result<(), Error> {
        let inner = self.inner.get_mut();
        let name = inner.name(&self.store.prefix, table);
        inner.catalog.unsettled = true;
        self.rows_written += 1;
        let writes = inner.writes.entry(name.clone()).or_default();
        writes.remove(key);
        if !writes.is_full() {
            return Ok(());
        }
        self.store.server.block("remove rows", inner.send(self.store, &name))
    }

    fn scan_rows(&self, table: &TableId, after: Option<&[u8]>, limit: usize, out: &mut RowArena) -> Result<(), Error> {
        if limit == 0 {
            return Ok(());
        }
        self.read("scan rows", table, async |session, name| {
            read::scan(&self.store.server, session, name, after, limit, out).await
        })
    }

    fn row_count(&self, table: &TableId) -> Result<u64, Error> {
        let mut inner = self.inner.borrow_mut();
        let name = inner.name(&self.store.prefix, table);
        if self.store.owner.is_none() {
            return self.store.server.block("count rows", read::about(&self.store.server, &name));
        }
        self.store.server.block("count rows", inner.send(self.store, &name))?;
        Ok(inner.catalog.counts.get(&*name).copied().unwrap_or(0))
    }

    fn join_indexes(&self) -> Result<Vec<JoinIndex>, Error> {
        let inner = self.inner.borrow();
        Ok(inner.catalog.joins.iter().filter(|(_, join)| join.complete).map(|(index, _)| index.clone()).collect())
    }

    fn add_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        let catalog = &mut self.inner.get_mut().catalog;
        let number = catalog.join(index);
        catalog.put_join(index, Join { number, complete: true });
        Ok(())
    }

    /// Its number is not given again, so that no join key stored in a row leads anywhere any more; the keys themselves go
    /// when their rows are written the next time.
    fn drop_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        self.inner.get_mut().catalog.remove_join(index);
        Ok(())
    }

    fn offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        let mut inner = self.inner.borrow_mut();
        let mut offsets = BTreeMap::new();
        if self.store.owner.is_none() {
            let MongoRows { server, prefix, .. } = self.store;
            let read = async { read_offsets(server, inner.session(self.store).await?, prefix).await };
            offsets = server.block("read offsets", read)?;
        }
        offsets.extend(inner.catalog.offsets.iter().map(|(place, offset)| (place.clone(), *offset)));
        Ok(offsets.into_iter().map(|((topic, partition), offset)| (topic, partition, offset)).collect())
    }

    fn set_offset(&mut self, topic: &str, partition: u32, offset: u64) -> Result<(), Error> {
        self.inner.get_mut().catalog.put_offset(topic, partition, offset);
        Ok(())
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut notes = self.notes(&[name.to_owned()])?;
        Ok(notes.pop().flatten())
    }

    fn notes(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut inner = self.inner.borrow_mut();
        if self.store.owner.is_some() {
            return Ok(names.iter().map(|name| inner.catalog.notes.get(name).cloned()).collect());
        }
        let others: Vec<&String> = names.iter().filter(|name| inner.catalog.own_note(name).is_none()).collect();
        let mut found = BTreeMap::new();
        if !others.is_empty() {
            let MongoRows { server, prefix, .. } = self.store;
            let read = async { read_notes(server, inner.session(self.store).await?, prefix, &others).await };
            found = server.block("read notes", read)?;
        }
        let note = |name: &String| inner.catalog.own_note(name).unwrap_or_else(|| found.get(name).cloned());
        Ok(names.iter().map(note).collect())
    }

    fn set_note(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Error> {
        self.inner.get_mut().catalog.put_note(name, value);
        Ok(())
    }
}
