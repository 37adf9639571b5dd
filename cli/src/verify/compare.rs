//! What is found, held against what should be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// A document's bytes; `None`: there is no document.
pub(crate) type Body = Option<Vec<u8>>;

/// All states in which a document was seen while a snapshot was taken and passed.
pub(crate) type Seen = BTreeMap<String, BTreeSet<Body>>;

/// How a document is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The root is in the source, and its document is not served.
    Missing,
    /// A document is served whose root is not in the source, or is filtered out.
    Extra,
    /// Both are there and differ; where they first do.
    Different(String),
    /// It was different each time, and each time another: it changes faster than it can be compared.
    Changing,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing: the source has this root, and no document is served"),
            Self::Extra => f.write_str("extra: a document is served, and the source has no such root"),
            Self::Different(place) => write!(f, "different: {place}"),
            Self::Changing => f.write_str("changes faster than it can be compared"),
        }
    }
}

/// Compares one document: right when it was seen as it should be at any moment after the snapshot.
pub(crate) fn compare(expected: &Body, seen: &BTreeSet<Body>) -> Option<Difference> {
    if seen.contains(expected) {
        return None;
    }
    let mut bodies = seen.iter();
    Some(match (expected, bodies.next(), bodies.next()) {
        (_, _, Some(_)) => Difference::Changing,
        (Some(_), None | Some(None), None) => Difference::Missing,
        (None, _, None) => Difference::Extra,
        (Some(expected), Some(Some(found)), None) => Difference::Different(first_difference(expected, found)),
    })
}

/// Where two documents first differ, for people: the path.
pub(crate) fn first_difference(expected: &[u8], found: &[u8]) -> String {
    let parse = |bytes| serde_json::from_slice::<Value>(bytes);
    match (parse(expected), parse(found)) {
        (Ok(expected_json), Ok(found_json)) => {
            let mut path = String::new();
            if descend(&expected_json, &found_json, &mut path) {
                return path;
            }
            let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
            format!("equal as JSON, but not as bytes, from byte {at} on")
        }
        (Err(_), _) => "what should be there is not JSON".to_string(),
        (_, Err(_)) => "what is served is not JSON".to_string(),
    }
}

/// Goes to the first difference and says what is there; false when there is none.
fn descend(expected: &Value, found: &Value, path: &mut String) -> bool {
    let len = path.len();
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                let dot = if len == 0 { "" } else { "." };
                path.push_str(&format!("{dot}{name}"));
                match found.get(name) {
                    Some(other) if descend(value, other, path) => return true,
                    Some(_) => path.truncate(len),
                    None => {
                        path.push_str(" is not served");
                        return true;
                    }
                }
            }
            let Some(name) = found.keys().find(|name| !expected.contains_key(*name)) else { return false };
            path.push_str(&format!("{}{name} is served and should not be", if len == 0 { "" } else { "." }));
            true
        }
        (Value::Array(expected), Value::Array(found)) => {
            for (at, (value, other)) in expected.iter().zip(found).enumerate() {
                path.push_str(&format!("[{at}]"));
                if descend(value, other, path) {
                    return true;
                }
                path.truncate(len);
            }
            if expected.len() == found.len() {
                return false;
            }
            path.push_str(&format!(": {} elements in the source, {} served", expected.len(), found.len()));
            true
        }
        _ if expected == found => false,
        _ => {
            // Which value, but not the values: reports end up in tickets and logs, and rows hold people's data.
            path.push_str(" differs");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, found: &str, place: &str) {
        assert_eq!(first_difference(expected.as_bytes(), found.as_bytes()), place);
    }

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        check(r#"{"a":1,"b":[{"c":"x"}]}"#, r#"{"a":1,"b":[{"c":"y"}]}"#, "b[0].c differs");
        check(r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, "a: 2 elements in the source, 1 served");
        check(r#"{"a":1}"#, "{}", "a is not served");
        check(r#"{"a":{}}"#, r#"{"a":{"b":1}}"#, "a.b is served and should not be");
        check(r#"{"a":1}"#, r#"{"a": 1}"#, "equal as JSON, but not as bytes, from byte 5 on");
    }

    #[test]
    fn a_document_is_right_when_it_was_right_at_some_moment() {
        let body = |text: &str| Some(text.as_bytes().to_vec());
        let seen = |bodies: &[Body]| bodies.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(compare(&body("{}"), &seen(&[body("[]"), body("{}")])), None);
        assert_eq!(compare(&None, &seen(&[None])), None);
        assert_eq!(compare(&body("{}"), &seen(&[None])), Some(Difference::Missing));
        assert_eq!(compare(&None, &seen(&[body("{}")])), Some(Difference::Extra));
        assert_eq!(compare(&body("{}"), &seen(&[body("1"), body("2")])), Some(Difference::Changing));
    }
}
