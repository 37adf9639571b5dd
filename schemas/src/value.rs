//! One cell of a row.

use std::cmp::Ordering;

use crate::{ColumnType, compare_decimals, is_decimal, temporal};

/// One cell, borrowed from the bytes of its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// The source did not send this column (PostgreSQL: unchanged TOAST), or its value is lost: see
    /// [`RowBuilder::push_lost`](crate::RowBuilder::push_lost). Not the same as null.
    Missing,
    /// SQL null.
    Null,
    /// Boolean.
    Bool(bool),
    /// Signed integer of any width up to 64 bits.
    Int(i64),
    /// Unsigned integer above `i64::MAX`; smaller ones are [`ValueRef::Int`].
    UInt(u64),
    /// Exact decimal as plain text; see [`is_decimal`].
    Decimal(&'a str),
    /// Single precision float.
    Float32(f32),
    /// Double precision float.
    Float64(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Days since 1970-01-01; `i32::MAX` and `i32::MIN` are ±infinity.
    Date(i32),
    /// Microseconds since midnight; 86,400,000,000 is 24:00:00.
    Time(i64),
    /// Microseconds since midnight and the zone's offset in seconds east of UTC.
    TimeTz(i64, i32),
    /// Microseconds since 1970-01-01T00:00:00 on an unnamed clock; `i64::MAX` and `i64::MIN` are ±infinity.
    Timestamp(i64),
    /// Microseconds since 1970-01-01T00:00:00Z; `i64::MAX` and `i64::MIN` are ±infinity.
    TimestampTz(i64),
    /// A span of time.
    Interval(Interval),
    /// UUID, most significant byte first.
    Uuid([u8; 16]),
    /// JSON text as the source holds it.
    Json(&'a str),
    /// Label of an enumeration.
    Enum(&'a str),
    /// Array.
    Array(ArrayRef<'a>),
}

/// A span of time in the three parts that do not convert into one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// An array borrowed from the bytes of its row: dimensions, then the cells in row-major order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrayRef<'a> {
    pub(crate) bytes: &'a [u8],
}

/// One cell that owns what it holds: literals of models and queries, and values in tests.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// See [`ValueRef::Missing`].
    Missing,
    /// See [`ValueRef::Null`].
    Null,
    /// See [`ValueRef::Bool`].
    Bool(bool),
    /// See [`ValueRef::Int`].
    Int(i64),
    /// See [`ValueRef::UInt`].
    UInt(u64),
    /// See [`ValueRef::Decimal`].
    Decimal(String),
    /// See [`ValueRef::Float32`].
    Float32(f32),
    /// See [`ValueRef::Float64`].
    Float64(f64),
    /// See [`ValueRef::Text`].
    Text(String),
    /// See [`ValueRef::Bytes`].
    Bytes(Vec<u8>),
    /// See [`ValueRef::Date`].
    Date(i32),
    /// See [`ValueRef::Time`].
    Time(i64),
    /// See [`ValueRef::TimeTz`].
    TimeTz(i64, i32),
    /// See [`ValueRef::Timestamp`].
    Timestamp(i64),
    /// See [`ValueRef::TimestampTz`].
    TimestampTz(i64),
    /// See [`ValueRef::Interval`].
    Interval(Interval),
    /// See [`ValueRef::Uuid`].
    Uuid([u8; 16]),
    /// See [`ValueRef::Json`].
    Json(String),
    /// See [`ValueRef::Enum`].
    Enum(String),
    /// See [`ValueRef::Array`].
    Array(ArrayValue),
}

/// An owned array: `dimensions` are the lengths per level, `cells` are in row-major order. An empty array has no
/// dimensions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrayValue {
    /// Length of each level, outermost first.
    pub dimensions: Vec<u32>,
    /// Cells in row-major order; as many as the product of the dimensions.
    pub cells: Vec<Value>,
}

/// Levels an array can have; PostgreSQL allows 6. An array inside an array is a level, not a cell.
pub(crate) const ARRAY_DIMENSIONS_MAX: usize = 16;

/// A text that is not a value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnparsableValue {
    /// What would have been right, with an example.
    pub expected: &'static str,
}

impl<'a> ValueRef<'a> {
    /// Whether this is SQL null or missing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::Missing)
    }

    /// Compares two cells as the read models do: numbers by value whatever their type, texts by their UTF-8 bytes,
    /// times by instant, intervals by length (a month is 30 days, a day 24 hours, as in PostgreSQL). Null sorts before
    /// everything. Cells that cannot be compared meaningfully are ordered by the
    /// bytes of [`crate::key`], which is total and the same everywhere.
    pub fn compare(&self, other: &ValueRef<'_>) -> Ordering {
        match (self, other) {
            (Self::Int(a), ValueRef::Int(b)) => a.cmp(b),
            (Self::Text(a), ValueRef::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Decimal(a), ValueRef::Decimal(b)) => compare_decimals(a, b),
            (Self::Date(a), ValueRef::Date(b)) => a.cmp(b),
            (Self::Timestamp(a), ValueRef::Timestamp(b)) | (Self::TimestampTz(a), ValueRef::TimestampTz(b)) => a.cmp(b),
            (a, b) => {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                crate::key::write(&mut left, *a);
                crate::key::write(&mut right, *b);
                left.cmp(&right)
            }
        }
    }

    /// An owned copy.
    pub fn to_value(self) -> Value {
        match self {
            Self::Missing => Value::Missing,
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(b),
            Self::Int(n) => Value::Int(n),
            Self::UInt(n) => Value::UInt(n),
            Self::Decimal(t) => Value::Decimal(t.into()),
            Self::Float32(n) => Value::Float32(n),
            Self::Float64(n) => Value::Float64(n),
            Self::Text(t) => Value::Text(t.into()),
            Self::Bytes(b) => Value::Bytes(b.into()),
            Self::Date(n) => Value::Date(n),
            Self::Time(n) => Value::Time(n),
            Self::TimeTz(n, zone) => Value::TimeTz(n, zone),
            Self::Timestamp(n) => Value::Timestamp(n),
            Self::TimestampTz(n) => Value::TimestampTz(n),
            Self::Interval(i) => Value::Interval(i),
            Self::Uuid(u) => Value::Uuid(u),
            Self::Json(t) => Value::Json(t.into()),
            Self::Enum(t) => Value::Enum(t.into()),
            Self::Array(array) => Value::Array(ArrayValue {
                dimensions: array.dimensions(),
                cells: array.cells().map(Self::to_value).collect(),
            }),
        }
    }
}

impl Value {
    /// Parses the text of a value as people and databases write it, guided by the column's type: ISO 8601 for times
    /// (a blank instead of `T`, a trailing ` BC` and `infinity` are understood), plain decimals, hyphenated UUIDs,
    /// `t`/`true`. Bytes are PostgreSQL's hexadecimal form `\x00ff`. Arrays are not parsed here.
    ///
    /// ```
    /// use headwater_schemas::{ColumnType, Value};
    ///
    /// assert_eq!(Value::parse("2000-02-29", &ColumnType::Date), Ok(Value::Date(11_016)));
    /// let error = Value::parse("30.2.2000", &ColumnType::Date).expect_err("not ISO 8601");
    /// assert_eq!(error.to_string(), "expected a date such as 2026-01-31");
    /// ```
    pub fn parse(text: &str, kind: &ColumnType) -> Result<Self, UnparsableValue> {
        let expected = |expected: &'static str| UnparsableValue { expected };
        Ok(match kind {
            ColumnType::Bool => match text {
                "t" | "true" | "TRUE" | "1" => Self::Bool(true),
                "f" | "false" | "FALSE" | "0" => Self::Bool(false),
                _ => return Err(expected("true or false")),
            },
            ColumnType::Int32 | ColumnType::Int64 => {
                Self::Int(text.parse().map_err(|_| expected("an integer of at most 64 bits"))?)
            }
            ColumnType::UInt64 => {
                let n: u64 = text.parse().map_err(|_| expected("an unsigned integer of at most 64 bits"))?;
                i64::try_from(n).map_or(Self::UInt(n), Self::Int)
            }
            ColumnType::Decimal if is_decimal(text) => Self::Decimal(text.into()),
            ColumnType::Decimal => return Err(expected("a decimal such as -12.50")),
            // A number too large for the type reads as infinite, which nobody wrote.
            ColumnType::Float32 => match text.parse() {
                Ok(n) if f32::is_finite(n) || !has_digits(text) => Self::Float32(n),
                _ => return Err(expected("a number such as 1.5, in the range of the type")),
            },
            ColumnType::Float64 => match text.parse() {
                Ok(n) if f64::is_finite(n) || !has_digits(text) => Self::Float64(n),
                _ => return Err(expected("a number such as 1.5, in the range of the type")),
            },
            ColumnType::Text => Self::Text(text.into()),
            ColumnType::Other => Self::Text(text.into()),
            ColumnType::Enum => Self::Enum(text.into()),
            ColumnType::Json => Self::Json(text.into()),
            ColumnType::Bytes => {
                let digits = text.strip_prefix("\\x").filter(|digits| digits.len() % 2 == 0);
                let digits = digits.ok_or(expected("bytes as \\x and hexadecimal digits"))?.as_bytes();
                let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
                let bytes: Option<Vec<u8>> =
                    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect();
                Self::Bytes(bytes.ok_or(expected("bytes as \\x and hexadecimal digits"))?)
            }
            ColumnType::Date => Self::Date(temporal::parse_date(text).ok_or(expected("a date such as 2026-01-31"))?),
            ColumnType::Time => Self::Time(temporal::parse_time(text).ok_or(expected("a time such as 23:59:59.5"))?),
            ColumnType::TimeTz => {
                let (micros, zone) = temporal::parse_time_tz(text).ok_or(expected("a time such as 23:59:59+01:00"))?;
                Self::TimeTz(micros, zone)
            }
            ColumnType::Timestamp => Self::Timestamp(
                temporal::parse_timestamp(text).ok_or(expected("a date and time such as 2026-01-31T23:59:59"))?,
            ),
            ColumnType::TimestampTz => Self::TimestampTz(
                temporal::parse_timestamp_tz(text).ok_or(expected("an instant such as 2026-01-31T23:59:59Z"))?,
            ),
            ColumnType::Interval => {
                Self::Interval(temporal::parse_interval(text).ok_or(expected("an interval such as P1Y2M3DT4H5M6.5S"))?)
            }
            ColumnType::Uuid => Self::Uuid(parse_uuid(text).ok_or(expected("a UUID"))?),
            ColumnType::Array(_) => return Err(expected("a single value, not an array")),
        })
    }

    /// Borrows this value. An array is encoded into `scratch`, which must be empty.
    pub fn as_ref<'a>(&'a self, scratch: &'a mut Vec<u8>) -> ValueRef<'a> {
        match self {
            Self::Array(array) => {
                crate::row::write_array(scratch, array);
                ValueRef::Array(ArrayRef { bytes: scratch })
            }
            other => other.scalar().expect("only arrays are not scalars"),
        }
    }

    /// Borrows this value; `None` for an array, which needs room to be encoded in (see [`Self::as_ref`]).
    pub fn scalar(&self) -> Option<ValueRef<'_>> {
        Some(match self {
            Self::Missing => ValueRef::Missing,
            Self::Null => ValueRef::Null,
            Self::Bool(b) => ValueRef::Bool(*b),
            Self::Int(n) => ValueRef::Int(*n),
            Self::UInt(n) => ValueRef::UInt(*n),
            Self::Decimal(t) => ValueRef::Decimal(t),
            Self::Float32(n) => ValueRef::Float32(*n),
            Self::Float64(n) => ValueRef::Float64(*n),
            Self::Text(t) => ValueRef::Text(t),
            Self::Bytes(b) => ValueRef::Bytes(b),
            Self::Date(n) => ValueRef::Date(*n),
            Self::Time(n) => ValueRef::Time(*n),
            Self::TimeTz(n, zone) => ValueRef::TimeTz(*n, *zone),
            Self::Timestamp(n) => ValueRef::Timestamp(*n),
            Self::TimestampTz(n) => ValueRef::TimestampTz(*n),
            Self::Interval(i) => ValueRef::Interval(*i),
            Self::Uuid(u) => ValueRef::Uuid(*u),
            Self::Json(t) => ValueRef::Json(t),
            Self::Enum(t) => ValueRef::Enum(t),
            Self::Array(_) => return None,
        })
    }
}

fn has_digits(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut out = [0u8; 16];
    let mut digits = text.bytes().filter(|b| *b != b'-');
    for byte in &mut out {
        let nibble = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
        *byte = nibble(digits.next()?)? << 4 | nibble(digits.next()?)?;
    }
    digits.next().is_none().then_some(out)
}
