//! Many keys or rows in one allocation.

use std::ops::Range;

use headwater_schemas::{RowRef, SourcePosition};

use crate::SchemaId;

/// A read of rows ends behind the key with which its arena holds so many bytes.
pub const READ_BYTES: usize = 32 << 20;

/// An arena holds so many bytes at most, unless it is told of fewer. A document ends at 16 MiB: what reads much more of rows
/// for one would not be stored, and who reads without bound ends with the process.
pub const READ_BYTES_MAX: usize = 256 << 20;

/// A list of byte strings in one buffer.
#[derive(Clone, Debug, Default)]
pub struct ByteList {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl ByteList {
    /// Appends one byte string, written by `write` behind what the buffer holds.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(offset(self.bytes.len()));
    }

    /// Appends one byte string.
    pub fn push(&mut self, item: &[u8]) {
        self.push_with(|bytes| bytes.extend_from_slice(item));
    }

    /// The byte string at `at`.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.bytes[start..self.ends[at] as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// In order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Keeps the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Rows read from a store, in one buffer.
#[derive(Clone, Debug)]
pub struct RowArena {
    bytes: Vec<u8>,
    slots: Vec<RowSlot>,
    bytes_max: usize,
}

impl Default for RowArena {
    /// Empty, of [`READ_BYTES_MAX`].
    fn default() -> Self {
        Self { bytes: Vec::new(), slots: Vec::new(), bytes_max: READ_BYTES_MAX }
    }
}

/// One row of a [`RowArena`].
#[derive(Clone, Debug)]
pub struct RowSlot {
    /// Which of the requested keys it answers, as its place in the request.
    pub request: u32,
    /// The schema its cells are read by.
    pub schema: SchemaId,
    /// When the row became so. The default where the read does not tell (rows by join key).
    pub position: SourcePosition,
    key: Range<u32>,
    row: Option<Range<u32>>,
}

impl RowArena {
    /// Appends a row; `None` is a tombstone.
    pub fn push(&mut self, request: usize, key: &[u8], position: SourcePosition, schema: SchemaId, row: Option<&[u8]>) {
        let mut copy = |bytes: &[u8]| {
            let start = offset(self.bytes.len());
            self.bytes.extend_from_slice(bytes);
            start..offset(self.bytes.len())
        };
        let key = copy(key);
        let row = row.map(copy);
        self.slots.push(RowSlot { request: offset(request), schema, position, key, row });
    }

    /// The rows in the order they were read: by request, then by key.
    pub fn slots(&self) -> &[RowSlot] {
        &self.slots
    }

    /// Key of a row of this arena.
    pub fn key(&self, slot: &RowSlot) -> &[u8] {
        &self.bytes[slot.key.start as usize..slot.key.end as usize]
    }

    /// Cells of a row of this arena; `None` is a tombstone.
    pub fn row(&self, slot: &RowSlot) -> Option<RowRef<'_>> {
        slot.row.as_ref().map(|range| RowRef(&self.bytes[range.start as usize..range.end as usize]))
    }

    /// Size of what is held, in bytes.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds [`READ_BYTES`].
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= READ_BYTES
    }

    /// Has a read fail with [`TooManyRows`](crate::Error::TooManyRows) where it would hold more than so many bytes.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// How many bytes it holds at most.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Brings the rows from place `first` on into the order of their keys.
    pub(crate) fn sort_from(&mut self, first: usize) {
        let Self { bytes, slots, .. } = self;
        slots[first..].sort_by(|a, b| {
            let key = |slot: &RowSlot| &bytes[slot.key.start as usize..slot.key.end as usize];
            key(a).cmp(key(b))
        });
    }

    /// Empties the arena and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots.clear();
    }
}

fn offset(n: usize) -> u32 {
    u32::try_from(n).expect("a micro-batch reads in chunks far below 4 GiB")
}
