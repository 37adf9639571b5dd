//! Who we are, and connections that nobody listens to.

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use headwater_broker::kafka::{KafkaLog, KafkaOptions, KafkaSasl, KafkaTls, SaslMechanism};
use headwater_broker::{Error, ErrorKind, EventLog, FetchFrom, FetchLimits, Offset, Retention};
use headwater_test_servers::{Kafka, forward_to};

use crate::world::{at as place, broker, create, read_all, texts, values};

fn at(bootstrap: &str, prefix: &str) -> KafkaOptions {
    let mut options = KafkaOptions::new(bootstrap);
    options.prefix = prefix.into();
    options.request_timeout = std::time::Duration::from_secs(5);
    options
}

async fn works(log: &KafkaLog, topic: &str) {
    log.check().await.unwrap();
    create(log, topic, 1, Retention::default()).await;
    let producer = log.producer(topic).await.unwrap();
    producer.append(vec![values(topic, 0, &["a"])], None).await.unwrap();
    assert_eq!(texts(&read_all(log, topic).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords() {
    let (bootstrap, user, password) = {
        let broker = broker().lock().unwrap();
        (broker.sasl_bootstrap(), broker.user().to_owned(), broker.password().to_owned())
    };
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        let mut options = at(&bootstrap, "passwords");
        options.sasl = Some(KafkaSasl { mechanism, user: user.clone(), password: password.clone() });
        assert!(!format!("{options:?}").contains(&password));
        let log = KafkaLog::open(options.clone()).unwrap();
        works(&log, &format!("passwords.{}", mechanism.name())).await;
        options.sasl = Some(KafkaSasl { mechanism, user: user.clone(), password: "wrong".into() });
        let error = KafkaLog::open(options).unwrap().check().await.unwrap_err();
        assert!(matches!(error, Error::Credentials { .. }), "{error}");
        assert!(error.is_refusal(), "where it never worked, nobody waits");
        assert!(error.to_string().contains("check user, password and SASL mechanism"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let (bootstrap, certificates) = {
        let broker = broker().lock().unwrap();
        (broker.tls_bootstrap(), broker.certificates().unwrap().clone())
    };
    let certificate = Some((certificates.client_cert.clone(), certificates.client_key.clone()));
    let mut options = at(&bootstrap, "certificates");
    options.tls = Some(KafkaTls { ca: Some(certificates.ca.clone()), certificate: certificate.clone() });
    works(&KafkaLog::open(options.clone()).unwrap(), "certificates.t").await;
    options.tls = Some(KafkaTls { ca: Some(certificates.other_ca.clone()), certificate });
    let error = KafkaLog::open(options).unwrap().check().await.unwrap_err();
    assert!(matches!(error, Error::Unencrypted { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Whoever has any certificate of the authority could else pass for a broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_is_refused() {
    let (bootstrap, certificates) = {
        let broker = broker().lock().unwrap();
        (broker.tls_bootstrap(), broker.certificates().unwrap().clone())
    };
    let port: u16 = bootstrap.rsplit(':').next().unwrap().parse().unwrap();
    let mut options = at(&forward_to(port).to_string(), "certificates");
    let certificate = Some((certificates.client_cert.clone(), certificates.client_key.clone()));
    options.tls = Some(KafkaTls { ca: Some(certificates.ca.clone()), certificate });
    let error = KafkaLog::open(options).unwrap().check().await.unwrap_err();
    assert!(matches!(error, Error::Unencrypted { .. }) && error.is_refusal(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Whoever is refused is told to look at the configuration; a broker that goes away while TLS is agreed on is waited for,
/// as without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_no_wrong_certificate() {
    let certificates = broker().lock().unwrap().certificates().unwrap().clone();
    let tls = Some(KafkaTls { ca: Some(certificates.ca), certificate: None });
    let closes = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&closes, &silent].map(|listener| listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for stream in closes.incoming() {
            // Closed once the client has begun to speak.
            let _heard = stream.unwrap().read(&mut [0; 4096]);
        }
    });
    for address in addresses {
        let mut options = at(&address, "outage");
        options.tls = tls.clone();
        options.settings = [("socket.connection.setup.timeout.ms".to_owned(), "1000".to_owned())].into();
        let error = KafkaLog::open(options).unwrap().topics().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
        let error = error.to_string();
        assert!(error.contains(&format!("Kafka at {address} does not answer")), "{error}");
        assert!(error.contains("SSL"), "the connection got as far as TLS: {error}");
    }
}

/// A listener without TLS closes the connection as a broker that goes down does: it is waited for, and the message names
/// both.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_tls_is_suspected() {
    let (bootstrap, certificates) = {
        let broker = broker().lock().unwrap();
        (broker.bootstrap(), broker.certificates().unwrap().clone())
    };
    let mut options = at(&bootstrap, "plaintext");
    options.tls = Some(KafkaTls { ca: Some(certificates.ca), certificate: None });
    let error = KafkaLog::open(options).unwrap().topics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
    let error = error.to_string();
    assert!(error.contains("connecting to a PLAINTEXT broker listener?"), "{error}");
    assert!(error.contains("is it running"), "{error}");
}

/// What was taken away while we run is told as what may be given back, to writers and readers, and they go on once it is.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_may_go_and_come_back() {
    let secured = headwater_test_servers::KafkaOptions { secured: true, ..Default::default() };
    let kafka = Kafka::start_with(
        &secured
            .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .setting("allow.everyone.if.no.acl.found", "true")
            .setting("super.users", "User:ANONYMOUS"),
    );
    let mut options = at(&kafka.sasl_bootstrap(), "privileges");
    let (user, password) = (kafka.user().to_owned(), kafka.password().to_owned());
    options.sasl = Some(KafkaSasl { mechanism: SaslMechanism::Plain, user, password });
    let log = KafkaLog::open(options.clone()).unwrap();
    works(&log, "privileges.t").await;
    // As a connector does after every failure.
    let append = async || {
        let producer = log.producer("privileges.t").await?;
        producer.append(vec![values("privileges.t", 0, &["b"])], None).await
    };
    let from = [FetchFrom { partition: place("privileges.t", 0), offset: Offset(0) }];
    let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::from_millis(100) };
    for operation in ["Write", "All"] {
        let held = log.producer("privileges.held").await.unwrap();
        deny(&kafka, "--add", operation);
        let lost = held.append(vec![values("privileges.t", 0, &["lost"])], None).await.unwrap_err();
        assert!(matches!(lost, Error::Forbidden { .. }) && lost.kind() == ErrorKind::Retryable, "{lost}");
        let refused = append().await.unwrap_err();
        assert!(matches!(refused, Error::Forbidden { .. }) && refused.kind() == ErrorKind::Retryable, "{refused}");
        // As the projector does, which lists the topics all the while.
        log.topics().await.unwrap();
        match log.fetch(&from, limits).await {
            Ok(_) => assert_eq!(operation, "Write", "one may not read"),
            Err(error) => {
                assert!(matches!(error, Error::Forbidden { .. }) && error.kind() == ErrorKind::Retryable, "{error}")
            }
        }
        deny(&kafka, "--remove", operation);
        let begun = Instant::now();
        while let Err(error) = append().await {
            assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
        }
        // What a client has heard meanwhile is told once.
        while let Err(error) = log.fetch(&from, limits).await {
            assert_eq!(error.kind(), ErrorKind::Retryable, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
        }
    }
    let other = KafkaLog::open(options).unwrap();
    assert_eq!(texts(&read_all(&*other, "privileges.t").await), ["a", "b", "b"]);
}

/// Denies our user an operation on the topic, or allows it again.
fn deny(kafka: &Kafka, change: &str, operation: &str) {
    let mut tool = Kafka::program("org.apache.kafka.tools.AclCommand");
    tool.args(["--bootstrap-server", &kafka.bootstrap(), change, "--force", "--topic", "privileges.t"]);
    let user = format!("User:{}", kafka.user());
    let done = tool.args(["--deny-principal", &user, "--operation", operation]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
