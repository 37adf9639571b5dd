//! The query of a list as a JSON body, for what is too long or too private for a URL:
//!
//! ```json
//! { "filter": { "status": { "in": ["open", "overdue"] }, "total": { "gte": 10.50 } },
//!   "fields": ["id", "total"], "sort": "-issued_on", "limit": 20, "after": "…", "count": "exact" }
//! ```
//!
//! Or `{ "ids": ["a", "b"] }`. Numbers are taken as they are written and never pass through a float.

use std::fmt;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserializer;
use serde::de::{Deserialize, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::asked::{Asked, Filter, NAMES, is_list, operator};
use super::parameters::unknown;
use crate::http::read_body;
use crate::problem::Problem;

/// Largest body of a query, in bytes: far more than the conditions a query may have.
const BODY_MAX: usize = 256 << 10;

/// What a body asks. Mistakes name the member by its JSON pointer.
pub(super) async fn read(headers: &HeaderMap, body: Incoming) -> Result<Asked<'static>, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let title = "The body must be JSON";
        let detail = "send `{\"filter\": …}` with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail));
    }
    let body = read_body(body, BODY_MAX).await?;
    parse(&body).map_err(Problem::in_body)
}

fn parse(body: &[u8]) -> Result<Asked<'static>, Problem> {
    let Members(members) = serde_json::from_slice(body).map_err(|error| invalid("", &error))?;
    let mut asked = Asked::default();
    for (name, value) in members {
        match name.as_str() {
            "filter" => asked.filters = filters(value)?,
            "fields" => asked.fields = Some(fields(value)?.into()),
            "ids" => asked.ids = Some(texts(value, "ids")?),
            "limit" => asked.limit = Some(text(value, "limit")?.into()),
            name => {
                let known = NAMES.map(|known| if known.starts_with("filter") { "filter" } else { known });
                let place = asked.place(name).ok_or_else(|| unknown(name, &known))?;
                *place = Some(string(value, name)?.into());
            }
        }
    }
    Ok(asked)
}

fn filters(value: &RawValue) -> Result<Vec<Filter>, Problem> {
    let mut filters = Vec::new();
    for (path, conditions) in members(value, "filter")? {
        let (name, before) = (format!("filter[{path}]"), filters.len());
        for (word, value) in members(conditions, &name)? {
            let name = format!("filter[{path}][{word}]");
            let operator = operator(&word, &name)?;
            let values = if is_list(operator) { texts(value, &name)? } else { vec![text(value, &name)?] };
            filters.push(Filter { name, path: path.clone(), operator, values });
        }
        // Nobody would look whether there is such a path.
        if filters.len() == before {
            let detail = format!("`{name}` has no condition; give it one, or leave it out");
            return Err(Problem::parameter(name, detail));
        }
    }
    Ok(filters)
}

fn fields(value: &RawValue) -> Result<String, Problem> {
    let paths: Vec<String> =
        list(value, "fields")?.into_iter().map(|path| string(path, "fields")).collect::<Result<_, _>>()?;
    if let Some(path) = paths.iter().find(|path| path.contains(',')) {
        return Err(Problem::parameter("fields", format!("`{path}` is no path; give each path as an item of its own")));
    }
    Ok(paths.join(","))
}

fn members<'j>(value: &'j RawValue, name: &str) -> Result<Vec<(String, &'j RawValue)>, Problem> {
    if !value.get().starts_with('{') {
        let form = "`filter` must be like `{\"total\": {\"gte\": 10}}`";
        return Err(Problem::parameter(name, format!("`{name}` must be an object; {form}")));
    }
    let Members(members) = serde_json::from_str(value.get()).map_err(|error| invalid(name, &error))?;
    Ok(members)
}

fn list<'j>(value: &'j RawValue, name: &str) -> Result<Vec<&'j RawValue>, Problem> {
    if !value.get().starts_with('[') {
        return Err(Problem::parameter(name, format!("`{name}` must be an array")));
    }
    serde_json::from_str(value.get()).map_err(|error| invalid(name, &error))
}

fn texts(value: &RawValue, name: &str) -> Result<Vec<String>, Problem> {
    list(value, name)?.into_iter().map(|value| text(value, name)).collect()
}

fn string(value: &RawValue, name: &str) -> Result<String, Problem> {
    if !value.get().starts_with('"') {
        return Err(Problem::parameter(name, format!("`{name}` must be a text")));
    }
    serde_json::from_str(value.get()).map_err(|error| invalid(name, &error))
}

/// A text, or the digits of a number, or `true` or `false`.
fn text(value: &RawValue, name: &str) -> Result<String, Problem> {
    match value.get().as_bytes().first() {
        Some(b'"') => string(value, name),
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(value.get().to_string()),
        Some(b'n') => Err(Problem::parameter(name, format!("`{name}` cannot be null; use `exists` to ask for null"))),
        _ => Err(Problem::parameter(name, format!("`{name}` must be a text, a number, true or false"))),
    }
}

fn invalid(name: &str, error: &serde_json::Error) -> Problem {
    let detail = format!("the body is not a JSON object of a query: {error}");
    Problem { code: "invalid_body", ..Problem::parameter(name, detail) }
}

/// The members of an object in their order, each name once: of two values one would be passed over.
struct Members<'j>(Vec<(String, &'j RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &'de RawValue)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(serde::de::Error::custom(format_args!("`{name}` stands twice")));
            }
            // Many names would be compared with each other many times.
            if members.len() == MEMBERS_MAX {
                return Err(serde::de::Error::custom(format_args!("an object has {MEMBERS_MAX} members at most")));
            }
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

/// Members of one object, at most.
const MEMBERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_asks_what_a_query_string_asks() {
        let body = br#"{"filter": {"n": {"gte": 1.50, "lt": "6"}, "s": {"in": ["a,b", 7]}, "x": {"exists": true}},
            "fields": ["id", "a.b"], "sort": "-n", "limit": 5, "count": "exact"}"#;
        let query = "filter[n][gte]=1.50&filter[n][lt]=6&filter[s][in]=a%5C,b,7&filter[x][exists]=true&fields=id,a.b\
                     &sort=-n&limit=5&count=exact";
        let of_query = Asked::of_query(query).expect("valid");
        assert_eq!(format!("{:?}", parse(body).expect("valid")), format!("{of_query:?}"));
        let ids = parse(br#"{"ids": ["a,b", 7], "fields": ["id"]}"#).expect("valid");
        assert_eq!(ids.ids.expect("ids"), ["a,b", "7"]);
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..80), json in r#"[{}\[\]":,a-z0-9.]{0,40}"#) {
            let _ = parse(&body);
            let _ = parse(json.as_bytes());
        }
    }
}
