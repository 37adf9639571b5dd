//! The broker that the tests share, and what they do with it.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::{
    AppendBatch, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, RecordBuffer, Retention, TopicPartition,
    TopicSpec,
};
use headwater_test_servers::Kafka;

/// Keeps the broker of this process, which static variables would never drop: it is stopped at the exit.
static BROKER: OnceLock<Mutex<Kafka>> = OnceLock::new();

pub(crate) fn broker() -> &'static Mutex<Kafka> {
    BROKER.get_or_init(|| {
        let options = headwater_test_servers::KafkaOptions { secured: true, ..Default::default() };
        let options = options
            .setting("log.retention.check.interval.ms", "200")
            .setting("log.initial.task.delay.ms", "500")
            .setting("log.cleaner.backoff.ms", "200")
            .setting("log.segment.delete.delay.ms", "100");
        Mutex::new(Kafka::start_with(&options))
    })
}

/// Options for the shared broker; topics of the engine itself begin with `prefix`.
pub(crate) fn options(prefix: &str) -> KafkaOptions {
    let bootstrap = broker().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).bootstrap();
    let mut options = KafkaOptions::new(bootstrap);
    options.prefix = prefix.into();
    options
}

pub(crate) fn log(prefix: &str) -> Arc<KafkaLog> {
    KafkaLog::open(options(prefix)).unwrap()
}

pub(crate) fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

pub(crate) async fn create(log: &dyn EventLog, topic: &str, partitions: u32, retention: Retention) {
    log.create_topics(&[TopicSpec { name: topic.into(), partitions, retention }]).await.unwrap();
}

/// A batch of records with these values and the time 1.
pub(crate) fn values(topic: &str, partition: u32, values: &[&str]) -> AppendBatch {
    let mut records = RecordBuffer::default();
    for value in values {
        records.push(1, b"key", Some(|out: &mut Vec<u8>| out.extend_from_slice(value.as_bytes())));
    }
    AppendBatch { to: at(topic, partition), prelude: Bytes::new(), records }
}

pub(crate) async fn fetch(log: &dyn EventLog, topic: &str, offset: u64, wait_max: Duration) -> Vec<FetchedBatch> {
    let from = [FetchFrom { partition: at(topic, 0), offset: Offset(offset) }];
    log.fetch(&from, FetchLimits { bytes_max: 4 << 20, wait_max }).await.unwrap()
}

/// All batches of partition 0 with records.
pub(crate) async fn read_all(log: &dyn EventLog, topic: &str) -> Vec<FetchedBatch> {
    let marks = log.watermarks(&at(topic, 0)).await.unwrap();
    let (mut next, mut all) = (marks.low, Vec::new());
    while next < marks.high {
        let fetched = fetch(log, topic, next.0, Duration::from_secs(10)).await;
        next = fetched.last().expect("there is more below the high watermark").next();
        all.extend(fetched.into_iter().filter(|batch| batch.count() > 0));
    }
    all
}

pub(crate) fn texts(batches: &[FetchedBatch]) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
    batches.iter().flat_map(|batch| batch.records().map(|record| text(record.value)).collect::<Vec<_>>()).collect()
}
