//! The embedded engine: an append log in LMDB.
//!
//! A batch is stored as it comes, under the number of its partition and the offset of its first record. One thread
//! writes: it takes all appends that wait, applies them in order in one transaction, and answers them once that is on
//! disk, so that many producers share one wait for the disk. Readers read the memory map beside it and never wait.
//!
//! Retention never removes a record that a consumer group which commits offsets on its partition has not committed past:
//! such a group holds back the removal, however old or many its records are, and the low watermark shows it.

mod batches;
mod compaction;
mod core;
mod fetch;
mod maintenance;
mod membership;
mod producer;
mod room;
mod tables;
mod transaction;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use self::core::Core;
use self::membership::EmbeddedMembership;
use self::producer::EmbeddedProducer;
use self::tables::{ID, group_name, group_partition, group_prefix};
use self::writer::{Command, Writer};
use crate::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, LogMetrics, Membership, Offset, Producer,
    TopicPartition, TopicSpec, Watermarks,
};

/// Where and how an embedded log is kept.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The log's own folder, on a local disk; made if it is not there.
    pub folder: PathBuf,
    /// Appends are refused with [`Error::Full`] rather than use more than this many bytes. The file grows as needed,
    /// and never shrinks; it may become a little larger than this.
    pub size_max: u64,
    /// How often retention and compaction look for work.
    pub maintenance_interval: Duration,
}

impl EmbeddedOptions {
    /// In this folder, at most 64 GiB, maintenance every ten seconds.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), size_max: 64 << 30, maintenance_interval: Duration::from_secs(10) }
    }
}

/// The producer of what is appended under no name. There is one process, and so one of it.
const NAMELESS: &str = "headwater/nameless";

/// An open embedded log. Dropping it and its producers closes it.
pub struct EmbeddedLog {
    writer: Arc<WriterHandle>,
    /// For what is appended under no name.
    nameless: tokio::sync::Mutex<Option<Arc<dyn Producer>>>,
}

/// The way to the writer thread, and to the environment.
struct WriterHandle {
    core: Arc<Core>,
    /// Every write in it has a caller who waits for its answer, so it is as long as what the callers have in flight, and
    /// holds no memory that they would not hold while waiting for room. Room to wait for would cost the order: whoever
    /// comes first when there is room again may overtake one that was woken for it but has not run yet.
    ///
    /// `None` only while dropping.
    queue: Option<mpsc::UnboundedSender<Command>>,
    appended: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLog {
    /// Opens the log, or makes an empty one. Fails with [`Error::InUse`] while another process has it open.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, Error> {
        let core = Arc::new(Core::open(&options)?);
        let (queue, commands) = mpsc::unbounded_channel();
        let (wake, appended) = watch::channel(0);
        let thread = Writer::start(core.clone(), commands, wake, &options)?;
        let writer = WriterHandle { core, queue: Some(queue), appended, thread: Mutex::new(Some(thread)) };
        Ok(Arc::new(Self { writer: Arc::new(writer), nameless: tokio::sync::Mutex::default() }))
    }

    /// Consumer groups that have committed offsets, and hold back retention.
    pub fn groups(&self) -> Result<Vec<String>, Error> {
        let core = &self.writer.core;
        let read = || -> heed::Result<_> {
            let txn = core.env.read_txn()?;
            let mut groups: Vec<String> = Vec::new();
            for entry in core.tables.groups.iter(&txn)? {
                let name = group_name(entry?.0);
                if groups.last() != Some(&name) {
                    groups.push(name);
                }
            }
            Ok(groups)
        };
        read().map_err(|e| core.engine("read its consumer groups", e))
    }

    /// What it counts.
    pub fn metrics(&self) -> &LogMetrics {
        &self.writer.core.metrics
    }

    /// Finishes the writes that wait, then ends the writer. Every later call that writes or waits fails with
    /// [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        self.writer.send(Command::Close).await
    }
}

impl WriterHandle {
    /// Sends a write, at the first poll, and waits for its answer.
    async fn send<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.send(command(answer)).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        // Without senders the writer ends after what it is doing, at most one transaction.
        self.queue = None;
        if let Some(thread) = self.thread.get_mut().take()
            && thread.join().is_err()
        {
            tracing::error!(log = %self.core.place, "the log's writer ended by a panic");
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        let specs = specs.to_vec();
        self.writer.send(|answer| Command::CreateTopics { specs, answer }).await
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        let topics = self.writer.core.topics.read();
        Ok(topics.by_name.iter().map(|(name, row)| (name.clone(), row.partitions)).collect())
    }

    async fn id(&self) -> Result<Option<String>, Error> {
        let core = &self.writer.core;
        let read = || -> heed::Result<_> {
            let txn = core.env.read_txn()?;
            Ok(core.tables.meta.get(&txn, ID)?.map(str::to_owned))
        };
        read().map_err(|e| core.engine("read its id", e))
    }

    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error> {
        let name: Arc<str> = name.into();
        let epoch = self.writer.send(|answer| Command::OpenProducer { name: name.clone(), answer }).await?;
        Ok(Arc::new(EmbeddedProducer::new(self.writer.clone(), name, epoch)))
    }

    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        let producer = {
            let mut nameless = self.nameless.lock().await;
            match &*nameless {
                Some(producer) => producer.clone(),
                None => nameless.insert(self.producer(NAMELESS).await?).clone(),
            }
        };
        let appended = producer.append(batches, None).await;
        if appended.is_err() {
            // After a failed append a producer takes no other.
            let mut nameless = self.nameless.lock().await;
            nameless.take_if(|it| Arc::ptr_eq(it, &producer));
        }
        appended.map(|_| ())
    }

    async fn fetch(&self, from: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        fetch::fetch(&self.writer.core, self.writer.appended.clone(), from, limits).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        let core = &self.writer.core;
        let id = core.partition(partition)?;
        let txn = core.env.read_txn().map_err(|e| core.engine("begin to read", e))?;
        Ok(core.row(&txn, id)?.watermarks())
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        fetch::offset_at(&self.writer.core, partition, timestamp_ms)
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let (group, offsets) = (group.to_owned(), offsets.to_vec());
        self.writer.send(|answer| Command::CommitOffsets { group, offsets, answer }).await
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let core = &self.writer.core;
        let read = || -> heed::Result<_> {
            let txn = core.env.read_txn()?;
            let mut committed = Vec::new();
            for entry in core.tables.groups.prefix_iter(&txn, &group_prefix(group))? {
                let (key, offset) = entry?;
                let name = group_partition(key).and_then(|id| core.name(id));
                committed.extend(name.map(|name| (name, Offset(offset))));
            }
            Ok(committed)
        };
        read().map_err(|e| core.engine("read committed offsets", e))
    }

    async fn forget_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        let (group, partitions) = (group.to_owned(), partitions.to_vec());
        self.writer.send(|answer| Command::ForgetOffsets { group, partitions, answer }).await
    }

    async fn join(&self, _group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        Ok(Box::new(EmbeddedMembership::new(&self.writer.core, topics.to_vec())))
    }
}
