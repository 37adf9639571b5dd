//! Reaching the server: TLS, certificates, and what is said when it does not work.

use headwater_connectors::postgres::{TlsConfig, TlsMode};
use headwater_connectors::{Phase, Secret};
use headwater_test_servers::{Postgres, PostgresOptions};

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn verified_tls_with_client_certificate_and_scram() {
    let options = PostgresOptions { tls: true, client_certificate: true, ..PostgresOptions::default() };
    let server = Postgres::start_with(&options);
    server.psql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let certificates = server.certificates().unwrap().clone();
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.host = "localhost".into();
    let good = TlsConfig {
        mode: TlsMode::VerifyFull,
        ca: Some(certificates.ca.clone()),
        cert: Some(certificates.client_cert.clone()),
        key: Some(certificates.client_key.clone()),
    };
    // An authority that did not sign the server's certificate.
    harness.config.postgres.tls = TlsConfig { ca: Some(certificates.other_ca), ..good.clone() };
    harness.start();
    harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
    harness.stop().await;
    // No certificate of ours.
    harness.config.postgres.tls = TlsConfig { cert: None, key: None, ..good.clone() };
    harness.start();
    harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
    harness.stop().await;
    harness.config.postgres.tls = good;
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (2)");
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_explained_and_mended_while_running() {
    let server = Postgres::start_with(&PostgresOptions::default().setting("wal_level", "replica"));
    server.psql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut harness = Harness::new(server, &["t"]);
    let right = harness.config.postgres.password.clone();
    harness.config.postgres.password = Secret::new("wrong");
    harness.start();
    let said = |phase: &Phase, what: &str| matches!(phase, Phase::Retrying { error, .. } if error.contains(what));
    harness.until_status(|status| said(&status.phase, "the password is wrong")).await;
    harness.stop().await;
    harness.config.postgres.password = right;
    harness.start();
    harness.until_status(|status| said(&status.phase, "ALTER SYSTEM SET wal_level = 'logical'")).await;
    harness.server.psql("ALTER SYSTEM SET wal_level = 'logical'");
    harness.server.restart();
    harness.until_streaming().await;
}
