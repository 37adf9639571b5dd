//! What stands where in the LMDB environment.

use std::sync::Arc;
use std::time::Duration;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, Str, U32, U64, U128};
use heed::{Database, Env, RoTxn, WithoutTls};
use uuid::Uuid;

use crate::{Offset, Retention, Watermarks};

/// Key of a batch: the number of the topic, of the partition, and the offset of the first record, so that a partition is
/// one range of keys in the order of offsets.
pub(super) fn batch_key(partition: PartitionId, offset: u64) -> u128 {
    (u128::from(partition.0) << 64) | u128::from(offset)
}

/// The offset in a [`batch_key`].
pub(super) fn offset_of(key: u128) -> u64 {
    key as u64
}

/// The partition in a [`batch_key`].
pub(super) fn partition_of(key: u128) -> PartitionId {
    PartitionId((key >> 64) as u64)
}

/// Number of a topic and of one of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartitionId(pub u64);

impl PartitionId {
    pub(super) fn new(topic: u32, partition: u32) -> Self {
        Self((u64::from(topic) << 32) | u64::from(partition))
    }

    pub(super) fn topic(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn partition(self) -> u32 {
        self.0 as u32
    }
}

/// The databases of the environment.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    /// What is known of the log as a whole; see [`ID`].
    pub meta: Database<Str, Str>,
    /// By name: [`TopicRow`].
    pub topics: Database<Str, Bytes>,
    /// By [`PartitionId`]: [`PartitionRow`].
    pub partitions: Database<U64<BigEndian>, Bytes>,
    /// By [`batch_key`]: number of the prelude, number of records, records. See [`StoredBatch`].
    pub records: Database<U128<BigEndian>, Bytes>,
    /// By [`batch_key`]: [`BatchRow`], what retention and search by time need, without touching the records' pages.
    pub batches: Database<U128<BigEndian>, Bytes>,
    /// Preludes by number. The same prelude is stored once.
    pub preludes: Database<U32<BigEndian>, Bytes>,
    /// By name: epoch, then the checkpoint if there is one behind a 1, else a 0.
    pub producers: Database<Str, Bytes>,
    /// By group name, a zero byte and [`PartitionId`]: next offset.
    pub groups: Database<Bytes, U64<BigEndian>>,
}

/// Number of databases.
pub(super) const TABLES: u32 = 8;

/// Format of the log; a change that older code cannot read makes it greater.
pub(super) const FORMAT: u32 = 1;

/// Under this key in `meta`: the format, in decimal. Logs of before have none, and are of the first.
const FORMAT_KEY: &str = "format";

/// Under this key in `meta`: what tells the log apart from every other one. Logs of before have none until they are opened.
pub(super) const ID: &str = "id";

impl Tables {
    /// The format that a log says it has, if it is another one than ours; nothing is changed for that.
    pub(super) fn other_format(env: &Env<WithoutTls>) -> heed::Result<Option<String>> {
        let txn = env.read_txn()?;
        let Some(meta) = env.open_database::<Str, Str>(&txn, Some("meta"))? else { return Ok(None) };
        let found = meta.get(&txn, FORMAT_KEY)?;
        Ok(found.filter(|found| found.parse() != Ok(FORMAT)).map(str::to_owned))
    }

    pub(super) fn create(env: &Env<WithoutTls>) -> heed::Result<Self> {
        let mut txn = env.write_txn()?;
        let tables = Self {
            meta: env.create_database(&mut txn, Some("meta"))?,
            topics: env.create_database(&mut txn, Some("topics"))?,
            partitions: env.create_database(&mut txn, Some("partitions"))?,
            records: env.create_database(&mut txn, Some("records"))?,
            batches: env.create_database(&mut txn, Some("batches"))?,
            preludes: env.create_database(&mut txn, Some("preludes"))?,
            producers: env.create_database(&mut txn, Some("producers"))?,
            groups: env.create_database(&mut txn, Some("groups"))?,
        };
        if tables.meta.get(&txn, FORMAT_KEY)?.is_none() {
            tables.meta.put(&mut txn, FORMAT_KEY, &FORMAT.to_string())?;
        }
        if tables.meta.get(&txn, ID)?.is_none() {
            tables.meta.put(&mut txn, ID, &Uuid::now_v7().to_string())?;
        }
        txn.commit()?;
        Ok(tables)
    }

    /// Bytes of the pages in use.
    pub(super) fn used(&self, txn: &RoTxn<'_>) -> heed::Result<u64> {
        let stats = [
            self.meta.stat(txn)?,
            self.topics.stat(txn)?,
            self.partitions.stat(txn)?,
            self.records.stat(txn)?,
            self.batches.stat(txn)?,
            self.preludes.stat(txn)?,
            self.producers.stat(txn)?,
            self.groups.stat(txn)?,
        ];
        let pages = |stat: &heed::DatabaseStat| (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64;
        Ok(stats.iter().map(|stat| pages(stat) * u64::from(stat.page_size)).sum())
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct TopicRow {
    pub number: u32,
    pub partitions: u32,
    pub retention: Retention,
}

impl TopicRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.partitions.to_le_bytes());
        // No limit is stored as the greatest one.
        let age_max = self.retention.age_max.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        bytes.extend_from_slice(&age_max.to_le_bytes());
        bytes.extend_from_slice(&self.retention.bytes_max.unwrap_or(u64::MAX).to_le_bytes());
        bytes.push(u8::from(self.retention.compact));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            number: fields.u32()?,
            partitions: fields.u32()?,
            retention: Retention {
                age_max: Some(fields.u64()?).filter(|age| *age != u64::MAX).map(Duration::from_millis),
                bytes_max: Some(fields.u64()?).filter(|bytes| *bytes != u64::MAX),
                compact: fields.u8()? == 1,
            },
        })
    }
}

/// A partition: its ends, and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionRow {
    pub low: u64,
    pub high: u64,
    /// Number of records present.
    pub records: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Greatest timestamp ever appended.
    pub timestamp_max: i64,
    /// Records below this offset have been compacted.
    pub compacted: u64,
}

impl PartitionRow {
    pub(super) fn encode(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        let fields = [self.low, self.high, self.records, self.bytes, self.timestamp_max as u64, self.compacted];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            low: fields.u64()?,
            high: fields.u64()?,
            records: fields.u64()?,
            bytes: fields.u64()?,
            timestamp_max: fields.u64()? as i64,
            compacted: fields.u64()?,
        })
    }

    pub(super) fn watermarks(&self) -> Watermarks {
        Watermarks { low: Offset(self.low), high: Offset(self.high) }
    }
}

/// What is known of a batch without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchRow {
    /// Greatest timestamp of its records.
    pub timestamp_max: i64,
    /// Greatest timestamp of its records and all before them in the partition: never falls, so it can be searched.
    pub timestamp_running: i64,
    pub count: u32,
    pub bytes: u64,
}

impl BatchRow {
    pub(super) fn encode(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..8].copy_from_slice(&self.timestamp_max.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.timestamp_running.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        bytes[20..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            timestamp_max: fields.u64()? as i64,
            timestamp_running: fields.u64()? as i64,
            count: fields.u32()?,
            bytes: fields.u64()?,
        })
    }
}

/// A batch as stored, borrowed from the map.
pub(super) struct StoredBatch<'a> {
    pub prelude: u32,
    pub count: u32,
    pub records: &'a [u8],
}

/// Bytes before the records.
pub(super) const BATCH_HEADER: usize = 8;

impl<'a> StoredBatch<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self { prelude: fields.u32()?, count: fields.u32()?, records: fields.0 })
    }
}

/// A producer: its epoch and checkpoint.
pub(super) struct ProducerRow<'a> {
    pub epoch: u64,
    pub checkpoint: Option<&'a [u8]>,
}

impl<'a> ProducerRow<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.checkpoint.map_or(0, <[u8]>::len));
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.push(u8::from(self.checkpoint.is_some()));
        bytes.extend_from_slice(self.checkpoint.unwrap_or_default());
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (epoch, present) = (fields.u64()?, fields.u8()?);
        Some(Self { epoch, checkpoint: (present == 1).then_some(fields.0) })
    }
}

/// Key of a committed offset.
pub(super) fn group_key(group: &str, partition: PartitionId) -> Vec<u8> {
    let mut key = group_prefix(group);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

/// What the keys of a group begin with.
pub(super) fn group_prefix(group: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(group.len() + 9);
    key.extend_from_slice(group.as_bytes());
    key.push(0);
    key
}

/// The partition in a [`group_key`].
pub(super) fn group_partition(key: &[u8]) -> Option<PartitionId> {
    key.last_chunk::<8>().map(|bytes| PartitionId(u64::from_be_bytes(*bytes)))
}

/// The group in a [`group_key`].
pub(super) fn group_name(key: &[u8]) -> String {
    let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Topics by name and by number.
#[derive(Default)]
pub(super) struct Topics {
    pub by_name: std::collections::BTreeMap<Arc<str>, TopicRow>,
    pub by_number: std::collections::HashMap<u32, Arc<str>>,
}

impl Topics {
    pub(super) fn insert(&mut self, name: Arc<str>, row: TopicRow) {
        self.by_number.insert(row.number, name.clone());
        self.by_name.insert(name, row);
    }
}

/// Reads little-endian numbers one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*first))
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }
}
