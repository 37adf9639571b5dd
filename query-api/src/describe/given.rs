//! Schemas of what callers give in parameters: values to compare with, and names of fields.

use headwater_schemas::ColumnType;
use headwater_schemas::model::{FieldType, Operator, ShapeField};
use serde_json::{Value, json};

use super::example;
use super::json_schema::DECIMAL;

/// A value to compare an index of this type with, as text of a query string; `name` helps to choose a telling example.
pub(super) fn compared(kind: &ColumnType, name: &str) -> Value {
    let mut schema = match kind {
        ColumnType::Bool => json!({ "type": "boolean" }),
        // Numbers are compared by value whatever their type, and exactly: a number of JavaScript would round some.
        ColumnType::Int32 | ColumnType::Int64 | ColumnType::UInt64 | ColumnType::Decimal => {
            json!({ "type": "string", "pattern": DECIMAL })
        }
        ColumnType::Float32 | ColumnType::Float64 => json!({ "type": "number" }),
        ColumnType::Date => json!({ "type": "string", "format": "date" }),
        ColumnType::TimestampTz => json!({ "type": "string", "format": "date-time" }),
        ColumnType::Uuid => json!({ "type": "string", "format": "uuid" }),
        ColumnType::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        _ => json!({ "type": "string" }),
    };
    schema["examples"] = json!([match kind {
        ColumnType::Bool | ColumnType::Float32 | ColumnType::Float64 => example::value(kind, name),
        _ => example::text(kind, name),
    }]);
    schema
}

/// The operators by which an index of this type can be filtered, each with its word.
pub(super) fn operators(kind: &ColumnType) -> impl Iterator<Item = (&'static str, Operator)> {
    let textual = matches!(kind, ColumnType::Text | ColumnType::Enum | ColumnType::Other);
    let applies = move |operator: &Operator| textual || !matches!(operator, Operator::StartsWith | Operator::Contains);
    Operator::ALL.into_iter().filter(move |(_, operator)| applies(operator))
}

/// The parameter that selects some of these fields.
pub(super) fn fields(of: &[ShapeField]) -> Value {
    let mut paths = Vec::new();
    add_paths(of, "", &mut paths);
    json!({
        "name": "fields",
        "in": "query",
        "description": "Only these fields, as paths with points.",
        "schema": {
            "type": "array",
            "items": { "type": "string", "enum": paths },
            "minItems": 1,
            "maxItems": 200,
        },
        "style": "form",
        "explode": false,
    })
}

fn add_paths(fields: &[ShapeField], above: &str, paths: &mut Vec<String>) {
    for field in fields {
        let path = format!("{above}{}", field.name);
        paths.push(path.clone());
        if let FieldType::Nested { fields, .. } = &field.kind {
            add_paths(fields, &(path + "."), paths);
        }
    }
}
