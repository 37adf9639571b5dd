//! The seam through which the projector writes.
//!
//! The projector sees one [`ProjectionStore`]. An engine that keeps rows and documents together is one by itself; of a
//! [`RowStore`] and a [`DocumentStore`] of different make, [`crate::Paired`] makes one.
//!
//! Calls block: the projector owns a thread. An engine that is reached over a network blocks on it inside.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_schemas::{RowRef, SourcePosition, TableId, TableSchema};

use crate::{ByteList, Error, Frontier, RowArena, VersionId, VersionRecord};

/// Number of a table schema within a store; rows name the schema they were written with by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

/// A declared way to find rows of a table by the values of some columns: what relations are walked by, in both
/// directions. Shared by all models that join on the same columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinIndex {
    /// The table whose rows are found.
    pub table: TableId,
    /// The columns, in join key order.
    pub columns: Vec<String>,
}

/// One row's new state.
#[derive(Clone, Copy, Debug)]
pub struct RowWrite<'a> {
    /// Primary key, in the form of [`headwater_schemas::key`].
    pub key: &'a [u8],
    /// The row, or `None` for a tombstone.
    pub row: Option<RowRef<'a>>,
    /// The schema of `row`.
    pub schema: SchemaId,
    /// When it became so.
    pub position: SourcePosition,
    /// Join keys the row was found by before this write and is no longer: (number of the join index within the list
    /// given to [`RowBatch::put_row`], join key). Must be what was added before, or stale entries stay.
    pub removed: &'a [(usize, &'a [u8])],
    /// Join keys the row is to be found by. Also those that did not change: entries carry the row's cells.
    pub added: &'a [(usize, &'a [u8])],
}

/// One document's new state.
#[derive(Clone, Copy, Debug)]
pub struct DocumentWrite<'a> {
    /// Id: the root's key, in the form of [`headwater_schemas::key`].
    pub id: &'a [u8],
    /// Final JSON bytes; `None` deletes the document.
    pub body: Option<&'a [u8]>,
    /// Index entries: (number of the index within the model, value in the form of [`headwater_schemas::key`]). Sorted,
    /// without duplicates.
    pub entries: &'a [(u16, &'a [u8])],
    /// The stamp the write is to have. A document, or the trace of a deleted one, that has this stamp or a greater one
    /// stays as it is; one whose bytes and entries are the same gets the stamp all the same, since a writer that is late
    /// with other bytes must find it. `None`: the engine gives stamps itself, and writes whatever is there.
    pub stamp: Option<u64>,
}

/// What [`DocumentBatch::put_documents`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Documents created or changed.
    pub written: u64,
    /// Documents deleted.
    pub deleted: u64,
    /// Documents whose bytes and entries were the same: nothing was written.
    pub unchanged: u64,
}

/// Where a projector keeps its state.
pub trait ProjectionStore: Send + Sync {
    /// Starts a micro-batch. There is one at a time: a second call waits until the first batch is gone. Reads of the
    /// batch see its own writes.
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error>;

    /// Waits until everything that was committed more than `age` ago also survives a stop of the machine. An engine
    /// whose commits do so at once has nothing to wait for. What the log is told as read must have been settled.
    fn settle(&self, age: Duration) -> Result<(), Error> {
        let _ = age;
        Ok(())
    }

    /// Rows that may go in one commit when a table is truncated. Of more, readers see the truncation in parts.
    fn rows_swept_max(&self) -> u64 {
        u64::MAX
    }
}

/// A micro-batch: everything written becomes visible and survives the end of the process together, at
/// [`Batch::commit`] (and a stop of the machine once it is [settled](ProjectionStore::settle)), or, where the
/// engine has no such transaction, in an order in which a crash between any two writes is healed by doing the batch
/// again. Dropped without commit, it changed nothing that matters.
pub trait Batch: RowBatch + DocumentBatch {
    /// Roots whose rows were committed by an earlier batch while their documents may not have been written, because
    /// the process or the document store broke off in between. Stays until each was put again
    /// ([`DocumentBatch::put_documents`]) in a batch that was committed. Always empty where both are one engine.
    fn unfinished(&self) -> Result<Vec<(VersionId, ByteList)>, Error>;

    /// Whether rows and documents are of different times, of two engines of which one was restored from a backup: then
    /// nobody knows which documents lack, or are ahead of, what the rows have. Told until the first commit that writes
    /// documents or versions. Never so where both are one engine.
    fn is_apart(&self) -> bool {
        false
    }

    /// Commits. Readers see the batch when this returns, and listeners of changed documents are told.
    fn commit(self: Box<Self>) -> Result<(), Error>;
}

/// Rows, and the offsets up to which they are known.
pub trait RowBatch {
    /// Number of a schema; stores it the first time.
    fn schema_id(&mut self, schema: &TableSchema) -> Result<SchemaId, Error>;

    /// Every schema stored, by number.
    fn schemas(&self) -> Result<Vec<(SchemaId, TableSchema)>, Error>;

    /// Reads rows of a table by primary key, for the keys from number `from` on, into `out` (which is not emptied first).
    /// Keys without row bring nothing; tombstones are brought. Ends behind the key with which `out` is
    /// [full](RowArena::is_full); answers the number of the first key that was not read.
    fn rows_by_key(&self, table: &TableId, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error>;

    /// Reads the rows found by join keys in the same way, for each join key in key order. Tombstones are in no join index.
    fn rows_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        from: usize,
        out: &mut RowArena,
    ) -> Result<usize, Error>;

    /// Gives the rows found by join keys to `visit`, in any order and with request 0: about
    /// [`READ_BYTES`](crate::READ_BYTES) of them at a time, however few or many one key finds. A row that several of the
    /// keys find may come more than once. `visit` must not use the batch.
    fn visit_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        visit: &mut dyn FnMut(&RowArena),
    ) -> Result<(), Error>;

    /// Whether the engine can keep a row of so many bytes of cells, and of keys: its own and its join keys together.
    /// [`Error::RowTooLarge`] if not, and then it must not be put: the whole batch could not be committed.
    fn check_row_size(&self, cells: usize, keys: usize) -> Result<(), Error> {
        let _ = (cells, keys);
        Ok(())
    }

    /// Replaces a row, whatever its position: the caller has compared it with what is stored. `indexes` are all join
    /// indexes of the table.
    fn put_row(&mut self, table: &TableId, indexes: &[&JoinIndex], write: RowWrite<'_>) -> Result<(), Error>;

    /// Removes a row or tombstone for good; nothing where there is none. The caller must know by other means that events
    /// from before are late. `indexes` as in [`Self::put_row`], `removed` as in [`RowWrite`]: all that the row is found by.
    fn remove_row(
        &mut self,
        table: &TableId,
        indexes: &[&JoinIndex],
        key: &[u8],
        removed: &[(usize, &[u8])],
    ) -> Result<(), Error>;

    /// Reads rows of a table in key order, behind `after`, into `out` with request 0; tombstones too. Ends after `limit`
    /// rows, or behind the row with which `out` is [full](RowArena::is_full); brings none only when there are no more.
    fn scan_rows(&self, table: &TableId, after: Option<&[u8]>, limit: usize, out: &mut RowArena) -> Result<(), Error>;

    /// How many rows a table has, tombstones included; may be an estimate.
    fn row_count(&self, table: &TableId) -> Result<u64, Error>;

    /// The join indexes that are complete.
    fn join_indexes(&self) -> Result<Vec<JoinIndex>, Error>;

    /// Declares a join index complete: every row of its table has been written with it. Rows written without it before
    /// must have been written again.
    fn add_join_index(&mut self, index: &JoinIndex) -> Result<(), Error>;

    /// Removes a join index and its entries, at once: takes time in proportion to the table.
    fn drop_join_index(&mut self, index: &JoinIndex) -> Result<(), Error>;

    /// Next offset wanted of each topic partition: (topic, partition, offset).
    fn offsets(&self) -> Result<Vec<(String, u32, u64)>, Error>;

    /// Stores the next offset wanted of a topic partition.
    fn set_offset(&mut self, topic: &str, partition: u32, offset: u64) -> Result<(), Error>;

    /// A small value the projector keeps for itself.
    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Several such values, in the order of their names; an engine that is far away asks for all at once.
    fn notes(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        names.iter().map(|name| self.note(name)).collect()
    }

    /// Stores or, with `None`, removes such a value.
    fn set_note(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Error>;
}

/// Documents of model versions.
pub trait DocumentBatch {
    /// Every version in the registry that this projector keeps.
    fn versions(&self) -> Result<Vec<VersionRecord>, Error>;

    /// A number that no version has had, also not in another process that writes to the same documents. What a dropped
    /// batch was given may be given again.
    fn new_version_id(&mut self) -> Result<VersionId, Error>;

    /// Where several processes write: takes the registry (versions and frontiers) over from whoever had it, at once, and
    /// answers with the number of this claim. What others gathered under earlier claims cannot be flushed any more. An
    /// engine that one process writes to has nothing to take over.
    fn claim_registry(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Has what is gathered take effect only while the claim of this number is the last.
    fn under_claim(&mut self, claim: u64) {
        let _ = claim;
    }

    /// Adds or replaces a version; readers are told at commit.
    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error>;

    /// Removes up to `limit` documents of a version with their index entries; answers how many were removed. When none
    /// are left, also removes the version from the registry. Listeners of changed documents are not told.
    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error>;

    /// Writes documents. One whose bytes and entries are as stored is left alone and keeps its stamp; the others get
    /// stamps above all before. `as_of_micros` is the source time the documents reflect.
    fn put_documents(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error>;

    /// Number of documents of a version.
    fn document_count(&self, version: VersionId) -> Result<u64, Error>;

    /// How far each source is projected, by source.
    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error>;

    /// Stores how far a source is projected; readers are told at commit.
    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error>;
}

/// An engine that keeps rows and offsets.
pub trait RowStore: Send + Sync {
    /// Starts a transaction. There is one at a time in a process: a second call waits until the first is gone. Reads see
    /// its own writes.
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error>;

    /// See [`ProjectionStore::settle`].
    fn settle(&self, age: Duration) -> Result<(), Error> {
        let _ = age;
        Ok(())
    }

    /// See [`ProjectionStore::rows_swept_max`].
    fn rows_swept_max(&self) -> u64 {
        u64::MAX
    }
}

/// Changes of rows and offsets that become durable together, or not at all when dropped.
pub trait RowTransaction: RowBatch {
    /// Commits.
    fn commit(self: Box<Self>) -> Result<(), Error>;
}

/// An engine that keeps documents.
pub trait DocumentStore: Send + Sync {
    /// Starts to gather writes. There is one gathering at a time in a process.
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error>;
}

/// Writes that are gathered, and readable through it, until they are flushed.
pub trait DocumentTransaction: DocumentBatch {
    /// Makes the writes durable and visible: documents first, then versions, then frontiers, so that nothing is promised
    /// to readers before it can be read. A failure may leave a part of them written; doing it again heals that.
    fn flush(self: Box<Self>) -> Result<(), Error>;

    /// Gives what is gathered a mark that no other has, above 0, which the flush stores with it; asked when all is gathered.
    /// `None`: nothing is, and the mark stays.
    fn mark(&mut self) -> Option<u64>;

    /// The mark that was stored last; 0 where none has been.
    fn stored_mark(&self) -> Result<u64, Error>;
}
