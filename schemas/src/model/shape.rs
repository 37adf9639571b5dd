//! What the documents of a model version look like to a reader: the declared tree with the types the source's tables
//! gave it. Stored in the version registry by the projector, read from there by the query API.

use serde::{Deserialize, Serialize};

use super::definition::Cardinality;
use crate::ColumnType;

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

    /// The bytes a document is stored under, from the id a reader gave: parts joined by `~`, with `~` and `%` inside a
    /// part percent-encoded. `None` when it cannot be an id of this model, which a reader sees as "not found".
    pub fn parse_id(&self, id: &str) -> Option<Vec<u8>> {
        let parts: Vec<&str> = id.split('~').collect();
        if parts.len() != self.key.len() {
            return None;
        }
        let mut key = Vec::with_capacity(24);
        for (part, kind) in parts.iter().zip(&self.key) {
            let part = part.replace("%7E", "~").replace("%7e", "~").replace("%25", "%");
            let value = crate::Value::parse(&part, kind).ok()?;
            crate::key::write(&mut key, value.scalar()?);
        }
        Some(key)
    }
}
