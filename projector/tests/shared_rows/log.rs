//! A log in memory: it answers at once, so that many cases fit into little time. That the embedded log and Kafka keep the
//! same promises is shown by the contract suite of the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Membership, Offset, Producer, RecordBuffer,
    TopicPartition, TopicSpec, Watermarks,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Records appended together.
struct Run {
    base: u64,
    prelude: Bytes,
    records: Bytes,
    count: u32,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Arc<str>, u32>,
    partitions: BTreeMap<TopicPartition, Vec<Run>>,
    committed: BTreeMap<(String, TopicPartition), Offset>,
    /// Part of the names of topics that cannot be made.
    refused: Option<&'static str>,
}

#[derive(Clone, Default)]
pub(crate) struct MemoryLog {
    state: Arc<Mutex<State>>,
}

impl MemoryLog {
    /// From here on no topic can be made in whose name this is.
    pub(crate) fn refuse(&self, part: Option<&'static str>) {
        self.state.lock().refused = part;
    }
}

impl State {
    fn end(&self, at: &TopicPartition) -> u64 {
        self.partitions.get(at).and_then(|runs| runs.last()).map_or(0, |run| run.base + u64::from(run.count))
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        let State { topics, refused, .. } = &mut *self.state.lock();
        for spec in specs {
            if refused.is_some_and(|part| spec.name.contains(part)) {
                let (topic, problem) = (spec.name.to_string(), "does not exist".into());
                return Err(Error::Topic { topic, problem, remedy: "make it".into() });
            }
            topics.entry(spec.name.clone()).or_insert(spec.partitions);
        }
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        Ok(self.state.lock().topics.iter().map(|(name, partitions)| (name.clone(), *partitions)).collect())
    }

    async fn producer(&self, _name: &str) -> Result<Arc<dyn Producer>, Error> {
        Ok(Arc::new(self.clone()))
    }

    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        Producer::append(self, batches, None).await.map(|_| ())
    }

    async fn fetch(&self, from: &[FetchFrom], _limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        let state = self.state.lock();
        let mut found = Vec::new();
        for FetchFrom { partition, offset } in from {
            let runs = state.partitions.get(partition).map_or(&[][..], |runs| &runs[..]);
            // Records that share a prelude come in one batch, however they were appended.
            for runs in runs.chunk_by(|a, b| a.prelude == b.prelude) {
                let mut rest = RecordBuffer::default();
                for run in runs {
                    let (base, records) = (Offset(run.base), run.records.clone());
                    let whole = FetchedBatch::new(partition.clone(), base, run.prelude.clone(), records, run.count);
                    for record in whole.records().filter(|record| record.offset >= *offset) {
                        let value = record.value.map(|value| |out: &mut Vec<u8>| out.extend_from_slice(value));
                        rest.push(record.timestamp_ms, record.key, value);
                    }
                }
                if !rest.is_empty() {
                    let base = Offset(runs[0].base.max(offset.0));
                    let records = Bytes::copy_from_slice(rest.as_bytes());
                    let prelude = runs[0].prelude.clone();
                    found.push(FetchedBatch::new(partition.clone(), base, prelude, records, rest.count()));
                }
            }
        }
        Ok(found)
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        Ok(Watermarks { low: Offset(0), high: Offset(self.state.lock().end(partition)) })
    }

    async fn offset_at(&self, _partition: &TopicPartition, _timestamp_ms: i64) -> Result<Offset, Error> {
        Ok(Offset(0))
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let committed = &mut self.state.lock().committed;
        committed.extend(offsets.iter().map(|(at, next)| ((group.to_string(), at.clone()), *next)));
        Ok(())
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let state = self.state.lock();
        let own = state.committed.iter().filter(|((of, _), _)| of == group);
        Ok(own.map(|((_, at), next)| (at.clone(), *next)).collect())
    }

    async fn join(&self, _group: &str, _topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        Ok(Box::new(Nobody(watch::channel(Arc::default()).1)))
    }
}

#[async_trait]
impl Producer for MemoryLog {
    async fn checkpoint(&self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    async fn append(&self, batches: Vec<AppendBatch>, _checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error> {
        let mut state = self.state.lock();
        let append = |AppendBatch { to, prelude, records }| {
            let base = state.end(&to);
            let (bytes, count) = (Bytes::copy_from_slice(records.as_bytes()), records.count());
            state.partitions.entry(to).or_default().push(Run { base, prelude, records: bytes, count });
            Offset(base)
        };
        Ok(batches.into_iter().map(append).collect())
    }
}

/// The test says itself who has what.
struct Nobody(watch::Receiver<Arc<BTreeSet<TopicPartition>>>);

impl Membership for Nobody {
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>> {
        self.0.clone()
    }
}
