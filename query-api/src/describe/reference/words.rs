//! What types are called before people who write front ends.

use headwater_schemas::ColumnType;
use headwater_schemas::model::{IndexShape, Operator};

/// How values of this type stand in JSON.
pub(super) fn kind(kind: &ColumnType) -> &'static str {
    match kind {
        ColumnType::Bool => "true or false",
        ColumnType::Int32 => "integer",
        ColumnType::Int64 | ColumnType::UInt64 => "integer, as text beyond 2^53",
        ColumnType::Decimal => "exact decimal, as text",
        ColumnType::Float32 | ColumnType::Float64 => "number",
        ColumnType::Text | ColumnType::Other => "text",
        ColumnType::Enum => "text, one of a few",
        ColumnType::Bytes => "bytes in base64",
        ColumnType::Date => "date",
        ColumnType::Time | ColumnType::TimeTz => "time of day",
        ColumnType::Timestamp => "date and time without zone",
        ColumnType::TimestampTz => "date and time, UTC",
        ColumnType::Interval => "duration",
        ColumnType::Uuid => "UUID",
        ColumnType::Json => "any JSON",
        ColumnType::Array(_) => "list",
    }
}

/// The operators that an index answers.
pub(super) fn operators(index: &IndexShape) -> impl Iterator<Item = &'static str> {
    let textual = matches!(index.kind, ColumnType::Text | ColumnType::Enum | ColumnType::Other);
    let answers = move |operator: &Operator| textual || !matches!(operator, Operator::StartsWith | Operator::Contains);
    Operator::ALL.into_iter().filter(move |(_, operator)| answers(operator)).map(|(word, _)| word)
}
