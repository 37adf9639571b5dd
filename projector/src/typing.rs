//! What type the values of an expression have, told from the types of the columns, and which can be cast to which.

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

/// The first cast in an expression that no value survives: from which type, and to which.
pub(crate) fn impossible_cast(expression: &Expression, schema: &TableSchema) -> Option<(ColumnType, CastType)> {
    match expression {
        Expression::Column(_) | Expression::Constant(_) => None,
        Expression::Concat { parts, .. } | Expression::Coalesce(parts) => {
            parts.iter().find_map(|part| impossible_cast(part, schema))
        }
        Expression::Cast { of: inner, to } => impossible_cast(inner, schema).or_else(|| {
            let from = of(inner, schema)?;
            (!is_castable(&from, *to)).then_some((from, *to))
        }),
    }
}

/// Whether some value of a type has a form in another one.
fn is_castable(from: &ColumnType, to: CastType) -> bool {
    use ColumnType as T;
    // A text can spell a value of any type, and every value has a text.
    matches!(from, T::Text | T::Enum | T::Json | T::Other)
        || match to {
            CastType::Text | CastType::Json => true,
            CastType::Integer => is_number(from) || *from == T::Bool,
            CastType::Decimal | CastType::Float => is_number(from),
            CastType::Boolean => is_integer(from) || matches!(from, T::Bool | T::Decimal),
            CastType::Date | CastType::Timestamp => matches!(from, T::Date | T::Timestamp | T::TimestampTz),
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
    use headwater_schemas::{Column, TableId, ValueRef};

    use super::*;
    use crate::expression::Formula;

    /// Values of a type, of which one survives each cast that any value of the type does.
    fn samples(kind: &ColumnType) -> Vec<ValueRef<'static>> {
        use ColumnType as T;
        use ValueRef as V;
        match kind {
            T::Bool => vec![V::Bool(false)],
            T::Int32 | T::Int64 | T::UInt64 => vec![V::Int(0)],
            T::Decimal => vec![V::Decimal("0")],
            T::Float32 => vec![V::Float32(0.0)],
            T::Float64 => vec![V::Float64(0.0)],
            T::Text | T::Other => vec![V::Text("0"), V::Text("2026-01-31")],
            T::Enum => vec![V::Enum("0"), V::Enum("2026-01-31")],
            T::Json => vec![V::Json("0"), V::Json("2026-01-31")],
            T::Bytes => vec![V::Bytes(b"0")],
            T::Date => vec![V::Date(0)],
            T::Time => vec![V::Time(0)],
            T::TimeTz => vec![V::TimeTz(0, 0)],
            T::Timestamp => vec![V::Timestamp(0)],
            T::TimestampTz => vec![V::TimestampTz(0)],
            T::Interval => vec![V::Interval(headwater_schemas::Interval::default())],
            T::Uuid => vec![V::Uuid([0; 16])],
            T::Array(_) => Vec::new(),
        }
    }

    #[test]
    fn a_cast_is_impossible_where_no_value_survives_it() {
        use CastType as C;
        use ColumnType as T;
        let kinds = [
            T::Bool,
            T::Int32,
            T::Int64,
            T::UInt64,
            T::Decimal,
            T::Float32,
            T::Float64,
            T::Text,
            T::Bytes,
            T::Date,
            T::Time,
            T::TimeTz,
            T::Timestamp,
            T::TimestampTz,
            T::Interval,
            T::Uuid,
            T::Json,
            T::Enum,
            T::Other,
        ];
        for kind in kinds {
            let column = Column { name: "c".into(), kind: kind.clone(), source_type: String::new(), key_ordinal: None };
            let schema = TableSchema { table: TableId::new("s", "public", "t"), columns: vec![column] };
            for to in [C::Text, C::Integer, C::Decimal, C::Float, C::Boolean, C::Date, C::Timestamp, C::Json] {
                let expression = Expression::Cast { of: Box::new(Expression::Column("c".into())), to };
                let formula = Formula::new::<()>(&expression, &schema, &mut |_| Ok(())).expect("compiles");
                let survives = samples(&kind).iter().any(|value| formula.evaluate(&|&()| *value).is_ok());
                let wanted = (!survives).then(|| (kind.clone(), to));
                assert_eq!(impossible_cast(&expression, &schema), wanted, "{kind:?} to {to:?}");
            }
        }
        assert!(!is_castable(&T::Array(Box::new(T::Int32)), C::Integer));
        assert!(is_castable(&T::Array(Box::new(T::Int32)), C::Text));
    }

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
