//! Random queries, and how REST and GraphQL write them.

use headwater_schemas::ColumnType;
use headwater_schemas::model::{FieldType, IndexShape, ShapeField};

use crate::case::Served;
use crate::plain::{Plain, values};
use crate::random::Random;

/// A condition on a declared index.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) index: IndexShape,
    pub(crate) operator: &'static str,
    pub(crate) values: Vec<Plain>,
}

/// Fields that are asked for: paths with points. Empty: all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(pub(crate) Vec<String>);

/// A list that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) conditions: Vec<Condition>,
    /// An index, and whether the greatest comes first.
    pub(crate) sort: Option<(IndexShape, bool)>,
    pub(crate) limit: usize,
    pub(crate) paths: Paths,
}

/// Whether values of an index of this type can be written into a query here.
pub(crate) fn is_plain(kind: &ColumnType) -> bool {
    use ColumnType::{Bool, Date, Decimal, Int32, Int64, Text, Timestamp, TimestampTz, Uuid};
    matches!(kind, Bool | Date | Decimal | Int32 | Int64 | Text | Timestamp | TimestampTz | Uuid)
}

impl Query {
    pub(crate) fn random(random: &mut Random, served: &Served) -> Self {
        let shape = &served.shape;
        let usable = &served.indexes;
        let mut conditions: Vec<Condition> = Vec::new();
        for _ in 0..random.between(0, 3) {
            if usable.is_empty() {
                break;
            }
            let index = random.pick(usable);
            let condition = Condition::random(random, served, index);
            let is_new = |known: &Condition| {
                (known.index.name.as_str(), known.operator) != (&*condition.index.name, condition.operator)
            };
            if conditions.iter().all(is_new) {
                conditions.push(condition);
            }
        }
        let sorts: Vec<&IndexShape> = usable.iter().filter(|index| !index.many).collect();
        let sort = (!sorts.is_empty() && random.chance(60))
            .then(|| (random.pick(&sorts).to_owned().clone(), random.chance(50)));
        let limit = if random.chance(80) { random.between(1, 5) } else { 20 };
        Self { conditions, sort, limit, paths: Paths::random(random, &shape.fields) }
    }

    /// Whether something is looked for in texts, which is not counted.
    pub(crate) fn looks_into_texts(&self) -> bool {
        self.conditions.iter().any(|condition| condition.operator == "contains")
    }

    /// Whether that is all, or all but conditions that leave most: such a query is refused.
    pub(crate) fn leaves_too_many(&self) -> bool {
        let leaves_most = |condition: &Condition| match condition.operator {
            "startsWith" => condition.values[0] == Plain::Text(String::new()),
            operator => matches!(operator, "contains" | "ne" | "nin" | "exists"),
        };
        self.looks_into_texts() && self.conditions.iter().all(leaves_most)
    }
}

impl Condition {
    fn random(random: &mut Random, served: &Served, index: &IndexShape) -> Self {
        let mut operators = vec!["eq", "ne", "exists"];
        // GraphQL has no others for what is true or false.
        if index.kind != ColumnType::Bool {
            operators.extend(["in", "nin", "gt", "gte", "lt", "lte"]);
        }
        if index.kind == ColumnType::Text {
            operators.extend(["startsWith", "contains", "contains"]);
        }
        let operator = *random.pick(&operators);
        // Values that are there, and some that are not.
        let mut pool: Vec<Plain> = served
            .documents
            .iter()
            .flat_map(|known| values(&known.document, &index.name, &index.kind))
            .filter(|value| *value != Plain::Null)
            .collect();
        pool.extend(match index.kind {
            ColumnType::Bool => vec![Plain::Bool(true)],
            ColumnType::Text => vec![Plain::Text("b,\\a".into()), Plain::Text(String::new())],
            ColumnType::Date => vec![Plain::Text("1999-12-31".into())],
            ColumnType::Timestamp => vec![Plain::Text("1970-01-01T00:00:01".into())],
            ColumnType::TimestampTz => vec![Plain::instant("1970-01-01T00:00:01Z")],
            ColumnType::Uuid => vec![Plain::Text("64646464-6464-6464-0000-000000000000".into())],
            _ => vec![Plain::number("3"), Plain::number("-1")],
        });
        let values = match operator {
            "exists" => vec![Plain::Bool(random.chance(50))],
            "contains" => vec![part_of(random, &pool)],
            "in" | "nin" => (0..random.between(1, 3)).map(|_| random.pick(&pool).clone()).collect(),
            _ => vec![random.pick(&pool).clone()],
        };
        Self { index: index.clone(), operator, values }
    }
}

/// Some letters in a row of one of these texts, and at least one.
fn part_of(random: &mut Random, texts: &[Plain]) -> Plain {
    let Plain::Text(text) = random.pick(texts) else { panic!("only texts contain something") };
    let letters: Vec<char> = text.chars().collect();
    let start = random.below(letters.len());
    let part: String = letters.iter().skip(start).take(random.between(1, 3)).collect();
    Plain::Text(if part.is_empty() { "a".into() } else { part })
}

impl Paths {
    pub(crate) fn random(random: &mut Random, fields: &[ShapeField]) -> Self {
        fn leaves(fields: &[ShapeField], above: &str, out: &mut Vec<String>) {
            for field in fields {
                let path = format!("{above}{}", field.name);
                match &field.kind {
                    FieldType::Nested { fields, .. } => leaves(fields, &(path + "."), out),
                    FieldType::Scalar(_) => out.push(path),
                }
            }
        }
        if random.chance(50) {
            return Self::default();
        }
        let mut all = Vec::new();
        leaves(fields, "", &mut all);
        Self((0..random.between(1, 3)).map(|_| random.pick(&all).clone()).collect())
    }

    /// Whether the member at `path` is asked for, or something in it.
    pub(crate) fn wants(&self, path: &str) -> bool {
        let within =
            |wanted: &String| wanted.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.0.is_empty() || self.0.iter().any(within)
    }
}
