//! How a Kafka cluster is reached and used, and the settings of librdkafka that follow from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use headwater_schemas::codec::debezium::SourceInfo;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::Error;

/// How a Kafka cluster is reached and used. [`Self::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// `host:port` of one or more brokers, separated by commas; the others are learnt from them.
    pub bootstrap_servers: String,
    /// Encryption. Without it, connections are in clear text.
    pub tls: Option<KafkaTls>,
    /// Who we are. Without it, brokers must accept unknown clients (or the certificate in [`Self::tls`]).
    pub sasl: Option<KafkaSasl>,
    /// Begins the names of the topics that this engine keeps for itself, `{prefix}.checkpoints` and `{prefix}.schemas`,
    /// and of the group under which it identifies itself, `{prefix}.reader`. All processes of one pipeline have the same.
    pub prefix: String,
    /// Copies of each partition of topics that are created; `None` leaves it to the cluster. Of two and more all but one
    /// must have a record before it is durable (`min.insync.replicas`): with three, acknowledged records outlive the loss
    /// of one broker. With two it is one copy, so that a broker may be away: what it alone had can be lost with it.
    pub replication_factor: Option<u16>,
    /// Whether topics that are missing are created and retention is set. If not, they are checked, and what is missing is
    /// an error that names the command which mends it.
    pub create_topics: bool,
    /// Further settings of topics that are created, last one wins: `min.insync.replicas` (in place of what
    /// follows from the copies), `segment.bytes`.
    pub topic_settings: BTreeMap<String, String>,
    /// Whether a delete is followed by a tombstone, a record with the same key and no value: compaction of the topic then
    /// removes deleted rows. Set it where the topics of tables are compacted.
    pub tombstones: bool,
    /// What Debezium's envelope says of each source, by the source's name.
    pub sources: BTreeMap<String, SourceInfo>,
    /// How long one request may take before the cluster counts as unreachable.
    pub request_timeout: Duration,
    /// How long an event is waited for whose schema is not in the topic of schemas, before it counts as one that cannot be
    /// read. Clearly longer than the transaction of a producer that died may keep a partition from being read: its timeout of
    /// 30 s, and the 10 s after which the cluster looks for such.
    pub schema_wait: Duration,
    /// Settings of librdkafka for all its clients, as they are; they win over ours. Those on which correctness depends
    /// are refused.
    pub settings: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// At these servers, in clear text, topics created as needed, the prefix `headwater`, and a minute for schemas.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            tls: None,
            sasl: None,
            prefix: "headwater".into(),
            replication_factor: None,
            create_topics: true,
            topic_settings: BTreeMap::new(),
            tombstones: false,
            sources: BTreeMap::new(),
            request_timeout: Duration::from_secs(10),
            schema_wait: Duration::from_secs(60),
            settings: BTreeMap::new(),
        }
    }
}

/// Encryption of connections. Brokers must show a certificate for the name they are reached by.
#[derive(Clone, Debug, Default)]
pub struct KafkaTls {
    /// PEM file of the authorities that sign the brokers' certificates; `None` trusts those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate and its key, where brokers ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A name and a password.
#[derive(Clone)]
pub struct KafkaSasl {
    /// How the password is shown to the broker.
    pub mechanism: SaslMechanism,
    /// The user.
    pub user: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Ways to show a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// As it is: only with TLS.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// Kafka's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Another value for these would lose records, read what was never committed, or let two write under one name.
const OURS: [&str; 9] = [
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "partition.assignment.strategy",
    "transactional.id",
];

impl KafkaOptions {
    /// What is wrong, as far as the options alone tell.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refused = |what, name: &str, why| Err(Error::Refused { what, name: name.into(), why });
        if self.bootstrap_servers.trim().is_empty() {
            return refused("bootstrap servers", "", "name at least one broker as host:port");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.prefix.is_empty() || self.prefix.len() > 200 || !self.prefix.chars().all(plain) {
            let why = "topic names have 1 to 249 letters, digits, dots, underscores and hyphens";
            return refused("topic prefix", &self.prefix, why);
        }
        match self.settings.keys().find(|name| OURS.contains(&name.as_str())) {
            Some(name) => refused("Kafka setting", name, "it is set by Headwater, whose promises depend on its value"),
            None => Ok(()),
        }
    }

    /// Who our consumers say they are.
    pub(super) fn reader_group(&self) -> String {
        format!("{}.reader", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // What connections fail by is told there alone; it is not passed on as it is.
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", "headwater");
        // Errors of brokers that are away come often enough by themselves.
        config.set("reconnect.backoff.max.ms", "2000").set("log.connection.close", "false");
        config.set("socket.keepalive.enable", "true").set("topic.metadata.refresh.interval.ms", "30000");
        // A transaction writes into several partitions, each in a request of its own: the second must not wait for the first.
        config.set("socket.nagle.disable", "true");
        let (tls, sasl) = (self.tls.is_some(), self.sasl.is_some());
        let protocol = match (tls, sasl) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let path = |path: &PathBuf| path.to_string_lossy().into_owned();
            // OpenSSL is linked in and does not know where this system keeps its authorities.
            config.set("ssl.ca.location", tls.ca.as_ref().map_or("probe".into(), path));
            if let Some((certificate, key)) = &tls.certificate {
                config.set("ssl.certificate.location", path(certificate)).set("ssl.key.location", path(key));
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanisms", sasl.mechanism.name());
            config.set("sasl.username", &sasl.user).set("sasl.password", &sasl.password);
        }
        config
    }

    fn finish(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        config
    }

    /// For a client that manages topics.
    pub(super) fn admin(&self) -> ClientConfig {
        self.finish(self.client())
    }

    /// For a consumer that reads assigned partitions at offsets it is told. `group` is who it says it is; it joins none.
    pub(super) fn reader(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config.set("group.id", group).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        config.set("allow.auto.create.topics", "false");
        config.set("queued.max.messages.kbytes", "4096").set("queued.min.messages", "20000");
        config.set("fetch.wait.max.ms", "500").set("fetch.error.backoff.ms", "100");
        self.finish(config)
    }

    /// [`Self::reader`] for so many partitions, each of which is prefetched into a queue of its own.
    pub(super) fn reader_of(&self, partitions: usize) -> ClientConfig {
        let mut config = self.reader(&self.reader_group());
        let bytes = prefetch_bytes(partitions);
        config.set("queued.max.messages.kbytes", (bytes >> 10).to_string());
        // A record takes some memory beside its bytes, which counts where it is small.
        config.set("queued.min.messages", (bytes / RECORD_BYTES).to_string());
        // A queue that was full is left alone for so long. By default it is a second, in which a small one runs dry.
        config.set("fetch.queue.backoff.ms", "50");
        // What is asked for at a time comes on top of what is queued; a larger record comes all the same. It is one setting
        // with two names: what the operator sets by the other one would not replace ours.
        if !self.settings.contains_key("max.partition.fetch.bytes") {
            config.set("fetch.message.max.bytes", bytes.min(FETCH_BYTES_MAX).to_string());
        }
        self.finish(config)
    }

    /// For a member of a group, which reads nothing.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.reader(group);
        config.set("partition.assignment.strategy", "cooperative-sticky").set("auto.offset.reset", "latest");
        config.set("enable.partition.eof", "false").set("topic.metadata.refresh.interval.ms", "2000");
        config.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "2000");
        self.finish(config)
    }

    /// For a producer without a name or transactions.
    pub(super) fn nameless(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", "25000");
        Self::sending(&mut config);
        self.finish(config)
    }

    /// For the one producer of this name.
    pub(super) fn producer(&self, name: &str) -> ClientConfig {
        let mut config = self.client();
        config.set("transactional.id", name).set("enable.idempotence", "true").set("acks", "all");
        config.set("transaction.timeout.ms", "30000").set("message.timeout.ms", "25000");
        Self::sending(&mut config);
        self.finish(config)
    }

    /// Size of the largest record that the client takes.
    pub(super) fn record_bytes_max(&self) -> usize {
        let set = |name: &str| self.settings.get(name).and_then(|value| value.parse::<usize>().ok());
        let queue = set("queue.buffering.max.kbytes").unwrap_or(QUEUE_KBYTES).saturating_mul(1 << 10);
        set("message.max.bytes").unwrap_or(MESSAGE_BYTES_MAX as usize).min(queue)
    }

    fn sending(config: &mut ClientConfig) {
        config.set("linger.ms", "1").set("batch.size", "1000000").set("batch.num.messages", "10000");
        config.set("compression.type", "lz4").set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
        config
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string())
            .set("queue.buffering.max.messages", "200000");
        config.set("retry.backoff.ms", "20");
    }
}

/// How much one reader prefetches of all its partitions together, and at least and at most of each. The minimum wins.
const PREFETCH_BYTES: usize = 64 << 20;
const PARTITION_BYTES_MIN: usize = 256 << 10;
const PARTITION_BYTES_MAX: usize = 4 << 20;
/// How much of a partition is asked for at a time.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Of records smaller than this, as many are prefetched as of this size.
const RECORD_BYTES: usize = 200;

/// How much a reader of so many partitions prefetches of each. It halves from step to step, so that one partition more or
/// less seldom makes another reader necessary.
pub(super) fn prefetch_bytes(partitions: usize) -> usize {
    (PREFETCH_BYTES / partitions.max(1).next_power_of_two()).clamp(PARTITION_BYTES_MIN, PARTITION_BYTES_MAX)
}

/// Greatest size of a record in the topics that are created: a row of a legacy table may well be above Kafka's default
/// of 1 MiB.
pub(super) const MESSAGE_BYTES_MAX: u32 = 64 << 20;
/// What waits to be sent, at most.
const QUEUE_KBYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["queued.max.messages.kbytes", "queued.min.messages", "fetch.message.max.bytes"];

    fn prefetch(options: &KafkaOptions, partitions: usize) -> [Option<String>; 3] {
        let config = options.reader_of(partitions);
        NAMES.map(|name| config.get(name).map(str::to_owned))
    }

    #[test]
    fn many_partitions_share_what_a_reader_prefetches() {
        let options = KafkaOptions::new("nowhere:9092");
        let some = |values: [&str; 3]| values.map(|value| Some(value.to_owned()));
        assert_eq!(prefetch(&options, 1), some(["4096", "20971", "1048576"]));
        assert_eq!(prefetch(&options, 240), some(["256", "1310", "262144"]));
        for partitions in 0..=256 {
            assert!(partitions * prefetch_bytes(partitions) <= PREFETCH_BYTES, "{partitions}");
        }
        assert_eq!(prefetch_bytes(100_000), PARTITION_BYTES_MIN);
    }

    #[test]
    fn what_the_operator_sets_is_not_shared() {
        let mut options = KafkaOptions::new("nowhere:9092");
        options.settings = NAMES.map(|name| (name.to_owned(), "7777".to_owned())).into();
        assert_eq!(prefetch(&options, 240), NAMES.map(|_| Some("7777".to_owned())));
        options.settings = [("max.partition.fetch.bytes".to_owned(), "7777".to_owned())].into();
        let config = options.reader_of(240);
        assert_eq!(config.get("max.partition.fetch.bytes"), Some("7777"));
        assert_eq!(config.get("fetch.message.max.bytes"), None, "two names of one setting");
    }
}
