//! What the projector itself holds of one commit, in a process of its own, so that nothing else is counted.
#![allow(clippy::unwrap_used)]

mod progress;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::{Fold, FoldOptions, Folded, Input};
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, RowBuilder, SourcePosition, TableId, TableSchema, Value, WriteRow, key,
};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use progress::progress;

const PREFIX: &str = "t";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const MODEL: &str = "
model: invoice
root: { table: shop.invoices, key: id }
fields: { id: id }
nest:
  tariff: { one: shop.tariffs, on: { id: tariff_id }, fields: [terms] }
";

/// Counts what is allocated by Rust code; LMDB's own pages are not.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Tests that count take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// Most bytes held while `work` runs, beyond those held before.
fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let done = work();
    (done, MOST.load(Ordering::Relaxed) - before)
}

fn schema(table: &str, others: &[(&str, ColumnType)]) -> TableSchema {
    let column = |name: &str, kind: &ColumnType, key_ordinal: Option<u16>| Column {
        name: name.into(),
        kind: kind.clone(),
        source_type: String::new(),
        key_ordinal,
    };
    let mut columns = vec![column("id", &ColumnType::Int64, Some(0))];
    columns.extend(others.iter().map(|(name, kind)| column(name, kind, None)));
    TableSchema { table: TableId::new("shop", "public", table), columns }
}

fn invoices() -> TableSchema {
    schema("invoices", &[("tariff_id", ColumnType::Int64)])
}

fn tariffs() -> TableSchema {
    schema("tariffs", &[("terms", ColumnType::Text)])
}

fn lines() -> TableSchema {
    schema("lines", &[("text", ColumnType::Text), ("tariff_id", ColumnType::Int64)])
}

/// New rows as one batch of their table's topic that begins at an offset. Of the column behind the second one all have 7.
fn batch(schema: &TableSchema, first: u64, rows: impl IntoIterator<Item = (i64, Value)>) -> FetchedBatch {
    let mut records = RecordBuffer::default();
    for (at, (id, second)) in (first..).zip(rows) {
        let header = EventHeader {
            op: Op::Create,
            position: SourcePosition { epoch: 1, commit: at + 1, ordinal: 1 },
            transaction: at + 1,
            committed_at_micros: 1_000_000,
            last_in_transaction: true,
            before_is_key_only: false,
        };
        let id = Value::Int(id);
        let mut write = |out: &mut Vec<u8>| {
            let mut row = RowBuilder::new(out);
            let third = Value::Int(7);
            [&id, &second, &third].into_iter().take(schema.columns.len()).for_each(|value| row.push_value(value));
        };
        let after: Option<WriteRow<'_>> = Some(&mut write);
        let key = key::of(id.scalar().unwrap());
        records.push(1, &key, Some(|out: &mut Vec<u8>| header.encode(out, None, after)));
    }
    let place = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition: 0 };
    let bytes = Bytes::copy_from_slice(records.as_bytes());
    FetchedBatch::new(place, Offset(first), schema.to_bytes().into(), bytes, records.count())
}

/// Says that the first record of each table is all there is, up to behind all that is brought here.
fn first_of_each() -> FetchedBatch {
    let watermarks = [invoices(), tariffs(), lines()].map(|schema| (schema.table.topic(PREFIX), vec![1])).into();
    progress(PREFIX, SourcePosition::after_commit(1, 10_000), watermarks)
}

/// Folds batches in one commit; answers also how many letters came at a time.
fn fold(fold: &mut Fold, batches: &[FetchedBatch]) -> (Folded, Vec<usize>) {
    let inputs: Vec<Input<'_>> = batches.iter().map(Input::whole).collect();
    let mut pieces = Vec::new();
    let folded = fold.micro_batch(&inputs, &mut |letters| {
        pieces.push(letters.len());
        Ok(())
    });
    (folded.unwrap(), pieces)
}

fn fold_of(model: &str, store: Arc<EmbeddedStore>) -> Fold {
    let model = parse("invoice.yaml", model, &ParseContext::default()).expect("a sound model");
    Fold::open(store, &[model], FoldOptions { prefix: PREFIX.into(), ..FoldOptions::default() }).unwrap()
}

fn store(folder: &tempfile::TempDir) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedOptions { size_max: 2 << 30, ..EmbeddedOptions::new(folder.path()) }).unwrap()
}

#[test]
fn it_does_not_grow_with_the_documents_and_letters_of_a_commit() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut served = fold_of(MODEL, store(&folder));
    let small = Value::Text("as before".into());
    let first = [batch(&invoices(), 0, [(0, Value::Int(1))]), batch(&tariffs(), 0, [(1, small)]), first_of_each()];
    fold(&mut served, &first);
    while served.has_background_work() {
        served.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap();
    }

    // A quarter of a MiB once as a row, and in each of a thousand documents.
    let terms = Value::Text("x".repeat(256 * KIB));
    let of_tariff = |id: i64, count: i64| (count..2 * count).map(move |at| (id << 32 | at, Value::Int(id)));
    let large = [batch(&tariffs(), 1, [(2, terms)]), batch(&invoices(), 1, of_tariff(2, 1_000))];
    let ((folded, pieces), most) = most_held(|| fold(&mut served, &large));
    assert_eq!((folded.documents.written, pieces), (1_000, vec![]));
    assert!(most < 64 * MIB, "{} MiB were held at once", most / MIB);

    // Of this one nobody knows the terms: no document that needs them can be built.
    let unknown = [batch(&tariffs(), 2, [(3, Value::Missing)]), batch(&invoices(), 1_001, of_tariff(3, 2_500))];
    let (folded, pieces) = fold(&mut served, &unknown);
    assert_eq!((folded.dead_letters, pieces), (2_500, vec![1_000, 1_000, 500]));
}

/// A column of one value cannot carry a relation: the document would be refused by its size anyway.
#[test]
fn what_one_document_reads_is_bounded() {
    let _alone = ALONE.lock().unwrap();
    let model = "
model: invoice
root: { table: shop.invoices, key: id }
fields: { id: id }
nest:
  alike: { many: shop.lines, on: { tariff_id: tariff_id }, fields: [id, text] }
";
    let folder = tempfile::tempdir().unwrap();
    let mut served = fold_of(model, store(&folder));
    let first = [
        batch(&invoices(), 0, [(0, Value::Int(1))]),
        batch(&lines(), 0, [(0, Value::Text("small".into()))]),
        first_of_each(),
    ];
    fold(&mut served, &first);
    while served.has_background_work() {
        served.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap();
    }
    for piece in 0..11_i64 {
        let text = Value::Text("x".repeat(256 * KIB));
        let rows = (0..100).map(|at| (100 * piece + at + 1, text.clone()));
        fold(&mut served, &[batch(&lines(), 100 * piece.unsigned_abs() + 1, rows)]);
    }
    let held = HELD.load(Ordering::Relaxed);
    let of_them = batch(&invoices(), 1, (1..=3).map(|id| (id, Value::Int(7))));
    let mut causes = Vec::new();
    let (folded, most) = most_held(|| {
        served.micro_batch(&[Input::whole(&of_them)], &mut |letters| {
            causes.extend(letters.iter().map(|letter| (letter.root.clone(), letter.cause.clone())));
            Ok(())
        })
    });
    assert_eq!((folded.unwrap().documents.written, causes.len()), (0, 3), "{causes:?}");
    assert!(causes.iter().all(|(root, cause)| root.is_some() && cause.contains("relation `alike`")), "{causes:?}");
    // A buffer that grows is there twice for a moment.
    assert!(most < 800 * MIB, "{} MiB were held at once", most / MIB);
    let kept = HELD.load(Ordering::Relaxed).saturating_sub(held);
    assert!(kept < 64 * MIB, "{} MiB were kept", kept / MIB);
}

/// All that a slice builds goes in one commit.
#[test]
fn large_documents_are_built_in_smaller_slices() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut built = fold_of(MODEL, store(&folder));
    let terms = Value::Text("x".repeat(256 * KIB));
    let rows = (0..1_000).map(|id| (id, Value::Int(1)));
    fold(&mut built, &[batch(&tariffs(), 0, [(1, terms)]), batch(&invoices(), 0, rows), first_of_each()]);
    let mut slices = Vec::new();
    while built.has_background_work() {
        let folded = built.background(Duration::ZERO, &mut |_| Ok(())).unwrap();
        slices.extend(folded.map(|folded| folded.documents.written).filter(|written| *written > 0));
    }
    assert_eq!(slices.iter().sum::<u64>(), 1_000);
    // By the first one it is learned how large they are.
    assert!(slices[1..].iter().all(|written| *written <= 100), "{slices:?}");
}
