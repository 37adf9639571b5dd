//! A slot that is lost, moved or taken: never skipped over.

use std::time::{Duration, Instant};

use headwater_broker::Retention;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_connectors::postgres::OnLostSlot;
use headwater_connectors::{CaptureMetrics, CaptureOptions, ErrorKind, Phase, start};
use headwater_schemas::{Op, Value};
use headwater_test_servers::{Postgres, PostgresOptions};
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, until_ids};

const SLOT: &str = "headwater_shop";

async fn stopped_after_one_row() -> Harness {
    let server = Postgres::start_with(&PostgresOptions::default().setting("max_slot_wal_keep_size", "1MB"));
    server.psql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut harness = Harness::new(server, &["t"]);
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    harness.stop().await;
    harness.server.psql("INSERT INTO t VALUES (2)");
    harness
}

async fn assert_stops(harness: &mut Harness, problem: &str) {
    let before = harness.events("t").await.len();
    assert_ends(harness, problem).await;
    assert_eq!(harness.events("t").await.len(), before, "nothing was skipped over");
}

async fn assert_ends(harness: &mut Harness, problem: &str) {
    harness.start();
    let status = harness.until_status(|status| matches!(status.phase, Phase::Stopped { .. })).await;
    let Phase::Stopped { error: Some(said) } = status.phase else { panic!("{status:?}") };
    assert!(said.contains(problem) && said.contains("on_lost_slot: resnapshot"), "{said}");
    assert_eq!(harness.ended().await.kind(), ErrorKind::Fatal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_stops_capture_until_told_to_read_again() {
    let mut harness = stopped_after_one_row().await;
    harness.server.psql(&format!("SELECT pg_drop_replication_slot('{SLOT}')"));
    assert_stops(&mut harness, "is gone").await;
    harness.config.postgres.on_lost_slot = OnLostSlot::Resnapshot;
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (3)");
    harness.caught_up().await;
    let events = harness.events("t").await;
    assert_eq!(harness.folded("t").await.len(), 3);
    let seen: Vec<(u32, Op)> = events.iter().map(|event| (event.position.epoch, event.op)).collect();
    // Read again in a new epoch; what was not met again is swept away below that, and nothing of the new reading.
    assert_eq!(seen, [(1, Op::Read), (2, Op::Read), (2, Op::Read), (2, Op::Truncate), (2, Op::Create)]);
    assert!(events[0].position < events[3].position && events[3].position < events[1].position);
    assert_eq!(events.last().unwrap().after("id"), Value::Int(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_ahead_of_us_stops_capture() {
    let mut harness = stopped_after_one_row().await;
    harness.server.psql(&format!("SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())"));
    assert_stops(&mut harness, "ahead of capture").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidated_slot_stops_capture() {
    let mut harness = stopped_after_one_row().await;
    for _ in 0..4 {
        harness.server.psql(
            "SELECT pg_switch_wal(); CREATE TABLE filler AS SELECT generate_series(1, 100000); DROP TABLE filler",
        );
        harness.server.psql("CHECKPOINT");
    }
    let status =
        harness.server.psql(&format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'"));
    assert_eq!(status, "lost");
    assert_stops(&mut harness, "invalidated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_dropped_for_a_while_stops_capture_until_told_to_read_again() {
    let mut harness = stopped_after_one_row().await;
    harness.server.psql("DROP PUBLICATION headwater_shop");
    harness.server.psql("INSERT INTO t VALUES (3)");
    // The table is read again, since it was in no publication; the stream would go on from before.
    assert_ends(&mut harness, "was dropped and made again").await;
    harness.config.postgres.on_lost_slot = OnLostSlot::Resnapshot;
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (4)");
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 4);
}

/// A server that was restored from an older copy, and one that went on from there on a timeline of its own, as a standby
/// does that took over before it had everything: its log has other changes where capture has been.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lacks_what_was_captured_stops_capture() {
    let mut harness = stopped_after_one_row().await;
    harness.server.stop();
    let (data, copy) = (harness.server.folder().join("data"), harness.server.folder().join("copy"));
    let copied = std::process::Command::new("cp").arg("-a").args([&data, &copy]).status().unwrap();
    assert!(copied.success());
    harness.server.resume();
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("SELECT pg_switch_wal(); INSERT INTO t VALUES (3)");
    harness.caught_up().await;
    harness.stop().await;

    harness.server.stop();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    harness.server.resume();
    assert_stops(&mut harness, "before what is captured").await;

    // It goes on beyond what was captured, on timeline 2.
    harness.server.stop();
    let settings = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.auto.conf"));
    std::io::Write::write_all(&mut settings.unwrap(), b"restore_command = 'false'\n").unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    harness.server.resume();
    while harness.server.psql("SELECT pg_is_in_recovery()") == "t" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for id in 4..7 {
        harness.server.psql(&format!("INSERT INTO t VALUES ({id}); SELECT pg_switch_wal()"));
    }
    harness.server.psql("CHECKPOINT");
    assert_stops(&mut harness, "left timeline 1").await;
    harness.config.postgres.on_lost_slot = OnLostSlot::Resnapshot;
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    let ids: Vec<Value> = harness.folded("t").await.values().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 4, 5, 6].map(Value::Int));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_stops_capture() {
    let mut harness = stopped_after_one_row().await;
    let other = Postgres::start();
    other.psql("CREATE TABLE t (id int PRIMARY KEY)");
    harness.config.postgres.port = other.port();
    harness.start();
    let error = harness.ended().await;
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("another database cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_slot_is_explained_and_waited_for() {
    let mut harness = stopped_after_one_row().await;
    let bin = ["/usr/lib/postgresql/15/bin/pg_recvlogical", "pg_recvlogical"];
    let program = bin.iter().find(|path| std::path::Path::new(path).exists()).unwrap_or(&bin[1]);
    let mut taker = std::process::Command::new(program)
        .args(["--start", "-S", SLOT, "-f", "/dev/null", "-d", &harness.server.url(), "-F", "0", "-s", "0"])
        .args(["-o", "proto_version=1", "-o", &format!("publication_names={SLOT}")])
        .spawn()
        .unwrap();
    while harness.server.psql("SELECT count(active_pid) FROM pg_replication_slots") != "1" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    harness.start();
    let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { attempt: 2.., .. })).await;
    let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
    assert!(error.contains("in use by another process"), "{error}");
    taker.kill().unwrap();
    taker.wait().unwrap();
    harness.until_status(|status| matches!(status.phase, Phase::Streaming | Phase::Stopped { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_transactions_that_delay_the_slot_are_shown() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY)");
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let mut harness = Harness::new(server, &["t"]);
    harness.start();
    harness.until_status(|status| matches!(status.phase, Phase::WaitingForSlot { open_transactions: 1, .. })).await;
    client.batch_execute("COMMIT").await.unwrap();
    harness.until_streaming().await;
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 1);
}

/// Two of one source's name, each with a log of its own: the second must not take what the first lives on, however long it
/// waits for the moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_another_captures_from_is_not_dropped() {
    let mut first = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await;
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(EmbeddedOptions::new(folder.path())).unwrap();
    let options = CaptureOptions { prefix: "second".into(), partitions: 1, retention: Retention::default() };
    let cancel = CancellationToken::new();
    let second = start(first.config.clone(), options, log, CaptureMetrics::default(), cancel.clone());
    let says = async |words: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !matches!(second.status().phase, Phase::Retrying { error, .. } if error.contains(words)) {
            assert!(Instant::now() < deadline, "{:?}", second.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    says("in use by another process").await;
    let at = || {
        let query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ";
        first.server.psql(&format!("{query}'{SLOT}'"))
    };
    let before = at();
    first.server.psql("INSERT INTO t VALUES (1)");
    first.caught_up().await;
    while at() == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.stop().await;
    says("another process captures from").await;
    first.server.psql("INSERT INTO t VALUES (2)");
    first.start();
    until_ids(&first, "t", &[1, 2]).await;
    cancel.cancel();
    second.join().await.unwrap();
}
