//! Rows that are too large for the store to keep whole.
//!
//! Such a row is kept without the largest of the cells that its event brought, as few as it takes. They are missing from
//! then on, as cells are that the source did not send: what they were before is not so any more. Documents that need one
//! go to the dead letters until the source sends it again, and all others are right.

use std::cmp::Reverse;

use headwater_schemas::model::ModelShape;
use headwater_schemas::{DeadLetter, RowBuilder, RowRef, TableSchema, ValueRef};
use headwater_store::{ErrorKind, RowBatch};

use crate::Error;
use crate::apply::{RowEvent, TableIndexes};
use crate::records::letter;

/// Rows up to this size fit into any store, whatever their join keys, and are not measured.
const SURELY_FITS: usize = 64 << 10;

/// What becomes of a row that is too large.
pub(crate) struct TooLarge {
    /// About its event.
    pub(crate) letter: DeadLetter,
    /// What can be kept of it; `None` where its keys alone are too large.
    pub(crate) rest: Option<Vec<u8>>,
}

/// Looks whether the store can keep the row that an event makes; `None` if it can.
pub(crate) fn too_large(
    batch: &dyn RowBatch,
    schema: &TableSchema,
    indexes: &TableIndexes,
    event: &RowEvent<'_>,
    row: RowRef<'_>,
) -> Result<Option<TooLarge>, Error> {
    if row.0.len() <= SURELY_FITS {
        return Ok(None);
    }
    let (mut keys, mut spans) = (event.key.to_vec(), Vec::new());
    indexes.keys(event.schema, row, &mut keys, &mut spans);
    let refusal = |bytes: usize| match batch.check_row_size(bytes, keys.len()) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Poison => Ok(Some(error)),
        Err(error) => Err(error),
    };
    let Some(cause) = refusal(row.0.len())? else { return Ok(None) };
    let mut missing = Vec::new();
    RowBuilder::new(&mut missing).push(ValueRef::Missing);
    let mut cells: Vec<&[u8]> = row.raw_cells().collect();
    let (mut bytes, mut left_out) = (row.0.len(), Vec::new());
    for at in brought(schema, event, &cells) {
        bytes -= cells[at].len() - missing.len();
        cells[at] = &missing;
        left_out.push(&*schema.columns[at].name);
        if refusal(bytes)?.is_none() {
            let cause = format!("is kept without {}: {cause}", left_out.join(", "));
            return Ok(Some(TooLarge { letter: about(schema, event, row, &cause), rest: Some(cells.concat()) }));
        }
    }
    let cause = format!("cannot be stored: {cause}");
    Ok(Some(TooLarge { letter: about(schema, event, row, &cause), rest: None }))
}

/// The columns whose cells came with the event, the largest first, without those of the key. Those that were filled in are
/// as they were before.
fn brought(schema: &TableSchema, event: &RowEvent<'_>, cells: &[&[u8]]) -> Vec<usize> {
    let sent: Vec<&[u8]> = event.row.into_iter().flat_map(RowRef::raw_cells).collect();
    let key = schema.key_columns();
    let mut brought: Vec<usize> =
        (0..cells.len()).filter(|at| sent.get(*at) == Some(&cells[*at]) && !key.contains(at)).collect();
    brought.sort_by_key(|at| Reverse(cells[*at].len()));
    brought
}

fn about(schema: &TableSchema, event: &RowEvent<'_>, row: RowRef<'_>, what: &str) -> DeadLetter {
    let record = event.batch.records().find(|record| record.offset == event.offset);
    let record = record.expect("the event was read from it");
    let key = ModelShape::format_id(schema.key_columns().into_iter().map(|at| row.cell(at)));
    let cause = format!("the row of {} with key {key} {what}", schema.table);
    letter(event.batch, &record, Some((&schema.table, Some(event.position))), &cause)
}
