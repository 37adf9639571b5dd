//! What every [`Source`] must do, as a suite that each implementation runs against its real database.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use headwater_schemas::{EventRef, Op, SourcePosition, ValueRef, key};

use crate::{Gathered, Mark, Routes, Source};

/// A database with one captured table, empty at first, whose only column is an integer key.
pub trait World {
    /// A new source over the same database, as after a restart of the process.
    fn source(&self) -> Box<dyn Source>;

    /// Inserts the numbers in one transaction, committed when it returns.
    fn insert(&self, numbers: RangeInclusive<i64>);
}

/// One row event.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    key: Vec<u8>,
    op: Op,
    position: SourcePosition,
    last: bool,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Panics unless the source keeps the contract.
pub async fn keeps(world: &dyn World) {
    world.insert(1..=1000);
    let mut source = world.source();
    let mut routes = Routes::new("contract", 1);
    source.open(None, &mut routes).await.expect("opens");
    let read = gather_numbers(source.as_mut(), &mut routes, 1..=1000).await;
    assert!(read.iter().all(|seen| seen.op == Op::Read), "rows that were there are read");
    assert!(read.windows(2).all(|pair| pair[0].position == pair[1].position), "a snapshot is one moment");

    world.insert(1001..=1010);
    world.insert(1011..=1020);
    let changes = gather_numbers(source.as_mut(), &mut routes, 1001..=1020).await;
    assert!(changes.iter().all(|seen| seen.op == Op::Create && seen.position > read[0].position));
    assert!(changes.windows(2).all(|pair| pair[0].position < pair[1].position), "changes come in commit order");
    let lasts: Vec<usize> = changes.iter().enumerate().filter(|(_, seen)| seen.last).map(|(at, _)| at).collect();
    assert_eq!(lasts, [9, 19], "the last event of each transaction is marked");
    let mark = source.mark().expect("something was gathered");
    assert!(mark.snapshot_done && mark.position >= changes[19].position);
    source.durable(&mark);

    // What was gathered but not durable comes again, with the positions it had.
    world.insert(1021..=1030);
    let unsaved = gather_numbers(source.as_mut(), &mut routes, 1021..=1030).await;
    drop(source);
    let mut source = reopened(world, &mark, &mut routes).await;
    let again = gather_numbers(source.as_mut(), &mut routes, 1021..=1030).await;
    assert_eq!(again, unsaved);

    // A source that fell behind its database finds everything.
    let mark = source.mark().expect("something was gathered");
    drop(source);
    world.insert(1031..=1040);
    let mut source = reopened(world, &mark, &mut routes).await;
    gather_numbers(source.as_mut(), &mut routes, 1031..=1040).await;
    let tables = source.discover().await.expect("discovers");
    assert!(tables.iter().any(|table| table.key_columns() == [0] && table.columns.len() == 1));
}

/// Opens a new source behind `mark`; patiently, because the database may take a moment to notice that the old one left.
async fn reopened(world: &dyn World, mark: &Mark, routes: &mut Routes) -> Box<dyn Source> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut source = world.source();
        match source.open(Some(mark.checkpoint.clone()), routes).await {
            Ok(()) => return source,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "never opens again: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Gathers until exactly these numbers were seen. Every wait is dropped after a moment and begun again, which must lose
/// nothing.
async fn gather_numbers(source: &mut dyn Source, routes: &mut Routes, numbers: RangeInclusive<i64>) -> Vec<Seen> {
    let mut missing: BTreeSet<Vec<u8>> = numbers.map(|n| key::of(ValueRef::Int(n))).collect();
    let mut seen = Vec::new();
    let mut gathered = Gathered::default();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "{} numbers never came", missing.len());
        if let Ok(result) = tokio::time::timeout(Duration::from_millis(3), source.gather(&mut gathered, routes)).await {
            result.expect("gathers");
        }
        if !gathered.is_ready() {
            continue;
        }
        for event in row_events(&gathered.take()) {
            assert!(missing.remove(&event.key), "{event:?} came twice or out of turn");
            seen.push(event);
        }
    }
    seen
}

fn row_events(gathered: &Gathered) -> Vec<Seen> {
    let mut seen = Vec::new();
    for batch in &gathered.batches {
        let records = bytes::Bytes::copy_from_slice(batch.records.as_bytes());
        let offset = headwater_broker::Offset(0);
        let (prelude, count) = (batch.prelude.clone(), batch.records.count());
        let batch = headwater_broker::FetchedBatch::new(batch.to.clone(), offset, prelude, records, count);
        for record in batch.records() {
            let event = EventRef::decode(record.value.expect("events have values")).expect("an event");
            if event.header.op == Op::Schema {
                continue;
            }
            seen.push(Seen {
                key: record.key.to_vec(),
                op: event.header.op,
                position: event.header.position,
                last: event.header.last_in_transaction,
            });
        }
    }
    seen
}
