//! Settings of the engines behind the two seams: the broker's log, and the store of rows and documents.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use headwater_connectors::Secret;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::quantity::{ByteSize, Span};
use super::settings::unplaced;

/// A wrong setting: its place, the message, the remedy.
pub(super) type Wrong = (Location, String, String);

/// Least age at which events may go. Less would be a slip: nobody could read them in time.
const RETENTION_AGE_MIN: Duration = Duration::from_secs(1);
/// Least size of a partition beyond which events may go.
const RETENTION_SIZE_MIN: u64 = 1 << 20;

/// The log of changes: inside this process, or Kafka where `kafka` stands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    /// A log inside this process.
    pub(crate) embedded: EmbeddedBroker,
    /// Apache Kafka, or what speaks its protocol.
    pub(crate) kafka: Option<Kafka>,
}

/// Settings of the embedded broker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedBroker {
    /// Largest size of the log's file. Address space, not disk: it grows as it fills.
    pub(crate) size_max: Spanned<ByteSize>,
    /// Partitions over which the keys of a table are spread, 1 to 1024; a topic that exists must have as many, or more.
    /// With another number than before, all tables are read again.
    pub(crate) partitions: Spanned<u32>,
    /// What the log may forget.
    pub(crate) retention: RetentionSettings,
}

/// Retention of the topics of change events; without limits everything is kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionSettings {
    /// Events older than this may go.
    pub(crate) age: Option<Spanned<Span>>,
    /// The oldest events of a partition may go while it is larger than this.
    pub(crate) size: Option<Spanned<ByteSize>>,
}

/// Settings of Kafka.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    /// `host:port` of some brokers; the others are found through them.
    pub(crate) servers: Spanned<Vec<String>>,
    /// Partitions over which the keys of a table are spread, 1 to 1024; a topic that exists must have as many, or more.
    /// With another number than before, all tables are read again.
    #[serde(default = "kafka_partitions")]
    pub(crate) partitions: Spanned<u32>,
    /// Copies of each partition of new topics; all but one, and at least one, must have a record before it is durable.
    #[serde(default = "kafka_replication")]
    pub(crate) replication: Spanned<u32>,
    /// Whether topics that are missing are created; otherwise each is an error that says how to create it.
    #[serde(default = "yes")]
    pub(crate) create_topics: bool,
    /// What topics of change events may forget, where Headwater creates them.
    #[serde(default)]
    pub(crate) retention: RetentionSettings,
    /// Who we are, and how the connection is protected.
    #[serde(default)]
    pub(crate) security: KafkaSecurity,
    /// Further settings of topics that Headwater creates, by Kafka's names; they win over ours.
    #[serde(default)]
    pub(crate) topic_settings: BTreeMap<String, String>,
    /// Whether deletes are followed by tombstones: to be set where topics of tables are compacted.
    #[serde(default)]
    pub(crate) tombstones: bool,
    /// Any setting of librdkafka by its own name; it wins over ours.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
}

/// Security of the connection to Kafka.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KafkaSecurity {
    /// Whether the connection is encrypted.
    pub(crate) tls: bool,
    /// Certificates of authorities that are trusted (PEM); those of the system otherwise.
    pub(crate) ca: Option<Spanned<PathBuf>>,
    /// Our own certificate (PEM), where brokers ask for one.
    pub(crate) certificate: Option<Spanned<PathBuf>>,
    /// The key of our certificate (PEM).
    pub(crate) key: Option<Spanned<PathBuf>>,
    /// How the password is told.
    pub(crate) mechanism: Option<SaslMechanism>,
    /// User name.
    pub(crate) user: Option<String>,
    /// Password.
    pub(crate) password: Option<Secret>,
}

/// How a password is told to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum SaslMechanism {
    /// As it is: with TLS only.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM-SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Rows and documents: each inside this process, or in MongoDB.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Where the latest image of every row is kept; inside this process unless set. In MongoDB, with Kafka as broker, any
    /// number of projectors share them.
    pub(crate) rows: Option<Spanned<StoreEngine>>,
    /// Where documents are kept; in MongoDB where `mongodb` stands, unless set.
    pub(crate) documents: Option<Spanned<StoreEngine>>,
    /// A store inside this process.
    pub(crate) embedded: EmbeddedStore,
    /// MongoDB.
    pub(crate) mongodb: Option<Mongodb>,
}

/// An engine that keeps rows or documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreEngine {
    /// Inside this process.
    Embedded,
    /// MongoDB.
    Mongodb,
}

/// Settings of the embedded store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedStore {
    /// Largest size of the store's file. Address space, not disk: it grows as it fills.
    pub(crate) size_max: Spanned<ByteSize>,
}

/// Settings of MongoDB.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mongodb {
    /// Connection string, `mongodb://…` or `mongodb+srv://…`, of a replica set or a sharded cluster.
    pub(crate) uri: Secret,
    /// Name of the database.
    #[serde(default = "mongodb_database")]
    pub(crate) database: Spanned<String>,
}

fn yes() -> bool {
    true
}

fn kafka_partitions() -> Spanned<u32> {
    unplaced(6)
}

fn kafka_replication() -> Spanned<u32> {
    unplaced(3)
}

fn mongodb_database() -> Spanned<String> {
    unplaced("headwater".to_string())
}

impl Default for EmbeddedBroker {
    fn default() -> Self {
        Self { size_max: unplaced(ByteSize::gib(64)), partitions: unplaced(1), retention: RetentionSettings::default() }
    }
}

impl Default for EmbeddedStore {
    fn default() -> Self {
        Self { size_max: unplaced(ByteSize::gib(64)) }
    }
}

impl Broker {
    /// Partitions of new topics.
    pub(crate) fn partitions(&self) -> u32 {
        self.kafka.as_ref().map_or(self.embedded.partitions.value, |kafka| kafka.partitions.value)
    }

    /// What topics of change events may forget.
    pub(crate) fn retention(&self) -> &RetentionSettings {
        self.kafka.as_ref().map_or(&self.embedded.retention, |kafka| &kafka.retention)
    }

    /// What is wrong although every value by itself is right.
    pub(super) fn validate(&self) -> Option<Wrong> {
        let (partitions, path) = match &self.kafka {
            Some(kafka) => (&kafka.partitions, "broker.kafka.partitions"),
            None => (&self.embedded.partitions, "broker.embedded.partitions"),
        };
        if !(1..=1024).contains(&partitions.value) {
            let help = match &self.kafka {
                Some(_) => "as many as projectors are ever to share the work",
                None => "one partition is right for one process",
            };
            return wrong(partitions.referenced, format!("`{path}` must be from 1 to 1024"), help);
        }
        if let Some(kafka) = &self.kafka {
            let servers = &kafka.servers;
            if servers.value.is_empty() || servers.value.iter().any(|server| !is_address(server)) {
                let message = "`broker.kafka.servers` must be a list of `host:port`".to_string();
                return wrong(servers.referenced, message, "for example [kafka-1:9092, kafka-2:9092]");
            }
            if !(1..=32).contains(&kafka.replication.value) {
                let message = "`broker.kafka.replication` must be from 1 to 32".to_string();
                return wrong(kafka.replication.referenced, message, "three copies survive the loss of a broker");
            }
            let retention = || kafka.retention.validate("broker.kafka.retention");
            return kafka.security.validate(servers.referenced).or_else(retention);
        }
        let retention = || self.embedded.retention.validate("broker.embedded.retention");
        too_small("broker.embedded.size_max", &self.embedded.size_max).or_else(retention)
    }
}

impl RetentionSettings {
    fn validate(&self, path: &str) -> Option<Wrong> {
        if let Some(age) = self.age.as_ref().filter(|age| age.value.0 < RETENTION_AGE_MIN) {
            let help = "leave it out to keep everything; what nobody has read yet may go at this age";
            return wrong(age.referenced, format!("`{path}.age` must be at least 1s"), help);
        }
        if let Some(size) = self.size.as_ref().filter(|size| size.value.0 < RETENTION_SIZE_MIN) {
            let help = "leave it out to keep everything; what nobody has read yet may go beyond this size";
            return wrong(size.referenced, format!("`{path}.size` must be at least 1MiB"), help);
        }
        None
    }
}

impl KafkaSecurity {
    fn validate(&self, at: Location) -> Option<Wrong> {
        let named = [self.mechanism.is_some(), self.user.is_some(), self.password.is_some()];
        if named.contains(&true) && named.contains(&false) {
            let message = "`broker.kafka.security` needs `mechanism`, `user` and `password` together".to_string();
            return wrong(at, message, "give all three, or none");
        }
        if self.mechanism == Some(SaslMechanism::Plain) && !self.tls {
            let message = "`broker.kafka.security.mechanism: plain` without `tls: true` shows the password".to_string();
            return wrong(at, message, "set `tls: true`, or use scram-sha-512");
        }
        let files = [("ca", &self.ca), ("certificate", &self.certificate), ("key", &self.key)];
        let named = files.into_iter().find_map(|(name, file)| file.as_ref().map(|file| (name, file)));
        if let Some((name, file)) = named
            && !self.tls
        {
            let message = format!("`broker.kafka.security.{name}` without `tls: true` encrypts nothing");
            return wrong(file.referenced, message, "set `tls: true`, or take it out");
        }
        if self.certificate.is_some() != self.key.is_some() {
            let message = "`broker.kafka.security` needs `certificate` and `key` together".to_string();
            return wrong(at, message, "give both, or none");
        }
        None
    }
}

impl Store {
    /// Where rows are kept.
    pub(crate) fn rows(&self) -> StoreEngine {
        self.rows.as_ref().map_or(StoreEngine::Embedded, |engine| engine.value)
    }

    /// Where documents are kept.
    pub(crate) fn documents(&self) -> StoreEngine {
        let default = if self.mongodb.is_some() { StoreEngine::Mongodb } else { StoreEngine::Embedded };
        self.documents.as_ref().map_or(default, |engine| engine.value)
    }

    /// What is wrong although every value by itself is right.
    pub(super) fn validate(&self) -> Option<Wrong> {
        for (engine, path) in [(&self.rows, "store.rows"), (&self.documents, "store.documents")] {
            if let Some(engine) = engine.as_ref().filter(|engine| engine.value == StoreEngine::Mongodb)
                && self.mongodb.is_none()
            {
                let message = format!("`{path}` is mongodb, but there is no `store.mongodb`");
                return wrong(engine.referenced, message, "say where, with `uri` below `mongodb`");
            }
        }
        if let (Some(rows), StoreEngine::Embedded) = (&self.rows, self.documents())
            && rows.value == StoreEngine::Mongodb
        {
            let message = "rows in MongoDB with documents inside this process cannot be kept in step".to_string();
            return wrong(rows.referenced, message, "leave out `store.documents`, or keep both inside this process");
        }
        if let Some(mongodb) = &self.mongodb {
            let name = &mongodb.database;
            let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if !(1..=63).contains(&name.value.len()) || !name.value.bytes().all(fit) {
                let message = "`store.mongodb.database` must be 1 to 63 letters, digits, `_` and `-`".to_string();
                return wrong(name.referenced, message, "it is the name of a database, not a connection string");
            }
        }
        too_small("store.embedded.size_max", &self.embedded.size_max)
    }
}

fn wrong(at: Location, message: String, help: &str) -> Option<Wrong> {
    Some((at, message, help.to_string()))
}

fn too_small(path: &str, size: &Spanned<ByteSize>) -> Option<Wrong> {
    if size.value.0 >= 16 << 20 {
        return None;
    }
    let message = format!("`{path}` must be at least 16MiB");
    wrong(size.referenced, message, "it is address space, not disk: be generous")
}

fn is_address(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|it| it > 0))
}
