//! One cell as JSON and back, such that it comes back exactly. JSON alone does not tell a decimal from a text or a date:
//! the column's type decides, and a cell of another type than its column is refused on the way out.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::value::{ARRAY_DIMENSIONS_MAX, ArrayRef, ArrayValue};
use crate::{ColumnType, Value, ValueRef, is_decimal, write_json_string, write_json_value};

/// Zone offsets are written with two digits of hours.
const ZONE_SECONDS_MAX: u32 = 100 * 3600 - 1;

/// Appends a cell that is not missing. As documents write it, but for JSON columns, which are strings holding their
/// text: so Debezium writes them, and so a JSON `null` is not an SQL null.
pub(super) fn write(out: &mut Vec<u8>, value: ValueRef<'_>, kind: &ColumnType) -> Result<(), &'static str> {
    use ColumnType as C;
    use ValueRef as V;
    match (kind, value) {
        (C::Json, V::Json(text)) => write_json_string(out, text),
        (C::Array(_), V::Array(array)) => return write_array(out, array, kind),
        (C::Decimal, V::Decimal(text)) if !is_decimal(text) => return Err("a decimal that is none"),
        (C::UInt64, V::UInt(n)) if i64::try_from(n).is_ok() => return Err("a small integer in the form of a large"),
        (C::TimeTz, V::TimeTz(_, zone)) if zone.unsigned_abs() > ZONE_SECONDS_MAX => {
            return Err("a zone offset of a hundred hours or more");
        }
        (_, V::Null)
        | (C::Bool, V::Bool(_))
        | (C::Int32 | C::Int64 | C::UInt64, V::Int(_))
        | (C::UInt64, V::UInt(_))
        | (C::Decimal, V::Decimal(_))
        | (C::Float32, V::Float32(_))
        | (C::Float64, V::Float64(_))
        | (C::Text | C::Other, V::Text(_))
        | (C::Bytes, V::Bytes(_))
        | (C::Date, V::Date(_))
        | (C::Time, V::Time(_))
        | (C::TimeTz, V::TimeTz(..))
        | (C::Timestamp, V::Timestamp(_))
        | (C::TimestampTz, V::TimestampTz(_))
        | (C::Interval, V::Interval(_))
        | (C::Uuid, V::Uuid(_))
        | (C::Enum, V::Enum(_)) => write_json_value(out, value),
        _ => return Err("the cell is of another type than its column"),
    }
    Ok(())
}

fn write_array(out: &mut Vec<u8>, array: ArrayRef<'_>, kind: &ColumnType) -> Result<(), &'static str> {
    let element = innermost(kind);
    let dimensions = array.dimensions();
    let cells: Vec<ValueRef<'_>> = array.cells().collect();
    let length = |dimensions: &[u32]| dimensions.iter().try_fold(1usize, |n, len| n.checked_mul(*len as usize));
    if dimensions.is_empty() {
        if !cells.is_empty() {
            return Err("an array whose dimensions do not fit its cells");
        }
        out.extend_from_slice(b"[]");
        return Ok(());
    }
    if dimensions.contains(&0) || length(&dimensions) != Some(cells.len()) {
        return Err("an array whose dimensions do not fit its cells");
    }
    // A bracket opens before every cell that begins a level, and closes behind every cell that ends one.
    let strides: Vec<usize> = (0..dimensions.len()).filter_map(|level| length(&dimensions[level..])).collect();
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        strides.iter().filter(|stride| at % **stride == 0).for_each(|_| out.push(b'['));
        write(out, cell, element)?;
        strides.iter().filter(|stride| (at + 1) % **stride == 0).for_each(|_| out.push(b']'));
    }
    Ok(())
}

fn innermost(mut kind: &ColumnType) -> &ColumnType {
    while let ColumnType::Array(element) = kind {
        kind = element;
    }
    kind
}

/// Reads a cell of a column of type `kind` from `json`, the text of one JSON value.
pub(super) fn read(json: &str, kind: &ColumnType) -> Result<Value, &'static str> {
    use ColumnType as C;
    if json == "null" {
        return Ok(Value::Null);
    }
    match kind {
        C::Bool => match json {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("expected true or false"),
        },
        C::Array(_) => read_array(json, innermost(kind)),
        C::Bytes => {
            let text = string(json).ok_or("expected base64 in a string")?;
            STANDARD.decode(text.as_bytes()).map(Value::Bytes).map_err(|_| "expected base64 in a string")
        }
        // Numbers keep their digits: they are read from the text and pass no float.
        C::Int32 | C::Int64 | C::UInt64 | C::Decimal => {
            let text = string(json).unwrap_or(Cow::Borrowed(json));
            Value::parse(&text, kind).map_err(|error| error.expected)
        }
        C::Float32 | C::Float64 => match string(json) {
            None => Value::parse(json, kind).map_err(|error| error.expected),
            Some(text) if matches!(&*text, "NaN" | "Infinity" | "-Infinity") => {
                Value::parse(&text, kind).map_err(|error| error.expected)
            }
            Some(_) => Err("expected a number, \"NaN\", \"Infinity\" or \"-Infinity\""),
        },
        _ => {
            let text = string(json).ok_or("expected a string")?;
            Value::parse(&text, kind).map_err(|error| error.expected)
        }
    }
}

fn read_array(json: &str, element: &ColumnType) -> Result<Value, &'static str> {
    let mut array = ArrayValue::default();
    read_level(json, element, 0, &mut array)?;
    if array.cells.is_empty() {
        array.dimensions.clear();
    }
    Ok(Value::Array(array))
}

fn read_level(json: &str, element: &ColumnType, level: usize, out: &mut ArrayValue) -> Result<(), &'static str> {
    if level == ARRAY_DIMENSIONS_MAX {
        return Err("an array of too many dimensions");
    }
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).map_err(|_| "expected an array")?;
    let length = u32::try_from(items.len()).map_err(|_| "an array with too many elements")?;
    match out.dimensions.get(level) {
        None if out.cells.is_empty() => out.dimensions.push(length),
        Some(known) if *known == length => {}
        _ => return Err("expected all arrays of a level to be of one length"),
    }
    if length == 0 && level > 0 {
        return Err("expected no empty array inside an array");
    }
    for item in items {
        let item = item.get();
        if item.starts_with('[') {
            read_level(item, element, level + 1, out)?;
        } else if level + 1 == out.dimensions.len() {
            out.cells.push(read(item, element)?);
        } else {
            return Err("expected all arrays of a level to be of one length");
        }
    }
    Ok(())
}

/// The text of a JSON string; `None` when `json` is another kind of value.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}
