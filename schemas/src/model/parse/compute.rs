//! Computed fields and indexes: paths that must lead somewhere.

use super::node::member_names;
use super::reader::Reader;
use crate::model::definition::{Aggregate, Compute, Index, Node};
use crate::yaml::{Member, Place};

const AGGREGATES: [(&str, Aggregate); 6] = [
    ("sum", Aggregate::Sum),
    ("count", Aggregate::Count),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("avg", Aggregate::Avg),
    ("exists", Aggregate::Exists),
];

const KEYS: [&str; 8] = ["sum", "count", "min", "max", "avg", "exists", "where", "doc"];

/// Every aggregate as it is written.
pub(in crate::model) fn aggregate_words() -> impl Iterator<Item = &'static str> + Clone {
    AGGREGATES.iter().map(|(word, _)| *word)
}

/// Names of a node's computed fields.
pub(super) fn names(node: &Node) -> impl Iterator<Item = &str> {
    node.computes.iter().map(|compute| compute.name.as_str())
}

/// What a path leads to.
enum Target {
    /// The rows of the relations.
    Rows,
    Field(String),
    /// A field that is itself computed.
    Computed,
}

impl Reader<'_> {
    /// A computed field of `node`, whose fields and relations are known already.
    pub(super) fn compute(&mut self, member: &Member, node: &Node) -> Option<Compute> {
        let members = self.mapping(&member.value, "a computed field", &KEYS);
        let doc = members.get("doc").map(|yaml| self.text(yaml));
        let mut declared =
            AGGREGATES.iter().filter_map(|(word, function)| Some((word, function, members.member(word)?)));
        let Some((word, function, aggregate)) = declared.next() else {
            if !members.is_meant(&KEYS[..6]) {
                let help = "write one of sum, count, min, max, avg, exists: `{ sum: relation.field }`";
                self.error_help(member.key_place, format!("what does `{}` compute?", member.key), help);
            }
            return None;
        };
        for (word, _, other) in declared {
            self.error(other.key_place, format!("a field computes one thing: `{word}` is one too many"));
        }
        let path = self.text(&aggregate.value);
        let place = aggregate.value.place;
        let (relations, target) = self.follow(node, &path, place)?;
        if relations.is_empty() {
            let help = "name a relation, or a field of one: `relation.field`";
            self.error_help(place, format!("`{path}` is not nested: there is nothing to compute over"), help);
            return None;
        }
        let field = match target {
            Target::Field(field) => Some(field),
            Target::Computed => {
                let help = "compute over the field it is made of";
                self.error_help(place, format!("`{path}` is itself computed"), help);
                return None;
            }
            Target::Rows if matches!(function, Aggregate::Count | Aggregate::Exists) => None,
            Target::Rows => {
                let end = relations.iter().try_fold(node, |node, name| node.relation(name));
                let near = end.and_then(|end| end.fields.first()).map_or("field", |field| &field.name);
                let help = format!("name one of its fields: `{word}: {path}.{near}`");
                self.error_help(place, format!("`{word}` needs a field, and `{path}` is a relation"), help);
                return None;
            }
        };
        let filter = members.get("where").map(|yaml| {
            self.predicate(yaml, &mut |reader, (path, place)| {
                reader.check_filter_path(node, &relations, path, place);
                path.to_string()
            })
        });
        Some(Compute { name: member.key.clone(), doc, function: *function, relations, field, filter })
    }

    /// A name in a computed field's condition is a field of one of the relations it goes through.
    fn check_filter_path(&mut self, node: &Node, relations: &[String], path: &str, place: Place) {
        let Some((through, target)) = self.follow(node, path, place) else { return };
        let over = relations.join(".");
        if !matches!(target, Target::Field(_)) {
            self.error(place, format!("`{path}` is not a field"));
        } else if through.is_empty() || !relations.starts_with(&through) {
            let help = format!("begin with {}", prefixes(relations));
            self.error_help(place, format!("`{path}` is not on the way to `{over}`"), help);
        }
    }

    /// Goes along `path` from `node`; reports the first name that is not there.
    fn follow(&mut self, node: &Node, path: &str, place: Place) -> Option<(Vec<String>, Target)> {
        let mut at = node;
        let mut relations = Vec::new();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if let Some(next) = at.relation(name) {
                relations.push(name.to_string());
                at = next;
                continue;
            }
            let field = at.fields.iter().any(|field| field.name == name);
            if !field && !self::names(at).any(|compute| compute == name) {
                let known = member_names(at);
                let inside = match relations.as_slice() {
                    [] => String::new(),
                    relations => format!(" in `{}`", relations.join(".")),
                };
                let message = match relations.is_empty() && path == name {
                    true => format!("there is no `{name}`"),
                    false => format!("`{path}`: there is no `{name}`{inside}"),
                };
                let help = match crate::nearest(name, known.iter().copied()) {
                    Some(near) => {
                        let tail: Vec<&str> = names.collect();
                        let way = relations.iter().map(String::as_str).chain([near]).chain(tail);
                        format!("did you mean `{}`?", way.collect::<Vec<_>>().join("."))
                    }
                    None => format!("known here: {}", known.join(", ")),
                };
                self.error_help(place, message, help);
                return None;
            }
            if let Some(beyond) = names.next() {
                self.error(place, format!("`{path}`: `{name}` is a value and has no `{beyond}`"));
                return None;
            }
            return Some((relations, if field { Target::Field(name.into()) } else { Target::Computed }));
        }
        Some((relations, Target::Rows))
    }

    /// An index leads to a value.
    pub(super) fn check_index(&mut self, node: &Node, index: &Index, place: Place) {
        let path = index.name();
        if let Some((relations, Target::Rows)) = self.follow(node, &path, place) {
            let end = relations.iter().try_fold(node, |node, name| node.relation(name));
            let near = end.and_then(|end| end.fields.first()).map_or("field", |field| &field.name);
            let help = format!("index one of its fields, for example `{path}.{near}`");
            self.error_help(place, format!("`{path}` is a relation and has no value to index"), help);
        }
    }
}

fn prefixes(relations: &[String]) -> String {
    let ways: Vec<String> = (1..=relations.len()).map(|len| format!("`{}.`", relations[..len].join("."))).collect();
    ways.join(" or ")
}
