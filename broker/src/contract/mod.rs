//! What every engine promises, as checks: the doc comments of [`EventLog`] and [`Producer`], one function per promise.
#![allow(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

mod append;
mod fetch;
mod groups;
mod removal;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, Producer, RecordBuffer, Retention,
    TopicPartition, TopicSpec,
};

/// How long a check waits for what an engine does in its own time, as retention.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all checks; panics at the first promise that is not kept.
///
/// `open` opens the log of the given name. Logs of different names have nothing in common (if they share a cluster, then
/// neither topics, groups nor producers); a log of a name used before holds what it held, and what `open` answered
/// before has been dropped. Retention and compaction should look for work at least every second.
pub async fn run<F: AsyncFn(&str) -> Arc<dyn EventLog>>(open: F) {
    run_without_removal(&open).await;
    removal::by_age(open("age").await).await;
    removal::by_size(open("size").await).await;
    removal::waits_for_readers(open("readers").await).await;
    removal::compaction_keeps_the_last_of_each_key(open("compact").await).await;
    removal::compaction_forgets_old_tombstones(open("tombstones").await).await;
}

/// [`run`] without the checks of [`Retention`] and compaction, for an engine that removes records much later than they
/// may go, in larger pieces than batches, and whatever groups have not read. It has checks of its own for that.
pub async fn run_without_removal<F: AsyncFn(&str) -> Arc<dyn EventLog>>(open: &F) {
    append::records_come_back_as_appended(open("as_appended").await).await;
    append::appends_in_flight_keep_their_order(open("order").await).await;
    append::an_append_is_all_or_none(open("all_or_none").await).await;
    append::a_failed_append_leaves_no_gap(open("no_gap").await).await;
    append::a_later_producer_shuts_out_the_earlier(open("fencing").await).await;
    append::nameless_appends_shut_nobody_out(open("nameless").await).await;
    append::a_checkpoint_stays_until_replaced(open("checkpoint").await).await;
    append::what_is_answered_is_durable(open).await;
    append::producers_at_once_each_keep_their_order(open("producers").await).await;
    append::a_dropped_append_disturbs_nobody(open("dropped").await).await;
    fetch::begins_at_the_wanted_offset(open("wanted").await).await;
    fetch::stops_at_its_limit(open("limit").await).await;
    fetch::is_fair_among_partitions(open("fair").await).await;
    fetch::waits_for_a_record(open("waits").await).await;
    fetch::misses_no_append_while_it_waits(open("wakes").await).await;
    fetch::refuses_what_is_not_there(open("range").await).await;
    fetch::finds_offsets_by_time(open("time").await).await;
    groups::topics_keep_their_partitions(open("topics").await).await;
    groups::offsets_are_kept_by_group(open("groups").await).await;
    groups::offsets_are_committed_all_or_none(open("offsets").await).await;
    groups::the_only_member_has_everything(open("membership").await).await;
}

/// A record, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    offset: u64,
    timestamp_ms: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

/// A batch of records of (timestamp, key, value).
fn batch(topic: &str, partition: u32, records: &[(i64, &str, Option<&str>)]) -> AppendBatch {
    let mut buffer = RecordBuffer::default();
    for (timestamp_ms, key, value) in records {
        buffer.push(
            *timestamp_ms,
            key.as_bytes(),
            value.map(|value| move |to: &mut Vec<u8>| to.extend_from_slice(value.as_bytes())),
        );
    }
    AppendBatch { to: at(topic, partition), prelude: Bytes::from_static(b"prelude"), records: buffer }
}

/// A batch of records with these values, an empty key and the time 1.
fn values(topic: &str, partition: u32, values: &[&str]) -> AppendBatch {
    let records: Vec<_> = values.iter().map(|value| (1, "", Some(*value))).collect();
    batch(topic, partition, &records)
}

async fn create(log: &dyn EventLog, topic: &str, partitions: u32, retention: Retention) {
    log.create_topics(&[TopicSpec { name: topic.into(), partitions, retention }]).await.unwrap();
}

async fn create_plain(log: &dyn EventLog, topic: &str, partitions: u32) {
    create(log, topic, partitions, Retention::default()).await;
}

async fn append(producer: &Arc<dyn Producer>, batch: AppendBatch) -> Offset {
    let offsets = producer.append(vec![batch], None).await.unwrap();
    assert_eq!(offsets.len(), 1, "one offset per batch");
    offsets[0]
}

async fn fetch_one(
    log: &dyn EventLog,
    topic: &str,
    partition: u32,
    offset: u64,
    bytes_max: usize,
) -> Vec<FetchedBatch> {
    fetch_within(log, topic, partition, offset, bytes_max, Duration::from_secs(5)).await.unwrap()
}

async fn fetch_within(
    log: &dyn EventLog,
    topic: &str,
    partition: u32,
    offset: u64,
    bytes_max: usize,
    wait_max: Duration,
) -> Result<Vec<FetchedBatch>, Error> {
    let from = [FetchFrom { partition: at(topic, partition), offset: Offset(offset) }];
    log.fetch(&from, FetchLimits { bytes_max, wait_max }).await
}

/// Everything in a partition from its low to its high watermark, fetched in small steps.
async fn read_all(log: &dyn EventLog, topic: &str, partition: u32) -> Vec<Record> {
    let ends = log.watermarks(&at(topic, partition)).await.unwrap();
    let (mut next, mut records) = (ends.low.0, Vec::new());
    while next < ends.high.0 {
        let fetched = fetch_one(log, topic, partition, next, 200).await;
        assert!(!fetched.is_empty(), "offset {next} is below the high watermark {}, so there is a record", ends.high.0);
        for batch in fetched {
            assert!(batch.base.0 >= next, "in order");
            let before = records.len();
            records.extend(records_of(&batch));
            assert_eq!(records.len() - before, batch.count() as usize);
            next = batch.next().0;
        }
    }
    records
}

fn records_of(batch: &FetchedBatch) -> Vec<Record> {
    let owned = |record: crate::RecordRef<'_>| Record {
        offset: record.offset.0,
        timestamp_ms: record.timestamp_ms,
        key: record.key.to_vec(),
        value: record.value.map(<[u8]>::to_vec),
    };
    batch.records().map(owned).collect()
}

/// Number of batches that have records.
fn with_records(fetched: &[FetchedBatch]) -> usize {
    fetched.iter().filter(|batch| batch.count() > 0).count()
}

/// The values of records as text.
fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap();
    records.iter().map(text).collect()
}

/// A call under way.
type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Polls every future once, in order; then waits for all.
async fn in_order<T>(mut futures: Vec<Waiting<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        Poll::Ready(())
    })
    .await;
    let mut all = Vec::new();
    for (future, done) in futures.into_iter().zip(done) {
        all.push(match done {
            Some(value) => value,
            None => future.await,
        });
    }
    all
}

/// Asks again and again until the answer is yes.
async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !check().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
