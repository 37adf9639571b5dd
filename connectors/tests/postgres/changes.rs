//! Every kind of change becomes the right events.

use std::sync::Arc;
use std::time::Duration;

use headwater_connectors::Phase;
use headwater_schemas::{Op, Value};

use crate::harness::{Event, Harness, until_ids};

fn ops(events: &[Event]) -> Vec<Op> {
    events.iter().map(|event| event.op).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_then_stream() {
    let harness = Harness::streaming(
        "CREATE TABLE bills (id int PRIMARY KEY, amount numeric(12,2), note text);
         INSERT INTO bills SELECT n, n * 1.10, 'note ' || n FROM generate_series(1, 1000) n",
        &["bills"],
    )
    .await;
    harness.server.psql("INSERT INTO bills VALUES (2000, 5.00, NULL)");
    harness.server.psql("BEGIN; UPDATE bills SET amount = 6 WHERE id = 2000; DELETE FROM bills WHERE id = 1; COMMIT");
    harness.caught_up().await;
    let events = harness.events("bills").await;
    assert_eq!(events.len(), 1003);
    assert!(events[..1000].iter().all(|event| event.op == Op::Read && event.position.ordinal == 0));
    let changes = &events[1000..];
    assert_eq!(ops(changes), [Op::Create, Op::Update, Op::Delete]);
    assert_eq!(changes.iter().map(|event| event.last).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(changes.iter().map(|event| event.position.ordinal).collect::<Vec<_>>(), [1, 1, 3]);
    assert_eq!(changes[1].after("amount"), Value::Decimal("6.00".into()));
    assert_eq!(changes[2].before("id"), Value::Int(1));
    assert!(changes[2].before_is_key_only);
    assert_eq!(harness.folded("bills").await.len(), 1000);
    let progress = harness.progress().await;
    let last = progress.last().unwrap();
    assert!(last.snapshot_done && last.position > changes[2].position);
    assert_eq!(last.watermarks["hw.shop.public.bills"], [1004]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_toast_is_missing_and_merged() {
    let harness = Harness::streaming(
        "CREATE TABLE notes (id int PRIMARY KEY, n int, body text);
         ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE full_notes (LIKE notes INCLUDING ALL);
         ALTER TABLE full_notes REPLICA IDENTITY FULL;
         INSERT INTO notes VALUES (1, 1, repeat('x', 20000)); INSERT INTO full_notes SELECT * FROM notes",
        &["notes", "full_notes"],
    )
    .await;
    harness.server.psql("UPDATE notes SET n = 2; UPDATE full_notes SET n = 2");
    harness.caught_up().await;
    let body = Value::Text("x".repeat(20000));
    let events = harness.events("notes").await;
    assert_eq!(events[1].after("body"), Value::Missing);
    assert_eq!(events[1].before, None);
    let full = harness.events("full_notes").await;
    assert_eq!(full[1].after("body"), body);
    assert_eq!((full[1].before("n"), full[1].before("body")), (Value::Int(1), body.clone()));
    assert!(!full[1].before_is_key_only);
    for table in ["notes", "full_notes"] {
        let rows = harness.folded(table).await;
        let row = rows.values().next().unwrap();
        assert_eq!((&row["n"], &row["body"]), (&Value::Int(2), &body), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_a_delete_and_a_create_with_every_column() {
    let harness = Harness::streaming(
        "CREATE TABLE notes (id int PRIMARY KEY, n int, body text);
         ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
         INSERT INTO notes VALUES (1, 1, repeat('x', 20000))",
        &["notes"],
    )
    .await;
    harness.server.psql("UPDATE notes SET id = 2");
    harness.caught_up().await;
    let events = harness.events("notes").await;
    assert_eq!(ops(&events), [Op::Read, Op::Delete, Op::Create]);
    assert_eq!((events[1].before("id"), events[2].after("id")), (Value::Int(1), Value::Int(2)));
    assert_eq!((events[1].position.ordinal, events[2].position.ordinal), (1, 2));
    assert_eq!((events[1].last, events[2].last), (false, true));
    // The body was not sent: it was fetched, because the row's earlier image stands under another key.
    assert_eq!(events[2].after("body"), Value::Text("x".repeat(20000)));
    // Two moves in one transaction: the row between them is not there to be fetched from.
    harness.server.psql("BEGIN; UPDATE notes SET id = 3; UPDATE notes SET id = 4; COMMIT");
    harness.caught_up().await;
    let rows = harness.folded("notes").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows.values().next().unwrap()["body"], Value::Text("x".repeat(20000)));
}

/// A commit that waits for a standby is in the stream already, and no other session sees its row.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_seen_yet_is_waited_for() {
    let harness = Harness::streaming(
        "CREATE TABLE notes (id int PRIMARY KEY, body text); ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
         INSERT INTO notes VALUES (1, repeat('x', 20000))",
        &["notes"],
    )
    .await;
    let (client, connection) = tokio_postgres::connect(&harness.server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let client = Arc::new(client);
    harness.server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    harness.server.psql("SELECT pg_reload_conf()");
    // The server takes the setting over a moment later: commits until then wait for nobody.
    let mut id = 1;
    let waiting = loop {
        let client = Arc::clone(&client);
        let mut update =
            tokio::spawn(async move { client.batch_execute("UPDATE notes SET id = id + 1").await.unwrap() });
        id += 1;
        if tokio::time::timeout(Duration::from_millis(500), &mut update).await.is_err() {
            break update;
        }
    };
    let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
    let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
    assert!(error.contains("synchronous standby"), "{error}");
    harness.server.psql("ALTER SYSTEM RESET synchronous_standby_names");
    harness.server.psql("SELECT pg_reload_conf()");
    waiting.await.unwrap();
    until_ids(&harness, "notes", &[id]).await;
    for row in harness.folded("notes").await.values() {
        assert_eq!(row["body"], Value::Text("x".repeat(20_000)));
    }
}

/// A key is part of the query that fetches what was not sent with a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_with_a_backslash_is_found_whatever_the_database_takes_it_for() {
    let harness = Harness::streaming(
        "ALTER DATABASE billing SET standard_conforming_strings = off;
         CREATE TABLE notes (id text PRIMARY KEY, body text);
         ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
         INSERT INTO notes VALUES ('one', repeat('x', 20000)), ('two', repeat('x', 20000))",
        &["notes"],
    )
    .await;
    harness.server.psql(r"UPDATE notes SET id = E'a\\b' WHERE id = 'one'");
    harness.server.psql(r"UPDATE notes SET id = E'\\'' OR true; --' WHERE id = 'two'");
    harness.caught_up().await;
    let rows = harness.folded("notes").await;
    let ids: Vec<&Value> = rows.values().map(|row| &row["id"]).collect();
    assert_eq!(ids, [&Value::Text(r"\' OR true; --".into()), &Value::Text(r"a\b".into())]);
    for row in rows.values() {
        assert_eq!(row["body"], Value::Text("x".repeat(20000)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_reaches_every_partition() {
    let server = headwater_test_servers::Postgres::start();
    server.psql(
        "CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE children (id int PRIMARY KEY, p int REFERENCES parents);
         INSERT INTO parents SELECT generate_series(1, 20); INSERT INTO children SELECT n, n FROM generate_series(1, 20) n",
    );
    let mut harness = Harness::new(server, &["parents", "children"]);
    harness.partitions = 3;
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("TRUNCATE parents CASCADE");
    harness.server.psql("INSERT INTO parents VALUES (7)");
    harness.caught_up().await;
    for (table, rows) in [("parents", 1), ("children", 0)] {
        let events = harness.events(table).await;
        let told = events.iter().filter(|event| event.op == Op::Truncate).map(|event| event.partitions);
        assert_eq!(told.collect::<Vec<_>>(), [Some(3); 3], "{table}");
        assert_eq!(harness.folded(table).await.len(), rows, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_work_does_not_arrive() {
    let harness = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await;
    harness.server.psql(
        "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); ROLLBACK TO a; SAVEPOINT b;
         INSERT INTO t VALUES (3); RELEASE b; COMMIT",
    );
    harness.server.psql("BEGIN; INSERT INTO t VALUES (4); ROLLBACK");
    harness.server.psql("INSERT INTO t VALUES (5)");
    harness.caught_up().await;
    let events = harness.events("t").await;
    let ids: Vec<_> = events.iter().map(|event| event.after("id")).collect();
    assert_eq!(ids, [Value::Int(1), Value::Int(3), Value::Int(5)]);
    assert_eq!(events.iter().map(|event| event.last).collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_streams_through_in_order() {
    let harness = Harness::streaming("CREATE TABLE t (id int PRIMARY KEY, filler text)", &["t"]).await;
    harness.server.psql("INSERT INTO t SELECT n, repeat('y', 60) FROM generate_series(1, 200000) n");
    harness.caught_up().await;
    let events = harness.events("t").await;
    assert_eq!(events.len(), 200_000);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.position.ordinal as usize, 2 * at + 1);
        assert_eq!(event.last, at + 1 == events.len());
    }
    let status = harness.status();
    assert_eq!(status.events_total, 200_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_other_than_a_primary_key() {
    let harness = Harness::streaming(
        "CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c int);
         CREATE UNIQUE INDEX by_index_key ON by_index (b, a);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
         CREATE TABLE by_unique (a int NOT NULL UNIQUE, c int);
         ALTER TABLE by_unique REPLICA IDENTITY FULL;
         CREATE TABLE composite (a int, b int, c int, PRIMARY KEY (b, a));
         CREATE TABLE mirrored (a int, b int, c int, UNIQUE (b, a)); ALTER TABLE mirrored ADD PRIMARY KEY (a, b);
         CREATE TABLE keyless (a int);
         CREATE TABLE keyless_full (a int);
         ALTER TABLE keyless_full REPLICA IDENTITY FULL;
         INSERT INTO by_index VALUES (1, 'x', 1); INSERT INTO by_unique VALUES (1, 1); INSERT INTO composite VALUES (1, 2, 3);
         INSERT INTO mirrored VALUES (1, 2, 3)",
        &["by_index", "by_unique", "composite", "mirrored", "keyless", "keyless_full"],
    )
    .await;
    for table in ["by_index", "by_unique", "composite", "mirrored"] {
        harness.server.psql(&format!("UPDATE {table} SET c = 10; UPDATE {table} SET a = 5; DELETE FROM {table}"));
    }
    // The application is not hindered in tables that cannot be captured.
    harness.server.psql("INSERT INTO keyless VALUES (1); UPDATE keyless SET a = 2; DELETE FROM keyless");
    harness.caught_up().await;
    for table in ["by_index", "by_unique", "composite", "mirrored"] {
        let events = harness.all_events(table).await;
        assert_eq!(
            ops(&events),
            [Op::Schema, Op::Read, Op::Update, Op::Delete, Op::Create, Op::Delete],
            "{table}: the stream announces no other schema than the snapshot"
        );
        assert!(events.iter().all(|event| event.position.epoch == 1), "{table} is read once");
        assert!(harness.folded(table).await.is_empty());
    }
    let key = &harness.events("composite").await[0].schema;
    assert_eq!(key.key_columns(), [1, 0]);
    assert_eq!(harness.events("mirrored").await[0].schema.key_columns(), [0, 1]);
    let status = harness.status();
    assert_eq!(status.refused_tables.keys().collect::<Vec<_>>(), ["public.keyless", "public.keyless_full"]);
    assert!(status.refused_tables["public.keyless"].remedy.contains("ADD PRIMARY KEY"));
    assert!(harness.all_events("keyless").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_one_table() {
    let harness = Harness::streaming(
        "CREATE TABLE p (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         INSERT INTO p VALUES (1, '2026-01-05'), (2, '2026-02-05')",
        &["p"],
    )
    .await;
    harness.server.psql("UPDATE p SET at = '2026-02-06' WHERE id = 1; INSERT INTO p VALUES (3, '2026-01-09')");
    harness.caught_up().await;
    assert_eq!(harness.folded("p").await.len(), 3);
    assert!(harness.all_events("p1").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_stored_out_of_line() {
    let harness = Harness::streaming(
        "CREATE TABLE t (id text PRIMARY KEY, n int); ALTER TABLE t ALTER id SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (repeat('k', 2500), 1)",
        &["t"],
    )
    .await;
    harness.server.psql("UPDATE t SET n = 2");
    harness.caught_up().await;
    let rows = harness.folded("t").await;
    assert_eq!(rows.values().map(|row| &row["n"]).collect::<Vec<_>>(), [&Value::Int(2)]);
    assert_eq!(harness.dead_letters().await, []);
}
