//! Whatever breaks off, going on heals it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use headwater_store::mongodb::{MongoOptions, MongoReader};
use headwater_store::{
    Batch, DocumentBatch, DocumentReader, DocumentStore, DocumentTransaction, DocumentWrite, Error, ErrorKind,
    Frontier, Paired, ProjectionStore, VersionId, VersionRecord, VersionState, Written,
};
use headwater_test_servers::Mongo;
use mongodb::bson::{Document, doc};

use crate::common::{VERSION, documents, fresh, int, joined, put_row, raw, record, rows, wait};

const ROWS: i64 = 30;

/// Brings all rows, all documents and the offset to `n`.
fn write_everywhere(store: &dyn ProjectionStore, n: u64) -> Result<(), Error> {
    let mut batch = store.begin()?;
    let body = n.to_string();
    for row in 0..ROWS {
        put_row(&mut *batch, row, n as i64);
    }
    let ids: Vec<Vec<u8>> = (0..ROWS).map(int).collect();
    let value = int(n as i64);
    let entries: &[(u16, &[u8])] = &[(0, &value)];
    let writes: Vec<_> =
        ids.iter().map(|id| DocumentWrite { id, body: Some(body.as_bytes()), entries, stamp: None }).collect();
    batch.put_documents(VERSION, n as i64, &writes)?;
    batch.set_offset("events", 0, n)?;
    batch.commit()
}

fn offset(batch: &dyn Batch) -> Result<u64, Error> {
    Ok(batch.offsets()?.first().map_or(0, |(_, _, offset)| *offset))
}

#[test]
fn a_server_that_is_killed_loses_no_commit_and_tears_none() {
    let mut server = Mongo::start();
    let options = MongoOptions { selection_max: Duration::from_secs(1), ..MongoOptions::new(server.url(), "hw") };
    let documents = documents(&options).unwrap();
    let reader = documents.reader();
    let store = Paired::new(rows(&options).unwrap(), documents);
    let (done, committed) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut failures = 0;
            while !done.load(Ordering::Relaxed) {
                let step = || {
                    let n = {
                        let batch = store.begin()?;
                        let n = offset(&*batch)?;
                        // What is stored is never behind what was committed, nor torn.
                        assert!(n >= committed.load(Ordering::Relaxed));
                        assert_eq!(joined(&*batch)?, vec![n as i64; if n == 0 { 0 } else { ROWS as usize }]);
                        n
                    };
                    write_everywhere(&*store, n + 1)?;
                    committed.store(n + 1, Ordering::Relaxed);
                    Ok(())
                };
                let stepped: Result<(), Error> = step();
                if let Err(error) = stepped {
                    assert_eq!(error.kind(), ErrorKind::Retryable, "{error:?}");
                    failures += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            failures
        });
        for _ in 0..4 {
            let (before, began) = (committed.load(Ordering::Relaxed), Instant::now());
            while committed.load(Ordering::Relaxed) < before + 20 {
                assert!(began.elapsed() < Duration::from_secs(60) && !writer.is_finished(), "nothing is committed");
                std::thread::sleep(Duration::from_millis(3));
            }
            server.kill();
            server.resume();
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(failures > 0, "the server was not missed");
    let n = committed.load(Ordering::Relaxed) + 1;
    write_everywhere(&*store, n).unwrap();
    let ids: Vec<Vec<u8>> = (0..ROWS).map(int).collect();
    let found = wait({
        let reader = reader.clone();
        async move { reader.get_many(VERSION, &ids, usize::MAX).await.unwrap().unwrap() }
    });
    assert!(found.iter().all(|document| document.as_ref().unwrap().body == n.to_string()));
    let count = wait(async move { reader.document_count(VERSION).await.unwrap() });
    assert_eq!(count, ROWS as u64);
}

/// A document store whose next flush fails before anything of it is written.
struct FailsOnce {
    inner: Arc<dyn DocumentStore>,
    fails: Arc<AtomicBool>,
}

struct FailsOnceTransaction<'s> {
    inner: Box<dyn DocumentTransaction + 's>,
    fails: Arc<AtomicBool>,
}

impl DocumentStore for FailsOnce {
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error> {
        Ok(Box::new(FailsOnceTransaction { inner: self.inner.begin()?, fails: self.fails.clone() }))
    }
}

impl DocumentTransaction for FailsOnceTransaction<'_> {
    fn flush(self: Box<Self>) -> Result<(), Error> {
        if self.fails.swap(false, Ordering::Relaxed) {
            let source = std::io::Error::other("a failure of the test's making").into();
            return Err(Error::Engine { place: "test".into(), action: "flush", source });
        }
        self.inner.flush()
    }

    fn mark(&mut self) -> Option<u64> {
        self.inner.mark()
    }

    fn stored_mark(&self) -> Result<u64, Error> {
        self.inner.stored_mark()
    }
}

impl DocumentBatch for FailsOnceTransaction<'_> {
    fn versions(&self) -> Result<Vec<VersionRecord>, Error> {
        self.inner.versions()
    }

    fn new_version_id(&mut self) -> Result<VersionId, Error> {
        self.inner.new_version_id()
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error> {
        self.inner.put_version(version)
    }

    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error> {
        self.inner.purge_version(version, limit)
    }

    fn put_documents(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        self.inner.put_documents(version, as_of_micros, writes)
    }

    fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        self.inner.document_count(version)
    }

    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error> {
        self.inner.frontiers()
    }

    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error> {
        self.inner.set_frontier(source, frontier)
    }
}

/// A store, a reader of its documents, and what has their next flush fail.
fn open(options: &MongoOptions) -> (Arc<Paired>, Arc<MongoReader>, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let documents = documents(options).unwrap();
    let reader = documents.reader();
    let store = Paired::new(rows(options).unwrap(), Arc::new(FailsOnce { inner: documents, fails: fails.clone() }));
    (store, reader, fails)
}

#[tokio::test]
async fn documents_that_were_left_behind_are_known_and_healed() {
    let options = fresh();
    let (store, reader, fails) = open(&options);
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.commit().unwrap();
    write_everywhere(&*store, 1).unwrap();
    fails.store(true, Ordering::Relaxed);
    write_everywhere(&*store, 2).unwrap_err();
    let behind = reader.get(VERSION, &int(0)).await.unwrap().unwrap();
    assert_eq!(behind.body, "1", "documents never run ahead of the rows, but may be behind");

    // As the process that takes over finds it.
    let (other, other_reader, _) = open(&options);
    let batch = other.begin().unwrap();
    assert_eq!(offset(&*batch).unwrap(), 2);
    assert_eq!(joined(&*batch).unwrap(), vec![2; ROWS as usize]);
    let unfinished = batch.unfinished().unwrap();
    let [(VERSION, roots)] = &unfinished[..] else { panic!("{unfinished:?}") };
    assert_eq!(roots.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), (0..ROWS).map(int).collect::<Vec<_>>());
    assert!(!batch.is_apart(), "a crash is no restore");
    drop(batch);
    write_everywhere(&*other, 2).unwrap();
    let healed = other_reader.get(VERSION, &int(0)).await.unwrap().unwrap();
    assert_eq!(healed.body, "2");
    assert!(healed.stamp > behind.stamp);
    assert!(other.begin().unwrap().unfinished().unwrap().is_empty());
}

/// One event may change very many documents: the names of their roots are more than MongoDB keeps in one of its own.
#[test]
fn however_many_were_left_behind_all_are_known() {
    let options = fresh();
    let (store, _, fails) = open(&options);
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.commit().unwrap();
    let ids: BTreeSet<Vec<u8>> = (0..50_000).map(|n| [int(n), vec![b'x'; 400]].concat()).collect();
    let put = |store: &Paired| {
        let mut batch = store.begin()?;
        let writes: Vec<_> = ids.iter().map(|id| DocumentWrite { id, body: None, entries: &[], stamp: None }).collect();
        batch.put_documents(VERSION, 0, &writes)?;
        batch.commit()
    };
    fails.store(true, Ordering::Relaxed);
    put(&store).unwrap_err();

    let (other, ..) = open(&options);
    let unfinished = other.begin().unwrap().unfinished().unwrap();
    let [(VERSION, roots)] = &unfinished[..] else { panic!("of {} versions", unfinished.len()) };
    assert!(roots.iter().map(<[u8]>::to_vec).collect::<BTreeSet<_>>() == ids, "{} are known", roots.len());
    put(&other).unwrap();
    assert!(other.begin().unwrap().unfinished().unwrap().is_empty());
    // The next commit forgets them.
    other.begin().unwrap().commit().unwrap();
    let catalog = raw(&options).collection::<Document>("headwater.rows.default");
    let notes =
        wait(async move { catalog.count_documents(doc! { "_id": { "$regex": "^note:paired/unfinished" } }).await });
    assert_eq!(notes.unwrap(), 0);
}

/// As after a restore of the documents alone.
#[test]
fn documents_of_another_time_are_known() {
    let options = fresh();
    let mark = |set: Option<i64>| {
        let owners = raw(&options).collection::<Document>("headwater.owners");
        let of_documents = doc! { "_id": format!("documents/{}", options.projector) };
        wait(async move {
            if let Some(mark) = set {
                owners.update_one(of_documents.clone(), doc! { "$set": { "mark": mark } }).await.unwrap();
            }
            owners.find_one(of_documents).await.unwrap().unwrap().get_i64("mark").unwrap()
        })
    };
    let is_apart = |store: &Paired| store.begin().unwrap().is_apart();
    let (store, ..) = open(&options);
    write_everywhere(&*store, 1).unwrap();
    let before = mark(None);
    for n in 2..4 {
        write_everywhere(&*store, n).unwrap();
        assert!(!is_apart(&store));
    }
    let last = mark(None);
    assert!(before < last);
    // Offsets alone have no documents with them.
    let mut batch = store.begin().unwrap();
    batch.set_offset("events", 0, 9).unwrap();
    batch.commit().unwrap();
    assert!(!is_apart(&open(&options).0));

    for other in [before, last + 1] {
        mark(Some(other));
        let (store, ..) = open(&options);
        assert!(is_apart(&store));
        store.begin().unwrap().commit().unwrap();
        assert!(is_apart(&store), "nothing was done about it");
        write_everywhere(&*store, other as u64).unwrap();
        assert!(!is_apart(&store) && !is_apart(&open(&options).0));
    }
}
