//! What is needed to turn the tuples of one table into events, worked out once per table and schema.

use headwater_schemas::{ColumnType, RowBuilder, TableSchema, ValueRef};

use super::cell::{self, Unrepresentable};
use super::pgoutput::Cell;
use crate::route::{Route, Routes};

/// A table under one schema.
#[derive(Clone, Debug)]
pub(crate) struct TablePlan {
    pub(crate) schema: TableSchema,
    pub(crate) route: Route,
    /// Per column: its type, and whether its values are filled up with blanks.
    kinds: Vec<(ColumnType, bool)>,
    /// Places of the key's columns, in key order; never empty.
    pub(crate) key: Vec<usize>,
}

/// A value that cannot be represented. In the key it keeps a row from becoming an event; elsewhere its cell is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadCell {
    /// Place of its column; past the end when the number of cells is wrong.
    pub(crate) column: usize,
    pub(crate) why: Unrepresentable,
}

/// The cells of a row and the bytes their texts stand in. Where a cell was not sent, `fallback` is asked: the full old
/// row, or the old key for key columns.
#[derive(Clone, Copy)]
pub(crate) struct Tuple<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) cells: &'a [Cell],
    pub(crate) fallback: Option<&'a [Cell]>,
}

impl Tuple<'_> {
    fn cell(&self, at: usize) -> Option<Cell> {
        match (self.cells.get(at).copied()?, self.fallback) {
            (Cell::Unchanged, Some(fallback)) => fallback.get(at).copied(),
            (cell, _) => Some(cell),
        }
    }

    /// Whether a column is unknown even to the fallback.
    pub(crate) fn lacks(&self, at: usize) -> bool {
        self.cell(at) == Some(Cell::Unchanged)
    }
}

impl TablePlan {
    /// The plan of a table under `schema`, whose columns hold values filled up with blanks where `padded` says so.
    pub(crate) fn new(schema: TableSchema, padded: Vec<bool>, routes: &mut Routes) -> Self {
        let route = routes.of(&schema);
        let kinds = schema.columns.iter().map(|column| column.kind.clone()).zip(padded).collect();
        let key = schema.key_columns();
        Self { schema, route, kinds, key }
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.kinds.len()
    }

    /// Appends the row; answers with the first of its cells that are lost, if any are.
    pub(crate) fn write_row(
        &self,
        out: &mut Vec<u8>,
        tuple: Tuple<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<BadCell>, BadCell> {
        self.check_width(&tuple)?;
        let mut row = RowBuilder::new(out);
        let mut lost = None;
        for (at, (kind, _)) in self.kinds.iter().enumerate() {
            if let Err(bad) = self.write_cell(&mut row, &tuple, at, kind, scratch) {
                row.push_lost();
                lost.get_or_insert(bad);
            }
        }
        Ok(lost)
    }

    /// Appends a row that holds the key's columns only; the others are missing.
    pub(crate) fn write_key_row(
        &self,
        out: &mut Vec<u8>,
        tuple: Tuple<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), BadCell> {
        self.check_width(&tuple)?;
        let mut row = RowBuilder::new(out);
        for (at, (kind, _)) in self.kinds.iter().enumerate() {
            if self.key.contains(&at) {
                self.write_cell(&mut row, &tuple, at, kind, scratch)?;
            } else {
                row.push(ValueRef::Missing);
            }
        }
        Ok(())
    }

    /// Appends the key in the form of record keys.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>, tuple: Tuple<'_>, scratch: &mut Vec<u8>) -> Result<(), BadCell> {
        self.check_width(&tuple)?;
        for &column in &self.key {
            let bad = |why| BadCell { column, why };
            match tuple.cell(column) {
                Some(cell @ Cell::Text { .. }) => {
                    let text = self.plain(column, cell.text(tuple.bytes).unwrap_or_default());
                    cell::write_key(out, &self.kinds[column].0, text, scratch).map_err(bad)?;
                }
                _ => return Err(bad(Unrepresentable("a key column without a value"))),
            }
        }
        Ok(())
    }

    /// Without the blanks that mean nothing.
    fn plain<'t>(&self, at: usize, text: &'t [u8]) -> &'t [u8] {
        if !self.kinds[at].1 {
            return text;
        }
        &text[..text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1)]
    }

    fn check_width(&self, tuple: &Tuple<'_>) -> Result<(), BadCell> {
        if tuple.cells.len() == self.width() {
            Ok(())
        } else {
            let column = self.width();
            Err(BadCell { column, why: Unrepresentable("a row with another number of columns than announced") })
        }
    }

    fn write_cell(
        &self,
        row: &mut RowBuilder<'_>,
        tuple: &Tuple<'_>,
        at: usize,
        kind: &ColumnType,
        scratch: &mut Vec<u8>,
    ) -> Result<(), BadCell> {
        match tuple.cell(at) {
            Some(cell @ Cell::Text { .. }) => {
                let text = self.plain(at, cell.text(tuple.bytes).unwrap_or_default());
                cell::write(row, kind, text, scratch).map_err(|why| BadCell { column: at, why })?;
            }
            Some(Cell::Null) => row.push(ValueRef::Null),
            Some(Cell::Unchanged) | None => row.push(ValueRef::Missing),
        }
        Ok(())
    }

    /// What was wrong with a row, for people: names the column, never the value.
    pub(crate) fn complaint(&self, bad: BadCell) -> String {
        let column = self.schema.columns.get(bad.column);
        match column {
            Some(column) => format!(
                "column `{}` ({}) holds {}; correct the value in the source",
                column.name, column.source_type, bad.why.0
            ),
            None => bad.why.0.to_owned(),
        }
    }
}
