//! From snapshot to stream without a gap and without a stale row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use headwater_schemas::Value;
use headwater_test_servers::Postgres;
use tokio_postgres::NoTls;

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_across_the_handover_arrives_exactly() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint);
         INSERT INTO t SELECT n, 0 FROM generate_series(1, 20000) n; ANALYZE t",
    );
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(20_000)));
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let (stopping, count) = (stop.clone(), written.clone());
    let writer = tokio::spawn(async move {
        let insert = client.prepare("INSERT INTO t VALUES ($1, 0)").await.unwrap();
        let update = client.prepare("UPDATE t SET n = n + 1 WHERE id = $1").await.unwrap();
        while !stopping.load(Ordering::Relaxed) {
            let id = count.fetch_add(1, Ordering::Relaxed) as i64 + 1;
            client.execute(&insert, &[&id]).await.unwrap();
            client.execute(&update, &[&(id * 7919 % 20_000 + 1)]).await.unwrap();
        }
    });
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.snapshot.rows_per_chunk = 500;
    harness.start();
    harness.until_streaming().await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    harness.caught_up().await;
    let n = written.load(Ordering::Relaxed) as i64;
    assert!(n > 20_100, "the writer wrote");
    let events = harness.events("t").await;
    // Every row arrives as new exactly once, and every update once: the counter counts them.
    let rows = harness.folded("t").await;
    let ids: Vec<Value> = rows.values().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, (1..=n).map(Value::Int).collect::<Vec<_>>());
    let sum: i64 = rows.values().map(|row| if let Value::Int(n) = row["n"] { n } else { panic!("an integer") }).sum();
    assert_eq!(sum, n - 20_000);
    let mut positions: Vec<_> = events.iter().map(|event| (event.position, event.key.clone())).collect();
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), events.len(), "nothing arrives twice");
}
