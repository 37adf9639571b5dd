//! Tables that change while they are captured.

use headwater_schemas::{ColumnType, Op, Value};

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_change() {
    let harness =
        Harness::streaming("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)", &["t"]).await;
    harness.server.psql("INSERT INTO t VALUES (2, 2)");
    harness.server.psql("ALTER TABLE t ADD b text DEFAULT 'x'; INSERT INTO t VALUES (3, 3, 'new')");
    harness.server.psql("ALTER TABLE t RENAME a TO renamed; UPDATE t SET renamed = 30 WHERE id = 3");
    harness.server.psql("ALTER TABLE t ALTER renamed TYPE bigint; INSERT INTO t VALUES (4, 5000000000, 'y')");
    harness.server.psql("ALTER TABLE t DROP b; INSERT INTO t VALUES (5, 6)");
    harness.server.psql(
        "BEGIN; INSERT INTO t VALUES (6, 7); ALTER TABLE t ADD c bool; INSERT INTO t VALUES (7, 8, true); COMMIT",
    );
    harness.caught_up().await;
    let events = harness.all_events("t").await;
    let row = |id: i64, op: Op| {
        events.iter().find(|e| e.op == op && e.after.is_some() && e.after("id") == Value::Int(id)).unwrap()
    };
    assert_eq!(row(2, Op::Create).after("a"), Value::Int(2));
    assert_eq!(row(3, Op::Create).after("b"), Value::Text("new".into()));
    assert_eq!(row(3, Op::Update).after("renamed"), Value::Int(30));
    let retyped = row(4, Op::Create);
    assert_eq!(retyped.after("renamed"), Value::Int(5_000_000_000));
    assert_eq!(retyped.schema.columns[1].kind, ColumnType::Int64);
    assert_eq!(row(5, Op::Create).schema.columns.len(), 2);
    assert_eq!(row(6, Op::Create).schema.columns.len(), 2);
    assert_eq!(row(7, Op::Create).after("c"), Value::Bool(true));
    // Each new schema is announced before its first row.
    let mut announced = None;
    for event in &events {
        if event.op == Op::Schema {
            announced = Some(event.schema.clone());
        }
        assert_eq!(announced.as_ref(), Some(&event.schema));
    }
    assert_eq!(harness.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_configured_later_is_read_before_streaming_goes_on() {
    let mut harness = Harness::streaming(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int);
         INSERT INTO a VALUES (1, 1); INSERT INTO b SELECT n, n FROM generate_series(1, 100) n",
        &["a"],
    )
    .await;
    harness.server.psql("UPDATE b SET n = 5 WHERE id = 1");
    harness.stop().await;
    harness.server.psql("UPDATE a SET n = 2; DELETE FROM b WHERE id = 2");
    harness.config.postgres.tables.push("b".into());
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("UPDATE b SET n = 7 WHERE id = 3");
    harness.caught_up().await;
    let b = harness.folded("b").await;
    assert_eq!(b.len(), 99);
    assert_eq!(b.values().map(|row| row["n"].clone()).filter(|n| *n == Value::Int(5)).count(), 2);
    assert_eq!(harness.folded("a").await.values().next().unwrap()["n"], Value::Int(2));
    assert_eq!(harness.events("a").await.len(), 2, "what was read is not read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn column_lists_and_row_filters_of_the_publication_hold_for_the_snapshot_too() {
    let server = headwater_test_servers::Postgres::start();
    server.psql(
        "CREATE TABLE t (id int PRIMARY KEY, secret text, n int);
         INSERT INTO t SELECT n, 'secret', n FROM generate_series(1, 10) n;
         CREATE PUBLICATION mine FOR TABLE t (id, n) WHERE (id > 5)",
    );
    let mut harness = Harness::new(server, &[]);
    harness.config.postgres.publication = Some("mine".into());
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (3000, 'secret', 1)");
    harness.caught_up().await;
    let events = harness.all_events("t").await;
    assert_eq!(events.len(), 1 + 5 + 1);
    for event in events {
        assert_eq!(event.schema.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["id", "n"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_can_no_longer_be_captured_is_told_and_the_others_run_on() {
    let harness = Harness::streaming(
        "CREATE TABLE renamed (id int PRIMARY KEY); CREATE TABLE keyless (id int PRIMARY KEY);
         CREATE TABLE other (id int PRIMARY KEY)",
        &["renamed", "keyless", "other"],
    )
    .await;
    harness.server.psql("INSERT INTO renamed VALUES (1); INSERT INTO keyless VALUES (1)");
    harness.server.psql("ALTER TABLE renamed RENAME TO something; INSERT INTO something VALUES (2)");
    harness.server.psql("ALTER TABLE keyless DROP CONSTRAINT keyless_pkey; INSERT INTO keyless VALUES (2)");
    harness.server.psql("INSERT INTO other VALUES (1)");
    harness.caught_up().await;
    let refused = harness.status().refused_tables;
    assert!(refused["public.renamed"].problem.contains("renamed to public.something"), "{refused:?}");
    assert!(refused["public.keyless"].remedy.contains("ADD PRIMARY KEY"), "{refused:?}");
    assert_eq!(harness.folded("other").await.len(), 1);
    assert_eq!(harness.folded("keyless").await.len(), 1);
}
