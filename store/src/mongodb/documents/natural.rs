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

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document};

    use super::*;

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) % end as u64) as usize
        }

        fn value(&mut self, depth: usize) -> serde_json::Value {
            use serde_json::{Map, Value};
            match self.below(if depth == 0 { 5 } else { 7 }) {
                0 => Value::Null,
                1 => Value::Bool(self.below(2) == 0),
                2 => Value::from(self.below(usize::MAX) as i64),
                3 => Value::from(self.below(1000) as f64 / 8.0 - 50.0),
                4 => Value::from(self.text()),
                5 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
                _ => Value::Object(
                    (0..self.below(4)).map(|_| (self.text(), self.value(depth - 1))).collect::<Map<_, _>>(),
                ),
            }
        }

        fn text(&mut self) -> String {
            const LETTERS: [char; 12] = ['a', 'b', '"', '\\', '\n', '\u{1}', 'é', '😀', '/', ' ', '[', '}'];
            (0..self.below(6)).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
        }
    }

    fn written(body: &[u8]) -> Document {
        let shape = ModelShape {
            model: "m".into(),
            version: 1,
            doc: None,
            key: Vec::new(),
            fields: Vec::new(),
            indexes: Vec::new(),
        };
        let document = Writer::document(|out| write(out, body, &shape));
        Document::try_from(document.as_ref()).expect("BSON")
    }

    fn expected(value: &serde_json::Value) -> Bson {
        use serde_json::Value as V;
        match value {
            V::Null => Bson::Null,
            V::Bool(yes) => Bson::Boolean(*yes),
            V::Number(n) => n.as_i64().map_or_else(|| Bson::Double(n.as_f64().expect("a float")), Bson::Int64),
            V::String(text) => Bson::String(text.clone()),
            V::Array(items) => Bson::Array(items.iter().map(expected).collect()),
            V::Object(members) => {
                Bson::Document(members.iter().map(|(name, it)| (name.clone(), expected(it))).collect())
            }
        }
    }

    #[test]
    fn random_json_says_the_same_as_bson() {
        let mut random = Random(7);
        for _ in 0..3_000 {
            let mut value = random.value(4);
            if !value.is_object() {
                value = serde_json::json!({ "v": value });
            }
            let compact = serde_json::to_vec(&value).expect("JSON");
            let spacious = serde_json::to_vec_pretty(&value).expect("JSON");
            let Bson::Document(expected) = expected(&value) else { unreachable!("it is an object") };
            assert_eq!(written(&compact), expected, "{value}");
            assert_eq!(written(&spacious), expected, "{value}");
        }
    }

    #[test]
    fn torn_json_is_left_out_whole() {
        let mut random = Random(8);
        for _ in 0..3_000 {
            let mut bytes = serde_json::to_vec(&serde_json::json!({ "a": random.value(3) })).expect("JSON");
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = random.below(256) as u8,
                _ => bytes.insert(at, b"{}[],:\"\\0e-u"[random.below(12)]),
            }
            let document = written(&bytes);
            let is_object =
                serde_json::from_slice::<std::collections::HashMap<String, serde::de::IgnoredAny>>(&bytes).is_ok();
            assert!(is_object || document.is_empty(), "{}", String::from_utf8_lossy(&bytes));
        }
        for not in [
            "",
            "1",
            "[]",
            "{",
            "{\"a\":1}x",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":\"\\ud800\"}",
            "{\"$a\":1}",
            "{\"\\u0000\":1}",
        ] {
            assert!(written(not.as_bytes()).is_empty(), "{not}");
        }
        // Far deeper than a stack is.
        let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
        assert!(written(deep.as_bytes()).is_empty());
    }
}
