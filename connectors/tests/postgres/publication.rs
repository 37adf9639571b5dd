//! What the publication says of a table, and what is said of the publication.

use headwater_schemas::Value;
use headwater_test_servers::Postgres;

use crate::harness::{Harness, until_ids};

/// What changes while nothing publishes a table is in no stream. The next change tells that something does again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_published_again_while_it_is_captured_is_read_again() {
    let create =
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let harness = Harness::streaming(create, &["t", "u"]).await;
    harness.server.psql("INSERT INTO t VALUES (3)");
    harness.caught_up().await;
    harness.server.psql("ALTER PUBLICATION headwater_shop DROP TABLE t");
    harness.server.psql("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (4)");
    harness.server.psql("ALTER PUBLICATION headwater_shop ADD TABLE t");
    harness.server.psql("BEGIN; INSERT INTO t VALUES (5); INSERT INTO u VALUES (5); COMMIT");
    until_ids(&harness, "t", &[1, 3, 4, 5]).await;
    // Until it is read, nobody is told that the log has that transaction.
    let (rows, commit) = (harness.all_events("t").await, harness.events("u").await[0].position);
    let told = harness.progress().await.into_iter().filter(|progress| progress.position >= commit);
    for progress in told.inspect(|progress| assert!(progress.snapshot_done)) {
        let end = progress.watermarks["hw.shop.public.t"][0] as usize;
        let has_row = rows[..end].iter().any(|event| event.after.is_some() && event.after("id") == Value::Int(5));
        assert!(has_row, "told of {:?} too early, with {end} of {} events", progress.position, rows.len());
    }
}

/// No message tells of a table that is sent no more, and nothing else may ever come.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_taken_out_while_it_is_captured_is_noticed() {
    let harness =
        Harness::streaming("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)", &["t"]).await;
    harness.server.psql("ALTER PUBLICATION headwater_shop DROP TABLE t");
    harness.server.psql("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3)");
    // The publication is ours, and the table is to be captured: it is put back, and read again.
    until_ids(&harness, "t", &[1, 3]).await;

    for entry in ["TABLE u", "TABLES IN SCHEMA other"] {
        let server = Postgres::start();
        server.psql(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE SCHEMA other;
             CREATE TABLE other.u (id int PRIMARY KEY);
             CREATE PUBLICATION mine FOR TABLE t, u, TABLES IN SCHEMA other",
        );
        let mut harness = Harness::new(server, &[]);
        harness.config.postgres.publication = Some("mine".into());
        harness.start();
        harness.until_streaming().await;
        harness.server.psql(&format!("ALTER PUBLICATION mine DROP {entry}"));
        let gone = if entry == "TABLE u" { "public.u" } else { "other.u" };
        harness.until_status(|status| status.refused_tables.keys().eq([gone])).await;
    }
}

/// Rows and columns that were not sent before are in no stream either.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_more_is_published_is_read_again() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT n, n FROM generate_series(1, 4) n;
         CREATE PUBLICATION mine FOR TABLE t (id) WHERE (id > 2)",
    );
    let mut harness = Harness::new(server, &[]);
    harness.config.postgres.publication = Some("mine".into());
    harness.start();
    harness.until_streaming().await;
    until_ids(&harness, "t", &[3, 4]).await;
    harness.server.psql("ALTER PUBLICATION mine SET TABLE t (id) WHERE (id > 1)");
    harness.server.psql("INSERT INTO t VALUES (5, 5)");
    until_ids(&harness, "t", &[2, 3, 4, 5]).await;
    harness.server.psql("ALTER PUBLICATION mine SET TABLE t WHERE (id > 1)");
    harness.server.psql("INSERT INTO t VALUES (6, 6)");
    until_ids(&harness, "t", &[2, 3, 4, 5, 6]).await;
    for row in harness.folded("t").await.values() {
        assert_eq!(row.get("n"), Some(&row["id"]));
    }
}

/// What a publication leaves out is in no stream, and its entries stay the same.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_publication_that_left_changes_out_are_read_again() {
    let create = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3);
                  CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p DEFAULT";
    let mut harness = Harness::streaming(create, &["t", "p"]).await;
    harness.server.psql("INSERT INTO p VALUES (1)");
    until_ids(&harness, "p", &[1]).await;
    let alter = |to: &str| harness.server.psql(&format!("ALTER PUBLICATION headwater_shop SET ({to})"));
    let all = "publish = 'insert, update, delete, truncate'";
    alter("publish = 'insert, update'");
    harness.server.psql("DELETE FROM t WHERE id = 2");
    alter(all);
    until_ids(&harness, "t", &[1, 3]).await;

    alter("publish_via_partition_root = false");
    harness.server.psql("INSERT INTO p VALUES (2)");
    alter("publish_via_partition_root = true");
    until_ids(&harness, "p", &[1, 2]).await;

    // Between two runs, too.
    harness.stop().await;
    let alter = |to: &str| harness.server.psql(&format!("ALTER PUBLICATION headwater_shop SET ({to})"));
    alter("publish = 'insert'");
    harness.server.psql("DELETE FROM t WHERE id = 3");
    alter(all);
    harness.start();
    harness.until_streaming().await;
    until_ids(&harness, "t", &[1]).await;
}

/// Tables that are published by their schema, or by the table above them, have no entries of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_again_when_what_published_it_was_away() {
    let by_schema = "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION mine FOR TABLES IN SCHEMA public";
    let by_root =
        "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF root DEFAULT;
                   CREATE PUBLICATION mine FOR TABLE root WITH (publish_via_partition_root = false)";
    for (create, entry) in [(by_schema, "TABLES IN SCHEMA public"), (by_root, "TABLE root")] {
        let server = Postgres::start();
        server.psql(&format!("{create}; INSERT INTO t VALUES (1), (2), (3)"));
        let mut harness = Harness::new(server, &[]);
        harness.config.postgres.publication = Some("mine".into());
        harness.start();
        harness.until_streaming().await;
        until_ids(&harness, "t", &[1, 2, 3]).await;
        // Each by itself: within a transaction nothing passes by.
        let away = |harness: &Harness, id: i32| {
            harness.server.psql(&format!("ALTER PUBLICATION mine DROP {entry}"));
            harness.server.psql(&format!("DELETE FROM t WHERE id = {id}"));
            harness.server.psql(&format!("ALTER PUBLICATION mine ADD {entry}"));
        };
        away(&harness, 1);
        harness.server.psql("INSERT INTO t VALUES (4)");
        until_ids(&harness, "t", &[2, 3, 4]).await;
        // Between two runs, too.
        harness.stop().await;
        away(&harness, 2);
        harness.start();
        harness.until_streaming().await;
        until_ids(&harness, "t", &[3, 4]).await;
    }
}

/// Where the publication says what is captured, nothing else tells that a table has left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_has_left_the_publication_is_told() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1);
         CREATE PUBLICATION mine FOR TABLE t, u",
    );
    let mut harness = Harness::new(server, &[]);
    harness.config.postgres.publication = Some("mine".into());
    harness.start();
    until_ids(&harness, "u", &[1]).await;
    harness.stop().await;
    harness.server.psql("ALTER PUBLICATION mine DROP TABLE u");
    harness.start();
    harness.until_streaming().await;
    let refused = harness.status().refused_tables;
    let refusal = &refused["public.u"];
    assert!(refusal.problem.contains("is in publication `mine` no more"), "{refusal:?}");
    let (command, _) = refusal.remedy.split_once(", or").unwrap();
    harness.stop().await;
    harness.server.psql("INSERT INTO u VALUES (2)");
    harness.server.psql(command);
    harness.start();
    until_ids(&harness, "u", &[1, 2]).await;
    assert!(harness.status().refused_tables.is_empty());
    harness.stop().await;
    harness.server.psql("DROP TABLE u");
    harness.start();
    harness.until_streaming().await;
    assert!(harness.status().refused_tables.is_empty(), "nothing is to be done about what is not there any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_followed_whatever_its_name() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION \"It'sMine\" FOR TABLE t");
    let mut harness = Harness::new(server, &[]);
    harness.config.postgres.publication = Some("It'sMine".into());
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (1)");
    until_ids(&harness, "t", &[1]).await;
}
