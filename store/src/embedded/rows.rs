//! Rows, and the entries by which joins find them, as they are stored.
//!
//! * A join entry holds a whole row, so that the children of a parent are one scan over neighbours: flags (1 byte), the
//!   row's key if that was cut, position (16), schema (4), cells.
//! * Under a row's key lies where it is: flags, the key if that was cut, the number of a join index (4), the join key.
//!   As long as a row keeps its place, a change of it touches its entries alone.
//! * A row that no join finds, and a tombstone, lies under its key itself, in the form of an entry.

use std::ops::Bound::{Excluded, Included};

use headwater_schemas::{RowRef, SourcePosition};
use heed::{RoTxn, RwTxn};

use super::environment::{Fault, Table, Tables};
use super::key::{push_first, push_last, push_prefixed, take, take_prefixed, take_u32};
use crate::{ByteList, RowArena, RowWrite, SchemaId};

const TOMBSTONE: u8 = 1;
const KEY_CUT: u8 = 2;
const ELSEWHERE: u8 = 4;

const BROKEN: Fault = Fault::Damaged("a row is cut short");
const LOST: Fault = Fault::Damaged("a row is not in the place that is noted under its key");

/// Rows that are moved at a time when a join index is dropped.
const MOVED_CHUNK: usize = 1024;

/// Memory used again and again for keys and values.
#[derive(Default)]
pub(super) struct Scratch {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// What lies under a row's key.
struct Stored<'t> {
    cut_key: Option<&'t [u8]>,
    held: Held<'t>,
}

enum Held<'t> {
    Row(StoredRow<'t>),
    /// The row is found by this join index under this join key.
    Place(u32, &'t [u8]),
}

/// A row itself.
struct StoredRow<'t> {
    position: SourcePosition,
    schema: SchemaId,
    row: Option<&'t [u8]>,
}

impl<'t> Stored<'t> {
    fn decode(value: &'t [u8]) -> Option<Self> {
        let rest = &mut &*value;
        let flags = take(rest, 1)?[0];
        let cut_key = if flags & KEY_CUT == 0 { None } else { Some(take_prefixed(rest)?) };
        let held = if flags & ELSEWHERE == 0 {
            let position = SourcePosition::from_bytes(take(rest, SourcePosition::LEN)?)?;
            let schema = SchemaId(take_u32(rest)?);
            Held::Row(StoredRow { position, schema, row: (flags & TOMBSTONE == 0).then_some(*rest) })
        } else {
            Held::Place(take_u32(rest)?, rest)
        };
        Some(Self { cut_key, held })
    }
}

/// Reads joined rows and rows that lie in their entries.
pub(super) struct Entries<'d> {
    pub joins: Table,
    /// Memory for a key.
    pub key: &'d mut Vec<u8>,
}

impl Entries<'_> {
    /// The row that is held, wherever it lies.
    fn row<'t>(&mut self, txn: &'t RoTxn<'_>, row_key: &[u8], held: Held<'t>) -> Result<StoredRow<'t>, Fault> {
        let (index, join_key) = match held {
            Held::Row(row) => return Ok(row),
            Held::Place(index, join_key) => (index, join_key),
        };
        entry_key(self.key, index, join_key, row_key);
        match Stored::decode(self.joins.get(txn, self.key)?.ok_or(LOST)?).ok_or(BROKEN)?.held {
            Held::Row(row) => Ok(row),
            Held::Place(..) => Err(LOST),
        }
    }
}

/// The key of a join entry; tells whether the row's key was cut.
fn entry_key(key: &mut Vec<u8>, index: u32, join_key: &[u8], row_key: &[u8]) -> bool {
    start(key, index);
    push_first(key, join_key);
    push_last(key, row_key)
}

fn start_value(value: &mut Vec<u8>, flags: u8, cut: bool, key: &[u8]) {
    value.clear();
    value.push(flags | if cut { KEY_CUT } else { 0 });
    if cut {
        push_prefixed(value, key);
    }
}

fn push_row(value: &mut Vec<u8>, position: SourcePosition, schema: SchemaId, row: Option<&[u8]>) {
    value.extend_from_slice(&position.to_bytes());
    value.extend_from_slice(&schema.0.to_le_bytes());
    value.extend_from_slice(row.unwrap_or(&[]));
}

fn start(key: &mut Vec<u8>, number: u32) {
    key.clear();
    key.extend_from_slice(&number.to_be_bytes());
}

fn check_size(out: &RowArena) -> Result<(), Fault> {
    if out.byte_len() > out.bytes_max() { Err(Fault::TooManyRows(out.bytes_max())) } else { Ok(()) }
}

/// Reads rows of a table by key, for the keys from number `from` on, until `out` is full; answers up to which.
pub(super) fn by_key(
    tables: &Tables,
    txn: &RoTxn<'_>,
    table: u32,
    keys: &ByteList,
    from: usize,
    out: &mut RowArena,
) -> Result<usize, Fault> {
    let (mut stored, mut entry) = (Vec::with_capacity(64), Vec::with_capacity(64));
    let mut entries = Entries { joins: tables.joins, key: &mut entry };
    for at in from..keys.len() {
        let key = keys.get(at);
        start(&mut stored, table);
        push_last(&mut stored, key);
        if let Some(value) = tables.rows.get(txn, &stored)? {
            let row = entries.row(txn, key, Stored::decode(value).ok_or(BROKEN)?.held)?;
            out.push(at, key, row.position, row.schema, row.row);
            check_size(out)?;
        }
        if out.is_full() {
            return Ok(at + 1);
        }
    }
    Ok(keys.len())
}

/// Reads rows of a table in key order, until there are `limit` or `out` is full.
pub(super) fn scan(
    tables: &Tables,
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
    let mut entry = Vec::with_capacity(64);
    let mut entries = Entries { joins: tables.joins, key: &mut entry };
    for found in tables.rows.range(txn, &(low, Excluded(&high[..])))?.take(limit) {
        let (stored_key, value) = found?;
        let stored = Stored::decode(value).ok_or(BROKEN)?;
        let key = stored.cut_key.unwrap_or(&stored_key[4..]);
        let row = entries.row(txn, key, stored.held)?;
        out.push(0, key, row.position, row.schema, row.row);
        if out.is_full() {
            break;
        }
    }
    Ok(())
}

/// Writes a row under its key, or that it lies in the entry of `place`; tells whether there was none before.
pub(super) fn put(
    rows: Table,
    txn: &mut RwTxn<'_>,
    scratch: &mut Scratch,
    table: u32,
    write: &RowWrite<'_>,
    place: Option<(u32, &[u8])>,
) -> Result<bool, Fault> {
    let Scratch { key, value } = scratch;
    start(key, table);
    let cut = push_last(key, write.key);
    if let Some((index, join_key)) = place {
        start_value(value, ELSEWHERE, cut, write.key);
        value.extend_from_slice(&index.to_le_bytes());
        value.extend_from_slice(join_key);
    } else {
        start_value(value, if write.row.is_none() { TOMBSTONE } else { 0 }, cut, write.key);
        push_row(value, write.position, write.schema, write.row.map(|RowRef(cells)| cells));
    }
    let before = rows.get(txn, key)?;
    let existed = before.is_some();
    // Mostly a row keeps its place, and then the page that says so is left alone.
    if before != Some(value.as_slice()) {
        rows.put(txn, key, value)?;
    }
    Ok(!existed)
}

/// Removes what lies under a row's key; tells whether there was anything.
pub(super) fn remove(
    rows: Table,
    txn: &mut RwTxn<'_>,
    scratch: &mut Scratch,
    table: u32,
    row_key: &[u8],
) -> Result<bool, Fault> {
    start(&mut scratch.key, table);
    push_last(&mut scratch.key, row_key);
    Ok(rows.delete(txn, &scratch.key)?)
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
    entry_key(&mut scratch.key, index, join_key, row_key);
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
    let cut = entry_key(key, index, join_key, write.key);
    start_value(value, 0, cut, write.key);
    push_row(value, write.position, write.schema, Some(row.0));
    joins.put(txn, key, value)?;
    Ok(())
}

/// Reads the rows found by the join keys from number `from` on, until `out` is full; answers up to which.
pub(super) fn by_join(
    joins: Table,
    txn: &RoTxn<'_>,
    index: u32,
    join_keys: &ByteList,
    from: usize,
    out: &mut RowArena,
) -> Result<usize, Fault> {
    let mut prefix = Vec::with_capacity(64);
    for at in from..join_keys.len() {
        start(&mut prefix, index);
        push_first(&mut prefix, join_keys.get(at));
        let first = out.slots().len();
        let mut by_hash = false;
        for entry in joins.prefix_iter(txn, &prefix)? {
            let (stored, value) = entry?;
            by_hash |= push_entry(out, at, &stored[prefix.len()..], value)?;
            check_size(out)?;
        }
        if by_hash {
            out.sort_from(first);
        }
        if out.is_full() {
            return Ok(at + 1);
        }
    }
    Ok(join_keys.len())
}

/// Gives the rows found by the join keys to `visit`, whenever so many are there as are read at a time, and at the end.
pub(super) fn visit_by_join(
    joins: Table,
    txn: &RoTxn<'_>,
    index: u32,
    join_keys: &ByteList,
    visit: &mut dyn FnMut(&RowArena),
) -> Result<(), Fault> {
    let mut found = RowArena::default();
    let mut prefix = Vec::with_capacity(64);
    for join_key in join_keys.iter() {
        start(&mut prefix, index);
        push_first(&mut prefix, join_key);
        for entry in joins.prefix_iter(txn, &prefix)? {
            let (stored, value) = entry?;
            push_entry(&mut found, 0, &stored[prefix.len()..], value)?;
            if found.is_full() {
                visit(&found);
                found.clear();
            }
        }
    }
    if !found.slots().is_empty() {
        visit(&found);
    }
    Ok(())
}

/// Appends the row of a join entry. Its key is what is stored behind the join key, unless that was cut; tells whether it
/// was.
fn push_entry(out: &mut RowArena, request: usize, stored_key: &[u8], value: &[u8]) -> Result<bool, Fault> {
    let Some(Stored { cut_key, held: Held::Row(found) }) = Stored::decode(value) else { return Err(BROKEN) };
    out.push(request, cut_key.unwrap_or(stored_key), SourcePosition::default(), found.schema, found.row);
    Ok(cut_key.is_some())
}

/// Removes every entry of a join index of a table. The rows that lie in them move under their keys.
pub(super) fn clear_index(tables: &Tables, txn: &mut RwTxn<'_>, table: Option<u32>, index: u32) -> Result<(), Fault> {
    if let Some(table) = table {
        move_from_index(tables, txn, table, index)?;
    }
    let (low, high) = (index.to_be_bytes(), (index + 1).to_be_bytes());
    tables.joins.delete_range(txn, &(Included(&low[..]), Excluded(&high[..])))?;
    Ok(())
}

fn move_from_index(tables: &Tables, txn: &mut RwTxn<'_>, table: u32, index: u32) -> Result<(), Fault> {
    let mut after = table.to_be_bytes().to_vec();
    let high = (table + 1).to_be_bytes();
    let mut entry = Vec::with_capacity(64);
    let mut moved: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(MOVED_CHUNK);
    loop {
        let mut seen = 0;
        let mut last = None;
        let mut entries = Entries { joins: tables.joins, key: &mut entry };
        for found in tables.rows.range(txn, &(Excluded(&after[..]), Excluded(&high[..])))?.take(MOVED_CHUNK) {
            let (stored_key, value) = found?;
            (seen, last) = (seen + 1, Some(stored_key));
            let stored = Stored::decode(value).ok_or(BROKEN)?;
            if !matches!(stored.held, Held::Place(place, _) if place == index) {
                continue;
            }
            let key = stored.cut_key.unwrap_or(&stored_key[4..]);
            let row = entries.row(txn, key, stored.held)?;
            let mut value = Vec::new();
            start_value(&mut value, 0, stored.cut_key.is_some(), key);
            push_row(&mut value, row.position, row.schema, row.row);
            moved.push((stored_key.to_vec(), value));
        }
        let Some(last) = last.map(<[u8]>::to_vec) else { return Ok(()) };
        for (key, value) in moved.drain(..) {
            tables.rows.put(txn, &key, &value)?;
        }
        if seen < MOVED_CHUNK {
            return Ok(());
        }
        after = last;
    }
}
