//! What the embedded log acknowledged survives a kill at any moment.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{
    AppendBatch, EventLog, FetchFrom, FetchLimits, Offset, RecordBuffer, Retention, TopicPartition, TopicSpec,
};

/// Set in the process that is killed: the folder of its log.
const VICTIM: &str = "HEADWATER_TEST_KILL_FOLDER";
const KILLS: u32 = 15;

/// Every append adds the same records to both; `compacted` has few keys, so that it is rewritten all the time.
const TOPICS: [(&str, bool); 2] = [("plain", false), ("compacted", true)];

fn open(folder: &Path) -> Arc<EmbeddedLog> {
    let mut options = EmbeddedOptions::new(folder);
    options.maintenance_interval = Duration::from_millis(1);
    EmbeddedLog::open(options).unwrap()
}

fn at(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

/// Appends for ever, from where the checkpoint says; prints each number once its append is acknowledged.
async fn append_for_ever(folder: &Path) {
    let log = open(folder);
    let spec = |(name, compact): (&str, bool)| TopicSpec {
        name: name.into(),
        partitions: 1,
        retention: Retention { compact, ..Retention::default() },
    };
    log.create_topics(&TOPICS.map(spec)).await.unwrap();
    let producer = log.producer("victim").await.unwrap();
    let checkpoint = producer.checkpoint().await.unwrap();
    let mut number = checkpoint.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
    loop {
        // Several in flight, so that kills also meet groups.
        let appends = (0..4).map(|ahead| {
            let number = number + ahead;
            let batches = TOPICS.map(|(topic, _)| {
                let mut records = RecordBuffer::default();
                for key in 0..=number % 3 {
                    let value = |to: &mut Vec<u8>| to.extend_from_slice(&number.to_le_bytes());
                    records.push(1, &[key as u8], Some(value));
                    records.push(1, &[(number % 50) as u8], Some(value));
                }
                AppendBatch { to: at(topic), prelude: Bytes::new(), records }
            });
            let (producer, checkpoint) = (producer.clone(), Bytes::copy_from_slice(&(number + 1).to_le_bytes()));
            async move { producer.append(batches.into(), Some(checkpoint)).await.unwrap() }
        });
        let mut appends: Vec<_> = appends.map(Box::pin).collect();
        let first = std::future::poll_fn(|context| {
            use std::future::Future as _;
            let ready = appends.iter_mut().map(|append| append.as_mut().poll(context).is_ready());
            std::task::Poll::Ready(ready.collect::<Vec<_>>())
        });
        for (ready, append) in first.await.into_iter().zip(appends) {
            if !ready {
                append.await;
            }
            println!("acknowledged {number}");
            number += 1;
        }
    }
}

async fn read_all(log: &EmbeddedLog, topic: &str) -> Vec<(u64, Vec<u8>, u64)> {
    let high = log.watermarks(&at(topic)).await.unwrap().high;
    let (mut next, mut records) = (Offset(0), Vec::new());
    while next < high {
        let from = [FetchFrom { partition: at(topic), offset: next }];
        let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::ZERO };
        let fetched = log.fetch(&from, limits).await.unwrap();
        assert!(!fetched.is_empty());
        for batch in fetched {
            assert_eq!(batch.records().count(), batch.count() as usize);
            let owned = batch.records().map(|record| {
                (record.offset.0, record.key.to_vec(), u64::from_le_bytes(record.value.unwrap().try_into().unwrap()))
            });
            records.extend(owned);
            next = batch.next();
        }
    }
    records
}

/// Checks the log against what was acknowledged; answers how many appends it holds.
async fn check(folder: &Path, acknowledged: Option<u64>) -> u64 {
    let log = open(folder);
    let producer = log.producer("checker of the victim").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap(), None);
    let victim = log.producer("victim").await.unwrap();
    let checkpoint = victim.checkpoint().await.unwrap();
    let appends = checkpoint.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
    assert!(
        acknowledged.is_none_or(|number| number < appends),
        "{acknowledged:?} was acknowledged, {appends} are there"
    );
    if log.topics().await.unwrap().is_empty() {
        assert_eq!(appends, 0);
        return 0;
    }
    let mut expected = Vec::new();
    for number in 0..appends {
        for key in 0..=number % 3 {
            expected.push((expected.len() as u64, vec![key as u8], number));
            expected.push((expected.len() as u64, vec![(number % 50) as u8], number));
        }
    }
    assert!(read_all(&log, "plain").await == expected, "the records are those that the checkpoint says");
    let compacted = read_all(&log, "compacted").await;
    let all: HashSet<_> = expected.iter().collect();
    assert!(compacted.iter().all(|record| all.contains(record)), "every record is one that was appended, in its place");
    let mut missing = std::collections::HashMap::new();
    for (offset, key, _) in &expected {
        missing.insert(key, offset);
    }
    for (offset, key, _) in &compacted {
        if missing.get(key) == Some(&offset) {
            missing.remove(key);
        }
    }
    assert!(missing.is_empty(), "the last record of each key stays");
    assert!(compacted.is_sorted_by_key(|record| record.0));
    appends
}

/// Kills its process when the test fails.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        return append_for_ever(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut appends = 0;
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    println!("random {random}");
    for kill in 0..KILLS {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_kills", "--nocapture"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut victim = Victim(child);
        let output = BufReader::new(victim.0.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let numbers = output.lines().map_while(Result::ok);
            numbers.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()).last()
        });
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The first ones early, to meet the opening too.
        tokio::time::sleep(Duration::from_millis((random >> 33) % if kill < 5 { 60 } else { 400 })).await;
        drop(victim);
        let acknowledged = reader.join().unwrap();
        let now = check(folder.path(), acknowledged).await;
        assert!(now >= appends, "nothing goes away");
        appends = now;
    }
    assert!(appends > 0, "the kills left no time to append anything");
}
