//! Transactions whose end the cluster has forgotten.
//!
//! A broker that is killed between the decision to commit and its markers may forget the marker of a partition: the
//! transaction counts as ended, and stays open there. Readers see nothing behind its first record, until the same lane ends
//! another transaction in the partition, which may be never. So whoever opens a name looks whether readers see the end of
//! every partition of it: both lanes are open by then, which ends whatever the cluster remembers. Where they do not, the
//! last record is written once more by each lane. What was answered was decided, so it ends rightly as committed; and
//! once more is harmless, since it is the last. It may be one of an aborted transaction: a change that comes to light
//! before it is captured again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message, OwnedHeaders};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::Inner;
use super::client::Context;
use super::wire::Outgoing;
use crate::{Error, TopicPartition};

/// By then the cluster has written the markers that it remembers.
const MARKED_BY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// Offsets before the end among which there is a record, as a rule.
const NEAR: u64 = 1000;

const ACTION: &str = "find the ends of partitions";

/// The end of our own append does not become visible.
#[derive(Debug, thiserror::Error)]
#[error(
    "readers do not see the end of {0} although its transaction was answered long ago: the cluster has forgotten to end it \
     there; it is ended when the producer is opened anew"
)]
pub(super) struct Forgotten(pub(super) TopicPartition);

/// The last record of a partition.
pub(super) struct Last {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: i64,
    headers: Option<OwnedHeaders>,
}

impl Last {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(1),
            headers: message.headers().map(BorrowedHeaders::detach),
        }
    }

    /// The same record once more.
    pub(super) fn again(&self) -> Outgoing<'_> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        Outgoing { key, value, timestamp_ms: self.timestamp_ms, headers: self.headers.clone() }
    }
}

/// The last records of those partitions whose ends readers do not see although no transaction is open that the cluster
/// remembers. Nobody else may write there. Blocks.
pub(super) fn among(inner: &Inner, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Last)>, Error> {
    let timeout = inner.options.request_timeout;
    let failed = |error| inner.cluster.error(ACTION, error);
    let mut config = inner.options.reader(&inner.options.reader_group());
    config.set("isolation.level", "read_uncommitted");
    let sees_all: BaseConsumer<Context> =
        config.create_with_context(Context(Arc::clone(&inner.cluster))).map_err(failed)?;
    let deadline = Instant::now() + MARKED_BY;
    let mut left = partitions.to_vec();
    loop {
        let written = ends(&sees_all, &left, timeout).map_err(failed)?;
        let visible = inner.asker.ask(|consumer| ends(consumer, &left, timeout)).map_err(failed)?;
        let parts = left.into_iter().zip(visible.into_iter().zip(written));
        let open: Vec<_> = parts.filter(|(_, (visible, written))| visible < written).collect();
        if open.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() > deadline {
            let last = |(partition, (visible, written))| {
                let last = last(inner, &sees_all, &partition, visible, written)?;
                Ok(last.map(|last| (partition, last)))
            };
            return open.into_iter().filter_map(|part| last(part).transpose()).collect();
        }
        std::thread::sleep(PAUSE);
        left = open.into_iter().map(|(partition, _)| partition).collect();
    }
}

/// Where these partitions end for the consumer, in their order.
fn ends(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<u64>, KafkaError> {
    let number = |partition: &TopicPartition| i32::try_from(partition.partition).unwrap_or(i32::MAX);
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        // As a time, this is the latest there is.
        list.add_partition_offset(&partition.topic, number(partition), rdkafka::Offset::End)?;
    }
    let found = consumer.offsets_for_times(list, timeout)?;
    let end = |partition: &TopicPartition| {
        let found = found.find_partition(&partition.topic, number(partition));
        match found.map(|found| (found.error(), found.offset())) {
            Some((Err(error), _)) => Err(error),
            Some((Ok(()), rdkafka::Offset::Offset(end))) => Ok(u64::try_from(end).unwrap_or(0)),
            _ => Ok(0),
        }
    };
    partitions.iter().map(end).collect()
}

/// The last record between two offsets; behind it are markers only.
fn last(
    inner: &Inner,
    consumer: &BaseConsumer<Context>,
    partition: &TopicPartition,
    low: u64,
    high: u64,
) -> Result<Option<Last>, Error> {
    let mut found = None;
    for from in [low.max(high.saturating_sub(NEAR)), low] {
        inner.scanner.scan_by(consumer, partition, from, high, |message| found = Some(Last::of(message)))?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}
