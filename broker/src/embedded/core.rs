//! The open environment, shared by readers and the writer.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use heed::{Env, EnvOpenOptions, MdbError, RoTxn, WithoutTls};
use parking_lot::RwLock;

use super::EmbeddedOptions;
use super::room::no_room;
use super::tables::{FORMAT, PartitionId, PartitionRow, TABLES, Tables, TopicRow, Topics};
use crate::metrics::{LogMetrics, PartitionLabels};
use crate::{Error, TopicPartition};

/// The file whose lock says that a process has the log open.
const LOCK_FILE: &str = "headwater.lock";

/// Room in the map beyond `size_max`, so that a full log can still commit offsets and remove old records, both of which
/// write new pages before old ones become free.
const RESERVE: u64 = 16 << 20;

/// How many read transactions may be open at once.
const READERS: u32 = 512;

pub(super) struct Core {
    // Before `_lock`: the environment is closed while the folder is still ours.
    pub env: Env<WithoutTls>,
    pub tables: Tables,
    pub topics: RwLock<Topics>,
    /// By number. A consumer gets clones of these, so equal preludes are also the same memory.
    pub preludes: RwLock<Vec<Bytes>>,
    pub metrics: LogMetrics,
    pub size_max: u64,
    /// Number of fetches so far.
    pub fetches: AtomicU64,
    /// Where the log is, for messages.
    pub place: String,
    _lock: File,
}

impl Core {
    pub(super) fn open(options: &EmbeddedOptions) -> Result<Self, Error> {
        let place = options.folder.display().to_string();
        let engine = |action: &'static str| {
            let place = place.clone();
            move |source: Box<dyn std::error::Error + Send + Sync>| Error::Engine { place, action, source }
        };
        std::fs::create_dir_all(&options.folder).map_err(|e| engine("create its folder")(e.into()))?;
        let lock = lock(&options.folder, &place)?;
        let env = open_env(options).map_err(|e| engine("open")(e.into()))?;
        // The files themselves must be there after a loss of power, not only what is in them.
        File::open(&options.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| engine("sync its folder")(e.into()))?;
        if let Some(found) = Tables::other_format(&env).map_err(|e| engine("read its format")(e.into()))? {
            return Err(Error::OtherFormat { place, found, read: FORMAT });
        }
        let read = || -> heed::Result<_> {
            // Slots of readers that were killed would keep old pages from being used again.
            env.clear_stale_readers()?;
            let tables = Tables::create(&env)?;
            let txn = env.read_txn()?;
            let topics: Vec<(Arc<str>, Option<TopicRow>)> = tables
                .topics
                .iter(&txn)?
                .map(|entry| entry.map(|(name, row)| (Arc::from(name), TopicRow::decode(row))))
                .collect::<heed::Result<_>>()?;
            let preludes: Vec<Bytes> = tables
                .preludes
                .iter(&txn)?
                .map(|entry| entry.map(|(_, bytes)| Bytes::copy_from_slice(bytes)))
                .collect::<heed::Result<_>>()?;
            Ok((tables, topics, preludes))
        };
        let (tables, rows, preludes) = read().map_err(|e| engine("open")(e.into()))?;
        let mut topics = Topics::default();
        for (name, row) in rows {
            let row = row.ok_or_else(|| Error::Damaged {
                place: place.clone(),
                what: format!("the definition of topic `{name}` is cut short"),
            })?;
            topics.insert(name, row);
        }
        let core = Self {
            env,
            tables,
            topics: RwLock::new(topics),
            preludes: RwLock::new(preludes),
            metrics: LogMetrics::default(),
            size_max: options.size_max,
            fetches: AtomicU64::new(0),
            place,
            _lock: lock,
        };
        core.show_all()?;
        Ok(core)
    }

    /// Publishes the watermarks of all partitions.
    fn show_all(&self) -> Result<(), Error> {
        let engine = |e| self.engine("read its partitions", e);
        let txn = self.env.read_txn().map_err(engine)?;
        for entry in self.tables.partitions.iter(&txn).map_err(engine)? {
            let id = PartitionId(entry.map_err(engine)?.0);
            self.show(id, &self.row(&txn, id)?);
        }
        let used = self.tables.used(&txn).map_err(engine)?;
        self.metrics.size_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        Ok(())
    }

    /// The engine failed at something.
    pub(super) fn engine(&self, action: &'static str, source: heed::Error) -> Error {
        self.failures(action, source)()
    }

    /// The same for several callers.
    pub(super) fn failures(&self, action: &'static str, source: heed::Error) -> impl Fn() -> Error {
        let (place, full) = (self.place.clone(), no_room(self.env.path(), &source));
        // LMDB's answer to everything once it could not write a meta page: to try again is no use.
        let refused = matches!(source, heed::Error::Mdb(MdbError::Panic));
        let source = Arc::new(source);
        move || match &full {
            _ if refused => Error::DiskRefused { place: place.clone() },
            Some(cause) => Error::Full { place: place.clone(), cause: cause.clone() },
            None => Error::Engine { place: place.clone(), action, source: Box::new(source.clone()) },
        }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { place: self.place.clone(), what: what.into() }
    }

    /// The number of a partition.
    pub(super) fn partition(&self, partition: &TopicPartition) -> Result<PartitionId, Error> {
        let topics = self.topics.read();
        let topic = topics
            .by_name
            .get(&partition.topic)
            .ok_or_else(|| Error::UnknownTopic { topic: partition.topic.to_string() })?;
        if partition.partition >= topic.partitions {
            return Err(Error::UnknownPartition { partition: partition.clone(), partitions: topic.partitions });
        }
        Ok(PartitionId::new(topic.number, partition.partition))
    }

    /// The name of a partition.
    pub(super) fn name(&self, id: PartitionId) -> Option<TopicPartition> {
        let topic = self.topics.read().by_number.get(&id.topic())?.clone();
        Some(TopicPartition { topic, partition: id.partition() })
    }

    /// Publishes the watermarks of a partition.
    pub(super) fn show(&self, id: PartitionId, row: &PartitionRow) {
        let Some(name) = self.name(id) else { return };
        let labels = PartitionLabels { topic: name.topic.to_string(), partition: name.partition };
        let gauge = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
        self.metrics.low_watermark.get_or_create(&labels).set(gauge(row.low));
        self.metrics.high_watermark.get_or_create(&labels).set(gauge(row.high));
    }

    /// The state of a partition; an empty one if nothing was ever appended.
    pub(super) fn row(&self, txn: &RoTxn<'_>, id: PartitionId) -> Result<PartitionRow, Error> {
        match self.tables.partitions.get(txn, &id.0).map_err(|e| self.engine("read a partition", e))? {
            None => Ok(PartitionRow::default()),
            Some(bytes) => {
                PartitionRow::decode(bytes).ok_or_else(|| self.damaged(format!("the state of partition {id:?}")))
            }
        }
    }

    /// The prelude with this number, which `txn` sees.
    pub(super) fn prelude(&self, txn: &RoTxn<'_>, number: u32) -> Result<Bytes, Error> {
        if let Some(prelude) = self.preludes.read().get(number as usize) {
            return Ok(prelude.clone());
        }
        // Committed a moment ago, and about to be in `preludes`.
        match self.tables.preludes.get(txn, &number).map_err(|e| self.engine("read a prelude", e))? {
            Some(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            None => Err(self.damaged(format!("prelude {number} is missing"))),
        }
    }
}

fn lock(folder: &Path, place: &str) -> Result<File, Error> {
    let engine = |e: std::io::Error| Error::Engine { place: place.to_owned(), action: "lock", source: e.into() };
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE)).map_err(engine)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { place: place.to_owned() }),
        Err(TryLockError::Error(e)) => Err(engine(e)),
    }
}

// LMDB maps its file into memory, which is sound only while nobody else changes that file: the lock taken before says
// that no other process of ours has it open, and no flag that weakens its promises is set.
#[allow(unsafe_code)]
fn open_env(options: &EmbeddedOptions) -> heed::Result<Env<WithoutTls>> {
    let size = options.size_max.saturating_add(options.size_max / 8).saturating_add(RESERVE);
    // Whole pages, whatever their size.
    let size = usize::try_from(size).unwrap_or(usize::MAX) & !0xffff;
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(size).max_dbs(TABLES).max_readers(READERS);
    // SAFETY: see above.
    unsafe { open.open(&options.folder) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use heed::EnvFlags;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_meta_page_that_was_not_written_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let core = Core::open(&EmbeddedOptions::new(folder.path())).unwrap();
        let error = core.engine("write", heed::Error::Mdb(MdbError::Panic));
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.to_string().contains("mend the disk"), "{error}");
        let error = core.engine("write", heed::Error::Io(std::io::ErrorKind::Other.into()));
        assert_eq!(error.kind(), ErrorKind::Retryable);
    }

    #[test]
    fn a_log_of_another_format_is_refused_and_one_of_before_is_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::new(folder.path());
        // As earlier versions left it.
        let put = |format: Option<&str>| {
            let core = Core::open(&options).unwrap();
            let mut txn = core.env.write_txn().unwrap();
            match format {
                Some(format) => core.tables.meta.put(&mut txn, "format", format).unwrap(),
                None => core.tables.meta.clear(&mut txn).unwrap(),
            }
            txn.commit().unwrap();
        };
        put(None);
        let core = Core::open(&options).unwrap();
        assert_eq!(core.tables.meta.get(&core.env.read_txn().unwrap(), "format").unwrap(), Some("1"));
        drop(core);
        put(Some("2"));
        let Err(refused) = Core::open(&options) else { panic!("it is of another format") };
        assert_eq!(refused.kind(), ErrorKind::Fatal);
        assert!(refused.to_string().contains("its format is 2, this version reads 1"), "{refused}");
        // That it was refused has changed nothing.
        assert!(Core::open(&options).is_err());
    }

    /// A loss of power cannot be had in a test, and a kill loses no page that the system has. That a commit waits for the disk
    /// is LMDB's promise, which only these flags take back.
    #[test]
    fn no_flag_takes_back_that_a_commit_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let core = Core::open(&EmbeddedOptions::new(folder.path())).unwrap();
        let flags = EnvFlags::from_bits_truncate(core.env.get_flags().unwrap());
        let weaker = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::MAP_ASYNC | EnvFlags::WRITE_MAP;
        assert!(!flags.intersects(weaker), "{flags:?}");
    }
}
