//! What a query means, said as plainly as possible over the documents as JSON. Knows nothing of indexes and keys.

use std::collections::BTreeMap;

use bigdecimal::BigDecimal;
use headwater_schemas::model::{FieldType, ShapeField};
use headwater_schemas::{ColumnType, Value, ValueRef, key};
use serde_json::{Map, Value as Json};

use crate::case::{Known, Served};
use crate::query::{Condition, Paths, Query};

/// A value that can be compared. Null is least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Number(BigDecimal),
    /// A text, a date, a moment or a UUID: all of them are in the order of their letters, within the years that are used.
    Text(String),
    /// An instant without its `Z`: behind a fraction of a second it would come out of order.
    Instant(String),
}

impl Plain {
    pub(crate) fn number(text: &str) -> Self {
        Self::Number(text.parse().unwrap())
    }

    pub(crate) fn instant(text: &str) -> Self {
        Self::Instant(text.strip_suffix('Z').unwrap().into())
    }

    /// As the store's indexes of this type hold it.
    pub(crate) fn key(&self, kind: &ColumnType) -> Vec<u8> {
        match self {
            Self::Null => key::of(ValueRef::Null),
            Self::Bool(value) => key::of(ValueRef::Bool(*value)),
            Self::Number(number) => key::of(ValueRef::Decimal(&number.to_plain_string())),
            Self::Text(text) => key::of(Value::parse(text, kind).unwrap().scalar().unwrap()),
            Self::Instant(text) => key::of(Value::parse(&format!("{text}Z"), kind).unwrap().scalar().unwrap()),
        }
    }

    fn of(value: &Json, kind: &ColumnType) -> Self {
        match (value, kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), _) => Self::Bool(*value),
            (Json::Number(number), _) => Self::number(&number.to_string()),
            (Json::String(text), ColumnType::Int32 | ColumnType::Int64 | ColumnType::Decimal) => {
                text.parse().map_or_else(|_| Self::Text(text.clone()), Self::Number)
            }
            (Json::String(text), ColumnType::TimestampTz) => Self::instant(text),
            (Json::String(text), _) => Self::Text(text.clone()),
            // Values of types that are not compared here.
            (other, _) => Self::Text(other.to_string()),
        }
    }
}

/// The values at a path: one, or through arrays any number.
pub(crate) fn values(document: &Json, path: &str, kind: &ColumnType) -> Vec<Plain> {
    fn walk(value: &Json, path: &[&str], kind: &ColumnType, out: &mut Vec<Plain>) {
        match (value, path) {
            (value, []) => out.push(Plain::of(value, kind)),
            (Json::Null, _) => out.push(Plain::Null),
            (Json::Array(items), path) => items.iter().for_each(|item| walk(item, path, kind, out)),
            (object, [first, rest @ ..]) => walk(&object[*first], rest, kind, out),
        }
    }
    let mut out = Vec::new();
    walk(document, &path.split('.').collect::<Vec<_>>(), kind, &mut out);
    out
}

/// The documents a query finds, in its order.
pub(crate) fn matching<'s>(served: &'s Served, query: &Query) -> Vec<&'s Known> {
    let mut found: Vec<(usize, &Known)> =
        served.documents.iter().enumerate().filter(|(_, known)| holds(&known.document, &query.conditions)).collect();
    if let Some((index, descending)) = &query.sort {
        // The id decides among equals, and is turned around with the rest.
        found.sort_by_cached_key(|(at, known)| (values(&known.document, &index.name, &index.kind), *at));
        if *descending {
            found.reverse();
        }
    }
    found.into_iter().map(|(_, known)| known).collect()
}

fn holds(document: &Json, conditions: &[Condition]) -> bool {
    let mut by_index: BTreeMap<&str, Vec<&Condition>> = BTreeMap::new();
    conditions.iter().for_each(|condition| by_index.entry(&condition.index.name).or_default().push(condition));
    by_index.into_values().all(|conditions| {
        let index = &conditions[0].index;
        let values = values(document, &index.name, &index.kind);
        let (without, within): (Vec<&Condition>, Vec<&Condition>) =
            conditions.into_iter().partition(|condition| index.many && matches!(condition.operator, "ne" | "nin"));
        // Through an array: there are elements and none is so; and one element meets all the rest.
        let is_so = |value: &Plain| without.iter().any(|condition| condition.values.contains(value));
        let none = without.is_empty() || (!values.is_empty() && !values.iter().any(is_so));
        let one =
            within.is_empty() || values.iter().any(|value| within.iter().all(|condition| meets(value, condition)));
        none && one
    })
}

fn meets(value: &Plain, condition: &Condition) -> bool {
    let first = &condition.values[0];
    if condition.operator == "exists" {
        return (*value != Plain::Null) == (*first == Plain::Bool(true));
    }
    if *value == Plain::Null {
        return false;
    }
    match condition.operator {
        "eq" | "in" => condition.values.contains(value),
        "ne" | "nin" => !condition.values.contains(value),
        "gt" => value > first,
        "gte" => value >= first,
        "lt" => value < first,
        "lte" => value <= first,
        "startsWith" => matches!((value, first), (Plain::Text(value), Plain::Text(start)) if value.starts_with(start)),
        "contains" => matches!((value, first), (Plain::Text(value), Plain::Text(part)) if value.contains(part)),
        other => panic!("an operator that is not understood here: {other}"),
    }
}

/// The elements of the array at a path of names. None where an object on the way is null.
pub(crate) fn elements<'d>(document: &'d Json, path: &str) -> &'d [Json] {
    path.split('.').fold(document, |object, name| &object[name]).as_array().map_or(&[], Vec::as_slice)
}

/// What is left of an object when some paths are asked for.
pub(crate) fn projected(document: &Json, fields: &[ShapeField], paths: &Paths) -> Json {
    fn inside(value: &Json, fields: &[ShapeField], above: &str, paths: &Paths) -> Json {
        match value {
            Json::Array(items) => items.iter().map(|item| inside(item, fields, above, paths)).collect(),
            Json::Object(members) => {
                let mut out = Map::new();
                for field in fields {
                    let path = format!("{above}{}", field.name);
                    if !paths.wants(&path) {
                        continue;
                    }
                    let member = &members[&field.name];
                    let kept = match &field.kind {
                        FieldType::Scalar(_) => member.clone(),
                        FieldType::Nested { fields, .. } => inside(member, fields, &(path + "."), paths),
                    };
                    out.insert(field.name.clone(), kept);
                }
                Json::Object(out)
            }
            other => other.clone(),
        }
    }
    inside(document, fields, "", paths)
}
