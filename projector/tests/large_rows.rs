//! Rows that are larger than a document of MongoDB: they become dead letters, hold up nothing, and are kept without what makes
//! them so.
#![allow(clippy::unwrap_used)]

#[path = "shared_rows/log.rs"]
#[allow(dead_code, reason = "some of it is for the tests of topics")]
mod log;
#[path = "runs/source.rs"]
#[allow(dead_code, reason = "some of it is for the tests of what retention removed")]
mod source;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition, Watermarks};
use headwater_projector::{
    Applied, Fold, FoldOptions, Folded, Input, ProjectorMetrics, ProjectorOptions, Share, ShareOptions, start,
};
use headwater_schemas::{
    Column, ColumnType, DeadLetter, EventHeader, Op, Payload, RowBuilder, SourcePosition, Stage, TableId, TableSchema,
    Value, ValueRef, WriteRow, key,
};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoReader, MongoRows};
use headwater_store::{
    DocumentReader, Paired, ProjectionStore, RowArena, RowBatch, RowStore, VersionRecord, VersionState,
};
use headwater_test_servers::Mongo;
use source::{MODEL, PREFIX, Source, fill, model, schemas, text};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

/// Where the partition begins and ends.
const MARKS: Watermarks = Watermarks { low: Offset(0), high: Offset(5) };

/// The driver's runtime: not that of the test, which blocks its thread.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Ends with this process, by its watchdog.
static SERVER: LazyLock<Mongo> = LazyLock::new(Mongo::start);

fn open(options: &MongoOptions) -> (Arc<MongoRows>, Arc<MongoDocuments>) {
    RUNTIME.block_on(async {
        (MongoRows::open(options.clone()).await.unwrap(), MongoDocuments::open(options.clone()).await.unwrap())
    })
}

/// Scanned papers, each of two pages.
fn schema() -> TableSchema {
    let column = |name: &str, kind: ColumnType, key_ordinal: Option<u16>| Column {
        name: name.into(),
        kind,
        source_type: String::new(),
        key_ordinal,
    };
    let columns = vec![
        column("id", ColumnType::Int64, Some(0)),
        column("front", ColumnType::Text, None),
        column("back", ColumnType::Text, None),
    ];
    TableSchema { table: TableId::new("shop", "public", "scans"), columns }
}

fn place() -> TopicPartition {
    TopicPartition { topic: schema().table.topic(PREFIX).into(), partition: 0 }
}

/// A page of so many MiB; of 0, one that the source did not send.
fn page(mib: usize) -> Value {
    if mib == 0 { Value::Missing } else { Value::Text("x".repeat(mib * MIB)) }
}

/// Changes as one batch of the log that begins at an offset.
fn batch(first: u64, rows: &[(Op, i64, Value, Value)]) -> FetchedBatch {
    let mut records = RecordBuffer::default();
    for (at, (op, id, front, back)) in (first..).zip(rows) {
        let header = EventHeader {
            op: *op,
            // A truncation stands behind the rows of a reading, and below them.
            position: SourcePosition { epoch: 1, commit: if *op == Op::Truncate { 0 } else { at + 1 }, ordinal: 1 },
            transaction: at + 1,
            committed_at_micros: 1_000_000,
            last_in_transaction: true,
            before_is_key_only: false,
        };
        let mut write = |out: &mut Vec<u8>| {
            let mut row = RowBuilder::new(out);
            [&Value::Int(*id), front, back].into_iter().for_each(|value| row.push_value(value));
        };
        let after: Option<WriteRow<'_>> = if *op == Op::Truncate { None } else { Some(&mut write) };
        let key = key::of(ValueRef::Int(*id));
        records.push(1, &key, Some(|out: &mut Vec<u8>| header.encode(out, None, after)));
    }
    let bytes = Bytes::copy_from_slice(records.as_bytes());
    FetchedBatch::new(place(), Offset(first), schema().to_bytes().into(), bytes, records.count())
}

/// The second change of each of the first two rows makes it too large: by itself, and with what is known of it.
fn changes() -> FetchedBatch {
    batch(
        0,
        &[
            (Op::Create, 1, page(1), Value::Null),
            (Op::Create, 2, page(9), Value::Null),
            (Op::Update, 1, page(17), Value::Null),
            (Op::Update, 2, page(0), page(8)),
            (Op::Create, 3, page(2), Value::Null),
        ],
    )
}

/// What the store has of these rows then.
const CUT: [(i64, Option<usize>, Option<usize>); 3] = [(1, None, Some(0)), (2, Some(9), None), (3, Some(2), Some(0))];

/// The rows: id, and the size of each page in MiB; `None`: it is not known.
fn stored(batch: &dyn RowBatch) -> Vec<(i64, Option<usize>, Option<usize>)> {
    let mut rows = RowArena::default();
    batch.scan_rows(&schema().table, None, 10, &mut rows).unwrap();
    let mib = |cell: ValueRef<'_>| match cell {
        ValueRef::Text(text) => Some(text.len() / MIB),
        ValueRef::Missing => None,
        _ => Some(0),
    };
    let of = |slot| {
        let row = rows.row(slot).unwrap();
        let ValueRef::Int(id) = row.cell(0) else { panic!("not a row of this test") };
        (id, mib(row.cell(1)), mib(row.cell(2)))
    };
    rows.slots().iter().map(of).collect()
}

fn check_letters(letters: &[DeadLetter]) {
    assert_eq!(letters.len(), 2);
    for (letter, (id, at, column)) in letters.iter().zip([(1, 2, "front"), (2, 3, "back")]) {
        let cause = &letter.cause;
        let kept = format!("key {id} is kept without {column}:");
        for word in ["shop.public.scans", &kept, "bytes", "16 MiB", "column list"] {
            assert!(cause.contains(word), "it does not say {word:?}: {cause}");
        }
        assert!(cause.len() < 1_000, "what is in the row is not told");
        assert_eq!((letter.stage, letter.table.as_deref()), (Stage::Decode, Some("shop.public.scans")));
        // It is read again from where it stands: a letter of that size fits into no log.
        let Payload::Record { offset, value: None, value_bytes: Some(bytes), .. } = &letter.payload else {
            panic!("{:?}", serde_json::to_string(letter).unwrap().len())
        };
        assert!(*offset == at && *bytes > MIB as u64, "{offset}: {bytes} bytes");
    }
}

fn counts(folded: &Folded) -> (u64, u64, u64) {
    (folded.events, folded.rows, folded.dead_letters)
}

#[test]
fn they_become_dead_letters_and_all_else_goes_on() {
    let (rows, documents) = open(&MongoOptions::new(SERVER.url(), "alone"));
    let store = Paired::new(rows, documents);
    let options = FoldOptions { prefix: PREFIX.into(), ..FoldOptions::default() };
    let mut fold = Fold::open(store.clone(), &[], options).unwrap();
    let (first, mut letters): (_, Vec<DeadLetter>) = (changes(), Vec::new());
    let folded = fold
        .micro_batch(&[Input::whole(&first)], &mut |found| {
            letters.extend_from_slice(found);
            Ok(())
        })
        .unwrap();
    assert_eq!(counts(&folded), (5, 3, 2));
    check_letters(&letters);
    assert_eq!(stored(&*store.begin().unwrap()), CUT);
    assert_eq!(fold.offsets()[&(schema().table.topic(PREFIX), 0)], 5);

    // A page that is not sent is not what it was before.
    let later = batch(5, &[(Op::Update, 1, page(0), page(1)), (Op::Update, 2, page(1), page(0))]);
    let folded = fold.micro_batch(&[Input::whole(&later)], &mut |_| Ok(())).unwrap();
    assert_eq!(counts(&folded), (2, 2, 0));
    let rows = [(1, None, Some(1)), (2, Some(1), None), (3, Some(2), Some(0))];
    assert_eq!(stored(&*store.begin().unwrap()), rows);

    // Once they fit again they are whole.
    let later = batch(7, &[(Op::Update, 1, page(3), page(0)), (Op::Update, 2, page(0), page(2))]);
    let folded = fold.micro_batch(&[Input::whole(&later)], &mut |_| Ok(())).unwrap();
    assert_eq!(counts(&folded), (2, 2, 0));
    let rows = [(1, Some(3), Some(1)), (2, Some(1), Some(2)), (3, Some(2), Some(0))];
    assert_eq!(stored(&*store.begin().unwrap()), rows);
}

/// A worker without models that shares the rows of this database.
fn sharing(database: &str) -> (Arc<MongoRows>, Share) {
    let (rows, documents) = open(&MongoOptions { shared: true, ..MongoOptions::new(SERVER.url(), database) });
    let options = ShareOptions {
        name: "w".into(),
        prefix: PREFIX.into(),
        models: Vec::new(),
        dirty_partitions: 1,
        slice_rows: 100,
        retired_grace: Duration::ZERO,
    };
    let log = Arc::new(log::MemoryLog::default());
    let share = Share::new(options, log, rows.clone(), documents, RUNTIME.handle().clone());
    (rows, share)
}

#[test]
fn they_do_so_where_rows_are_shared() {
    let (rows, mut share) = sharing("shared");
    let (first, mut letters): (_, Vec<DeadLetter>) = (changes(), Vec::new());
    // The first transaction makes the table's collection, and fails.
    let applied = (0..3).find_map(|_| {
        share.claim(&place(), MARKS).unwrap();
        letters.clear();
        let applied = share.apply(&[Input::whole(&first)], &mut |found| {
            letters.extend_from_slice(found);
            Ok(())
        });
        applied.ok()
    });
    match applied {
        Some(Applied::Whole { folded, lost }) => assert_eq!((counts(&folded), lost), ((5, 3, 2), vec![])),
        other => panic!("it failed: {other:?}"),
    }
    check_letters(&letters);
    assert_eq!(stored(&*rows.begin().unwrap()), CUT);
    assert_eq!(share.claim(&place(), MARKS).unwrap(), 5, "it is passed over for good");
}

#[test]
fn they_are_told_of_where_their_table_is_truncated_behind_them() {
    let (rows, mut share) = sharing("truncated");
    let first = batch(0, &[(Op::Read, 1, page(17), Value::Null), (Op::Truncate, 0, Value::Null, Value::Null)]);
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut is_claimed = false;
    // The first transaction makes the table's collection, and fails; then the table is swept.
    let is_whole = (0..9).any(|_| {
        if !is_claimed {
            share.claim(&place(), MARKS).unwrap();
            is_claimed = true;
        }
        let applied = share.apply(&[Input::whole(&first)], &mut |found| {
            letters.extend_from_slice(found);
            Ok(())
        });
        is_claimed = applied.is_ok();
        matches!(applied, Ok(Applied::Whole { .. }))
    });
    assert!(is_whole, "it is not applied");
    assert!(letters.iter().any(|letter| letter.cause.contains("key 1 is kept without front:")), "{letters:?}");
    assert_eq!(stored(&*rows.begin().unwrap()), [(1, None, Some(0))]);
}

const NUMBERS: &str = "
model: numbers
root: { table: shop.customers, key: id }
fields: { id: id }
nest:
  invoices: { many: shop.invoices, on: { customer_id: id }, fields: [id] }
";

/// The second customer's document.
async fn served(reader: &MongoReader, model: &str) -> Option<String> {
    let is_it = |it: &&VersionRecord| it.model == model && it.state == VersionState::Active;
    let version = reader.versions().borrow().iter().find(is_it).map(|it| it.id)?;
    let document = reader.get(version, &key::of(ValueRef::Int(2))).await.unwrap()?;
    Some(String::from_utf8(document.body.to_vec()).unwrap())
}

async fn serves(reader: &MongoReader, model: &str, wanted: Option<&str>) -> bool {
    served(reader, model).await.as_deref() == wanted
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(60), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What else came with a cell that is too large reaches the documents that do not need it. One that does is not served with
/// what was there before, whatever comes later, and no retry says that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn no_document_shows_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(folder.path()).await;
    fill(&mut source).await;
    let options = MongoOptions::new(SERVER.url(), "served");
    let rows = MongoRows::open(options.clone()).await.unwrap();
    let documents = MongoDocuments::open(options).await.unwrap();
    let (reader, store, cancel) = (documents.reader(), Paired::new(rows, documents), CancellationToken::new());
    let options = ProjectorOptions::new(PREFIX, vec![model(MODEL), model(NUMBERS)]);
    let handle = start(options, source.log.clone(), store, ProjectorMetrics::default(), cancel.clone()).unwrap();
    let none = r#"{"id":2,"invoices":[]}"#;
    let bob = r#"{"id":2,"name":"Bob","invoices":[],"all":"0"}"#;
    eventually("the documents", async || {
        serves(&reader, "customer", Some(bob)).await && serves(&reader, "numbers", Some(none)).await
    })
    .await;

    // An invoice moves to another customer.
    let [_, invoices, _] = schemas();
    let large = text(&"x".repeat(17 * MIB));
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), large]]).await;
    let moved = Some(r#"{"id":2,"invoices":[{"id":10}]}"#);
    eventually("the move", async || serves(&reader, "numbers", moved).await && serves(&reader, "customer", None).await)
        .await;
    let outcome = handle.retry_dead_letters(None).await.unwrap();
    assert!(outcome.failed >= 2 && outcome.resolved == 0, "{outcome:?}");

    // What comes later does not send it.
    let before = handle.status().events_total;
    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), Value::Missing]]).await;
    eventually("the next change", async || handle.status().events_total > before).await;
    assert!(serves(&reader, "customer", None).await);
    let outcome = handle.retry_dead_letters(None).await.unwrap();
    assert!(outcome.failed >= 1 && outcome.resolved >= 1, "the document fails, the event is past: {outcome:?}");

    source.append(&invoices, Op::Update, &[vec![Value::Int(10), Value::Int(2), text("open")]]).await;
    let whole = r#"{"id":2,"name":"Bob","invoices":[{"id":10,"status":"open","lines":[{"id":100,"amount":"1.50"},{"id":101,"amount":"2.25"}],"total":"3.75"}],"all":"3.75"}"#;
    eventually("the whole document", async || serves(&reader, "customer", Some(whole)).await).await;
    let outcome = handle.retry_dead_letters(None).await.unwrap();
    assert_eq!(outcome.failed, 0, "{outcome:?}");
    cancel.cancel();
    handle.join().await.unwrap();
}
