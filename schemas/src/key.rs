//! Bytes that sort as the values do.
//!
//! Keys are the identity of rows, of join values and of index entries. Numbers of any type share one form, so that an
//! integer foreign key finds its decimal primary key and `1.0` is `1.00`; texts, enums, UUIDs and JSON share another.
//! Texts sort by their UTF-8 bytes, intervals by their length, as PostgreSQL measures it. Null sorts first. A key of several parts is the parts one after another: each is
//! self-delimiting, so no two lists of values share bytes and a prefix of parts is a prefix of bytes.

use crate::decimal::{self, Class};
use crate::temporal::format_uuid;
use crate::{Interval, ValueRef};

const NULL: u8 = 0x05;
const BOOL: u8 = 0x10;
const NUMBER: u8 = 0x20;
const TIME: u8 = 0x30;
const TIME_TZ: u8 = 0x34;
const INSTANT: u8 = 0x38;
const INTERVAL: u8 = 0x3c;
const TEXT: u8 = 0x40;
const BYTES: u8 = 0x48;
const ARRAY: u8 = 0x50;

const MICROS_PER_DAY: i64 = 86_400_000_000;

// Second byte of a number.
const NEGATIVE_INFINITY: u8 = 0x01;
const NEGATIVE: u8 = 0x02;
const ZERO: u8 = 0x03;
const POSITIVE: u8 = 0x04;
const INFINITY: u8 = 0x05;
const NAN: u8 = 0x06;

// Third byte of a number: its exponent in one byte, or where the exponent in three bytes begins.
const EXPONENT_LOW: u8 = 0x00;
const EXPONENT_HIGH: u8 = 0xff;
const EXPONENT_BIAS: i64 = 0x40;

/// Appends the key form of one value. Missing is written as null.
///
/// ```
/// use headwater_schemas::{ValueRef, key};
///
/// let mut account = Vec::new();
/// key::write(&mut account, ValueRef::Text("CH"));
/// let company = account.clone();
/// key::write(&mut account, ValueRef::Int(7));
///
/// assert!(account.starts_with(&company), "all keys of a company lie side by side");
/// assert_eq!(key::split_first(&account), Some((&company[..], &key::of(ValueRef::Decimal("7.0"))[..])));
/// ```
pub fn write(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Missing | ValueRef::Null => out.push(NULL),
        ValueRef::Bool(b) => out.extend_from_slice(&[BOOL, u8::from(b)]),
        ValueRef::Int(n) => write_integer(out, n < 0, n.unsigned_abs()),
        ValueRef::UInt(n) => write_integer(out, false, n),
        ValueRef::Decimal(text) => write_decimal(out, text),
        ValueRef::Float32(n) => write_float(out, f64::from(n), || n.to_string()),
        ValueRef::Float64(n) => write_float(out, n, || n.to_string()),
        ValueRef::Date(days) => write_instant(out, days, 0),
        ValueRef::Timestamp(i64::MAX) | ValueRef::TimestampTz(i64::MAX) => write_instant(out, i32::MAX, 0),
        ValueRef::Timestamp(i64::MIN) | ValueRef::TimestampTz(i64::MIN) => write_instant(out, i32::MIN, 0),
        ValueRef::Timestamp(micros) | ValueRef::TimestampTz(micros) => {
            // 64 bits of microseconds are some 106 million days to either side.
            write_instant(out, micros.div_euclid(MICROS_PER_DAY) as i32, micros.rem_euclid(MICROS_PER_DAY));
        }
        ValueRef::Time(micros) => write_micros(out, TIME, micros),
        ValueRef::TimeTz(micros, zone) => {
            write_micros(out, TIME_TZ, micros.saturating_sub(i64::from(zone) * 1_000_000));
            out.extend_from_slice(&(zone as u32 ^ 1 << 31).to_be_bytes());
        }
        ValueRef::Interval(interval) => write_interval(out, interval),
        ValueRef::Uuid(bytes) => write_text(out, TEXT, format_uuid(&bytes).as_bytes()),
        ValueRef::Text(text) | ValueRef::Json(text) | ValueRef::Enum(text) => write_text(out, TEXT, text.as_bytes()),
        ValueRef::Bytes(bytes) => write_text(out, BYTES, bytes),
        ValueRef::Array(array) => {
            out.push(ARRAY);
            for cell in array.cells() {
                out.push(1);
                write(out, cell);
            }
            // Cells decide, then dimensions: {1,2} and {{1},{2}} differ.
            let dimensions = array.dimensions();
            out.extend_from_slice(&[0, dimensions.len() as u8]);
            dimensions.iter().for_each(|length| out.extend_from_slice(&length.to_be_bytes()));
        }
    }
}

/// Whether key bytes are exactly one null: such a join key matches nothing.
pub fn is_null(key_part: &[u8]) -> bool {
    key_part == [NULL]
}

/// The key form of one value.
pub fn of(value: ValueRef<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    write(&mut out, value);
    out
}

/// Splits off the first part of a key of several parts; `None` when the bytes are not a key.
pub fn split_first(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = part_len(key)?;
    (key.len() >= len).then(|| key.split_at(len))
}

fn part_len(key: &[u8]) -> Option<usize> {
    Some(match *key.first()? {
        NULL => 1,
        BOOL => 2,
        NUMBER => match *key.get(1)? {
            sign @ (POSITIVE | NEGATIVE) => {
                let flip = if sign == NEGATIVE { 0xff } else { 0 };
                let digits = match *key.get(2)? ^ flip {
                    EXPONENT_LOW | EXPONENT_HIGH => 6,
                    _ => 3,
                };
                digits + memchr::memchr(flip, key.get(digits..)?)? + 1
            }
            _ => 2,
        },
        TIME => 9,
        INSTANT => 10,
        TIME_TZ => 13,
        INTERVAL => 17,
        TEXT | BYTES => {
            let mut at = 1;
            loop {
                at += memchr::memchr(0, key.get(at..)?)?;
                if *key.get(at + 1)? == 1 {
                    break at + 2;
                }
                at += 2;
            }
        }
        ARRAY => {
            let mut at = 1;
            while *key.get(at)? == 1 {
                let cell = key.get(at + 1..).filter(|cell| cell.first() != Some(&ARRAY))?;
                at += 1 + part_len(cell)?;
            }
            at + 2 + 4 * usize::from(*key.get(at + 1)?)
        }
        _ => return None,
    })
}

/// Day, then microseconds of the day: dates reach further than microseconds in 64 bits do.
fn write_instant(out: &mut Vec<u8>, day: i32, micros_of_day: i64) {
    out.push(INSTANT);
    out.extend_from_slice(&(day as u32 ^ 1 << 31).to_be_bytes());
    out.extend_from_slice(&micros_of_day.to_be_bytes()[3..]);
}

fn write_micros(out: &mut Vec<u8>, tag: u8, micros: i64) {
    out.push(tag);
    out.extend_from_slice(&(micros as u64 ^ 1 << 63).to_be_bytes());
}

/// Its length as PostgreSQL's `interval_cmp` has it: a month is 30 days, a day 24 hours. What is equal there, such as
/// `24:00` and `1 day`, shares a key here too. The widest interval takes 73 bits.
fn write_interval(out: &mut Vec<u8>, interval: Interval) {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    let micros = days * i128::from(MICROS_PER_DAY) + i128::from(interval.micros);
    out.push(INTERVAL);
    out.extend_from_slice(&(micros as u128 ^ 1 << 127).to_be_bytes());
}

/// Zero bytes are written as `00 FF` and the end as `00 01`, which is below every continuation.
fn write_text(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(0, rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[0, 0xff]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 1]);
}

fn write_integer(out: &mut Vec<u8>, negative: bool, magnitude: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = if magnitude == 0 { "" } else { digits.format(magnitude) };
    write_number(out, negative, digits.as_bytes(), b"");
}

fn write_decimal(out: &mut Vec<u8>, text: &str) {
    if !decimal::is_decimal(text) {
        // Torn bytes: it has no value, and some key must be made of it.
        return write_text(out, TEXT, text.as_bytes());
    }
    match decimal::classify(text) {
        Class::NegativeInfinity => out.extend_from_slice(&[NUMBER, NEGATIVE_INFINITY]),
        Class::Infinity => out.extend_from_slice(&[NUMBER, INFINITY]),
        Class::NaN => out.extend_from_slice(&[NUMBER, NAN]),
        Class::Finite(parts) => write_number(out, parts.negative, parts.whole.as_bytes(), parts.fraction.as_bytes()),
    }
}

fn write_float(out: &mut Vec<u8>, n: f64, plain: impl FnOnce() -> String) {
    if n.is_nan() {
        out.extend_from_slice(&[NUMBER, NAN]);
    } else if n.is_infinite() {
        out.extend_from_slice(&[NUMBER, if n > 0.0 { INFINITY } else { NEGATIVE_INFINITY }]);
    } else {
        // `Display` of a float is its shortest exact-round-trip decimal in plain notation.
        write_decimal(out, &plain());
    }
}

/// `whole` has no leading zeros and `fraction` no trailing ones. Digits are packed in pairs aligned at the point; the
/// exponent counts pairs. For negative numbers exponent and pairs are complemented, so that larger magnitudes sort
/// first.
fn write_number(out: &mut Vec<u8>, negative: bool, whole: &[u8], fraction: &[u8]) {
    if whole.is_empty() && fraction.is_empty() {
        out.extend_from_slice(&[NUMBER, ZERO]);
        return;
    }
    let flip = if negative { 0xff } else { 0 };
    out.extend_from_slice(&[NUMBER, if negative { NEGATIVE } else { POSITIVE }]);
    let skipped_pairs =
        if whole.is_empty() { fraction.iter().take_while(|digit| **digit == b'0').count() / 2 } else { 0 };
    let exponent = if whole.is_empty() { -(skipped_pairs as i64) } else { whole.len().div_ceil(2) as i64 };
    // Numbers of everyday size have it in one byte. PostgreSQL's numeric goes to 131,072 digits before and 16,383 after
    // the point; three bytes hold far more.
    let biased = exponent + EXPONENT_BIAS;
    if (1..i64::from(EXPONENT_HIGH)).contains(&biased) {
        out.push(biased as u8 ^ flip);
    } else {
        let escape = if biased < 1 { EXPONENT_LOW } else { EXPONENT_HIGH };
        let wide = (exponent + 0x80_0000).clamp(0, 0xff_ffff) as u32;
        out.push(escape ^ flip);
        out.extend(wide.to_be_bytes()[1..].iter().map(|byte| byte ^ flip));
    }

    let digit = |b: u8| b - b'0';
    let start = out.len();
    let mut push = |tens: u8, ones: u8| out.push((tens * 10 + ones + 1) ^ flip);
    let odd = whole.len() % 2;
    if odd == 1 {
        push(0, digit(whole[0]));
    }
    for pair in whole[odd..].chunks_exact(2) {
        push(digit(pair[0]), digit(pair[1]));
    }
    for pair in fraction[skipped_pairs * 2..].chunks(2) {
        push(digit(pair[0]), pair.get(1).map_or(0, |b| digit(*b)));
    }
    // Trailing zero pairs say nothing: 1e6 and 1000000.00 are one key.
    while out.len() > start && *out.last().expect("not empty") == 1 ^ flip {
        out.pop();
    }
    out.push(flip);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueRef::*;

    fn interval(text: &str) -> ValueRef<'static> {
        ValueRef::Interval(crate::temporal::parse_interval(text).expect("an interval"))
    }

    #[test]
    fn order_of_bytes_is_order_of_values() {
        let ascending = [
            Null,
            Bool(false),
            Bool(true),
            Decimal("-Infinity"),
            Decimal("-1000000000000000000000000.5"),
            Int(i64::MIN),
            Int(-101),
            Int(-100),
            Decimal("-99.99"),
            Decimal("-1.5"),
            Int(-1),
            Decimal("-0.001"),
            Int(0),
            Decimal("0.0001"),
            Decimal("0.001"),
            Decimal("0.01"),
            Decimal("0.5"),
            Int(1),
            Decimal("1.01"),
            Int(2),
            Int(10),
            Int(99),
            Int(100),
            Int(101),
            Decimal("1000.5"),
            Int(i64::MAX),
            UInt(u64::MAX),
            Decimal("123456789012345678901234567890"),
            Decimal("Infinity"),
            Decimal("NaN"),
            Timestamp(i64::MIN),
            Date(-1),
            Timestamp(0),
            Date(1),
            interval("P-178956970Y-8M-2147483648DT-2562047788H"),
            interval("P-1M"),
            interval("P1DT-25H"),
            interval("PT0S"),
            interval("PT0.000001S"),
            interval("PT59S"),
            interval("PT1M5S"),
            interval("PT10M"),
            interval("PT23H59M59.999999S"),
            interval("P1D"),
            interval("P29DT23H"),
            interval("P1M"),
            interval("P31D"),
            interval("P12M"),
            interval("P365D"),
            interval("P178956970Y7M2147483647DT2562047788H"),
            Text(""),
            Text("\0"),
            Text("a"),
            Text("a\0b"),
            Text("ab"),
            Text("b"),
        ];
        for pair in ascending.windows(2) {
            assert!(of(pair[0]) < of(pair[1]), "{:?} must sort before {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn equal_numbers_share_a_key_whatever_their_type() {
        for (a, b) in [
            (Int(1), Decimal("1.00")),
            (Int(0), Decimal("-0.0")),
            (Int(1_000_000), Decimal("1000000.000")),
            (Float64(0.5), Decimal("0.50")),
            (Float64(-3.0), Int(-3)),
            (UInt(5), Int(5)),
        ] {
            assert_eq!(of(a), of(b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn intervals_that_postgresql_calls_equal_share_a_key() {
        for (a, b) in [("PT24H", "P1D"), ("P1M", "P30D"), ("P1Y", "P360D"), ("P1DT-24H", "PT0S"), ("PT60S", "PT1M")] {
            assert_eq!(of(interval(a)), of(interval(b)), "{a} {b}");
        }
    }

    #[test]
    fn parts_can_be_split_again() {
        let span = interval("P-1M");
        let values = [Int(-120), Text("a\0b"), Null, span, Decimal("NaN"), Date(4), Bool(true), Int(7), Text("")];
        let mut key = Vec::new();
        for value in values {
            write(&mut key, value);
        }
        let mut rest = &key[..];
        for value in values {
            let (part, after) = split_first(rest).expect("a part");
            assert_eq!(part, of(value));
            rest = after;
        }
        assert!(rest.is_empty());
    }
}
