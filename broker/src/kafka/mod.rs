//! The engine over Apache Kafka, for pipelines that outgrow one machine; other systems read its topics too.
//!
//! An append is a Kafka transaction, and everything is read `read_committed`: nobody sees half of one. Records of table
//! topics are Debezium's JSON on the wire and binary events on both sides of the seam; see `wire.rs`. Readers are told
//! where to read and belong to no group. Two compacted topics are the engine's own: `{prefix}.checkpoints`, where
//! connectors left off, and `{prefix}.schemas`, what events were written with.
//!
//! The end of a transaction takes an offset of its own in every partition it has records in
//! ([`crate::Producer::offsets_behind`]). Readers get there by an empty batch, so that they can stand at the end.
//!
//! Kafka's retention does not wait for readers. One that was overtaken is told so, and never silently set elsewhere.

mod asker;
mod checkpoints;
mod client;
mod deliveries;
mod ends;
mod fetch;
mod forgotten;
mod groups;
mod headers;
mod lane;
mod membership;
mod nameless;
mod options;
mod producer;
mod readers;
mod scan;
mod schemas;
mod topics;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::admin::AdminClient;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

pub use self::options::{KafkaOptions, KafkaSasl, KafkaTls, SaslMechanism};

use self::asker::Asker;
use self::checkpoints::{Doubts, Opened};
use self::client::{Cluster, Context};
use self::ends::Ends;
use self::groups::Groups;
use self::membership::KafkaMembership;
use self::nameless::Nameless;
use self::producer::KafkaProducer;
use self::readers::Readers;
use self::scan::Scanner;
use self::schemas::Schemas;
use self::topics::{Topics, blocking, own_topics};
use crate::metrics::{GroupLabels, PartitionLabels};
use crate::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, LogMetrics, Membership, Offset, Producer,
    Retention, TopicPartition, TopicSpec, Watermarks,
};

/// What was appended cannot be read yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} ends at {end} for readers, before what this process has appended: another producer's transaction is open there; it \
     ends when that producer goes on or is opened anew, or by the cluster's timeout",
    end = .1.0
)]
struct NotVisible(TopicPartition, Offset);

/// How long to wait until a reader can see what this process itself has appended.
const VISIBLE_MAX: Duration = Duration::from_secs(5);

/// A log in a Kafka cluster.
pub struct KafkaLog {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<KafkaOptions>,
    cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    schemas: Arc<Schemas>,
    scanner: Scanner,
    readers: Readers,
    groups: Groups,
    nameless: Nameless,
    ends: Ends,
    doubts: Doubts,
    opened: Opened,
    metrics: LogMetrics,
    fetches: AtomicU64,
    checkpoints: TopicPartition,
    schema_topic: TopicPartition,
    asker: Arc<Asker>,
}

impl KafkaLog {
    /// Prepares the use of a cluster, without yet talking to it: see [`Self::check`]. Fails when options are refused.
    pub fn open(options: KafkaOptions) -> Result<Arc<Self>, Error> {
        options.check()?;
        let options = Arc::new(options);
        let cluster = Cluster::new(&options.bootstrap_servers);
        let context = || Context(Arc::clone(&cluster));
        let failed = |e| cluster.error("open a client", e);
        let asker = Arc::new(Asker::open(&options, &cluster).map_err(failed)?);
        let admin = AdminClient::from_config_and_context(&options.admin(), context()).map_err(failed)?;
        let scanner = Scanner::new(Arc::clone(&cluster), Arc::clone(&options), Arc::clone(&asker));
        let topics = Topics::new(Arc::clone(&options), Arc::clone(&cluster), admin, Arc::clone(&asker));
        let [checkpoints, schemas] =
            own_topics(&options.prefix).map(|topic| TopicPartition { topic: topic.into(), partition: 0 });
        let inner = Inner {
            topics: Arc::new(topics),
            schemas: Arc::new(Schemas::new(&schemas.topic, scanner.clone())),
            scanner,
            readers: Readers::default(),
            groups: Groups::default(),
            nameless: Nameless::default(),
            ends: Ends::default(),
            doubts: Doubts::default(),
            opened: Opened::new(),
            metrics: LogMetrics::default(),
            fetches: AtomicU64::new(0),
            checkpoints,
            schema_topic: schemas,
            asker,
            options,
            cluster,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Asks the cluster for its topics and makes or checks the engine's own: what is wrong is told early.
    pub async fn check(&self) -> Result<(), Error> {
        self.inner.ensure_own_topics().await
    }

    /// What it counts: the same as other engines, but for removed records and size, which only the cluster knows. What
    /// becomes durable together is one append.
    pub fn metrics(&self) -> &LogMetrics {
        &self.inner.metrics
    }
}

impl Inner {
    async fn ensure_own_topics(&self) -> Result<(), Error> {
        let retention = Retention::last_of_each_key();
        let own = [&self.checkpoints, &self.schema_topic];
        let specs =
            own.map(|place| TopicSpec { name: Arc::clone(&place.topic), partitions: 1, retention: retention.clone() });
        self.topics.ensure(&specs).await
    }

    /// Where a partition begins and ends for readers. What this process has appended is seen, or it is an error: an end
    /// that is too low would be taken for one that is reached. Blocks.
    fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        let deadline = Instant::now() + VISIBLE_MAX;
        loop {
            let marks = match self.scanner.watermarks(partition)? {
                Some(marks) => marks,
                None => {
                    self.topics.require_anew(partition)?;
                    // Whoever leads the partition may not have heard yet of a topic that another broker shows.
                    if Instant::now() > deadline {
                        let unknown = KafkaError::Global(RDKafkaErrorCode::UnknownTopicOrPartition);
                        return Err(self.engine("find the end of a partition", unknown));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            // A committed transaction becomes visible a moment after its producer was answered.
            if self.ends.is_reached(partition, marks.high.0) {
                self.measure(partition, marks);
                return Ok(marks);
            }
            if Instant::now() > deadline {
                return Err(self.engine("find the end of a partition", NotVisible(partition.clone(), marks.high)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn measure(&self, partition: &TopicPartition, marks: Watermarks) {
        let labels = PartitionLabels { topic: partition.topic.to_string(), partition: partition.partition };
        let number = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
        self.metrics.low_watermark.get_or_create(&labels).set(number(marks.low));
        self.metrics.high_watermark.get_or_create(&labels).set(number(marks.high));
    }

    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        const ACTION: &str = "find an offset by time";
        self.topics.require(partition)?;
        let marks = self.watermarks(partition)?;
        // Kafka has no times before 1970, and other uses for negative ones.
        if timestamp_ms <= 1 {
            return Ok(marks.low);
        }
        let failed = |e| self.topics.explain(partition, ACTION, e);
        let timeout = self.options.request_timeout;
        let mut list = TopicPartitionList::new();
        let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
        list.add_partition_offset(&partition.topic, number, rdkafka::Offset::Offset(timestamp_ms)).map_err(failed)?;
        let found = self.asker.ask(|consumer| consumer.offsets_for_times(list, timeout)).map_err(failed)?;
        let found = found.find_partition(&partition.topic, number);
        match found.map(|element| (element.error(), element.offset())) {
            Some((Err(error), _)) => Err(failed(error)),
            Some((Ok(()), rdkafka::Offset::Offset(offset))) => Ok(Offset(offset.max(0) as u64)),
            _ => Ok(marks.high),
        }
    }

    fn engine(&self, action: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Engine { place: self.cluster.place.clone(), action, source: Box::new(source) }
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        self.inner.topics.ensure(specs).await
    }

    fn refuses_topic(&self, name: &str) -> Option<&'static str> {
        topics::refused_name(name)
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        let topics = Arc::clone(&self.inner.topics);
        blocking(move || topics.list()).await
    }

    /// The cluster's: the client does not tell the ids of topics. One that was removed and made anew is met at its end.
    async fn id(&self) -> Result<Option<String>, Error> {
        let inner = Arc::clone(&self.inner);
        let timeout = self.inner.options.request_timeout;
        blocking(move || {
            let id = inner.asker.ask(|consumer| Ok(consumer.client().fetch_cluster_id(timeout)));
            id.map_err(|e| inner.cluster.error("ask for its id", e))
        })
        .await
    }

    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error> {
        self.inner.ensure_own_topics().await?;
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let producer = blocking(move || KafkaProducer::open(inner, &name)).await?;
        Ok(Arc::new(producer))
    }

    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.nameless.append(&inner, &batches)).await
    }

    async fn fetch(&self, from: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        fetch::fetch(&self.inner, from, limits).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        let (inner, partition) = (Arc::clone(&self.inner), partition.clone());
        blocking(move || inner.watermarks(&partition)).await
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        let (inner, partition) = (Arc::clone(&self.inner), partition.clone());
        blocking(move || inner.offset_at(&partition, timestamp_ms)).await
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let (inner, group, offsets) = (Arc::clone(&self.inner), group.to_owned(), offsets.to_vec());
        blocking(move || {
            offsets.iter().try_for_each(|(partition, _)| inner.topics.require(partition))?;
            inner.groups.commit(&group, &offsets, &inner.options, &inner.cluster)
        })
        .await
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let (inner, group) = (Arc::clone(&self.inner), group.to_owned());
        blocking(move || {
            let topics = inner.topics.list_of_prefix()?;
            inner.groups.committed(&group, &topics, &inner.options, &inner.cluster)
        })
        .await
    }

    async fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        let (inner, group, topics) = (Arc::clone(&self.inner), group.to_owned(), topics.to_vec());
        let rebalances = inner.metrics.rebalances.get_or_create(&GroupLabels { group: group.clone() }).clone();
        let joined = move || KafkaMembership::join(&inner.options, &inner.cluster, &group, &topics, rebalances);
        Ok(Box::new(blocking(joined).await?))
    }
}
