//! A document's JSON as BSON that other tools read as what it means: numbers as numbers, decimals as Decimal128, times as
//! dates, bytes as binary.
//!
//! The types come from the version's shape. What BSON cannot hold exactly stays the string it is in JSON; only
//! microseconds are cut to BSON's milliseconds. The JSON itself is stored beside it, and is what readers get.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, temporal};

use super::decimal;
use super::json::{Json, Malformed, Token};
use crate::mongodb::bson::{
    ARRAY, BINARY, BOOLEAN, DATE, DECIMAL, DOCUMENT, DOUBLE, INT32, INT64, NULL, STRING, Writer,
};

/// Levels of nesting that are written; the server takes 100.
const DEPTH_MAX: usize = 80;

const MICROS_PER_MILLI: i64 = 1_000;
const MILLIS_PER_DAY: i64 = 86_400_000;

/// It cannot be said in BSON, or is not JSON.
struct Unfit;

impl From<Malformed> for Unfit {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// What is known of a value.
#[derive(Clone, Copy)]
enum Kind<'s> {
    Unknown,
    Scalar(&'s ColumnType),
    /// An object, or an array of such, with these members.
    Nested(&'s [ShapeField]),
}

/// Writes the members of a JSON object as elements of the document that has been begun. When the body is no object, or
/// cannot be said in BSON, nothing is written.
pub(super) fn write(out: &mut Writer, body: &[u8], shape: &ModelShape) {
    let start = out.bytes.len();
    let Ok(text) = std::str::from_utf8(body) else { return };
    let mut json = Json::new(text);
    let written = (|| {
        if json.value()? != Token::Object {
            return Err(Unfit);
        }
        members(&mut json, out, Kind::Nested(&shape.fields), 0)?;
        if json.is_finished() { Ok(()) } else { Err(Unfit) }
    })();
    if written.is_err() {
        out.bytes.truncate(start);
    }
}

fn members(json: &mut Json<'_>, out: &mut Writer, kind: Kind<'_>, depth: usize) -> Result<(), Unfit> {
    let fields = if let Kind::Nested(fields) = kind { fields } else { &[] };
    let mut expected = 0;
    let mut first = true;
    while json.more(first, b'}')? {
        first = false;
        let name = json.name()?;
        let place = fields.get(expected).filter(|field| field.name == name).map(|_| expected);
        let place = place.or_else(|| fields.iter().position(|field| field.name == name));
        let kind = place.map_or(Kind::Unknown, |place| {
            expected = place + 1;
            match &fields[place].kind {
                FieldType::Scalar(kind) => Kind::Scalar(kind),
                FieldType::Nested { cardinality: Cardinality::Many | Cardinality::One, fields } => Kind::Nested(fields),
            }
        });
        // These names are ours, at the top.
        if depth == 0 && (name == "_id" || name == "_hw") {
            json.skip()?;
            continue;
        }
        if name.contains('\0') || name.starts_with('$') {
            return Err(Unfit);
        }
        let at = out.bytes.len();
        out.element(NULL, &name);
        value(json, out, at, kind, depth + 1)?;
    }
    Ok(())
}

/// Writes a value; `at` is where its type is put in.
fn value(json: &mut Json<'_>, out: &mut Writer, at: usize, kind: Kind<'_>, depth: usize) -> Result<(), Unfit> {
    let Kind::Scalar(ColumnType::Json) = kind else { return known_value(json, out, at, kind, depth) };
    let (place, end) = (json.place(), out.bytes.len());
    if known_value(json, out, at, Kind::Unknown, depth).is_err() {
        // Such as a member `$set`, or a hundred levels: as text at least.
        out.bytes.truncate(end);
        json.back_to(place);
        out.bytes[at] = STRING;
        out.text_value(json.skip()?);
    }
    Ok(())
}

fn known_value(json: &mut Json<'_>, out: &mut Writer, at: usize, kind: Kind<'_>, depth: usize) -> Result<(), Unfit> {
    if depth > DEPTH_MAX {
        return Err(Unfit);
    }
    match json.value()? {
        Token::Null => {}
        Token::Bool(yes) => {
            out.bytes[at] = BOOLEAN;
            out.bytes.push(u8::from(yes));
        }
        Token::Number(text) => number(out, at, kind, text),
        Token::Text(value) => text(out, at, kind, &value),
        Token::Object => {
            out.bytes[at] = DOCUMENT;
            let begun = out.begin();
            members(json, out, kind, depth)?;
            out.end(begun);
        }
        Token::Array => {
            out.bytes[at] = ARRAY;
            let begun = out.begin();
            let item_kind = match kind {
                Kind::Scalar(ColumnType::Array(item)) => Kind::Scalar(item),
                other => other,
            };
            let mut n = 0;
            while json.more(n == 0, b']')? {
                let at = out.bytes.len();
                out.item(NULL, n);
                // Of arrays with several dimensions the inner ones are of the same type.
                let inner = if matches!(json.upcoming(), Some(b'[')) { kind } else { item_kind };
                value(json, out, at, inner, depth + 1)?;
                n += 1;
            }
            out.end(begun);
        }
    }
    Ok(())
}

fn number(out: &mut Writer, at: usize, kind: Kind<'_>, digits: &str) {
    let float = matches!(kind, Kind::Scalar(ColumnType::Float32 | ColumnType::Float64));
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if matches!(kind, Kind::Scalar(ColumnType::Decimal)) || whole && !float {
        return whole_or_decimal(out, at, kind, digits);
    }
    match digits.parse::<f64>() {
        Ok(n) if n.is_finite() => {
            out.bytes[at] = DOUBLE;
            out.bytes.extend_from_slice(&n.to_le_bytes());
        }
        _ => exact_or_text(out, at, digits),
    }
}

fn whole_or_decimal(out: &mut Writer, at: usize, kind: Kind<'_>, digits: &str) {
    match (kind, digits.parse::<i64>()) {
        (Kind::Scalar(ColumnType::Decimal), _) | (_, Err(_)) => exact_or_text(out, at, digits),
        (Kind::Scalar(ColumnType::Int32), Ok(n)) if i32::try_from(n).is_ok() => {
            out.bytes[at] = INT32;
            out.bytes.extend_from_slice(&(n as i32).to_le_bytes());
        }
        (_, Ok(n)) => {
            out.bytes[at] = INT64;
            out.bytes.extend_from_slice(&n.to_le_bytes());
        }
    }
}

fn exact_or_text(out: &mut Writer, at: usize, digits: &str) {
    match decimal::encode(digits) {
        Some(bytes) => {
            out.bytes[at] = DECIMAL;
            out.bytes.extend_from_slice(&bytes);
        }
        None => {
            out.bytes[at] = STRING;
            out.text_value(digits);
        }
    }
}

fn text(out: &mut Writer, at: usize, kind: Kind<'_>, value: &str) {
    let mut date = |millis: Option<i64>| match millis {
        Some(millis) => {
            out.bytes[at] = DATE;
            out.bytes.extend_from_slice(&millis.to_le_bytes());
            true
        }
        None => false,
    };
    let whole_millis =
        |micros: i64| (micros != i64::MAX && micros != i64::MIN).then(|| micros.div_euclid(MICROS_PER_MILLI));
    let done = match kind {
        Kind::Scalar(ColumnType::Decimal | ColumnType::Int64 | ColumnType::UInt64) => {
            whole_or_decimal(out, at, kind, value);
            true
        }
        Kind::Scalar(ColumnType::Date) => {
            let days = temporal::parse_date(value).filter(|days| *days != i32::MAX && *days != i32::MIN);
            date(days.map(|days| i64::from(days) * MILLIS_PER_DAY))
        }
        Kind::Scalar(ColumnType::Timestamp) => date(temporal::parse_timestamp(value).and_then(whole_millis)),
        Kind::Scalar(ColumnType::TimestampTz) => date(temporal::parse_timestamp_tz(value).and_then(whole_millis)),
        Kind::Scalar(ColumnType::Bytes) => match STANDARD.decode(value) {
            Ok(bytes) => {
                out.bytes[at] = BINARY;
                out.binary_value(&bytes);
                true
            }
            Err(_) => false,
        },
        Kind::Scalar(ColumnType::Float32 | ColumnType::Float64) => {
            let n = match value {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            };
            if let Some(n) = n {
                out.bytes[at] = DOUBLE;
                out.bytes.extend_from_slice(&n.to_le_bytes());
            }
            n.is_some()
        }
        _ => false,
    };
    if !done {
        out.bytes[at] = STRING;
        out.text_value(value);
    }
}
