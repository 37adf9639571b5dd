//! Which cells of a row are needed, found in rows of every schema the table ever had.

use std::sync::Arc;

use headwater_schemas::model::definition::Expression;
use headwater_schemas::model::{Literal, Operator};
use headwater_schemas::{ColumnType, RowRef, TableId, TableSchema, ValueRef};
use headwater_store::SchemaId;

use crate::typing;

const UNUSED: u16 = u16::MAX;

/// Some columns of a table, each with a place (*slot*) in the decoded row. Columns a schema does not have are null in its
/// rows: they were added later, or dropped.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) table: TableId,
    names: Vec<Arc<str>>,
    /// By schema number: the slot of each cell, up to the last one needed.
    slots: Vec<Option<Box<[u16]>>>,
    /// By schema number: the type of each slot's column, and none where the schema does not have it.
    kinds: Vec<Option<Kinds>>,
    conditions: Vec<Condition>,
    /// By schema number: whether its types cannot be held against a condition.
    unfit: Vec<bool>,
}

/// What a condition of the model compares on a row of the table.
#[derive(Clone, Debug)]
struct Condition {
    of: Expression,
    operator: Operator,
    literals: Vec<Literal>,
}

type Kinds = Box<[Option<ColumnType>]>;

impl Columns {
    pub(crate) fn new(table: TableId) -> Self {
        Self {
            table,
            names: Vec::new(),
            slots: Vec::new(),
            kinds: Vec::new(),
            conditions: Vec::new(),
            unfit: Vec::new(),
        }
    }

    /// The slot of a column, which is added when it is not there yet.
    pub(crate) fn slot(&mut self, name: &str) -> usize {
        match self.names.iter().position(|known| &**known == name) {
            Some(slot) => slot,
            None => {
                self.names.push(name.into());
                self.names.len() - 1
            }
        }
    }

    /// Notes what a condition compares. Rows whose types it cannot be held against are [torn](Self::is_torn): it would hold
    /// for none of them or for all, whatever they have in the column.
    pub(crate) fn compare(&mut self, of: Expression, operator: Operator, literals: &[Literal]) {
        self.conditions.push(Condition { of, operator, literals: literals.to_vec() });
    }

    /// How many slots a decoded row has.
    pub(crate) fn width(&self) -> usize {
        self.names.len()
    }

    /// Learns how rows of a schema are read; schemas of other tables are passed over.
    pub(crate) fn learn(&mut self, id: SchemaId, schema: &TableSchema) {
        if schema.table != self.table {
            return;
        }
        let mut slots = vec![UNUSED; schema.columns.len()];
        let mut kinds = vec![None; self.names.len()];
        for (slot, name) in self.names.iter().enumerate() {
            if let Some(at) = schema.column_index(name) {
                slots[at] = u16::try_from(slot).expect("a model names fewer columns than 65,535");
                kinds[slot] = Some(schema.columns[at].kind.clone());
            }
        }
        let needed = slots.iter().rposition(|slot| *slot != UNUSED).map_or(0, |last| last + 1);
        slots.truncate(needed);
        let at = id.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
            self.kinds.resize(at + 1, None);
            self.unfit.resize(at + 1, false);
        }
        let is_unfit = |condition: &Condition| {
            let kind = typing::of(&condition.of, schema);
            kind.is_some_and(|kind| condition.operator.unfit(&kind, &condition.literals).is_some())
        };
        self.unfit[at] = self.conditions.iter().any(is_unfit);
        self.slots[at] = Some(slots.into());
        self.kinds[at] = Some(kinds.into());
    }

    /// Whether the needed columns are of the same types in two schemas. Where they are not, equal cells may be written in two
    /// ways: what the parts of an expression have in common depends on the types.
    pub(crate) fn same_kinds(&self, one: SchemaId, other: SchemaId) -> bool {
        let kinds = |schema: SchemaId| self.kinds.get(schema.0 as usize).and_then(Option::as_ref);
        one == other || kinds(one) == kinds(other)
    }

    /// Whether a row, of which these are the needed cells, cannot be told: one of them was never sent, or a condition cannot be
    /// held against the types of its schema.
    pub(crate) fn is_torn(&self, schema: SchemaId, cells: &[ValueRef<'_>]) -> bool {
        self.unfit.get(schema.0 as usize).copied().unwrap_or(false) || cells.contains(&ValueRef::Missing)
    }

    /// Appends the needed cells of a row to `out`: exactly [`Self::width`] values.
    pub(crate) fn read<'r>(&self, schema: SchemaId, row: RowRef<'r>, out: &mut Vec<ValueRef<'r>>) {
        let start = out.len();
        out.resize(start + self.width(), ValueRef::Null);
        let Some(Some(slots)) = self.slots.get(schema.0 as usize) else { return };
        for (slot, cell) in slots.iter().zip(row.raw_cells()) {
            if *slot != UNUSED {
                out[start + usize::from(*slot)] = RowRef(cell).cell(0);
            }
        }
    }
}

/// Appends the key of several cells, one part after another; `false`, and nothing appended, when one is null: nothing
/// is joined by null.
pub(crate) fn write_join_key(out: &mut Vec<u8>, cells: &[ValueRef<'_>], slots: &[usize]) -> bool {
    let start = out.len();
    for slot in slots {
        let value = cells[*slot];
        if value.is_null() {
            out.truncate(start);
            return false;
        }
        headwater_schemas::key::write(out, value);
    }
    true
}

#[cfg(test)]
mod tests {
    use headwater_schemas::Column;

    use super::*;

    #[test]
    fn types_count_of_the_columns_that_are_needed() {
        use ColumnType as T;
        let table = TableId::new("s", "public", "t");
        let column = |(name, kind): &(&str, T)| Column {
            name: (*name).into(),
            kind: kind.clone(),
            source_type: String::new(),
            key_ordinal: None,
        };
        let mut columns = Columns::new(table.clone());
        columns.slot("b");
        let schemas: [&[(&str, T)]; 5] = [
            &[("a", T::Int64), ("b", T::Int64)],
            &[("b", T::Int64), ("a", T::Text), ("c", T::Text)],
            &[("a", T::Int64), ("b", T::Decimal)],
            &[("a", T::Int64)],
            &[("c", T::Text)],
        ];
        for (id, schema) in (0..).map(SchemaId).zip(schemas) {
            let columns_of = schema.iter().map(column).collect();
            columns.learn(id, &TableSchema { table: table.clone(), columns: columns_of });
        }
        let same = |one, other| columns.same_kinds(SchemaId(one), SchemaId(other));
        assert!(same(0, 0) && same(0, 1) && same(3, 4));
        assert!(!same(0, 2) && !same(2, 1) && !same(0, 3));
    }
}
