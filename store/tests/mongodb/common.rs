//! One server for all tests of this program, and a database for each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use headwater_schemas::model::ModelShape;
use headwater_schemas::{RowBuilder, RowRef, SourcePosition, TableId, ValueRef, key};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoReader, MongoRows};
use headwater_store::{
    ByteList, Error, JoinIndex, RowArena, RowBatch, RowWrite, SchemaId, VersionId, VersionRecord, VersionState,
};
use headwater_test_servers::Mongo;
use tokio::runtime::Runtime;

/// The runtime of the driver: not that of the tests, which block their threads.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Ends with this process, by its watchdog at the latest.
static SERVER: LazyLock<Mutex<Mongo>> = LazyLock::new(|| Mutex::new(Mongo::start()));

/// Options for an empty database of the common server.
pub(crate) fn fresh() -> MongoOptions {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    MongoOptions::new(SERVER.lock().unwrap().url(), format!("t{number}"))
}

pub(crate) fn rows(options: &MongoOptions) -> Result<Arc<MongoRows>, Error> {
    RUNTIME.block_on_elsewhere(MongoRows::open(options.clone()))
}

pub(crate) fn documents(options: &MongoOptions) -> Result<Arc<MongoDocuments>, Error> {
    RUNTIME.block_on_elsewhere(MongoDocuments::open(options.clone()))
}

pub(crate) fn reader(options: &MongoOptions) -> Result<Arc<MongoReader>, Error> {
    RUNTIME.block_on_elsewhere(MongoReader::open(options.clone()))
}

/// Waits for what runs on a runtime also from a thread of another one.
trait BlockElsewhere {
    fn block_on_elsewhere<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T;
}

impl BlockElsewhere for Runtime {
    fn block_on_elsewhere<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = std::sync::mpsc::channel();
        self.spawn(async move { done.send(work.await) });
        result.recv().unwrap()
    }
}

pub(crate) const VERSION: VersionId = VersionId(7);

pub(crate) fn record(id: VersionId, state: VersionState, shape: Option<ModelShape>) -> VersionRecord {
    let (model, definition_hash) = ("customer".to_owned(), "h".to_owned());
    VersionRecord { id, model, definition_hash, state, sources: Vec::new(), shape, created_at_ms: 1 }
}

pub(crate) fn int(n: i64) -> Vec<u8> {
    key::of(ValueRef::Int(n))
}

pub(crate) fn join() -> JoinIndex {
    JoinIndex { table: TableId::new("billing", "public", "lines"), columns: vec!["invoice".into()] }
}

pub(crate) fn cells(n: i64) -> Vec<u8> {
    let mut cells = Vec::new();
    RowBuilder::new(&mut cells).push(ValueRef::Int(n));
    cells
}

/// Writes a row of one cell, found by the join key 1.
pub(crate) fn put_row<B: RowBatch + ?Sized>(batch: &mut B, row: i64, n: i64) {
    let (join, key, join_key, cells) = (join(), int(row), int(1), cells(n));
    let write = RowWrite {
        key: &key,
        row: Some(RowRef(&cells)),
        schema: SchemaId(0),
        position: SourcePosition::after_commit(1, n as u64),
        removed: &[],
        added: &[(0, &join_key)],
    };
    batch.put_row(&join.table, &[&join], write).unwrap();
}

/// First cells of the rows found by the join key 1.
pub(crate) fn joined<B: RowBatch + ?Sized>(batch: &B) -> Result<Vec<i64>, Error> {
    let (mut keys, mut out) = (ByteList::default(), RowArena::default());
    keys.push(&int(1));
    batch.rows_by_join(&join(), &keys, 0, &mut out)?;
    let cell = |slot| match out.row(slot).unwrap().cell(0) {
        ValueRef::Int(n) => n,
        other => panic!("not a cell of these tests: {other:?}"),
    };
    Ok(out.slots().iter().map(cell).collect())
}

/// The driver's own view of a database.
pub(crate) fn raw(options: &MongoOptions) -> mongodb::Database {
    let (uri, database) = (options.uri.clone(), options.database.clone());
    RUNTIME.block_on_elsewhere(async move { mongodb::Client::with_uri_str(&uri).await.unwrap().database(&database) })
}

/// Runs something of the driver's.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    RUNTIME.block_on_elsewhere(work)
}
