//! Appending under no name: one idempotent producer without transactions, so that nobody waits for the end of one that was
//! left open, and nobody is shut out.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::deliveries::{Deliver, Outlet, Undelivered, mark};
use super::{Inner, wire};
use crate::batch::Records;
use crate::{AppendBatch, Error, Offset};

const ACTION: &str = "append records";

/// Longer than the client itself tries to deliver a record.
const APPEND_MAX: Duration = Duration::from_secs(30);

/// Appends of one after the other.
#[derive(Default)]
pub(super) struct Nameless(Mutex<Option<BaseProducer<Deliver>>>);

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
            None => BaseProducer::from_config_and_context(&inner.options.nameless(), Deliver::new(&inner.cluster))
                .map_err(|error| inner.cluster.error("open a producer", error))?,
        };
        producer.context().take();
        // Kept only after success: what a failed append has left in the client must not mix with the next.
        send(inner, &producer, batches)?;
        let marked = producer.context().take().marked;
        *held = Some(producer);
        drop(held);
        inner.cluster.answered();
        for (at, batch) in batches.iter().enumerate() {
            if let Some(last) = marked.get(&mark(at)) {
                inner.ends.note(&batch.to, *last as u64 + 1);
            }
        }
        inner.metrics.appended(batches, begun.elapsed());
        Ok(())
    }
}

fn send(inner: &Inner, producer: &BaseProducer<Deliver>, batches: &[AppendBatch]) -> Result<(), Error> {
    let outlet = Outlet { inner, producer, action: ACTION, deadline: Instant::now() + APPEND_MAX };
    for (at, batch) in batches.iter().enumerate() {
        let headers = wire::plain_headers(&batch.prelude);
        let last = batch.records.count().saturating_sub(1) as usize;
        for (n, record) in Records::new(Offset(0), batch.records.as_bytes()).enumerate() {
            let mark = if n == last { mark(at) } else { 0 };
            outlet.send(&batch.to, wire::plain(record, headers.as_ref()), mark)?;
        }
    }
    outlet.drain().map_err(|undelivered| {
        producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        match undelivered {
            Undelivered::TooLarge { topic, bytes } => Error::TooLarge { topic, bytes },
            Undelivered::Failed(error) => inner.cluster.error(ACTION, error),
        }
    })
}
