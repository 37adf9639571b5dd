//! Runs of records as bytes.

use bytes::Bytes;

use crate::{Offset, TopicPartition};

/// Records gathered for one partition, in one buffer. The layout of a record is key length, value length plus one (zero:
/// no value), time, key, value.
#[derive(Clone, Debug, Default)]
pub struct RecordBuffer {
    bytes: Vec<u8>,
    count: u32,
    last_value: usize,
    timestamp_max: i64,
}

const HEADER: usize = 16;

/// Begins the prelude of records that could not be read. No schema begins so.
const UNREADABLE: &[u8] = b"\0unreadable: ";

/// The prelude of records that could not be read; see [`FetchedBatch::why_unreadable`].
pub(crate) fn unreadable_prelude(why: &str) -> Bytes {
    [UNREADABLE, why.as_bytes()].concat().into()
}

impl RecordBuffer {
    /// Appends a record. `write_value` writes the value behind whatever the buffer holds; without it the record is a
    /// tombstone. `timestamp_ms` is milliseconds since 1970-01-01T00:00:00Z.
    pub fn push(&mut self, timestamp_ms: i64, key: &[u8], write_value: Option<impl FnOnce(&mut Vec<u8>)>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes.extend_from_slice(key);
        self.last_value = self.bytes.len();
        let value_len = write_value.map(|write| {
            write(&mut self.bytes);
            self.bytes.len() - self.last_value
        });
        let key_len = u32::try_from(key.len()).expect("keys are bounded by the source's row size");
        let value_len = u32::try_from(value_len.map_or(0, |len| len + 1)).expect("values are bounded by the row size");
        let header = &mut self.bytes[start..start + HEADER];
        header[..4].copy_from_slice(&key_len.to_le_bytes());
        header[4..8].copy_from_slice(&value_len.to_le_bytes());
        header[8..].copy_from_slice(&timestamp_ms.to_le_bytes());
        self.timestamp_max = if self.count == 0 { timestamp_ms } else { self.timestamp_max.max(timestamp_ms) };
        self.count += 1;
    }

    /// The value of the record pushed last, for marks that are known only afterwards.
    pub fn last_value_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.last_value..]
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Greatest timestamp of the records; 0 when there are none.
    pub fn timestamp_max(&self) -> i64 {
        self.timestamp_max
    }

    /// The records as bytes, as [`FetchedBatch::new`] takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records as bytes, without the buffer.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
    }
}

/// Records to append to one partition.
#[derive(Clone, Debug)]
pub struct AppendBatch {
    /// Where to.
    pub to: TopicPartition,
    /// Bytes that all records share: for change events the [`headwater_schemas::TableSchema`] they are read by; empty
    /// for other records.
    pub prelude: Bytes,
    /// The records.
    pub records: RecordBuffer,
}

/// Consecutive records of one partition, as read. An engine whose offsets are not all records' answers with an empty
/// batch to say that reading goes on at its `base`.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    /// Where from.
    pub from: TopicPartition,
    /// Offset of the first record in `records`.
    pub base: Offset,
    /// Bytes that all records share; see [`AppendBatch::prelude`].
    pub prelude: Bytes,
    records: Bytes,
    count: u32,
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: i64,
    /// Key; empty where records have none.
    pub key: &'a [u8],
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl FetchedBatch {
    /// Wraps `count` records in the layout of [`RecordBuffer::as_bytes`], the first of which stands at `base`.
    pub fn new(from: TopicPartition, base: Offset, prelude: Bytes, records: Bytes, count: u32) -> Self {
        Self { from, base, prelude, records, count }
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size in bytes.
    pub fn byte_len(&self) -> usize {
        self.records.len()
    }

    /// Why the records could not be turned into what they should be, where an engine found them so: their bytes are as
    /// they were found. `None` for all others.
    pub fn why_unreadable(&self) -> Option<&str> {
        self.prelude.strip_prefix(UNREADABLE).and_then(|why| std::str::from_utf8(why).ok())
    }

    /// Offset of the record after the last.
    pub fn next(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }

    /// The records in order. Ends early if the bytes do: compare the number with [`Self::count`] to notice.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        Records::new(self.base, &self.records)
    }
}

/// Walks records in the layout of [`RecordBuffer::as_bytes`]. Ends early if the bytes do.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    next: u64,
}

impl<'a> Records<'a> {
    /// Begins with the record at `base`, whose bytes come first.
    pub(crate) fn new(base: Offset, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, next: base.0 }
    }

    /// The bytes not walked yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        let (header, after) = self.rest.split_first_chunk::<HEADER>()?;
        let [k0, k1, k2, k3, v0, v1, v2, v3, time @ ..] = *header;
        let (key, after) = after.split_at_checked(u32::from_le_bytes([k0, k1, k2, k3]) as usize)?;
        let (value, after) = match u32::from_le_bytes([v0, v1, v2, v3]) {
            0 => (None, after),
            n => {
                let (value, after) = after.split_at_checked(n as usize - 1)?;
                (Some(value), after)
            }
        };
        let record = RecordRef { offset: Offset(self.next), timestamp_ms: i64::from_le_bytes(time), key, value };
        self.rest = after;
        self.next += 1;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..20)
    }

    fn from() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(records in vec((any::<i64>(), bytes(), proptest::option::of(bytes())), 0..20)) {
            let mut buffer = RecordBuffer::default();
            buffer.push(1, b"before", Some(|_: &mut Vec<u8>| ()));
            buffer.clear();
            for (time, key, value) in &records {
                buffer.push(*time, key, value.as_ref().map(|value| |to: &mut Vec<u8>| to.extend_from_slice(value)));
                prop_assert_eq!(buffer.last_value_mut(), value.as_deref().unwrap_or_default());
            }
            prop_assert_eq!(buffer.count() as usize, records.len());
            prop_assert_eq!(buffer.timestamp_max(), records.iter().map(|record| record.0).max().unwrap_or(0));
            let bytes = Bytes::copy_from_slice(buffer.as_bytes());
            let batch = FetchedBatch::new(from(), Offset(7), Bytes::new(), bytes, buffer.count());
            prop_assert_eq!(batch.records().count(), records.len());
            for ((at, record), (time, key, value)) in batch.records().enumerate().zip(&records) {
                let expected = RecordRef {
                    offset: Offset(7 + at as u64),
                    timestamp_ms: *time,
                    key,
                    value: value.as_deref(),
                };
                prop_assert_eq!(record, expected);
            }
            prop_assert_eq!(batch.next(), Offset(7 + records.len() as u64));
        }

        #[test]
        fn damaged_bytes_end_early(mut bytes in vec(prop_oneof![0_u8..3, any::<u8>()], 0..200)) {
            let batch = FetchedBatch::new(from(), Offset(0), Bytes::new(), std::mem::take(&mut bytes).into(), 1);
            prop_assert!(batch.records().count() <= 200 / HEADER);
        }
    }
}
