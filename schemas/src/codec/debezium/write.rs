//! Binary event to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::codec::{CodecError, cell};
use crate::{EventRef, Op, RowRef, TableSchema, ValueRef, write_json_string};

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

/// Appends `event` as JSON. `key` is the key of its record; `schema` the one its rows were written with.
///
/// # Errors
///
/// Rows that do not fit the schema, and cells that would not come back exactly; `out` then holds a torn text.
pub fn to_json(
    event: &EventRef<'_>,
    key: &[u8],
    schema: &TableSchema,
    source: &SourceInfo,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let header = &event.header;
    let millis = header.committed_at_micros.div_euclid(1000);
    put(out, format_args!("{{\"op\":\"{}\",\"before\":", header.op.letter()));
    image(out, event.before, schema)?;
    put(out, format_args!(",\"after\":"));
    image(out, event.after, schema)?;
    put(out, format_args!(",\"ts_ms\":{millis},\"source\":{{\"version\":"));
    let table = &schema.table;
    write_json_string(out, &source.version);
    for (name, value) in [
        ("connector", source.connector.as_str()),
        ("name", &table.source),
        ("db", &source.database),
        ("schema", &table.schema),
        ("table", &table.table),
    ] {
        put(out, format_args!(",\"{name}\":"));
        write_json_string(out, value);
    }
    let position = header.position;
    let (transaction, commit, ordinal) = (header.transaction, position.commit, position.ordinal);
    put(
        out,
        format_args!(
            ",\"ts_ms\":{millis},\"ts_us\":{},\"snapshot\":\"{}\",\"txId\":{transaction},\"lsn\":{commit}}}",
            header.committed_at_micros,
            header.op == Op::Read,
        ),
    );
    if transaction == 0 {
        put(out, format_args!(",\"transaction\":null"));
    } else {
        put(
            out,
            format_args!(
                ",\"transaction\":{{\"id\":\"{transaction}:{commit}\",\"total_order\":{ordinal},\
                 \"data_collection_order\":{ordinal}}}"
            ),
        );
    }
    put(
        out,
        format_args!(
            ",\"x\":{{\"v\":1,\"epoch\":{},\"pos\":\"{commit:016X}/{ordinal:08X}\",\"tx_last\":{}",
            position.epoch, header.last_in_transaction
        ),
    );
    if header.before_is_key_only {
        put(out, format_args!(",\"key_only\":true"));
    }
    if let Some(partitions) = event.partitions {
        put(out, format_args!(",\"partitions\":{partitions}"));
    }
    write_key(out, event, key, schema)?;
    if let Some(after) = event.after.filter(|row| !row.is_whole()) {
        names(out, "missing", after.missing(), schema);
        names(out, "lost", after.lost(), schema);
    }
    put(out, format_args!(",\"schema\":\"{:016x}\"", schema.fingerprint().0));
    if header.op == Op::Schema {
        put(out, format_args!(",\"columns\":"));
        serde_json::to_writer(&mut *out, &schema.columns)?;
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// Appends the key of a row as JSON, the key of its record in such a log: `{"id":7}`, key columns in key order.
///
/// # Errors
///
/// When the table has no key or the row has no value for one of its columns.
pub fn key_to_json(row: RowRef<'_>, schema: &TableSchema, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let no_key = |reason| CodecError::Key { table: schema.table.clone(), reason };
    let columns = schema.key_columns();
    if columns.is_empty() {
        return Err(no_key("the table has no primary key; configure key columns for it"));
    }
    for (place, at) in columns.into_iter().enumerate() {
        out.push(if place == 0 { b'{' } else { b',' });
        let value = row.cell(at);
        if value == ValueRef::Missing {
            return Err(no_key("a column of its primary key was not sent"));
        }
        member(out, value, at, schema)?;
    }
    out.push(b'}');
    Ok(())
}

/// The record's key as far as the row tells it, and its bytes where it does not.
fn write_key(out: &mut Vec<u8>, event: &EventRef<'_>, key: &[u8], schema: &TableSchema) -> Result<(), CodecError> {
    let row = event.after.or(event.before);
    let columns = schema.key_columns();
    let known = row.filter(|row| !columns.is_empty() && columns.iter().all(|at| row.cell(*at) != ValueRef::Missing));
    let mut told = Vec::new();
    put(out, format_args!(",\"key\":"));
    match known {
        Some(row) => {
            columns.iter().for_each(|at| crate::key::write(&mut told, row.cell(*at)));
            key_to_json(row, schema, out)?;
        }
        None => put(out, format_args!("null")),
    }
    if told != key {
        put(out, format_args!(",\"key_bytes\":\"{}\"", STANDARD.encode(key)));
    }
    Ok(())
}

/// A member with the names of these columns, if there are any.
fn names(out: &mut Vec<u8>, member: &str, columns: impl Iterator<Item = usize>, schema: &TableSchema) {
    let mut first = true;
    for at in columns {
        if std::mem::take(&mut first) {
            put(out, format_args!(",\"{member}\":["));
        } else {
            out.push(b',');
        }
        write_json_string(out, &schema.columns[at].name);
    }
    if !first {
        out.push(b']');
    }
}

fn image(out: &mut Vec<u8>, row: Option<RowRef<'_>>, schema: &TableSchema) -> Result<(), CodecError> {
    let Some(row) = row else {
        put(out, format_args!("null"));
        return Ok(());
    };
    let columns = schema.columns.len();
    if !row.is_well_formed(columns) {
        return Err(CodecError::Row { table: schema.table.clone(), columns });
    }
    out.push(b'{');
    let mut first = true;
    for (at, value) in row.cells().enumerate() {
        if value == ValueRef::Missing {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        member(out, value, at, schema)?;
    }
    out.push(b'}');
    Ok(())
}

fn member(out: &mut Vec<u8>, value: ValueRef<'_>, at: usize, schema: &TableSchema) -> Result<(), CodecError> {
    let column = &schema.columns[at];
    write_json_string(out, &column.name);
    out.push(b':');
    cell::write(out, value, &column.kind).map_err(|reason| CodecError::Unrepresentable {
        table: schema.table.clone(),
        column: column.name.to_string(),
        reason,
    })
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    std::io::Write::write_fmt(out, text).expect("writing to a Vec cannot fail");
}
