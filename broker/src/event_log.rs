//! The seam between the pipeline and its broker.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{AppendBatch, Error, FetchedBatch};

/// One partition of a topic: the unit of order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Place of a record in its partition, counted from 0. Between records there are gaps only where some were removed, and
/// behind appends; see [`Producer::offsets_behind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// What a topic is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: Arc<str>,
    /// Number of partitions, at least 1. Cannot be changed once the topic exists.
    pub partitions: u32,
    /// What may be removed.
    pub retention: Retention,
}

impl TopicSpec {
    /// The topic of dead letters. Nobody removes letters, and what is wrong once may be wrong with every change near it:
    /// the oldest go beyond 1 GiB, so that they do not take the room of what is captured.
    pub fn dead_letters(name: Arc<str>) -> Self {
        Self { name, partitions: 1, retention: Retention { bytes_max: Some(1 << 30), ..Retention::default() } }
    }
}

/// Which records a topic may lose. Limits are lower bounds of what stays: an engine removes whole batches, later rather
/// than sooner, and may keep what a consumer group that commits offsets has not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this may go; `None` keeps them for ever.
    pub age_max: Option<Duration>,
    /// Oldest records may go while a partition is larger than this; `None` keeps any size.
    pub bytes_max: Option<u64>,
    /// Of several records with one key only the last must stay; `bytes_max` does not apply, and `age_max` only to
    /// tombstones, which may go at that age (`None`: never). Offsets stay as they are: there are gaps, also at the low
    /// watermark.
    pub compact: bool,
}

impl Retention {
    /// Of what is written again and again under few keys, the last of each. A tombstone may go after a day: where appends
    /// are transactions their ends stay as long, and what is to stay for ever would fill the topic with them.
    pub fn last_of_each_key() -> Self {
        Self { age_max: Some(Duration::from_secs(86_400)), bytes_max: None, compact: true }
    }
}

/// First offset present and next offset to be written; equal when the partition is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset present.
    pub low: Offset,
    /// Next offset to be written.
    pub high: Offset,
}

/// Where a fetch starts in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The partition.
    pub partition: TopicPartition,
    /// The first wanted offset.
    pub offset: Offset,
}

/// How much one fetch brings.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Stop once this many bytes are gathered; at least one batch is brought where there is one.
    pub bytes_max: usize,
    /// Wait this long for a first record before answering with nothing.
    pub wait_max: Duration,
}

/// Topics of records, durable and ordered per partition.
///
/// *Order*: records of a partition are read in the order they were appended. Between partitions there is none.
/// *Durability*: see [`Producer::append`]. *Duplicates*: a record is read once per fetch of its offset; an append whose
/// answer was lost may be in the log, and its writer finds out from the checkpoint. *Cancellation*: every future may be
/// dropped at any point; a dropped append may or may not have happened.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Creates the topics that do not exist. An existing topic keeps its partitions and takes over the retention.
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error>;

    /// Why no topic can have this name, if none can; by the name alone, without asking anybody.
    fn refuses_topic(&self, name: &str) -> Option<&'static str> {
        let _ = name;
        None
    }

    /// Every topic and its number of partitions, by name.
    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error>;

    /// What tells this log apart from every other one: made with it, and never changed. What is kept of offsets elsewhere
    /// counts in this log alone. `None` where the engine does not tell.
    async fn id(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Opens the producer `name` and shuts out every earlier one of that name: their appends fail with
    /// [`Error::Fenced`] from here on. So does this, once, when another process has opened the name since this one did: who
    /// asks again after that wants it back.
    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error>;

    /// Appends under no name, for records that are harmless twice, and of which nobody else must be shut out. Durable when
    /// answered. After an error any part of the batches may be in the log, or come there yet.
    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error>;

    /// Reads on in several partitions. Brings whole batches (the first may start before the wanted offset only by
    /// records that are cut off) fairly among partitions; answers with nothing after `wait_max`. Fails with
    /// [`Error::OffsetOutOfRange`] when a wanted offset is below the low or above the high watermark.
    async fn fetch(&self, from: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error>;

    /// Where a partition begins and ends now.
    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error>;

    /// Offset of the first record with this timestamp (milliseconds since 1970) or a later one; the high watermark when
    /// there is none. Engines may answer with an earlier offset of the same batch, and where appends have offsets behind
    /// them with an earlier one altogether; never with a later one.
    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error>;

    /// Stores the next offsets a consumer group wants, all or none, durable when answered. From then on retention keeps
    /// what the group has not read of these partitions; see [`Retention`].
    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error>;

    /// What [`Self::commit_offsets`] stored last, by partition. An engine whose cluster others use, too, may leave out topics
    /// that do not begin with its own prefix.
    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error>;

    /// Says that a consumer group does not read these partitions any more, so that retention keeps nothing for it. An
    /// engine whose retention waits for nobody has nothing to forget.
    async fn forget_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        let _ = (group, partitions);
        Ok(())
    }

    /// Joins a group whose members share the partitions of these topics, each of which is assigned to one of them. Topics
    /// that do not exist yet are shared once they do. Answers before anything is assigned. Groups that share work and
    /// groups that commit offsets have nothing to do with each other, also if they have one name.
    async fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error>;
}

/// A place in a group; left when dropped.
///
/// It shares work, and excludes nobody: a member that was stopped or cut off from the others goes on for a while with what
/// another has been given by then. Whatever members write must be harmless when two of them do.
pub trait Membership: Send + Sync {
    /// The partitions that are this member's. Changes as members come and go, and as topics and partitions are made; those
    /// that stay with a member stay assigned throughout.
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>>;
}

/// Bytes of the records of a batch.
#[derive(Clone, Debug, Default)]
pub struct RecordSizes {
    /// What is surely taken.
    pub max: usize,
    /// The size of each record, as [`Error::TooLarge`] tells it.
    pub bytes: Vec<usize>,
}

/// The right to append under a name. One process per name has it; see [`EventLog::producer`].
#[async_trait]
pub trait Producer: Send + Sync {
    /// The checkpoint stored with the last append that had one, also by an earlier producer of this name. Fails with
    /// [`Error::Fenced`] once another has taken over.
    async fn checkpoint(&self) -> Result<Option<Bytes>, Error>;

    /// Appends the batches and replaces the checkpoint, all or none; durable when answered. Answers with the offset of
    /// each batch's first record, in the order of `batches`. Appends take effect in the order in which they are first
    /// polled; several may be in flight. Once an append has failed, all later ones of this producer fail too (with
    /// [`Error::Broken`] if for no other reason), since they would leave a gap behind a newer checkpoint: open the
    /// producer again and go on from its checkpoint.
    async fn append(&self, batches: Vec<AppendBatch>, checkpoint: Option<Bytes>) -> Result<Vec<Offset>, Error>;

    /// How large the records of a batch are where they go, and may be; `None` where records of any size are taken, or the
    /// caller may not know. Costs about what an append does: for callers of whom one was refused ([`Error::TooLarge`]).
    async fn record_sizes(&self, _batch: &AppendBatch) -> Result<Option<RecordSizes>, Error> {
        Ok(None)
    }

    /// Offsets that the records of a batch take, for callers who count offsets ahead of answers: as a rule the number of
    /// records. An engine that writes further records of its own between them counts those too.
    fn offsets_of(&self, batch: &AppendBatch) -> u64 {
        u64::from(batch.records.count())
    }

    /// Offsets that an append takes behind its records, in every partition it has records for. No record is there:
    /// readers pass over them. 0 where nothing is in between, 1 where the end of a transaction has an offset. That may
    /// come to stand behind the next append's records: they are then so much earlier than counted, never later.
    fn offsets_behind(&self) -> u64 {
        0
    }
}
