//! Who we are, and connections that nobody listens to.

use std::io::Read;
use std::net::TcpListener;

use headwater_broker::kafka::{KafkaLog, KafkaOptions, KafkaSasl, KafkaTls, SaslMechanism};
use headwater_broker::{Error, ErrorKind, EventLog, Retention};

use crate::world::{broker, create, read_all, texts, values};

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
        assert_eq!(error.kind(), ErrorKind::Fatal);
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
