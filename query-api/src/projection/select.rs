//! Field selection: `fields=id,total,customer.name` copies ranges of the stored JSON, in its order.

use std::hash::{DefaultHasher, Hash, Hasher};

use headwater_schemas::model::{FieldType, ShapeField};
use headwater_schemas::{nearest, write_json_string};

use super::scan::{Torn, elements, members};
use crate::problem::Problem;

/// Paths of one selection, at most.
const PATHS_MAX: usize = 200;

/// Which members of a document are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    level: Level,
    fingerprint: u64,
}

/// The wanted members of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Level {
    /// Names as they stand in JSON, without quotes; `None`: all of the value.
    members: Vec<(Box<[u8]>, Option<Level>)>,
}

impl Selection {
    /// The selection written as `paths`, of an object with these `fields`.
    pub(crate) fn new(paths: &str, fields: &[ShapeField]) -> Result<Self, Problem> {
        let mut level = Level::default();
        if paths.split(',').count() > PATHS_MAX {
            return Err(Problem::parameter("fields", format!("at most {PATHS_MAX} fields can be named")));
        }
        for path in paths.split(',') {
            level.add(path, path, fields)?;
        }
        // The same members in another order are the same bytes.
        level.sort();
        let mut hasher = DefaultHasher::new();
        level.hash(&mut hasher);
        Ok(Self { level, fingerprint: hasher.finish() })
    }

    /// Tells this selection's answers from those of others; the same in every process of one build.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Appends what is wanted of the object `json`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, json: &[u8]) -> Result<(), Torn> {
        self.level.write_object(out, json, 0)
    }
}

impl Level {
    fn add(&mut self, path: &str, whole_path: &str, fields: &[ShapeField]) -> Result<(), Problem> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            return Err(unknown(name, whole_path, fields));
        };
        let mut quoted = Vec::with_capacity(name.len() + 2);
        write_json_string(&mut quoted, name);
        let quoted: Box<[u8]> = quoted[1..quoted.len() - 1].into();
        let known = self.members.iter().position(|(known, _)| *known == quoted);
        let Some(rest) = rest else {
            match known {
                Some(known) => self.members[known].1 = None,
                None => self.members.push((quoted, None)),
            }
            return Ok(());
        };
        let FieldType::Nested { fields, .. } = &field.kind else {
            let detail = format!("`{whole_path}`: `{name}` is a value and has no fields");
            return Err(Problem::parameter("fields", detail));
        };
        let known = known.unwrap_or_else(|| {
            self.members.push((quoted, Some(Self::default())));
            self.members.len() - 1
        });
        match &mut self.members[known].1 {
            Some(level) => level.add(rest, whole_path, fields),
            // All of it was asked for already; the name is checked all the same.
            None => Self::default().add(rest, whole_path, fields),
        }
    }

    fn sort(&mut self) {
        self.members.sort();
        self.members.iter_mut().filter_map(|(_, level)| level.as_mut()).for_each(Self::sort);
    }

    fn write_object(&self, out: &mut Vec<u8>, json: &[u8], at: usize) -> Result<(), Torn> {
        let mut members = members(json, at)?;
        out.push(b'{');
        let mut left = self.members.len();
        while left > 0
            && let Some(member) = members.next()?
        {
            let name = &json[member.name.clone()];
            let Some((_, level)) = self.members.iter().find(|(wanted, _)| **wanted == *name) else { continue };
            if left < self.members.len() {
                out.push(b',');
            }
            left -= 1;
            match level {
                None => out.extend_from_slice(&json[member.whole()]),
                Some(level) => {
                    out.extend_from_slice(&json[member.whole().start..member.value.start]);
                    level.write_value(out, &json[..member.value.end], member.value.start)?;
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn write_value(&self, out: &mut Vec<u8>, json: &[u8], at: usize) -> Result<(), Torn> {
        match json.get(at) {
            Some(b'{') => self.write_object(out, json, at),
            Some(b'[') => {
                let mut elements = elements(json, at)?;
                out.push(b'[');
                let mut first = true;
                while let Some(element) = elements.next()? {
                    if !std::mem::replace(&mut first, false) {
                        out.push(b',');
                    }
                    self.write_value(out, &json[..element.end], element.start)?;
                }
                out.push(b']');
                Ok(())
            }
            // A `one` relation without row.
            Some(_) => {
                out.extend_from_slice(&json[at..]);
                Ok(())
            }
            None => Err(Torn),
        }
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.members.cmp(&other.members)
    }
}

/// What may have been meant by a name that no field has.
pub(crate) fn suggestion(given: &str, fields: &[ShapeField]) -> String {
    let names = || fields.iter().map(|field| field.name.as_str());
    match nearest(given, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn unknown(name: &str, path: &str, fields: &[ShapeField]) -> Problem {
    let help = suggestion(name, fields);
    let at = if name == path { String::new() } else { format!(" (in `{path}`)") };
    Problem::parameter("fields", format!("there is no field `{name}`{at}; {help}"))
}

#[cfg(test)]
mod tests {
    use headwater_schemas::ColumnType;
    use headwater_schemas::model::definition::Cardinality;

    use super::*;

    fn fields() -> Vec<ShapeField> {
        let field = |name: &str, kind| ShapeField { name: name.into(), doc: None, required: true, kind };
        let value = |name: &str| field(name, FieldType::Scalar(ColumnType::Text));
        let nested = |name: &str, cardinality, fields| field(name, FieldType::Nested { cardinality, fields });
        let lines = nested("lines", Cardinality::Many, vec![value("text"), value("amount")]);
        vec![
            value("id"),
            nested("customer", Cardinality::One, vec![value("name"), value("email")]),
            nested("invoices", Cardinality::Many, vec![value("total"), lines]),
            value("n"),
        ]
    }

    const JSON: &str = r#"{"id":1,"customer":{"name":"A","email":"x, }"},"invoices":[{"total":"1","lines":[{"text":"a","amount":1},{"text":"b","amount":2}]},{"total":"2","lines":[]}],"n":null}"#;

    #[test]
    fn what_is_wanted_is_copied_in_the_order_of_the_document() {
        for (paths, wanted) in [
            ("n,id", r#"{"id":1,"n":null}"#),
            ("customer.email", r#"{"customer":{"email":"x, }"}}"#),
            ("customer,customer.name", r#"{"customer":{"name":"A","email":"x, }"}}"#),
            ("customer.name,customer", r#"{"customer":{"name":"A","email":"x, }"}}"#),
            (
                "invoices.lines.amount,invoices.total",
                r#"{"invoices":[{"total":"1","lines":[{"amount":1},{"amount":2}]},{"total":"2","lines":[]}]}"#,
            ),
        ] {
            let mut out = Vec::new();
            let selection = Selection::new(paths, &fields()).expect(paths);
            selection.write(&mut out, JSON.as_bytes()).expect("whole");
            assert_eq!(String::from_utf8_lossy(&out), wanted, "{paths}");
        }
        let of = |paths| Selection::new(paths, &fields()).expect(paths).fingerprint();
        assert_eq!(of("n,id"), of("id,n,id"));
        assert_ne!(of("customer"), of("customer.name"));
    }

    #[test]
    fn a_missing_object_stays_null() {
        let mut out = Vec::new();
        let selection = Selection::new("customer.name", &fields()).expect("valid");
        selection.write(&mut out, br#"{"id":1,"customer":null}"#).expect("whole");
        assert_eq!(out, br#"{"customer":null}"#);
    }

    #[test]
    fn mistakes_are_named() {
        for (paths, words) in [
            ("nme", &["`nme`", "there are `id`"][..]),
            ("customer.emial", &["`emial`", "`email`"]),
            ("id.x", &["`id` is a value"]),
            ("", &["``"]),
            ("customer,customer.x", &["`x`"]),
        ] {
            let problem = Selection::new(paths, &fields()).expect_err("wrong");
            assert_eq!(problem.parameter.as_deref(), Some("fields"));
            assert!(words.iter().all(|word| problem.detail.contains(word)), "{}", problem.detail);
        }
    }

    proptest::proptest! {
        #[test]
        fn torn_documents_are_no_panic(cut in 0usize..200, byte in proptest::prelude::any::<u8>(), at in 0usize..200) {
            let selection = Selection::new("invoices.lines.text,customer.name,n", &fields()).expect("valid");
            let mut json = JSON.as_bytes()[..cut.min(JSON.len())].to_vec();
            if let Some(spoilt) = json.get_mut(at) {
                *spoilt = byte;
            }
            let _ = selection.write(&mut Vec::new(), &json);
        }
    }
}
