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
    complaint: Mutex<Option<Complaint>>,
}

/// What a client says of its connections.
#[derive(Clone, Debug)]
struct Complaint {
    why: String,
    /// What librdkafka counts it as; `None` for what it only logs, such as a connection that takes too long.
    code: Option<RDKafkaErrorCode>,
}

impl Complaint {
    /// What is said of it. A connection that ends while TLS is agreed on may have met a listener without TLS: the client
    /// says so only where the end came before its first answer was looked for.
    fn told(self) -> String {
        let suspects = self.why.contains("SSL_HANDSHAKE") && !self.why.contains("PLAINTEXT");
        if suspects { format!("{} (connecting to a PLAINTEXT broker listener?)", self.why) } else { self.why }
    }

    /// Whether one side refused TLS. A connection that breaks during the handshake does not say so: it breaks when a broker
    /// goes down, too.
    fn is_of_tls(&self) -> bool {
        // librdkafka's code is wrong in two cases: some errors of the socket have that of TLS, and a broker that refuses
        // our certificate, which it does behind the handshake in TLS 1.3, has that of the connection.
        let of_socket = self.why.contains("SSL transport error");
        (self.code == Some(RDKafkaErrorCode::SSL) && !of_socket) || self.why.contains("SSL alert number")
    }
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
        let code = match &error {
            // The library tells none for what managing topics fails by.
            KafkaError::AdminOp(code) => Some(*code),
            error => error.rdkafka_error_code(),
        };
        let place = || self.place.clone();
        match code {
            Some(C::Authentication | C::SaslAuthenticationFailed) => {
                Error::Credentials { place: place(), why: self.complaint(&error).why }
            }
            Some(C::TopicAuthorizationFailed) => self.forbidden(action, "Topic"),
            Some(C::GroupAuthorizationFailed) => self.forbidden(action, "Group"),
            Some(C::TransactionalIdAuthorizationFailed) => self.forbidden(action, "TransactionalId"),
            Some(C::ClusterAuthorizationFailed) => self.forbidden(action, "Cluster"),
            Some(
                C::UnsupportedVersion | C::UnsupportedFeature | C::NotImplemented | C::UnsupportedForMessageFormat,
            ) => Error::TooOld { place: place(), action },
            Some(
                C::SSL
                | C::BrokerTransportFailure
                | C::AllBrokersDown
                | C::OperationTimedOut
                | C::RequestTimedOut
                | C::Resolve
                | C::MessageTimedOut
                | C::NetworkException,
            ) => {
                // A client only says that it has no connection; why is in its complaint.
                let complaint = self.complaint(&error);
                let (of_tls, why) = (complaint.is_of_tls(), complaint.told());
                if why.contains("uthentication fail") {
                    return Error::Credentials { place: place(), why };
                }
                if of_tls {
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

    fn complaint(&self, error: &KafkaError) -> Complaint {
        let of_the_call = || Complaint { why: error.to_string(), code: error.rdkafka_error_code() };
        self.complaint.lock().clone().unwrap_or_else(of_the_call)
    }

    /// Keeps what a client complains about.
    fn listen(&self, why: &str, code: Option<RDKafkaErrorCode>) {
        // That all brokers are down follows from what was said of each.
        if !why.contains("brokers are down") {
            *self.complaint.lock() = Some(Complaint { why: why.to_owned(), code });
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
        // What is logged as an error comes by `error`, too, with its code.
        if facility == "FAIL" && !matches!(level, RDKafkaLogLevel::Error) {
            self.0.listen(message, None);
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.listen(reason, error.rdkafka_error_code());
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl ConsumerContext for Context {}

/// librdkafka tells of every attempt to connect; that something fails is told by the calls that fail.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel as L;
    match level {
        L::Emerg | L::Alert | L::Critical => tracing::error!(target: "librdkafka", facility, message),
        L::Error | L::Warning => tracing::debug!(target: "librdkafka", facility, message),
        L::Notice | L::Info | L::Debug => tracing::trace!(target: "librdkafka", facility, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is no old cluster to try it on.
    #[test]
    fn a_cluster_that_is_too_old_is_told_whatever_is_asked_of_it() {
        let cluster = Cluster::new("old:9092");
        for code in [RDKafkaErrorCode::UnsupportedVersion, RDKafkaErrorCode::UnsupportedFeature] {
            for error in
                [KafkaError::AdminOp(code), KafkaError::MetadataFetch(code), KafkaError::MessageProduction(code)]
            {
                let error = cluster.error("create a topic", error);
                assert!(matches!(error, Error::TooOld { .. }), "{error}");
                let told = "Kafka at old:9092 is too old to create a topic: it must be Apache Kafka 2.5 or newer";
                assert!(error.to_string().contains(told), "{error}");
            }
        }
    }

    /// What librdkafka says where TLS is wrong, and where a connection of TLS merely breaks.
    #[test]
    fn only_what_is_sure_counts_as_wrong_tls() {
        use RDKafkaErrorCode as C;
        let cases = [
            (C::SSL, "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed", true),
            (C::SSL, "Failed to verify broker certificate: certificate has expired", true),
            (
                C::BrokerTransportFailure,
                "Receive failed: tlsv13 alert certificate required: SSL alert number 116",
                true,
            ),
            (C::SSL, "SSL handshake failed: SSL transport error: Broken pipe", false),
            (
                C::BrokerTransportFailure,
                "SSL handshake failed: Disconnected: connection reset by peer: connecting to a PLAINTEXT broker listener?",
                false,
            ),
            (
                C::BrokerTransportFailure,
                "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration \
                 (connecting to a SSL listener?)",
                false,
            ),
        ];
        for (code, why, wrong) in cases {
            let cluster = Cluster::new("nowhere:9092");
            Context(Arc::clone(&cluster)).error(KafkaError::Global(code), why);
            let call = KafkaError::MetadataFetch(C::BrokerTransportFailure);
            let error = cluster.error("list its topics", call);
            assert_eq!(matches!(error, Error::Unencrypted { .. }), wrong, "{error}");
            assert_eq!(error.is_refusal(), wrong, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
