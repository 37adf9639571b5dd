//! Tables of a source and their columns.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::varint;

/// One table of one source. Displayed as `source.schema.table`.
///
/// ```
/// use headwater_schemas::TableId;
///
/// let table = TableId::new("billing", "public", "invoices");
/// assert_eq!(table.topic("headwater"), "headwater.billing.public.invoices");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId {
    /// Name of the source as configured, for example `billing`.
    pub source: Arc<str>,
    /// Schema (PostgreSQL) or database (MySQL) the table is in.
    pub schema: Arc<str>,
    /// The table's own name, as the source spells it.
    pub table: Arc<str>,
}

impl TableId {
    /// Names a table.
    pub fn new(source: impl Into<Arc<str>>, schema: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), schema: schema.into(), table: table.into() }
    }

    /// The topic of this table's change events: `prefix.source.schema.table`.
    pub fn topic(&self, prefix: &str) -> String {
        format!("{prefix}.{self}")
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.source, self.schema, self.table)
    }
}

/// What kind of value a column holds, in the words all sources share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// Signed integer of at most 32 bits.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// Unsigned 64-bit integer.
    UInt64,
    /// Exact decimal of any precision.
    Decimal,
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 double precision.
    Float64,
    /// Text.
    Text,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Calendar date.
    Date,
    /// Time of day without zone.
    Time,
    /// Time of day with a zone offset.
    TimeTz,
    /// Date and time without zone.
    Timestamp,
    /// Instant.
    TimestampTz,
    /// Months, days and microseconds.
    Interval,
    /// UUID.
    Uuid,
    /// JSON document.
    Json,
    /// One of a set of labels.
    Enum,
    /// Array, of any number of dimensions, of one element type.
    Array(Box<ColumnType>),
    /// Anything else, carried as the source's own text for it.
    Other,
}

/// One column as the change log described it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Name, as the source spells it.
    pub name: Arc<str>,
    /// Kind of value.
    pub kind: ColumnType,
    /// The source's own name of the type, for example `numeric(12,2)`.
    pub source_type: String,
    /// Place in the primary key, counted from 0; `None` when it is not part of it.
    pub key_ordinal: Option<u16>,
}

/// The columns of a table as they were when some rows were written. Rows name no columns; they are read by the schema
/// they were written with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table.
    pub table: TableId,
    /// Columns in row order.
    pub columns: Vec<Column>,
}

/// First 8 bytes of a hash over a schema: two schemas with the same fingerprint are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaFingerprint(pub u64);

impl TableSchema {
    /// Index of the column named `name`.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    /// Indexes of the primary key's columns in key order; empty when the table has no key.
    pub fn key_columns(&self) -> Vec<usize> {
        let mut key: Vec<_> =
            self.columns.iter().enumerate().filter_map(|(at, c)| Some((c.key_ordinal?, at))).collect();
        key.sort_unstable();
        key.into_iter().map(|(_, at)| at).collect()
    }

    /// Identifies this schema among all others.
    pub fn fingerprint(&self) -> SchemaFingerprint {
        let hash = blake3::hash(&self.to_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        SchemaFingerprint(u64::from_be_bytes(first))
    }

    /// Binary form; the inverse is [`Self::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![1];
        for name in [&self.table.source, &self.table.schema, &self.table.table] {
            varint::write_prefixed(&mut out, name.as_bytes());
        }
        varint::write(&mut out, self.columns.len() as u64);
        for column in &self.columns {
            varint::write_prefixed(&mut out, column.name.as_bytes());
            varint::write_prefixed(&mut out, column.source_type.as_bytes());
            varint::write(&mut out, column.key_ordinal.map_or(0, |at| u64::from(at) + 1));
            column.kind.write(&mut out);
        }
        out
    }

    /// Reads the binary form; `None` when the bytes are not one.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if varint::take(bytes, 1)? != [1] {
            return None;
        }
        let text =
            |bytes: &mut &[u8]| varint::take_prefixed(bytes).and_then(|b| std::str::from_utf8(b).ok()).map(Arc::from);
        let table = TableId { source: text(bytes)?, schema: text(bytes)?, table: text(bytes)? };
        let count = varint::read(bytes)?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let name = text(bytes)?;
            let source_type = text(bytes)?.to_string();
            let key_ordinal = match varint::read(bytes)? {
                0 => None,
                n => Some(u16::try_from(n - 1).ok()?),
            };
            columns.push(Column { name, source_type, key_ordinal, kind: ColumnType::read(bytes, 0)? });
        }
        bytes.is_empty().then_some(Self { table, columns })
    }
}

impl ColumnType {
    fn write(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Self::Bool => 1,
            Self::Int32 => 2,
            Self::Int64 => 3,
            Self::UInt64 => 4,
            Self::Decimal => 5,
            Self::Float32 => 6,
            Self::Float64 => 7,
            Self::Text => 8,
            Self::Bytes => 9,
            Self::Date => 10,
            Self::Time => 11,
            Self::TimeTz => 12,
            Self::Timestamp => 13,
            Self::TimestampTz => 14,
            Self::Interval => 15,
            Self::Uuid => 16,
            Self::Json => 17,
            Self::Enum => 18,
            Self::Array(_) => 19,
            Self::Other => 20,
        };
        out.push(tag);
        if let Self::Array(element) = self {
            element.write(out);
        }
    }

    fn read(bytes: &mut &[u8], depth: u8) -> Option<Self> {
        Some(match varint::take(bytes, 1)?[0] {
            1 => Self::Bool,
            2 => Self::Int32,
            3 => Self::Int64,
            4 => Self::UInt64,
            5 => Self::Decimal,
            6 => Self::Float32,
            7 => Self::Float64,
            8 => Self::Text,
            9 => Self::Bytes,
            10 => Self::Date,
            11 => Self::Time,
            12 => Self::TimeTz,
            13 => Self::Timestamp,
            14 => Self::TimestampTz,
            15 => Self::Interval,
            16 => Self::Uuid,
            17 => Self::Json,
            18 => Self::Enum,
            // An array's type says nothing of its dimensions, so arrays of arrays hardly occur; torn bytes may say so.
            19 if depth < 16 => Self::Array(Box::new(Self::read(bytes, depth + 1)?)),
            20 => Self::Other,
            _ => return None,
        })
    }
}
