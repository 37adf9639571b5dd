//! What is said before capture begins, and what is read for comparison.

use headwater_connectors::postgres::{Finding, Severity, check, discover, read_tables};
use headwater_schemas::{SourceProgress, TableId};
use headwater_test_servers::{Postgres, PostgresOptions};

use crate::harness::{Harness, config};

#[tokio::test(flavor = "multi_thread")]
async fn every_obstacle_is_found_with_its_remedy() {
    let options = PostgresOptions::default().setting("wal_level", "replica").setting("max_replication_slots", "0");
    let server = Postgres::start_with(&options);
    server.psql(
        "CREATE TABLE good (id int PRIMARY KEY, amount int); CREATE TABLE keyless (a int);
         CREATE TABLE costly (id int PRIMARY KEY); ALTER TABLE costly REPLICA IDENTITY FULL;
         CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE theirs (id int PRIMARY KEY);
         CREATE ROLE reader LOGIN PASSWORD 'headwater-secret'; GRANT SELECT ON keyless, theirs TO reader;
         ALTER TABLE good OWNER TO reader; ALTER TABLE costly OWNER TO reader",
    );
    let mut config = config(&server, &["good", "keyless", "costly", "hidden", "theirs", "public.goood"]);
    config.postgres.user = "reader".into();
    let wanted = [(TableId::new("shop", "public", "good"), vec!["id".to_owned(), "amuont".to_owned()])];
    let findings = check(&config, &wanted).await;
    let expected = [
        (Severity::Ok, "connection", "reader", ""),
        (Severity::Error, "server", "wal_level is `replica`", "ALTER SYSTEM SET wal_level"),
        (Severity::Error, "user", "REPLICATION", "ALTER ROLE \"reader\" REPLICATION"),
        (Severity::Warning, "user", "publications", "GRANT CREATE ON DATABASE"),
        (Severity::Error, "server", "max_replication_slots", "ALTER SYSTEM SET max_replication_slots"),
        (Severity::Warning, "server", "max_slot_wal_keep_size", "ALTER SYSTEM"),
        (Severity::Ok, "table public.good", "key (id)", ""),
        (Severity::Error, "table public.good", "has no column `amuont`", "did you mean `amount`?"),
        (Severity::Error, "table public.keyless", "no key", "ADD PRIMARY KEY"),
        (Severity::Warning, "table public.costly", "REPLICA IDENTITY FULL", "REPLICA IDENTITY DEFAULT"),
        (Severity::Error, "table public.hidden", "may not read", "GRANT SELECT"),
        (Severity::Error, "publication headwater_shop", "may not publish public.theirs", "CREATE PUBLICATION"),
        (Severity::Ok, "table public.theirs", "key (id)", ""),
        (Severity::Error, "table public.goood", "does not exist", "did you mean `public.good`?"),
    ];
    for (severity, subject, problem, remedy) in expected {
        let found = findings.iter().any(|finding| {
            finding.severity == severity
                && finding.subject == subject
                && finding.problem.contains(problem)
                && finding.remedy.contains(remedy)
        });
        assert!(found, "{severity:?} {subject}: {problem}; {remedy}\nis not among {findings:#?}");
    }
    // What is said of the publication is what helps.
    let of_publication = |finding: &&Finding| finding.subject == "publication headwater_shop";
    let told: Vec<&Finding> = findings.iter().filter(of_publication).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    server.psql(told[0].remedy.strip_prefix("as a superuser: ").unwrap());
    let findings = check(&config, &wanted).await;
    let told = findings.iter().find(of_publication).unwrap();
    assert_eq!((told.severity, &*told.problem), (Severity::Ok, "exists, with 3 tables"), "{findings:#?}");
    config.postgres.port = 1;
    let unreachable = check(&config, &[]).await;
    assert_eq!((unreachable.len(), unreachable[0].severity), (1, Severity::Error));
}

/// Worse than what capture lacks: what is published already and keeps the application from writing.
#[tokio::test(flavor = "multi_thread")]
async fn published_tables_that_the_application_cannot_update_are_found() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE keyless (a int); CREATE TABLE other (a int);
         CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE full_ (a int); ALTER TABLE full_ REPLICA IDENTITY FULL;
         CREATE TABLE parts (a int) PARTITION BY RANGE (a); CREATE TABLE part PARTITION OF parts DEFAULT;
         CREATE PUBLICATION headwater_shop FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    let config = config(&server, &["good", "keyless"]);
    let refused = async || {
        let findings = check(&config, &[]).await;
        let told = findings.into_iter().filter(|finding| finding.problem.contains("refuses the application's own"));
        told.inspect(|finding| assert_eq!(finding.severity, Severity::Error)).collect::<Vec<Finding>>()
    };
    let told = refused().await;
    let subjects: Vec<&str> = told.iter().map(|finding| &*finding.subject).collect();
    // Also of those that are not captured.
    assert_eq!(subjects, ["keyless", "nothing", "other", "parts"].map(|name| format!("table public.{name}")));
    assert!(told[0].problem.contains("UPDATE and DELETE"), "{told:#?}");
    assert!(told[0].remedy.contains("ALTER TABLE \"public\".\"keyless\" ADD PRIMARY KEY"), "{told:#?}");
    for finding in &told {
        server.psql(finding.remedy.rsplit_once("at once, ").map_or(&*finding.remedy, |(_, at_once)| at_once));
    }
    assert_eq!(refused().await, []);
    for table in ["keyless", "nothing", "other", "parts"] {
        server.psql(&format!("INSERT INTO {table} VALUES (1); DELETE FROM {table}"));
    }
}

/// A command that publishes nothing is no remedy.
#[tokio::test(flavor = "multi_thread")]
async fn no_publication_is_advised_for_no_tables() {
    let server = Postgres::start();
    server.psql("CREATE TABLE keyless (a int); CREATE ROLE reader LOGIN PASSWORD 'headwater-secret'");
    let mut config = config(&server, &["keyless", "absent"]);
    config.postgres.user = "reader".into();
    let findings = check(&config, &[]).await;
    let told = findings.iter().find(|finding| finding.subject == "publication headwater_shop").unwrap();
    assert_eq!(
        (told.severity, &*told.problem),
        (Severity::Error, "does not exist, and none of the tables can be published")
    );
    assert!(!told.remedy.contains("CREATE PUBLICATION"), "{told:?}");
    assert!(findings.iter().any(|finding| finding.subject == "table public.absent"), "{findings:#?}");
}

/// Each limit has its price: the database's disk, or the slot.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_keeps_for_slots_is_judged() {
    for (keep, told) in [("-1", Some("may fill the database's disk")), ("64MB", Some("loses its slot")), ("2GB", None)]
    {
        let server = Postgres::start_with(
            &PostgresOptions::default().setting("max_slot_wal_keep_size", keep).setting("max_wal_size", "1GB"),
        );
        let findings = check(&config(&server, &["t"]), &[]).await;
        let found = findings.iter().find(|finding| finding.problem.contains("max_slot_wal_keep_size"));
        assert_eq!(found.map(|finding| finding.severity), told.map(|_| Severity::Warning), "{keep}: {found:?}");
        assert!(found.zip(told).is_none_or(|(found, told)| found.problem.contains(told)), "{keep}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_read_for_comparison_are_what_was_captured() {
    let harness = Harness::streaming(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, tags text[]);
         INSERT INTO t SELECT n, n / 7.0, ARRAY['a', NULL] FROM generate_series(1, 500) n",
        &["t"],
    )
    .await;
    harness.server.psql("UPDATE t SET n = 1 WHERE id < 10; DELETE FROM t WHERE id = 20");
    let table = TableId::new("shop", "public", "t");
    let read = read_tables(&harness.config, std::slice::from_ref(&table)).await.unwrap();
    // Waiting for the frontier to pass the position is enough, also when nothing else happens.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let passed =
        |progress: &[SourceProgress]| progress.last().map(|last| last.position.commit) >= Some(read.position.commit);
    while !passed(&harness.progress().await) {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (schema, rows) = &read.tables[0];
    let captured = harness.folded("t").await;
    assert_eq!((rows.len(), captured.len()), (499, 499));
    assert_eq!(schema, &harness.all_events("t").await[0].schema);
    for (key, row) in rows {
        let captured = &captured[key];
        for (column, value) in schema.columns.iter().zip(headwater_schemas::RowRef(row).cells()) {
            assert_eq!(captured[&*column.name], value.to_value());
        }
    }
    let discovered = discover(&harness.config).await.unwrap();
    assert_eq!(discovered, std::slice::from_ref(schema));
}
