//! One session of capture: from opening the source to its next error.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use headwater_broker::{
    AppendBatch, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, Producer, RecordBuffer, Retention,
    TopicPartition, TopicSpec, Watermarks,
};
use headwater_schemas::{DeadLetter, SourceProgress, dead_letter_topic, progress_topic};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::capture::CaptureOptions;
use crate::cut::Refused;
use crate::metrics::SourceMetrics;
use crate::status::StatusCell;
use crate::{Error, Gathered, Mark, Routes, Source};

/// Appends that may be on their way at once: one that becomes durable, and one that is ready behind it where there is much.
/// Where there is little it would only wait there, and what comes meanwhile would have to wait for both.
fn in_flight_max(gathered: &Gathered) -> usize {
    if gathered.is_full() { 2 } else { 1 }
}

/// How long the log may take to hand out what is in a topic.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// While they are on their way, what came meanwhile is taken this often.
const TAKE_EVERY: Duration = Duration::from_millis(1);

pub(crate) struct Session<'a> {
    name: &'a str,
    source: &'a mut dyn Source,
    options: &'a CaptureOptions,
    log: &'a Arc<dyn EventLog>,
    status: &'a StatusCell,
    metrics: &'a SourceMetrics,
    refused: &'a Refused,
    /// Where every partition of every topic of this source ends. Only this producer writes there, so it can count offsets
    /// itself, also before appends are answered.
    ends: BTreeMap<String, Vec<End>>,
    appended_at: Instant,
    progress: bool,
}

/// Where a partition ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Behind the last record: whoever has read that wants this offset next.
    records: u64,
    /// Offsets from there on that no record will have; see [`Producer::offsets_behind`].
    behind: u64,
}

/// An append that was answered.
struct Appended {
    result: Result<Vec<Offset>, headwater_broker::Error>,
    /// Where batches were counted to begin: number of the batch, partition, offset.
    counted: Vec<(usize, TopicPartition, u64)>,
    mark: Option<Mark>,
    events: u64,
    snapshot_rows: u64,
    bytes: u64,
    dead_letters: u64,
    last_event_at_micros: Option<i64>,
    begun: Instant,
}

type Appending = FuturesOrdered<Pin<Box<dyn Future<Output = Appended> + Send>>>;

impl<'a> Session<'a> {
    pub(crate) fn new(
        name: &'a str,
        source: &'a mut dyn Source,
        options: &'a CaptureOptions,
        log: &'a Arc<dyn EventLog>,
        status: &'a StatusCell,
        metrics: &'a SourceMetrics,
        refused: &'a Refused,
    ) -> Self {
        let (ends, appended_at) = (BTreeMap::new(), Instant::now());
        Self { name, source, options, log, status, metrics, refused, ends, appended_at, progress: false }
    }

    /// Whether anything became durable.
    pub(crate) fn made_progress(&self) -> bool {
        self.progress
    }

    /// Captures until cancelled (`Ok`) or until something fails. What is in flight is waited for in both cases, so that
    /// the next session reads a checkpoint that no longer changes.
    pub(crate) async fn run(&mut self, cancel: &CancellationToken) -> Result<(), Error> {
        let producer = self.log.producer(&format!("{}.{}", self.options.prefix, self.name)).await?;
        let checkpoint = producer.checkpoint().await?;
        let log = Arc::clone(self.log);
        let mut routes =
            Routes::new(&self.options.prefix, self.options.partitions).refusing(move |topic| log.refuses_topic(topic));
        self.find_topics().await?;
        if checkpoint.is_none() {
            check_first_start(&**self.log, &self.options.prefix, self.name).await?;
        }
        // Opening may be dropped: it is done again from the same checkpoint.
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            opened = self.source.open(checkpoint, &mut routes) => opened?,
        }
        let mut gathered = Gathered::default();
        let mut in_flight = Appending::new();
        let ended = self.pump(&producer, &mut routes, &mut gathered, &mut in_flight, cancel).await;
        if ended.is_ok() && gathered.is_ready() {
            let append = self.append(&producer, gathered.take()).await?;
            in_flight.push_back(append);
        }
        let mut drained = Ok(());
        while let Some(appended) = in_flight.next().await {
            drained = drained.and(self.finish(appended));
        }
        ended.and(drained)
    }

    async fn pump(
        &mut self,
        producer: &Arc<dyn Producer>,
        routes: &mut Routes,
        gathered: &mut Gathered,
        in_flight: &mut Appending,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while gathered.is_ready() && in_flight.len() < in_flight_max(gathered) {
                let append = self.append(producer, gathered.take()).await?;
                in_flight.push_back(append);
            }
            let room = !(gathered.is_ready() && gathered.is_full());
            // A source waits only while there is nothing to append.
            let pause = if gathered.is_ready() { TAKE_EVERY } else { Duration::ZERO };
            let waiting = Instant::now();
            // Every arm may be dropped: a token, a tick and a pause hold nothing, answered appends stay in the queue, and
            // `Source::gather` promises it. Appends come first, so that they are begun before more is gathered.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                Some(appended) = in_flight.next(), if !in_flight.is_empty() => {
                    self.finish(appended)?;
                    if !room {
                        self.metrics.stalled_seconds.inc_by(waiting.elapsed().as_secs_f64());
                    }
                }
                _ = heartbeat.tick() => {
                    let idle = in_flight.is_empty() && gathered.is_empty();
                    if idle && self.appended_at.elapsed() >= HEARTBEAT / 2 && self.source.mark().is_some() {
                        let append = self.append(producer, Gathered::default()).await?;
                        in_flight.push_back(append);
                    }
                }
                more = async {
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    self.source.gather(gathered, routes).await
                }, if room => more?,
            }
        }
    }

    /// Finds the topics that this source already has, so that the first progress record covers them.
    async fn find_topics(&mut self) -> Result<(), Error> {
        self.ends.clear();
        let retention = Retention::last_of_each_key();
        let progress = progress_topic(&self.options.prefix, self.name);
        let letters = dead_letter_topic(&self.options.prefix);
        self.log
            .create_topics(&[
                TopicSpec { name: progress.as_str().into(), partitions: 1, retention },
                TopicSpec::dead_letters(letters.as_str().into()),
            ])
            .await?;
        let own = format!("{}.{}.", self.options.prefix, self.name);
        for (topic, partitions) in self.log.topics().await? {
            if topic.starts_with(&own) && *topic != *progress {
                self.read_watermarks(&topic, partitions).await?;
            }
        }
        Ok(())
    }

    async fn read_watermarks(&mut self, topic: &Arc<str>, partitions: u32) -> Result<(), Error> {
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let partition = TopicPartition { topic: Arc::clone(topic), partition };
            ends.push(End { records: self.log.watermarks(&partition).await?.high.0, behind: 0 });
        }
        self.ends.insert(topic.to_string(), ends);
        Ok(())
    }

    /// Prepares an append and gives the future that does it. Creates topics that are new.
    async fn append(
        &mut self,
        producer: &Arc<dyn Producer>,
        gathered: Gathered,
    ) -> Result<Pin<Box<dyn Future<Output = Appended> + Send>>, Error> {
        let (events, snapshot_rows) = (gathered.events(), gathered.snapshot_rows());
        let (bytes, last_event_at_micros) = (gathered.bytes() as u64, gathered.last_event_at_micros());
        let mut batches = gathered.batches;
        let mut counted = Vec::with_capacity(batches.len());
        for (at, batch) in batches.iter().enumerate() {
            if !self.ends.contains_key(&*batch.to.topic) {
                let (name, partitions) = (Arc::clone(&batch.to.topic), self.options.partitions.max(1));
                let spec = TopicSpec { name, partitions, retention: self.options.retention.clone() };
                self.log.create_topics(&[spec]).await?;
                self.read_watermarks(&batch.to.topic, partitions).await?;
            }
            if !batch.records.is_empty() {
                let end = self.end_of(&batch.to)?;
                end.records += std::mem::take(&mut end.behind);
                counted.push((at, batch.to.clone(), end.records));
                end.records += producer.offsets_of(batch);
            }
        }
        for batch in batches.iter().filter(|batch| !batch.records.is_empty()) {
            self.end_of(&batch.to)?.behind = producer.offsets_behind();
        }
        let mut letters = gathered.dead_letters;
        for batch in &mut batches {
            letters.extend(self.refused.cut(&**producer, batch).await?);
        }
        let dead_letters = letters.len() as u64;
        batches.extend(self.dead_letter_batch(&letters));
        let mark = self.source.mark();
        batches.extend(mark.as_ref().map(|mark| self.progress_batch(mark)));
        self.appended_at = Instant::now();
        let (producer, begun) = (Arc::clone(producer), self.appended_at);
        Ok(Box::pin(async move {
            let result = producer.append(batches, mark.as_ref().map(|mark| mark.checkpoint.clone())).await;
            Appended { result, counted, mark, events, snapshot_rows, bytes, dead_letters, last_event_at_micros, begun }
        }))
    }

    fn end_of(&mut self, partition: &TopicPartition) -> Result<&mut End, Error> {
        let ends = self.ends.get_mut(&*partition.topic).expect("it was read before the first append");
        let has = ends.len();
        ends.get_mut(partition.partition as usize).ok_or_else(|| partitions_changed(partition, has))
    }

    fn dead_letter_batch(&self, letters: &[DeadLetter]) -> Option<AppendBatch> {
        let mut records = RecordBuffer::default();
        for letter in letters {
            records.push(letter.at_millis, &[], Some(|out: &mut Vec<u8>| write_json(out, letter)));
        }
        let topic = dead_letter_topic(&self.options.prefix).into();
        let to = TopicPartition { topic, partition: 0 };
        (!records.is_empty()).then(|| AppendBatch { to, prelude: Bytes::new(), records })
    }

    fn progress_batch(&self, mark: &Mark) -> AppendBatch {
        let progress = SourceProgress {
            position: mark.position,
            at_micros: mark.at_micros,
            snapshot_done: mark.snapshot_done,
            watermarks: self
                .ends
                .iter()
                .map(|(topic, ends)| (topic.clone(), ends.iter().map(|end| end.records).collect()))
                .collect(),
        };
        let mut records = RecordBuffer::default();
        records.push(now_millis(), b"progress", Some(|out: &mut Vec<u8>| write_json(out, &progress)));
        let topic = progress_topic(&self.options.prefix, self.name).into();
        AppendBatch { to: TopicPartition { topic, partition: 0 }, prelude: Bytes::new(), records }
    }

    /// Takes note of an answer: only now may the source's database forget.
    fn finish(&mut self, appended: Appended) -> Result<(), Error> {
        let offsets = appended.result?;
        for (at, partition, counted) in appended.counted {
            // What progress said is too low: until the next session counts anew, a reader may believe it has everything.
            if let Some(&Offset(found)) = offsets.get(at).filter(|Offset(found)| *found > counted) {
                return Err(Error::Miscounted { partition, counted, found });
            }
        }
        fail::fail_point!("capture::after_append");
        self.progress = true;
        if let Some(mark) = &appended.mark {
            self.source.durable(mark);
            self.metrics.tell_age_of(mark.at_micros);
        }
        if appended.events > 0 {
            self.metrics.append_seconds.observe(appended.begun.elapsed().as_secs_f64());
            self.metrics.batches.inc();
            self.metrics.events.inc_by(appended.events);
            self.metrics.snapshot_rows.inc_by(appended.snapshot_rows);
            self.metrics.bytes.inc_by(appended.bytes);
        }
        self.metrics.dead_letters.inc_by(appended.dead_letters);
        self.status.update(|status| {
            status.events_total += appended.events;
            status.bytes_total += appended.bytes;
            status.dead_letters_total += appended.dead_letters;
            if let Some(mark) = &appended.mark {
                if mark.snapshot_done {
                    status.position = Some(mark.position.to_string());
                }
                status.complete_at_micros = Some(mark.at_micros);
            }
            if appended.last_event_at_micros.is_some() {
                status.last_event_at_micros = appended.last_event_at_micros;
            }
        });
        Ok(())
    }
}

/// Fails when something of this source was captured, though there is no checkpoint of it: every append that tells progress
/// brings a checkpoint. To begin anew would put what comes now below what is there, and none of it would count.
async fn check_first_start(log: &dyn EventLog, prefix: &str, source: &str) -> Result<(), Error> {
    let topic = progress_topic(prefix, source);
    let partition = TopicPartition { topic: topic.as_str().into(), partition: 0 };
    let Watermarks { low: mut offset, high } = log.watermarks(&partition).await?;
    // Offsets alone tell nothing: an append that was undone has some, too.
    while offset < high {
        let from = [FetchFrom { partition: partition.clone(), offset }];
        let fetched = log.fetch(&from, FetchLimits { bytes_max: 1 << 20, wait_max: ANSWER_MAX }).await?;
        if fetched.iter().any(|batch| batch.count() > 0) {
            return Err(checkpoint_lost(source, prefix));
        }
        offset = fetched.last().map(FetchedBatch::next).ok_or_else(|| Error::NotReady {
            problem: format!("the log does not tell what is in topic `{topic}`"),
            remedy: "see how it is doing; this is tried again".into(),
        })?;
    }
    Ok(())
}

fn checkpoint_lost(source: &str, prefix: &str) -> Error {
    Error::Unsafe {
        problem: format!(
            "source `{source}` was captured before, says topic `{}`, and its checkpoint is not there: topic `{prefix}.checkpoints` \
             was lost, if the log is Kafka",
            progress_topic(prefix, source)
        ),
        remedy: "restore it, or choose a new `prefix`, under which all is captured anew".into(),
    }
}

fn partitions_changed(partition: &TopicPartition, has: usize) -> Error {
    Error::Config {
        path: "broker.embedded.partitions or broker.kafka.partitions".into(),
        problem: format!(
            "topic `{}` has {has} partitions, fewer than configured, and rows of one key must stay in one partition: set {has}",
            partition.topic
        ),
    }
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("text keys and plain values always serialise");
}

pub(crate) fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64)
}
