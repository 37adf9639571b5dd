//! Rows, and the entries by which joins find them, as they are stored.
//!
//! * A row: position (16 bytes), schema (4), flags (1), its key if that was cut, its cells.
//! * A join entry: schema (4), flags (1), the row's key if that was cut, the row's cells. It holds the whole row, so that
//!   the children of a parent are one scan over neighbours.

use std::ops::Bound::{Excluded, Included};

use headwater_schemas::{RowRef, SourcePosition};
use heed::{RoTxn, RwTxn};

use super::environment::{Fault, Table};
use super::key::{push_first, push_last, push_prefixed, take, take_prefixed, take_u32};
use crate::{ByteList, RowArena, RowWrite, SchemaId};

const TOMBSTONE: u8 = 1;
const KEY_CUT: u8 = 2;

/// Greatest size of what is read into one arena, in bytes: half of what its offsets can address.
const READ_MAX: usize = 1 << 31;

const BROKEN_ROW: Fault = Fault::Damaged("a row is cut short");
const BROKEN_ENTRY: Fault = Fault::Damaged("a join entry is cut short");

/// Memory used again and again for keys and values.
#[derive(Default)]
pub(super) struct Scratch {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

struct StoredRow<'t> {
    position: SourcePosition,
    schema: SchemaId,
    cut_key: Option<&'t [u8]>,
    row: Option<&'t [u8]>,
}

impl<'t> StoredRow<'t> {
    fn decode(value: &'t [u8]) -> Option<Self> {
        let rest = &mut &*value;
        let position = SourcePosition::from_bytes(take(rest, SourcePosition::LEN)?)?;
        let schema = SchemaId(take_u32(rest)?);
        let flags = take(rest, 1)?[0];
        let cut_key = if flags & KEY_CUT == 0 { None } else { Some(take_prefixed(rest)?) };
        let row = (flags & TOMBSTONE == 0).then_some(*rest);
        Some(Self { position, schema, cut_key, row })
    }
}

struct StoredEntry<'t> {
    schema: SchemaId,
    cut_key: Option<&'t [u8]>,
    row: &'t [u8],
}

impl<'t> StoredEntry<'t> {
    fn decode(value: &'t [u8]) -> Option<Self> {
        let rest = &mut &*value;
        let schema = SchemaId(take_u32(rest)?);
        let flags = take(rest, 1)?[0];
        let cut_key = if flags & KEY_CUT == 0 { None } else { Some(take_prefixed(rest)?) };
        Some(Self { schema, cut_key, row: rest })
    }
}

fn start(key: &mut Vec<u8>, number: u32) {
    key.clear();
    key.extend_from_slice(&number.to_be_bytes());
}

fn check_size(out: &RowArena) -> Result<(), Fault> {
    if out.byte_len() > READ_MAX { Err(Fault::TooManyRows(READ_MAX)) } else { Ok(()) }
}

/// Reads rows of a table by key.
pub(super) fn by_key(
    rows: Table,
    txn: &RoTxn<'_>,
    table: u32,
    keys: &ByteList,
    out: &mut RowArena,
) -> Result<(), Fault> {
    let mut stored = Vec::with_capacity(64);
    for (at, key) in keys.iter().enumerate() {
        start(&mut stored, table);
        push_last(&mut stored, key);
        if let Some(value) = rows.get(txn, &stored)? {
            let row = StoredRow::decode(value).ok_or(BROKEN_ROW)?;
            out.push(at, key, row.position, row.schema, row.row);
            check_size(out)?;
        }
    }
    Ok(())
}

/// Reads rows of a table in key order.
pub(super) fn scan(
    rows: Table,
    txn: &RoTxn<'_>,
    table: u32,
    after: Option<&[u8]>,
    limit: usize,
    out: &mut RowArena,
) -> Result<(), Fault> {
    let mut low = Vec::new();
    start(&mut low, table);
    let high = (table + 1).to_be_bytes();
    let low = match after {
        None => Included(&*low),
        Some(after) => {
            push_last(&mut low, after);
            Excluded(&*low)
        }
    };
    for entry in rows.range(txn, &(low, Excluded(&high[..])))?.take(limit) {
        let (stored, value) = entry?;
        let row = StoredRow::decode(value).ok_or(BROKEN_ROW)?;
        out.push(0, row.cut_key.unwrap_or(&stored[4..]), row.position, row.schema, row.row);
        check_size(out)?;
    }
    Ok(())
}

/// Writes a row; tells whether there was none before.
pub(super) fn put(
    rows: Table,
    txn: &mut RwTxn<'_>,
    scratch: &mut Scratch,
    table: u32,
    write: &RowWrite<'_>,
) -> Result<bool, Fault> {
    let Scratch { key, value } = scratch;
    start(key, table);
    let cut = push_last(key, write.key);
    value.clear();
    value.extend_from_slice(&write.position.to_bytes());
    value.extend_from_slice(&write.schema.0.to_le_bytes());
    value.push(if write.row.is_none() { TOMBSTONE } else { 0 } | if cut { KEY_CUT } else { 0 });
    if cut {
        push_prefixed(value, write.key);
    }
    value.extend_from_slice(write.row.map_or(&[], |RowRef(cells)| cells));
    // The number of entries is at hand in the transaction: far cheaper than to look whether there is a row.
    let before = rows.len(txn)?;
    rows.put(txn, key, value)?;
    Ok(rows.len(txn)? != before)
}

/// Removes the entry by which a join finds a row.
pub(super) fn remove_entry(
    joins: Table,
    txn: &mut RwTxn<'_>,
    scratch: &mut Scratch,
    index: u32,
    join_key: &[u8],
    row_key: &[u8],
) -> Result<(), Fault> {
    start(&mut scratch.key, index);
    push_first(&mut scratch.key, join_key);
    push_last(&mut scratch.key, row_key);
    joins.delete(txn, &scratch.key)?;
    Ok(())
}

/// Writes the entry by which a join finds a row.
pub(super) fn put_entry(
    joins: Table,
    txn: &mut RwTxn<'_>,
    scratch: &mut Scratch,
    index: u32,
    join_key: &[u8],
    write: &RowWrite<'_>,
    row: RowRef<'_>,
) -> Result<(), Fault> {
    let Scratch { key, value } = scratch;
    start(key, index);
    push_first(key, join_key);
    let cut = push_last(key, write.key);
    value.clear();
    value.extend_from_slice(&write.schema.0.to_le_bytes());
    value.push(if cut { KEY_CUT } else { 0 });
    if cut {
        push_prefixed(value, write.key);
    }
    value.extend_from_slice(row.0);
    joins.put(txn, key, value)?;
    Ok(())
}

/// Reads the rows found by join keys.
pub(super) fn by_join(
    joins: Table,
    txn: &RoTxn<'_>,
    index: u32,
    join_keys: &ByteList,
    out: &mut RowArena,
) -> Result<(), Fault> {
    let mut prefix = Vec::with_capacity(64);
    for (at, join_key) in join_keys.iter().enumerate() {
        start(&mut prefix, index);
        push_first(&mut prefix, join_key);
        let first = out.slots().len();
        let mut by_hash = false;
        for entry in joins.prefix_iter(txn, &prefix)? {
            let (stored, value) = entry?;
            let found = StoredEntry::decode(value).ok_or(BROKEN_ENTRY)?;
            by_hash |= found.cut_key.is_some();
            let key = found.cut_key.unwrap_or(&stored[prefix.len()..]);
            out.push(at, key, SourcePosition::default(), found.schema, Some(found.row));
            check_size(out)?;
        }
        if by_hash {
            out.sort_from(first);
        }
    }
    Ok(())
}

/// Removes every entry of a join index.
pub(super) fn clear_index(joins: Table, txn: &mut RwTxn<'_>, index: u32) -> Result<(), Fault> {
    let (low, high) = (index.to_be_bytes(), (index + 1).to_be_bytes());
    joins.delete_range(txn, &(Included(&low[..]), Excluded(&high[..])))?;
    Ok(())
}
