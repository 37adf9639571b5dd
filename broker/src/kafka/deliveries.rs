//! Records on their way to Kafka, and what became of them: shared by appends under a name and without one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::Inner;
use super::client::{Cluster, Context};
use super::wire::Outgoing;
use crate::{Error, TopicPartition};

/// Pause between two looks at what the cluster has answered.
const LOOK_EVERY: Duration = Duration::from_micros(250);

/// What became of the records of an append.
#[derive(Default)]
pub(super) struct Deliveries {
    /// Offsets of marked records, by [`mark`].
    pub(super) marked: HashMap<usize, i64>,
    failed: Option<Failed>,
}

/// A record that was not delivered.
struct Failed {
    error: KafkaError,
    topic: String,
    bytes: usize,
}

impl Failed {
    fn is_too_large(&self) -> bool {
        self.error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
    }
}

/// The mark of a record of a batch, which comes back with its offset. Records that need not be found again have 0.
pub(super) fn mark(batch: usize) -> usize {
    batch + 1
}

/// Why records were not delivered.
pub(super) enum Undelivered {
    /// One was larger than its topic takes.
    TooLarge {
        topic: String,
        bytes: usize,
    },
    Failed(KafkaError),
}

/// Hears what a producer says.
pub(super) struct Deliver {
    context: Context,
    deliveries: Mutex<Deliveries>,
}

impl Deliver {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        Self { context: Context(Arc::clone(cluster)), deliveries: Mutex::default() }
    }

    /// What was heard since the last time; from here on it is another append's.
    pub(super) fn take(&self) -> Deliveries {
        std::mem::take(&mut self.deliveries.lock())
    }
}

impl ClientContext for Deliver {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliver {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match result {
            Ok(_) if mark == 0 => {}
            Ok(message) => {
                self.deliveries.lock().marked.insert(mark, message.offset());
            }
            Err((error, message)) => {
                let failed = Failed {
                    error: error.clone(),
                    topic: message.topic().into(),
                    bytes: byte_len(message.key(), message.payload()),
                };
                let first = &mut self.deliveries.lock().failed;
                // What is too large is refused together with its neighbours.
                let replaces =
                    |first: &Failed| first.is_too_large() && failed.is_too_large() && failed.bytes > first.bytes;
                if first.as_ref().is_none_or(replaces) {
                    *first = Some(failed);
                }
            }
        }
    }
}

pub(super) fn byte_len(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)
}

/// The way of the records of one append.
pub(super) struct Outlet<'a> {
    pub(super) inner: &'a Inner,
    pub(super) producer: &'a BaseProducer<Deliver>,
    /// What is being done, in the words of errors.
    pub(super) action: &'static str,
    pub(super) deadline: Instant,
}

impl Outlet<'_> {
    /// Hands a record to the client; waits while its queue is full.
    pub(super) fn send(&self, to: &TopicPartition, outgoing: Outgoing<'_>, mark: usize) -> Result<(), Error> {
        let bytes = byte_len(outgoing.key, outgoing.value);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&to.topic, mark)
            .partition(i32::try_from(to.partition).unwrap_or(i32::MAX))
            .timestamp(outgoing.timestamp_ms);
        (record.key, record.payload, record.headers) = (outgoing.key, outgoing.value, outgoing.headers);
        let too_large = || Error::TooLarge { topic: to.topic.to_string(), bytes };
        loop {
            // If it is empty and still full, the record is larger than the whole queue.
            let is_empty = self.producer.in_flight_count() == 0;
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if is_empty => {
                    return Err(too_large());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    if Instant::now() > self.deadline {
                        let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                        return Err(self.inner.cluster.error(self.action, error));
                    }
                    self.hear();
                    record = again;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    return Err(too_large());
                }
                Err((error, _)) => return Err(self.inner.topics.explain(to, self.action, error)),
            }
        }
    }

    /// Waits until every record was answered.
    pub(super) fn drain(&self) -> Result<(), Undelivered> {
        loop {
            let failed = self.producer.context().deliveries.lock().failed.take();
            if let Some(failed) = failed {
                return Err(match failed.is_too_large() {
                    true => Undelivered::TooLarge { topic: failed.topic, bytes: failed.bytes },
                    false => Undelivered::Failed(failed.error),
                });
            }
            if self.producer.in_flight_count() == 0 {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(Undelivered::Failed(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
            }
            self.hear();
        }
    }

    /// Hears what there is, or waits a moment. The client's own wait turns in a circle for its last millisecond, and does
    /// not end when something comes.
    fn hear(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
