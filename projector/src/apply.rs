//! Events into rows: per key the greatest source position wins, whatever the order of arrival.

use std::collections::HashSet;

use headwater_schemas::{RowRef, SourcePosition, TableId, key};
use headwater_store::{ByteList, JoinIndex, RowArena, RowBatch, RowWrite, SchemaId};

use crate::Error;
use crate::catalog::Catalog;
use crate::changes::{Change, NewImage, TableChanges};
use crate::columns::{Columns, write_join_key};

/// One row event, borrowed from its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowEvent<'b> {
    pub(crate) key: &'b [u8],
    pub(crate) position: SourcePosition,
    pub(crate) schema: SchemaId,
    /// `None`: deleted.
    pub(crate) row: Option<RowRef<'b>>,
    /// The row before, as the source sent it: only used to fill in what `row` misses.
    pub(crate) before: Option<RowRef<'b>>,
}

/// Which events count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Newer than the stored row.
    Follow,
    /// Newer or equally old: a replay mends rows that are not what the log says.
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
pub(crate) fn apply<'b>(
    batch: &mut dyn RowBatch,
    catalog: &Catalog,
    table: &TableId,
    indexes: &TableIndexes,
    mut events: Vec<RowEvent<'b>>,
    mode: Mode,
    mut each: impl FnMut(&TableChanges<'b>),
) -> Result<(), Error> {
    sort(catalog, &mut events);
    let mut from = 0;
    while from < events.len() {
        let (changes, end) = apply_part(batch, catalog, table, indexes, &events, from, mode)?;
        each(&changes);
        from = end;
    }
    Ok(())
}

/// Brings events into the order in which they are applied: all of a key together, by position. Rows that came from
/// another key and miss something come first: what they miss lies under that key, where an event may delete it.
fn sort(catalog: &Catalog, events: &mut [RowEvent<'_>]) {
    let torn = events.iter().filter(|event| event.row.is_some_and(|row| row.has_missing()));
    let moved: HashSet<Vec<u8>> = torn
        .filter(|event| {
            let before = event.before.and_then(|before| key_of(catalog, event.schema, before));
            before.is_some_and(|before| before != event.key)
        })
        .map(|event| event.key.to_vec())
        .collect();
    let stays = |event: &RowEvent<'_>| !moved.is_empty() && !moved.contains(event.key);
    // Stable: of two events with one position the later record wins in a repair.
    events.sort_by(|a, b| (stays(a), a.key, a.position).cmp(&(stays(b), b.key, b.position)));
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
    let truncated = catalog.truncated_at(table);
    let mut positions = Vec::new();
    let mut slots = out.old.slots().iter().enumerate().peekable();
    let merger = Merger { batch: &*batch, catalog, table };
    for (request, group) in events[from..].chunk_by(|a, b| a.key == b.key).enumerate().take(read) {
        end += group.len();
        let old = slots.next_if(|(_, slot)| slot.request as usize == request);
        let mut position = old.map(|(_, slot)| slot.position).max(truncated);
        let stored = position;
        let mut new: Option<(SchemaId, NewImage<'b>)> = None;
        let mut applied = false;
        for event in group {
            let counts = match mode {
                Mode::Follow => position < Some(event.position),
                Mode::Repair => {
                    position <= Some(event.position) && truncated.is_none_or(|truncated| truncated < event.position)
                }
            };
            if !counts {
                continue;
            }
            let image = match event.row {
                None => None,
                Some(row) if !row.has_missing() => Some((event.schema, NewImage::Event(row))),
                Some(_) => {
                    let known = match (&new, applied) {
                        (Some((schema, image)), _) => Some((*schema, image.bytes(&out.merged).to_vec())),
                        (None, false) => old.and_then(|(_, slot)| Some((slot.schema, out.old.row(slot)?.0.to_vec()))),
                        (None, true) => None,
                    };
                    let start = out.merged.len();
                    let filled = merger.fill(event, known, events)?;
                    out.merged.extend_from_slice(&filled);
                    Some((event.schema, NewImage::Merged(start..out.merged.len())))
                }
            };
            new = image;
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

/// Rows of an arena that are older than `below` become tombstones.
pub(crate) fn erase<'b>(
    batch: &mut dyn RowBatch,
    table: &TableId,
    indexes: &TableIndexes,
    rows: &'b RowArena,
    below: SourcePosition,
) -> Result<TableChanges<'b>, Error> {
    let mut out = TableChanges::new(table.clone());
    out.old = rows.clone();
    let older = rows.slots().iter().enumerate().filter(|(_, slot)| slot.position < below && rows.row(slot).is_some());
    out.changes.extend(older.map(|(at, slot)| Change { key: rows.key(slot), old: Some(at), new: None }));
    put(batch, indexes, &out, &vec![below; out.changes.len()])?;
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

/// Fills in the cells that the source did not send.
struct Merger<'m> {
    batch: &'m dyn RowBatch,
    catalog: &'m Catalog,
    table: &'m TableId,
}

impl Merger<'_> {
    /// The event's row with its missing cells taken from, in this order: the row before under the same key; the image
    /// before that came with the event; the row under the key before, where the key changed. What none of them knows
    /// stays missing, and a document that needs it goes to the dead letters.
    fn fill(
        &self,
        event: &RowEvent<'_>,
        known: Option<(SchemaId, Vec<u8>)>,
        events: &[RowEvent<'_>],
    ) -> Result<Vec<u8>, Error> {
        let mut row = event.row.map_or_else(Vec::new, |row| row.0.to_vec());
        if let Some((schema, bytes)) = known {
            row = self.merged(event.schema, &row, schema, RowRef(&bytes));
        }
        let Some(before) = event.before.filter(|_| RowRef(&row).has_missing()) else { return Ok(row) };
        row = self.merged(event.schema, &row, event.schema, before);
        if RowRef(&row).has_missing()
            && let Some(old_key) = key_of(self.catalog, event.schema, before)
            && old_key != event.key
        {
            // Within this micro-batch first: the row as it was before it was deleted under its old key.
            let earlier = events.iter().filter(|other| other.key == old_key && other.position < event.position);
            let mut earlier: Vec<_> = earlier.filter_map(|other| Some((other.schema, other.row?))).collect();
            while let Some((schema, image)) = earlier.pop() {
                row = self.merged(event.schema, &row, schema, image);
            }
            let mut keys = ByteList::default();
            keys.push(&old_key);
            let mut arena = RowArena::default();
            self.batch.rows_by_key(self.table, &keys, 0, &mut arena)?;
            if let Some(slot) = arena.slots().first()
                && let Some(image) = arena.row(slot)
            {
                row = self.merged(event.schema, &row, slot.schema, image);
            }
        }
        Ok(row)
    }

    fn merged(&self, schema: SchemaId, row: &[u8], old_schema: SchemaId, old: RowRef<'_>) -> Vec<u8> {
        let (schema, old_schema) = (self.catalog.schema(schema), self.catalog.schema(old_schema));
        let mut out = Vec::with_capacity(row.len() + old.0.len());
        RowRef(row).fill_missing(old, |at| old_schema.column_index(&schema.columns.get(at)?.name), &mut out);
        out
    }
}

fn key_of(catalog: &Catalog, schema: SchemaId, row: RowRef<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for at in catalog.schema(schema).key_columns() {
        let value = row.cell(at);
        if value.is_null() {
            return None;
        }
        key::write(&mut out, value);
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use headwater_schemas::{Column, ColumnType, RowBuilder, TableSchema, Value, ValueRef};
    use headwater_store::ProjectionStore;
    use headwater_store::READ_BYTES;
    use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};

    use super::*;

    fn row(cells: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut row = RowBuilder::new(&mut out);
        cells.iter().for_each(|cell| row.push_value(cell));
        out
    }

    /// The row under the old key fills a read by itself, so that what comes behind it is applied later.
    #[test]
    fn what_a_row_under_a_new_key_misses_is_found_however_large_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).unwrap();
        let mut batch = ProjectionStore::begin(&*store).unwrap();
        let column =
            |name: &str, kind, key_ordinal| Column { name: name.into(), kind, source_type: String::new(), key_ordinal };
        let table = TableId::new("shop", "public", "notes");
        let columns = vec![column("id", ColumnType::Int64, Some(0)), column("text", ColumnType::Text, None)];
        let prelude = TableSchema { table: table.clone(), columns }.to_bytes().into();
        let mut catalog = Catalog::default();
        let schema = catalog.schema_of(&mut *batch, &prelude).unwrap().unwrap();
        let indexes = TableIndexes::new(table.clone(), Vec::new(), &catalog);
        let long = Value::Text("x".repeat(READ_BYTES));
        let keys = [1, 2].map(|id| key::of(ValueRef::Int(id)));
        let whole = row(&[Value::Int(1), long.clone()]);
        let before = row(&[Value::Int(1), Value::Missing]);
        let moved = row(&[Value::Int(2), Value::Missing]);
        let event = |key, ordinal, row, before| RowEvent {
            key,
            position: SourcePosition { epoch: 1, commit: 1, ordinal },
            schema,
            row,
            before,
        };
        let created = event(&*keys[0], 1, Some(RowRef(&whole)), None);
        let deleted = event(&*keys[0], 2, None, Some(RowRef(&before)));
        let created_again = event(&*keys[1], 3, Some(RowRef(&moved)), Some(RowRef(&before)));
        let mut parts = 0;
        for events in [vec![created], vec![deleted, created_again]] {
            apply(&mut *batch, &catalog, &table, &indexes, events, Mode::Follow, |_| parts += 1).unwrap();
        }
        let mut asked = ByteList::default();
        asked.push(&keys[1]);
        let mut found = RowArena::default();
        batch.rows_by_key(&table, &asked, 0, &mut found).unwrap();
        assert_eq!(found.row(&found.slots()[0]).unwrap().0, row(&[Value::Int(2), long]));
        assert!(parts > 1, "{parts} parts");
    }
}
