//! The source: random tables, and what is true in them.

use std::collections::BTreeMap;

use headwater_projector::naive::NaiveTables;
use headwater_schemas::{ArrayValue, Column, ColumnType, RowBuilder, TableId, TableSchema, Value, key};

use crate::random::Random;

pub(crate) struct Table {
    pub(crate) schema: TableSchema,
    /// Rows by key bytes. What is missing from them is lost.
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<Value>>,
}

/// Columns whose values can be equal to one another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Number,
    Text,
    Other,
}

pub(crate) fn family(kind: &ColumnType) -> Family {
    match kind {
        ColumnType::Int64 | ColumnType::Decimal | ColumnType::Int32 => Family::Number,
        ColumnType::Text => Family::Text,
        _ => Family::Other,
    }
}

impl Table {
    pub(crate) fn random(random: &mut Random, source: &str, number: usize) -> Self {
        let mut columns = Vec::new();
        let mut add = |name: &str, kind: ColumnType, key_ordinal: Option<u16>| {
            columns.push(Column { name: name.into(), kind, source_type: String::new(), key_ordinal });
        };
        let composite = random.chance(35);
        let key_kind = |random: &mut Random| if random.chance(75) { ColumnType::Int64 } else { ColumnType::Text };
        // The order of the key is not the order of the columns.
        if composite {
            add("k2", key_kind(random), Some(1));
        }
        add("a", ColumnType::Int64, None);
        add("k1", key_kind(random), Some(0));
        add("b", if random.chance(50) { ColumnType::Decimal } else { ColumnType::Int64 }, None);
        add("t", ColumnType::Text, None);
        add("d", ColumnType::Decimal, None);
        add("big", ColumnType::Text, None);
        if random.chance(30) {
            add("list", ColumnType::Array(Box::new(ColumnType::Int64)), None);
            add("at", ColumnType::TimestampTz, None);
        }
        if random.chance(30) {
            add("day", ColumnType::Date, None);
            add("moment", ColumnType::Timestamp, None);
            add("uuid", ColumnType::Uuid, None);
        }
        let table = TableId::new(source, "public", format!("t{number}"));
        Self { schema: TableSchema { table, columns }, rows: BTreeMap::new() }
    }

    pub(crate) fn id(&self) -> &TableId {
        &self.schema.table
    }

    pub(crate) fn columns_of(&self, wanted: Family) -> Vec<String> {
        let columns = self.schema.columns.iter().filter(|column| family(&column.kind) == wanted);
        columns.map(|column| column.name.to_string()).collect()
    }

    pub(crate) fn key_names(&self) -> Vec<String> {
        self.schema.key_columns().into_iter().map(|at| self.schema.columns[at].name.to_string()).collect()
    }

    pub(crate) fn key_of(&self, row: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        self.schema.key_columns().into_iter().for_each(|at| key::write(&mut out, row[at].scalar().unwrap()));
        out
    }

    pub(crate) fn random_row(&self, random: &mut Random) -> Vec<Value> {
        self.schema.columns.iter().map(|column| value(random, column)).collect()
    }

    pub(crate) fn random_value(&self, random: &mut Random, at: usize) -> Value {
        value(random, &self.schema.columns[at])
    }
}

/// Few different values, so that rows meet.
fn value(random: &mut Random, column: &Column) -> Value {
    if column.key_ordinal.is_none() {
        // One that cannot be represented: it is lost.
        match random.below(100) {
            0..=17 => return Value::Null,
            18 => return Value::Missing,
            _ => {}
        }
    }
    match &column.kind {
        ColumnType::Int64 => Value::Int(random.below(6) as i64 - 1),
        ColumnType::Decimal => Value::Decimal((*random.pick(&["0", "1", "1.0", "2.50", "-3", "4", "3.00"])).into()),
        ColumnType::TimestampTz => Value::TimestampTz(random.below(3) as i64 * 1_500_000),
        ColumnType::Timestamp => Value::Timestamp(random.below(4) as i64 * 1_500_000 - 1_500_000),
        ColumnType::Date => Value::Date(random.below(4) as i32 * 20_000 - 20_000),
        ColumnType::Uuid => Value::Uuid([random.below(3) as u8 * 100; 16]),
        ColumnType::Array(_) => {
            let cells: Vec<Value> = (0..random.below(3)).map(|_| Value::Int(random.below(3) as i64)).collect();
            let dimensions = if cells.is_empty() { vec![] } else { vec![cells.len() as u32] };
            Value::Array(ArrayValue { dimensions, cells })
        }
        _ => Value::Text((*random.pick(&["", "a", "b", "7", "3", "Zoë \"x\"\n", "a\0b"])).into()),
    }
}

pub(crate) fn row_bytes(row: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut builder = RowBuilder::new(&mut out);
    row.iter().for_each(|value| builder.push_value(value));
    out
}

/// What is true, for the naive evaluator.
pub(crate) fn naive(tables: &[Table]) -> NaiveTables {
    let rows = |table: &Table| table.rows.iter().map(|(key, row)| (key.clone(), row_bytes(row))).collect();
    tables.iter().map(|table| (table.id().clone(), (table.schema.clone(), rows(table)))).collect()
}
