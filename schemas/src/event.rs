//! One change of one row, and its binary form.

use crate::position::SourcePosition;
use crate::row::RowRef;
use crate::varint;

/// What happened to the row. The letters are Debezium's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `c`: inserted.
    Create,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
    /// `r`: read by a snapshot.
    Read,
    /// `t`: the whole table was truncated; has neither key nor images, and every earlier row of the table is gone. Stands in
    /// several partitions: see [`EventRef::partitions`].
    Truncate,
    /// `s`: no row; says that the table exists and has the schema of its batch.
    Schema,
}

impl Op {
    /// Debezium's letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Read => 'r',
            Self::Truncate => 't',
            Self::Schema => 's',
        }
    }

    /// The inverse of [`Self::letter`].
    pub const fn from_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'c' => Self::Create,
            'u' => Self::Update,
            'd' => Self::Delete,
            'r' => Self::Read,
            't' => Self::Truncate,
            's' => Self::Schema,
            _ => return None,
        })
    }
}

/// All of an event but its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// What happened.
    pub op: Op,
    /// When, in the source's own order.
    pub position: SourcePosition,
    /// Source transaction; 0 for snapshot reads.
    pub transaction: u64,
    /// Commit time by the source's clock, microseconds since 1970-01-01T00:00:00Z. For people and for measuring
    /// freshness; never for ordering.
    pub committed_at_micros: i64,
    /// Last event of its source transaction.
    pub last_in_transaction: bool,
    /// `before` holds the key columns only (the others are missing), as PostgreSQL sends it without
    /// `REPLICA IDENTITY FULL`.
    pub before_is_key_only: bool,
}

/// One event, its rows borrowed from the bytes of its record. Rows are read by the schema of the batch the record came
/// in. The key of the record is the row's primary key in the form of [`crate::key`]; a changed key travels as a delete
/// of the old key followed by a create of the new one, at increasing ordinals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Everything but the rows.
    pub header: EventHeader,
    /// The row before the change, where the source sent it.
    pub before: Option<RowRef<'a>>,
    /// The row after the change; `None` for deletes. Alone may have lost cells: see [`RowBuilder::push_lost`].
    pub after: Option<RowRef<'a>>,
    /// Of a truncation: it stands in all partitions of the table's topic that are below this number, appended together,
    /// behind every earlier row. `None` where its writer does not say.
    pub partitions: Option<u32>,
}

/// Bytes that are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed change event: {0}")]
pub struct MalformedEvent(pub &'static str);

/// Appends the cells of one row to a buffer.
pub type WriteRow<'w> = &'w mut (dyn FnMut(&mut Vec<u8>) + 'w);

const VERSION: u8 = 1;
const FIXED_LEN: usize = 35;
const FLAGS_AT: usize = 2;
const FLAG_LAST: u8 = 1;
const FLAG_BEFORE: u8 = 2;
const FLAG_AFTER: u8 = 4;
const FLAG_KEY_ONLY: u8 = 8;
const FLAG_PARTITIONS: u8 = 16;

impl EventHeader {
    /// Appends a whole event. `before` and `after` write the cells of a row if there is one; they are given the buffer
    /// so that a decoder can write cells straight into it.
    pub fn encode<'w>(&self, out: &mut Vec<u8>, before: Option<WriteRow<'w>>, after: Option<WriteRow<'w>>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.last_in_transaction, FLAG_LAST)
            | flag(before.is_some(), FLAG_BEFORE)
            | flag(after.is_some(), FLAG_AFTER)
            | flag(self.before_is_key_only, FLAG_KEY_ONLY);
        out.extend_from_slice(&[VERSION, self.op.letter() as u8, flags]);
        out.extend_from_slice(&self.position.to_bytes());
        out.extend_from_slice(&self.transaction.to_be_bytes());
        out.extend_from_slice(&self.committed_at_micros.to_be_bytes());
        for write in [before, after].into_iter().flatten() {
            // The length goes before the cells and is known after them: four bytes are kept free for it.
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            write(out);
            let len = u32::try_from(out.len() - at - 4).expect("PostgreSQL and MySQL limit a row to 1 GiB");
            out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Marks an already encoded event as the last of its transaction. `event` starts at the event's first byte.
    pub fn mark_last_in_transaction(event: &mut [u8]) {
        event[FLAGS_AT] |= FLAG_LAST;
    }
}

impl<'a> EventRef<'a> {
    /// Reads an event. Rows are not looked into: check them with [`RowRef::is_well_formed`] where the bytes are not
    /// trusted.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedEvent> {
        let (fixed, mut rest) = bytes.split_at_checked(FIXED_LEN).ok_or(MalformedEvent("shorter than its header"))?;
        if fixed[0] != VERSION {
            return Err(MalformedEvent("written by a version of Headwater that this one does not know"));
        }
        let op = Op::from_letter(fixed[1] as char).ok_or(MalformedEvent("unknown operation"))?;
        let flags = fixed[FLAGS_AT];
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&fixed[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let position = SourcePosition::from_bytes(&fixed[3..19]).expect("the range has the length of a position");
        let header = EventHeader {
            op,
            position,
            transaction: number(19),
            committed_at_micros: number(27) as i64,
            last_in_transaction: flags & FLAG_LAST != 0,
            before_is_key_only: flags & FLAG_KEY_ONLY != 0,
        };
        let mut row = |flag: u8| -> Result<Option<RowRef<'a>>, MalformedEvent> {
            if flags & flag == 0 {
                return Ok(None);
            }
            let mut take = || {
                let len = u32::from_le_bytes(varint::take(&mut rest, 4)?.try_into().ok()?);
                varint::take(&mut rest, len as usize)
            };
            take().map(|bytes| Some(RowRef(bytes))).ok_or(MalformedEvent("row ends early"))
        };
        let (before, after) = (row(FLAG_BEFORE)?, row(FLAG_AFTER)?);
        let mut partitions = None;
        if flags & FLAG_PARTITIONS != 0 {
            let (count, behind) =
                rest.split_first_chunk::<4>().ok_or(MalformedEvent("number of partitions ends early"))?;
            (partitions, rest) = (Some(u32::from_be_bytes(*count)), behind);
        }
        if !rest.is_empty() {
            return Err(MalformedEvent("bytes behind its end"));
        }
        Ok(Self { header, before, after, partitions })
    }

    /// Appends the binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut before = self.before.map(|row| move |out: &mut Vec<u8>| out.extend_from_slice(row.0));
        let mut after = self.after.map(|row| move |out: &mut Vec<u8>| out.extend_from_slice(row.0));
        self.header.encode(
            out,
            before.as_mut().map(|write| write as WriteRow<'_>),
            after.as_mut().map(|write| write as WriteRow<'_>),
        );
        if let Some(partitions) = self.partitions {
            out[start + FLAGS_AT] |= FLAG_PARTITIONS;
            out.extend_from_slice(&partitions.to_be_bytes());
        }
    }
}
