//! What all clients of one log share: whom they talk to, what went wrong last, and how their errors are told.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::Error;

/// The cluster, as errors name it.
#[derive(Debug)]
pub(super) struct Cluster {
    /// `Kafka at host:port`.
    pub(super) place: String,
    servers: String,
    /// The last complaint of a client about its connections, which the errors of calls leave out.
    complaint: Mutex<Option<String>>,
}

impl Cluster {
    pub(super) fn new(servers: &str) -> Arc<Self> {
        Arc::new(Self { place: format!("Kafka at {servers}"), servers: servers.into(), complaint: Mutex::new(None) })
    }

    /// What `kafka-topics.sh` and its like are told to reach the cluster.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// An error of a call as the log's own.
    pub(super) fn error(&self, action: &'static str, error: KafkaError) -> Error {
        use RDKafkaErrorCode as C;
        let code = error.rdkafka_error_code();
        let place = || self.place.clone();
        match code {
            Some(C::Authentication | C::SaslAuthenticationFailed) => {
                Error::Credentials { place: place(), why: self.complaint(&error) }
            }
            Some(C::SSL) => Error::Unencrypted { place: place(), why: self.complaint(&error) },
            Some(C::TopicAuthorizationFailed) => self.forbidden(action, "Topic"),
            Some(C::GroupAuthorizationFailed) => self.forbidden(action, "Group"),
            Some(C::TransactionalIdAuthorizationFailed) => self.forbidden(action, "TransactionalId"),
            Some(C::ClusterAuthorizationFailed) => self.forbidden(action, "Cluster"),
            Some(
                C::UnsupportedVersion | C::UnsupportedFeature | C::NotImplemented | C::UnsupportedForMessageFormat,
            ) => Error::TooOld { place: place(), action },
            Some(
                C::BrokerTransportFailure
                | C::AllBrokersDown
                | C::OperationTimedOut
                | C::RequestTimedOut
                | C::Resolve
                | C::MessageTimedOut
                | C::NetworkException,
            ) => {
                let why = self.complaint(&error);
                // A client only says that it has no connection; why is in its complaint.
                if why.contains("uthentication fail") {
                    return Error::Credentials { place: place(), why };
                }
                if why.contains("SSL") {
                    return Error::Unencrypted { place: place(), why };
                }
                Error::Unreachable { place: place(), action, why }
            }
            _ => match error {
                KafkaError::ClientConfig(_, why, name, _) => Error::Setting { name, why },
                KafkaError::ClientCreation(why) => Error::Setting { name: "a setting".into(), why },
                error => Error::Engine { place: place(), action, source: Box::new(error) },
            },
        }
    }

    fn forbidden(&self, action: &'static str, resource: &'static str) -> Error {
        Error::Forbidden { place: self.place.clone(), action, resource }
    }

    fn complaint(&self, error: &KafkaError) -> String {
        self.complaint.lock().clone().unwrap_or_else(|| error.to_string())
    }

    /// Keeps what a client complains about.
    pub(super) fn listen(&self, facility: &str, message: &str) {
        // That all brokers are down follows from what was said of each.
        if matches!(facility, "FAIL" | "ERROR" | "SASLERR" | "SSL") && !message.contains("brokers are down") {
            *self.complaint.lock() = Some(message.to_owned());
        }
    }

    /// Forgets complaints: the cluster has answered.
    pub(super) fn answered(&self) {
        let mut complaint = self.complaint.lock();
        if complaint.is_some() {
            *complaint = None;
        }
    }
}

/// Listens to one client.
#[derive(Clone, Debug)]
pub(super) struct Context(pub(super) Arc<Cluster>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.listen(facility, message);
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.listen("ERROR", reason);
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Context {}

/// librdkafka tells of every attempt to connect; that something fails is told by the calls that fail.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as L;
    match level {
        L::Emerg | L::Alert | L::Critical => tracing::error!(target: "librdkafka", facility, message),
        L::Error | L::Warning => tracing::debug!(target: "librdkafka", facility, message),
        L::Notice | L::Info | L::Debug => tracing::trace!(target: "librdkafka", facility, message),
    }
}
