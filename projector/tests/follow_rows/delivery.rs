//! The log: partitions of records, and what has been read of each.

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};

use crate::random::Random;

pub(crate) struct Partition {
    pub(crate) place: TopicPartition,
    /// Prelude, key and value of each record.
    pub(crate) records: Vec<(Bytes, Vec<u8>, Vec<u8>)>,
    /// Next record to be read.
    pub(crate) next: usize,
}

impl Partition {
    pub(crate) fn new(topic: &str, partition: u32) -> Self {
        Self { place: TopicPartition { topic: topic.into(), partition }, records: Vec::new(), next: 0 }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.next == self.records.len()
    }

    /// Some records from `start` on: a batch has one prelude.
    pub(crate) fn batch(&self, start: usize, count: usize) -> FetchedBatch {
        let prelude = self.records[start].0.clone();
        let mut buffer = RecordBuffer::default();
        for (_, key, value) in self.records[start..].iter().take(count).take_while(|it| it.0 == prelude) {
            buffer.push(0, key, Some(|out: &mut Vec<u8>| out.extend_from_slice(value)));
        }
        let records = Bytes::copy_from_slice(buffer.as_bytes());
        FetchedBatch::new(self.place.clone(), Offset(start as u64), prelude, records, buffer.count())
    }
}

/// What is delivered next: a batch each of some partitions that have more.
pub(crate) fn next_batches(random: &mut Random, partitions: &[Partition], size_max: usize) -> Vec<FetchedBatch> {
    let open: Vec<&Partition> = partitions.iter().filter(|partition| !partition.is_drained()).collect();
    let mut batches: Vec<FetchedBatch> = Vec::new();
    for _ in 0..random.between(1, 3).min(open.len()) {
        let partition = random.pick(&open);
        if !batches.iter().any(|batch| batch.from == partition.place) {
            batches.push(partition.batch(partition.next, random.between(1, size_max)));
        }
    }
    batches
}
