//! Events into rows: per key the greatest source position wins, whatever the order of arrival.

use headwater_broker::{FetchedBatch, Offset};
use headwater_schemas::{DeadLetter, RowRef, SourcePosition, TableId};
use headwater_store::{ByteList, JoinIndex, RowArena, RowBatch, RowWrite, SchemaId};

use crate::Error;
use crate::catalog::Catalog;
use crate::changes::{Change, NewImage, TableChanges};
use crate::columns::{Columns, write_join_key};
use crate::too_large::too_large;

/// One row event, borrowed from its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowEvent<'b> {
    pub(crate) key: &'b [u8],
    pub(crate) position: SourcePosition,
    pub(crate) schema: SchemaId,
    /// `None`: deleted.
    pub(crate) row: Option<RowRef<'b>>,
    /// The row before, as the source sent it: only used to fill in what `row` misses. May miss cells itself.
    pub(crate) before: Option<RowRef<'b>>,
    /// Where its record stands.
    pub(crate) batch: &'b FetchedBatch,
    pub(crate) offset: Offset,
}

/// Which events count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Newer than the stored row.
    Follow,
    /// Newer or equally old: a replay, or the retry of a letter, mends rows that are not what the log says.
    Repair,
}

/// The join indexes of one table, all computed from a row in one go.
#[derive(Clone, Debug)]
pub(crate) struct TableIndexes {
    pub(crate) indexes: Vec<JoinIndex>,
    columns: Columns,
    slots: Vec<Vec<usize>>,
}

impl TableIndexes {
    pub(crate) fn new(table: TableId, indexes: Vec<JoinIndex>, catalog: &Catalog) -> Self {
        let mut columns = Columns::new(table);
        let slots = indexes.iter().map(|index| index.columns.iter().map(|name| columns.slot(name)).collect()).collect();
        for (id, schema) in catalog.schemas() {
            columns.learn(id, schema);
        }
        Self { indexes, columns, slots }
    }

    /// Join keys of a row: (number of the index, place in `bytes`).
    pub(crate) fn keys(&self, schema: SchemaId, row: RowRef<'_>, bytes: &mut Vec<u8>, out: &mut Vec<Span>) {
        if self.indexes.is_empty() {
            return;
        }
        let mut cells = Vec::with_capacity(self.columns.width());
        self.columns.read(schema, row, &mut cells);
        for (number, slots) in self.slots.iter().enumerate() {
            let start = bytes.len();
            if write_join_key(bytes, &cells, slots) {
                out.push((number, start, bytes.len()));
            }
        }
    }
}

/// A join key: number of its index, and where it begins and ends.
pub(crate) type Span = (usize, usize, usize);

/// Applies the events of one table to its rows, a part at a time, and tells `each` what changed: the rows before may be
/// far larger than the events, and are not held all at once.
///
/// Answers with letters about the events whose rows the store cannot keep whole: later events go on from what is left of
/// them.
pub(crate) fn apply<'b>(
    batch: &mut dyn RowBatch,
    catalog: &Catalog,
    table: &TableId,
    indexes: &TableIndexes,
    mut events: Vec<RowEvent<'b>>,
    mode: Mode,
    mut each: impl FnMut(&TableChanges<'b>),
) -> Result<Vec<DeadLetter>, Error> {
    // Stable: of two events with one position the later record wins in a repair.
    events.sort_by(|a, b| a.key.cmp(b.key).then(a.position.cmp(&b.position)));
    let (mut from, mut letters) = (0, Vec::new());
    while from < events.len() {
        let (mut changes, end) = apply_part(batch, catalog, table, indexes, &events, from, mode)?;
        each(&changes);
        letters.append(&mut changes.refused);
        from = end;
    }
    Ok(letters)
}

/// Applies the events from number `from` on whose rows before can be held at once; answers up to which.
fn apply_part<'b>(
    batch: &mut dyn RowBatch,
    catalog: &Catalog,
    table: &TableId,
    indexes: &TableIndexes,
    events: &[RowEvent<'b>],
    from: usize,
    mode: Mode,
) -> Result<(TableChanges<'b>, usize), Error> {
    let mut keys = ByteList::default();
    for group in events[from..].chunk_by(|a, b| a.key == b.key) {
        keys.push(group[0].key);
    }
    let mut out = TableChanges::new(table.clone());
    let read = batch.rows_by_key(table, &keys, 0, &mut out.old)?;
    let mut end = from;
    let truncations = catalog.truncations(table);
    let mut positions = Vec::new();
    let mut slots = out.old.slots().iter().enumerate().peekable();
    for (request, group) in events[from..].chunk_by(|a, b| a.key == b.key).enumerate().take(read) {
        end += group.len();
        let old = slots.next_if(|(_, slot)| slot.request as usize == request);
        let mut position = old.map(|(_, slot)| slot.position).max(truncations.effective());
        let stored = position;
        let mut new: Option<(SchemaId, NewImage<'b>)> = None;
        let mut applied = false;
        // Of many changes of one row only the last image is kept: each may be as large as the row.
        let own = out.merged.len();
        for event in group {
            let counts = match mode {
                Mode::Follow => position < Some(event.position),
                Mode::Repair => position <= Some(event.position),
            };
            // For an event nothing is left of what was truncated before it, also where readers still see it.
            let truncated = truncations.within(event.batch.from.partition);
            if !counts || truncated >= Some(event.position) {
                continue;
            }
            let mut filled = match event.row {
                Some(row) if row.has_missing() => {
                    let known = match (&new, applied) {
                        (Some((schema, image)), _) => Some((*schema, image.bytes(&out.merged))),
                        (None, false) => old
                            .filter(|(_, slot)| truncated < Some(slot.position))
                            .and_then(|(_, slot)| Some((slot.schema, out.old.row(slot)?.0))),
                        (None, true) => None,
                    };
                    Some(fill(catalog, event, row, known))
                }
                _ => None,
            };
            let whole = filled.as_deref().map(RowRef).or(event.row);
            if let Some(row) = whole
                && let Some(cut) = too_large(batch, catalog.schema(event.schema), indexes, event, row)?
            {
                out.refused.push(cut.letter);
                let Some(rest) = cut.rest else { continue };
                filled = Some(rest);
            }
            out.merged.truncate(own);
            new = match (filled, event.row) {
                (Some(filled), _) => {
                    out.merged.extend_from_slice(&filled);
                    Some((event.schema, NewImage::Merged(own..out.merged.len())))
                }
                (None, row) => row.map(|row| (event.schema, NewImage::Event(row))),
            };
            position = Some(event.position);
            applied = true;
        }
        let Some(position) = position.filter(|_| applied) else { continue };
        if Some(position) == stored {
            // A repair that finds what it would write.
            let stored = old.map(|(_, slot)| out.old.row(slot).map(|row| (slot.schema, row.0)));
            let same = match (&new, stored) {
                (None, Some(None)) => true,
                (Some((schema, image)), Some(Some(stored))) => (*schema, image.bytes(&out.merged)) == stored,
                _ => false,
            };
            if same {
                continue;
            }
        }
        positions.push(position);
        out.changes.push(Change { key: group[0].key, old: old.map(|(at, _)| at), new });
    }
    put(batch, indexes, &out, &positions)?;
    Ok((out, end))
}

/// Rows and tombstones of an arena that are older than `below` are removed, and those that were rows told of as changes. The
/// table must be truncated there in the catalog, in this transaction at the latest: from then on [`apply`] holds every event
/// against that, and a tombstone would hold back no event more.
pub(crate) fn erase<'b>(
    batch: &mut dyn RowBatch,
    table: &TableId,
    indexes: &TableIndexes,
    rows: &'b RowArena,
    below: SourcePosition,
) -> Result<TableChanges<'b>, Error> {
    let mut out = TableChanges::new(table.clone());
    out.old = rows.clone();
    let all: Vec<&JoinIndex> = indexes.indexes.iter().collect();
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    for (at, slot) in rows.slots().iter().enumerate().filter(|(_, slot)| slot.position < below) {
        bytes.clear();
        spans.clear();
        let key = rows.key(slot);
        if let Some(row) = rows.row(slot) {
            indexes.keys(slot.schema, row, &mut bytes, &mut spans);
            out.changes.push(Change { key, old: Some(at), new: None });
        }
        let removed: Vec<(usize, &[u8])> =
            spans.iter().map(|(number, start, end)| (*number, &bytes[*start..*end])).collect();
        batch.remove_row(table, &all, key, &removed)?;
    }
    Ok(out)
}

impl NewImage<'_> {
    fn bytes<'s>(&'s self, merged: &'s [u8]) -> &'s [u8] {
        match self {
            Self::Event(row) => row.0,
            Self::Merged(range) => &merged[range.clone()],
        }
    }
}

/// Writes the changed rows with the join keys they lose and get.
fn put(
    batch: &mut dyn RowBatch,
    indexes: &TableIndexes,
    changes: &TableChanges<'_>,
    positions: &[SourcePosition],
) -> Result<(), Error> {
    let (mut bytes, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut ends = Vec::with_capacity(changes.changes.len());
    for change in &changes.changes {
        if let Some((schema, row)) = changes.before(change) {
            indexes.keys(schema, row, &mut bytes, &mut before);
        }
        if let Some((schema, row)) = changes.after(change) {
            indexes.keys(schema, row, &mut bytes, &mut after);
        }
        ends.push((before.len(), after.len()));
    }
    let all: Vec<&JoinIndex> = indexes.indexes.iter().collect();
    let mut removed: Vec<(usize, &[u8])> = Vec::new();
    let mut added: Vec<(usize, &[u8])> = Vec::new();
    let (mut before_at, mut after_at) = (0, 0);
    for ((change, position), (before_end, after_end)) in changes.changes.iter().zip(positions).zip(ends) {
        let key = |(number, start, end): &Span| (*number, &bytes[*start..*end]);
        added.clear();
        added.extend(after[after_at..after_end].iter().map(key));
        removed.clear();
        removed.extend(before[before_at..before_end].iter().map(key).filter(|key| !added.contains(key)));
        (before_at, after_at) = (before_end, after_end);
        let new = changes.after(change);
        let write = RowWrite {
            key: change.key,
            row: new.map(|(_, row)| row),
            schema: new.map_or(SchemaId(0), |(schema, _)| schema),
            position: *position,
            removed: &removed,
            added: &added,
        };
        batch.put_row(&changes.table, &all, write)?;
    }
    Ok(())
}

/// The event's row with the cells that the source did not send taken from, in this order: the image before that came with
/// the event, which is what the row was; the row before under the same key, which lacks what was never folded. What neither
/// knows stays missing, and a document that needs it goes to the dead letters. (A row under a new key comes whole: the
/// source reads what its log does not say.)
fn fill(catalog: &Catalog, event: &RowEvent<'_>, row: RowRef<'_>, known: Option<(SchemaId, &[u8])>) -> Vec<u8> {
    let before = event.before.map(|before| (event.schema, before.0));
    let mut row = row.0.to_vec();
    for (schema, image) in before.into_iter().chain(known) {
        if RowRef(&row).has_missing() {
            row = merged(catalog, event.schema, &row, schema, RowRef(image));
        }
    }
    row
}

fn merged(catalog: &Catalog, schema: SchemaId, row: &[u8], old_schema: SchemaId, old: RowRef<'_>) -> Vec<u8> {
    let (schema, old_schema) = (catalog.schema(schema), catalog.schema(old_schema));
    let mut out = Vec::with_capacity(row.len() + old.0.len());
    RowRef(row).fill_missing(old, |at| old_schema.column_index(&schema.columns.get(at)?.name), &mut out);
    out
}
