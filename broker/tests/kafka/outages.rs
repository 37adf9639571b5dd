//! A broker of its own that is killed, and a producer that was stopped for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::{Error, ErrorKind, EventLog, Retention};
use headwater_test_servers::Kafka;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

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

/// A broker that was killed may have forgotten the end of a transaction in a partition, which then stays open to readers. A
/// producer that goes on finds out, and opening the name again ends it.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_transaction_that_was_forgotten_is_made_up_for() {
    let mut kafka = Kafka::start();
    let log = KafkaLog::open(KafkaOptions::new(kafka.bootstrap())).unwrap();
    create(&*log, "p.t", 2, Retention::default()).await;
    let producer = log.producer("p").await.unwrap();
    producer.append(vec![values("p.t", 0, &["1", "2"]), values("p.t", 1, &["a"])], None).await.unwrap();
    // By another process, which only sees what readers see, and notes nothing for the producer.
    let other = KafkaLog::open(KafkaOptions::new(kafka.bootstrap())).unwrap();
    while other.watermarks(&at("p.t", 0)).await.unwrap().high.0 < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Until the coordinator has it in its own log that all is done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    kafka.kill();
    kafka.forget_marker("p.t", 0);
    kafka.resume();

    assert_eq!(other.watermarks(&at("p.t", 0)).await.unwrap().high.0, 0, "the test must break what it is about");
    let start = Instant::now();
    let error = loop {
        match producer.append(vec![values("p.t", 1, &["b"])], None).await {
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(60), "the producer does not notice"),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
    let text = format!("{:?} {error}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("p.t-0"), "{text}");

    let again = log.producer("p").await.unwrap();
    assert!(other.watermarks(&at("p.t", 0)).await.unwrap().high.0 > 2);
    let found = texts(&read_all(&*other, "p.t").await);
    assert_eq!(found[..2], ["1", "2"], "what was answered");
    assert!(found[2..].iter().all(|text| text == "2"), "and the last once more: {found:?}");
    again.append(vec![values("p.t", 0, &["3"])], None).await.unwrap();
    assert_eq!(texts(&read_all(&*log, "p.t").await).last().map(String::as_str), Some("3"));
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

/// A process whose producer is gone, or which never heard that it was shut out, does not take back what another has taken
/// over. Asked once more, it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_does_not_take_the_name_back() {
    let (first_log, second_log) = (crate::world::log("back"), crate::world::log("back"));
    create(&*first_log, "back.t", 1, Retention::default()).await;
    // To open it anew after an error is everyday life.
    for checkpoint in [b"1", b"2"] {
        let first = first_log.producer("back").await.unwrap();
        first.append(vec![values("back.t", 0, &["1"])], Some(Bytes::from_static(checkpoint))).await.unwrap();
    }
    let second = second_log.producer("back").await.unwrap();
    let refused = first_log.producer("back").await.err().unwrap();
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
    second.append(vec![values("back.t", 0, &["2"])], None).await.unwrap();
    assert_eq!(second.checkpoint().await.unwrap().as_deref(), Some(&b"2"[..]));

    let first = first_log.producer("back").await.unwrap();
    first.append(vec![values("back.t", 0, &["1"])], None).await.unwrap();
    let refused = second_log.producer("back").await.err().unwrap();
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
}

/// One that is shut out while it still hands records to its client hears of it from the client alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_in_the_middle_of_a_large_append_is_shut_out_for_good() {
    let mut options = crate::world::options("busy");
    // The client's queue is full nearly all the time.
    options.settings = [("queue.buffering.max.kbytes".to_owned(), "128".to_owned())].into();
    let (first_log, second_log) = (KafkaLog::open(options).unwrap(), crate::world::log("busy"));
    create(&*first_log, "busy.t", 1, Retention::default()).await;
    let first = first_log.producer("busy").await.unwrap();
    let large = "x".repeat(20_000);
    let batch = values("busy.t", 0, &vec![&*large; 10_000]);
    let appending = tokio::spawn(async move { first.append(vec![batch], Some(Bytes::from_static(b"first"))).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!appending.is_finished(), "the append must be under way");
    let second = second_log.producer("busy").await.unwrap();
    let late = appending.await.unwrap();
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    second.append(vec![values("busy.t", 0, &["2"])], Some(Bytes::from_static(b"second"))).await.unwrap();
    assert_eq!(second.checkpoint().await.unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(texts(&read_all(&*second_log, "busy.t").await), ["2"]);
}

/// The open transaction of another source, whose connector was killed for example, hides who has a name: whoever is shut
/// out waits until that can be seen, and does not shut out its successor.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_cannot_see_its_successor_waits() {
    let (first_log, second_log) = (crate::world::log("hidden"), crate::world::log("hidden"));
    create(&*first_log, "hidden.t", 1, Retention::default()).await;
    let first = first_log.producer("hidden").await.unwrap();
    let killed: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", crate::world::options("hidden").bootstrap_servers)
        .set("transactional.id", "another source")
        .create()
        .unwrap();
    killed.init_transactions(Duration::from_secs(10)).unwrap();
    killed.begin_transaction().unwrap();
    killed.send(BaseRecord::to("hidden.checkpoints").partition(0).key("checkpoint/another").payload("1")).unwrap();
    killed.flush(Duration::from_secs(10)).unwrap();

    let opening = tokio::spawn(async move {
        loop {
            match second_log.producer("hidden").await {
                Ok(producer) => break producer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retryable, "{error}"),
            }
        }
    });
    let begun = Instant::now();
    let error = loop {
        match first.append(vec![values("hidden.t", 0, &["1"])], None).await {
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(60), "the first is not shut out"),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
    let again = first_log.producer("hidden").await.err().unwrap();
    assert_eq!(again.kind(), ErrorKind::Retryable, "{again}");
    let why = std::error::Error::source(&again).map(ToString::to_string).unwrap_or_default();
    assert!(why.contains("`hidden` was shut out") && why.contains("hidden.checkpoints-0"), "{again} {why}");

    killed.abort_transaction(Duration::from_secs(10)).unwrap();
    let second = opening.await.unwrap();
    let again = first_log.producer("hidden").await.err().unwrap();
    assert!(matches!(again, Error::Fenced { .. }), "{again}");
    second.append(vec![values("hidden.t", 0, &["2"])], None).await.unwrap();
}

/// What an earlier session claimed is no successor's claim: whoever is shut out before its own is written, as after a
/// transaction that took too long, may open the name again.
#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_claim_is_no_takeover() {
    let log = crate::world::log("slow");
    drop(log.producer("slow").await.unwrap());
    let servers = crate::world::options("slow").bootstrap_servers;
    let done = Arc::new(AtomicBool::new(false));
    // Shuts out one of the lanes again and again, and claims nothing.
    let shutting_out = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(Ordering::Relaxed) {
                let lane: BaseProducer = rdkafka::ClientConfig::new()
                    .set("bootstrap.servers", &servers)
                    .set("transactional.id", "slow.2")
                    .create()
                    .unwrap();
                lane.init_transactions(Duration::from_secs(5)).ok();
            }
        }
    });
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was never shut out while claiming");
        let Err(error) = log.producer("slow").await else { continue };
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
        if matches!(&error, Error::Engine { action, .. } if *action != "open a producer") {
            break;
        }
    }
    done.store(true, Ordering::Relaxed);
    shutting_out.join().unwrap();
    log.producer("slow").await.unwrap();
}
