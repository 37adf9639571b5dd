//! A truncated table goes once all partitions have brought the truncation, and in parts, each of which may be the last
//! before a failure. Nothing is left of it in the store.
#![allow(clippy::unwrap_used)]

#[path = "follow_rows/engine.rs"]
#[allow(dead_code, reason = "its readers alone are for the tests of documents")]
mod engine;
#[path = "follow_rows/flaky.rs"]
mod flaky;

#[path = "follow_rows/items.rs"]
mod items;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use headwater_broker::FetchedBatch;
use headwater_projector::{ErrorKind, Fold, FoldOptions, Folded, Input};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{EventHeader, EventRef, Op, RowBuilder, RowRef, ValueRef, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{ByteList, DocumentReader, JoinIndex, ProjectionStore, RowArena};

use engine::{Engine, Kind};
use items::{PREFIX, Record, at, batch, deleted, item, item_with, schema, truncation};
use progress::progress;

fn model() -> ReadModel {
    parsed("model: item\nroot: { table: shop.items, key: id }\nfields: { id: id, note: note }\n")
}

/// A model that finds items by their notes.
fn same_notes() -> ReadModel {
    parsed(
        "model: same\nroot: { table: shop.items, key: id }\nfields: { id: id }\n\
         nest: { same: { many: shop.items, on: { note: note }, fields: [id] } }\n",
    )
}

fn parsed(yaml: &str) -> ReadModel {
    parse("model.yaml", yaml, &ParseContext::default()).expect("a sound model")
}

/// Records of the only partition from an offset on, each a transaction: a new row, or (`None`) a truncation.
fn records(first: u64, changes: &[Option<i64>]) -> FetchedBatch {
    let record = |(offset, change): (u64, &Option<i64>)| match change {
        Some(id) => item(at(1, offset + 1), *id),
        None => truncation(at(1, offset + 1), 1),
    };
    batch(0, first, &(first..).zip(changes).map(record).collect::<Vec<Record>>())
}

/// Says that so many records are all there is.
fn all_of(end: u64) -> FetchedBatch {
    progress(PREFIX, at(1, end), BTreeMap::from([(schema().table.topic(PREFIX), vec![end])]))
}

fn fold(fold: &mut Fold, batch: &FetchedBatch) -> Result<Folded, headwater_projector::Error> {
    fold.micro_batch(&[Input::whole(batch)], &mut |_| Ok(()))
}

/// How many rows, tombstones included, and documents there are.
fn left(store: &dyn ProjectionStore) -> (u64, u64) {
    let batch = store.begin().unwrap();
    let mut rows = RowArena::default();
    batch.scan_rows(&schema().table, None, 1_000, &mut rows).unwrap();
    let rows = rows.slots().len() as u64;
    assert_eq!(batch.row_count(&schema().table).unwrap(), rows);
    let documents: u64 =
        batch.versions().unwrap().iter().map(|version| batch.document_count(version.id).unwrap()).sum();
    (rows, documents)
}

fn options() -> FoldOptions {
    FoldOptions { prefix: PREFIX.into(), slice_rows: 3, ..FoldOptions::default() }
}

/// A store that fails when it is told to, and asks that a table of more rows than `swept_max` be truncated in parts.
struct Place {
    store: Arc<EmbeddedStore>,
    calls_left: Arc<AtomicI64>,
    swept_max: u64,
    _folder: tempfile::TempDir,
}

impl Place {
    fn open(swept_max: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
        let store = EmbeddedStore::open(options).unwrap();
        Self { store, calls_left: Arc::new(AtomicI64::new(-1)), swept_max, _folder: folder }
    }

    /// A fold whose transactions take so many rows.
    fn fold(&self, rows_max: usize) -> Fold {
        let (inner, calls_left) = (self.store.clone(), self.calls_left.clone());
        let store = flaky::FlakyStore { inner, calls_left, rows_max, swept_max: self.swept_max };
        Fold::open(Arc::new(store), &[model()], options()).unwrap()
    }

    /// A fold that has a hundred rows, and a document of each.
    fn hundred_rows(&self) -> Fold {
        let mut whole = self.fold(usize::MAX);
        let all: Vec<Option<i64>> = (0..100).map(Some).collect();
        fold(&mut whole, &records(0, &all)).unwrap();
        fold(&mut whole, &all_of(100)).unwrap();
        while whole.has_background_work() {
            whole.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap();
        }
        assert_eq!(left(&*self.store), (100, 100));
        whole
    }

    /// Folds a batch, which fails at a later call each time until it does not. Whenever one looks there are at least so many
    /// rows, and a document of each.
    fn fold_after_failures(&self, whole: &mut Fold, batch: &FetchedBatch, rows_min: u64) {
        let mut failures = 0;
        for calls in (0..).step_by(7) {
            self.calls_left.store(calls, Ordering::Relaxed);
            let done = fold(whole, batch).is_ok();
            self.calls_left.store(-1, Ordering::Relaxed);
            let (rows, documents) = left(&*self.store);
            assert!(rows >= rows_min && documents == rows, "after {calls} calls: {rows} rows, {documents} documents");
            if done {
                break;
            }
            failures += 1;
        }
        assert!(failures > 10, "{failures}");
    }
}

#[test]
fn more_rows_than_a_transaction_takes_go_in_parts_and_a_failure_between_them_is_healed() {
    let place = Place::open(20);
    drop(place.hundred_rows());

    // Ten rows in a transaction, and a failure somewhere in the middle.
    let mut parts = place.fold(10);
    place.calls_left.store(150, Ordering::Relaxed);
    let truncation = records(100, &[None]);
    let failed = fold(&mut parts, &truncation).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Retryable);
    assert!(!failed.to_string().contains("in one transaction"), "{failed}");
    let (rows, documents) = left(&*place.store);
    assert!(0 < rows && rows < 100, "{rows}");
    assert_eq!(documents, rows, "they go with their rows");
    // One that is late, and from before the truncation.
    fold(&mut parts, &records(0, &[Some(500)])).unwrap();
    assert_eq!(left(&*place.store), (rows, documents));

    let folded = fold(&mut parts, &truncation).unwrap();
    assert_eq!((folded.events, folded.rows, folded.documents.deleted), (1, rows, rows));
    assert_eq!(left(&*place.store), (0, 0));
    assert_eq!(parts.offsets()[&(schema().table.topic(PREFIX), 0)], 101);
}

#[test]
fn rows_that_were_read_again_are_there_throughout_while_the_others_are_swept() {
    let place = Place::open(50);
    let mut whole = place.hundred_rows();

    // Of the hundred rows ninety are met again, in a new epoch, and the others are swept.
    let mut reading: Vec<Record> = (10..100).map(|id| item(at(2, 7), id)).collect();
    reading.push(truncation(at(2, 6), 1));
    place.fold_after_failures(&mut whole, &batch(0, 100, &reading), 90);
    assert_eq!(left(&*place.store), (90, 90));
}

/// Whether they go in parts or at once, and although nothing says which row belongs to which partition.
#[test]
fn rows_that_another_partition_has_yet_to_bring_again_are_there_throughout() {
    for swept_max in [50, u64::MAX] {
        let place = Place::open(swept_max);
        let mut whole = place.hundred_rows();

        // Again ninety are met, and each partition brings half of them.
        let reading = |partition: i64| -> Vec<Record> {
            let met = (10..100).filter(|id| id % 2 == partition).map(|id| item(at(2, 7), id));
            met.chain([truncation(at(2, 6), 2)]).collect()
        };
        fold(&mut whole, &batch(0, 100, &reading(0))).unwrap();
        assert_eq!(left(&*place.store), (100, 100));

        // What was brought is known after a restart, and what is read late in the other partition goes with the rest.
        let mut whole = place.fold(usize::MAX);
        fold(&mut whole, &batch(1, 0, &[item(at(1, 900), 500)])).unwrap();
        assert_eq!(left(&*place.store), (101, 101));
        place.fold_after_failures(&mut whole, &batch(1, 1, &reading(1)), 90);
        assert_eq!(left(&*place.store), (90, 90));
        for partition in 0..2 {
            fold(&mut whole, &batch(partition, 200, &[item(at(1, 901), 501)])).unwrap();
        }
        assert_eq!(left(&*place.store), (90, 90));
    }
}

/// The topic had four partitions when the first was written, and the source writes into two of them by now.
#[test]
fn a_truncation_waits_for_the_partitions_that_it_stands_in() {
    let place = Place::open(u64::MAX);
    let mut whole = place.hundred_rows();
    let mut bring = |partition, records: &[Record]| {
        fold(&mut whole, &batch(partition, 200, records)).unwrap();
        left(&*place.store).0
    };
    let (of_four, of_two) = (truncation(at(1, 200), 4), truncation(at(1, 201), 2));
    assert_eq!(bring(0, &[of_four.clone(), of_two.clone()]), 100);
    assert_eq!(bring(2, std::slice::from_ref(&of_four)), 100);
    assert_eq!(bring(1, &[of_four.clone(), of_two]), 0);
    // The last one of the four stands behind what is gone, too.
    assert_eq!(bring(3, &[item(at(1, 150), 7), of_four, item(at(1, 202), 8)]), 1);
}

/// An insert that could not be captured, because of a value that is mended by the update behind it: which does not send
/// what it leaves as it is, and must not find it in a row that the source does not have any more.
#[test]
fn rows_from_before_a_truncation_complete_none_behind_it() {
    let place = Place::open(u64::MAX);
    let mut whole = place.hundred_rows();
    let part = item_with(at(1, 202), 7, ValueRef::Missing);
    let folded = fold(&mut whole, &batch(0, 100, &[item(at(1, 200), 7), truncation(at(1, 201), 2), part]));
    assert_eq!(folded.unwrap().dead_letters, 1, "its document cannot be told");
}

/// An event that carries the whole row before says what it does not send of the row behind it: the row that is stored may
/// lack a change, such as one that became a dead letter.
#[tokio::test]
async fn what_an_event_says_of_the_row_before_counts_more_than_what_is_stored() {
    let place = Place::open(u64::MAX);
    let mut whole = place.hundred_rows();
    let update = |commit, id: i64, before: ValueRef<'_>| {
        let row = |note: ValueRef<'_>| {
            let mut row = Vec::new();
            let mut cells = RowBuilder::new(&mut row);
            cells.push(ValueRef::Int(id));
            cells.push(note);
            row
        };
        let header = EventHeader {
            op: Op::Update,
            position: at(1, commit),
            transaction: commit,
            committed_at_micros: 1_000_000,
            last_in_transaction: true,
            before_is_key_only: before == ValueRef::Missing,
        };
        let (before, after) = (row(before), row(ValueRef::Missing));
        let mut value = Vec::new();
        let (before, after) = (Some(RowRef(&before)), Some(RowRef(&after)));
        EventRef { header, before, after, partitions: None }.encode(&mut value);
        (key::of(ValueRef::Int(id)), value)
    };
    let updates = [update(200, 7, ValueRef::Text("mended")), update(201, 8, ValueRef::Missing)];
    fold(&mut whole, &batch(0, 100, &updates)).unwrap();
    let version = ProjectionStore::begin(&*place.store).unwrap().versions().unwrap()[0].id;
    for (id, note) in [(7, "mended"), (8, "new")] {
        let document = place.store.get(version, &key::of(ValueRef::Int(id))).await.unwrap().unwrap();
        assert_eq!(document.body, format!(r#"{{"id":{id},"note":"{note}"}}"#));
    }
}

/// A table that is emptied and filled again each night, with other keys.
#[test]
fn loads_that_were_truncated_take_no_room() {
    for kind in [Kind::Embedded, Kind::Paired, Kind::Mongo] {
        let engine = Engine::open(kind, &Arc::new(AtomicI64::new(-1)));
        let mut whole = Fold::open(engine.writer.clone(), &[model()], options()).unwrap();
        let mut loads: Vec<FetchedBatch> = Vec::new();
        for night in 0..10 {
            let first = night * 40;
            let mut load = vec![truncation(at(1, 100 * night), 1)];
            load.extend((first..first + 40).map(|id| item(at(1, 100 * night + 1), id as i64)));
            load.push(deleted(at(1, 100 * night + 2), first as i64));
            loads.push(batch(0, 42 * night, &load));
            fold(&mut whole, &loads[loads.len() - 1]).unwrap();
            assert_eq!(left(&*engine.writer).0, 40, "{kind:?}, night {night}");
        }
        // What comes late of them, or is read again, does not come back.
        let (_, before) = loads.split_last().unwrap();
        for load in before {
            fold(&mut whole, load).unwrap();
            whole.replay_batch(&[Input::whole(load)], &mut |_| Ok(())).unwrap();
            assert_eq!(left(&*engine.writer).0, 40, "{kind:?}");
        }
    }
}

/// It is complete once nothing is left, and filled from the beginning when it is wanted again later.
#[test]
fn a_join_index_that_is_half_filled_when_its_table_goes_finds_every_later_row() {
    let place = Place::open(u64::MAX);
    let mut whole = place.hundred_rows();
    let notes = JoinIndex { table: schema().table, columns: vec!["note".into()] };
    let found = || {
        let (mut keys, mut rows) = (ByteList::default(), RowArena::default());
        keys.push(&key::of(ValueRef::Text("new")));
        place.store.begin().unwrap().rows_by_join(&notes, &keys, 0, &mut rows).unwrap();
        rows.slots().len()
    };
    whole.declare(&[model(), same_notes()]).unwrap();
    whole.background(Duration::ZERO, &mut |_| Ok(())).unwrap();
    assert_eq!(found(), 3);
    fold(&mut whole, &records(100, &[None])).unwrap();
    assert_eq!(found(), 0);

    for (models, expected) in [(vec![model(), same_notes()], 10), (vec![model()], 0), (vec![model(), same_notes()], 10)]
    {
        let mut whole = Fold::open(place.store.clone(), &models, options()).unwrap();
        let ten: Vec<Option<i64>> = (0..10).map(Some).collect();
        fold(&mut whole, &records(101, &ten)).unwrap();
        while whole.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap().is_some() {}
        assert_eq!(found(), expected, "{} models", models.len());
    }
}
