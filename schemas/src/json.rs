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
    let mut rest = text.as_bytes();
    loop {
        let plain = plain(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some((&byte, behind)) = rest[plain..].split_first() else { break };
        rest = behind;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.push(b'"');
}

/// How many bytes from the first on need no escape.
fn plain(bytes: &[u8]) -> usize {
    const STEP: usize = 16;
    let escapes = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    // All of a step are looked at, none first: so they are compared at once.
    let steps =
        bytes.chunks_exact(STEP).take_while(|step| !step.iter().fold(false, |found, byte| found | escapes(byte)));
    let plain = steps.count() * STEP;
    plain + bytes[plain..].iter().take_while(|byte| !escapes(byte)).count()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_an_escape_has_one_wherever_it_stands() {
        let odd: Vec<char> = (0..=0x80u8).map(char::from).chain(['é', '😀']).collect();
        for (length, c) in (0..40).flat_map(|length| odd.iter().map(move |c| (length, *c))) {
            for at in 0..=length {
                let text = format!("{}{c}{}", "a".repeat(at), "ß".repeat(length - at));
                let mut out = Vec::new();
                write_json_string(&mut out, &text);
                assert_eq!(String::from_utf8(out).ok(), serde_json::to_string(&text).ok());
            }
        }
    }
}
