//! What the documents of a model version look like to a reader: the declared tree with the types the source's tables
//! gave it. Stored in the version registry by the projector, read from there by the query API.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::definition::Cardinality;
use crate::{ColumnType, Value, ValueRef};

/// The document type of one model version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Name of the model.
    pub model: String,
    /// Version number its author gave it.
    pub version: u32,
    /// For people.
    pub doc: Option<String>,
    /// Types of the parts of the document's id, in order. In URLs the parts are joined by `~`.
    pub key: Vec<ColumnType>,
    /// Members of the document, in the order of its JSON.
    pub fields: Vec<ShapeField>,
    /// What readers may filter and sort by; the place in this list is the index's number in the document store.
    pub indexes: Vec<IndexShape>,
}

/// One member of a document or nested object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShapeField {
    /// Name.
    pub name: String,
    /// For people.
    pub doc: Option<String>,
    /// Whether it is never null.
    pub required: bool,
    /// Type.
    pub kind: FieldType,
}

/// Type of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// A value.
    Scalar(ColumnType),
    /// A nested object or array of them.
    Nested {
        /// Array or object.
        cardinality: Cardinality,
        /// Members of each.
        fields: Vec<ShapeField>,
    },
}

/// One declared index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexShape {
    /// The path with points between, as readers name it.
    pub name: String,
    /// Type of the values.
    pub kind: ColumnType,
    /// The path leads through an array: a document has any number of entries, and cannot be sorted by it.
    pub many: bool,
}

impl ModelShape {
    /// The index named `name` and its number.
    pub fn index(&self, name: &str) -> Option<(u16, &IndexShape)> {
        let at = self.indexes.iter().position(|index| index.name == name)?;
        Some((u16::try_from(at).ok()?, &self.indexes[at]))
    }

    /// The bytes a document is stored under, from the id a reader gave: the inverse of [`Self::format_id`]. `None` when
    /// it cannot be an id of this model, which a reader sees as "not found".
    pub fn parse_id(&self, id: &str) -> Option<Vec<u8>> {
        let mut parts = id.split('~');
        let mut key = Vec::with_capacity(24);
        for kind in &self.key {
            crate::key::write(&mut key, parse_part(parts.next()?, kind)?.scalar()?);
        }
        parts.next().is_none().then_some(key)
    }

    /// [`Self::parse_id`] of an id that is written as [`Self::format_id`] writes it, and in no other way.
    pub fn parse_canonical_id(&self, id: &str) -> Option<Vec<u8>> {
        let values = id.split('~').zip(&self.key).map(|(part, kind)| parse_part(part, kind));
        let values: Vec<Value> = values.collect::<Option<_>>()?;
        let parts: Vec<ValueRef<'_>> = values.iter().map(Value::scalar).collect::<Option<_>>()?;
        if parts.len() != self.key.len() || Self::format_id(parts.iter().copied()) != id {
            return None;
        }
        let mut key = Vec::with_capacity(24);
        parts.into_iter().for_each(|part| crate::key::write(&mut key, part));
        Some(key)
    }

    /// The id readers name a document by: its key parts as their JSON text without quotes, `%` and `~` in a part written
    /// as `%25` and `%7E`, and `~` between parts. Escaping for URLs comes on top.
    ///
    /// ```
    /// use headwater_schemas::{ColumnType, Value, ValueRef, model::ModelShape};
    ///
    /// let shape = ModelShape {
    ///     model: "price".into(),
    ///     version: 1,
    ///     doc: None,
    ///     key: vec![ColumnType::Text, ColumnType::Date],
    ///     fields: vec![],
    ///     indexes: vec![],
    /// };
    /// let id = ModelShape::format_id([ValueRef::Text("~50%"), ValueRef::Date(0)]);
    /// assert_eq!(id, "%7E50%25~1970-01-01");
    /// assert!(shape.parse_id(&id).is_some());
    /// ```
    pub fn format_id<'v>(parts: impl IntoIterator<Item = ValueRef<'v>>) -> String {
        let mut id = String::with_capacity(24);
        let mut text = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                id.push('~');
            }
            text.clear();
            let text = match part {
                ValueRef::Text(text) | ValueRef::Enum(text) | ValueRef::Json(text) => text,
                other => {
                    crate::write_json_value(&mut text, other);
                    let json = std::str::from_utf8(&text).expect("JSON is UTF-8");
                    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json)
                }
            };
            for letter in text.chars() {
                match letter {
                    '%' => id.push_str("%25"),
                    '~' => id.push_str("%7E"),
                    letter => id.push(letter),
                }
            }
        }
        id
    }
}

/// The value of one part of an id.
fn parse_part(part: &str, kind: &ColumnType) -> Option<Value> {
    let part = percent_decode(part)?;
    match kind {
        ColumnType::Bytes => STANDARD.decode(part.as_bytes()).ok().map(Value::Bytes),
        kind => Value::parse(&part, kind).ok(),
    }
}

/// Every `%XX` in one pass, so that what was decoded is not decoded again.
fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| (byte as char).to_digit(16);
        out.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = after;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(key: Vec<ColumnType>) -> ModelShape {
        ModelShape { model: "m".into(), version: 1, doc: None, key, fields: Vec::new(), indexes: Vec::new() }
    }

    #[test]
    fn ids_lead_back_to_their_keys() {
        use ValueRef as V;
        for (kind, value, written) in [
            (ColumnType::Int64, V::Int(-7), "-7"),
            (ColumnType::Int64, V::Int(i64::MIN), "-9223372036854775808"),
            (ColumnType::UInt64, V::UInt(u64::MAX), "18446744073709551615"),
            (ColumnType::Decimal, V::Decimal("12.50"), "12.50"),
            (ColumnType::Float64, V::Float64(-0.5), "-0.5"),
            (ColumnType::Text, V::Text("%7E"), "%257E"),
            (ColumnType::Text, V::Text("a~b\"\\"), "a%7Eb\"\\"),
            (ColumnType::Text, V::Text(""), ""),
            (ColumnType::Enum, V::Enum("open"), "open"),
            (ColumnType::Bytes, V::Bytes(&[0, 255]), "AP8="),
            (ColumnType::Bool, V::Bool(true), "true"),
            (ColumnType::TimestampTz, V::TimestampTz(1), "1970-01-01T00:00:00.000001Z"),
            (ColumnType::Uuid, V::Uuid([1; 16]), "01010101-0101-0101-0101-010101010101"),
        ] {
            let id = ModelShape::format_id([value, V::Int(1)]);
            assert_eq!(id, format!("{written}~1"));
            let mut key = crate::key::of(value);
            crate::key::write(&mut key, V::Int(1));
            assert_eq!(shape(vec![kind, ColumnType::Int32]).parse_id(&id), Some(key), "{id}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        let shape = shape(vec![ColumnType::Int64, ColumnType::Text]);
        for id in ["", "1", "1~a~b", "x~a", "1~%", "1~%4", "1~%zz", "1~%ff"] {
            assert_eq!(shape.parse_id(id), None, "{id}");
        }
        assert_eq!(shape.parse_id("1~%7e"), shape.parse_id("1~%7E"));
    }
}
