//! Keeping only the last record of each key.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::maintenance::{Progress, SLICE_BATCHES, SLICE_BYTES, oldest_ms};
use super::tables::{BatchRow, PartitionId, StoredBatch, batch_key};
use super::transaction::{Failure, Transaction};
use crate::batch::Records;
use crate::{Offset, Retention};

/// Keys remembered at a time, some 50 MB. A partition with more is compacted in several passes.
const KEYS_MAX: usize = 1 << 20;

/// The compaction of one partition: first its newer part is read, to learn the last offset of every key in it; then all
/// batches up to there are rewritten without the records that were overwritten. Older records of keys that the newer
/// part does not have are the last of their keys already, by the compactions before.
///
/// Every slice leaves the partition whole, so it may stop anywhere: until `compacted` moves on, it begins again.
pub(super) struct Compaction {
    last: HashMap<u128, u64>,
    hashers: [RandomState; 2],
    /// Next offset to read.
    read: u64,
    /// Offset below which is compacted.
    end: u64,
    /// Next offset to rewrite, once all is read.
    rewrite: Option<u64>,
}

impl Compaction {
    /// Does one slice; `under_way` is the state between slices.
    pub(super) fn slice(
        under_way: &mut Option<Self>,
        transaction: &mut Transaction<'_>,
        id: PartitionId,
        retention: &Retention,
        now_ms: i64,
    ) -> Result<Progress, Failure> {
        let compaction = match under_way {
            Some(compaction) => compaction,
            None => match Self::begin(transaction, id)? {
                Some(compaction) => under_way.insert(compaction),
                None => return Ok(Progress::Done),
            },
        };
        match compaction.rewrite {
            None => compaction.read(transaction, id),
            Some(from) => compaction.rewrite(transaction, id, from, oldest_ms(retention.age_max, now_ms)),
        }
    }

    /// Answers with nothing if it is not worth while: as many records must be new as there are compacted ones, so that a
    /// record is rewritten a bounded number of times however long it stays.
    fn begin(transaction: &mut Transaction<'_>, id: PartitionId) -> Result<Option<Self>, Failure> {
        let row = *transaction.load(id)?;
        // The last batch stays as it is: a reader reaches the high watermark, whatever was removed before it.
        let end = transaction.last_batch(id)?.unwrap_or(0).min(transaction.committed_by_all(id)?);
        let compacted = row.compacted.max(row.low);
        let clean = row.records.saturating_sub(row.high - compacted);
        if end <= compacted || end - compacted < clean {
            return Ok(None);
        }
        let hashers = [RandomState::new(), RandomState::new()];
        Ok(Some(Self { last: HashMap::new(), hashers, read: compacted, end, rewrite: None }))
    }

    fn read(&mut self, transaction: &Transaction<'_>, id: PartitionId) -> Result<Progress, Failure> {
        let mut bytes = 0;
        let batches = transaction.records(id, self.read..self.end)?;
        for (seen, entry) in batches.enumerate() {
            let (base, stored) = entry?;
            if seen == SLICE_BATCHES || bytes >= SLICE_BYTES {
                return Ok(Progress::More);
            }
            // Batches are compacted whole.
            let next = base + u64::from(stored.count);
            if next > self.end || self.last.len() >= KEYS_MAX {
                self.end = base;
                break;
            }
            for record in Records::new(Offset(base), stored.records) {
                self.last.insert(hash(&self.hashers, record.key), record.offset.0);
            }
            bytes += stored.records.len() as u64;
            self.read = next;
        }
        if self.last.is_empty() {
            // A reader stands within the first batch.
            return Ok(Progress::Done);
        }
        self.rewrite = Some(0);
        Ok(Progress::More)
    }

    fn rewrite(
        &mut self,
        transaction: &mut Transaction<'_>,
        id: PartitionId,
        from: u64,
        oldest_ms: i64,
    ) -> Result<Progress, Failure> {
        let mut bytes = 0;
        let mut next = None;
        let mut changed = Vec::new();
        for (seen, entry) in transaction.records(id, from..self.end)?.enumerate() {
            let (base, stored) = entry?;
            if seen == SLICE_BATCHES || bytes >= SLICE_BYTES {
                next = Some(base);
                break;
            }
            bytes += stored.records.len() as u64;
            let runs = self.kept(base, &stored, oldest_ms);
            if runs.iter().map(|run| run.count).sum::<u32>() != stored.count {
                changed.push((base, stored.prelude, runs));
            }
        }
        for (base, prelude, runs) in changed {
            let Some(batch) = transaction.batch(id, base)? else { continue };
            transaction.remove(id, base, batch)?;
            for run in runs {
                let row = BatchRow {
                    timestamp_max: run.timestamp_max,
                    timestamp_running: batch.timestamp_running,
                    count: run.count,
                    bytes: run.bytes.len() as u64,
                };
                transaction.put_back(batch_key(id, run.base), prelude, &run.bytes, row)?;
            }
        }
        self.rewrite = next;
        if next.is_some() {
            return Ok(Progress::More);
        }
        let end = self.end;
        let row = transaction.load(id)?;
        row.compacted = row.compacted.max(end);
        Ok(Progress::Done)
    }

    /// The records of a batch that stay, as runs of consecutive offsets: gaps can only be between batches.
    fn kept(&self, base: u64, stored: &StoredBatch<'_>, oldest_ms: i64) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut records = Records::new(Offset(base), stored.records);
        loop {
            let before = records.rest();
            let Some(record) = records.next() else { return runs };
            let bytes = &before[..before.len() - records.rest().len()];
            let offset = record.offset.0;
            let overwritten = self.last.get(&hash(&self.hashers, record.key)).is_some_and(|last| *last > offset);
            let forgotten = record.value.is_none() && record.timestamp_ms < oldest_ms;
            if overwritten || forgotten {
                continue;
            }
            match runs.last_mut().filter(|run| run.base + u64::from(run.count) == offset) {
                Some(run) => {
                    run.count += 1;
                    run.timestamp_max = run.timestamp_max.max(record.timestamp_ms);
                    run.bytes.extend_from_slice(bytes);
                }
                None => {
                    runs.push(Run { base: offset, count: 1, timestamp_max: record.timestamp_ms, bytes: bytes.to_vec() })
                }
            }
        }
    }
}

/// Consecutive records that stay.
struct Run {
    base: u64,
    count: u32,
    timestamp_max: i64,
    bytes: Vec<u8>,
}

/// 128 bits under random seeds: two keys that met here would lose a record, which will not happen by chance, and nobody
/// outside knows the seeds.
fn hash(hashers: &[RandomState; 2], key: &[u8]) -> u128 {
    let [high, low] = hashers;
    (u128::from(high.hash_one(key)) << 64) | u128::from(low.hash_one(key))
}
