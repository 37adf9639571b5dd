//! One write transaction: what a group of writes does to the tables.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use heed::RwTxn;

use super::core::Core;
use super::tables::{BatchRow, PartitionId, PartitionRow, ProducerRow, TopicRow, batch_key, group_key};
use super::writer::{Append, PreludeNumbers};
use crate::{Error, Offset, TopicPartition, TopicSpec};

/// Longest name of a topic, producer or group in bytes; LMDB's keys have 511.
const NAME_MAX: usize = 400;

/// Pages of the trees around a batch, generously: the space an append takes beyond its records.
const BATCH_OVERHEAD: u64 = 3 * 4096;

/// Why a write did not happen.
pub(super) enum Failure {
    /// It was refused before anything was written; the transaction is as it was.
    Refused(Error),
    /// It failed half way; the transaction must not be committed.
    Aborted(heed::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<heed::Error> for Failure {
    fn from(error: heed::Error) -> Self {
        Self::Aborted(error)
    }
}

/// A write transaction and what is known in memory once it is committed.
pub(super) struct Transaction<'a> {
    pub(super) core: &'a Core,
    pub(super) txn: RwTxn<'a>,
    numbers: &'a mut PreludeNumbers,
    partitions: HashMap<PartitionId, PartitionRow>,
    preludes: Vec<Bytes>,
    topics: Vec<(Arc<str>, TopicRow)>,
    used: u64,
    pub(super) counts: Counts,
}

/// What the metrics will say once it is committed.
#[derive(Default)]
pub(super) struct Counts {
    pub records: u64,
    pub bytes: u64,
    pub batches: u64,
    pub removed: u64,
}

impl<'a> Transaction<'a> {
    pub(super) fn begin(core: &'a Core, numbers: &'a mut PreludeNumbers) -> heed::Result<Self> {
        let txn = core.env.write_txn()?;
        let used = core.tables.used(&txn)?;
        Ok(Self {
            core,
            txn,
            numbers,
            partitions: HashMap::new(),
            preludes: Vec::new(),
            topics: Vec::new(),
            used,
            counts: Counts::default(),
        })
    }

    /// Makes everything durable. Answers whether there are new records.
    pub(super) fn commit(mut self) -> heed::Result<bool> {
        for (id, row) in &self.partitions {
            // Without changes there is nothing to sync, as in most slices of maintenance.
            let bytes = row.encode();
            if self.core.tables.partitions.get(&self.txn, &id.0)? != Some(&bytes) {
                self.core.tables.partitions.put(&mut self.txn, &id.0, &bytes)?;
            }
        }
        self.txn.commit()?;
        for prelude in &self.preludes {
            self.numbers.learn(prelude.clone());
        }
        self.core.preludes.write().append(&mut self.preludes);
        let mut topics = self.core.topics.write();
        for (name, row) in self.topics {
            topics.insert(name, row);
        }
        drop(topics);
        let metrics = &self.core.metrics;
        metrics.appended_records.inc_by(self.counts.records);
        metrics.appended_bytes.inc_by(self.counts.bytes);
        metrics.appended_batches.inc_by(self.counts.batches);
        metrics.removed_records.inc_by(self.counts.removed);
        metrics.size_bytes.set(i64::try_from(self.used).unwrap_or(i64::MAX));
        for (id, row) in &self.partitions {
            self.core.show(*id, row);
        }
        Ok(self.counts.records > 0)
    }

    /// Applies an append. Everything that can refuse it comes before its first write.
    /// `broken`: an earlier one of this producer failed.
    pub(super) fn append(&mut self, append: &Append, broken: bool) -> Result<Vec<Offset>, Failure> {
        let core = self.core;
        let Append { producer, epoch, batches, checkpoint } = append;
        let row = core.tables.producers.get(&self.txn, producer)?.and_then(ProducerRow::decode);
        if row.is_none_or(|row| row.epoch != *epoch) {
            return Err(Error::Fenced { producer: producer.to_string() }.into());
        }
        if broken {
            return Err(Error::Broken { producer: producer.to_string() }.into());
        }
        let mut size = checkpoint.as_ref().map_or(0, |bytes| bytes.len() as u64 + BATCH_OVERHEAD);
        let mut partitions = Vec::with_capacity(batches.len());
        for batch in batches {
            let id = self.partition(&batch.to)?;
            // Read now, so that damage is met before the first write.
            self.load(id)?;
            partitions.push(id);
            size += batch.records.byte_len() as u64 + BATCH_OVERHEAD;
        }
        if self.used + size > core.size_max {
            let cause = format!("it has reached its greatest size of {} bytes", core.size_max);
            return Err(Error::Full { place: core.place.clone(), cause }.into());
        }
        let mut offsets = Vec::with_capacity(batches.len());
        for (batch, id) in batches.iter().zip(partitions) {
            let prelude = match batch.records.is_empty() {
                true => 0,
                false => self.prelude(&batch.prelude)?,
            };
            let row = self.partitions.get_mut(&id).expect("every partition of the append was loaded above");
            let base = row.high;
            offsets.push(Offset(base));
            if batch.records.is_empty() {
                continue;
            }
            let (count, bytes) = (batch.records.count(), batch.records.as_bytes());
            let timestamp_max = batch.records.timestamp_max();
            row.timestamp_max = if base == 0 { timestamp_max } else { row.timestamp_max.max(timestamp_max) };
            row.high += u64::from(count);
            row.records += u64::from(count);
            row.bytes += bytes.len() as u64;
            let of_batch =
                BatchRow { timestamp_max, timestamp_running: row.timestamp_max, count, bytes: bytes.len() as u64 };
            self.put(batch_key(id, base), prelude, bytes, of_batch)?;
            self.counts.records += u64::from(count);
            self.counts.bytes += bytes.len() as u64;
            self.counts.batches += 1;
        }
        if let Some(checkpoint) = checkpoint {
            let row = ProducerRow { epoch: *epoch, checkpoint: Some(checkpoint) };
            core.tables.producers.put(&mut self.txn, producer, &row.encode())?;
        }
        self.used += size;
        Ok(offsets)
    }

    /// The number of a prelude, which is stored if it is new.
    fn prelude(&mut self, prelude: &Bytes) -> heed::Result<u32> {
        if let Some(number) = self.numbers.get(prelude) {
            return Ok(number);
        }
        let known = self.numbers.len();
        let fresh = match self.preludes.iter().position(|known| known == prelude) {
            Some(at) => at,
            None => {
                let at = self.preludes.len();
                self.core.tables.preludes.put(&mut self.txn, &((known + at) as u32), prelude)?;
                // A copy: what came from the producer may be a small part of something large.
                self.preludes.push(Bytes::copy_from_slice(prelude));
                at
            }
        };
        Ok((known + fresh) as u32)
    }

    /// Opens a producer: from here on only this epoch may append.
    pub(super) fn open_producer(&mut self, name: &str) -> Result<u64, Failure> {
        check_name("producer", name)?;
        let producers = &self.core.tables.producers;
        let (epoch, checkpoint) = match producers.get(&self.txn, name)? {
            None => (0, None),
            Some(bytes) => {
                let row = ProducerRow::decode(bytes).ok_or_else(|| self.core.damaged(format!("producer `{name}`")))?;
                (row.epoch, row.checkpoint.map(<[u8]>::to_vec))
            }
        };
        let row = ProducerRow { epoch: epoch + 1, checkpoint: checkpoint.as_deref() };
        producers.put(&mut self.txn, name, &row.encode())?;
        Ok(row.epoch)
    }

    pub(super) fn create_topics(&mut self, specs: &[TopicSpec]) -> Result<(), Failure> {
        for spec in specs {
            check_name("topic", &spec.name)?;
            if spec.partitions == 0 {
                let why = "a topic has at least one partition";
                return Err(Error::Refused { what: "topic", name: spec.name.to_string(), why }.into());
            }
        }
        for spec in specs {
            let row = match self.topic(&spec.name) {
                Some(row) => TopicRow { retention: spec.retention.clone(), ..row },
                None => {
                    let number = self.core.topics.read().by_name.len() + self.new_topics();
                    TopicRow { number: number as u32, partitions: spec.partitions, retention: spec.retention.clone() }
                }
            };
            self.core.tables.topics.put(&mut self.txn, &spec.name, &row.encode())?;
            self.topics.push((spec.name.clone(), row));
        }
        Ok(())
    }

    pub(super) fn commit_offsets(&mut self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Failure> {
        check_name("consumer group", group)?;
        let ids = offsets.iter().map(|(partition, _)| self.partition(partition)).collect::<Result<Vec<_>, _>>()?;
        for (id, (_, offset)) in ids.into_iter().zip(offsets) {
            self.core.tables.groups.put(&mut self.txn, &group_key(group, id), &offset.0)?;
        }
        Ok(())
    }

    pub(super) fn forget_offsets(&mut self, group: &str, partitions: &[TopicPartition]) -> Result<(), Failure> {
        for partition in partitions {
            let id = self.partition(partition)?;
            self.core.tables.groups.delete(&mut self.txn, &group_key(group, id))?;
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> Option<TopicRow> {
        let fresh = self.topics.iter().rev().find(|(known, _)| **known == *name).map(|(_, row)| row.clone());
        fresh.or_else(|| self.core.topics.read().by_name.get(name).cloned())
    }

    /// Topics made in this transaction.
    fn new_topics(&self) -> usize {
        let known = self.core.topics.read();
        let mut numbers: Vec<u32> = self.topics.iter().map(|(_, row)| row.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.iter().filter(|number| !known.by_number.contains_key(number)).count()
    }

    fn partition(&self, name: &TopicPartition) -> Result<PartitionId, Error> {
        match self.topics.iter().find(|(topic, _)| *topic == name.topic) {
            Some((_, row)) if name.partition < row.partitions => Ok(PartitionId::new(row.number, name.partition)),
            _ => self.core.partition(name),
        }
    }

    /// The state of a partition in this transaction; what is changed in it is stored with the commit.
    pub(super) fn load(&mut self, id: PartitionId) -> Result<&mut PartitionRow, Error> {
        match self.partitions.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => Ok(entry.insert(self.core.row(&self.txn, id)?)),
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
        let why = "a name has 1 to 400 bytes, none of them zero";
        return Err(Error::Refused { what, name: name.to_owned(), why });
    }
    Ok(())
}
