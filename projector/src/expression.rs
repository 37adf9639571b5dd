//! Where a field's value comes from, evaluated on one row. Both evaluators share this: what a value *is* is defined
//! once, how rows are found is not.

use headwater_schemas::model::Literal;
use headwater_schemas::model::definition::{CastType, Expression};
use headwater_schemas::{ColumnType, TableSchema, Value, ValueRef, is_decimal, temporal, write_json_value};

use crate::typing;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// An expression whose columns are named by `C`: by name, or by place in a decoded row.
#[derive(Clone, Debug)]
pub(crate) enum Formula<C> {
    Column(C),
    Constant(Value),
    Concat { parts: Vec<Formula<C>>, separator: String },
    Coalesce { parts: Vec<Formula<C>>, to: Option<CastType> },
    Cast { of: Box<Formula<C>>, to: CastType },
}

/// A value: borrowed from the row where it is a column, owned where it was made.
#[derive(Clone, Debug)]
pub(crate) enum Evaluated<'a> {
    Borrowed(ValueRef<'a>),
    Owned(Value),
}

impl Evaluated<'_> {
    /// The value in a type. The error is the type's name.
    fn cast(self, to: CastType) -> Result<Self, &'static str> {
        Ok(match cast(self.get(), to).ok_or(cast_name(to))? {
            Some(changed) => Self::Owned(changed),
            None => self,
        })
    }

    pub(crate) fn get(&self) -> ValueRef<'_> {
        match self {
            Self::Borrowed(value) => *value,
            // Formulas make scalars only: arrays stay borrowed.
            Self::Owned(value) => value.scalar().unwrap_or(ValueRef::Null),
        }
    }
}

/// A value that has no form in the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of `{field}` cannot be cast to {to}; mend the row, or the model's cast")]
pub(crate) struct CastError {
    pub(crate) field: String,
    pub(crate) to: &'static str,
}

impl<C> Formula<C> {
    /// Compiles a declared expression over the rows of a table, naming its columns anew.
    pub(crate) fn new<E>(
        expression: &Expression,
        schema: &TableSchema,
        column: &mut impl FnMut(&str) -> Result<C, E>,
    ) -> Result<Self, E> {
        let mut all = |parts: &[Expression]| {
            parts.iter().map(|part| Self::new(part, schema, column)).collect::<Result<Vec<_>, E>>()
        };
        Ok(match expression {
            Expression::Constant(literal) => Self::Constant(constant(literal)),
            Expression::Concat { parts, separator } => {
                Self::Concat { parts: all(parts)?, separator: separator.clone() }
            }
            Expression::Coalesce(parts) => {
                Self::Coalesce { parts: all(parts)?, to: cast_of_parts(typing::of(expression, schema)) }
            }
            Expression::Column(name) => Self::Column(column(name)?),
            Expression::Cast { of, to } => Self::Cast { of: Box::new(Self::new(of, schema, column)?), to: *to },
        })
    }

    /// The value on the row whose cells `column` finds. The error is the wanted type's name.
    pub(crate) fn evaluate<'v>(&'v self, column: &impl Fn(&C) -> ValueRef<'v>) -> Result<Evaluated<'v>, &'static str> {
        Ok(match self {
            Self::Column(name) => Evaluated::Borrowed(column(name)),
            Self::Constant(value) => Evaluated::Borrowed(value.scalar().unwrap_or(ValueRef::Null)),
            Self::Coalesce { parts, to } => {
                for part in parts {
                    let value = part.evaluate(column)?;
                    if !value.get().is_null() {
                        return match to {
                            Some(to) => value.cast(*to),
                            None => Ok(value),
                        };
                    }
                }
                Evaluated::Borrowed(ValueRef::Null)
            }
            Self::Concat { parts, separator } => {
                let mut text = String::new();
                let mut any = false;
                for part in parts {
                    let value = part.evaluate(column)?;
                    if value.get().is_null() {
                        continue;
                    }
                    if any {
                        text.push_str(separator);
                    }
                    any = true;
                    write_text(&mut text, value.get());
                }
                if any { Evaluated::Owned(Value::Text(text)) } else { Evaluated::Borrowed(ValueRef::Null) }
            }
            Self::Cast { of, to } => of.evaluate(column)?.cast(*to)?,
        })
    }
}

/// What the parts of a coalesce are cast to, by the type that they have in common: values of every other type are of it
/// as they stand.
fn cast_of_parts(common: Option<ColumnType>) -> Option<CastType> {
    match common? {
        ColumnType::Decimal => Some(CastType::Decimal),
        ColumnType::Text => Some(CastType::Text),
        _ => None,
    }
}

fn constant(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Number(text) => match text.parse() {
            Ok(n) => Value::Int(n),
            Err(_) => text.parse().map_or_else(|_| Value::Decimal(text.clone()), Value::UInt),
        },
        Literal::Text(text) => Value::Text(text.clone()),
    }
}

/// How a cast is written.
pub(crate) fn cast_name(to: CastType) -> &'static str {
    match to {
        CastType::Text => "text",
        CastType::Integer => "integer",
        CastType::Decimal => "decimal",
        CastType::Float => "float",
        CastType::Boolean => "boolean",
        CastType::Date => "date",
        CastType::Timestamp => "timestamp",
        CastType::Json => "json",
    }
}

/// Appends the plain text of a value: what stands in the document, without quotes and escapes. Null appends nothing.
fn write_text(out: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Null | ValueRef::Missing => {}
        ValueRef::Text(text) | ValueRef::Enum(text) | ValueRef::Json(text) | ValueRef::Decimal(text) => {
            out.push_str(text);
        }
        other => {
            let mut json = Vec::new();
            write_json_value(&mut json, other);
            let text = String::from_utf8_lossy(&json);
            let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            out.push_str(quoted.unwrap_or(&text));
        }
    }
}

/// `Some(None)`: the value is of the wanted type as it stands; `None`: it has no form in it.
fn cast(value: ValueRef<'_>, to: CastType) -> Option<Option<Value>> {
    use ValueRef as V;
    if value.is_null() {
        return Some(None);
    }
    let text = match value {
        V::Text(text) | V::Enum(text) | V::Json(text) => Some(text.trim()),
        _ => None,
    };
    Some(Some(match to {
        CastType::Text => match value {
            V::Text(_) => return Some(None),
            other => {
                let mut text = String::new();
                write_text(&mut text, other);
                Value::Text(text)
            }
        },
        CastType::Integer => match value {
            V::Int(_) | V::UInt(_) => return Some(None),
            V::Bool(b) => Value::Int(i64::from(b)),
            V::Decimal(text) => integer(integral(text)?)?,
            V::Float32(n) => float_integer(f64::from(n))?,
            V::Float64(n) => float_integer(n)?,
            _ => integer(text?)?,
        },
        CastType::Decimal => match value {
            V::Decimal(_) => return Some(None),
            V::Int(n) => Value::Decimal(n.to_string()),
            V::UInt(n) => Value::Decimal(n.to_string()),
            V::Float32(n) => Value::Decimal(float_decimal(f64::from(n), n.to_string())),
            V::Float64(n) => Value::Decimal(float_decimal(n, n.to_string())),
            _ => Value::Decimal(text.filter(|text| is_decimal(text))?.into()),
        },
        CastType::Float => match value {
            V::Float64(_) | V::Float32(_) => return Some(None),
            V::Int(n) => Value::Float64(n as f64),
            V::UInt(n) => Value::Float64(n as f64),
            V::Decimal(text) => Value::Float64(float(text)?),
            _ => Value::Float64(float(text?)?),
        },
        CastType::Boolean => match value {
            V::Bool(_) => return Some(None),
            V::Int(0) => Value::Bool(false),
            V::Int(1) => Value::Bool(true),
            V::Decimal(text) => match integer(integral(text)?)? {
                Value::Int(0) => Value::Bool(false),
                Value::Int(1) => Value::Bool(true),
                _ => return None,
            },
            _ => match text?.to_ascii_lowercase().as_str() {
                "t" | "true" | "y" | "yes" | "1" => Value::Bool(true),
                "f" | "false" | "n" | "no" | "0" => Value::Bool(false),
                _ => return None,
            },
        },
        CastType::Date => match value {
            V::Date(_) => return Some(None),
            V::Timestamp(i64::MAX) | V::TimestampTz(i64::MAX) => Value::Date(i32::MAX),
            V::Timestamp(i64::MIN) | V::TimestampTz(i64::MIN) => Value::Date(i32::MIN),
            V::Timestamp(micros) | V::TimestampTz(micros) => Value::Date(i32::try_from(micros.div_euclid(DAY)).ok()?),
            _ => {
                let text = text?;
                Value::Date(match temporal::parse_date(text) {
                    Some(days) => days,
                    None => i32::try_from(temporal::parse_timestamp(text)?.div_euclid(DAY)).ok()?,
                })
            }
        },
        CastType::Timestamp => match value {
            V::TimestampTz(_) => return Some(None),
            V::Timestamp(micros) => Value::TimestampTz(micros),
            V::Date(i32::MAX) => Value::TimestampTz(i64::MAX),
            V::Date(i32::MIN) => Value::TimestampTz(i64::MIN),
            V::Date(days) => Value::TimestampTz(midnight(days)?),
            _ => {
                let text = text?;
                let parsed = temporal::parse_timestamp_tz(text).or_else(|| temporal::parse_timestamp(text));
                Value::TimestampTz(match parsed {
                    Some(micros) => micros,
                    None => midnight(temporal::parse_date(text)?)?,
                })
            }
        },
        CastType::Json => match value {
            V::Json(_) => return Some(None),
            V::Text(text) | V::Enum(text) => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
                Value::Json(text.into())
            }
            other => {
                let mut json = Vec::new();
                write_json_value(&mut json, other);
                Value::Json(String::from_utf8(json).ok()?)
            }
        },
    }))
}

/// The digits of a decimal without a fraction.
fn integral(text: &str) -> Option<&str> {
    match text.split_once('.') {
        Some((whole, fraction)) => fraction.bytes().all(|b| b == b'0').then_some(whole),
        None => Some(text),
    }
}

fn integer(text: &str) -> Option<Value> {
    match text.parse() {
        Ok(n) => Some(Value::Int(n)),
        Err(_) => text.parse().ok().map(Value::UInt),
    }
}

/// A number that is too large is refused instead of being called infinite.
fn float(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let is_named = !text.bytes().any(|byte| byte.is_ascii_digit());
    (number.is_finite() || is_named).then_some(number)
}

/// The instant at which a day begins, microseconds since 1970; `None` beyond what that can say.
fn midnight(days: i32) -> Option<i64> {
    i64::from(days).checked_mul(DAY)
}

fn float_integer(n: f64) -> Option<Value> {
    // Every integral float in this range is exact in 64 bits.
    (n.fract() == 0.0 && n.abs() < 9.2e18).then_some(Value::Int(n as i64))
}

fn float_decimal(n: f64, plain: String) -> String {
    if n.is_nan() {
        "NaN".into()
    } else if n.is_infinite() {
        if n > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        plain
    }
}

/// A number as decimal text, for sums; `None` when it is none.
pub(crate) fn decimal_text(value: ValueRef<'_>) -> Option<String> {
    match cast(value, CastType::Decimal)? {
        Some(Value::Decimal(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use headwater_schemas::TableId;

    use super::*;

    fn cast_to(value: ValueRef<'_>, to: CastType) -> Option<Value> {
        cast(value, to).map(|changed| changed.unwrap_or_else(|| value.to_value()))
    }

    #[test]
    fn casts_are_exact_or_refused() {
        use CastType as T;
        assert_eq!(cast_to(ValueRef::Decimal("12.00"), T::Integer), Some(Value::Int(12)));
        assert_eq!(cast_to(ValueRef::Decimal("12.01"), T::Integer), None);
        assert_eq!(cast_to(ValueRef::Text("twelve"), T::Integer), None);
        assert_eq!(cast_to(ValueRef::Int(2), T::Boolean), None);
        assert_eq!(cast_to(ValueRef::Decimal("1.00"), T::Boolean), Some(Value::Bool(true)));
        assert_eq!(cast_to(ValueRef::Decimal("0"), T::Boolean), Some(Value::Bool(false)));
        assert_eq!(cast_to(ValueRef::Decimal("0.5"), T::Boolean), None);
        assert_eq!(cast_to(ValueRef::Decimal("2"), T::Boolean), None);
        assert_eq!(cast_to(ValueRef::Text("Y"), T::Boolean), Some(Value::Bool(true)));
        assert_eq!(cast_to(ValueRef::Timestamp(-1), T::Date), Some(Value::Date(-1)));
        assert_eq!(cast_to(ValueRef::Text("{\"a\": 1}"), T::Json), Some(Value::Json("{\"a\": 1}".into())));
        assert_eq!(cast_to(ValueRef::Text("{"), T::Json), None);
        assert_eq!(cast_to(ValueRef::Int(1 << 60), T::Text), Some(Value::Text((1i64 << 60).to_string())));
        assert_eq!(cast_to(ValueRef::Null, T::Integer), Some(Value::Null));
        // The 300,000th year is a day, and no instant.
        assert_eq!(cast_to(ValueRef::Date(108_853_221), T::Timestamp), None);
        assert_eq!(cast_to(ValueRef::Text("300000-01-01"), T::Timestamp), None);
        assert_eq!(cast_to(ValueRef::Text("1e400"), T::Float), None);
        assert_eq!(cast_to(ValueRef::Decimal("Infinity"), T::Float), Some(Value::Float64(f64::INFINITY)));
    }

    #[test]
    fn concat_leaves_nulls_out_and_is_null_of_nulls() {
        let expression = Expression::Concat {
            parts: vec![Expression::Column("a".into()), Expression::Column("b".into())],
            separator: "-".into(),
        };
        let schema = TableSchema { table: TableId::new("s", "public", "t"), columns: Vec::new() };
        let formula = Formula::new::<()>(&expression, &schema, &mut |name| Ok(name.to_string())).expect("compiles");
        let of = |a, b| {
            let value = formula.evaluate(&|name: &String| if name == "a" { a } else { b }).expect("no cast");
            value.get().to_value()
        };
        assert_eq!(of(ValueRef::Int(7), ValueRef::Text("x")), Value::Text("7-x".into()));
        assert_eq!(of(ValueRef::Null, ValueRef::Text("x")), Value::Text("x".into()));
        assert_eq!(of(ValueRef::Null, ValueRef::Null), Value::Null);
    }
}
