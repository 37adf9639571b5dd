//! Batches of a partition, in a write transaction.

use std::io::Write as _;
use std::ops::Range;

use super::tables::{BATCH_HEADER, BatchRow, PartitionId, StoredBatch, batch_key, offset_of, partition_of};
use super::transaction::{Failure, Transaction};

impl Transaction<'_> {
    /// Stores a batch, copying its records once, into the page.
    pub(super) fn put(&mut self, key: u128, prelude: u32, records: &[u8], row: BatchRow) -> heed::Result<()> {
        let tables = &self.core.tables;
        tables.records.put_reserved(&mut self.txn, &key, BATCH_HEADER + records.len(), |space| {
            space.write_all(&prelude.to_le_bytes())?;
            space.write_all(&row.count.to_le_bytes())?;
            space.write_all(records)
        })?;
        tables.batches.put(&mut self.txn, &key, &row.encode())
    }

    /// Stores what stays of a removed batch.
    pub(super) fn put_back(&mut self, key: u128, prelude: u32, records: &[u8], row: BatchRow) -> Result<(), Failure> {
        let partition = self.load(partition_of(key))?;
        partition.records += u64::from(row.count);
        partition.bytes += row.bytes;
        self.counts.removed = self.counts.removed.saturating_sub(u64::from(row.count));
        Ok(self.put(key, prelude, records, row)?)
    }

    /// Removes a batch.
    pub(super) fn remove(&mut self, id: PartitionId, base: u64, batch: BatchRow) -> Result<(), Failure> {
        let row = self.load(id)?;
        row.records = row.records.saturating_sub(u64::from(batch.count));
        row.bytes = row.bytes.saturating_sub(batch.bytes);
        self.counts.removed += u64::from(batch.count);
        let key = batch_key(id, base);
        self.core.tables.records.delete(&mut self.txn, &key)?;
        self.core.tables.batches.delete(&mut self.txn, &key)?;
        Ok(())
    }

    /// What is known of the batch at this offset.
    pub(super) fn batch(&self, id: PartitionId, base: u64) -> Result<Option<BatchRow>, Failure> {
        let bytes = self.core.tables.batches.get(&self.txn, &batch_key(id, base))?;
        bytes.map(|bytes| BatchRow::decode(bytes).ok_or_else(|| self.damaged(id, base))).transpose()
    }

    /// Offset of the first record of the last batch.
    pub(super) fn last_batch(&self, id: PartitionId) -> heed::Result<Option<u64>> {
        let end = batch_key(id, u64::MAX);
        let last = self.core.tables.batches.get_lower_than_or_equal_to(&self.txn, &end)?;
        Ok(last.map(|(key, _)| key).filter(|key| partition_of(*key) == id).map(offset_of))
    }

    /// What is known of the batches from this offset on, with the offsets of their first records.
    pub(super) fn batches(
        &self,
        id: PartitionId,
        from: u64,
    ) -> heed::Result<impl Iterator<Item = Result<(u64, BatchRow), Failure>>> {
        let keys = batch_key(id, from)..=batch_key(id, u64::MAX);
        Ok(self.core.tables.batches.range(&self.txn, &keys)?.map(move |entry| {
            let (key, bytes) = entry?;
            let row = BatchRow::decode(bytes).ok_or_else(|| self.damaged(id, offset_of(key)))?;
            Ok((offset_of(key), row))
        }))
    }

    /// The batches whose first offset is in the range.
    pub(super) fn records(
        &self,
        id: PartitionId,
        offsets: Range<u64>,
    ) -> heed::Result<impl Iterator<Item = Result<(u64, StoredBatch<'_>), Failure>>> {
        let keys = batch_key(id, offsets.start)..batch_key(id, offsets.end);
        Ok(self.core.tables.records.range(&self.txn, &keys)?.map(move |entry| {
            let (key, bytes) = entry?;
            let stored = StoredBatch::decode(bytes).ok_or_else(|| self.damaged(id, offset_of(key)))?;
            Ok((offset_of(key), stored))
        }))
    }

    fn damaged(&self, id: PartitionId, base: u64) -> Failure {
        let place = self.core.name(id).map(|name| name.to_string()).unwrap_or_default();
        self.core.damaged(format!("the batch at offset {base} of {place}")).into()
    }
}
