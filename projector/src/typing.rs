//! What type the values of an expression have, told from the types of the columns.

use headwater_schemas::model::Literal;
use headwater_schemas::model::definition::{CastType, Expression};
use headwater_schemas::{ColumnType, TableSchema};

/// The type of an expression's values on the rows of a table; `None` where all of them are null.
pub(crate) fn of(expression: &Expression, schema: &TableSchema) -> Option<ColumnType> {
    match expression {
        Expression::Column(name) => schema.column_index(name).map(|at| schema.columns[at].kind.clone()),
        Expression::Constant(literal) => constant(literal),
        Expression::Concat { .. } => Some(ColumnType::Text),
        Expression::Coalesce(parts) => parts.iter().filter_map(|part| of(part, schema)).reduce(common),
        Expression::Cast { to, .. } => Some(match to {
            CastType::Text => ColumnType::Text,
            CastType::Integer => ColumnType::Int64,
            CastType::Decimal => ColumnType::Decimal,
            CastType::Float => ColumnType::Float64,
            CastType::Boolean => ColumnType::Bool,
            CastType::Date => ColumnType::Date,
            CastType::Timestamp => ColumnType::TimestampTz,
            CastType::Json => ColumnType::Json,
        }),
    }
}

/// Whether values of a type can be added up.
pub(crate) fn is_number(kind: &ColumnType) -> bool {
    is_integer(kind) || matches!(kind, ColumnType::Decimal | ColumnType::Float32 | ColumnType::Float64)
}

fn is_integer(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Int32 | ColumnType::Int64 | ColumnType::UInt64)
}

fn constant(literal: &Literal) -> Option<ColumnType> {
    match literal {
        Literal::Null => None,
        Literal::Bool(_) => Some(ColumnType::Bool),
        Literal::Number(text) if text.parse::<i64>().is_ok() => Some(ColumnType::Int64),
        Literal::Number(text) if text.parse::<u64>().is_ok() => Some(ColumnType::UInt64),
        Literal::Number(_) => Some(ColumnType::Decimal),
        Literal::Text(_) => Some(ColumnType::Text),
    }
}

/// The type that values of both types can be given without loss. Everything has a text.
fn common(a: ColumnType, b: ColumnType) -> ColumnType {
    if a == b {
        a
    } else if is_integer(&a) && is_integer(&b) {
        ColumnType::Int64
    } else if is_number(&a) && is_number(&b) {
        ColumnType::Decimal
    } else {
        ColumnType::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_several_types_have_one_in_common() {
        use ColumnType as T;
        for (parts, wanted) in [
            (vec![T::Date, T::Date], T::Date),
            (vec![T::Int32, T::Int32], T::Int32),
            (vec![T::Int32, T::Int64, T::Int32], T::Int64),
            (vec![T::Int64, T::UInt64], T::Int64),
            (vec![T::Int32, T::Decimal], T::Decimal),
            (vec![T::Float32, T::Float64, T::Float32], T::Decimal),
            (vec![T::Int32, T::Text, T::Int32], T::Text),
            (vec![T::Date, T::TimestampTz, T::Date], T::Text),
        ] {
            assert_eq!(parts.clone().into_iter().reduce(common), Some(wanted), "{parts:?}");
        }
    }
}
