//! Appending under no name: one idempotent producer without transactions, so that nobody waits for the end of one that was
//! left open, and nobody is shut out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::client::{self, Cluster};
use super::{Inner, wire};
use crate::batch::Records;
use crate::{AppendBatch, Error, Offset};

const ACTION: &str = "append records";

/// Longer than the client itself tries to deliver a record.
const APPEND_MAX: Duration = Duration::from_secs(30);

/// Appends of one after the other.
#[derive(Default)]
pub(super) struct Nameless(Mutex<Option<BaseProducer<Deliver>>>);

struct Deliver {
    cluster: Arc<Cluster>,
    /// What became of the records of the append at hand.
    delivered: Mutex<Delivered>,
}

#[derive(Default)]
struct Delivered {
    /// By place in the list of batches: the offset behind its last record.
    ends: Vec<u64>,
    error: Option<(KafkaError, String)>,
}

impl ClientContext for Deliver {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.cluster.listen(facility, message);
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.cluster.listen("ERROR", reason);
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ProducerContext for Deliver {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: usize) {
        let mut delivered = self.delivered.lock();
        match result {
            Ok(message) => {
                if let Some(end) = delivered.ends.get_mut(batch) {
                    *end = (*end).max(message.offset().max(0) as u64 + 1);
                }
            }
            Err((error, message)) => {
                delivered.error.get_or_insert_with(|| (error.clone(), message.topic().into()));
            }
        }
    }
}

impl Nameless {
    /// Appends, and waits until all of it is durable. Blocks.
    pub(super) fn append(&self, inner: &Inner, batches: &[AppendBatch]) -> Result<(), Error> {
        for batch in batches {
            inner.topics.require(&batch.to)?;
        }
        let begun = Instant::now();
        let mut held = self.0.lock();
        let producer = match held.take() {
            Some(producer) => producer,
            None => {
                let deliver = Deliver { cluster: Arc::clone(&inner.cluster), delivered: Mutex::default() };
                BaseProducer::from_config_and_context(&inner.options.nameless(), deliver)
                    .map_err(|error| inner.cluster.error("open a producer", error))?
            }
        };
        *producer.context().delivered.lock() = Delivered { ends: vec![0; batches.len()], error: None };
        // Kept only after success: what a failed append has left in the client must not mix with the next.
        send(inner, &producer, batches)?;
        let delivered = std::mem::take(&mut *producer.context().delivered.lock());
        *held = Some(producer);
        drop(held);
        inner.cluster.answered();
        for (batch, end) in batches.iter().zip(delivered.ends) {
            inner.ends.note(&batch.to, end);
            inner.metrics.appended_batches.inc();
            inner.metrics.appended_records.inc_by(u64::from(batch.records.count()));
            inner.metrics.appended_bytes.inc_by(batch.records.byte_len() as u64);
        }
        inner.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        inner.metrics.commit_writes.observe(1.0);
        Ok(())
    }
}

fn send(inner: &Inner, producer: &BaseProducer<Deliver>, batches: &[AppendBatch]) -> Result<(), Error> {
    let deadline = Instant::now() + APPEND_MAX;
    for (at, batch) in batches.iter().enumerate() {
        let headers = wire::plain_headers(&batch.prelude);
        for record in Records::new(Offset(0), batch.records.as_bytes()) {
            let outgoing = wire::plain(record, headers.as_ref());
            let bytes = outgoing.value.map_or(0, <[u8]>::len) + outgoing.key.map_or(0, <[u8]>::len);
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&batch.to.topic, at)
                .partition(i32::try_from(batch.to.partition).unwrap_or(i32::MAX))
                .timestamp(outgoing.timestamp_ms);
            (record.key, record.payload, record.headers) = (outgoing.key, outgoing.value, outgoing.headers);
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                        if Instant::now() < deadline =>
                    {
                        producer.poll(Duration::from_millis(1));
                        record = again;
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                        return Err(Error::TooLarge { topic: batch.to.topic.to_string(), bytes });
                    }
                    Err((error, _)) => return Err(inner.topics.explain(&batch.to, ACTION, error)),
                }
            }
        }
    }
    loop {
        if let Some((error, topic)) = producer.context().delivered.lock().error.take() {
            producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            return Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => Error::TooLarge { topic, bytes: 0 },
                _ => inner.cluster.error(ACTION, error),
            });
        }
        if producer.in_flight_count() == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            return Err(inner.cluster.error(ACTION, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
        }
        producer.poll(Duration::from_millis(1));
    }
}
