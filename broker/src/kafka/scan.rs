//! Reading a stretch of a small topic to its end: schemas, checkpoints.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::asker::Asker;
use super::client::{Cluster, Context};
use super::options::KafkaOptions;
use crate::{Error, Offset, TopicPartition, Watermarks};

/// How long a topic that was made just now may be without leaders, and the pause before it is asked for again.
const LEADER_MAX: Duration = Duration::from_secs(5);
const LEADER_PAUSE: Duration = Duration::from_millis(25);

const ACTION: &str = "read one of our own topics";

/// Reads single partitions of the engine's own topics. All calls block. Cheap to clone.
#[derive(Clone)]
pub(super) struct Scanner {
    cluster: Arc<Cluster>,
    options: Arc<KafkaOptions>,
    asker: Arc<Asker>,
}

impl Scanner {
    pub(super) fn new(cluster: Arc<Cluster>, options: Arc<KafkaOptions>, asker: Arc<Asker>) -> Self {
        Self { cluster, options, asker }
    }

    /// Where a partition begins and ends for readers; `None` when there is no such topic.
    pub(super) fn watermarks(&self, partition: &TopicPartition) -> Result<Option<Watermarks>, Error> {
        let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
        let timeout = self.options.request_timeout;
        let deadline = Instant::now() + LEADER_MAX.min(timeout);
        loop {
            let error = match self.asker.ask(|consumer| consumer.fetch_watermarks(&partition.topic, number, timeout)) {
                Ok((low, high)) => {
                    return Ok(Some(Watermarks { low: Offset(low.max(0) as u64), high: Offset(high.max(0) as u64) }));
                }
                Err(error) => error,
            };
            match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition,
                ) => return Ok(None),
                Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(LEADER_PAUSE);
                }
                _ => return Err(self.cluster.error("read where a partition ends", error)),
            }
        }
    }

    /// Shows every record from one offset on to the one before another, which is reached then.
    pub(super) fn scan(
        &self,
        partition: &TopicPartition,
        from: u64,
        to: u64,
        each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Error> {
        let config = self.options.reader(&self.options.reader_group());
        let consumer = config.create_with_context(Context(Arc::clone(&self.cluster)));
        self.scan_by(&consumer.map_err(|error| self.cluster.error(ACTION, error))?, partition, from, to, each)
    }

    /// The same by a consumer that sees more, or less.
    pub(super) fn scan_by(
        &self,
        consumer: &BaseConsumer<Context>,
        partition: &TopicPartition,
        from: u64,
        to: u64,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), Error> {
        let failed = |error| self.cluster.error(ACTION, error);
        let mut list = TopicPartitionList::new();
        let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
        let offset = rdkafka::Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(&partition.topic, number, offset).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        let (mut reached, mut heard) = (from, Instant::now());
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.offset() as u64 >= to {
                        return Ok(());
                    }
                    each(&message);
                    if message.offset() as u64 + 1 >= to {
                        return Ok(());
                    }
                    continue;
                }
                // It may be the end of a broker that has not heard yet of all there is.
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // Connections come and go; silence is limited below.
                    Some(
                        RDKafkaErrorCode::BrokerTransportFailure
                        | RDKafkaErrorCode::AllBrokersDown
                        | RDKafkaErrorCode::OperationTimedOut,
                    ) => {}
                    _ => return Err(failed(error)),
                },
            }
            // Ends of transactions are no messages, and there may be many in a row: compaction removes what they ended.
            let position = position(consumer, partition).unwrap_or(from);
            if position >= to {
                return Ok(());
            }
            if position > reached {
                (reached, heard) = (position, Instant::now());
            }
            if heard.elapsed() > self.options.request_timeout {
                return Err(failed(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)));
            }
        }
    }
}

/// Where a consumer stands in a partition, as far as it has been polled.
pub(super) fn position(consumer: &BaseConsumer<Context>, partition: &TopicPartition) -> Option<u64> {
    let all = consumer.position().ok()?;
    let own = all.find_partition(&partition.topic, i32::try_from(partition.partition).ok()?)?;
    match own.offset() {
        rdkafka::Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    }
}
