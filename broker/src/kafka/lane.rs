//! One partition being read: what came of it and is not yet asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_schemas::SchemaFingerprint;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::Notify;

use super::client::Context;
use super::scan::position;
use super::schemas::Schemas;
use super::wire::{EventTranslator, Form, Incoming};
use crate::batch::unreadable_prelude;
use crate::{FetchedBatch, Offset, RecordBuffer, TopicPartition};

/// Where a batch ends even if more of its kind follows, so that partitions take turns.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Why a lane has nothing ready.
#[derive(Clone)]
pub(super) enum Stop {
    /// There is nothing for now.
    Nothing,
    /// A record is there whose schema is not known yet, since then.
    Wants { schema: SchemaFingerprint, offset: u64, since: Instant },
    /// Retention overtook us, or the log was replaced.
    OutOfRange,
    /// Reading failed.
    Failed(KafkaError),
}

/// A partition that a consumer reads on in, prefetching.
pub(super) struct Lane {
    consumer: Arc<BaseConsumer<Context>>,
    queue: PartitionQueue<Context>,
    filling: Filling,
    /// The offset behind what was handed out: where the caller goes on.
    next: u64,
    /// Whether the cluster has said anything of this partition: records, or that there are none.
    answered: bool,
    /// What stopped reading for good. The queue says it only once, so it is kept for as long as the lane is.
    failed: Option<Stop>,
}

impl Lane {
    /// A lane of a partition that `consumer` is about to be assigned at `next`. `wake` is told when there is something.
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<Context>>,
        partition: TopicPartition,
        next: u64,
        wake: Arc<Notify>,
    ) -> Option<Self> {
        let mut queue = consumer.split_partition_queue(&partition.topic, i32::try_from(partition.partition).ok()?)?;
        queue.set_nonempty_callback(move || wake.notify_one());
        let filling = Filling {
            partition,
            tail: next,
            ready: VecDeque::new(),
            open: None,
            waiting: None,
            missed: None,
            last: None,
        };
        Some(Self { consumer: Arc::clone(consumer), queue, filling, next, answered: false, failed: None })
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.filling.partition
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Goes on as if the cluster had answered: it takes too long.
    pub(super) fn wait_no_longer(&mut self) {
        self.answered = true;
    }

    /// Reads until a batch is ready to be taken. Takes nothing away, so that whoever waits may be dropped.
    pub(super) fn prepare(&mut self, schemas: &Schemas) -> Result<(), Stop> {
        loop {
            if !self.filling.ready.is_empty() {
                return Ok(());
            }
            if let Some(failed) = &self.failed {
                return Err(failed.clone());
            }
            if let Some(stop) = self.step(schemas) {
                self.filling.close();
                match stop {
                    Stop::OutOfRange | Stop::Failed(_) => self.failed = Some(stop),
                    Stop::Nothing | Stop::Wants { .. } if self.filling.ready.is_empty() => return Err(stop),
                    Stop::Nothing | Stop::Wants { .. } => {}
                }
            }
        }
    }

    /// Waits no longer for the schema of the record that is next, which is handed out as unreadable.
    pub(super) fn give_up(&mut self, why: &str) {
        self.filling.give_up(why);
    }

    /// The next batch, if one is ready.
    pub(super) fn take(&mut self) -> Option<FetchedBatch> {
        let batch = self.filling.ready.pop_front()?;
        self.next = batch.next().0;
        Some(batch)
    }

    /// Takes one record in; what stops it otherwise.
    fn step(&mut self, schemas: &Schemas) -> Option<Stop> {
        if let Some(stop) = self.filling.resume(schemas) {
            return Some(stop);
        }
        let error = match self.queue.poll(Duration::ZERO) {
            None => return Some(Stop::Nothing),
            Some(Ok(message)) => {
                self.answered = true;
                return self.filling.push(&message, schemas);
            }
            Some(Err(error)) => error,
        };
        self.answered = true;
        match error {
            // What is behind the last record is no record: the end of a transaction, or an aborted one.
            KafkaError::PartitionEOF(_) => {
                if let Some(position) = position(&self.consumer, &self.filling.partition) {
                    self.filling.pass(position);
                }
                None
            }
            error => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset) => Some(Stop::OutOfRange),
                _ => Some(Stop::Failed(error)),
            },
        }
    }
}

/// Records on their way into batches.
struct Filling {
    partition: TopicPartition,
    /// Behind the last record taken.
    tail: u64,
    ready: VecDeque<FetchedBatch>,
    open: Option<Open>,
    /// A record whose schema must be found first. It is no longer in the queue, and a dropped fetch must not lose it.
    waiting: Option<Waiting>,
    /// The schema that was waited for in vain last, and since when. Others that name it have waited with that record.
    missed: Option<(SchemaFingerprint, Instant)>,
    /// For the schema of the last event, as a rule that of the next.
    last: Option<EventTranslator>,
}

/// A batch being filled.
struct Open {
    base: u64,
    prelude: Bytes,
    records: RecordBuffer,
}

struct Waiting {
    schema: SchemaFingerprint,
    binary: bool,
    offset: u64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    since: Instant,
}

impl Waiting {
    fn raw(&self) -> Raw<'_> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        Raw { offset: self.offset, timestamp_ms: self.timestamp_ms, key, value }
    }
}

/// A record, its headers read.
struct Raw<'m> {
    offset: u64,
    timestamp_ms: i64,
    key: Option<&'m [u8]>,
    value: Option<&'m [u8]>,
}

impl Filling {
    /// Takes in the record that waits for its schema, if there is one.
    fn resume(&mut self, schemas: &Schemas) -> Option<Stop> {
        let waiting = self.waiting.take()?;
        let Some(described) = schemas.known(waiting.schema) else {
            let Waiting { schema, offset, since, .. } = waiting;
            self.waiting = Some(waiting);
            return Some(Stop::Wants { schema, offset, since });
        };
        self.event(&mut EventTranslator::new(described), waiting.binary, &waiting.raw());
        None
    }

    fn give_up(&mut self, why: &str) {
        let Some(waiting) = self.waiting.take() else { return };
        self.missed = Some((waiting.schema, waiting.since));
        self.plain(&unreadable_prelude(why), &waiting.raw());
    }

    fn push(&mut self, message: &BorrowedMessage<'_>, schemas: &Schemas) -> Option<Stop> {
        let incoming = Incoming::read(message);
        let offset = message.offset() as u64;
        let timestamp_ms = incoming.timestamp_ms;
        let value = message.payload().or(incoming.event);
        let raw = Raw { offset, timestamp_ms, key: message.key(), value };
        match incoming.form {
            Form::Event { schema, binary } => {
                let last = self.last.take().filter(|last| last.described.fingerprint == schema);
                let Some(mut translator) = last.or_else(|| schemas.known(schema).map(EventTranslator::new)) else {
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    let missed = self.missed.filter(|(missed, _)| *missed == schema);
                    let since = missed.map_or_else(Instant::now, |(_, since)| since);
                    let (key, value) = (owned(raw.key), owned(raw.value));
                    self.waiting = Some(Waiting { schema, binary, offset, timestamp_ms, key, value, since });
                    return Some(Stop::Wants { schema, offset, since });
                };
                self.event(&mut translator, binary, &raw);
                self.last = Some(translator);
            }
            Form::Plain { prelude } => self.plain(prelude, &raw),
            Form::Unreadable(why) => self.plain(&unreadable_prelude(why), &raw),
        }
        None
    }

    fn event(&mut self, translator: &mut EventTranslator, binary: bool, raw: &Raw<'_>) {
        let described = Arc::clone(&translator.described);
        if binary {
            return self.plain(&described.prelude, raw);
        }
        let open = self.open_for(&described.prelude, raw.offset);
        if let Err(why) = translator.read(raw.key, raw.value, raw.timestamp_ms, &mut open.records) {
            // As it was found, in a batch of its own that says why.
            self.plain(&unreadable_prelude(&why), raw);
        } else {
            self.taken(raw.offset);
        }
    }

    fn plain(&mut self, prelude: &[u8], raw: &Raw<'_>) {
        let value = raw.value.map(|value| |out: &mut Vec<u8>| out.extend_from_slice(value));
        let open = self.open_for(prelude, raw.offset);
        open.records.push(raw.timestamp_ms, raw.key.unwrap_or_default(), value);
        self.taken(raw.offset);
    }

    fn taken(&mut self, offset: u64) {
        self.tail = offset + 1;
        if self.open.as_ref().is_some_and(|open| open.records.byte_len() >= BATCH_BYTES_MAX) {
            self.close();
        }
    }

    /// The batch for a record: the open one, if the record continues it.
    fn open_for(&mut self, prelude: &[u8], offset: u64) -> &mut Open {
        let continues = |open: &Open| open.prelude == prelude && open.base + u64::from(open.records.count()) == offset;
        if !self.open.as_ref().is_some_and(continues) {
            self.close();
        }
        self.open.get_or_insert_with(|| Open {
            base: offset,
            prelude: Bytes::copy_from_slice(prelude),
            records: RecordBuffer::default(),
        })
    }

    /// Makes the open batch ready.
    fn close(&mut self) {
        let Some(open) = self.open.take().filter(|open| !open.records.is_empty()) else { return };
        let (base, count) = (Offset(open.base), open.records.count());
        let records = Bytes::from(open.records.into_bytes());
        self.ready.push_back(FetchedBatch::new(self.partition.clone(), base, open.prelude, records, count));
    }

    /// Says that reading goes on at this offset, where no record tells.
    fn pass(&mut self, position: u64) {
        if position > self.tail {
            self.close();
            self.tail = position;
            let base = Offset(position);
            self.ready.push_back(FetchedBatch::new(self.partition.clone(), base, Bytes::new(), Bytes::new(), 0));
        }
    }
}
