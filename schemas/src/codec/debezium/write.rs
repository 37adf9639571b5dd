//! Binary event to JSON.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{members, unavailable};
use crate::codec::{CodecError, cell};
use crate::{EventRef, Op, RowRef, SourcePosition, TableId, TableSchema, ValueRef, write_json_string};

/// What the envelope says about a source beside its tables.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    /// Version of Headwater.
    pub version: String,
    /// Kind of connector in Debezium's words: `postgresql`, `mysql`.
    pub connector: String,
    /// Database the source reads.
    pub database: String,
}

/// Writes events of one schema. What they have in common is put into words once.
#[derive(Debug)]
pub struct EventWriter {
    schema: TableSchema,
    /// How a member of each column begins: `"name":`.
    members: Vec<Vec<u8>>,
    key_columns: Vec<usize>,
    /// `,"source":{"version":"1",…,"table":"invoices"`.
    source: Vec<u8>,
    /// `,"schema":"9f86d081884c7d65"`.
    fingerprint: Vec<u8>,
    /// The key as the row tells it, in the form of [`crate::key`].
    told: Vec<u8>,
}

impl EventWriter {
    /// Of events whose rows have this schema.
    pub fn new(schema: TableSchema, info: &SourceInfo) -> Self {
        let mut source = b",\"source\":{\"version\":".to_vec();
        write_json_string(&mut source, &info.version);
        let TableId { source: name, schema: namespace, table } = &schema.table;
        for (member, value) in [
            (",\"connector\":", info.connector.as_str()),
            (",\"name\":", name),
            (",\"db\":", &info.database),
            (",\"schema\":", namespace),
            (",\"table\":", table),
        ] {
            put(&mut source, member);
            write_json_string(&mut source, value);
        }
        Self {
            members: members(&schema),
            key_columns: schema.key_columns(),
            source,
            fingerprint: format!(",\"schema\":\"{:016x}\"", schema.fingerprint().0).into_bytes(),
            told: Vec::new(),
            schema,
        }
    }

    /// The schema.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Appends `event` as JSON. `key` is the key of its record. Tells where in `out` the key of its row stands, as JSON the
    /// key of a record in such a log: `{"id":7}`, key columns in key order. `None` where the table has no key, or the row
    /// has no value for one of its columns.
    ///
    /// # Errors
    ///
    /// Rows that do not fit the schema, and cells that would not come back exactly; `out` then holds a torn text.
    pub fn write(
        &mut self,
        event: &EventRef<'_>,
        key: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Range<usize>>, CodecError> {
        let header = &event.header;
        let (SourcePosition { epoch, commit, ordinal }, transaction) = (header.position, header.transaction);
        let millis = header.committed_at_micros.div_euclid(1000);
        put(out, "{\"op\":\"");
        out.push(header.op.letter() as u8);
        put(out, "\",\"before\":");
        self.image(out, event.before, false)?;
        put(out, ",\"after\":");
        let placeholders = self.image(out, event.after, true)?;
        number(out, ",\"ts_ms\":", millis);
        out.extend_from_slice(&self.source);
        number(out, ",\"ts_ms\":", millis);
        number(out, ",\"ts_us\":", header.committed_at_micros);
        put(out, if header.op == Op::Read { ",\"snapshot\":\"true\"" } else { ",\"snapshot\":\"false\"" });
        number(out, ",\"sequence\":\"[\\\"", commit);
        number(out, "\\\",\\\"", ordinal);
        number(out, "\\\"]\",\"txId\":", transaction);
        number(out, ",\"lsn\":", commit);
        if transaction == 0 {
            put(out, "},\"transaction\":null");
        } else {
            number(out, "},\"transaction\":{\"id\":\"", transaction);
            number(out, ":", commit);
            number(out, "\",\"total_order\":", ordinal);
            number(out, ",\"data_collection_order\":", ordinal);
            out.push(b'}');
        }
        put(out, if placeholders { ",\"x\":{\"v\":2" } else { ",\"x\":{\"v\":1" });
        number(out, ",\"epoch\":", epoch);
        put(out, ",\"pos\":\"");
        hexadecimal(out, commit, 16);
        out.push(b'/');
        hexadecimal(out, ordinal.into(), 8);
        put(out, if header.last_in_transaction { "\",\"tx_last\":true" } else { "\",\"tx_last\":false" });
        if header.before_is_key_only {
            put(out, ",\"key_only\":true");
        }
        if let Some(partitions) = event.partitions {
            number(out, ",\"partitions\":", partitions);
        }
        let written = self.key_of_record(out, event, key)?;
        if let Some(after) = event.after.filter(|row| !row.is_whole()) {
            self.names(out, ",\"missing\":[", after.missing());
            self.names(out, ",\"lost\":[", after.lost());
        }
        out.extend_from_slice(&self.fingerprint);
        if header.op == Op::Schema {
            put(out, ",\"columns\":");
            serde_json::to_writer(&mut *out, &self.schema.columns)?;
        }
        put(out, "}}");
        Ok(written)
    }

    /// The record's key as far as the row tells it, and its bytes where it does not.
    fn key_of_record(
        &mut self,
        out: &mut Vec<u8>,
        event: &EventRef<'_>,
        key: &[u8],
    ) -> Result<Option<Range<usize>>, CodecError> {
        let is_told = |row: &RowRef<'_>| {
            !self.key_columns.is_empty() && self.key_columns.iter().all(|at| row.cell(*at) != ValueRef::Missing)
        };
        let row = event.after.or(event.before).filter(is_told);
        self.told.clear();
        put(out, ",\"key\":");
        let start = out.len();
        match row {
            Some(row) => {
                for (place, &at) in self.key_columns.iter().enumerate() {
                    let value = row.cell(at);
                    crate::key::write(&mut self.told, value);
                    out.push(if place == 0 { b'{' } else { b',' });
                    self.member(out, value, at)?;
                }
                out.push(b'}');
            }
            None => put(out, "null"),
        }
        let written = row.map(|_| start..out.len());
        if self.told != key {
            put(out, ",\"key_bytes\":\"");
            put(out, &STANDARD.encode(key));
            out.push(b'"');
        }
        Ok(written)
    }

    /// A list of the names of these columns, if there are any; `member` is how it begins.
    fn names(&self, out: &mut Vec<u8>, member: &str, columns: impl Iterator<Item = usize>) {
        let mut first = true;
        for at in columns {
            put(out, if std::mem::take(&mut first) { member } else { "," });
            write_json_string(out, &self.schema.columns[at].name);
        }
        if !first {
            out.push(b']');
        }
    }

    /// The row; with `placeholders` they stand for what was not sent. Whether there is one.
    fn image(&self, out: &mut Vec<u8>, row: Option<RowRef<'_>>, placeholders: bool) -> Result<bool, CodecError> {
        let Some(row) = row else {
            put(out, "null");
            return Ok(false);
        };
        let columns = self.schema.columns.len();
        if !row.is_well_formed(columns) {
            return Err(CodecError::Row { table: self.schema.table.clone(), columns });
        }
        out.push(b'{');
        let (mut first, mut any) = (true, false);
        for (at, value) in row.cells().enumerate() {
            let mut placeholder = None;
            if value == ValueRef::Missing {
                let column = &self.schema.columns[at];
                placeholder = unavailable(&column.kind).filter(|_| placeholders && !row.is_lost(at));
                if placeholder.is_none() {
                    continue;
                }
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            if let Some(placeholder) = placeholder {
                any = true;
                out.extend_from_slice(&self.members[at]);
                put(out, placeholder);
            } else {
                self.member(out, value, at)?;
            }
        }
        out.push(b'}');
        Ok(any)
    }

    fn member(&self, out: &mut Vec<u8>, value: ValueRef<'_>, at: usize) -> Result<(), CodecError> {
        let column = &self.schema.columns[at];
        out.extend_from_slice(&self.members[at]);
        cell::write(out, value, &column.kind).map_err(|reason| CodecError::Unrepresentable {
            table: self.schema.table.clone(),
            column: column.name.to_string(),
            reason,
        })
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A number, and what stands before it.
fn number(out: &mut Vec<u8>, before: &str, n: impl itoa::Integer) {
    put(out, before);
    put(out, itoa::Buffer::new().format(n));
}

/// The last `digits` digits.
fn hexadecimal(out: &mut Vec<u8>, n: u64, digits: u32) {
    let digit = |place: u32| b"0123456789ABCDEF"[(n >> (4 * place)) as usize & 15];
    out.extend((0..digits).rev().map(digit));
}
