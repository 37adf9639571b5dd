//! The right to append under a name: transactional producers of Kafka, driven by a thread of its own.
//!
//! An append is a transaction. It holds the records, the schemas that no record used before, and the checkpoint. Kafka
//! answers the end of a transaction before it has told every partition, and until then refuses the next one of the same
//! producer, whose client asks again only after 20 ms. So there are two producers, the *lanes* of a name, which take
//! turns: one after another, never at once.
//!
//! Kafka shuts out earlier lanes when ours open. An earlier holder of the name whose second lane is still open may end
//! one more append with it, in order, before it meets a closed one; where it left off is read after both are ours. The
//! record of who opened last (the *claim*) tells a producer that was shut out from one whose transaction only took too
//! long. Two that open a name in the same moment may shut out a lane of each other: the one whose claim is there opens the
//! name again, and the other is shut out for good. So is a process that would open it again, whatever for, and finds that
//! another has claimed it since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_schemas::codec::debezium::SourceInfo;
use headwater_schemas::{SchemaFingerprint, TableSchema};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use super::asker::EVENTS_MAX;
use super::checkpoints::{self, Claim, Taken};
use super::deliveries::{Deliver, Outlet, Undelivered, byte_len, mark};
use super::forgotten::{self, Forgotten};
use super::schemas::Described;
use super::topics::blocking;
use super::wire::{self, EventWriter, Outgoing};
use crate::batch::Records;
use crate::{AppendBatch, Error, Offset, Producer, RecordSizes, TopicPartition};

/// How long the end of a transaction may take. Longer than the transaction itself may.
const COMMIT_MAX: Duration = Duration::from_secs(35);
const OPEN_MAX: Duration = Duration::from_secs(60);

const WRITE: &str = "write records";

/// How often it is looked whether readers see what was appended, and by when they must.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SEEN_BY: Duration = Duration::from_secs(10);

pub(super) struct KafkaProducer {
    name: Arc<str>,
    claim: Claim,
    inner: Arc<Inner>,
    /// Every append in it has a caller who waits, so it holds no memory that they would not hold while waiting for room.
    /// Room to wait for would cost the order; see the embedded engine.
    queue: mpsc::UnboundedSender<Append>,
}

struct Append {
    batches: Vec<AppendBatch>,
    checkpoint: Option<Bytes>,
    answer: oneshot::Sender<Result<Vec<Offset>, Error>>,
}

impl KafkaProducer {
    /// Shuts out earlier producers of the name. Blocks.
    pub(super) fn open(inner: Arc<Inner>, name: &str) -> Result<Self, Error> {
        let name = Arc::from(name);
        inner.doubts.settle(&inner, &name)?;
        inner.opened.settle(&inner, &name)?;
        let mut writer = Writer::open(Arc::clone(&inner), name)?;
        inner.opened.note(&writer.name, &writer.claim);
        writer.claim()?;
        writer.end_forgotten()?;
        writer.read_schemas()?;
        let (name, claim) = (Arc::clone(&writer.name), writer.claim.clone());
        let (queue, mut appends) = mpsc::unbounded_channel::<Append>();
        let work = move || {
            while let Some(Append { batches, checkpoint, answer }) = appends.blocking_recv() {
                // Whoever gave up waiting finds out from the checkpoint.
                drop(answer.send(writer.append(&batches, checkpoint)));
            }
        };
        let thread = std::thread::Builder::new().name("kafka-producer".into()).spawn(work);
        thread.map_err(|source| inner.engine("start a producer's thread", source))?;
        Ok(Self { name, claim, inner, queue })
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn checkpoint(&self) -> Result<Option<Bytes>, Error> {
        let (inner, name, claim) = (Arc::clone(&self.inner), Arc::clone(&self.name), self.claim.clone());
        blocking(move || checkpoints::checkpoint(&inner, &name, &claim)).await
    }

    async fn append(&self, batches: Vec<AppendBatch>, checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Append { batches, checkpoint, answer }).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    async fn record_sizes(&self, batch: &AppendBatch) -> Result<Option<RecordSizes>, Error> {
        let max = match self.inner.topics.record_bytes_max(&batch.to.topic).await {
            // Nobody tells us.
            Err(Error::Forbidden { .. }) => return Ok(None),
            max => max?,
        };
        let mut form = form(&self.inner, &batch.prelude);
        let mut sizes = RecordSizes { max, bytes: Vec::new() };
        for record in Records::new(Offset(0), batch.records.as_bytes()) {
            let mut bytes = 0;
            let mut measure = |outgoing: Outgoing<'_>| {
                // Behind an event may come its tombstone, which is smaller.
                bytes = bytes.max(byte_len(outgoing.key, outgoing.value));
                Ok::<_, Error>(())
            };
            match &mut form {
                Form::Events(writer) => writer.write(record, measure)?,
                Form::Plain(headers) => measure(wire::plain(record, headers.as_ref()))?,
            }
            sizes.bytes.push(bytes);
        }
        Ok(Some(sizes))
    }

    fn offsets_of(&self, batch: &AppendBatch) -> u64 {
        if self.inner.options.tombstones && TableSchema::from_bytes(&batch.prelude).is_some() {
            wire::count_with_tombstones(&batch.records)
        } else {
            u64::from(batch.records.count())
        }
    }

    fn offsets_behind(&self) -> u64 {
        1
    }
}

/// How the batches of one prelude are written.
enum Form {
    Events(Box<EventWriter>),
    Plain(Option<OwnedHeaders>),
}

struct Writer {
    name: Arc<str>,
    claim: Claim,
    inner: Arc<Inner>,
    lanes: [BaseProducer<Deliver>; 2],
    /// The lane of the current transaction, or of the last.
    turn: usize,
    forms: HashMap<Bytes, Form>,
    /// Schemas that are in the log, or in an append of ours after whose failure there is no other.
    published: HashSet<SchemaFingerprint>,
    /// When it was last looked whether readers see what was appended.
    looked: Instant,
    /// Whether an append failed.
    broken: bool,
    /// Whether the cluster said that another opened the name, or took the end of a transaction for too late.
    shut_out: bool,
    fenced: bool,
}

fn form(inner: &Inner, prelude: &Bytes) -> Form {
    match TableSchema::from_bytes(prelude) {
        Some(schema) => {
            let options = &inner.options;
            let source = options.sources.get(&*schema.table.source).cloned();
            let source = source.unwrap_or_else(|| SourceInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                connector: "headwater".into(),
                database: String::new(),
            });
            let described = Arc::new(Described::new(schema, prelude.clone()));
            Form::Events(Box::new(EventWriter::new(described, &source, options.tombstones)))
        }
        None => Form::Plain(wire::plain_headers(prelude)),
    }
}

/// A producer of Kafka with a transactional id. Waits until what an earlier one of the id left is committed or aborted in
/// every partition.
fn open_lane(inner: &Inner, id: &str) -> Result<BaseProducer<Deliver>, Error> {
    const ACTION: &str = "open a producer";
    let config = inner.options.producer(id);
    let lane =
        rdkafka::config::FromClientConfigAndContext::from_config_and_context(&config, Deliver::new(&inner.cluster));
    let lane: BaseProducer<Deliver> = lane.map_err(|e| inner.cluster.error(ACTION, e))?;
    let deadline = Instant::now() + OPEN_MAX;
    while let Err(error) = lane.init_transactions(inner.options.request_timeout) {
        // Why there is no connection is told by events, one at each poll.
        (0..EVENTS_MAX).for_each(|_| lane.poll(Duration::ZERO));
        let again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        let explained = inner.cluster.error(ACTION, error);
        if !again || Instant::now() > deadline || !matches!(explained, Error::Engine { .. }) {
            return Err(explained);
        }
    }
    Ok(lane)
}

impl Writer {
    fn open(inner: Arc<Inner>, name: Arc<str>) -> Result<Self, Error> {
        let lanes = [open_lane(&inner, &name)?, open_lane(&inner, &format!("{name}.2"))?];
        inner.cluster.answered();
        Ok(Self {
            name,
            claim: Claim::new(&inner)?,
            inner,
            lanes,
            turn: 0,
            forms: HashMap::new(),
            published: HashSet::new(),
            looked: Instant::now(),
            broken: false,
            shut_out: false,
            fenced: false,
        })
    }

    /// Writes down that the name is ours, and waits until every reader sees it: what earlier producers of the name
    /// committed is seen then, too.
    ///
    /// Each lane does so, since here, too, the cluster may have forgotten the end of a transaction: see [`forgotten`].
    fn claim(&mut self) -> Result<(), Error> {
        let (place, key) = (self.inner.checkpoints.clone(), checkpoints::claim_key(&self.name));
        let claim = self.claim.clone();
        for _ in 0..self.lanes.len() {
            let marked = self.transaction(|writer| {
                let record =
                    Outgoing { key: Some(&key), value: Some(claim.bytes()), timestamp_ms: now_ms(), headers: None };
                writer.send(&place, record, mark(0))
            })?;
            self.settle_at(&place, marked.get(&mark(0)));
        }
        self.inner.watermarks(&place).map(|_| ())
    }

    /// Ends what earlier producers of the name left open and the cluster forgot, in the topics that begin with the name,
    /// where nobody else writes. Not in those whose name goes on with `__`: there every append writes, which ends it, and
    /// a record that was aborted must not come to light. In that of the schemas others may be what is waited for.
    fn end_forgotten(&mut self) -> Result<(), Error> {
        let (inner, own) = (Arc::clone(&self.inner), self.own_topics());
        let is_own = |topic: &str| topic.strip_prefix(&own).is_some_and(|rest| !rest.starts_with("__"));
        let topics = inner.topics.list()?.into_iter().filter(|(topic, _)| is_own(topic));
        let mut places = vec![inner.schema_topic.clone()];
        for (topic, partitions) in topics {
            places.extend((0..partitions).map(|partition| TopicPartition { topic: topic.clone(), partition }));
        }
        let open = forgotten::among(&inner, &places)?;
        if open.is_empty() {
            return Ok(());
        }
        let partitions: Vec<String> = open.iter().map(|(place, _)| place.to_string()).collect();
        tracing::warn!(
            partitions = partitions.join(", "),
            "the cluster has forgotten to end transactions; ending them"
        );
        for _ in 0..self.lanes.len() {
            let marked = self.transaction(|writer| {
                let mut records = open.iter().enumerate();
                records.try_for_each(|(at, (place, last))| writer.send(place, last.again(), mark(at)))
            })?;
            for (at, (place, _)) in open.iter().enumerate().filter(|(_, (place, _))| is_own(&place.topic)) {
                self.settle_at(place, marked.get(&mark(at)));
            }
        }
        open.iter()
            .filter(|(place, _)| is_own(&place.topic))
            .try_for_each(|(place, _)| inner.watermarks(place).map(|_| ()))
    }

    /// What the topics begin with that are this name's own.
    fn own_topics(&self) -> String {
        format!("{}.", self.name)
    }

    fn read_schemas(&mut self) -> Result<(), Error> {
        self.inner.schemas.read_on()?;
        self.published = self.inner.schemas.fingerprints();
        Ok(())
    }

    /// Looks from time to time whether readers see what was appended a while ago. Where they do not, the cluster has
    /// forgotten to end it, and opening the producer anew does.
    fn look(&mut self) -> Result<(), Error> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        for place in self.inner.ends.noted_before(&self.own_topics(), SEEN_BY) {
            let high = self.inner.scanner.watermarks(&place)?.map_or(u64::MAX, |marks| marks.high.0);
            if !self.inner.ends.is_reached(&place, high) {
                return Err(self.inner.engine(WRITE, Forgotten(place)));
            }
        }
        Ok(())
    }

    fn append(&mut self, batches: &[AppendBatch], checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error> {
        if self.fenced {
            return Err(self.fenced());
        }
        if self.broken {
            return Err(Error::Broken { producer: self.name.to_string() });
        }
        let begun = Instant::now();
        let appended = self.look().and_then(|()| self.try_append(batches, checkpoint));
        if appended.is_err() {
            self.broken = true;
        } else {
            self.inner.metrics.appended(batches, begun.elapsed());
        }
        appended
    }

    fn try_append(&mut self, batches: &[AppendBatch], checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error> {
        for batch in batches {
            self.inner.topics.require(&batch.to)?;
        }
        let marked = if checkpoint.is_none() && batches.iter().all(|batch| batch.records.is_empty()) {
            HashMap::new()
        } else {
            self.transaction(|writer| {
                for (at, batch) in batches.iter().enumerate() {
                    writer.write(at, batch)?;
                }
                match &checkpoint {
                    Some(checkpoint) => writer.write_checkpoint(checkpoint, batches.len()),
                    None => Ok(()),
                }
            })?
        };
        let places: Vec<TopicPartition> = batches.iter().map(|batch| batch.to.clone()).collect();
        self.settle(&places, &marked);
        if checkpoint.is_some() {
            let place = self.inner.checkpoints.clone();
            self.settle_at(&place, marked.get(&mark(batches.len())));
        }
        let offset_of = |(at, batch): (usize, &AppendBatch)| match marked.get(&mark(at)) {
            Some(offset) => Ok(Offset(*offset as u64)),
            // It has no record that could tell.
            None => self.inner.watermarks(&batch.to).map(|marks| marks.high),
        };
        batches.iter().enumerate().map(offset_of).collect()
    }

    fn lane(&self) -> &BaseProducer<Deliver> {
        &self.lanes[self.turn]
    }

    fn outlet(&self, wait_max: Duration) -> Outlet<'_> {
        let deadline = Instant::now() + wait_max;
        Outlet { inner: &self.inner, producer: self.lane(), action: WRITE, deadline }
    }

    /// Does the work in a transaction and gives the offsets of marked records. Aborts what fails.
    fn transaction(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<HashMap<usize, i64>, Error> {
        self.turn = 1 - self.turn;
        self.lane().context().take();
        let begun = self.lane().begin_transaction().map_err(|e| self.explain("begin a transaction", e));
        let done = begun.and_then(|()| work(self)).and_then(|()| self.commit());
        if let Err(error) = done {
            // If it cannot be told, the cluster aborts it when its time is over or the name is opened again.
            self.lane().purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            self.drain(Duration::from_secs(1)).ok();
            self.lane().abort_transaction(Duration::from_secs(2)).ok();
            return Err(self.unless_taken(error));
        }
        self.inner.cluster.answered();
        Ok(self.lane().context().take().marked)
    }

    fn commit(&mut self) -> Result<(), Error> {
        const ACTION: &str = "commit a transaction";
        self.drain(COMMIT_MAX)?;
        let deadline = Instant::now() + COMMIT_MAX;
        loop {
            match self.lane().commit_transaction(self.inner.options.request_timeout) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(self.explain(ACTION, error)),
            }
        }
    }

    /// Waits until every record was answered.
    fn drain(&mut self, wait_max: Duration) -> Result<(), Error> {
        self.outlet(wait_max).drain().map_err(|undelivered| match undelivered {
            Undelivered::TooLarge { topic, bytes } => Error::TooLarge { topic, bytes },
            Undelivered::Failed(error) => self.explain(WRITE, error),
        })
    }

    fn write(&mut self, at: usize, batch: &AppendBatch) -> Result<(), Error> {
        let mut form = match self.forms.remove(&batch.prelude) {
            Some(form) => form,
            None => form(&self.inner, &batch.prelude),
        };
        let written = self.write_as(&mut form, at, batch);
        self.forms.insert(batch.prelude.clone(), form);
        written
    }

    fn write_as(&mut self, form: &mut Form, at: usize, batch: &AppendBatch) -> Result<(), Error> {
        let end = batch.records.count() as usize;
        let mark_of = |n: usize| if n == 0 { mark(at) } else { 0 };
        match form {
            Form::Events(writer) => {
                let described = Arc::clone(writer.described());
                if end > 0 && self.published.insert(described.fingerprint) {
                    self.publish(&described)?;
                }
                let outlet = self.outlet(COMMIT_MAX);
                for (n, record) in Records::new(Offset(0), batch.records.as_bytes()).enumerate() {
                    let mut marked = mark_of(n);
                    writer.write(record, |outgoing| outlet.send(&batch.to, outgoing, std::mem::take(&mut marked)))?;
                }
            }
            Form::Plain(headers) => {
                let outlet = self.outlet(COMMIT_MAX);
                for (n, record) in Records::new(Offset(0), batch.records.as_bytes()).enumerate() {
                    outlet.send(&batch.to, wire::plain(record, headers.as_ref()), mark_of(n))?;
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, described: &Described) -> Result<(), Error> {
        let json = serde_json::to_vec(&described.schema).expect("names and numbers always serialise");
        let key = described.name.as_bytes();
        let record = Outgoing { key: Some(key), value: Some(&json), timestamp_ms: now_ms(), headers: None };
        self.send(&self.inner.schema_topic, record, 0)
    }

    fn write_checkpoint(&self, checkpoint: &[u8], at: usize) -> Result<(), Error> {
        let key = checkpoints::checkpoint_key(&self.name);
        let record = Outgoing { key: Some(&key), value: Some(checkpoint), timestamp_ms: now_ms(), headers: None };
        self.send(&self.inner.checkpoints, record, mark(at))
    }

    fn send(&self, to: &TopicPartition, outgoing: Outgoing<'_>, mark: usize) -> Result<(), Error> {
        self.outlet(COMMIT_MAX).send(to, outgoing, mark)
    }

    /// Notes where the partitions end for readers once the transaction is visible.
    fn settle(&self, places: &[TopicPartition], marked: &HashMap<usize, i64>) {
        for (at, place) in places.iter().enumerate() {
            self.settle_at(place, marked.get(&mark(at)));
        }
    }

    fn settle_at(&self, place: &TopicPartition, offset: Option<&i64>) {
        if let Some(offset) = offset {
            // Readers see a transaction as a whole: who sees beyond its first record sees the marker behind its last.
            self.inner.ends.note(place, *offset as u64 + 2);
        }
    }

    fn fenced(&self) -> Error {
        Error::Fenced { producer: self.name.to_string() }
    }

    /// An error of the client as the log's.
    fn explain(&mut self, action: &'static str, error: KafkaError) -> Error {
        self.shut_out |= error.rdkafka_error_code().is_some_and(shuts_out);
        self.inner.cluster.error(action, error)
    }

    /// What failed an append: what was said of it, or that another producer has taken over. Only the client may know that it
    /// was shut out, where it refused what came behind.
    fn unless_taken(&mut self, error: Error) -> Error {
        let fatal = self.lane().client().fatal_error().map(|(code, _)| code);
        if !self.shut_out && !fatal.is_some_and(shuts_out) {
            return error;
        }
        match checkpoints::is_taken(&self.inner, &self.name, &self.claim) {
            Taken::Yes => {
                self.fenced = true;
                self.fenced()
            }
            Taken::No => error,
            Taken::Unknown => self.inner.engine(WRITE, self.inner.doubts.note(&self.inner, &self.name, &self.claim)),
        }
    }
}

/// Whether this is said to who is shut out.
fn shuts_out(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(code, C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch | C::InvalidTransactionalState)
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| i64::try_from(now.as_millis()).unwrap_or(1))
}
