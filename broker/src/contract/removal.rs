//! Promises of retention and compaction.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

const OLD: i64 = 1_000_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

async fn low(log: &dyn EventLog, topic: &str) -> u64 {
    log.watermarks(&at(topic, 0)).await.unwrap().low.0
}

pub(super) async fn by_age(log: Arc<dyn EventLog>) {
    let hour = Some(Duration::from_secs(3600));
    create(&*log, "t", 1, Retention { age_max: hour, ..Retention::default() }).await;
    create_plain(&*log, "kept", 1).await;
    let producer = log.producer("p").await.unwrap();
    append(&producer, batch("kept", 0, &[(OLD, "k", Some("old"))])).await;
    append(&producer, batch("t", 0, &[(OLD, "k", Some("old")), (OLD, "k", Some("old"))])).await;
    append(&producer, batch("t", 0, &[(OLD, "k", Some("old with young")), (now_ms(), "k", Some("young"))])).await;
    append(&producer, batch("t", 0, &[(OLD, "k", Some("old behind young"))])).await;
    eventually("the old batch is removed", async || low(&*log, "t").await == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["old with young", "young", "old behind young"]);
    assert_eq!(texts(&read_all(&*log, "kept", 0).await), ["old"]);
    let below = fetch_within(&*log, "t", 0, 1, 1000, Duration::ZERO).await;
    assert!(matches!(below, Err(Error::OffsetOutOfRange { wanted: 1, low: 2, high: 5, .. })), "{below:?}");
    assert_eq!(log.offset_at(&at("t", 0), 0).await.unwrap(), Offset(2));
    create(&*log, "t", 1, Retention { age_max: Some(Duration::ZERO), ..Retention::default() }).await;
    eventually("an existing topic takes over the retention", async || low(&*log, "t").await == 5).await;
    assert_eq!(append(&producer, batch("t", 0, &[(now_ms() + 3_600_000, "k", Some("new"))])).await, Offset(5));
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["new"], "an emptied partition goes on at its offset");
}

pub(super) async fn by_size(log: Arc<dyn EventLog>) {
    create(&*log, "t", 1, Retention { bytes_max: Some(5000), ..Retention::default() }).await;
    let producer = log.producer("p").await.unwrap();
    let value = "x".repeat(1000 - 16);
    for _ in 0..20 {
        append(&producer, values("t", 0, &[&value])).await;
    }
    eventually("the oldest are removed", async || low(&*log, "t").await == 15).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(read_all(&*log, "t", 0).await.len(), 5, "the limit itself stays");
}

pub(super) async fn waits_for_readers(log: Arc<dyn EventLog>) {
    let none = Retention { age_max: Some(Duration::ZERO), bytes_max: Some(0), compact: false };
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    for _ in 0..10 {
        append(&producer, batch("t", 0, &[(OLD, "k", Some("v")), (OLD, "k", Some("v"))])).await;
    }
    log.commit_offsets("slow", &[(at("t", 0), Offset(7))]).await.unwrap();
    log.commit_offsets("fast", &[(at("t", 0), Offset(20))]).await.unwrap();
    create(&*log, "t", 1, none).await;
    eventually("what all have read is removed", async || low(&*log, "t").await == 6).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(low(&*log, "t").await, 6, "and nothing that one has not read");
    log.commit_offsets("slow", &[(at("t", 0), Offset(12))]).await.unwrap();
    eventually("more follows when it is read", async || low(&*log, "t").await == 12).await;
    log.forget_offsets("slow", &[at("t", 0)]).await.unwrap();
    assert_eq!(log.committed_offsets("slow").await.unwrap(), []);
    eventually("the rest follows when it is not wanted", async || low(&*log, "t").await == 20).await;
}

const PAD: &[u8] = b"pad";

/// Appends records that say nothing, all but the last of them soon overwritten: engines compact when that is worth while,
/// and never the newest records.
async fn pad(producer: &Arc<dyn Producer>) {
    append(producer, batch("t", 0, &[(OLD, "pad", Some("")); 100])).await;
}

pub(super) async fn compaction_keeps_the_last_of_each_key(log: Arc<dyn EventLog>) {
    create(&*log, "t", 1, Retention { compact: true, ..Retention::default() }).await;
    let producer = log.producer("p").await.unwrap();
    let mut all = Vec::new();
    // Keys return at different distances, so that batches keep all, some or none of their records.
    for turn in 0..60_u32 {
        let keys: Vec<String> = (0..20).map(|n| format!("{}", (turn * 7 + n * n) % (3 + n * 5))).collect();
        let texts: Vec<String> = (0..20).map(|n| format!("{turn} {n}")).collect();
        let values = keys.iter().zip(&texts).enumerate();
        let records: Vec<_> =
            values.map(|(n, (key, text))| (OLD, key.as_str(), (n % 9 != 0).then_some(text.as_str()))).collect();
        append(&producer, batch("t", 0, &records)).await;
        all.extend(records.iter().map(|record| (record.1.to_owned(), record.2.map(str::to_owned))));
    }
    append(&producer, batch("t", 0, &[(OLD, "tail", Some("tail"))])).await;
    let mut last = std::collections::BTreeMap::new();
    for (offset, (key, value)) in all.iter().enumerate() {
        last.insert(key.clone(), (offset as u64, value.clone()));
    }
    last.insert("tail".to_owned(), (1200, Some("tail".to_owned())));
    let kept = async || {
        pad(&producer).await;
        let mut records = read_all(&*log, "t", 0).await;
        records.retain(|record| record.key != PAD);
        records
    };
    eventually("what was overwritten is removed", async || kept().await.len() <= last.len()).await;
    for record in kept().await {
        let key = String::from_utf8(record.key).unwrap();
        let value = record.value.map(|value| String::from_utf8(value).unwrap());
        assert_eq!(last.remove(&key), Some((record.offset, value)), "the last record of `{key}`, at its offset");
    }
    assert!(last.is_empty(), "without their last record: {last:?}");
    // A reader that stood in a gap goes on behind it.
    let first = fetch_one(&*log, "t", 0, 0, 1).await;
    assert!(first[0].base.0 > 0);
    let high = log.watermarks(&at("t", 0)).await.unwrap().high;
    assert_eq!(append(&producer, values("t", 0, &["next"])).await, high, "removing does not move the end");
}

pub(super) async fn compaction_forgets_old_tombstones(log: Arc<dyn EventLog>) {
    let hour = Some(Duration::from_secs(3600));
    create(&*log, "t", 1, Retention { age_max: hour, bytes_max: Some(1), compact: true }).await;
    let producer = log.producer("p").await.unwrap();
    append(&producer, batch("t", 0, &[(OLD, "a", Some("1")), (OLD, "b", Some("2")), (OLD, "c", Some("3"))])).await;
    append(&producer, batch("t", 0, &[(OLD, "a", None), (now_ms(), "b", None)])).await;
    append(&producer, batch("t", 0, &[(OLD, "d", Some("4")), (OLD, "d", None)])).await;
    append(&producer, batch("t", 0, &[(OLD, "tail", Some("5"))])).await;
    let keys = async || -> Vec<String> {
        pad(&producer).await;
        let mut records = read_all(&*log, "t", 0).await;
        records.retain(|record| record.key != PAD);
        records.into_iter().map(|record| String::from_utf8(record.key).unwrap()).collect()
    };
    eventually("old tombstones go, young ones and old values stay", async || keys().await == ["c", "b", "tail"]).await;
}
