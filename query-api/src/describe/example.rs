//! Examples made of types.

use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use serde_json::{Map, Value, json};

/// A document that could be one of this model's.
pub(super) fn document(shape: &ModelShape) -> Value {
    object(&shape.fields)
}

/// An object with these members.
pub(super) fn object(fields: &[ShapeField]) -> Value {
    let member = |field: &ShapeField| {
        let value = match &field.kind {
            FieldType::Scalar(kind) => value(kind, &field.name),
            FieldType::Nested { cardinality: Cardinality::Many, fields } => json!([object(fields)]),
            FieldType::Nested { cardinality: Cardinality::One, fields } => object(fields),
        };
        (field.name.clone(), value)
    };
    Value::Object(fields.iter().map(member).collect::<Map<_, _>>())
}

/// A value of this type; `name` helps to choose a telling one.
pub(super) fn value(kind: &ColumnType, name: &str) -> Value {
    match kind {
        ColumnType::Bool => json!(true),
        ColumnType::Int32 | ColumnType::Int64 | ColumnType::UInt64 => json!(7),
        ColumnType::Decimal => json!("129.90"),
        ColumnType::Float32 | ColumnType::Float64 => json!(0.5),
        ColumnType::Text | ColumnType::Enum | ColumnType::Other if name.contains("mail") => json!("ada@example.com"),
        ColumnType::Text | ColumnType::Enum | ColumnType::Other => json!("text"),
        ColumnType::Bytes => json!("AP8="),
        ColumnType::Date => json!("2026-01-31"),
        ColumnType::Time => json!("23:59:59.5"),
        ColumnType::TimeTz => json!("23:59:59+01:00"),
        ColumnType::Timestamp => json!("2026-01-31T23:59:59"),
        ColumnType::TimestampTz => json!("2026-01-31T23:59:59Z"),
        ColumnType::Interval => json!("P1M"),
        ColumnType::Uuid => json!("0195a4a2-7c1e-7000-8000-000000000001"),
        ColumnType::Json => json!({}),
        ColumnType::Array(of) => json!([value(of, name)]),
    }
}

/// An id of this model as it stands in a path.
pub(super) fn id(shape: &ModelShape) -> String {
    let part = |kind: &ColumnType| match value(kind, "") {
        Value::String(text) => text,
        other => other.to_string(),
    };
    shape.key.iter().map(part).collect::<Vec<_>>().join("~")
}

/// The same as text, as it is written in an address.
pub(super) fn text(kind: &ColumnType, name: &str) -> Value {
    match value(kind, name) {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}
