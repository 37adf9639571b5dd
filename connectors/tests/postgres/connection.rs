//! Reaching the server: TLS, certificates, and what is said when it does not work.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    for mode in [TlsMode::VerifyFull, TlsMode::Require] {
        let other = Some(certificates.other_ca.clone());
        harness.config.postgres.tls = TlsConfig { mode, ca: other, ..good.clone() };
        harness.start();
        let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
        let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
        assert!(error.contains("was not signed by an authority of `tls.ca`"), "{error}");
        harness.stop().await;
    }
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

/// Whoever has any certificate of the authority could else pass for the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_refused() {
    let server = Postgres::start_with(&PostgresOptions { tls: true, ..PostgresOptions::default() });
    server.psql("CREATE TABLE t (id int PRIMARY KEY)");
    let certificates = server.certificates().unwrap().clone();
    server.psql(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificates.elsewhere_cert.display()));
    let mut harness = Harness::new(server, &["t"]);
    harness.server.restart();
    harness.config.postgres.host = "localhost".into();
    harness.config.postgres.tls =
        TlsConfig { mode: TlsMode::VerifyFull, ca: Some(certificates.ca.clone()), cert: None, key: None };
    let findings = headwater_connectors::postgres::check(&harness.config, &[]).await;
    assert!(findings[0].problem.contains("not valid for name"), "{findings:?}");
    assert!(findings[0].remedy.contains("the server's certificate is not for `localhost`"), "{findings:?}");
    harness.start();
    let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
    let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
    assert!(error.contains("the server's certificate is not for `localhost`"), "{error}");
    harness.server.psql(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificates.server_cert.display()));
    harness.server.restart();
    harness.until_streaming().await;
}

/// `verify-ca` is for those whose certificates name nothing that one can connect to: the stream, too, takes them, and is encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_name_a_certificate_has_verify_ca_streams() {
    let server = Postgres::start_with(&PostgresOptions { tls: true, ..PostgresOptions::default() });
    server.psql("CREATE TABLE t (id int PRIMARY KEY)");
    let certificates = server.certificates().unwrap().clone();
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.host = "localhost".into();
    for (row, certificate) in [&certificates.elsewhere_cert, &certificates.nameless_cert].into_iter().enumerate() {
        harness.server.psql(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display()));
        harness.server.restart();
        let tls = |mode, ca: &Path| TlsConfig { mode, ca: Some(ca.to_owned()), cert: None, key: None };
        for (tls, problem) in [
            (tls(TlsMode::VerifyFull, &certificates.ca), "the server's certificate is not for `localhost`"),
            (tls(TlsMode::VerifyCa, &certificates.other_ca), "was not signed by an authority of `tls.ca`"),
        ] {
            harness.config.postgres.tls = tls;
            harness.start();
            let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
            let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
            assert!(error.contains(problem), "{error}");
            harness.stop().await;
        }
        harness.config.postgres.tls = tls(TlsMode::VerifyCa, &certificates.ca);
        harness.start();
        harness.until_streaming().await;
        harness.server.psql(&format!("INSERT INTO t VALUES ({row})"));
        harness.caught_up().await;
        assert_eq!(harness.folded("t").await.len(), row + 1);
        let streams = "SELECT bool_and(ssl) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)";
        assert_eq!(harness.server.psql(streams), "t");
        harness.stop().await;
    }
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

/// `VACUUM FULL` of a table may take hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_holds_up_no_other() {
    let server = Postgres::start();
    server
        .psql("CREATE TABLE big (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO big VALUES (1)");
    let mut harness = Harness::new(server, &["big", "t"]);
    harness.start();
    harness.until_streaming().await;
    harness.stop().await;
    let (client, connection) = tokio_postgres::connect(&harness.server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE").await.unwrap();
    harness.start();
    harness.until_streaming().await;
    harness.server.psql("INSERT INTO t VALUES (1)");
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 1);
    client.batch_execute("INSERT INTO big VALUES (2); COMMIT").await.unwrap();
    harness.caught_up().await;
    assert_eq!(harness.folded("big").await.len(), 2);
}

/// Connections that lose their way: what is frozen is held open and hands nothing on, not even its end.
struct Proxy {
    port: u16,
    /// Ports of its own on the server's side.
    frozen: Arc<Mutex<HashSet<u16>>>,
}

impl Proxy {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let frozen: Arc<Mutex<HashSet<u16>>> = Arc::default();
        let held = Arc::clone(&frozen);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
                let name = server.local_addr().unwrap().port();
                let ways = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (from, to) in ways {
                    let held = Arc::clone(&held);
                    std::thread::spawn(move || hand_on(from, to, name, &held));
                }
            }
        });
        Self { port: own, frozen }
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, name: u16, frozen: &Mutex<HashSet<u16>>) {
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = [0; 1 << 16];
    loop {
        while frozen.lock().unwrap().contains(&name) {
            std::thread::sleep(Duration::from_millis(20));
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) if to.write_all(&bytes[..len]).is_ok() => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    to.shutdown(std::net::Shutdown::Both).ok();
}

/// A firewall forgets the stream, and the server ends it: nothing of that arrives here.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dead_without_saying_so_is_opened_anew() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY)");
    let proxy = Proxy::before(server.port());
    let mut harness = Harness::new(server, &["t"]);
    harness.config.postgres.port = proxy.port;
    harness.start();
    harness.until_streaming().await;
    harness.caught_up().await;
    let port: u16 = harness.server.psql("SELECT client_port FROM pg_stat_replication").parse().unwrap();
    proxy.frozen.lock().unwrap().insert(port);
    harness.server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication; INSERT INTO t VALUES (1)");
    let status = harness.until_status(|status| matches!(status.phase, Phase::Retrying { .. })).await;
    let Phase::Retrying { error, .. } = status.phase else { panic!("{status:?}") };
    assert!(error.contains("seems to be dead"), "{error}");
    harness.until_streaming().await;
    harness.caught_up().await;
    assert_eq!(harness.folded("t").await.len(), 1);
}
