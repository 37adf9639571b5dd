//! The embedded engine: what is particular to it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, Offset, Producer, RecordBuffer, Retention, TopicPartition,
    TopicSpec,
};

fn at(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

fn batch(topic: &str, values: &[&str]) -> AppendBatch {
    let mut records = RecordBuffer::default();
    for value in values {
        records.push(7, b"key", Some(|to: &mut Vec<u8>| to.extend_from_slice(value.as_bytes())));
    }
    AppendBatch { to: at(topic), prelude: Bytes::from_static(b"schema"), records }
}

async fn open(folder: &std::path::Path) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::open(EmbeddedOptions::new(folder)).unwrap();
    let spec = TopicSpec { name: "t".into(), partitions: 1, retention: Retention::default() };
    log.create_topics(&[spec]).await.unwrap();
    log
}

#[tokio::test]
async fn what_was_appended_is_read_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    let checkpoint = Bytes::from_static(b"here");
    let offsets = producer.append(vec![batch("t", &["a", "b", "c"])], Some(checkpoint.clone())).await.unwrap();
    assert_eq!(offsets, [Offset(0)]);
    drop((log, producer));
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap(), Some(checkpoint));
    let from = [FetchFrom { partition: at("t"), offset: Offset(1) }];
    let limits = FetchLimits { bytes_max: 1000, wait_max: Duration::ZERO };
    let fetched = log.fetch(&from, limits).await.unwrap();
    assert_eq!(fetched.len(), 1);
    assert_eq!((fetched[0].base, fetched[0].count(), &fetched[0].prelude[..]), (Offset(1), 2, &b"schema"[..]));
    let values: Vec<_> = fetched[0].records().map(|record| record.value.unwrap().to_vec()).collect();
    assert_eq!(values, [b"b", b"c"]);
}

#[tokio::test]
async fn a_log_keeps_its_id_and_no_other_log_has_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = open(folder.path()).await.id().await.unwrap();
    assert!(id.is_some());
    assert_eq!(open(folder.path()).await.id().await.unwrap(), id);
    assert_ne!(open(other.path()).await.id().await.unwrap(), id);
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let second = EmbeddedLog::open(EmbeddedOptions::new(folder.path()));
    assert!(matches!(second, Err(Error::InUse { .. })));
    drop(log);
    open(folder.path()).await;
}

/// Appends batches until one is refused; answers how many were not.
async fn fill(producer: &Arc<dyn Producer>, batch: &AppendBatch) -> u64 {
    for appended in 0.. {
        match producer.append(vec![batch.clone()], Some(Bytes::from(appended.to_string()))).await {
            Ok(offsets) => assert_eq!(offsets, [Offset(appended)]),
            Err(Error::Full { .. }) => return appended,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("a log of a few megabytes is full at some time")
}

#[tokio::test]
async fn a_full_log_stops_cleanly_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(folder.path());
    options.size_max = 4 << 20;
    options.maintenance_interval = Duration::from_millis(10);
    let log = EmbeddedLog::open(options).unwrap();
    let spec = |retention| [TopicSpec { name: "t".into(), partitions: 1, retention }];
    log.create_topics(&spec(Retention::default())).await.unwrap();
    let producer = log.producer("p").await.unwrap();
    let text = "x".repeat(50_000);
    let large = batch("t", &[&text]);
    let full = fill(&producer, &large).await;
    assert!(full > 40, "{full}");
    let again = producer.append(vec![batch("t", &["small"])], None).await;
    assert!(matches!(again, Err(Error::Broken { .. })), "a gap would be left: {again:?}");
    assert_eq!(log.watermarks(&at("t")).await.unwrap().high, Offset(full), "nothing of it is there");
    let producer = log.producer("p").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap(), Some(Bytes::from((full - 1).to_string())));
    assert!(matches!(producer.append(vec![large.clone()], None).await, Err(Error::Full { .. })));
    // Consumers can still say what they have read, which is what makes room.
    log.commit_offsets("g", &[(at("t"), Offset(full / 2))]).await.unwrap();
    log.create_topics(&spec(Retention { bytes_max: Some(1), ..Retention::default() })).await.unwrap();
    while log.watermarks(&at("t")).await.unwrap().low < Offset(full / 2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let producer = log.producer("p").await.unwrap();
    // Removed pages are used again, for as long as one likes.
    for next in full..full + 500 {
        assert_eq!(producer.append(vec![large.clone()], None).await.unwrap(), [Offset(next)]);
        log.commit_offsets("g", &[(at("t"), Offset(next))]).await.unwrap();
        while log.watermarks(&at("t")).await.unwrap().low.0 + 30 < next {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let file = std::fs::metadata(folder.path().join("data.mdb")).unwrap().len();
    assert!(file < 10 << 20, "the file has {file} bytes");
}

#[tokio::test]
async fn an_append_larger_than_the_log_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(folder.path());
    options.size_max = 1 << 20;
    let log = EmbeddedLog::open(options).unwrap();
    let spec = TopicSpec { name: "t".into(), partitions: 1, retention: Retention::default() };
    log.create_topics(&[spec]).await.unwrap();
    let (large, small) = (log.producer("large").await.unwrap(), log.producer("small").await.unwrap());
    let text = "x".repeat(2 << 20);
    let too_large = vec![batch("t", &["a"]), batch("t", &[&text])];
    let few = vec![batch("t", &["b"])];
    let (refused, kept) = tokio::join!(large.append(too_large, None), small.append(few, None));
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!(kept.unwrap(), [Offset(0)]);
}

#[tokio::test]
async fn closing_finishes_what_waits_and_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    let first = producer.append(vec![batch("t", &["a"])], None);
    let from = [FetchFrom { partition: at("t"), offset: Offset(1) }];
    let long = FetchLimits { bytes_max: 1, wait_max: Duration::MAX };
    let (first, closed, waiting) = tokio::join!(first, log.close(), log.fetch(&from, long));
    assert_eq!(first.unwrap(), [Offset(0)]);
    closed.unwrap();
    assert!(matches!(waiting, Err(Error::OffsetOutOfRange { .. } | Error::Closed)), "{waiting:?}");
    assert!(matches!(producer.append(vec![batch("t", &["b"])], None).await, Err(Error::Closed)));
    assert!(matches!(log.fetch(&from, long).await, Err(Error::Closed)), "nothing will come any more");
}

#[tokio::test]
async fn metrics_tell_the_watermarks() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    producer.append(vec![batch("t", &["a", "b"])], None).await.unwrap();
    drop((log, producer));
    let log = open(folder.path()).await;
    let mut registry = prometheus_client::registry::Registry::default();
    log.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = r#"headwater_log_high_watermark{topic="t",partition="0"} 2"#;
    assert!(text.lines().any(|found| found == line), "also right after opening:\n{text}");
}

/// Run by hand: `cargo test -p headwater-broker --test embedded -- --ignored --nocapture cost`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_an_append() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    let text = "x".repeat(150 - 16 - 3);
    let batch = batch("t", &[text.as_str(); 1000]);
    for in_flight in [1, 8] {
        let rounds = 2000 / in_flight;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            let appends = (0..in_flight).map(|_| {
                let (producer, batch) = (producer.clone(), batch.clone());
                tokio::spawn(async move { producer.append(vec![batch], None).await.unwrap() })
            });
            for append in appends.collect::<Vec<_>>() {
                append.await.unwrap();
            }
        }
        let records = rounds * in_flight * 1000;
        println!(
            "{in_flight} in flight: {:.3} µs per record",
            start.elapsed().as_secs_f64() * 1e6 / f64::from(records)
        );
    }
    let (mut next, start) = (0, std::time::Instant::now());
    let high = log.watermarks(&at("t")).await.unwrap().high.0;
    while next < high {
        let from = [FetchFrom { partition: at("t"), offset: Offset(next) }];
        let limits = FetchLimits { bytes_max: 4 << 20, wait_max: Duration::ZERO };
        next = log.fetch(&from, limits).await.unwrap().last().unwrap().next().0;
    }
    println!("fetch: {:.3} µs per record", start.elapsed().as_secs_f64() * 1e6 / high as f64);
}
