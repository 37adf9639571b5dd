//! Topics: created as specified, or checked where the operator creates them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::asker::Asker;
use super::client::{Cluster, Context};
use super::options::{KafkaOptions, MESSAGE_BYTES_MAX};
use crate::{Error, Retention, TopicPartition, TopicSpec};

/// Bytes of a batch with one record beside its key and its value: headers, and what compression may add.
const RECORD_OVERHEAD: usize = 4 << 10;

/// How many copies must have a record before Kafka answers that it is durable. Kafka's own default is one.
const IN_SYNC_MIN: &str = "min.insync.replicas";

/// How old what is known of topics may be where it need not be the newest.
const KNOWN_MAX: Duration = Duration::from_secs(1);

/// What the cluster says of a topic.
#[derive(Clone, Copy)]
struct Known {
    partitions: u32,
    /// Of the partition with the fewest.
    copies: usize,
}

/// Managing topics, and what is known of them.
pub(super) struct Topics {
    cluster: Arc<Cluster>,
    admin: AdminClient<Context>,
    asker: Arc<Asker>,
    options: Arc<KafkaOptions>,
    known: RwLock<BTreeMap<Arc<str>, Known>>,
    /// When all topics were asked for last.
    refreshed: Mutex<Option<Instant>>,
    /// Topics whose durability was warned of: once is enough.
    warned: Mutex<BTreeSet<Arc<str>>>,
}

/// The cluster does not take what a topic is to be created with.
#[derive(Debug, thiserror::Error)]
#[error(
    "the cluster, or its policy for topics, refuses the settings of topic `{topic}` ({settings}); correct those of \
     `topic_settings`, or have the topic created with what the policy wants"
)]
struct SettingsRefused {
    topic: String,
    /// All that were sent.
    settings: String,
}

impl Topics {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        cluster: Arc<Cluster>,
        admin: AdminClient<Context>,
        asker: Arc<Asker>,
    ) -> Self {
        Self {
            cluster,
            admin,
            asker,
            options,
            known: RwLock::default(),
            refreshed: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// Asks for all topics; those that Kafka and this engine keep for themselves are left out. Blocks.
    pub(super) fn list(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        self.refresh()?;
        Ok(self.listed())
    }

    /// Those that begin with the prefix of this log, as they were a moment ago: groups are looked at many times a second,
    /// and a cluster may have thousands of other people's topics. Blocks.
    pub(super) fn list_of_prefix(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        let is_known = self.refreshed.lock().is_some_and(|refreshed| refreshed.elapsed() < KNOWN_MAX);
        if !is_known {
            self.refresh()?;
        }
        let prefix = format!("{}.", self.options.prefix);
        Ok(self.listed().into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect())
    }

    fn listed(&self) -> Vec<(Arc<str>, u32)> {
        let own = own_topics(&self.options.prefix);
        let known = self.known.read();
        let shown = known.iter().filter(|(name, _)| !own.iter().any(|own| **own == ***name));
        shown.map(|(name, known)| (name.clone(), known.partitions)).collect()
    }

    fn refresh(&self) -> Result<(), Error> {
        let timeout = self.options.request_timeout;
        let metadata = self.asker.ask(|consumer| consumer.fetch_metadata(None, timeout));
        let metadata = metadata.map_err(|e| self.cluster.error("list its topics", e))?;
        let mut found = BTreeMap::new();
        for topic in metadata.topics() {
            // Kafka's own topics begin so.
            if topic.error().is_none() && !topic.name().starts_with("__") {
                let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
                let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
                found.insert(topic.name().into(), Known { partitions, copies });
            }
        }
        *self.known.write() = found;
        *self.refreshed.lock() = Some(Instant::now());
        Ok(())
    }

    /// Number of partitions of a topic; asks only when it is not known. Blocks.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<u32>, Error> {
        let known = || self.known.read().get(topic).map(|known| known.partitions);
        if let Some(partitions) = known() {
            return Ok(Some(partitions));
        }
        self.refresh()?;
        Ok(known())
    }

    /// Fails unless the partition exists. Blocks.
    pub(super) fn require(&self, partition: &TopicPartition) -> Result<(), Error> {
        match self.partitions(&partition.topic)? {
            None => Err(self.missing(&partition.topic)),
            Some(partitions) if partition.partition < partitions => Ok(()),
            // It may have got more since.
            Some(_) => {
                self.refresh()?;
                match self.known.read().get(&partition.topic) {
                    Some(known) if partition.partition < known.partitions => Ok(()),
                    Some(known) => {
                        Err(Error::UnknownPartition { partition: partition.clone(), partitions: known.partitions })
                    }
                    None => Err(self.missing(&partition.topic)),
                }
            }
        }
    }

    /// Why a topic is not in the list of all: those that we may not see are left out of it.
    fn missing(&self, topic: &str) -> Error {
        const ACTION: &str = "see a topic";
        let timeout = self.options.request_timeout;
        match self.asker.ask(|consumer| consumer.fetch_metadata(Some(topic), timeout)) {
            Ok(metadata) => {
                let code = metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
                match code {
                    Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        self.cluster.error(ACTION, KafkaError::Global(code))
                    }
                    _ => Error::UnknownTopic { topic: topic.into() },
                }
            }
            Err(error) => self.cluster.error(ACTION, error),
        }
    }

    /// [`Self::require`], as the cluster says now. Blocks.
    pub(super) fn require_anew(&self, partition: &TopicPartition) -> Result<(), Error> {
        self.known.write().remove(&partition.topic);
        self.require(partition)
    }

    /// The error for a partition that the cluster does not know, or another one.
    pub(super) fn explain(&self, partition: &TopicPartition, action: &'static str, error: KafkaError) -> Error {
        use RDKafkaErrorCode as C;
        match error.rdkafka_error_code() {
            Some(C::UnknownTopicOrPartition | C::UnknownTopic | C::UnknownPartition) => {
                match self.require_anew(partition) {
                    Err(error) => error,
                    Ok(()) => self.cluster.error(action, error),
                }
            }
            _ => self.cluster.error(action, error),
        }
    }

    /// Makes topics as specified; existing ones take over the retention. Or only checks them, as the options say.
    pub(super) async fn ensure(self: &Arc<Self>, specs: &[TopicSpec]) -> Result<(), Error> {
        let topics = Arc::clone(self);
        blocking(move || topics.refresh()).await?;
        let (mut missing, mut existing) = (Vec::new(), Vec::new());
        for spec in specs {
            match self.known.read().get(&spec.name) {
                Some(known) => existing.push((spec, *known)),
                None => missing.push(spec),
            }
        }
        if !self.options.create_topics
            && let Some(spec) = missing.first()
        {
            return Err(self.problem(&spec.name, "does not exist".into(), self.create_command(spec)));
        }
        self.create(&missing).await?;
        let found = self.describe(&existing).await?;
        self.warn_of_one_in_sync(&existing, &found);
        match self.options.create_topics {
            true => self.set_retention(&existing, &found).await,
            false => self.check(&existing, &found),
        }
    }

    async fn create(self: &Arc<Self>, specs: &[&TopicSpec]) -> Result<(), Error> {
        if specs.is_empty() {
            return Ok(());
        }
        let mut refused = self.try_create(specs, true).await?;
        if !refused.is_empty() {
            // Kafka before 3.6 does not know a setting that it does not need either.
            let again: Vec<&TopicSpec> = specs.iter().filter(|spec| refused.contains(&*spec.name)).copied().collect();
            refused = self.try_create(&again, false).await?;
        }
        if let Some(name) = refused.into_iter().next() {
            let spec = specs.iter().find(|spec| *spec.name == *name).unwrap_or(&specs[0]);
            let settings = Self::settings(&self.options, spec, false);
            let settings = settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
            let source = Box::new(SettingsRefused { topic: name, settings });
            return Err(Error::Engine { place: self.cluster.place.clone(), action: "create a topic", source });
        }
        // A created topic takes a moment to be known everywhere.
        let deadline = Instant::now() + self.options.request_timeout;
        loop {
            let topics = Arc::clone(self);
            blocking(move || topics.refresh()).await?;
            let all = specs.iter().all(|spec| self.known.read().contains_key(&spec.name));
            if all || Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Creates topics and gives the names of those whose settings were refused.
    async fn try_create(&self, specs: &[&TopicSpec], newer: bool) -> Result<BTreeSet<String>, Error> {
        const ACTION: &str = "create a topic";
        let settings: Vec<BTreeMap<String, String>> =
            specs.iter().map(|spec| Self::settings(&self.options, spec, newer)).collect();
        let replication = self.options.replication_factor.map_or(-1, i32::from);
        let topics: Vec<NewTopic<'_>> = specs
            .iter()
            .zip(&settings)
            .map(|(spec, settings)| {
                let partitions = i32::try_from(spec.partitions.max(1)).unwrap_or(i32::MAX);
                let topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication));
                settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
            })
            .collect();
        let answers = self.admin.create_topics(&topics, &self.admin_options()).await;
        let mut refused = BTreeSet::new();
        for answer in answers.map_err(|e| self.cluster.error(ACTION, e))? {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::PolicyViolation)) => {
                    refused.insert(name);
                }
                Err((name, RDKafkaErrorCode::InvalidTopic)) => {
                    return Err(Error::Refused { what: "topic", name, why: NAMES_OF_ALL });
                }
                Err((name, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    let problem = format!("cannot have {replication} copies: the cluster has fewer brokers");
                    let spec = specs.iter().find(|spec| *spec.name == *name).unwrap_or(&specs[0]);
                    return Err(self.problem(&name, problem, self.create_command(spec)));
                }
                Err((_, code)) => return Err(self.cluster.error(ACTION, KafkaError::Global(code))),
            }
        }
        Ok(refused)
    }

    /// All settings of a new topic.
    fn settings(options: &KafkaOptions, spec: &TopicSpec, newer: bool) -> BTreeMap<String, String> {
        let mut settings = retention_settings(&spec.retention);
        let mut set = |name: &str, value: String| settings.insert(name.into(), value);
        if let Some(copies) = options.replication_factor
            && copies >= 3
        {
            set(IN_SYNC_MIN, in_sync_min(copies.into()).to_string());
        }
        set("max.message.bytes", MESSAGE_BYTES_MAX.to_string());
        set("message.timestamp.type", "CreateTime".into());
        if newer {
            // The clock of a source may well be ahead of the broker's.
            set("message.timestamp.after.max.ms", i64::MAX.to_string());
        }
        // Kafka removes whole segments, never the one being written: it must be small beside what is to stay.
        if spec.retention.compact {
            set("segment.bytes", (64_u64 << 20).to_string());
        } else {
            if let Some(bytes) = spec.retention.bytes_max {
                set("segment.bytes", (bytes / 8).clamp(1 << 20, 1 << 30).to_string());
            }
            if let Some(age) = spec.retention.age_max {
                set("segment.ms", (age.as_millis() / 10).clamp(600_000, 604_800_000).to_string());
            }
        }
        settings.extend(options.topic_settings.iter().map(|(name, value)| (name.clone(), value.clone())));
        settings
    }

    async fn set_retention(&self, existing: &[(&TopicSpec, Known)], found: &[ConfigResource]) -> Result<(), Error> {
        for (spec, resource) in existing.iter().zip(found) {
            let spec = spec.0;
            let mut wanted = retention_settings(&spec.retention);
            let as_wanted =
                |name: &str, value: &str| resource.get(name).is_some_and(|entry| entry.value.as_deref() == Some(value));
            wanted.retain(|name, _| !self.options.topic_settings.contains_key(name));
            if wanted.iter().all(|(name, value)| as_wanted(name, value)) {
                continue;
            }
            // Kafka resets what this request does not name, so it names everything that was set.
            let set = |source: &ConfigSource| *source == ConfigSource::DynamicTopic;
            for entry in resource.entries.iter().filter(|entry| set(&entry.source)) {
                if let Some(value) = &entry.value {
                    wanted.entry(entry.name.clone()).or_insert_with(|| value.clone());
                }
            }
            let alter = AlterConfig::new(ResourceSpecifier::Topic(&spec.name));
            let alter = wanted.iter().fold(alter, |alter, (name, value)| alter.set(name, value));
            let answers = self.admin.alter_configs([&alter], &self.admin_options()).await;
            for answer in answers.map_err(|e| self.cluster.error("set the retention of a topic", e))? {
                answer.map_err(|(_, code)| {
                    self.cluster.error("set the retention of a topic", KafkaError::Global(code))
                })?;
            }
        }
        Ok(())
    }

    async fn describe(&self, existing: &[(&TopicSpec, Known)]) -> Result<Vec<ConfigResource>, Error> {
        const ACTION: &str = "read the settings of a topic";
        if existing.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<ResourceSpecifier<'_>> =
            existing.iter().map(|(spec, _)| ResourceSpecifier::Topic(&spec.name)).collect();
        let answers = self.admin.describe_configs(&names, &self.admin_options()).await;
        let answers = answers.map_err(|e| self.cluster.error(ACTION, e))?;
        let answers = answers
            .into_iter()
            .map(|answer| answer.map_err(|code| self.cluster.error(ACTION, KafkaError::Global(code))));
        answers.collect()
    }

    /// Size of a record that a topic and the client surely take: both count more than its key and its value.
    pub(super) async fn record_bytes_max(&self, topic: &str) -> Result<usize, Error> {
        const ACTION: &str = "read the settings of a topic";
        let answers = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &self.admin_options()).await;
        let answer = answers.map_err(|e| self.cluster.error(ACTION, e))?.into_iter().next();
        let found = answer.transpose().map_err(|code| self.cluster.error(ACTION, KafkaError::Global(code)))?;
        let of_topic = found.and_then(|found| found.get("max.message.bytes")?.value.as_ref()?.parse().ok());
        let of_client = self.options.record_bytes_max();
        Ok(of_topic.unwrap_or(of_client).min(of_client).saturating_sub(RECORD_OVERHEAD))
    }

    /// Topics that exist keep their settings, and who made them may mean this one: it is only told.
    fn warn_of_one_in_sync(&self, existing: &[(&TopicSpec, Known)], found: &[ConfigResource]) {
        if self.options.topic_settings.contains_key(IN_SYNC_MIN) {
            return;
        }
        for ((spec, known), resource) in existing.iter().zip(found) {
            let in_sync = resource.get(IN_SYNC_MIN).and_then(|entry| entry.value.as_deref());
            if !is_lost_with_one_broker(known.copies, in_sync) || !self.warned.lock().insert(Arc::clone(&spec.name)) {
                continue;
            }
            let remedy = self.alter_command(&spec.name, &format!("{IN_SYNC_MIN}={}", in_sync_min(known.copies)));
            tracing::warn!(
                topic = &*spec.name,
                copies = known.copies,
                remedy,
                "Kafka calls a record of this topic durable when one broker alone has it: it can be lost with that broker"
            );
        }
    }

    fn check(&self, existing: &[(&TopicSpec, Known)], found: &[ConfigResource]) -> Result<(), Error> {
        for ((spec, known), resource) in existing.iter().zip(found) {
            let partitions = known.partitions;
            let tool = format!("kafka-topics.sh --bootstrap-server {}", self.cluster.servers());
            if partitions < spec.partitions {
                let problem = format!("has too few partitions: {partitions}, and {} are wanted", spec.partitions);
                let remedy = format!("{tool} --alter --topic {} --partitions {}", spec.name, spec.partitions);
                return Err(self.problem(&spec.name, problem, remedy));
            }
            let wanted = policy(&spec.retention);
            let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.as_deref()).unwrap_or_default();
            if policy != wanted {
                let problem = format!("has cleanup.policy={policy}, and {wanted} is wanted");
                let remedy = self.alter_command(&spec.name, &format!("cleanup.policy={wanted}"));
                return Err(self.problem(&spec.name, problem, remedy));
            }
            let age_ms = resource.get(TOMBSTONE_MS).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
            if spec.retention.compact && age_ms.parse().is_ok_and(|age_ms: i64| age_ms > TOMBSTONE_MS_MAX) {
                let problem = format!(
                    "has {TOMBSTONE_MS}={age_ms}, whose sum with the time of day overflows in Kafka: the ends of \
                     transactions are never removed from it"
                );
                let wanted = &retention_settings(&spec.retention)[TOMBSTONE_MS];
                let remedy = self.alter_command(&spec.name, &format!("{TOMBSTONE_MS}={wanted}"));
                return Err(self.problem(&spec.name, problem, remedy));
            }
        }
        Ok(())
    }

    fn problem(&self, topic: &str, problem: String, remedy: String) -> Error {
        Error::Topic { topic: topic.into(), problem, remedy }
    }

    fn create_command(&self, spec: &TopicSpec) -> String {
        use std::fmt::Write;
        let mut command = format!(
            "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}",
            self.cluster.servers(),
            spec.name,
            spec.partitions
        );
        if let Some(copies) = self.options.replication_factor {
            write!(command, " --replication-factor {copies}").expect("writing to a String cannot fail");
        }
        for (name, value) in Self::settings(&self.options, spec, false) {
            write!(command, " --config {name}={value}").expect("writing to a String cannot fail");
        }
        command
    }

    fn alter_command(&self, topic: &str, setting: &str) -> String {
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config \
             {setting}",
            self.cluster.servers()
        )
    }

    fn admin_options(&self) -> AdminOptions {
        let timeout = Some(self.options.request_timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }
}

/// The topics that the engine keeps for itself: checkpoints of producers, schemas of tables.
pub(super) fn own_topics(prefix: &str) -> [String; 2] {
    [format!("{prefix}.checkpoints"), format!("{prefix}.schemas")]
}

/// How many of three copies or more must have a record: all but one, so that one broker may be away and what was
/// acknowledged outlives the loss of another. Two copies cannot have both, and the cluster's own setting holds.
fn in_sync_min(copies: usize) -> usize {
    copies.saturating_sub(1).max(1)
}

/// Whether Kafka acknowledges what one broker alone has, although there are copies enough to wait for another.
fn is_lost_with_one_broker(copies: usize, in_sync_min: Option<&str>) -> bool {
    copies >= 3 && in_sync_min == Some("1")
}

fn policy(retention: &Retention) -> &'static str {
    if retention.compact { "compact" } else { "delete" }
}

/// How long tombstones and the ends of transactions stay in what is compacted.
const TOMBSTONE_MS: &str = "delete.retention.ms";

/// As good as for ever. Kafka adds the age of tombstones to the time of day, and in a topic whose sum overflows nothing
/// goes: no tombstone, nor the end of any transaction.
const TOMBSTONE_MS_MAX: i64 = i64::MAX / 2;

/// What the seam's retention is in Kafka's words.
fn retention_settings(retention: &Retention) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from([("cleanup.policy".to_owned(), policy(retention).to_owned())]);
    let age_ms = retention.age_max.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    if retention.compact {
        let age_ms = age_ms.unwrap_or(TOMBSTONE_MS_MAX).min(TOMBSTONE_MS_MAX);
        settings.insert(TOMBSTONE_MS.into(), age_ms.to_string());
    } else {
        settings.insert("retention.ms".into(), age_ms.unwrap_or(-1).to_string());
        let bytes = retention.bytes_max.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        settings.insert("retention.bytes".into(), bytes.to_string());
    }
    settings
}

/// Runs what blocks where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => Err(Error::Closed),
        },
    }
}

/// What names Kafka takes for topics.
const NAMES: &str = "topic names have 1 to 249 letters, digits, dots, underscores and hyphens";

/// The same, of all topics together.
const NAMES_OF_ALL: &str = "topic names have 1 to 249 letters, digits, dots, underscores and hyphens, and no two may \
                            differ in dots and underscores alone";

/// See [`EventLog::refuses_topic`](crate::EventLog::refuses_topic).
pub(super) fn refused_name(name: &str) -> Option<&'static str> {
    let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=249).contains(&name.len()) && name.bytes().all(is_taken) && name != "." && name != "..";
    (!fits).then_some(NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_sync(options: &KafkaOptions, compact: bool) -> Option<String> {
        let retention = Retention { compact, ..Retention::default() };
        let spec = TopicSpec { name: "t".into(), partitions: 1, retention };
        Topics::settings(options, &spec, true).remove(IN_SYNC_MIN)
    }

    #[test]
    fn of_several_copies_all_but_one_must_be_in_sync() {
        let cases = [(None, None), (Some(1), None), (Some(2), None), (Some(3), Some("2")), (Some(5), Some("4"))];
        for (replication_factor, wanted) in cases {
            let options = KafkaOptions { replication_factor, ..KafkaOptions::new("nowhere:9092") };
            for compact in [false, true] {
                assert_eq!(in_sync(&options, compact).as_deref(), wanted, "{replication_factor:?}, compact: {compact}");
            }
        }
        let mut options = KafkaOptions { replication_factor: Some(3), ..KafkaOptions::new("nowhere:9092") };
        options.topic_settings = [(IN_SYNC_MIN.to_owned(), "1".to_owned())].into();
        assert_eq!(in_sync(&options, false).as_deref(), Some("1"), "what the options say wins");
    }

    #[test]
    fn only_topics_with_copies_to_wait_for_are_warned_of() {
        assert!(is_lost_with_one_broker(3, Some("1")));
        assert!(!is_lost_with_one_broker(3, Some("2")));
        assert!(!is_lost_with_one_broker(2, Some("1")));
        assert!(!is_lost_with_one_broker(1, Some("1")));
        assert!(!is_lost_with_one_broker(3, None));
    }

    /// Kafka adds the age to the time of day, in 64 bits.
    #[test]
    fn ages_of_tombstones_can_be_added_to_any_time() {
        for age_max in [None, Some(Duration::MAX), Some(Duration::from_millis(i64::MAX as u64))] {
            let settings = retention_settings(&Retention { age_max, compact: true, ..Retention::default() });
            let age_ms: i64 = settings[TOMBSTONE_MS].parse().expect("a number");
            let in_the_year_9999 = 253_402_300_799_999;
            assert!(age_ms.checked_add(in_the_year_9999).is_some(), "{age_max:?}: {age_ms}");
        }
        let day = retention_settings(&Retention::last_of_each_key());
        assert_eq!(day[TOMBSTONE_MS], "86400000");
    }

    #[test]
    fn names_that_kafka_does_not_take_are_known() {
        for name in ["hw.shop.public.orders", "a", "A-b_c.9", &"x".repeat(249)] {
            assert_eq!(refused_name(name), None, "{name}");
        }
        for name in ["", ".", "..", "hw.shop.public.Order Details", "hw.shop.public.größe", &"x".repeat(250)] {
            assert_eq!(refused_name(name), Some(NAMES), "{name}");
        }
    }
}
