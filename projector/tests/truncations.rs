//! A truncated table goes in parts, each of which may be the last before a failure.
#![allow(clippy::unwrap_used)]

#[path = "follow_rows/flaky.rs"]
#[allow(dead_code, reason = "its documents alone are for the tests of paired engines")]
mod flaky;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_projector::{ErrorKind, Fold, FoldOptions, Folded, Input};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{
    Column, ColumnType, EventHeader, Op, RowBuilder, SourcePosition, SourceProgress, TableId, TableSchema, ValueRef,
    WriteRow, key, progress_topic,
};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{ProjectionStore, RowArena};

const PREFIX: &str = "t";

fn model() -> ReadModel {
    let yaml = "model: item\nroot: { table: shop.items, key: id }\nfields: { id: id }\n";
    parse("item.yaml", yaml, &ParseContext::default()).expect("a sound model")
}

fn schema() -> TableSchema {
    let id = Column { name: "id".into(), kind: ColumnType::Int64, source_type: String::new(), key_ordinal: Some(0) };
    TableSchema { table: TableId::new("shop", "public", "items"), columns: vec![id] }
}

/// Records of the log from an offset on, each a transaction: a new row, or (`None`) a truncation.
fn records(first: u64, changes: &[Option<i64>]) -> FetchedBatch {
    let at = |at| SourcePosition { epoch: 1, commit: at + 1, ordinal: 1 };
    records_at(first, &(first..).map(at).zip(changes.iter().copied()).take(changes.len()).collect::<Vec<_>>())
}

fn records_at(first: u64, changes: &[(SourcePosition, Option<i64>)]) -> FetchedBatch {
    let mut records = RecordBuffer::default();
    for (at, (position, id)) in (first..).zip(changes.iter().copied()) {
        let header = EventHeader {
            op: if id.is_some() { Op::Create } else { Op::Truncate },
            position,
            transaction: at + 1,
            committed_at_micros: 1_000_000,
            last_in_transaction: true,
            before_is_key_only: false,
        };
        let mut write = |out: &mut Vec<u8>| RowBuilder::new(out).push(ValueRef::Int(id.unwrap_or_default()));
        let after: Option<WriteRow<'_>> = if id.is_some() { Some(&mut write) } else { None };
        let key = id.map_or_else(Vec::new, |id| key::of(ValueRef::Int(id)));
        records.push(1, &key, Some(|out: &mut Vec<u8>| header.encode(out, None, after)));
    }
    let place = TopicPartition { topic: schema().table.topic(PREFIX).into(), partition: 0 };
    let bytes = Bytes::copy_from_slice(records.as_bytes());
    FetchedBatch::new(place, Offset(first), schema().to_bytes().into(), bytes, records.count())
}

/// Says that so many records are all there is.
fn progress(end: u64) -> FetchedBatch {
    let progress = SourceProgress {
        position: SourcePosition { epoch: 1, commit: end, ordinal: 1 },
        at_micros: 1_000_000,
        snapshot_done: true,
        watermarks: BTreeMap::from([(schema().table.topic(PREFIX), vec![end])]),
    };
    let json = serde_json::to_vec(&progress).unwrap();
    let mut records = RecordBuffer::default();
    records.push(1, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
    let place = TopicPartition { topic: progress_topic(PREFIX, "shop").into(), partition: 0 };
    FetchedBatch::new(place, Offset(0), Bytes::new(), Bytes::copy_from_slice(records.as_bytes()), 1)
}

fn fold(fold: &mut Fold, batch: &FetchedBatch) -> Result<Folded, headwater_projector::Error> {
    fold.micro_batch(&[Input::whole(batch)], &mut |_| Ok(()))
}

/// How many rows and documents there are.
fn left(store: &EmbeddedStore) -> (u64, u64) {
    let batch = store.begin().unwrap();
    let mut rows = RowArena::default();
    batch.scan_rows(&schema().table, None, 1_000, &mut rows).unwrap();
    let live = rows.slots().iter().filter(|slot| rows.row(slot).is_some()).count();
    let documents: u64 =
        batch.versions().unwrap().iter().map(|version| batch.document_count(version.id).unwrap()).sum();
    (live as u64, documents)
}

/// A store that fails when it is told to, and asks that a table of more than fifty rows be truncated in parts.
struct Place {
    store: Arc<EmbeddedStore>,
    calls_left: Arc<AtomicI64>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
        let store = EmbeddedStore::open(options).unwrap();
        Self { store, calls_left: Arc::new(AtomicI64::new(-1)), _folder: folder }
    }

    /// A fold whose transactions take so many rows.
    fn fold(&self, rows_max: usize) -> Fold {
        let (inner, calls_left) = (self.store.clone(), self.calls_left.clone());
        let store = flaky::FlakyStore { inner, calls_left, rows_max, swept_max: 50 };
        let options = FoldOptions { prefix: PREFIX.into(), slice_rows: 3, ..FoldOptions::default() };
        Fold::open(Arc::new(store), &[model()], options).unwrap()
    }

    /// A fold that has a hundred rows, and a document of each.
    fn hundred_rows(&self) -> Fold {
        let mut whole = self.fold(usize::MAX);
        let all: Vec<Option<i64>> = (0..100).map(Some).collect();
        fold(&mut whole, &records(0, &all)).unwrap();
        fold(&mut whole, &progress(100)).unwrap();
        while whole.has_background_work() {
            whole.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap();
        }
        assert_eq!(left(&self.store), (100, 100));
        whole
    }
}

#[test]
fn more_rows_than_a_transaction_takes_go_in_parts_and_a_failure_between_them_is_healed() {
    let place = Place::open();
    drop(place.hundred_rows());

    // Ten rows in a transaction, and a failure somewhere in the middle.
    let mut parts = place.fold(10);
    place.calls_left.store(150, Ordering::Relaxed);
    let truncation = records(100, &[None]);
    let failed = fold(&mut parts, &truncation).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Retryable);
    assert!(!failed.to_string().contains("in one transaction"), "{failed}");
    let (rows, documents) = left(&place.store);
    assert!(0 < rows && rows < 100, "{rows}");
    assert_eq!(documents, rows, "they go with their rows");
    // One that is late, and from before the truncation.
    fold(&mut parts, &records(0, &[Some(500)])).unwrap();
    assert_eq!(left(&place.store), (rows, documents));

    let folded = fold(&mut parts, &truncation).unwrap();
    assert_eq!((folded.events, folded.rows, folded.documents.deleted), (1, rows, rows));
    assert_eq!(left(&place.store), (0, 0));
    assert_eq!(parts.offsets()[&(schema().table.topic(PREFIX), 0)], 101);
}

#[test]
fn rows_that_were_read_again_are_there_throughout_while_the_others_are_swept() {
    let place = Place::open();
    let mut whole = place.hundred_rows();

    // Of the hundred rows ninety are met again, in a new epoch, and the others are swept.
    let again = |commit| SourcePosition { epoch: 2, commit, ordinal: 0 };
    let mut reading: Vec<_> = (10..100).map(|id| (again(7), Some(id))).collect();
    reading.push((again(6), None));
    let reading = records_at(100, &reading);
    let mut failures = 0;
    for calls in (0..).step_by(7) {
        place.calls_left.store(calls, Ordering::Relaxed);
        let done = fold(&mut whole, &reading).is_ok();
        place.calls_left.store(-1, Ordering::Relaxed);
        let (rows, documents) = left(&place.store);
        assert!(rows >= 90 && documents == rows, "after {calls} calls there are {rows} rows and {documents} documents");
        if done {
            break;
        }
        failures += 1;
    }
    assert!(failures > 10, "{failures}");
    assert_eq!(left(&place.store), (90, 90));
}
