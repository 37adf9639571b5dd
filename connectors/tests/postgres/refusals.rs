//! Tables that cannot be captured: each is refused by itself with its reason, before and while it is captured.

use std::sync::Arc;

use headwater_connectors::Secret;
use headwater_connectors::postgres::{Severity, check};
use headwater_schemas::Value;
use headwater_test_servers::Postgres;

use crate::harness::{Harness, until_ids};
use crate::picky::Picky;

/// Asserts that a table is refused with these words of its problem and its remedy, and that `check` tells the same.
async fn assert_refused(harness: &Harness, table: &str, problem: &str, remedy: &str) {
    let refused = harness.status().refused_tables;
    let refusal = refused.get(table).unwrap_or_else(|| panic!("{table} is not among {refused:?}"));
    assert!(refusal.problem.contains(problem) && refusal.remedy.contains(remedy), "{refusal:?}");
    let findings = check(&harness.config, &[]).await;
    let subject = format!("table {table}");
    let told = findings.iter().any(|finding| {
        finding.severity == Severity::Error
            && finding.subject == subject
            && (&finding.problem, &finding.remedy) == (&refusal.problem, &refusal.remedy)
    });
    assert!(told, "{refusal:?} is not among {findings:#?}");
}

/// Rows that differ in the missing column alone would be taken for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_sent_whole_is_refused() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE payment (paid_on date, seq int,
             paid_year int GENERATED ALWAYS AS (extract(year FROM paid_on)::int) STORED, PRIMARY KEY (paid_year, seq));
         INSERT INTO payment VALUES ('2025-05-05', 7), ('2026-05-05', 7);
         CREATE TABLE invoice (year int, number int, note text, PRIMARY KEY (year, number));
         INSERT INTO invoice VALUES (2025, 7, ''), (2026, 7, '');
         CREATE TABLE good (id int PRIMARY KEY);
         CREATE PUBLICATION headwater_shop FOR TABLE invoice (number, note)",
    );
    let mut harness = Harness::new(server, &["payment", "invoice", "good"]);
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO good VALUES (1); UPDATE payment SET seq = 8");
    harness.caught_up().await;
    assert_refused(&harness, "public.payment", "`paid_year` of the key", "REPLICA IDENTITY USING INDEX").await;
    assert_refused(&harness, "public.invoice", "leaves out column `year` of the key", "ADD TABLE").await;
    assert_eq!(harness.folded("good").await.len(), 1);
    for table in ["payment", "invoice"] {
        assert!(harness.all_events(table).await.is_empty(), "{table}");
    }
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    assert_eq!(harness.server.psql(published), "good invoice", "what is refused is not published");
}

/// A partitioned table with a row in its partition.
fn partitioned(table: &str, keys: &str) -> String {
    format!(
        "CREATE TABLE {table} (id int NOT NULL, at date NOT NULL, num int NOT NULL, {keys}) PARTITION BY RANGE (at);
         CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         INSERT INTO {table} VALUES (1, '2026-01-05', 10);"
    )
}

/// `ALTER TABLE … REPLICA IDENTITY` of a partitioned table leaves its partitions, whose changes are logged, as they were.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_log_no_key_are_refused_until_they_do() {
    let server = Postgres::start();
    server.psql(&partitioned("plain", "PRIMARY KEY (id, at)"));
    server.psql(&partitioned("keyless", "UNIQUE (num, at)"));
    server.psql(&partitioned("moved", "PRIMARY KEY (id, at), UNIQUE (num, at)"));
    server.psql(&partitioned("whole", "PRIMARY KEY (id, at)"));
    for table in ["keyless", "moved"] {
        server.psql(&format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {table}_num_at_key"));
    }
    server.psql("ALTER TABLE whole REPLICA IDENTITY FULL");
    let mut harness = Harness::new(server, &["plain", "keyless", "moved", "whole"]);
    harness.start();
    harness.until_streaming().await;
    for table in ["plain", "keyless", "moved", "whole"] {
        // The application is hindered nowhere.
        harness.server.psql(&format!("UPDATE {table} SET id = 2"));
    }
    harness.caught_up().await;
    assert_eq!(harness.folded("plain").await.len(), 1);
    let by_index = |table: &str| format!("ALTER TABLE public.{table}_1 REPLICA IDENTITY USING INDEX");
    assert_refused(&harness, "public.keyless", "without the key (num, at)", &by_index("keyless")).await;
    assert_refused(&harness, "public.moved", "without the key (num, at)", &by_index("moved")).await;
    let default = "ALTER TABLE \"public\".\"whole\" REPLICA IDENTITY DEFAULT";
    assert_refused(&harness, "public.whole", "without the whole old row", default).await;

    for refusal in harness.status().refused_tables.values() {
        harness.server.psql(&refusal.remedy);
    }
    harness.stop().await;
    harness.start();
    harness.until_streaming().await;
    assert!(harness.status().refused_tables.is_empty(), "{:?}", harness.status().refused_tables);
    for change in ["UPDATE $t SET id = 3, num = 11", "DELETE FROM $t"] {
        for table in ["keyless", "moved", "whole"] {
            harness.server.psql(&change.replace("$t", table));
        }
        harness.caught_up().await;
        for table in ["keyless", "moved", "whole"] {
            let wanted: usize = harness.server.psql(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
            assert_eq!(harness.folded(table).await.len(), wanted, "{table}: {change}");
        }
    }
    assert_eq!(harness.dead_letters().await, []);
}

/// Its own relation message tells, which comes before its first change.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_partition_attached_later_that_logs_no_key_is_left_and_read_again() {
    let mut harness = Harness::streaming(&partitioned("p", "PRIMARY KEY (id, at)"), &["p"]).await;
    harness.server.psql(
        "CREATE TABLE p_2 (LIKE p, PRIMARY KEY (id, at), UNIQUE (num, at));
         ALTER TABLE p_2 REPLICA IDENTITY USING INDEX p_2_num_at_key;
         ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
    );
    // The update is logged without an old row: it would stand under both keys.
    harness.server.psql("INSERT INTO p VALUES (2, '2026-02-05', 20); UPDATE p SET id = 3 WHERE id = 2");
    harness.until_status(|status| status.refused_tables.contains_key("public.p")).await;
    let default = "ALTER TABLE public.p_2 REPLICA IDENTITY DEFAULT";
    assert_refused(&harness, "public.p", "partition public.p_2 of public.p", default).await;
    harness.server.psql(default);
    harness.stop().await;
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("UPDATE p SET id = 4 WHERE id = 3");
    harness.caught_up().await;
    let ids: Vec<Value> = harness.folded("p").await.into_values().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [Value::Int(1), Value::Int(4)]);
}

/// One command publishes all tables: what cannot be published must not be in it.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_published_stop_no_others() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE good (id int PRIMARY KEY); CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p DEFAULT;
         CREATE TABLE q (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE q_1 PARTITION OF q DEFAULT",
    );
    let mut harness = Harness::new(server, &["good", "fleeting", "p", "p_1", "q", "pg_catalog.pg_am"]);
    // The second time the publication is there.
    for id in [1, 2] {
        harness.start();
        harness.until_streaming().await;
        harness.server.psql(&format!("INSERT INTO good VALUES ({id}); INSERT INTO p VALUES ({id})"));
        harness.caught_up().await;
        for table in ["good", "p"] {
            assert_eq!(harness.folded(table).await.len(), id, "{table}");
        }
        assert_refused(&harness, "public.fleeting", "UNLOGGED", "SET LOGGED").await;
        assert_refused(&harness, "public.q", "public.q_1, a partition", "ALTER TABLE public.q_1 SET LOGGED").await;
        assert_refused(&harness, "public.p_1", "under the name of public.p", "name `public.p` in `tables`").await;
        assert_refused(&harness, "pg_catalog.pg_am", "of the system", "take it out").await;
        assert_eq!(harness.status().refused_tables.len(), 4);
        harness.stop().await;
    }
}

/// A name that the broker does not take for a topic, as Kafka takes no blanks.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_can_have_no_topic_stops_no_others() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE \"Order Details\" (id int PRIMARY KEY);
         INSERT INTO \"Order Details\" VALUES (1)",
    );
    let mut harness = Harness::new(server, &["good", "Order Details"]);
    harness.start_into(Arc::new(Picky(harness.log.clone())));
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO good VALUES (1); UPDATE \"Order Details\" SET id = 2");
    until_ids(&harness, "good", &[1]).await;
    let refused = harness.status().refused_tables;
    let refusal = &refused["public.Order Details"];
    assert!(refusal.problem.contains("no topic") && refusal.remedy.contains("RENAME TO"), "{refusal:?}");
    assert_eq!(harness.server.psql("SELECT string_agg(tablename, ' ') FROM pg_publication_tables"), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_publications_of_others_stop_no_others() {
    let server = Postgres::start();
    server.psql(
        "CREATE ROLE app LOGIN REPLICATION PASSWORD 'app'; GRANT CREATE ON DATABASE billing TO app;
         CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO app;
         CREATE TABLE other (id int PRIMARY KEY); GRANT SELECT ON other TO app;
         CREATE TABLE more (id int PRIMARY KEY); ALTER TABLE more OWNER TO app",
    );
    let mut harness = Harness::new(server, &["own", "other"]);
    harness.config.postgres.user = "app".into();
    harness.config.postgres.password = Secret::new("app");
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO own VALUES (1); INSERT INTO other VALUES (1)");
    until_ids(&harness, "own", &[1]).await;
    assert_refused(&harness, "public.other", "does not own it", "ALTER PUBLICATION \"headwater_shop\" ADD TABLE").await;
    harness.stop().await;

    harness
        .server
        .psql("ALTER PUBLICATION headwater_shop ADD TABLE other; ALTER PUBLICATION headwater_shop OWNER TO headwater");
    harness.config.postgres.tables.push("more".into());
    harness.start();
    harness.until_streaming().await;
    until_ids(&harness, "other", &[1]).await;
    assert_refused(&harness, "public.more", "does not contain public.more", "ADD TABLE").await;
    assert_eq!(harness.status().refused_tables.len(), 1);
}
