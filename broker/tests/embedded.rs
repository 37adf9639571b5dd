//! The embedded engine: what is particular to it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, Offset, RecordBuffer, Retention, TopicPartition, TopicSpec,
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
async fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let second = EmbeddedLog::open(EmbeddedOptions::new(folder.path()));
    assert!(matches!(second, Err(Error::InUse { .. })));
    drop(log);
    open(folder.path()).await;
}
