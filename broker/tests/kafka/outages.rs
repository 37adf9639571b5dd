//! A broker of its own that is killed, and a producer that was stopped for too long.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::{Error, ErrorKind, EventLog, Retention};
use headwater_test_servers::Kafka;

use crate::world::{at, create, read_all, texts, values};

/// What was answered is there after a kill; what was not answered is there as a whole or not at all, and the checkpoint
/// tells which; writers and readers go on when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing() {
    let mut kafka = Kafka::start();
    let mut options = KafkaOptions::new(kafka.bootstrap());
    options.request_timeout = Duration::from_secs(3);
    // Short enough for appends to fail; by default they outlast so short an outage.
    let short = [("message.timeout.ms", "1500"), ("transaction.timeout.ms", "3000")];
    options.settings = short.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let log = KafkaLog::open(options).unwrap();
    create(&*log, "t", 1, Retention::default()).await;
    let writing = tokio::spawn({
        let log = log.clone();
        async move {
            let (mut turn, mut retries) = (0_u32, 0);
            while turn < 300 {
                // As a connector does: open, go on behind the checkpoint, and on failure do it again.
                let opened = async {
                    let producer = log.producer("p").await?;
                    let checkpoint = producer.checkpoint().await?;
                    Ok::<_, Error>((producer, checkpoint))
                };
                let (producer, checkpoint) = match opened.await {
                    Ok(opened) => opened,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
                        retries += 1;
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                };
                turn = checkpoint.map_or(0, |text| std::str::from_utf8(&text).unwrap().parse::<u32>().unwrap() + 1);
                while turn < 300 {
                    let text = turn.to_string();
                    let batches = vec![values("t", 0, &[&text, &text])];
                    match producer.append(batches, Some(Bytes::from(text.clone()))).await {
                        Ok(_) => turn += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
                            retries += 1;
                            break;
                        }
                    }
                }
            }
            retries
        }
    });
    let start = Instant::now();
    let high = async || log.watermarks(&at("t", 0)).await.map_or(0, |marks| marks.high.0);
    while high().await < 60 {
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kafka.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    kafka.resume();
    let retries = writing.await.unwrap();
    println!("went on after {retries} failures");
    let expected: Vec<String> = (0..300).flat_map(|turn| [turn.to_string(), turn.to_string()]).collect();
    assert_eq!(texts(&read_all(&*log, "t").await), expected, "each once, none missing");
}

/// A second producer of the name, opened by another process (another log here), shuts out the first for good, whatever
/// that one has in flight.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_write() {
    let (first_log, second_log) = (crate::world::log("zombie"), crate::world::log("zombie"));
    create(&*first_log, "zombie.t", 1, Retention::default()).await;
    let first = first_log.producer("zombie").await.unwrap();
    first.append(vec![values("zombie.t", 0, &["1"])], Some(Bytes::from_static(b"1"))).await.unwrap();
    let in_flight: Vec<_> = (0..20)
        .map(|_| {
            let first = first.clone();
            tokio::spawn(async move { first.append(vec![values("zombie.t", 0, &["late"])], None).await })
        })
        .collect();
    let second = second_log.producer("zombie").await.unwrap();
    assert_eq!(second.checkpoint().await.unwrap().as_deref(), Some(&b"1"[..]));
    let late = second_log.watermarks(&at("zombie.t", 0)).await.unwrap().high;
    let mut answered = 0;
    for append in in_flight {
        // That it was shut out shows only once the other's claim can be read; until then its transaction has failed.
        answered += usize::from(append.await.unwrap().is_ok());
    }
    let again = first.append(vec![values("zombie.t", 0, &["late"])], None).await;
    assert!(matches!(again, Err(Error::Fenced { .. } | Error::Broken { .. })), "{again:?}");
    assert!(matches!(first.checkpoint().await, Err(Error::Fenced { .. })));
    assert_eq!(second_log.watermarks(&at("zombie.t", 0)).await.unwrap().high, late, "settled when the second opened");
    second.append(vec![values("zombie.t", 0, &["2"])], Some(Bytes::from_static(b"2"))).await.unwrap();
    let found = texts(&read_all(&*second_log, "zombie.t").await);
    assert_eq!(found.first().map(String::as_str), Some("1"));
    assert_eq!(found.last().map(String::as_str), Some("2"));
    assert_eq!(found.len(), 2 + answered, "what was answered, and nothing else");
}
