//! What only the embedded engine promises: whole batches after a kill and after a stop of the machine, a clean end when
//! there is no room, one process at a time.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use headwater_schemas::{RowBuilder, RowRef, SourcePosition, TableId, ValueRef, key};
use headwater_store::contract::Random;
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{
    Batch, ByteList, DocumentReader, DocumentWrite, Error, ErrorKind, Filter, IndexQuery, JoinIndex, KeyRange,
    ProjectionStore, RowArena, RowWrite, SchemaId, VersionId,
};

const VERSION: VersionId = VersionId(1);
const CHILD: &str = "HEADWATER_TEST_CHILD_FOLDER";

fn open(folder: &Path) -> Result<Arc<EmbeddedStore>, Error> {
    EmbeddedStore::open(EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder) })
}

fn join() -> JoinIndex {
    JoinIndex { table: TableId::new("billing", "public", "lines"), columns: vec!["invoice".into()] }
}

/// Writes the number `n` into 30 rows, their join entries, 30 documents with an index entry each, and an offset.
fn write_everywhere(batch: &mut dyn Batch, n: u64) {
    let (join, join_key) = (join(), key::of(ValueRef::Int(1)));
    let (mut cells, value) = (Vec::new(), key::of(ValueRef::UInt(n)));
    RowBuilder::new(&mut cells).push(ValueRef::Int(n as i64));
    let body = format!("{n:>0$}", 1 + n as usize % 7000);
    for row in 0..30 {
        let key = key::of(ValueRef::Int(row));
        let write = RowWrite {
            key: &key,
            row: Some(RowRef(&cells)),
            schema: SchemaId(0),
            position: SourcePosition::after_commit(1, n),
            removed: &[(0, &join_key)],
            added: &[(0, &join_key)],
        };
        batch.put_row(&join.table, &[&join], write).unwrap();
        let write = DocumentWrite { id: &key, body: Some(body.as_bytes()), entries: &[(0, &value)], stamp: None };
        batch.put_documents(VERSION, n as i64, &[write]).unwrap();
    }
    batch.set_offset("events", 0, n).unwrap();
}

/// The number found everywhere; 0 in an empty store.
async fn read_everywhere(store: &EmbeddedStore) -> u64 {
    let batch = store.begin().unwrap();
    let n = batch.offsets().unwrap().first().map_or(0, |(_, _, offset)| *offset);
    let mut rows = RowArena::default();
    let mut join_keys = ByteList::default();
    join_keys.push(&key::of(ValueRef::Int(1)));
    batch.rows_by_join(&join(), &join_keys, 0, &mut rows).unwrap();
    batch.scan_rows(&join().table, None, 100, &mut rows).unwrap();
    assert_eq!(rows.slots().len(), if n == 0 { 0 } else { 60 });
    for slot in rows.slots() {
        assert!(matches!(rows.row(slot).unwrap().cell(0), ValueRef::Int(m) if m as u64 == n), "a torn batch");
    }
    let query = IndexQuery {
        walk: Some(Filter { index: 0, ranges: vec![KeyRange::default()], negated: false }),
        descending: false,
        filters: vec![],
        after: None,
        limit: 1000,
        entries_max: 1000,
        bytes_max: usize::MAX,
    };
    let page = store.query(VERSION, &query).await.unwrap();
    assert_eq!(page.documents.len(), rows.slots().len() / 2);
    for (_, document) in page.documents {
        let body = std::str::from_utf8(&document.body).unwrap();
        assert_eq!((body.trim().parse(), document.as_of_micros), (Ok(n), n as i64), "a torn batch");
    }
    n
}

/// Not a test by itself: what the process that is killed does.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = open(Path::new(&folder)).unwrap();
    let mut n = store.begin().unwrap().offsets().unwrap().first().map_or(0, |(_, _, offset)| *offset);
    loop {
        n += 1;
        let mut batch = store.begin().unwrap();
        write_everywhere(&mut *batch, n);
        batch.commit().unwrap();
        println!("\ncommitted {n}");
    }
}

#[tokio::test]
async fn a_kill_loses_no_commit_and_tears_no_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::announced("a_kill_loses_no_commit_and_tears_no_batch");
    let mut last = 0;
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let numbers = lines.lines().filter_map(|line| line.ok()?.strip_prefix("committed ")?.parse::<u64>().ok());
            numbers.last()
        });
        std::thread::sleep(Duration::from_micros(100_000 + random.below(150_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let committed = reader.join().unwrap().unwrap_or(last);
        let store = open(folder.path()).unwrap();
        let found = read_everywhere(&store).await;
        assert!(found >= committed && found >= last, "round {round}: {committed} was committed, {found} is there");
        last = found;
    }
    assert!(last > 15, "the child did nothing");
}

/// What the files hold, as every process sees them; what is on disk may be older, page by page.
struct Image {
    data: Vec<u8>,
    checkpoint: Vec<u8>,
}

impl Image {
    const PAGE: usize = 4096;

    fn of(folder: &Path) -> Self {
        let read = |name| std::fs::read(folder.join(name)).unwrap();
        Self { data: read("data.mdb"), checkpoint: read("checkpoint") }
    }

    fn page(&self, number: usize) -> Option<&[u8]> {
        self.data.chunks(Self::PAGE).nth(number)
    }

    /// What a machine that stops may leave on disk of this image, which is settled, and of later ones, which are not:
    /// each page as it was in any of them, or, where the file had not reached, nothing.
    fn torn(&self, later: &[Self], random: &mut Random) -> Vec<u8> {
        let mut images: Vec<&Self> = later.iter().collect();
        images.push(self);
        let pages = images[random.below(images.len())].data.len().max(self.data.len()) / Self::PAGE;
        let settled = self.data.len() / Self::PAGE;
        let mut torn = Vec::with_capacity(pages * Self::PAGE);
        for number in 0..pages {
            match images[random.below(images.len())].page(number) {
                Some(page) if number < settled || !random.one_in(3) => torn.extend_from_slice(page),
                _ => torn.resize(torn.len() + Self::PAGE, 0),
            }
        }
        torn
    }
}

/// The number found in a store of these files, opened after a stop of the machine, and that it can be written on.
async fn found_after_stop(data: &[u8], checkpoint: &[u8]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.mdb"), data).unwrap();
    std::fs::write(folder.path().join("checkpoint"), checkpoint).unwrap();
    let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
    let store = EmbeddedStore::open_after_stop(options).unwrap();
    let found = read_everywhere(&store).await;
    for n in found + 1..found + 4 {
        let mut batch = store.begin().unwrap();
        write_everywhere(&mut *batch, n);
        batch.commit().unwrap();
    }
    assert_eq!(read_everywhere(&store).await, found + 3);
    found
}

/// Tried by hand: without the transaction that pins a checkpoint's pages, and without putting its meta pages back, this
/// fails in the first rounds.
#[tokio::test]
async fn a_stop_of_the_machine_leaves_a_whole_earlier_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::announced("a_stop_of_the_machine_leaves_a_whole_earlier_state");
    let an_hour = Duration::from_secs(3600);
    let options = EmbeddedOptions { settle_interval: an_hour, ..EmbeddedOptions::new(folder.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    let (mut n, mut torn_rounds) = (0, 0);
    let mut write = |count: usize| {
        for _ in 0..count {
            n += 1;
            let mut batch = store.begin().unwrap();
            write_everywhere(&mut *batch, n);
            batch.commit().unwrap();
        }
        n
    };
    for _ in 0..40 {
        let settled_at = write(1 + random.below(5));
        store.settle(Duration::ZERO).unwrap();
        let settled = Image::of(folder.path());
        assert_eq!(found_after_stop(&settled.data, &settled.checkpoint).await, settled_at);
        let mut later = Vec::new();
        for _ in 0..1 + random.below(4) {
            write(1 + random.below(5));
            later.push(Image::of(folder.path()));
        }
        // On a slow machine the store may have found itself too far behind.
        if later.iter().any(|image| image.checkpoint != settled.checkpoint) {
            continue;
        }
        for _ in 0..4 {
            let torn = settled.torn(&later, &mut random);
            assert_eq!(found_after_stop(&torn, &settled.checkpoint).await, settled_at);
        }
        torn_rounds += 1;
    }
    assert!(torn_rounds > 10, "the machine is too slow to show anything");
    // A clean end leaves nothing to the machine's mercy.
    let last = write(3);
    drop(store);
    let closed = Image::of(folder.path());
    assert_eq!(found_after_stop(&closed.data, &closed.checkpoint).await, last);
}

#[tokio::test]
async fn a_batch_is_on_disk_soon_without_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut batch = store.begin().unwrap();
    write_everywhere(&mut *batch, 1);
    batch.commit().unwrap();
    let begin = std::time::Instant::now();
    loop {
        let image = Image::of(folder.path());
        if found_after_stop(&image.data, &image.checkpoint).await == 1 {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "it never came to disk");
    }
}

#[test]
fn a_store_without_its_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    std::fs::remove_file(folder.path().join("checkpoint")).unwrap();
    let refused = open(folder.path()).err().unwrap();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Fatal);
}

/// The first read of a page that is missing would end the process.
#[tokio::test]
async fn a_store_that_was_cut_off_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for n in 1..20 {
        let mut batch = store.begin().unwrap();
        write_everywhere(&mut *batch, n);
        batch.commit().unwrap();
    }
    drop(store);
    let data = std::fs::File::options().write(true).open(folder.path().join("data.mdb")).unwrap();
    let whole = std::fs::read(folder.path().join("data.mdb")).unwrap();
    for missing in [1, Image::PAGE, whole.len() / 2] {
        data.set_len((whole.len() - missing) as u64).unwrap();
        let refused = open(folder.path()).err().unwrap();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
        assert!(refused.to_string().contains("shorter"), "{refused}");
    }
    std::fs::write(folder.path().join("data.mdb"), whole).unwrap();
    assert_eq!(read_everywhere(&open(folder.path()).unwrap()).await, 19);
}

/// Rows lie in the entries of one of their join indexes; they move when it goes. Tried by hand: without the move, reading
/// by key fails.
#[test]
fn rows_outlive_the_join_index_they_lie_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let table = TableId::new("billing", "public", "lines");
    let index = |column: &str| JoinIndex { table: table.clone(), columns: vec![column.into()] };
    let (invoice, tariff) = (index("invoice"), index("tariff"));
    let mut batch = store.begin().unwrap();
    batch.add_join_index(&invoice).unwrap();
    batch.add_join_index(&tariff).unwrap();
    let mut keys = ByteList::default();
    for n in 0..5000_i64 {
        // Every seventh key is longer than what LMDB takes.
        let key = if n % 7 == 0 { key::of(ValueRef::Text(&format!("{n:0>600}"))) } else { key::of(ValueRef::Int(n)) };
        let mut cells = Vec::new();
        RowBuilder::new(&mut cells).push(ValueRef::Int(n));
        let (long, short) = (key::of(ValueRef::Text(&format!("{:0>300}", n % 50))), key::of(ValueRef::Int(n % 30)));
        let all: [(usize, &[u8]); 2] = [(0, &long), (1, &short)];
        let added = match n % 4 {
            0 => &all[..],
            1 => &all[..1],
            2 => &all[1..],
            _ => &[],
        };
        batch
            .put_row(
                &table,
                &[&invoice, &tariff],
                RowWrite {
                    key: &key,
                    row: (n % 11 != 0).then_some(RowRef(&cells)),
                    schema: SchemaId(3),
                    position: SourcePosition::after_commit(1, n as u64),
                    removed: &[],
                    added: if n % 11 == 0 { &[] } else { added },
                },
            )
            .unwrap();
        keys.push(&key);
    }
    batch.commit().unwrap();
    let read = || {
        let batch = store.begin().unwrap();
        let (mut by_key, mut scanned) = (RowArena::default(), RowArena::default());
        batch.rows_by_key(&table, &keys, 0, &mut by_key).unwrap();
        batch.scan_rows(&table, None, 10_000, &mut scanned).unwrap();
        assert_eq!(batch.row_count(&table).unwrap(), 5000);
        let told = |rows: &RowArena| -> Vec<_> {
            let told =
                |slot| (rows.key(slot).to_vec(), slot.position, slot.schema, rows.row(slot).map(|row| row.0.to_vec()));
            rows.slots().iter().map(told).collect()
        };
        (told(&by_key), told(&scanned))
    };
    let before = read();
    for (at, (_, position, schema, row)) in before.0.iter().enumerate() {
        assert_eq!((*position, *schema), (SourcePosition::after_commit(1, at as u64), SchemaId(3)));
        assert_eq!(row.is_some(), at % 11 != 0);
    }
    assert_eq!((before.0.len(), before.1.len()), (5000, 5000));
    for gone in [&invoice, &tariff] {
        let mut batch = store.begin().unwrap();
        batch.drop_join_index(gone).unwrap();
        batch.commit().unwrap();
        assert!(read() == before, "rows changed when the join index over {:?} went", gone.columns);
    }
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let refused = open(folder.path()).err().unwrap();
    assert!(matches!(refused, Error::InUse { .. }));
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    assert!(refused.to_string().contains(folder.path().to_str().unwrap()));
    drop(store);
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_full_store_keeps_what_it_has_and_goes_on_with_more_room() {
    let folder = tempfile::tempdir().unwrap();
    let sized = |size_max| EmbeddedStore::open(EmbeddedOptions { size_max, ..EmbeddedOptions::new(folder.path()) });
    let store = sized(2 << 20).unwrap();
    let fill = |store: &EmbeddedStore, n: u64| -> Result<(), Error> {
        let mut batch = store.begin()?;
        let body = vec![b'x'; 50_000];
        let id = key::of(ValueRef::UInt(1000 + n));
        batch.put_documents(VERSION, 0, &[DocumentWrite { id: &id, body: Some(&body), entries: &[], stamp: None }])?;
        batch.set_offset("events", 0, n)?;
        batch.commit()
    };
    let mut written = 0;
    let full = loop {
        match fill(&store, written + 1) {
            Ok(()) => written += 1,
            Err(full) => break full,
        }
    };
    assert!(matches!(full, Error::Full { .. }), "{full:?}");
    assert_eq!(full.kind(), ErrorKind::Retryable);
    assert!(written > 10);
    // Reads go on, and a further try says the same.
    assert_eq!(store.document_count(VERSION).await.unwrap(), written);
    assert!(matches!(fill(&store, written + 1), Err(Error::Full { .. })));
    assert_eq!(store.begin().unwrap().offsets().unwrap(), [("events".to_owned(), 0, written)]);
    drop(store);

    let store = sized(8 << 20).unwrap();
    assert_eq!(store.begin().unwrap().offsets().unwrap(), [("events".to_owned(), 0, written)]);
    fill(&store, written + 1).unwrap();
    assert_eq!(store.document_count(VERSION).await.unwrap(), written + 1);
}

#[test]
fn batches_wait_for_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut first = store.begin().unwrap();
    first.set_note("n", Some(b"first")).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| store.begin().unwrap().note("n").unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished());
        first.commit().unwrap();
        assert_eq!(second.join().unwrap().as_deref(), Some(&b"first"[..]));
    });
}

#[test]
fn metrics_count_and_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let mut batch = store.begin().unwrap();
    write_everywhere(&mut *batch, 1);
    batch.commit().unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    store.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for expected in [
        "headwater_store_commits_total 1",
        "headwater_store_commit_seconds_count 1",
        "headwater_store_written_rows_total 30",
        "headwater_store_written_documents_total 30",
        "headwater_store_written_bytes_total ",
        "headwater_store_used_bytes ",
        "headwater_store_size_max_bytes 1073741824",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}
