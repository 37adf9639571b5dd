//! Values as canonical JSON: the bytes of documents, and the values inside Debezium's envelope.

use std::iter::Peekable;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::temporal;
use crate::value::{ArrayRef, ValueRef};

/// Largest integer a JSON reader with double-precision numbers keeps exact: 2^53.
const EXACT_IN_DOUBLE: u64 = 1 << 53;

/// Appends `value` as JSON.
///
/// Integers up to 2^53 in magnitude are numbers and strings beyond; decimals are strings, always, so that no reader
/// rounds money; floats are numbers but for `"NaN"`, `"Infinity"` and `"-Infinity"`; times are ISO 8601 strings; bytes
/// are base64; JSON columns are embedded as they are; null and missing are `null`.
///
/// ```
/// use headwater_schemas::{ValueRef, write_json_value};
///
/// let json = |value| {
///     let mut out = Vec::new();
///     write_json_value(&mut out, value);
///     String::from_utf8(out).expect("JSON is UTF-8")
/// };
/// assert_eq!(json(ValueRef::Int(1 << 53)), "9007199254740992");
/// assert_eq!(json(ValueRef::Int((1 << 53) + 1)), "\"9007199254740993\"");
/// assert_eq!(json(ValueRef::Decimal("19.90")), "\"19.90\"");
/// assert_eq!(json(ValueRef::TimestampTz(0)), "\"1970-01-01T00:00:00Z\"");
/// ```
pub fn write_json_value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Missing | ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Bool(true) => out.extend_from_slice(b"true"),
        ValueRef::Bool(false) => out.extend_from_slice(b"false"),
        ValueRef::Int(n) => {
            let mut digits = itoa::Buffer::new();
            write_exact(out, digits.format(n), n.unsigned_abs());
        }
        ValueRef::UInt(n) => {
            let mut digits = itoa::Buffer::new();
            write_exact(out, digits.format(n), n);
        }
        ValueRef::Decimal(text) => write_plain(out, text),
        ValueRef::Float64(n) if n.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(n).as_bytes());
        }
        ValueRef::Float32(n) if n.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(n).as_bytes());
        }
        ValueRef::Float64(n) => write_plain(out, not_finite(n)),
        ValueRef::Float32(n) => write_plain(out, not_finite(f64::from(n))),
        ValueRef::Text(text) | ValueRef::Enum(text) => write_json_string(out, text),
        ValueRef::Bytes(bytes) => write_plain(out, &STANDARD.encode(bytes)),
        ValueRef::Json(text) => out.extend_from_slice(text.as_bytes()),
        ValueRef::Array(array) => write_array(out, array),
        ValueRef::Date(_)
        | ValueRef::Time(_)
        | ValueRef::TimeTz(..)
        | ValueRef::Timestamp(_)
        | ValueRef::TimestampTz(_)
        | ValueRef::Interval(_)
        | ValueRef::Uuid(_) => {
            let mut text = String::with_capacity(36);
            temporal::format_into(&mut text, value);
            write_plain(out, &text);
        }
    }
}

fn not_finite(n: f64) -> &'static str {
    if n.is_nan() {
        "NaN"
    } else if n > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn write_exact(out: &mut Vec<u8>, digits: &str, magnitude: u64) {
    if magnitude <= EXACT_IN_DOUBLE {
        out.extend_from_slice(digits.as_bytes());
    } else {
        write_plain(out, digits);
    }
}

/// Appends a string that needs no escapes.
fn write_plain(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Appends `text` as a JSON string.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        if short.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(short);
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

fn write_array(out: &mut Vec<u8>, array: ArrayRef<'_>) {
    let dimensions = array.dimensions();
    let mut cells = array.cells().peekable();
    write_level(out, &dimensions, &mut cells);
}

fn write_level<'a>(out: &mut Vec<u8>, dimensions: &[u32], cells: &mut Peekable<impl Iterator<Item = ValueRef<'a>>>) {
    out.push(b'[');
    if let Some((length, inner)) = dimensions.split_first() {
        for at in 0..*length {
            // Torn bytes may promise more than they hold: what is not there is not written.
            if cells.peek().is_none() {
                break;
            }
            if at > 0 {
                out.push(b',');
            }
            if inner.is_empty() {
                write_json_value(out, cells.next().unwrap_or(ValueRef::Null));
            } else {
                write_level(out, inner, cells);
            }
        }
    }
    out.push(b']');
}
