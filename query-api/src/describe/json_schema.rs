//! JSON Schema (draft 2020-12) of a model's documents.

use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use serde_json::{Map, Value, json};

/// What a decimal looks like.
pub(super) const DECIMAL: &str = "^(-?[0-9]+(\\.[0-9]+)?|NaN|-?Infinity)$";

/// The JSON Schema of the documents of a model.
pub fn json_schema(shape: &ModelShape) -> Value {
    let mut schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": shape.model });
    merge(&mut schema, document(shape));
    schema
}

/// The schema of a document, to be embedded.
pub(super) fn document(shape: &ModelShape) -> Value {
    let mut schema = object(&shape.fields);
    if let Some(doc) = &shape.doc {
        schema["description"] = doc.as_str().into();
    }
    schema
}

/// The schema of an object with these members: each is always there.
pub(super) fn object(fields: &[ShapeField]) -> Value {
    let mut schema = object_of(fields, object);
    schema["required"] = fields.iter().map(|field| field.name.as_str()).collect();
    schema
}

/// The schema of such an object of which only some members were asked for.
pub(super) fn some_of(fields: &[ShapeField]) -> Value {
    object_of(fields, some_of)
}

fn object_of(fields: &[ShapeField], inner: fn(&[ShapeField]) -> Value) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.clone(), member(field, inner))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn member(field: &ShapeField, inner: fn(&[ShapeField]) -> Value) -> Value {
    let mut schema = match &field.kind {
        FieldType::Scalar(kind) => value(kind),
        FieldType::Nested { cardinality: Cardinality::Many, fields } => {
            json!({ "type": "array", "items": inner(fields) })
        }
        FieldType::Nested { cardinality: Cardinality::One, fields } => inner(fields),
    };
    let is_array = matches!(field.kind, FieldType::Nested { cardinality: Cardinality::Many, .. });
    if !field.required && !is_array {
        schema = or_null(schema);
    }
    if let Some(doc) = &field.doc {
        schema["description"] = doc.as_str().into();
    }
    schema
}

fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(kind) => *kind = json!([kind.take(), "null"]),
        // Any value, null too.
        None => {}
    }
    schema
}

/// The schema of a value as it stands in documents.
pub(super) fn value(kind: &ColumnType) -> Value {
    match kind {
        ColumnType::Bool => json!({ "type": "boolean" }),
        ColumnType::Int32 => json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }),
        ColumnType::Int64 | ColumnType::UInt64 => json!({
            "type": ["integer", "string"],
            "pattern": "^-?[0-9]+$",
            "description": "A number up to 2^53 in magnitude and a string beyond, so that none is rounded.",
        }),
        ColumnType::Decimal => json!({
            "type": "string",
            "format": "decimal",
            "pattern": DECIMAL,
        }),
        ColumnType::Float32 | ColumnType::Float64 => json!({
            "type": ["number", "string"],
            "pattern": "^(NaN|-?Infinity)$",
            "description": "A number, or one of the three that JSON has no number for.",
        }),
        ColumnType::Text | ColumnType::Enum | ColumnType::Other => json!({ "type": "string" }),
        ColumnType::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        ColumnType::Date => json!({ "type": "string", "format": "date" }),
        ColumnType::Time => json!({ "type": "string", "description": "Time of day without zone." }),
        ColumnType::TimeTz => json!({ "type": "string", "format": "time" }),
        ColumnType::Timestamp => json!({ "type": "string", "description": "Date and time without zone, ISO 8601." }),
        ColumnType::TimestampTz => json!({ "type": "string", "format": "date-time" }),
        ColumnType::Interval => json!({ "type": "string", "format": "duration" }),
        ColumnType::Uuid => json!({ "type": "string", "format": "uuid" }),
        ColumnType::Json => json!({}),
        ColumnType::Array(_) => json!({ "type": "array" }),
    }
}

fn merge(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}
