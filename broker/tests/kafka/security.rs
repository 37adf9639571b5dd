//! Who we are, and connections that nobody listens to.

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
