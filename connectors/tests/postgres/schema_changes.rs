//! Tables that change while they are captured.

use std::time::{Duration, Instant};

use headwater_connectors::Phase;
use headwater_schemas::{Op, Value};
use headwater_test_servers::Postgres;

use crate::harness::{Harness, Row, until_ids};

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_change() {
    let harness =
        Harness::streaming("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)", &["t"]).await;
    harness.server.psql("INSERT INTO t VALUES (2, 2)");
    harness.server.psql("ALTER TABLE t ADD b text; INSERT INTO t VALUES (3, 3, 'new')");
    harness.server.psql("UPDATE t SET a = 30 WHERE id = 3");
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
    assert_eq!(row(3, Op::Update).after("a"), Value::Int(30));
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

/// The server sends such a row as a new one, and without the large value that did not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_begins_to_match_the_row_filter_arrives_whole() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id int NOT NULL, shown bool NOT NULL, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
         CREATE UNIQUE INDEX t_key ON t (id, shown); ALTER TABLE t REPLICA IDENTITY USING INDEX t_key;
         INSERT INTO t VALUES (1, false, repeat('x', 20000)), (2, false, repeat('x', 20000));
         CREATE PUBLICATION mine FOR TABLE t WHERE (shown)",
    );
    let mut harness = Harness::new(server, &[]);
    harness.config.postgres.publication = Some("mine".into());
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("UPDATE t SET shown = true WHERE id = 1");
    // One that is gone when it is asked for leaves nothing behind.
    harness.server.psql("BEGIN; UPDATE t SET shown = true WHERE id = 2; DELETE FROM t WHERE id = 2; COMMIT");
    until_ids(&harness, "t", &[1]).await;
    let row = harness.folded("t").await.into_values().next().unwrap();
    assert_eq!((&row["shown"], &row["body"]), (&Value::Bool(true), &Value::Text("x".repeat(20_000))));
    assert_eq!(harness.events("t").await[0].op, Op::Create);
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
    // What is told of a table is looked up meanwhile, which may fail beside an ALTER TABLE and is then begun anew.
    harness.caught_up().await;
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

/// The columns are those that the reading sees, not those of a moment before it had to wait.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_while_the_slot_is_waited_for_are_read() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY, before int); INSERT INTO t VALUES (1, 10)");
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let mut harness = Harness::new(server, &["t"]);
    harness.start();
    harness.until_status(|status| matches!(status.phase, Phase::WaitingForSlot { .. })).await;
    harness.server.psql("ALTER TABLE t RENAME before TO after; ALTER TABLE t ADD added int DEFAULT 5");
    client.batch_execute("COMMIT").await.unwrap();
    harness.until_streaming().await;
    harness.caught_up().await;
    let rows: Vec<_> = harness.folded("t").await.into_values().collect();
    let wanted = [("id", 1), ("after", 10), ("added", 5)];
    assert_eq!(rows, [Row::from(wanted.map(|(name, value)| (name.to_owned(), Value::Int(value))))]);
}

/// The server does not send the large column again with a new key. By then the table has fewer columns.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_before_a_dropped_column_leaves_no_torn_row() {
    let create = "CREATE TABLE t (id int PRIMARY KEY, n int, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
                  INSERT INTO t VALUES (1, 0, repeat('x', 10000))";
    let body = Value::Text("x".repeat(10_000));
    for (dropped, wanted) in [("n", Some(&body)), ("body", None)] {
        let mut harness = Harness::streaming(create, &["t"]).await;
        harness.stop().await;
        harness.server.psql("UPDATE t SET id = 2");
        harness.server.psql(&format!("ALTER TABLE t DROP {dropped}"));
        harness.start();
        harness.until_streaming().await;
        until_ids(&harness, "t", &[2]).await;
        let row = harness.folded("t").await.into_values().next().unwrap();
        assert_eq!(row.get("body"), wanted, "without {dropped}");
    }
}

/// What the log tells of a table before it was read again must not undo what is in no stream.
#[tokio::test(flavor = "multi_thread")]
async fn older_changes_do_not_undo_what_was_read_again() {
    let create = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (5, 0), (6, 0)";
    // As a restore does: the new table is published by nothing yet.
    let restored = [format!("DROP TABLE t; {create}")];
    let unpublished = [
        "ALTER PUBLICATION headwater_shop DROP TABLE t",
        "DELETE FROM t; INSERT INTO t VALUES (5, 0), (6, 0)",
        "ALTER PUBLICATION headwater_shop ADD TABLE t",
    ]
    .map(str::to_owned);
    for old_change in ["DELETE FROM t WHERE id = 5; UPDATE t SET n = 1 WHERE id = 6", "TRUNCATE t"] {
        for untold in [&restored[..], &unpublished[..]] {
            let mut harness = Harness::streaming(create, &["t"]).await;
            harness.stop().await;
            harness.server.psql(old_change);
            for change in untold {
                harness.server.psql(change);
            }
            harness.start();
            harness.until_streaming().await;
            harness.server.psql("INSERT INTO t VALUES (7, 0)");
            harness.caught_up().await;
            let rows = harness.folded("t").await;
            let values: Vec<_> = rows.values().map(|row| (row["id"].clone(), row["n"].clone())).collect();
            let wanted = [5, 6, 7].map(|id| (Value::Int(id), Value::Int(0)));
            assert_eq!(values, wanted, "{old_change}, then {untold:?}");
        }
    }
}

/// Nothing is said of changes to a table while it is not configured, or published by nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_left_out_for_a_while_is_read_again() {
    let mut harness = Harness::streaming(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2)",
        &["a", "b"],
    )
    .await;
    harness.stop().await;
    harness.config.postgres.tables.retain(|table| table != "b");
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("DELETE FROM b WHERE id = 1; INSERT INTO b VALUES (3)");
    harness.caught_up().await;
    harness.stop().await;
    harness.config.postgres.tables.push("b".into());
    harness.start();
    harness.until_streaming().await;
    until_ids(&harness, "b", &[2, 3]).await;
    harness.stop().await;

    // By others, and back again, between two runs: only the entry tells.
    harness.server.psql("ALTER PUBLICATION headwater_shop DROP TABLE b; DELETE FROM b WHERE id = 2");
    harness.server.psql("INSERT INTO b VALUES (4); ALTER PUBLICATION headwater_shop ADD TABLE b");
    harness.start();
    harness.until_streaming().await;
    until_ids(&harness, "b", &[3, 4]).await;
    assert_eq!(harness.folded("a").await.len(), 0);
}

/// A table that has no key for a while, and one whose key becomes another, are read again without being told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_changes_is_read_again() {
    let harness = Harness::streaming(
        "CREATE TABLE keyless (id int PRIMARY KEY); INSERT INTO keyless VALUES (1);
         CREATE TABLE rekeyed (id int PRIMARY KEY, other int NOT NULL); INSERT INTO rekeyed VALUES (1, 10), (2, 20)",
        &["keyless", "rekeyed"],
    )
    .await;
    harness.server.psql("ALTER TABLE keyless DROP CONSTRAINT keyless_pkey; INSERT INTO keyless VALUES (2)");
    harness.caught_up().await;
    assert!(harness.status().refused_tables.contains_key("public.keyless"));
    harness.server.psql("ALTER TABLE keyless ADD PRIMARY KEY (id); INSERT INTO keyless VALUES (3)");
    until_ids(&harness, "keyless", &[1, 2, 3]).await;

    harness.server.psql("ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey, ADD PRIMARY KEY (other)");
    harness.server.psql("UPDATE rekeyed SET id = 3 WHERE other = 10");
    // By the new key.
    until_ids(&harness, "rekeyed", &[3, 2]).await;
}

/// The server rewrites every row, or calls its cells otherwise, and tells nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_become_other_ones_is_read_again() {
    let harness = Harness::streaming(
        "CREATE TABLE renamed (id int PRIMARY KEY, amt int); INSERT INTO renamed VALUES (1, 10), (2, 20);
         CREATE TABLE converted (id int PRIMARY KEY, cents int); INSERT INTO converted VALUES (1, 150), (2, 275);
         CREATE TABLE retyped (id int PRIMARY KEY); INSERT INTO retyped VALUES (1), (2), (3)",
        &["renamed", "converted", "retyped"],
    )
    .await;
    harness.server.psql("ALTER TABLE renamed RENAME amt TO amount; UPDATE renamed SET amount = 11 WHERE id = 1");
    harness.server.psql("ALTER TABLE converted ALTER cents TYPE numeric(9,2) USING cents / 100.0");
    harness.server.psql("UPDATE converted SET cents = 1.51 WHERE id = 1");
    harness.server.psql("ALTER TABLE retyped ALTER id TYPE text USING 'n' || id");
    harness.server.psql("UPDATE retyped SET id = 'N1' WHERE id = 'n1'; DELETE FROM retyped WHERE id = 'n2'");
    let rows = async |table: &str, column: &str| -> Vec<Value> {
        let mut values: Vec<Value> = harness.folded(table).await.into_values().map(|row| row[column].clone()).collect();
        values.sort_by_key(|value| format!("{value:?}"));
        values
    };
    let text = |text: &str| Value::Text(text.into());
    let decimal = |text: &str| Value::Decimal(text.into());
    for (table, column, wanted) in [
        ("renamed", "amount", vec![Value::Int(11), Value::Int(20)]),
        ("converted", "cents", vec![decimal("1.51"), decimal("2.75")]),
        ("retyped", "id", vec![text("N1"), text("n3")]),
    ] {
        let began = Instant::now();
        // Before it is read again, rows have no such column.
        while !harness.folded(table).await.values().all(|row| row.contains_key(column))
            || rows(table, column).await != wanted
        {
            assert!(began.elapsed() < Duration::from_secs(60), "{table}: {:?}", harness.folded(table).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_hide_rows_are_refused_and_may_be_written_to() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE child () INHERITS (parent); INSERT INTO child VALUES (2);
         CREATE TABLE secret (id int PRIMARY KEY); INSERT INTO secret VALUES (1);
         ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
    );
    server.psql(
        "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'r'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
         CREATE PUBLICATION headwater_shop FOR TABLE t, ONLY parent, secret WITH (publish_via_partition_root = true)",
    );
    let mut harness = Harness::new(server, &["t", "parent", "secret"]);
    harness.config.postgres.user = "reader".into();
    harness.config.postgres.password = serde_json::from_value("r".into()).unwrap();
    harness.config.postgres.create_publication = false;
    harness.start();
    harness.until_streaming().await;
    let refused = harness.status().refused_tables;
    assert!(refused["public.parent"].problem.contains("inherit"), "{refused:?}");
    assert!(refused["public.secret"].remedy.contains("BYPASSRLS"), "{refused:?}");
    harness.server.psql("UPDATE child SET id = 3; INSERT INTO t VALUES (1)");
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 1);
}

/// What a transaction wrote to a table before it was published is in no stream.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_a_table_are_waited_for_before_it_is_read() {
    let mut harness =
        Harness::streaming("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)", &["a"]).await;
    harness.stop().await;
    let (client, connection) = tokio_postgres::connect(&harness.server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; INSERT INTO b VALUES (1)").await.unwrap();
    harness.config.postgres.tables.push("b".into());
    harness.start();
    harness.until_status(|status| matches!(status.phase, Phase::WaitingForSlot { open_transactions: 1, .. })).await;
    client.batch_execute("INSERT INTO b VALUES (2); COMMIT; INSERT INTO b VALUES (3)").await.unwrap();
    harness.until_streaming().await;
    until_ids(&harness, "b", &[1, 2, 3]).await;
}

/// The stream begins before the key changed: what it tells of the old one is in what was read since.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changed_while_nobody_looked_is_read_once() {
    let mut harness = Harness::streaming(
        "CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL); INSERT INTO t VALUES (1, 10), (2, 20)",
        &["t"],
    )
    .await;
    harness.stop().await;
    for _ in 0..20 {
        harness.server.psql("UPDATE t SET id = id + 2");
    }
    harness.server.psql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (other)");
    harness.server.psql("UPDATE t SET id = 7 WHERE other = 20");
    harness.start();
    until_ids(&harness, "t", &[41, 7]).await;
    harness.server.psql("INSERT INTO t VALUES (8, 5)");
    until_ids(&harness, "t", &[8, 41, 7]).await;
    let epochs = harness.events("t").await.iter().map(|event| event.position.epoch).max();
    assert_eq!(epochs, Some(2), "it was read again once");
}

/// A snapshot finds a table empty that was rewritten since, however many rows it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_during_the_snapshot_is_read_anew() {
    let whole = "CREATE TABLE b (id int PRIMARY KEY, n int)";
    let parts =
        "CREATE TABLE b (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE p PARTITION OF b DEFAULT";
    let rewrite = "ALTER TABLE b ALTER COLUMN n TYPE bigint";
    let replace = format!("DROP TABLE b; {whole}; INSERT INTO b SELECT n, n FROM generate_series(1, 50) n");
    for (create, change) in [(whole, rewrite), (parts, rewrite), (whole, &*replace)] {
        let server = headwater_test_servers::Postgres::start();
        server.psql(&format!(
            "CREATE TABLE a (id int PRIMARY KEY, text text);
             INSERT INTO a SELECT n, repeat('x', 200) FROM generate_series(1, 300000) n;
             {create}; INSERT INTO b SELECT n, n FROM generate_series(1, 50) n"
        ));
        let mut harness = Harness::new(server, &["a", "b"]);
        harness.config.postgres.snapshot.workers = 1;
        harness.start();
        harness.until_status(|status| matches!(status.phase, Phase::Snapshotting { .. })).await;
        harness.server.psql(change);
        let status =
            harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. } | Phase::Streaming)).await;
        let Phase::Retrying { error, .. } = status.phase else { panic!("{create}: {status:?}") };
        // A table that is replaced leaves the publication, too: who is slow is told that first.
        let left = change == replace && error.contains("tables were taken out of publication");
        assert!(left || error.contains("public.b was rewritten, truncated or replaced"), "{create}: {error}");
        harness.until_streaming().await;
        until_ids(&harness, "b", &(1..=50).collect::<Vec<_>>()).await;
    }
}

/// A table whose rows tell everything that may happen to them.
const LEDGER: &str = "(a int, b int, cents int, other int, note text, PRIMARY KEY (a, b))";
const ENTRIES: &str = "(1, 20, 151, 5, 'one'), (2, 10, 275, 6, 'two')";

/// A running connector with a publication of all tables, which says nothing of a table that takes another's place.
async fn streaming_all(tables: &[String]) -> Harness {
    let server = Postgres::start();
    for table in tables {
        server.psql(&format!("CREATE TABLE {table} {LEDGER}; INSERT INTO {table} VALUES {ENTRIES}"));
    }
    server.psql("CREATE PUBLICATION mine FOR ALL TABLES");
    let mut harness = Harness::new(server, &tables.iter().map(String::as_str).collect::<Vec<_>>());
    harness.config.postgres.publication = Some("mine".into());
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    harness
}

/// Waits until a table's rows are captured as the database has them, in the order of their keys.
async fn until_as_selected(harness: &Harness, table: &str, key: &str, what: &str) {
    let columns = ["a", "b", "cents", "other", "note"];
    let text = |value: Option<&Value>| match value {
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Decimal(text) | Value::Text(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    let wanted = harness.server.psql(&format!(
        "SELECT string_agg(concat_ws('|', a, b, cents, other, note), ', ' ORDER BY {key}) FROM {table}"
    ));
    let began = Instant::now();
    loop {
        harness.caught_up().await;
        let rows = harness.folded(table).await;
        let row = |row: &Row| columns.map(|column| text(row.get(column))).join("|");
        let captured = rows.values().map(row).collect::<Vec<_>>().join(", ");
        if captured == wanted {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {wanted} was captured as {captured}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Nothing of this is in the log: only the catalog tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_became_another_while_nobody_looked_is_read_again() {
    let changes = [
        ("ALTER TABLE $t ALTER cents TYPE numeric(9,2) USING cents / 100.0", "a, b"),
        ("ALTER TABLE $t ALTER cents TYPE bigint USING cents * 2", "a, b"),
        ("ALTER TABLE $t ALTER cents TYPE int USING cents + 1", "a, b"),
        ("ALTER TABLE $t ALTER note TYPE varchar USING upper(note)", "a, b"),
        ("ALTER TABLE $t DROP CONSTRAINT $t_pkey, ADD PRIMARY KEY (b)", "b"),
        ("ALTER TABLE $t DROP CONSTRAINT $t_pkey, ADD PRIMARY KEY (b, a)", "b, a"),
        ("DROP TABLE $t; CREATE TABLE $t LEDGER; INSERT INTO $t VALUES (3, 30, 1, 7, 'three')", "a, b"),
        ("ALTER TABLE $t RENAME TO old_$t; CREATE TABLE $t LEDGER", "a, b"),
        (
            "ALTER TABLE $t ADD more int DEFAULT 7; ALTER TABLE $t DROP cents; ALTER TABLE $t RENAME more TO cents",
            "a, b",
        ),
        (
            "ALTER TABLE $t RENAME cents TO c; ALTER TABLE $t RENAME other TO cents; ALTER TABLE $t RENAME c TO other",
            "a, b",
        ),
        ("ALTER TABLE $t DROP note; ALTER TABLE $t ADD note text DEFAULT 'new'", "a, b"),
    ];
    let tables: Vec<String> = (0..changes.len()).map(|at| format!("ledger_{at}")).collect();
    let mut harness = streaming_all(&tables).await;
    harness.stop().await;
    for (table, (change, _)) in tables.iter().zip(changes) {
        harness.server.psql(&change.replace("$t", table).replace("LEDGER", LEDGER));
    }
    harness.start();
    harness.until_streaming().await;
    for (table, (change, key)) in tables.iter().zip(changes) {
        until_as_selected(&harness, table, key, change).await;
    }
}

/// One connector meets them one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_another_while_it_is_captured_is_read_again() {
    let harness = streaming_all(&["t".to_owned()]).await;
    for change in [
        "ALTER TABLE t ADD more int DEFAULT 7; ALTER TABLE t DROP cents; ALTER TABLE t RENAME more TO cents",
        "ALTER TABLE t RENAME cents TO c; ALTER TABLE t RENAME other TO cents; ALTER TABLE t RENAME c TO other",
        "ALTER TABLE t DROP note; ALTER TABLE t ADD note text DEFAULT 'new'",
        "ALTER TABLE t ALTER cents TYPE bigint USING cents * 2",
        "ALTER TABLE t ALTER note TYPE varchar USING upper(note)",
    ] {
        harness.server.psql(change);
        harness.server.psql("UPDATE t SET other = other + 1 WHERE a = 1");
        until_as_selected(&harness, "t", "a, b", change).await;
    }
    let replace = format!("ALTER TABLE t RENAME TO t_old; CREATE TABLE t {LEDGER}");
    harness.server.psql(&format!("{replace}; INSERT INTO t VALUES (4, 40, 1, 8, 'four'), (5, 50, 1, 9, 'five')"));
    until_as_selected(&harness, "t", "a, b", "a table in its place").await;
}

/// The first that the connector hears of the table comes under another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_had_another_name_for_a_while_is_read_again() {
    let harness = streaming_all(&["t".to_owned()]).await;
    harness.server.psql("ALTER TABLE t RENAME TO away");
    harness.server.psql("DELETE FROM away WHERE a = 1; INSERT INTO away VALUES (3, 30, 1, 7, 'three')");
    harness.caught_up().await;
    let refused = harness.status().refused_tables;
    assert!(refused["public.t"].problem.contains("renamed to public.away"), "{refused:?}");
    harness.server.psql("ALTER TABLE away RENAME TO t");
    harness.server.psql("INSERT INTO t VALUES (4, 40, 1, 8, 'four')");
    until_as_selected(&harness, "t", "a, b", "back").await;
}

/// No change of a row tells of values that a new column has in rows of before. Some of them are nowhere in the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_gets_a_column_with_values_is_read_again() {
    let create = "CREATE TABLE t (a int PRIMARY KEY, cents int, other int);
                  CREATE TABLE p (a int PRIMARY KEY, cents int, other int) PARTITION BY RANGE (a);
                  CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
                  INSERT INTO t VALUES (1, 1, 1), (2, 2, 2); INSERT INTO p VALUES (1, 1, 1), (2, 2, 2)";
    let same = async |harness: &Harness, table: &str, column: &str| {
        let wanted = harness.server.psql(&format!("SELECT string_agg({column}::text, ' ' ORDER BY a) FROM {table}"));
        let began = Instant::now();
        loop {
            harness.caught_up().await;
            let text = |row: &Row| match row.get(column) {
                Some(Value::Int(number)) => number.to_string(),
                Some(Value::Text(text)) => text.clone(),
                other => format!("{other:?}"),
            };
            let captured = harness.folded(table).await.values().map(text).collect::<Vec<_>>().join(" ");
            if captured == wanted {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{table}.{column} {wanted} was captured as {captured}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut harness = Harness::streaming(create, &["t", "p"]).await;
    for table in ["t", "p"] {
        // The next change of a row tells that there is another definition.
        harness.server.psql(&format!("ALTER TABLE {table} ADD note text DEFAULT 'new'"));
        harness.server.psql(&format!("UPDATE {table} SET other = 5 WHERE a = 1"));
        same(&harness, table, "note").await;
        // The rows are written anew, each with a value of its own.
        harness.stop().await;
        harness.server.psql(&format!("ALTER TABLE {table} ADD b int DEFAULT (random() * 1000)::int"));
        harness.server.psql(&format!("ALTER TABLE {table} ALTER b DROP DEFAULT"));
        harness.start();
        harness.until_streaming().await;
        same(&harness, table, "b").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_no_row_makes_no_table_be_read_again() {
    let mut harness = streaming_all(&["t".to_owned()]).await;
    harness.stop().await;
    // What adds a column counts as something else together with another file.
    for changes in [&["ALTER TABLE t ADD more int", "ALTER TABLE t DROP other", "ANALYZE t"][..], &["VACUUM FULL t"]] {
        for change in changes {
            harness.server.psql(change);
        }
        harness.start();
        harness.until_streaming().await;
        harness.caught_up().await;
        harness.stop().await;
    }
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (3, 30, 1, 'three', 8)");
    harness.caught_up().await;
    let events = harness.events("t").await;
    assert_eq!(events.iter().map(|event| event.position.epoch).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(events[2].after("more"), Value::Int(8));
}
