//! JSON to binary event, for text that is laid out exactly as [`super::EventWriter`] lays it out: no general parser, no
//! allocation for each event. Whatever looks different is left to [`super::from_json`].

use super::{members, unavailable};
use crate::codec::{CodecError, cell};
use crate::{
    ColumnType, EventHeader, EventRef, Op, RowBuilder, RowRef, SourcePosition, TableSchema, ValueRef, is_decimal,
};

/// Reads events of one schema.
#[derive(Debug)]
pub struct EventReader {
    schema: TableSchema,
    /// The fingerprint of the schema as events name it.
    fingerprint: String,
    /// How a member of each column begins: `"name":`.
    members: Vec<Vec<u8>>,
    key_columns: Vec<usize>,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Where the rows of an event are in the reader's buffers.
struct Scanned {
    header: EventHeader,
    before: bool,
    after: bool,
    partitions: Option<u32>,
}

impl EventReader {
    /// Of events written with this schema.
    pub fn new(schema: TableSchema) -> Self {
        Self {
            fingerprint: format!("{:016x}", schema.fingerprint().0),
            members: members(&schema),
            key_columns: schema.key_columns(),
            schema,
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// The schema.
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Reads an event as [`super::from_json`] does: its binary form is appended to `out`, and the key of its record
    /// replaces what is in `key`. After an error `out` is as before.
    ///
    /// # Errors
    ///
    /// Those of [`super::from_json`].
    pub fn read(&mut self, json: &[u8], key: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        // Canonical text has no control characters, which strings would have to escape.
        let text = std::str::from_utf8(json).ok().filter(|_| json.iter().all(|byte| *byte >= 0x20));
        key.clear();
        match text.and_then(|text| self.scan(text, key)) {
            Some(Scanned { header, before, after, partitions }) => {
                let before = before.then_some(RowRef(&self.before));
                let after = after.then_some(RowRef(&self.after));
                EventRef { header, before, after, partitions }.encode(out);
            }
            None => {
                let event = super::from_json(json, Some(&self.schema))?;
                *key = event.key;
                out.extend_from_slice(&event.bytes);
            }
        }
        Ok(())
    }

    fn scan(&mut self, json: &str, key: &mut Vec<u8>) -> Option<Scanned> {
        let mut text = Text(json);
        text.eat("{\"op\":\"")?;
        let op = Op::from_letter(text.char()?).filter(|op| *op != Op::Schema)?;
        text.eat("\",\"before\":")?;
        let before = row(&mut text, &self.schema, &self.members, false, &mut self.before)?;
        text.eat(",\"after\":")?;
        let after = row(&mut text, &self.schema, &self.members, true, &mut self.after)?;
        text.eat(",\"ts_ms\":")?;
        text.number::<i64>()?;
        text.eat(",\"source\":{\"version\":")?;
        text.string()?;
        for member in [",\"connector\":", ",\"name\":", ",\"db\":", ",\"schema\":", ",\"table\":"] {
            text.eat(member)?;
            text.string()?;
        }
        text.eat(",\"ts_ms\":")?;
        text.number::<i64>()?;
        text.eat(",\"ts_us\":")?;
        let committed_at_micros = text.number()?;
        text.eat(",\"snapshot\":")?;
        text.string()?;
        // Written by this version and later ones.
        if text.eat(",\"sequence\":").is_some() {
            text.string()?;
        }
        text.eat(",\"txId\":")?;
        let transaction = text.number()?;
        text.eat(",\"lsn\":")?;
        text.number::<u64>()?;
        text.eat("},\"transaction\":")?;
        if text.eat("null").is_none() {
            text.eat("{\"id\":")?;
            text.string()?;
            text.eat(",\"total_order\":")?;
            text.number::<u64>()?;
            text.eat(",\"data_collection_order\":")?;
            text.number::<u64>()?;
            text.eat("}")?;
        }
        text.eat(",\"x\":{\"v\":")?;
        text.eat("1").or_else(|| text.eat("2"))?;
        text.eat(",\"epoch\":")?;
        let epoch = text.number()?;
        text.eat(",\"pos\":\"")?;
        let commit = u64::from_str_radix(text.take(16)?, 16).ok()?;
        text.eat("/")?;
        let ordinal = u32::from_str_radix(text.take(8)?, 16).ok()?;
        text.eat("\",\"tx_last\":")?;
        let last_in_transaction = text.eat("true").is_some();
        if !last_in_transaction {
            text.eat("false")?;
        }
        let before_is_key_only = text.eat(",\"key_only\":true").is_some();
        let partitions = match text.eat(",\"partitions\":") {
            Some(()) => Some(text.number()?),
            None => None,
        };
        text.eat(",\"key\":")?;
        self.key(&mut text, key)?;
        if after {
            self.missing(&mut text)?;
        }
        text.eat(",\"schema\":\"")?;
        text.eat(&self.fingerprint)?;
        text.eat("\"}}")?;
        let position = SourcePosition { epoch, commit, ordinal };
        let header =
            EventHeader { op, position, transaction, committed_at_micros, last_in_transaction, before_is_key_only };
        text.0.is_empty().then_some(Scanned { header, before, after, partitions })
    }

    /// Reads the names of what is missing from the row after. They must be those of the row: it may hold a text that looks
    /// like a placeholder.
    fn missing(&self, text: &mut Text<'_>) -> Option<()> {
        let mut first = true;
        for at in RowRef(&self.after).missing() {
            text.eat(if std::mem::take(&mut first) { ",\"missing\":[" } else { "," })?;
            let (_colon, name) = self.members[at].split_last()?;
            text.eat_bytes(name)?;
        }
        if first { Some(()) } else { text.eat("]") }
    }

    fn key(&self, text: &mut Text<'_>, out: &mut Vec<u8>) -> Option<()> {
        if text.eat("null").is_some() {
            return Some(());
        }
        for (place, at) in self.key_columns.iter().enumerate() {
            text.eat(if place == 0 { "{" } else { "," })?;
            text.eat_bytes(&self.members[*at])?;
            value(text, &self.schema.columns[*at].kind, |value| crate::key::write(out, value))?;
        }
        text.eat("}")
    }
}

/// Reads an image into `out`; whether there is one. With `placeholders` a cell that looks like one is missing.
fn row(
    text: &mut Text<'_>,
    schema: &TableSchema,
    members: &[Vec<u8>],
    placeholders: bool,
    out: &mut Vec<u8>,
) -> Option<bool> {
    out.clear();
    if text.eat("null").is_some() {
        return Some(false);
    }
    text.eat("{")?;
    let mut row = RowBuilder::new(out);
    let mut first = true;
    for (column, member) in schema.columns.iter().zip(members) {
        let start = *text;
        let there = first || text.eat(",").is_some();
        if there && text.eat_bytes(member).is_some() {
            first = false;
            let placeholder = unavailable(&column.kind).filter(|_| placeholders);
            if placeholder.is_some_and(|placeholder| text.eat(placeholder).is_some()) {
                row.push(ValueRef::Missing);
            } else {
                value(text, &column.kind, |value| row.push(value))?;
            }
        } else {
            *text = start;
            row.push(ValueRef::Missing);
        }
    }
    text.eat("}")?;
    Some(true)
}

/// Reads the value of a column and gives it to `take`.
fn value(text: &mut Text<'_>, kind: &ColumnType, mut take: impl FnMut(ValueRef<'_>)) -> Option<()> {
    use ColumnType as C;
    if text.eat("null").is_some() {
        take(ValueRef::Null);
        return Some(());
    }
    if text.0.starts_with('"') {
        let start = text.0;
        // Escapes are left to the general way.
        let inside = text.string().filter(|inside| !inside.contains('\\'))?;
        match kind {
            C::Text | C::Other => take(ValueRef::Text(inside)),
            C::Enum => take(ValueRef::Enum(inside)),
            C::Json => take(ValueRef::Json(inside)),
            C::Decimal if is_decimal(inside) => take(ValueRef::Decimal(inside)),
            C::Array(_) => return None,
            _ => take(cell::read(&start[..inside.len() + 2], kind).ok()?.scalar()?),
        }
        return Some(());
    }
    match kind {
        C::Bool if text.eat("true").is_some() => take(ValueRef::Bool(true)),
        C::Bool if text.eat("false").is_some() => take(ValueRef::Bool(false)),
        C::Int32 | C::Int64 | C::UInt64 => take(ValueRef::Int(text.number()?)),
        C::Float32 | C::Float64 => {
            let end = text.0.find([',', '}']).filter(|end| *end > 0)?;
            let (number, rest) = text.0.split_at(end);
            take(cell::read(number, kind).ok().filter(|_| is_number(number))?.scalar()?);
            text.0 = rest;
        }
        _ => return None,
    }
    Some(())
}

/// Whether a text is a number as JSON has it, in the form in which we write them: `e` is small, and has no plus behind it.
fn is_number(text: &str) -> bool {
    fn digits(rest: &mut &str) -> usize {
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        *rest = &rest[count..];
        count
    }
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let begins_with_zero = rest.starts_with('0');
    let whole = digits(&mut rest);
    if whole == 0 || (whole > 1 && begins_with_zero) {
        return false;
    }
    if let Some(mut fraction) = rest.strip_prefix('.') {
        if digits(&mut fraction) == 0 {
            return false;
        }
        rest = fraction;
    }
    if let Some(exponent) = rest.strip_prefix('e') {
        let mut exponent = exponent.strip_prefix('-').unwrap_or(exponent);
        if digits(&mut exponent) == 0 {
            return false;
        }
        rest = exponent;
    }
    rest.is_empty()
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    fn eat(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn eat_bytes(&mut self, expected: &[u8]) -> Option<()> {
        let there = self.0.as_bytes().starts_with(expected);
        self.0 = self.0.get(expected.len()..).filter(|_| there)?;
        Some(())
    }

    fn char(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let char = chars.next()?;
        self.0 = chars.as_str();
        Some(char)
    }

    fn take(&mut self, len: usize) -> Option<&'t str> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// An integer as JSON has it.
    fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        let bytes = self.0.as_bytes();
        let sign = usize::from(bytes.first() == Some(&b'-'));
        let digits = bytes[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || (digits > 1 && bytes[sign] == b'0') {
            return None;
        }
        let (number, rest) = self.0.split_at(sign + digits);
        // A fraction or an exponent: not an integer.
        if matches!(rest.as_bytes().first(), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.0 = rest;
        number.parse().ok()
    }

    /// What is inside the next string, escapes as they are.
    fn string(&mut self) -> Option<&'t str> {
        let inside = self.0.strip_prefix('"')?;
        let mut from = 0;
        loop {
            let at = from + memchr::memchr2(b'"', b'\\', inside.as_bytes().get(from..)?)?;
            if inside.as_bytes()[at] == b'"' {
                self.0 = &inside[at + 1..];
                return Some(&inside[..at]);
            }
            // Escapes of one letter are passed over, and others are left to the general way.
            if !matches!(inside.as_bytes().get(at + 1)?, b'"' | b'\\' | b'n' | b'r' | b't' | b'b' | b'f') {
                return None;
            }
            from = at + 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_json() {
        for text in ["0", "-0", "-0.0", "10", "1.5", "5e-324", "1e5", "1.25e10", "-1.7976931348623157e308"] {
            assert!(is_number(text) && serde_json::from_str::<f64>(text).is_ok(), "{text}");
        }
        for text in
            ["", "-", "00", "-00", "01.5", "1.", ".5", "1.e5", "1e", "1e-", "--1", "1-2", "1.5.5", "1e5e5", "1 "]
        {
            assert!(!is_number(text), "{text}");
        }
    }
}
