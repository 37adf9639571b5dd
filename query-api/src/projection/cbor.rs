//! JSON as CBOR (RFC 8949), in one pass over the stored bytes.
//!
//! Arrays and objects are of indefinite length, for their length is not known before their end. Integers of 64 bits are
//! integers, and other numbers doubles, or floats where these say the same. A number that neither holds exactly is a
//! text, as decimals are. Texts stay texts.

use super::scan::{Torn, blank, string_end};

/// Levels of nesting, at most: columns of JSON are as deep as their author made them.
const DEPTH_MAX: usize = 512;

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 0x9f;
const OBJECT: u8 = 0xbf;
const BREAK: u8 = 0xff;
/// The float; there is no such integer.
const MINUS_ZERO: [u8; 5] = [0xfa, 0x80, 0, 0, 0];

/// Appends the JSON value `json` as CBOR.
pub(crate) fn write_cbor(out: &mut Vec<u8>, json: &[u8]) -> Result<(), Torn> {
    let mut writer = Writer { json, at: blank(json, 0), out, scratch: Vec::new() };
    let mut open: Vec<u8> = Vec::new();
    loop {
        // Here a value begins.
        let opened = match writer.peek()? {
            b'{' => Some((OBJECT, b'}')),
            b'[' => Some((ARRAY, b']')),
            _ => None,
        };
        match opened {
            Some((begin, close)) => {
                if open.len() == DEPTH_MAX {
                    return Err(Torn);
                }
                writer.out.push(begin);
                writer.skip();
                open.push(close);
                if writer.peek()? != close {
                    writer.name(close)?;
                    continue;
                }
            }
            None => writer.scalar()?,
        }
        // Behind a value, or in front of the end of what is empty.
        loop {
            let Some(close) = open.last().copied() else {
                return if writer.at == json.len() { Ok(()) } else { Err(Torn) };
            };
            match writer.peek()? {
                b',' => {
                    writer.skip();
                    writer.name(close)?;
                    break;
                }
                byte if byte == close => {
                    writer.out.push(BREAK);
                    writer.skip();
                    open.pop();
                }
                _ => return Err(Torn),
            }
        }
    }
}

struct Writer<'j, 'o> {
    json: &'j [u8],
    at: usize,
    out: &'o mut Vec<u8>,
    scratch: Vec<u8>,
}

impl Writer<'_, '_> {
    fn peek(&self) -> Result<u8, Torn> {
        self.json.get(self.at).copied().ok_or(Torn)
    }

    /// Over one byte, and the white space behind it.
    fn skip(&mut self) {
        self.at = blank(self.json, self.at + 1);
    }

    /// The name of a member, where the bracket that is open has names.
    fn name(&mut self, close: u8) -> Result<(), Torn> {
        if close != b'}' {
            return Ok(());
        }
        if self.peek()? != b'"' {
            return Err(Torn);
        }
        self.text()?;
        if self.peek()? != b':' {
            return Err(Torn);
        }
        self.skip();
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Torn> {
        if self.peek()? == b'"' {
            return self.text();
        }
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        let rest = &self.json[self.at..];
        let word = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
        match word {
            b"null" => self.out.push(0xf6),
            b"true" => self.out.push(0xf5),
            b"false" => self.out.push(0xf4),
            number => write_number(self.out, std::str::from_utf8(number).map_err(|_| Torn)?)?,
        }
        self.at = blank(self.json, self.at + word.len());
        Ok(())
    }

    fn text(&mut self) -> Result<(), Torn> {
        let end = string_end(self.json, self.at)?;
        let inside = &self.json[self.at + 1..end - 1];
        if memchr::memchr(b'\\', inside).is_none() {
            write_text(self.out, inside);
        } else {
            self.scratch.clear();
            unescape(&mut self.scratch, inside)?;
            write_text(self.out, &self.scratch);
        }
        self.at = blank(self.json, end);
        Ok(())
    }
}

/// The head of an item: its kind, and a number in as few bytes as hold it.
fn write_head(out: &mut Vec<u8>, kind: u8, n: u64) {
    match n {
        0..24 => out.push(kind | n as u8),
        24..=0xff => out.extend_from_slice(&[kind | 24, n as u8]),
        0x100..=0xffff => {
            out.push(kind | 25);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(kind | 26);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        _ => {
            out.push(kind | 27);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text);
}

fn write_number(out: &mut Vec<u8>, text: &str) -> Result<(), Torn> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Torn);
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(n) = digits.parse::<u64>()
    {
        let is_negative = text.len() > digits.len();
        match (is_negative, n) {
            (false, n) => write_head(out, UNSIGNED, n),
            (true, 1..) => write_head(out, NEGATIVE, n - 1),
            (true, 0) => out.extend_from_slice(&MINUS_ZERO),
        }
        return Ok(());
    }
    let double: f64 = text.parse().map_err(|_| Torn)?;
    if !is_exact(text, double) {
        write_text(out, text.as_bytes());
    } else if f64::from(double as f32) == double {
        out.push(0xfa);
        out.extend_from_slice(&(double as f32).to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&double.to_be_bytes());
    }
    Ok(())
}

/// Whether the shortest text that means this double is the number that was written.
fn is_exact(text: &str, double: f64) -> bool {
    if !double.is_finite() {
        return false;
    }
    let mut buffer = ryu::Buffer::new();
    match (significant(text), significant(buffer.format_finite(double))) {
        (Some(written), Some(meant)) => written == meant,
        _ => false,
    }
}

/// The digits of a number without zeros around them, and the power of ten of the last; `None` where that cannot be told.
fn significant(text: &str) -> Option<(Vec<u8>, i64)> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    let mut power = i64::from(exponent) - fraction.len() as i64;
    while digits.last() == Some(&b'0') {
        digits.pop();
        power += 1;
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    Some(if digits.is_empty() { (digits, 0) } else { (digits, power) })
}

/// Appends what stands between the quotes of a JSON string. Halves of a surrogate pair become the replacement character,
/// since there is no text with them.
fn unescape(out: &mut Vec<u8>, mut inside: &[u8]) -> Result<(), Torn> {
    while let Some(at) = memchr::memchr(b'\\', inside) {
        out.extend_from_slice(&inside[..at]);
        let escape = *inside.get(at + 1).ok_or(Torn)?;
        inside = &inside[at + 2..];
        let plain = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = u32::from(hex(&mut inside)?);
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(mut rest) = inside.strip_prefix(b"\\u")
                {
                    let low = u32::from(hex(&mut rest)?);
                    if (0xdc00..0xe000).contains(&low) {
                        unit = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        inside = rest;
                    }
                }
                let letter = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(Torn),
        };
        out.push(plain);
    }
    out.extend_from_slice(inside);
    Ok(())
}

fn hex(rest: &mut &[u8]) -> Result<u16, Torn> {
    let (digits, behind) = rest.split_at_checked(4).ok_or(Torn)?;
    *rest = behind;
    let digits = std::str::from_utf8(digits).map_err(|_| Torn)?;
    u16::from_str_radix(digits, 16).map_err(|_| Torn)
}

#[cfg(test)]
mod tests {
    use ciborium::Value as Cbor;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn cbor(json: &str) -> Result<Cbor, Torn> {
        let mut out = Vec::new();
        write_cbor(&mut out, json.as_bytes())?;
        let mut rest = out.as_slice();
        let value = ciborium::from_reader(&mut rest).unwrap_or_else(|error| panic!("{error}: {json} {out:02x?}"));
        assert!(rest.is_empty(), "{json}");
        Ok(value)
    }

    /// What a value of JSON is to be in CBOR.
    fn expected(value: &Value) -> Cbor {
        match value {
            Value::Null => Cbor::Null,
            Value::Bool(value) => Cbor::Bool(*value),
            Value::String(text) => Cbor::Text(text.clone()),
            Value::Array(items) => Cbor::Array(items.iter().map(expected).collect()),
            Value::Object(members) => {
                Cbor::Map(members.iter().map(|(name, value)| (Cbor::Text(name.clone()), expected(value))).collect())
            }
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(n), _) => Cbor::Integer(n.into()),
                (None, Some(n)) => Cbor::Integer(n.into()),
                (None, None) => Cbor::Float(number.as_f64().expect("a number")),
            },
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-300i64..300).prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no other", |n| n.is_finite()).prop_map(Value::from),
            (-1000i32..1000).prop_map(|n| Value::from(f64::from(n) / 8.0)),
            ".*".prop_map(Value::from),
            "[\\x00-\\x20\"\\\\é🦀]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_what_was_written(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            prop_assert_eq!(cbor(&text.expect("JSON")).expect("whole"), expected(&value));
        }

        #[test]
        fn other_bytes_are_refused_or_read(text in r#"[{}\[\]",:a0-9.eu\\ -]{0,30}"#, bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let mut out = Vec::new();
            let _ = write_cbor(&mut out, text.as_bytes());
            let _ = write_cbor(&mut out, &bytes);
        }
    }

    #[test]
    fn numbers_and_texts_stay_exact() {
        let text = |text: &str| Cbor::Text(text.into());
        for (json, wanted) in [
            ("18446744073709551615", Cbor::Integer(u64::MAX.into())),
            ("-9223372036854775808", Cbor::Integer(i64::MIN.into())),
            ("18446744073709551616", text("18446744073709551616")),
            ("0.1", Cbor::Float(0.1)),
            ("1.50", Cbor::Float(1.5)),
            ("1e3", Cbor::Float(1000.0)),
            ("-0", Cbor::Float(-0.0)),
            ("0.10000000000000000001", text("0.10000000000000000001")),
            ("9007199254740993.0", text("9007199254740993.0")),
            ("1e400", text("1e400")),
            ("1e-400", text("1e-400")),
            (r#""a\ud83e\udd80\u00e9\n\/""#, text("a🦀é\n/")),
            (r#""\ud83e-\udd80""#, text("\u{fffd}-\u{fffd}")),
            (" [ ] ", Cbor::Array(vec![])),
        ] {
            assert_eq!(cbor(json).expect("whole"), wanted, "{json}");
        }
        for torn in ["", "[", "{\"a\"}", "{\"a\":1,}", "[1 2]", "1 2", "nul", "+1", "{1:2}", "\"\\x\"", "\"\\u12\""] {
            assert_eq!(cbor(torn).map(|_| ()), Err(Torn), "{torn}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(cbor(&deep).map(|_| ()), Err(Torn));
    }
}
