//! The values a document has at the path of an index, as the keys they are found by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::{ColumnType, Value, ValueRef, key};
use headwater_store::Filter;

use super::scan::{Torn, elements, members};

/// The key of every value at `path` (names with points between). Arrays on the way are looked into, every element.
pub(crate) fn index_keys(json: &[u8], path: &str, kind: &ColumnType) -> Result<Vec<Vec<u8>>, Torn> {
    let mut keys = Vec::new();
    visit(json, 0, path, kind, &mut keys)?;
    Ok(keys)
}

/// The value by which a walk comes upon a document: of those in its ranges the first in its direction.
///
/// # Errors
///
/// The document has no such value.
pub(crate) fn walked_key(
    json: &[u8],
    path: &str,
    kind: &ColumnType,
    walk: &Filter,
    descending: bool,
) -> Result<Vec<u8>, Torn> {
    let met = index_keys(json, path, kind)?.into_iter().filter(|key| walk.within(key));
    if descending { met.max() } else { met.min() }.ok_or(Torn)
}

fn visit(json: &[u8], at: usize, path: &str, kind: &ColumnType, keys: &mut Vec<Vec<u8>>) -> Result<(), Torn> {
    match json.get(at) {
        None => return Err(Torn),
        Some(_) if path.is_empty() => keys.push(scalar_key(&json[at..], kind)?),
        Some(b'[') => {
            let mut items = elements(json, at)?;
            while let Some(item) = items.next()? {
                visit(&json[..item.end], item.start, path, kind, keys)?;
            }
        }
        Some(b'{') => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            let mut found = members(json, at)?;
            while let Some(member) = found.next()? {
                if json[member.name.clone()] == *name.as_bytes() {
                    return visit(&json[..member.value.end], member.value.start, rest, kind, keys);
                }
            }
        }
        // Where an object is null, so is every indexed value inside it.
        Some(b'n') => keys.push(key::of(ValueRef::Null)),
        Some(_) => return Err(Torn),
    }
    Ok(())
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
        let value = |path, kind: ColumnType, walk, descending| walked_key(json, path, &kind, walk, descending);
        assert_eq!(value("a.b.c", ColumnType::Int32, &all, false), Ok(key::of(V::Null)));
        assert_eq!(value("a.b.c", ColumnType::Int32, &all, true), Ok(key::of(V::Int(7))));
        assert_eq!(value("a.b.c", ColumnType::Int32, &some, true), Ok(key::of(V::Int(3))));
        assert_eq!(value("d", ColumnType::Text, &all, false), Ok(key::of(V::Text("t\"x"))));
        assert_eq!(value("missing", ColumnType::Text, &all, false), Err(Torn));
        assert_eq!(value("n.x", ColumnType::Text, &all, false), Ok(key::of(V::Null)));
        assert_eq!(value("d.x", ColumnType::Text, &all, false), Err(Torn));
        assert_eq!(index_keys(json, "a.b.c", &ColumnType::Int32).map(|keys| keys.len()), Ok(4));
        assert_eq!(index_keys(b"{", "a", &ColumnType::Int32), Err(Torn));
    }
}
