//! From snapshot to stream without a gap and without a stale row.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_schemas::{Op, Value};
use headwater_test_servers::Postgres;
use tokio_postgres::NoTls;

use crate::harness::Harness;

/// Rows there are before the writer begins.
const BEFORE: i64 = 20_000;
/// Longest usual time between two commits, in microseconds. It is some fifty on two cores that others use, too.
const BETWEEN_MAX: i64 = 200;

/// A writer inside the server, for one that waits for the network between its commits would leave the hand-over room to
/// fall between them. Each of its transactions inserts one row and changes another; it ends when `stop` has a row.
const WRITER: &str = "
    CREATE TABLE stop (id int);
    CREATE PROCEDURE write_until_stopped(INOUT last bigint) LANGUAGE plpgsql AS $$
    BEGIN
        LOOP
            EXIT WHEN last % 256 = 0 AND EXISTS (SELECT FROM stop);
            last := last + 1;
            INSERT INTO t VALUES (last, 0);
            UPDATE t SET n = n + 1 WHERE id = last * 7919 % 20000 + 1;
            COMMIT;
        END LOOP;
    END $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_across_the_handover_arrives_exactly() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint);
         INSERT INTO t SELECT n, 0 FROM generate_series(1, 20000) n; ANALYZE t",
    );
    server.psql(WRITER);
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let writer = tokio::spawn(async move {
        client.query_one("CALL write_until_stopped($1)", &[&BEFORE]).await.unwrap().get::<_, i64>(0)
    });
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.snapshot.rows_per_chunk = 500;
    harness.start();
    harness.until_streaming().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    harness.server.psql("INSERT INTO stop VALUES (1)");
    let last = writer.await.unwrap();
    harness.caught_up().await;

    let events = harness.events("t").await;
    // The middle one, for the machine may have other work.
    let times: Vec<i64> =
        events.iter().filter(|event| event.op == Op::Create).map(|event| event.committed_at_micros).collect();
    let mut between: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    between.sort_unstable();
    assert!(between[between.len() / 2] <= BETWEEN_MAX, "{} µs between two commits", between[between.len() / 2]);
    let ids = |op: Op| -> BTreeSet<i64> {
        let of_op = events.iter().filter(|event| event.op == op);
        of_op.map(|event| if let Value::Int(id) = event.after("id") { id } else { panic!("an integer") }).collect()
    };
    // The hand-over fell between two of its commits: what the snapshot read ends where the stream begins.
    let (read, created) = (ids(Op::Read), ids(Op::Create));
    let handover = read.len() as i64;
    assert!(BEFORE < handover && handover < last, "the writer wrote before {handover} and after it, up to {last}");
    assert!(read.into_iter().eq(1..=handover), "the snapshot has each of 1 to {handover}");
    assert!(created.into_iter().eq(handover + 1..=last), "the stream has each of {} to {last}", handover + 1);
    // Each update arrives once, in the row that was read or as a change: the counters count them.
    let rows = harness.folded("t").await;
    let sum: i64 = rows.values().map(|row| if let Value::Int(n) = row["n"] { n } else { panic!("an integer") }).sum();
    assert_eq!((rows.len() as i64, sum), (last, last - BEFORE));
    let mut positions: Vec<_> = events.iter().map(|event| (event.position, event.key.clone())).collect();
    positions.sort();
    positions.dedup();
    assert_eq!(positions.len(), events.len(), "nothing arrives twice");
}
