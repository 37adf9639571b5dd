//! Tables that cannot be captured: each is refused by itself with its reason, before and while it is captured.

use headwater_connectors::postgres::{Severity, check};
use headwater_test_servers::Postgres;

use crate::harness::Harness;

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
