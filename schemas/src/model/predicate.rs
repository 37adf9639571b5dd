//! Conditions on rows and documents: the same words in a model's `where` and in the filters of the query API.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ColumnType;
use crate::value::{Value, ValueRef};

/// A literal as it stood in YAML, JSON or a query string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Literal {
    /// `null`.
    Null,
    /// Boolean.
    Bool(bool),
    /// A number in plain notation, exact.
    Number(String),
    /// Text; compared with times, UUIDs and numbers it is read as one of those first.
    Text(String),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(literal) => write!(f, "{literal}"),
            Self::Number(literal) => f.write_str(literal),
            Self::Text(literal) => write!(f, "\"{literal}\""),
        }
    }
}

/// What a comparison asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Equal; `eq: null` is "is null".
    Eq,
    /// Not equal; `ne: null` is "is not null". As in SQL, null is not unequal to a value: it matches nothing.
    Ne,
    /// One of a list.
    In,
    /// Not null and none of a list.
    Nin,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// `true`: not null; `false`: null.
    Exists,
    /// Text that starts with the literal.
    StartsWith,
    /// Text that contains the literal.
    Contains,
}

/// A condition over named values. `N` is how a value is named: a column, or a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate<N = String> {
    /// All hold; empty is true.
    And(Vec<Predicate<N>>),
    /// One holds; empty is false.
    Or(Vec<Predicate<N>>),
    /// It does not hold, and is not unknown: of a comparison with null neither it nor its opposite holds.
    Not(Box<Predicate<N>>),
    /// One value compared.
    Compare {
        /// Which value.
        name: N,
        /// How.
        operator: Operator,
        /// With what: one literal, or the list of `In` and `Nin`.
        literals: Vec<Literal>,
    },
}

impl Operator {
    /// All of them, as written.
    pub const ALL: [(&'static str, Operator); 11] = [
        ("eq", Operator::Eq),
        ("ne", Operator::Ne),
        ("in", Operator::In),
        ("nin", Operator::Nin),
        ("gt", Operator::Gt),
        ("gte", Operator::Gte),
        ("lt", Operator::Lt),
        ("lte", Operator::Lte),
        ("exists", Operator::Exists),
        ("startsWith", Operator::StartsWith),
        ("contains", Operator::Contains),
    ];

    /// The operator written as `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, operator)| *operator)
    }

    /// How it is written.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, operator)| *operator == self).expect("ALL has every operator").0
    }
}

impl<N> Predicate<N> {
    /// Every name compared, in order of appearance.
    pub fn names(&self) -> Vec<&N> {
        self.comparisons().into_iter().map(|(name, ..)| name).collect()
    }

    /// Every comparison, in order of appearance: of which value, how, with what.
    pub fn comparisons(&self) -> Vec<(&N, Operator, &[Literal])> {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::comparisons).collect(),
            Self::Not(inner) => inner.comparisons(),
            Self::Compare { name, operator, literals } => vec![(name, *operator, literals)],
        }
    }

    /// Whether there is a `not` in it.
    pub(crate) fn negates(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::negates),
            Self::Not(_) => true,
            Self::Compare { .. } => false,
        }
    }

    /// The same condition with its values named otherwise.
    pub fn rename<M, E>(&self, rename: &mut impl FnMut(&N) -> Result<M, E>) -> Result<Predicate<M>, E> {
        let mut all = |parts: &[Self]| parts.iter().map(|part| part.rename(rename)).collect::<Result<Vec<_>, E>>();
        Ok(match self {
            Self::And(parts) => Predicate::And(all(parts)?),
            Self::Or(parts) => Predicate::Or(all(parts)?),
            Self::Not(inner) => Predicate::Not(Box::new(inner.rename(rename)?)),
            Self::Compare { name, operator, literals } => {
                Predicate::Compare { name: rename(name)?, operator: *operator, literals: literals.clone() }
            }
        })
    }

    /// Whether the condition holds for the values that `lookup` finds. As in SQL, it is unknown of null whether it stands in
    /// a relation to a value, and so is the opposite; what is unknown in the end does not hold.
    pub fn matches<'v>(&self, lookup: &mut impl FnMut(&N) -> ValueRef<'v>) -> bool {
        self.holds(lookup) == Some(true)
    }

    /// `None`: unknown.
    fn holds<'v>(&self, lookup: &mut impl FnMut(&N) -> ValueRef<'v>) -> Option<bool> {
        match self {
            Self::And(parts) => one_decides(parts, false, lookup),
            Self::Or(parts) => one_decides(parts, true, lookup),
            Self::Not(inner) => inner.holds(lookup).map(|holds| !holds),
            Self::Compare { name, operator, literals } => operator.holds(lookup(name), literals),
        }
    }
}

/// `decisive` if one of the parts is, unknown if none is and one is unknown, else the opposite.
fn one_decides<'v, N>(
    parts: &[Predicate<N>],
    decisive: bool,
    lookup: &mut impl FnMut(&N) -> ValueRef<'v>,
) -> Option<bool> {
    let mut holds = Some(!decisive);
    for part in parts {
        match part.holds(lookup) {
            Some(part) if part == decisive => return Some(decisive),
            Some(_) => {}
            None => holds = None,
        }
    }
    holds
}

impl Operator {
    /// Whether `value` stands in this relation to `literals`. A list operator takes any number of literals, the others
    /// exactly one: with none they match nothing.
    pub fn matches(self, value: ValueRef<'_>, literals: &[Literal]) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let first = literals.first();
        let compared = || first.and_then(|literal| literal.compare_to(value));
        let text = || match value {
            ValueRef::Text(text) | ValueRef::Enum(text) => Some(text),
            _ => None,
        };
        match self {
            Self::Eq => first.is_some_and(|literal| literal.equals(value)),
            Self::Ne => match first {
                Some(Literal::Null) => !value.is_null(),
                Some(literal) => !value.is_null() && !literal.equals(value),
                None => false,
            },
            Self::In => literals.iter().any(|literal| literal.equals(value)),
            Self::Nin => !value.is_null() && !literals.iter().any(|literal| literal.equals(value)),
            Self::Gt => compared() == Some(Greater),
            Self::Gte => matches!(compared(), Some(Greater | Equal)),
            Self::Lt => compared() == Some(Less),
            Self::Lte => matches!(compared(), Some(Less | Equal)),
            Self::Exists => match first {
                Some(Literal::Bool(wanted)) => *wanted != value.is_null(),
                _ => false,
            },
            Self::StartsWith => match (text(), first) {
                (Some(text), Some(Literal::Text(prefix))) => text.starts_with(prefix.as_str()),
                _ => false,
            },
            Self::Contains => match (text(), first) {
                (Some(text), Some(Literal::Text(part))) => text.contains(part.as_str()),
                _ => false,
            },
        }
    }

    /// What [`matches`](Self::matches) says; `None` where the value is null and nothing asks for null.
    fn holds(self, value: ValueRef<'_>, literals: &[Literal]) -> Option<bool> {
        let is_known = !value.is_null() || self == Self::Exists || literals.contains(&Literal::Null);
        is_known.then(|| self.matches(value, literals))
    }

    /// The first of these literals that no value of this type can stand in this relation to; null and `exists` ask for
    /// nothing of the type.
    pub fn unfit<'l>(self, kind: &ColumnType, literals: &'l [Literal]) -> Option<&'l Literal> {
        let fits = |literal: &Literal| match (self, literal) {
            (Self::Exists, _) | (_, Literal::Null) => true,
            (Self::StartsWith | Self::Contains, literal) => {
                matches!((kind, literal), (ColumnType::Text | ColumnType::Enum, Literal::Text(_)))
            }
            _ => sample(kind).is_some_and(|value| literal.compare_to(value).is_some()),
        };
        literals.iter().find(|literal| !fits(literal))
    }
}

/// Some value of a type; `None` where values of it are compared with no literal.
fn sample(kind: &ColumnType) -> Option<ValueRef<'static>> {
    Some(match kind {
        ColumnType::Bool => ValueRef::Bool(false),
        ColumnType::Int32 | ColumnType::Int64 => ValueRef::Int(0),
        ColumnType::UInt64 => ValueRef::UInt(0),
        ColumnType::Decimal => ValueRef::Decimal("0"),
        ColumnType::Float32 => ValueRef::Float32(0.0),
        ColumnType::Float64 => ValueRef::Float64(0.0),
        ColumnType::Text | ColumnType::Other => ValueRef::Text(""),
        ColumnType::Enum => ValueRef::Enum(""),
        ColumnType::Json => ValueRef::Json(""),
        ColumnType::Date => ValueRef::Date(0),
        ColumnType::Time => ValueRef::Time(0),
        ColumnType::TimeTz => ValueRef::TimeTz(0, 0),
        ColumnType::Timestamp => ValueRef::Timestamp(0),
        ColumnType::TimestampTz => ValueRef::TimestampTz(0),
        ColumnType::Uuid => ValueRef::Uuid([0; 16]),
        ColumnType::Interval => ValueRef::Interval(crate::Interval::default()),
        ColumnType::Bytes | ColumnType::Array(_) => return None,
    })
}

impl Literal {
    fn equals(&self, value: ValueRef<'_>) -> bool {
        match self {
            Self::Null => value.is_null(),
            other => other.compare_to(value) == Some(std::cmp::Ordering::Equal),
        }
    }

    /// How `value` compares with this literal (`Less`: the value is less); `None` where they cannot be compared, which
    /// includes null.
    pub fn compare_to(&self, value: ValueRef<'_>) -> Option<std::cmp::Ordering> {
        use ValueRef as V;

        use crate::temporal as t;
        let numeric = |text: &str| crate::is_decimal(text).then(|| value.compare(&V::Decimal(text)));
        match (self, value) {
            (Self::Null, _) | (_, V::Null | V::Missing) => None,
            (Self::Bool(literal), V::Bool(value)) => Some(value.cmp(literal)),
            (
                Self::Number(text) | Self::Text(text),
                V::Int(_) | V::UInt(_) | V::Decimal(_) | V::Float32(_) | V::Float64(_),
            ) => numeric(text),
            (Self::Text(literal) | Self::Number(literal), V::Text(value) | V::Enum(value) | V::Json(value)) => {
                Some(value.as_bytes().cmp(literal.as_bytes()))
            }
            (Self::Text(literal), V::Date(days)) => Some(match t::parse_date(literal) {
                Some(literal) => days.cmp(&literal),
                None => value.compare(&V::Timestamp(t::parse_timestamp(literal)?)),
            }),
            (Self::Text(literal), V::Timestamp(micros)) => Some(micros.cmp(&t::parse_timestamp(literal)?)),
            (Self::Text(literal), V::TimestampTz(micros)) => Some(micros.cmp(&t::parse_timestamp_tz(literal)?)),
            (Self::Text(literal), V::Time(micros)) => Some(micros.cmp(&t::parse_time(literal)?)),
            (Self::Text(literal), V::Uuid(_)) => match Value::parse(literal, &ColumnType::Uuid) {
                Ok(Value::Uuid(literal)) => Some(value.compare(&V::Uuid(literal))),
                _ => Some(value.compare(&V::Text(&literal.to_lowercase()))),
            },
            (Self::Text(literal), V::TimeTz(..)) => {
                let (micros, zone) = t::parse_time_tz(literal)?;
                Some(value.compare(&V::TimeTz(micros, zone)))
            }
            (Self::Text(literal), V::Interval(_)) => Some(value.compare(&V::Interval(t::parse_interval(literal)?))),
            (Self::Text(literal), V::Bool(value)) => match literal.as_str() {
                "true" => Some(value.cmp(&true)),
                "false" => Some(value.cmp(&false)),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.into())
    }

    fn number(text: &str) -> Literal {
        Literal::Number(text.into())
    }

    fn seconds(seconds: i64) -> crate::Interval {
        crate::Interval { micros: seconds * 1_000_000, ..Default::default() }
    }

    #[test]
    fn literals_are_read_as_what_they_are_compared_with() {
        use Operator::*;
        use ValueRef as V;
        let uuid = "0000000a-0000-0000-0000-000000000000";
        let mut uuid_bytes = [0; 16];
        uuid_bytes[3] = 10;
        for (value, operator, literal, wanted) in [
            (V::Int(10), Gt, number("9.5"), true),
            (V::Int(10), Gt, text("9"), true),
            (V::Decimal("1.50"), Eq, number("1.5"), true),
            (V::UInt(u64::MAX), Eq, number("18446744073709551615"), true),
            (V::Int(i64::MAX), Lt, number("9223372036854775808"), true),
            (V::Float64(f64::NAN), Gt, number("1"), true),
            (V::Text("10"), Eq, number("10"), true),
            (V::Text("10"), Lt, text("9"), true),
            (V::Date(0), Eq, text("1970-01-01"), true),
            (V::Date(0), Lt, text("1970-01-01T00:00:01"), true),
            (V::TimestampTz(0), Eq, text("1970-01-01T01:00:00+01:00"), true),
            (V::Uuid(uuid_bytes), Eq, text(&uuid.to_uppercase()), true),
            (V::Uuid(uuid_bytes), Eq, text("0000000a000000000000000000000000"), true),
            (V::Bool(true), Eq, text("true"), true),
            (V::Enum("open"), StartsWith, text("op"), true),
            (V::Text("a%b"), Contains, text("%"), true),
            (V::Interval(seconds(59)), Lt, text("PT1M5S"), true),
            (V::Interval(seconds(65)), Lt, text("PT10M"), true),
            (V::Interval(seconds(86_400)), Eq, text("P1D"), true),
            (V::Interval(seconds(86_400)), Gte, text("P1M"), false),
            (V::Int(1), Eq, text("one"), false),
            (V::Int(1), Ne, text("one"), true),
            (V::Date(0), Gt, text("yesterday"), false),
        ] {
            assert_eq!(operator.matches(value, std::slice::from_ref(&literal)), wanted, "{value:?} {literal:?}");
        }
    }

    /// SQL's truth table: of `a = 1` for a of 1, 2 and null, and of `b = 1` beside it.
    #[test]
    fn what_is_unknown_of_null_stays_unknown_in_its_opposite() {
        type P = Predicate<usize>;
        let is_one = |name: usize| P::Compare { name, operator: Operator::Eq, literals: vec![number("1")] };
        let not = |inner: P| P::Not(Box::new(inner));
        let holds = |predicate: &P, cells: [ValueRef<'static>; 2]| predicate.matches(&mut |name: &usize| cells[*name]);
        let (yes, no, null) = (ValueRef::Int(1), ValueRef::Int(2), ValueRef::Null);
        let (and, or) = (P::And(vec![is_one(0), is_one(1)]), P::Or(vec![is_one(0), is_one(1)]));
        // The last two: whether it holds, and whether its opposite does.
        for (predicate, cells, it, opposite) in [
            (&is_one(0), [yes, yes], true, false),
            (&is_one(0), [no, yes], false, true),
            (&is_one(0), [null, yes], false, false),
            (&and, [yes, yes], true, false),
            (&and, [yes, no], false, true),
            (&and, [yes, null], false, false),
            (&and, [no, null], false, true),
            (&and, [null, no], false, true),
            (&and, [null, null], false, false),
            (&or, [yes, null], true, false),
            (&or, [null, yes], true, false),
            (&or, [no, no], false, true),
            (&or, [no, null], false, false),
            (&or, [null, null], false, false),
        ] {
            let found = (holds(predicate, cells), holds(&not(predicate.clone()), cells));
            assert_eq!(found, (it, opposite), "{predicate:?} of {cells:?}");
            assert_eq!(holds(&not(not(predicate.clone())), cells), it, "{predicate:?} of {cells:?}");
        }
        let compare = |operator, literal| P::Compare { name: 0, operator, literals: vec![literal] };
        for (_, operator) in Operator::ALL.iter().filter(|(_, it)| *it != Operator::Exists) {
            assert!(!holds(&not(compare(*operator, text("a"))), [null, null]), "{operator:?}");
        }
        // What asks for null is known of it.
        assert!(holds(&not(compare(Operator::Ne, Literal::Null)), [null, null]));
        assert!(holds(&not(compare(Operator::Exists, Literal::Bool(true))), [null, null]));
        assert!(!holds(&not(compare(Operator::Eq, Literal::Null)), [null, null]));
    }

    #[test]
    fn null_matches_only_what_asks_for_it() {
        use Operator::*;
        for operator in [Eq, Ne, In, Nin, Gt, Gte, Lt, Lte, StartsWith, Contains] {
            assert!(!operator.matches(ValueRef::Null, &[text("a")]), "{operator:?}");
        }
        assert!(Eq.matches(ValueRef::Null, &[Literal::Null]));
        assert!(Ne.matches(ValueRef::Int(1), &[Literal::Null]));
        assert!(In.matches(ValueRef::Missing, &[text("a"), Literal::Null]));
        assert!(Exists.matches(ValueRef::Null, &[Literal::Bool(false)]));
        assert!(!Exists.matches(ValueRef::Int(1), &[Literal::Bool(false)]));
        for (_, operator) in Operator::ALL {
            assert_eq!(Operator::from_word(operator.word()), Some(operator));
            assert_eq!(operator.matches(ValueRef::Int(1), &[]), operator == Nin);
        }
    }
}
