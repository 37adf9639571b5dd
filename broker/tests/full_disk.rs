//! A full disk. Alone in its process: a program that is being started holds for a moment what other tests have locked.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, Offset, RecordBuffer, Retention, TopicPartition, TopicSpec,
};
use headwater_test_servers::on_small_disk;

const VALUE: usize = 50_000;

fn place() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: 0 }
}

/// One record of so many bytes.
fn batch() -> AppendBatch {
    let mut records = RecordBuffer::default();
    records.push(7, b"key", Some(|to: &mut Vec<u8>| to.resize(to.len() + VALUE, b'x')));
    AppendBatch { to: place(), prelude: Bytes::from_static(b"schema"), records }
}

async fn open(folder: &Path) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::open(EmbeddedOptions::new(folder)).unwrap();
    let spec = TopicSpec { name: "t".into(), partitions: 1, retention: Retention::default() };
    log.create_topics(&[spec]).await.unwrap();
    log
}

async fn fill(disk: &Path) {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let other = disk.join("other");
    std::fs::write(&other, vec![1; 3 << 20]).unwrap();
    let log = open(folder.path()).await;
    let producer = log.producer("p").await.unwrap();
    let mut full = 0;
    let refused = loop {
        match producer.append(vec![batch()], Some(Bytes::from(full.to_string()))).await {
            Ok(offsets) => assert_eq!(offsets, [Offset(full)]),
            Err(refused) => break refused,
        }
        full += 1;
    };
    assert!(matches!(refused, Error::Full { .. }) && full > 40, "after {full}: {refused}");
    assert_eq!(log.watermarks(&place()).await.unwrap().high, Offset(full));
    std::fs::remove_file(other).unwrap();
    drop(producer);
    let producer = log.producer("p").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap(), Some(Bytes::from((full - 1).to_string())));
    for next in full..full + 20 {
        assert_eq!(producer.append(vec![batch()], None).await.unwrap(), [Offset(next)]);
    }
    drop((log, producer));
    let log = open(folder.path()).await;
    let (mut next, limits) = (0, FetchLimits { bytes_max: 1 << 20, wait_max: Duration::ZERO });
    while next < full + 20 {
        for batch in log.fetch(&[FetchFrom { partition: place(), offset: Offset(next) }], limits).await.unwrap() {
            assert!(batch.records().all(|record| record.value.is_some_and(|value| value.len() == VALUE)));
            next = batch.next().0;
        }
    }
    assert_eq!(next, full + 20);
}

#[test]
fn a_full_disk_stops_cleanly_and_goes_on_when_there_is_room() {
    on_small_disk("a_full_disk_stops_cleanly_and_goes_on_when_there_is_room", 8, |disk| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(fill(disk));
    });
}
