//! What an operator sees: checks instead of creation, settings, errors with their remedy.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::kafka::KafkaLog;
use headwater_broker::{
    AppendBatch, Error, ErrorKind, EventLog, FetchFrom, FetchLimits, Offset, RecordBuffer, Retention, TopicSpec,
};
use rand::RngCore;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};

use crate::world::{at, create, log, options, values};

fn spec(name: &str, partitions: u32, compact: bool) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention: Retention { compact, ..Retention::default() } }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_checked_where_creation_is_forbidden() {
    let mut options = options("forbidden");
    options.create_topics = false;
    let checking = KafkaLog::open(options).unwrap();
    let error = checking.check().await.unwrap_err().to_string();
    assert!(error.contains("`forbidden.checkpoints` does not exist"), "{error}");
    assert!(error.contains("kafka-topics.sh --bootstrap-server 127.0.0.1:"), "{error}");
    assert!(error.contains("--config cleanup.policy=compact"), "{error}");
    let making = log("forbidden");
    making.check().await.unwrap();
    checking.check().await.unwrap();
    create(&*making, "forbidden.t", 2, Retention::default()).await;
    checking.create_topics(&[spec("forbidden.t", 2, false)]).await.unwrap();
    let error = checking.create_topics(&[spec("forbidden.t", 4, false)]).await.unwrap_err();
    assert!(error.is_refusal(), "an operator mends it while we run");
    let error = error.to_string();
    assert!(error.contains("too few partitions: 2, and 4 are wanted"), "{error}");
    assert!(error.contains("--alter --topic forbidden.t --partitions 4"), "{error}");
    let error = checking.create_topics(&[spec("forbidden.t", 2, true)]).await.unwrap_err().to_string();
    assert!(error.contains("has cleanup.policy=delete, and compact is wanted"), "{error}");
    assert!(error.contains("--add-config cleanup.policy=compact"), "{error}");
}

/// A day after them, the ends of transactions may go from the topics of the engine itself, also from those that an earlier
/// version made, or its command.
#[tokio::test(flavor = "multi_thread")]
async fn ends_of_transactions_can_be_removed_from_our_own_topics() {
    let mut options = options("ends");
    let making = log("ends");
    making.check().await.unwrap();
    let servers = options.bootstrap_servers.clone();
    for topic in ["ends.checkpoints", "ends.schemas"] {
        assert_eq!(setting_of(&servers, topic, "delete.retention.ms").await, "86400000");
    }
    let admin: AdminClient<_> = rdkafka::ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
    let for_ever = i64::MAX.to_string();
    let alter = AlterConfig::new(ResourceSpecifier::Topic("ends.checkpoints"))
        .set("delete.retention.ms", &for_ever)
        .set("cleanup.policy", "compact");
    admin.alter_configs([&alter], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    options.create_topics = false;
    let checking = KafkaLog::open(options).unwrap();
    let error = checking.check().await.unwrap_err().to_string();
    assert!(error.contains(&format!("`ends.checkpoints` has delete.retention.ms={for_ever}")), "{error}");
    assert!(error.contains("--entity-name ends.checkpoints --add-config delete.retention.ms=86400000"), "{error}");
    making.check().await.unwrap();
    checking.check().await.unwrap();
    assert_eq!(setting_of(&servers, "ends.checkpoints", "delete.retention.ms").await, "86400000");
}

async fn setting_of(servers: &str, topic: &str, name: &str) -> String {
    let admin: AdminClient<_> = rdkafka::ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
    found.into_iter().next().unwrap().unwrap().get(name).unwrap().value.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_taken_over_and_other_settings_stay() {
    let mut options = options("settings");
    options.topic_settings = [("segment.ms".to_owned(), "123456".to_owned())].into();
    let log = KafkaLog::open(options).unwrap();
    create(&*log, "settings.t", 1, Retention::default()).await;
    let day =
        Retention { age_max: Some(std::time::Duration::from_secs(86_400)), bytes_max: Some(1 << 30), compact: false };
    create(&*log, "settings.t", 1, day).await;
    let admin: rdkafka::admin::AdminClient<_> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", crate::world::options("settings").bootstrap_servers)
        .create()
        .unwrap();
    let topic = rdkafka::admin::ResourceSpecifier::Topic("settings.t");
    let found = admin.describe_configs([&topic], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let found = found.into_iter().next().unwrap().unwrap();
    let value = |name: &str| found.get(name).unwrap().value.clone().unwrap();
    assert_eq!(value("retention.ms"), "86400000");
    assert_eq!(value("retention.bytes"), (1 << 30).to_string());
    assert_eq!(value("cleanup.policy"), "delete");
    assert_eq!(value("segment.ms"), "123456", "what was set before is still set");
    assert_eq!(value("max.message.bytes"), (64 << 20).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_the_cluster_refuses_are_told_with_their_topic() {
    let mut options = options("refusing");
    options.topic_settings = [("segment.bytes".to_owned(), "few".to_owned())].into();
    let error = KafkaLog::open(options).unwrap().check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable);
    let (error, cause) = (error.to_string(), std::error::Error::source(&error).map(ToString::to_string));
    let told = format!("{error} {}", cause.unwrap_or_default());
    assert!(told.contains("`refusing.") && told.contains("segment.bytes=few"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_copies_wait_for_all_but_one_of_them() {
    let mut options = options("copies");
    options.create_topics = false;
    options.replication_factor = Some(3);
    let error = KafkaLog::open(options.clone()).unwrap().check().await.unwrap_err().to_string();
    assert!(error.contains("--replication-factor 3 "), "{error}");
    assert!(error.contains("--config min.insync.replicas=2"), "{error}");

    // There is one broker here: a topic can have one copy, and nothing is to be set.
    options.create_topics = true;
    options.replication_factor = Some(1);
    KafkaLog::open(options.clone()).unwrap().check().await.unwrap();
    assert!(!has_in_sync_of_its_own(&options.bootstrap_servers, "copies.checkpoints").await);
    options.topic_settings = [("min.insync.replicas".to_owned(), "1".to_owned())].into();
    create(&*KafkaLog::open(options.clone()).unwrap(), "copies.t", 1, Retention::default()).await;
    let is_set = has_in_sync_of_its_own(&options.bootstrap_servers, "copies.t").await;
    assert!(is_set, "what the options say is set");
}

/// Whether `min.insync.replicas` was set for this topic.
async fn has_in_sync_of_its_own(servers: &str, topic: &str) -> bool {
    let admin: AdminClient<_> = rdkafka::ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
    let found = found.into_iter().next().unwrap().unwrap();
    found.get("min.insync.replicas").unwrap().source == ConfigSource::DynamicTopic
}

/// Whoever refuses it: the broker, or the client, whose queue would never have room for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_told_with_its_size_and_the_settings() {
    let mut small = options("too-large");
    small.topic_settings = [("max.message.bytes".to_owned(), "100000".to_owned())].into();
    let mut short = options("too-large");
    short.settings = [("queue.buffering.max.kbytes".to_owned(), "512".to_owned())].into();
    let mut bytes = vec![0; 1_000_000];
    rand::rng().fill_bytes(&mut bytes);
    let mut records = RecordBuffer::default();
    records.push(1, b"small", Some(|out: &mut Vec<u8>| out.extend_from_slice(b"small")));
    records.push(1, b"large", Some(|out: &mut Vec<u8>| out.extend_from_slice(&bytes)));
    for options in [small, short] {
        let log = KafkaLog::open(options).unwrap();
        create(&*log, "too-large.t", 1, Retention::default()).await;
        let batches =
            || vec![AppendBatch { to: at("too-large.t", 0), prelude: Bytes::new(), records: records.clone() }];
        let begun = Instant::now();
        let named = log.producer("too-large").await.unwrap().append(batches(), None).await.unwrap_err();
        let nameless = log.append(batches()).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20), "known at once");
        for error in [named, nameless] {
            let is_told = matches!(&error, Error::TooLarge { topic, bytes: 1_000_005 } if topic == "too-large.t");
            assert!(is_told, "{error}");
            let error = error.to_string();
            for told in
                ["`too-large.t`", "1000005", "max.message.bytes", "message.max.bytes", "queue.buffering.max.kbytes"]
            {
                assert!(error.contains(told), "{told}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn settings_that_would_break_promises_are_refused() {
    let mut options = options("refused");
    options.settings = [("isolation.level".to_owned(), "read_uncommitted".to_owned())].into();
    let error = KafkaLog::open(options.clone()).err().unwrap().to_string();
    assert!(error.contains("isolation.level") && error.contains("set by Headwater"), "{error}");
    options.settings = [("no.such.setting".to_owned(), "1".to_owned())].into();
    let error = KafkaLog::open(options.clone()).err().unwrap();
    assert!(matches!(&error, Error::Setting { name, .. } if name == "no.such.setting"), "{error}");
    options.settings =
        [("linger.ms".to_owned(), "7".to_owned()), ("fetch.wait.max.ms".to_owned(), "50".to_owned())].into();
    KafkaLog::open(options).unwrap().check().await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_with_the_servers() {
    let mut options = headwater_broker::kafka::KafkaOptions::new("127.0.0.1:9");
    options.request_timeout = std::time::Duration::from_secs(2);
    let log = KafkaLog::open(options).unwrap();
    let error = log.topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable);
    let error = error.to_string();
    assert!(error.contains("Kafka at 127.0.0.1:9 does not answer"), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
}

/// A topic that somebody removed while it was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_is_told_with_what_to_do() {
    let options = options("gone");
    let log = log("gone");
    create(&*log, "gone.t", 1, Retention::default()).await;
    log.append(vec![values("gone.t", 0, &["a"])]).await.unwrap();
    let from = [FetchFrom { partition: at("gone.t", 0), offset: Offset(0) }];
    let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::from_millis(200) };
    log.fetch(&from, limits).await.unwrap();
    let admin: AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.bootstrap_servers).create().unwrap();
    admin.delete_topics(&["gone.t"], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let begun = Instant::now();
    let error = loop {
        log.topics().await.unwrap();
        match log.fetch(&from, limits).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(30), "it is not told"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::UnknownTopic { topic } if topic == "gone.t"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let error = error.to_string();
    assert!(
        error.contains("was it removed") && error.contains("out of the connector's `tables` for one start"),
        "{error}"
    );
}
