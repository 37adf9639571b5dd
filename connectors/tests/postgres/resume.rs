//! Restarts of either side: nothing is lost, and what comes again has its old position.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_connectors::Phase;
use headwater_schemas::{Op, Value};
use headwater_test_servers::{Postgres, PostgresOptions};

use crate::harness::{Event, Harness, parse_lsn};

/// Nothing missing of what `ids` says, and what is there twice is the same.
fn assert_complete(events: &[Event], ids: std::ops::RangeInclusive<i64>) {
    let mut by_position: BTreeMap<_, &Event> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for event in events {
        if let Some(earlier) = by_position.insert((event.position, event.key.clone()), event) {
            assert_eq!((&earlier.after, earlier.op), (&event.after, event.op));
        }
        if let Value::Int(id) = event.after("id") {
            seen.insert(id);
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ids.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_connector_goes_on_where_it_was() {
    let mut harness = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await;
    harness.server.psql("INSERT INTO t VALUES (1)");
    harness.caught_up().await;
    harness.stop().await;
    harness.server.psql("INSERT INTO t VALUES (2)");
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (3)");
    harness.caught_up().await;
    let ids: Vec<_> = harness.events("t").await.iter().map(|event| event.after("id")).collect();
    assert_eq!(ids, [Value::Int(1), Value::Int(2), Value::Int(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_waited_for() {
    let mut harness = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY, filler text)", &["t"]).await;
    for round in 0..3 {
        harness.server.psql(&format!(
            "INSERT INTO t SELECT n, repeat('z', 500) FROM generate_series({}, {}) n",
            round * 20_000 + 1,
            (round + 1) * 20_000
        ));
        harness.server.kill();
        harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
        harness.server.resume();
        harness.until_streaming().await;
    }
    harness.caught_up().await;
    assert_complete(&harness.events("t").await, 1..=60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_snapshot_goes_on_with_what_is_missing() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id int PRIMARY KEY, n int, body text);
         ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
         INSERT INTO t SELECT n, 0, repeat(chr(65 + n % 26), 3000) FROM generate_series(1, 6000) n;
         CREATE TABLE done (id int PRIMARY KEY); INSERT INTO done SELECT generate_series(1, 10); ANALYZE",
    );
    let mut harness = Harness::new(server, &["t", "done"]);
    harness.config.postgres.snapshot.rows_per_chunk = 100;
    harness.config.postgres.snapshot.workers = 1;
    harness.start();
    harness.until_status(|status| status.events_total > 1500).await;
    harness.stop().await;
    let before = harness.events("t").await.len();
    assert!(before > 0 && before < 6000, "it was interrupted midway, at {before}");
    // There is room now in blocks that were read: updates move rows there from blocks that were not, and do not send the
    // large column again.
    harness.server.psql("DELETE FROM t WHERE id <= 1000");
    harness.server.psql("VACUUM t");
    harness.server.psql("UPDATE t SET n = 1; DELETE FROM t WHERE id % 100 = 0; INSERT INTO t VALUES (7000, 2, 'new')");
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    let rows = harness.folded("t").await;
    assert_eq!(rows.len(), 4951);
    for row in rows.values() {
        let Value::Int(id) = row["id"] else { panic!("an integer") };
        let letter = char::from(65 + (id % 26) as u8).to_string();
        let expected = if id == 7000 { (2, "new".to_owned()) } else { (1, letter.repeat(3000)) };
        assert_eq!((&row["n"], &row["body"]), (&Value::Int(expected.0), &Value::Text(expected.1)), "{id}");
    }
    assert_eq!(harness.events("done").await.iter().filter(|event| event.op == Op::Read).count(), 10);
}

/// Another number of partitions moves keys to other partitions, where a change that does not send all columns would stand
/// before the image that completes it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_read_again_with_another_number_of_partitions() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT n, 0 FROM generate_series(1, 20) n");
    let mut harness = Harness::new(server, &["t"]);
    for (partitions, epoch) in [(4, 1), (4, 1), (3, 2), (3, 2)] {
        harness.partitions = partitions;
        harness.start();
        harness.until_streaming().await;
        harness.server.psql("UPDATE t SET n = n + 1");
        harness.caught_up().await;
        harness.stop().await;
        let events = harness.events("t").await;
        let newest = events.iter().map(|event| event.position.epoch).max();
        assert_eq!(newest, Some(epoch), "with {partitions} partitions");
        let read = events.iter().filter(|event| event.op == Op::Read && event.position.epoch == epoch);
        assert_eq!(read.count(), 20, "with {partitions} partitions");
        let rows = harness.folded("t").await;
        let numbers: Vec<&Value> = rows.values().map(|row| &row["n"]).collect();
        assert!(rows.len() == 20 && numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
    }
}

/// What is durable of a transaction comes again with the numbers it had, and what follows above it, whichever of its tables
/// are captured by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_cut_goes_on_without_one_of_its_tables() {
    let mut harness = Harness::streaming(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, n int);
         INSERT INTO b VALUES (1, 0), (2, 0), (3, 0)",
        &["a", "b"],
    )
    .await;
    harness.caught_up().await;
    // The first append holds up to 50,000 events: the first update of `b`, and not the changes that follow.
    harness.server.psql(
        "BEGIN; INSERT INTO a SELECT generate_series(1, 20000); UPDATE b SET n = 1;
         INSERT INTO a SELECT generate_series(20001, 500000); UPDATE b SET n = 2 WHERE id = 1; DELETE FROM b WHERE id = 2;
         UPDATE b SET id = 4, n = 2 WHERE id = 3; COMMIT",
    );
    harness.until_status(|status| status.events_total > 20_100).await;
    harness.stop().await;
    let cut = harness.events("b").await;
    let seen: Vec<Value> = cut.iter().map(|event| event.after("n")).collect();
    assert_eq!(seen, [0, 0, 0, 1, 1, 1].map(Value::Int), "the transaction was cut");
    harness.config.postgres.tables.retain(|table| table != "a");
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    let rows = harness.folded("b").await;
    let rows: Vec<_> = rows.values().map(|row| (row["id"].clone(), row["n"].clone())).collect();
    assert_eq!(rows, [1, 4].map(|id| (Value::Int(id), Value::Int(2))));
    let again = harness.events("b").await;
    let positions = |events: &[Event]| events.iter().map(|event| event.position).collect::<Vec<_>>();
    assert_eq!(positions(&again[6..9]), positions(&cut[3..6]), "what comes again has its old position");
}

/// A reading that is begun again from the start: rows of the first attempt are in the log already, and what happened to them
/// meanwhile is in the stream alone. So it is with a partitioned table, which is read in one go, and with one whose file is
/// another one by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_begun_again_loses_nothing_of_what_happened_meanwhile() {
    let parts = "CREATE TABLE t (id int PRIMARY KEY, n int, body text) PARTITION BY RANGE (id);
                 CREATE TABLE p PARTITION OF t DEFAULT";
    let whole = "CREATE TABLE t (id int PRIMARY KEY, n int, body text)";
    let reload = "TRUNCATE t; INSERT INTO t SELECT n, 2, 'again' FROM generate_series(100001, 100010) n";
    for (create, change) in [(parts, ""), (whole, reload)] {
        let server = Postgres::start();
        server.psql(&format!(
            "{create}; INSERT INTO t SELECT n, 0, repeat('x', 300) FROM generate_series(1, 60000) n; ANALYZE"
        ));
        let mut harness = Harness::new(server, &["t"]);
        harness.config.postgres.snapshot.rows_per_chunk = 5000;
        harness.config.postgres.snapshot.workers = 1;
        harness.start();
        harness.until_status(|status| status.events_total > 9000).await;
        harness.stop().await;
        let before = harness.events("t").await.len();
        assert!(before > 0 && before < 60_000, "it was interrupted midway, at {before}");
        harness.server.psql(&format!("DELETE FROM t WHERE id <= 10; UPDATE t SET n = 1 WHERE id = 11; {change}"));
        harness.start();
        harness.until_streaming().await;
        harness.caught_up().await;
        let rows = harness.folded("t").await;
        let found: Vec<String> = rows.values().map(|row| format!("{:?} {:?}", row["id"], row["n"])).take(12).collect();
        let count: usize = harness.server.psql("SELECT count(*) FROM t").parse().unwrap();
        assert_eq!(rows.len(), count, "{create}: {found:?}");
        if change.is_empty() {
            assert!(rows.values().any(|row| (&row["id"], &row["n"]) == (&Value::Int(11), &Value::Int(1))), "{found:?}");
        }
    }
}

/// While the server reads through its log it says where it is, and its clock says nothing about that place.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_not_told_to_be_captured() {
    // It asks for a sign of life after half of that, and says where it is.
    let server = Postgres::start_with(&PostgresOptions::default().setting("wal_sender_timeout", "1500ms"));
    server.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (n int)");
    let mut harness = Harness::new(server, &["t"]);
    harness.start();
    harness.until_streaming().await;
    // Or the table, which is still empty, would be read later.
    harness.caught_up().await;
    harness.stop().await;
    harness.server.psql("INSERT INTO other SELECT generate_series(1, 1000000)");
    for id in 1..=3 {
        harness.server.psql(&format!("INSERT INTO t VALUES ({id})"));
    }
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    let events = harness.events("t").await;
    assert_eq!(events.len(), 3);
    for progress in harness.progress().await {
        for event in events.iter().filter(|event| event.position > progress.position) {
            // A commit takes its time a moment before it is in the log.
            let told_too_much = progress.at_micros - event.committed_at_micros - 100_000;
            assert!(told_too_much <= 0, "{progress:?} does not have {event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_an_idle_source_moves_on() {
    let harness = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (n int)", &["t"]).await;
    // Work in tables that are not captured fills the server's log, too.
    harness.server.psql("INSERT INTO other SELECT generate_series(1, 100000)");
    let end = parse_lsn(&harness.server.psql("SELECT pg_current_wal_lsn()"));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let confirmed = harness.server.psql("SELECT confirmed_flush_lsn FROM pg_replication_slots");
        if parse_lsn(&confirmed) >= end {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the slot stays at {confirmed}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(harness.events("t").await.is_empty());
    // Heartbeats go on, and tell how fresh an idle source is.
    let first = harness.progress().await.last().unwrap().at_micros;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let later = harness.progress().await;
    assert!(later.last().unwrap().at_micros >= first + 1_000_000);
    let status = harness.status();
    assert!(status.lag_bytes.is_some_and(|lag| lag < 1 << 20), "{status:?}");
    assert!(status.retained_wal_bytes.is_some());
}
