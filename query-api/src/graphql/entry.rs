//! Where a document stands in the walk of a query: the index value it was found by, read from its own bytes. The store
//! tells only where a page ends; an edge wants a cursor of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::{ColumnType, Value, ValueRef, key};
use headwater_store::Filter;

use super::scan::{self, Torn};

/// The index value by which the walk came upon a document: of those in the walked ranges the first in its direction.
/// `path` is the index's, with points between.
///
/// # Errors
///
/// The document has no such value.
pub(super) fn walked_value(
    json: &[u8],
    path: &str,
    kind: &ColumnType,
    walk: &Filter,
    descending: bool,
) -> Result<Vec<u8>, Torn> {
    let mut found: Option<Vec<u8>> = None;
    visit(json, 0, path, &mut |value| {
        let key = scalar_key(value, kind)?;
        let better = |known: &Vec<u8>| if descending { key > *known } else { key < *known };
        if walk.ranges.iter().any(|range| range.contains(&key)) && found.as_ref().is_none_or(better) {
            found = Some(key);
        }
        Ok(())
    })?;
    found.ok_or(Torn)
}

/// Calls `each` with the bytes of every value under `path`; answers the place behind the value at `at`.
fn visit(json: &[u8], at: usize, path: &str, each: &mut impl FnMut(&[u8]) -> Result<(), Torn>) -> Result<usize, Torn> {
    match json.get(at) {
        _ if path.is_empty() => {
            let end = scan::value(json, at)?;
            each(&json[at..end])?;
            Ok(end)
        }
        Some(b'[') => {
            let mut place = scan::blank(json, at + 1);
            if json.get(place) == Some(&b']') {
                return Ok(place + 1);
            }
            loop {
                let behind = visit(json, place, path, each)?;
                match scan::separator(json, behind)? {
                    (true, next) => place = next,
                    (false, end) => return Ok(end),
                }
            }
        }
        Some(b'{') => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            let mut place = scan::blank(json, at + 1);
            if json.get(place) == Some(&b'}') {
                return Ok(place + 1);
            }
            loop {
                let key_end = scan::value(json, place)?;
                if json.get(place) != Some(&b'"') || json.get(key_end) != Some(&b':') {
                    return Err(Torn);
                }
                let here = json.get(place + 1..key_end - 1) == Some(name.as_bytes());
                let value = scan::blank(json, key_end + 1);
                let behind = if here { visit(json, value, rest, each)? } else { scan::value(json, value)? };
                match scan::separator(json, behind)? {
                    (true, next) => place = next,
                    (false, end) => return Ok(end),
                }
            }
        }
        // A nested object that is null has no values below.
        _ => scan::value(json, at),
    }
}

/// The key of a value as it stands in a document.
fn scalar_key(value: &[u8], kind: &ColumnType) -> Result<Vec<u8>, Torn> {
    if value == b"null" {
        return Ok(key::of(ValueRef::Null));
    }
    let json = std::str::from_utf8(value).map_err(|_| Torn)?;
    if *kind == ColumnType::Json {
        return Ok(key::of(ValueRef::Json(json)));
    }
    let unquoted: String;
    let text = match value.first() {
        Some(b'"') => {
            unquoted = serde_json::from_str(json).map_err(|_| Torn)?;
            &unquoted
        }
        _ => json,
    };
    let value = match kind {
        ColumnType::Bytes => Value::Bytes(STANDARD.decode(text).map_err(|_| Torn)?),
        kind => Value::parse(text, kind).map_err(|_| Torn)?,
    };
    Ok(key::of(value.scalar().ok_or(Torn)?))
}

#[cfg(test)]
mod tests {
    use headwater_schemas::ValueRef as V;
    use headwater_store::KeyRange;

    use super::*;

    #[test]
    fn values_are_found_through_objects_and_arrays() {
        let json = br#"{"a":{"b":[{"c":3,"x":"}"},{"c":1},{"c":null},{"c":7}]},"d":"t\"x","n":null}"#;
        let all = Filter { index: 0, ranges: vec![KeyRange::default()], negated: false };
        let some = Filter {
            ranges: vec![KeyRange { low: key::of(V::Int(2)), high: Some(key::of(V::Int(5))) }],
            ..all.clone()
        };
        let value = |path, kind: ColumnType, walk, descending| walked_value(json, path, &kind, walk, descending);
        assert_eq!(value("a.b.c", ColumnType::Int32, &all, false), Ok(key::of(V::Null)));
        assert_eq!(value("a.b.c", ColumnType::Int32, &all, true), Ok(key::of(V::Int(7))));
        assert_eq!(value("a.b.c", ColumnType::Int32, &some, true), Ok(key::of(V::Int(3))));
        assert_eq!(value("d", ColumnType::Text, &all, false), Ok(key::of(V::Text("t\"x"))));
        assert_eq!(value("missing", ColumnType::Text, &all, false), Err(Torn));
        assert_eq!(value("n.x", ColumnType::Text, &all, false), Err(Torn));
    }
}
