//! Reading records, and finding them by time.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use heed::byteorder::BigEndian;
use heed::types::{Bytes as RawBytes, U128};
use heed::{RoRange, RoTxn, WithoutTls};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::core::Core;
use super::maintenance::after;
use super::tables::{BatchRow, PartitionId, StoredBatch, batch_key, offset_of, partition_of};
use crate::batch::Records;
use crate::{Error, FetchFrom, FetchLimits, FetchedBatch, Offset, TopicPartition};

/// Reads what there is, or waits for it. Holds no transaction while it waits, and nothing that would be lost when it is
/// dropped.
pub(super) async fn fetch(
    core: &Core,
    mut appended: watch::Receiver<u64>,
    from: &[FetchFrom],
    limits: FetchLimits,
) -> Result<Vec<FetchedBatch>, Error> {
    let deadline = after(limits.wait_max);
    loop {
        // Before reading: an append after this is noticed below even if the reading missed it.
        appended.mark_unchanged();
        let batches = read(core, from, limits.bytes_max)?;
        if !batches.is_empty() {
            return Ok(batches);
        }
        match timeout_at(deadline, appended.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => return Ok(Vec::new()),
        }
    }
}

/// One partition being read.
struct Lane<'a, 'txn> {
    from: &'a FetchFrom,
    batches: RoRange<'txn, U128<BigEndian>, RawBytes>,
    bytes: usize,
}

fn read(core: &Core, from: &[FetchFrom], bytes_max: usize) -> Result<Vec<FetchedBatch>, Error> {
    let engine = |e| core.engine("read", e);
    let txn = core.env.read_txn().map_err(engine)?;
    let mut lanes = Vec::with_capacity(from.len());
    let turn = turn(core, from.len());
    for from in from[turn..].iter().chain(&from[..turn]) {
        let id = core.partition(&from.partition)?;
        let row = core.row(&txn, id)?;
        if from.offset.0 < row.low || from.offset.0 > row.high {
            return Err(Error::OffsetOutOfRange {
                partition: from.partition.clone(),
                wanted: from.offset.0,
                low: row.low,
                high: row.high,
            });
        }
        if from.offset.0 < row.high {
            let keys = keys_from(core, &txn, id, from.offset.0).map_err(engine)?;
            let batches = core.tables.records.range(&txn, &keys).map_err(engine)?;
            lanes.push(Lane { from, batches, bytes: 0 });
        }
    }
    let mut gathered = 0;
    let mut fetched = Vec::new();
    // The partition that has had least is next: fair in bytes, whatever the sizes of the batches.
    while gathered < bytes_max || fetched.is_empty() {
        let Some(at) = (0..lanes.len()).min_by_key(|at| lanes[*at].bytes) else { break };
        let lane = &mut lanes[at];
        match next(core, &txn, lane)? {
            Some(batch) => {
                lane.bytes += batch.byte_len();
                gathered += batch.byte_len();
                fetched.push(batch);
            }
            None => {
                lanes.remove(at);
            }
        }
    }
    core.metrics.fetched_bytes.inc_by(gathered as u64);
    Ok(fetched)
}

/// Where a fetch starts, so that what does not fit is not always of the same partition. Scattered: several consumers that
/// fetch in turns would else meet the same partition each time.
fn turn(core: &Core, partitions: usize) -> usize {
    let fetches = core.fetches.fetch_add(1, Ordering::Relaxed);
    let scattered = fetches.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    scattered as usize % partitions.max(1)
}

/// The next batch of a partition with records from the wanted offset on.
fn next(core: &Core, txn: &RoTxn<'_>, lane: &mut Lane<'_, '_>) -> Result<Option<FetchedBatch>, Error> {
    for entry in lane.batches.by_ref() {
        let (key, bytes) = entry.map_err(|e| core.engine("read", e))?;
        let base = offset_of(key);
        let damaged = || core.damaged(format!("the batch at offset {base} of {}", lane.from.partition));
        let stored = StoredBatch::decode(bytes).ok_or_else(damaged)?;
        let skip = lane.from.offset.0.saturating_sub(base);
        if skip >= u64::from(stored.count) {
            continue;
        }
        let mut records = Records::new(Offset(base), stored.records);
        for _ in 0..skip {
            records.next().ok_or_else(damaged)?;
        }
        return Ok(Some(FetchedBatch::new(
            lane.from.partition.clone(),
            Offset(base + skip),
            core.prelude(txn, stored.prelude)?,
            Bytes::copy_from_slice(records.rest()),
            stored.count - skip as u32,
        )));
    }
    Ok(None)
}

/// The keys of a partition from the batch on that may hold this offset.
fn keys_from(
    core: &Core,
    txn: &RoTxn<'_, WithoutTls>,
    id: PartitionId,
    offset: u64,
) -> heed::Result<RangeInclusive<u128>> {
    let wanted = batch_key(id, offset);
    let at_or_before = core.tables.batches.get_lower_than_or_equal_to(txn, &wanted)?;
    let first = at_or_before.map(|(key, _)| key).filter(|key| partition_of(*key) == id).unwrap_or(wanted);
    Ok(first..=batch_key(id, u64::MAX))
}

/// Offset of the first record with this timestamp or a later one.
pub(super) fn offset_at(core: &Core, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
    let engine = |e| core.engine("search by time", e);
    let damaged = || core.damaged(format!("the batches of {partition}"));
    let id = core.partition(partition)?;
    let txn = core.env.read_txn().map_err(engine)?;
    let row = core.row(&txn, id)?;
    // Narrow down where the running maximum reaches the time: all batches before have older records only.
    let (mut low, mut high) = (row.low, row.high);
    while low < high {
        let middle = low + (high - low) / 2;
        let keys = batch_key(id, middle)..=batch_key(id, u64::MAX);
        let next = core.tables.batches.range(&txn, &keys).map_err(engine)?.next().transpose().map_err(engine)?;
        match next {
            Some((key, bytes)) => {
                let batch = BatchRow::decode(bytes).ok_or_else(damaged)?;
                if batch.timestamp_running >= timestamp_ms {
                    high = middle;
                } else {
                    low = offset_of(key) + 1;
                }
            }
            None => high = middle,
        }
    }
    // From there the first batch that reaches it itself: the running maximum may stem from a removed one.
    let keys = batch_key(id, low)..=batch_key(id, u64::MAX);
    for entry in core.tables.batches.range(&txn, &keys).map_err(engine)? {
        let (key, bytes) = entry.map_err(engine)?;
        if BatchRow::decode(bytes).ok_or_else(damaged)?.timestamp_max < timestamp_ms {
            continue;
        }
        let stored = core.tables.records.get(&txn, &key).map_err(engine)?.and_then(StoredBatch::decode);
        let mut records = Records::new(Offset(offset_of(key)), stored.ok_or_else(damaged)?.records);
        return records.find(|record| record.timestamp_ms >= timestamp_ms).map(|r| r.offset).ok_or_else(damaged);
    }
    Ok(Offset(row.high))
}
