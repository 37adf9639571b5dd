//! PostgreSQL's text form of values, as snapshot and stream both bring it.

use headwater_schemas::{ColumnType, RowBuilder, ValueRef, is_decimal, temporal};

use super::array;

/// A value that has no place in an event. Never holds the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unrepresentable(pub(crate) &'static str);

/// Writes the cell that `text` stands for. `scratch` is only room to work in.
pub(crate) fn write(
    row: &mut RowBuilder<'_>,
    kind: &ColumnType,
    text: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<(), Unrepresentable> {
    match kind {
        ColumnType::Array(element) => {
            row.push_value(&array::parse(utf8(text)?, element, scratch)?);
            Ok(())
        }
        _ => {
            row.push(scalar(kind, text, scratch)?);
            Ok(())
        }
    }
}

/// Appends the key form of the value that `text` stands for.
pub(crate) fn write_key(
    out: &mut Vec<u8>,
    kind: &ColumnType,
    text: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<(), Unrepresentable> {
    match kind {
        ColumnType::Array(element) => {
            let array = array::parse(utf8(text)?, element, scratch)?;
            headwater_schemas::key::write(out, array.as_ref(&mut Vec::new()));
        }
        _ => headwater_schemas::key::write(out, scalar(kind, text, scratch)?),
    }
    Ok(())
}

/// The value that `text` stands for; arrays are not scalars.
pub(crate) fn scalar<'a>(
    kind: &ColumnType,
    text: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<ValueRef<'a>, Unrepresentable> {
    Ok(match kind {
        ColumnType::Int32 | ColumnType::Int64 => ValueRef::Int(integer(text).ok_or(Unrepresentable("not an integer"))?),
        ColumnType::Text | ColumnType::Other => ValueRef::Text(utf8(text)?),
        ColumnType::Decimal => {
            let text = utf8(text)?;
            ValueRef::Decimal(is_decimal(text).then_some(text).ok_or(Unrepresentable("not a decimal"))?)
        }
        ColumnType::TimestampTz => ValueRef::TimestampTz(
            temporal::parse_timestamp_tz(utf8(text)?).ok_or(Unrepresentable("an instant outside ±292,000 years"))?,
        ),
        ColumnType::Timestamp => ValueRef::Timestamp(
            temporal::parse_timestamp(utf8(text)?).ok_or(Unrepresentable("a timestamp outside ±292,000 years"))?,
        ),
        ColumnType::Date => {
            ValueRef::Date(temporal::parse_date(utf8(text)?).ok_or(Unrepresentable("a date out of range"))?)
        }
        ColumnType::Bool => match text {
            b"t" => ValueRef::Bool(true),
            b"f" => ValueRef::Bool(false),
            _ => return Err(Unrepresentable("not a boolean")),
        },
        ColumnType::Enum => ValueRef::Enum(utf8(text)?),
        ColumnType::Json => ValueRef::Json(utf8(text)?),
        ColumnType::Float64 => {
            ValueRef::Float64(utf8(text)?.parse().map_err(|_| Unrepresentable("not a double precision number"))?)
        }
        ColumnType::Float32 => {
            ValueRef::Float32(utf8(text)?.parse().map_err(|_| Unrepresentable("not a single precision number"))?)
        }
        ColumnType::Uuid => ValueRef::Uuid(uuid(text).ok_or(Unrepresentable("not a UUID"))?),
        ColumnType::Bytes => {
            unhex(text, scratch).ok_or(Unrepresentable("bytes that are not in hexadecimal form"))?;
            ValueRef::Bytes(scratch)
        }
        ColumnType::Time => {
            ValueRef::Time(temporal::parse_time(utf8(text)?).ok_or(Unrepresentable("a time out of range"))?)
        }
        ColumnType::TimeTz => {
            let (micros, zone) = temporal::parse_time_tz(utf8(text)?).ok_or(Unrepresentable("a time out of range"))?;
            ValueRef::TimeTz(micros, zone)
        }
        ColumnType::Interval => ValueRef::Interval(
            temporal::parse_interval(utf8(text)?)
                .ok_or(Unrepresentable("an interval out of range, or an infinite one"))?,
        ),
        ColumnType::UInt64 | ColumnType::Array(_) => return Err(Unrepresentable("a type PostgreSQL does not have")),
    })
}

fn utf8(text: &[u8]) -> Result<&str, Unrepresentable> {
    std::str::from_utf8(text).map_err(|_| Unrepresentable("text that is not UTF-8"))
}

/// Decimal digits with an optional minus, within 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut n = 0i64;
    for byte in digits {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        // Built up below zero, where there is room for one more.
        n = n.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(n) } else { n.checked_neg() }
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn unhex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = text.strip_prefix(b"\\x")?;
    if digits.len() % 2 != 0 {
        return None;
    }
    out.clear();
    out.reserve(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        out.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(())
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut out = [0; 16];
    let mut digits = text.iter().copied().filter(|b| *b != b'-');
    for byte in &mut out {
        *byte = nibble(digits.next()?)? << 4 | nibble(digits.next()?)?;
    }
    digits.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_to_the_ends_of_their_range() {
        for n in [0, 7, -7, i64::MAX, i64::MIN] {
            assert_eq!(integer(n.to_string().as_bytes()), Some(n));
        }
        for wrong in ["", "-", "9223372036854775808", "1x", " 1"] {
            assert_eq!(integer(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_represented_is_refused_without_the_value() {
        let mut scratch = Vec::new();
        for (kind, text) in [
            (ColumnType::TimestampTz, "294276-12-31 23:59:59.999999+00"),
            (ColumnType::Interval, "infinity"),
            (ColumnType::Bytes, "\\x0"),
            (ColumnType::Bool, "yes"),
        ] {
            let refused = scalar(&kind, text.as_bytes(), &mut scratch).expect_err("refused");
            assert!(!refused.0.contains(text));
        }
    }
}
