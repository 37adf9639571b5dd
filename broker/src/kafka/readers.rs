//! Consumers that read on where their callers left off, kept between fetches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::Notify;

use super::client::{Cluster, Context};
use super::lane::Lane;
use super::options::{KafkaOptions, prefetch_bytes};
use crate::{Error, FetchFrom, TopicPartition};

/// Consumers kept for callers to come; a caller more takes the one unused longest.
const IDLE_MAX: usize = 4;
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// A record came outside of its partition's queue.
#[derive(Debug, thiserror::Error)]
#[error("the client handed out a record beside its partition's queue; reading begins anew")]
pub(super) struct Stray;

/// A consumer with the partitions it reads, each from where its caller goes on.
pub(super) struct Reader {
    // Before `consumer`: its client must not be destroyed before the queues of its partitions, and each of these would
    // destroy it first if it held it last.
    lanes: HashMap<TopicPartition, Lane>,
    consumer: Arc<BaseConsumer<Context>>,
    pub(super) wake: Arc<Notify>,
    /// How much it prefetches of each partition, which its client cannot change.
    prefetch_bytes: usize,
    used: Instant,
}

impl Reader {
    /// A reader of about so many partitions.
    pub(super) fn new(options: &KafkaOptions, cluster: &Arc<Cluster>, partitions: usize) -> Result<Self, Error> {
        let config = options.reader_of(partitions);
        let made = BaseConsumer::from_config_and_context(&config, Context(Arc::clone(cluster)));
        let mut consumer: BaseConsumer<Context> = made.map_err(|e| cluster.error("open a consumer", e))?;
        let wake = Arc::new(Notify::new());
        let on_event = Arc::clone(&wake);
        consumer.set_nonempty_callback(move || on_event.notify_one());
        let (lanes, consumer) = (HashMap::new(), Arc::new(consumer));
        Ok(Self { lanes, consumer, wake, prefetch_bytes: prefetch_bytes(partitions), used: Instant::now() })
    }

    /// Whether it stands at the wanted offset of a partition.
    pub(super) fn stands_at(&self, from: &FetchFrom) -> bool {
        self.lanes.get(&from.partition).is_some_and(|lane| lane.next() == from.offset.0)
    }

    /// Sees to it that exactly these partitions are read, from these offsets. Those it stands at already read on.
    pub(super) fn arrange(&mut self, from: &[FetchFrom]) -> Result<(), KafkaError> {
        let wanted =
            |lane: &Lane| from.iter().any(|from| from.partition == *lane.partition() && from.offset.0 == lane.next());
        let mut gone = TopicPartitionList::new();
        self.lanes.retain(|partition, lane| {
            let keep = wanted(lane);
            if !keep {
                gone.add_partition(&partition.topic, number(partition));
            }
            keep
        });
        if gone.count() > 0 {
            self.consumer.incremental_unassign(&gone)?;
        }
        let missing: Vec<&FetchFrom> = from.iter().filter(|from| !self.lanes.contains_key(&from.partition)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for from in &missing {
            let offset = rdkafka::Offset::Offset(i64::try_from(from.offset.0).unwrap_or(i64::MAX));
            list.add_partition_offset(&from.partition.topic, number(&from.partition), offset)?;
        }
        // Each gets its own queue before it is read: what comes earlier goes to the consumer's, and is not moved.
        for from in missing {
            let partition = from.partition.clone();
            let lane = Lane::new(&self.consumer, partition.clone(), from.offset.0, Arc::clone(&self.wake));
            let lane = lane.ok_or(KafkaError::Global(RDKafkaErrorCode::UnknownPartition))?;
            self.lanes.insert(partition, lane);
        }
        self.consumer.incremental_assign(&list)
    }

    pub(super) fn lane(&mut self, partition: &TopicPartition) -> Option<&mut Lane> {
        self.lanes.get_mut(partition)
    }

    /// Stops reading a partition; the next fetch begins anew.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        if self.lanes.remove(partition).is_some() {
            let mut gone = TopicPartitionList::new();
            gone.add_partition(&partition.topic, number(partition));
            if let Err(error) = self.consumer.incremental_unassign(&gone) {
                tracing::debug!(%partition, %error, "a partition could not be given up");
            }
        }
    }

    /// What the consumer as a whole complains about. After [`Stray`] the reader must not be used any more.
    pub(super) fn complaint(&self) -> Result<Option<KafkaError>, Stray> {
        let mut last = None;
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                // Each partition has a queue of its own. What came here is missing there, and reading on would skip it.
                Ok(_) | Err(KafkaError::PartitionEOF(_)) => return Err(Stray),
                Err(error) => last = Some(error),
            }
        }
        Ok(last)
    }
}

fn number(partition: &TopicPartition) -> i32 {
    i32::try_from(partition.partition).unwrap_or(i32::MAX)
}

/// Readers that nobody uses now.
#[derive(Default)]
pub(super) struct Readers(Mutex<Vec<Reader>>);

impl Readers {
    /// The reader that stands nearest to what is wanted, among those that were made for about so many partitions; `None`
    /// when a new one is due.
    pub(super) fn take(&self, from: &[FetchFrom]) -> Option<Reader> {
        let mut idle = self.0.lock();
        let score = |reader: &Reader| from.iter().filter(|from| reader.stands_at(from)).count();
        let bytes = prefetch_bytes(from.len());
        let fitting = idle.iter().enumerate().filter(|(_, reader)| reader.prefetch_bytes == bytes);
        let scored = fitting.map(|(at, reader)| (at, score(reader)));
        let (best, score) = scored.max_by_key(|(at, score)| (*score, usize::MAX - at))?;
        if score == 0 && idle.len() < IDLE_MAX {
            return None;
        }
        Some(idle.remove(best))
    }

    /// Takes a reader back, and lets go of those unused for long.
    pub(super) fn put(&self, mut reader: Reader) {
        reader.used = Instant::now();
        let mut gone = Vec::new();
        {
            let mut idle = self.0.lock();
            idle.push(reader);
            while idle.first().is_some_and(|reader| reader.used.elapsed() > IDLE_TIME_MAX) {
                gone.push(idle.remove(0));
            }
        }
        if !gone.is_empty() {
            close(gone);
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let idle = std::mem::take(self.0.get_mut());
        if !idle.is_empty() {
            close(idle);
        }
    }
}

/// Closes consumers beside: each waits for its threads.
fn close(readers: Vec<Reader>) {
    let closing = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(readers));
    if let Err(error) = closing {
        tracing::debug!(%error, "no thread to close consumers");
    }
}
