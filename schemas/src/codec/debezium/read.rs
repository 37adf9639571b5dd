//! JSON to binary event.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::{CodecError, cell};
use crate::{
    Column, EventHeader, EventRef, Op, RowBuilder, RowRef, SchemaFingerprint, SourcePosition, TableId, TableSchema,
    Value, ValueRef,
};

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEvent {
    /// Key of its record, in the form of [`crate::key`].
    pub key: Vec<u8>,
    /// The columns its rows are written with.
    pub schema: TableSchema,
    /// The event in the form of [`EventRef::encode`].
    pub bytes: Vec<u8>,
}

impl OwnedEvent {
    /// The event.
    pub fn event(&self) -> EventRef<'_> {
        EventRef::decode(&self.bytes).expect("the bytes were encoded by from_json")
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    op: char,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    source: Source,
    #[serde(borrow)]
    x: Option<X<'a>>,
}

#[derive(Deserialize)]
struct Source {
    name: String,
    schema: String,
    table: String,
    #[serde(default)]
    ts_us: i64,
    #[serde(default, rename = "txId")]
    transaction: u64,
}

#[derive(Deserialize)]
struct X<'a> {
    v: u32,
    epoch: u32,
    pos: String,
    #[serde(default)]
    tx_last: bool,
    #[serde(default)]
    key_only: bool,
    partitions: Option<u32>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    key_bytes: Option<String>,
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    lost: Vec<String>,
    schema: String,
    columns: Option<Vec<Column>>,
}

const NO_X: &str = "block `x` is missing: another producer wrote it, so it has no position";

type Image<'a> = BTreeMap<String, &'a RawValue>;

/// The fingerprint of the schema an event was written with, to find the one to read it with.
pub fn schema_of(value: &[u8]) -> Result<SchemaFingerprint, CodecError> {
    let envelope: Envelope<'_> = serde_json::from_slice(value)?;
    fingerprint(&envelope.x.ok_or(CodecError::Envelope { reason: NO_X })?)
}

fn fingerprint(x: &X<'_>) -> Result<SchemaFingerprint, CodecError> {
    let hash = u64::from_str_radix(&x.schema, 16);
    hash.map(SchemaFingerprint).map_err(|_| CodecError::Envelope { reason: "`x.schema` is not a fingerprint" })
}

/// Reads an event written by [`super::EventWriter`].
///
/// `schema` must be the one it was written with (see [`schema_of`]): then the event is exactly the one that was written.
/// Only a schema event (`op` `s`), which brings its own, can be read without: JSON does not tell a decimal from a text.
///
/// # Errors
///
/// Text that is not such an event, a schema that is another one, and cells that are not of their column's type. Events of
/// Debezium's own connectors have no block `x`, hence no total order, and are refused.
pub fn from_json(value: &[u8], schema: Option<&TableSchema>) -> Result<OwnedEvent, CodecError> {
    let mut envelope: Envelope<'_> = serde_json::from_slice(value)?;
    let not_ours = |reason| CodecError::Envelope { reason };
    let x = envelope.x.take().ok_or(not_ours(NO_X))?;
    if !(1..=2).contains(&x.v) {
        return Err(not_ours("written by a version of Headwater that this one does not know"));
    }
    let before = image(envelope.before)?;
    let after = image(envelope.after)?;
    let key = image(x.key)?;

    let schema = match schema {
        Some(schema) => {
            if fingerprint(&x)? != schema.fingerprint() {
                return Err(not_ours("it was written with other columns than the schema it is read with"));
            }
            schema.clone()
        }
        None => {
            let Source { name, schema, table, .. } = &envelope.source;
            let table = TableId::new(name.as_str(), schema.as_str(), table.as_str());
            let columns = x.columns.ok_or(not_ours("only schema events can be read without their schema"))?;
            TableSchema { table, columns }
        }
    };

    let mut position = x.pos.split('/').map(|part| u64::from_str_radix(part, 16).ok());
    let (Some(Some(commit)), Some(Some(ordinal)), None) = (position.next(), position.next(), position.next()) else {
        return Err(not_ours("`x.pos` is not a position"));
    };
    let ordinal = u32::try_from(ordinal).map_err(|_| not_ours("`x.pos` is not a position"))?;
    let header = EventHeader {
        op: Op::from_letter(envelope.op).ok_or(not_ours("unknown operation"))?,
        position: SourcePosition { epoch: x.epoch, commit, ordinal },
        transaction: envelope.source.transaction,
        committed_at_micros: envelope.source.ts_us,
        last_in_transaction: x.tx_last,
        before_is_key_only: x.key_only,
    };

    let before = before.map(|image| row(&image, &[], &[], &schema)).transpose()?;
    let after = after.map(|image| row(&image, &x.missing, &x.lost, &schema)).transpose()?;
    let key = match &x.key_bytes {
        Some(bytes) => STANDARD.decode(bytes).map_err(|_| not_ours("`x.key_bytes` is not base64"))?,
        None => key_bytes(key.as_ref(), &schema)?,
    };

    let (before, after) = (before.as_deref().map(RowRef), after.as_deref().map(RowRef));
    let mut bytes = Vec::new();
    EventRef { header, before, after, partitions: x.partitions }.encode(&mut bytes);
    Ok(OwnedEvent { key, schema, bytes })
}

/// Reads a record's key as [`super::EventWriter`] writes it: the primary key in the form of [`crate::key`].
///
/// # Errors
///
/// Text that is not the key of a row of this table.
pub fn key_from_json(key: &[u8], schema: &TableSchema) -> Result<Vec<u8>, CodecError> {
    key_bytes(Some(&serde_json::from_slice(key)?), schema)
}

fn image(raw: Option<&RawValue>) -> Result<Option<Image<'_>>, serde_json::Error> {
    raw.map(|raw| serde_json::from_str(raw.get())).transpose()
}

/// What is in the image of a `missing` column is a placeholder.
fn row(image: &Image<'_>, missing: &[String], lost: &[String], schema: &TableSchema) -> Result<Vec<u8>, CodecError> {
    let named = |names: &[String], column: &Column| names.iter().any(|name| **name == *column.name);
    let mut bytes = Vec::new();
    let mut row = RowBuilder::new(&mut bytes);
    let mut known = 0;
    for column in &schema.columns {
        if let Some(raw) = image.get(&*column.name) {
            known += 1;
            if named(missing, column) {
                row.push(ValueRef::Missing);
            } else {
                row.push_value(&cell(raw, column, schema)?);
            }
        } else if named(lost, column) {
            known += 1;
            row.push_lost();
        } else {
            row.push(ValueRef::Missing);
        }
    }
    if known != image.len() + lost.len() {
        return Err(CodecError::Envelope { reason: "it has a column that its schema does not have" });
    }
    Ok(bytes)
}

fn key_bytes(key: Option<&Image<'_>>, schema: &TableSchema) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    let Some(key) = key else { return Ok(bytes) };
    for at in schema.key_columns() {
        let column = &schema.columns[at];
        let raw = key.get(&*column.name).ok_or(CodecError::Envelope { reason: "`x.key` lacks a column of the key" })?;
        let mut scratch = Vec::new();
        crate::key::write(&mut bytes, cell(raw, column, schema)?.as_ref(&mut scratch));
    }
    Ok(bytes)
}

fn cell(raw: &RawValue, column: &Column, schema: &TableSchema) -> Result<Value, CodecError> {
    cell::read(raw.get(), &column.kind).map_err(|reason| CodecError::Cell {
        table: schema.table.clone(),
        column: column.name.to_string(),
        reason,
    })
}
