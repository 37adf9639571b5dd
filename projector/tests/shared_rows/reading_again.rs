//! A table is read again, and of the workers that share its partitions one is behind.

use std::sync::Arc;

use headwater_broker::{Offset, Watermarks};
use headwater_projector::{Applied, Input, Share, ShareOptions};
use headwater_store::{RowArena, RowStore};

use crate::engine::{Engine, Kind};
use crate::items::{PREFIX, Record, at, batch, deleted, item, schema, truncation};
use crate::log::MemoryLog;
use crate::worker::options;

/// Of partitions of which nothing was removed.
const MARKS: Watermarks = Watermarks { low: Offset(0), high: Offset(5) };

/// How many rows and tombstones there are.
fn stored(store: &dyn RowStore) -> usize {
    let mut rows = RowArena::default();
    store.begin().unwrap().scan_rows(&schema().table, None, 1_000, &mut rows).unwrap();
    rows.slots().len()
}

#[test]
fn rows_that_another_worker_has_yet_to_bring_again_are_there_throughout() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Engine::Here { rows, documents, _folder } = Engine::open(Kind::Here) else { unreachable!("it was asked for") };
    let log = Arc::new(MemoryLog::default());
    let worker = |partition| {
        let options = ShareOptions { slice_rows: 3, ..options(PREFIX, Vec::new()) };
        let mut share = Share::new(options, log.clone(), rows.clone(), documents.clone(), runtime.handle().clone());
        share.claim(&batch(partition, 0, &[]).from, MARKS).unwrap();
        share
    };
    let (mut ahead, mut behind) = (worker(0), worker(1));
    // So much at a time; answers whether that was all.
    let apply = |share: &mut Share, partition, first, records: &[Record]| {
        let records = batch(partition, first, records);
        match share.apply(&[Input::whole(&records)], &mut |_| Ok(())).unwrap() {
            Applied::Whole { lost, .. } => lost.is_empty(),
            Applied::Part => false,
            Applied::TooMuch => unreachable!("it is little"),
        }
    };

    let all: Vec<Record> = (0..100).map(|id| item(at(1, 1), id)).collect();
    assert!(apply(&mut ahead, 0, 0, &all));
    assert!(apply(&mut ahead, 0, 100, &[deleted(at(1, 2), 5)]));
    // Of these rows ninety are met again, and each worker brings half of them.
    let reading = |partition: i64| -> Vec<Record> {
        let met = (10..100).filter(|id| id % 2 == partition).map(|id| item(at(2, 7), id));
        met.chain([truncation(at(2, 6), 2)]).collect()
    };
    assert!(apply(&mut ahead, 0, 101, &reading(0)));
    assert_eq!(stored(&*rows), 100);
    let mut parts = 0;
    while !apply(&mut behind, 1, 0, &reading(1)) {
        assert!(stored(&*rows) >= 90, "after {parts} parts");
        parts += 1;
        assert!(parts < 1_000, "it does not come to an end");
    }
    assert!(parts > 10, "{parts}");
    assert_eq!(stored(&*rows), 90);
    // What comes late of what was removed does not come back.
    assert!(apply(&mut behind, 1, 46, &all[..10]));
    assert_eq!(stored(&*rows), 90);
}
