//! One condition of a query, typed by the index it is about.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::model::{IndexShape, Operator};
use headwater_schemas::{ColumnType, Value, ValueRef, key, nearest};

use super::ranges::Ranges;
use crate::access::Visibility;
use crate::problem::Problem;

/// Conditions of one query, at most.
pub(crate) const CONDITIONS_MAX: usize = 32;
/// Values of one list, at most.
pub(crate) const VALUES_MAX: usize = 100;

/// A condition on the values of one index. On a path through an array `ne` and `nin` hold when no element is so, and all
/// others when one element meets everything asked of that path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// The store's number of the index.
    pub(super) index: u16,
    /// What the reader calls it.
    pub(super) parameter: String,
    /// What is asked, for the fingerprint of the query.
    pub(super) asked: (&'static str, Vec<String>),
    pub(super) wanted: Wanted,
    /// Whether it can be expected to leave few documents; less is fewer.
    pub(super) rank: Rank,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A value within these.
    Within(Ranges),
    /// No value within these.
    Without(Ranges),
    /// A text with this in it.
    Containing(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Exact,
    Range,
    Most,
}

impl Condition {
    /// `operator` on the index named `path`, with values as the reader wrote them. `parameter` is what the reader calls
    /// the condition, for the report of a mistake.
    pub(crate) fn new(
        visibility: &Visibility,
        path: &str,
        operator: Operator,
        values: Vec<String>,
        parameter: &str,
    ) -> Result<Self, Problem> {
        let unknown = || unknown_index(visibility, path, parameter, "filtered");
        let (index, declared) = visibility.index(path).ok_or_else(unknown)?;
        let refuse = |detail: String| Problem::parameter(parameter, detail);
        let word = operator.word();
        let is_list = matches!(operator, Operator::In | Operator::Nin);
        if values.is_empty() || (values.len() > 1 && !is_list) {
            return Err(refuse(format!("`{word}` takes {}", if is_list { "a list of values" } else { "one value" })));
        }
        if values.len() > VALUES_MAX {
            return Err(refuse(format!("a list has {VALUES_MAX} values at most; ask in several requests")));
        }
        let textual = matches!(declared.kind, ColumnType::Text | ColumnType::Enum | ColumnType::Other);
        if matches!(operator, Operator::StartsWith | Operator::Contains) && !textual {
            return Err(refuse(format!("`{word}` needs a text, and `{path}` is none; use eq, in, gt, gte, lt or lte")));
        }
        let one = |text: &String| {
            key_of(text, &declared.kind).map_err(|expected| refuse(format!("`{path}` {word}: expected {expected}")))
        };
        let first = &values[0];
        let wanted = match operator {
            Operator::Contains if first.is_empty() => return Err(refuse("`contains` needs a text".into())),
            Operator::Contains => Wanted::Containing(first.clone()),
            Operator::Eq | Operator::In => Wanted::Within(exactly(&values, one)?),
            Operator::Ne | Operator::Nin if declared.many => Wanted::Without(exactly(&values, one)?),
            Operator::Ne | Operator::Nin => Wanted::Within(exactly(&values, one)?.others()),
            Operator::Gt => Wanted::Within(Ranges::above(&one(first)?, false)),
            Operator::Gte => Wanted::Within(Ranges::above(&one(first)?, true)),
            Operator::Lt => Wanted::Within(Ranges::below(&one(first)?, false)),
            Operator::Lte => Wanted::Within(Ranges::below(&one(first)?, true)),
            Operator::StartsWith => Wanted::Within(Ranges::starting_with(&one(first)?)),
            Operator::Exists => match first.as_str() {
                "true" => Wanted::Within(Ranges::not_null()),
                "false" => Wanted::Within(Ranges::exactly(vec![key::of(ValueRef::Null)])),
                _ => return Err(refuse(format!("`{path}` exists: expected true or false"))),
            },
        };
        let rank = match operator {
            Operator::Eq | Operator::In => Rank::Exact,
            Operator::StartsWith if !first.is_empty() => Rank::Range,
            Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => Rank::Range,
            _ => Rank::Most,
        };
        Ok(Self { index, parameter: parameter.into(), asked: (word, values), wanted, rank })
    }
}

fn exactly(values: &[String], one: impl Fn(&String) -> Result<Vec<u8>, Problem>) -> Result<Ranges, Problem> {
    Ok(Ranges::exactly(values.iter().map(one).collect::<Result<_, _>>()?))
}

/// The key of a value that was given as text.
pub(crate) fn key_of(text: &str, kind: &ColumnType) -> Result<Vec<u8>, &'static str> {
    let value = match kind {
        ColumnType::Bytes => Value::Bytes(STANDARD.decode(text).map_err(|_| "bytes in base64")?),
        ColumnType::Int32 | ColumnType::Int64 | ColumnType::UInt64 => match Value::parse(text, kind) {
            // Numbers are compared by value whatever their type.
            Err(_) if headwater_schemas::is_decimal(text) => Value::Decimal(text.into()),
            parsed => parsed.map_err(|wrong| wrong.expected)?,
        },
        kind => Value::parse(text, kind).map_err(|wrong| wrong.expected)?,
    };
    Ok(key::of(value.scalar().ok_or("a single value")?))
}

/// What to say of a path that is not declared, or not shown to the reader, which is the same; `done` is what the reader
/// wants to do with it.
pub(crate) fn unknown_index(visibility: &Visibility, path: &str, parameter: &str, done: &str) -> Problem {
    let shape = &visibility.shape;
    let names = |indexes: &mut dyn Iterator<Item = &IndexShape>| {
        let names: Vec<String> = indexes.map(|index| format!("`{}`", index.name)).collect();
        if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
    };
    let sorted = done == "sorted";
    let declared = names(&mut shape.indexes.iter().filter(|index| !sorted || !index.many));
    let guess = match nearest(path, shape.indexes.iter().map(|index| index.name.as_str())) {
        Some(name) if name != path => format!("; did you mean `{name}`?"),
        _ => String::new(),
    };
    let model = &shape.model;
    let detail = format!("{model} cannot be {done} by `{path}`, but by {declared}{guess}");
    Problem::unknown_parameter(parameter, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use headwater_schemas::model::ModelShape;
    use headwater_store::VersionId;

    use super::*;

    fn visibility() -> Arc<Visibility> {
        let index = |name: &str, kind, many| IndexShape { name: name.into(), kind, many };
        let shape = ModelShape {
            model: "customer".into(),
            version: 1,
            doc: None,
            key: vec![ColumnType::Int64],
            fields: Vec::new(),
            indexes: vec![
                index("email", ColumnType::Text, false),
                index("n", ColumnType::Int32, false),
                index("invoices.status", ColumnType::Text, true),
            ],
        };
        Visibility::everything(VersionId(1), shape)
    }

    fn condition(path: &str, operator: Operator, values: &[&str]) -> Result<Condition, Problem> {
        let values = values.iter().map(|value| value.to_string()).collect();
        Condition::new(&visibility(), path, operator, values, "filter")
    }

    fn matches(condition: &Condition, value: ValueRef<'_>) -> bool {
        match &condition.wanted {
            Wanted::Within(ranges) => ranges.clone().into_inner().iter().any(|range| range.contains(&key::of(value))),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_hold_as_the_words_say() {
        use Operator::*;
        use ValueRef::{Int, Null, Text};
        for (path, operator, values, value, wanted) in [
            ("n", Gt, &["9.5"][..], Int(10), true),
            ("n", Gt, &["10"], Int(10), false),
            ("n", Gte, &["10"], Int(10), true),
            ("n", Lt, &["10"], Null, false),
            ("n", Lte, &["10"], Null, false),
            ("n", Lte, &["10"], Int(10), true),
            ("n", Eq, &["10.0"], Int(10), true),
            ("n", Ne, &["10"], Int(10), false),
            ("n", Ne, &["10"], Int(11), true),
            ("n", Ne, &["10"], Null, false),
            ("n", Nin, &["10", "12"], Int(11), true),
            ("n", Nin, &["10", "12"], Int(12), false),
            ("n", In, &["12", "10"], Int(12), true),
            ("n", Exists, &["true"], Int(0), true),
            ("n", Exists, &["true"], Null, false),
            ("n", Exists, &["false"], Null, true),
            ("email", StartsWith, &["ab"], Text("abc"), true),
            ("email", StartsWith, &["ab"], Text("b"), false),
        ] {
            let condition = condition(path, operator, values).expect("valid");
            assert_eq!(matches(&condition, value), wanted, "{path} {operator:?} {values:?} {value:?}");
        }
        assert!(matches!(condition("invoices.status", Ne, &["open"]).expect("valid").wanted, Wanted::Without(_)));
    }

    #[test]
    fn mistakes_are_named() {
        use Operator::*;
        for (path, operator, values, words) in [
            ("emial", Eq, &["x"][..], &["`emial`", "did you mean `email`"][..]),
            ("n", Gt, &["abc"], &["`n` gt", "an integer"]),
            ("n", StartsWith, &["1"], &["needs a text"]),
            ("n", Eq, &["1", "2"], &["one value"]),
            ("n", Exists, &["1"], &["true or false"]),
        ] {
            let detail = condition(path, operator, values).expect_err("wrong").detail;
            assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
        }
    }
}
