//! Random models over given tables.

use std::collections::BTreeMap;

use headwater_projector::model_shape;
use headwater_projector::naive::NaiveDocuments;
use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::{
    Aggregate, Cardinality, CastType, Compute, DEAD_LETTERS_PERCENT, Expression, Field, Index, JoinColumn, Node,
    OrderBy, ReadModel, Relation, Root, Through,
};
use headwater_schemas::model::{FieldType, Literal, Operator, Predicate};

use crate::random::Random;
use crate::tables::{Family, Table, family};

const DEPTH_MAX: usize = 3;

pub(crate) fn random_model(random: &mut Random, tables: &[Table], name: &str) -> ReadModel {
    let table = random.pick(tables);
    let filter = random.chance(35).then(|| filter(random, table));
    let root = Root { table: table.id().clone(), key: table.key_names(), filter };
    let node = node(random, tables, table, 0);
    let mut paths = Vec::new();
    index_paths(&node, &mut Vec::new(), &mut paths);
    let mut indexes: Vec<Index> = Vec::new();
    for _ in 0..random.between(0, 3) {
        if !paths.is_empty() {
            let index = Index { path: random.pick(&paths).clone() };
            if !indexes.contains(&index) {
                indexes.push(index);
            }
        }
    }
    let dead_letters_percent_max = percent_max(random);
    ReadModel { name: name.into(), version: 1, doc: None, root, node, indexes, dead_letters_percent_max }
}

/// How many documents may be missing from a version that takes over.
pub(crate) fn percent_max(random: &mut Random) -> Option<u32> {
    *random.pick(&[None, None, Some(0), Some(50), Some(100)])
}

/// Has no document of a model be built: a number is wanted of a text that is none.
pub(crate) fn spoil(model: &mut ReadModel) {
    let key = Expression::Column(model.root.key[0].clone());
    let parts = vec![key, Expression::Constant(Literal::Text("x".into()))];
    let of = Box::new(Expression::Concat { parts, separator: String::new() });
    let expression = Expression::Cast { of, to: CastType::Integer };
    model.node.fields.push(Field { name: "spoilt".into(), expression, doc: None });
}

/// Whether a version that lacks so many documents does not take over.
pub(crate) fn is_held(model: &ReadModel, expected: &NaiveDocuments) -> bool {
    let (missing, built) = (expected.poisoned.len(), expected.bodies.len());
    let percent = model.dead_letters_percent_max.unwrap_or(DEAD_LETTERS_PERCENT) as usize;
    missing * 100 > (missing + built) * percent && (missing > 1 || built == 0)
}

fn node(random: &mut Random, tables: &[Table], table: &Table, depth: usize) -> Node {
    let mut node = Node::default();
    for at in 0..random.between(1, 3) {
        let expression = loop {
            let expression = expression(random, table, 2);
            // Some are refused: casts that no value survives.
            if kind_of(table, &expression).is_some() {
                break expression;
            }
        };
        node.fields.push(Field { name: format!("f{at}"), expression, doc: None });
    }
    let relations = if depth == DEPTH_MAX { 0 } else { random.between(usize::from(depth == 0), 2 - depth / 2) };
    for at in 0..relations {
        let relation = relation(random, tables, table, depth, format!("r{at}"));
        node.relations.extend(relation);
    }
    if !node.relations.is_empty() {
        for at in 0..random.between(0, 2) {
            let compute = compute(random, tables, &node, format!("c{at}"));
            node.computes.push(compute);
        }
    }
    node
}

fn relation(random: &mut Random, tables: &[Table], parent: &Table, depth: usize, name: String) -> Option<Relation> {
    let table = random.pick(tables);
    let (through, on) = if random.chance(25) {
        let link = random.pick(tables);
        let filter = random.chance(25).then(|| filter(random, link));
        let first = joins(random, link, parent)?;
        (Some(Through { table: link.id().clone(), on: first, filter }), joins(random, table, link)?)
    } else {
        (None, joins(random, table, parent)?)
    };
    let cardinality = if random.chance(65) { Cardinality::Many } else { Cardinality::One };
    let mut order: Vec<OrderBy> = Vec::new();
    for _ in 0..random.below(3) {
        let column = random.pick(&table.schema.columns).name.to_string();
        if !order.iter().any(|by| by.column == column) {
            order.push(OrderBy { column, descending: random.chance(50) });
        }
    }
    let limit = (cardinality == Cardinality::Many && random.chance(30)).then(|| random.between(1, 3) as u32);
    let filter = random.chance(35).then(|| filter(random, table));
    let node = node(random, tables, table, depth + 1);
    Some(Relation { name, doc: None, cardinality, table: table.id().clone(), on, through, filter, order, limit, node })
}

/// One to two pairs of columns, most often the whole key of one of the two tables.
fn joins(random: &mut Random, child: &Table, parent: &Table) -> Option<Vec<JoinColumn>> {
    let kind = |table: &Table, name: &str| {
        let at = table.schema.column_index(name).unwrap();
        family(&table.schema.columns[at].kind)
    };
    let mut pairs: Vec<JoinColumn> = Vec::new();
    let whole = random.below(3);
    let wanted: Vec<(bool, String)> = match whole {
        0 => parent.key_names().into_iter().map(|name| (false, name)).collect(),
        1 => child.key_names().into_iter().map(|name| (true, name)).collect(),
        _ => {
            let names: Vec<String> =
                [Family::Number, Family::Text].iter().flat_map(|it| child.columns_of(*it)).collect();
            (0..random.between(1, 2)).map(|_| (true, random.pick(&names).clone())).collect()
        }
    };
    for (of_child, name) in wanted {
        let (own, other) = if of_child { (child, parent) } else { (parent, child) };
        let matching = other.columns_of(kind(own, &name));
        let other = random.pick(&matching).clone();
        let (child, parent) = if of_child { (name, other) } else { (other, name) };
        if !pairs.iter().any(|pair| pair.child == child) {
            pairs.push(JoinColumn { child, parent });
        }
    }
    if random.chance(50) {
        pairs.reverse();
    }
    (!pairs.is_empty()).then_some(pairs)
}

fn literal(random: &mut Random) -> Literal {
    match random.below(10) {
        0 => Literal::Null,
        1..=5 => Literal::Number((*random.pick(&["0", "1", "2.5", "3", "-1"])).into()),
        _ => Literal::Text((*random.pick(&["a", "b", "7", ""])).into()),
    }
}

fn compare<N>(random: &mut Random, name: N) -> Predicate<N> {
    let operator = random.pick(&Operator::ALL).1;
    let literals = match operator {
        Operator::In | Operator::Nin => (0..random.between(1, 3)).map(|_| literal(random)).collect(),
        Operator::Exists => vec![Literal::Bool(random.chance(70))],
        _ => vec![literal(random)],
    };
    Predicate::Compare { name, operator, literals }
}

/// A comparison that a value of this type can meet: a model with another one is refused.
fn comparable(random: &mut Random, name: String, kind: &ColumnType) -> Predicate {
    loop {
        let compared = compare(random, name.clone());
        if compared.comparisons().iter().all(|(_, operator, literals)| operator.unfit(kind, literals).is_none()) {
            break compared;
        }
    }
}

/// The type of an expression's values; `None` where a field of it is refused.
fn kind_of(table: &Table, expression: &Expression) -> Option<ColumnType> {
    let field = Field { name: "f".into(), expression: expression.clone(), doc: None };
    let root = Root { table: table.id().clone(), key: table.key_names(), filter: None };
    let node = Node { fields: vec![field], ..Node::default() };
    let model = ReadModel {
        name: "m".into(),
        version: 1,
        doc: None,
        root,
        node,
        indexes: Vec::new(),
        dead_letters_percent_max: None,
    };
    let tables = BTreeMap::from([(table.id().clone(), table.schema.clone())]);
    match model_shape(&model, &tables).ok()?.fields.remove(0).kind {
        FieldType::Scalar(kind) => Some(kind),
        FieldType::Nested { .. } => None,
    }
}

fn filter(random: &mut Random, table: &Table) -> Predicate {
    let one = |random: &mut Random| {
        let column = random.pick(&table.schema.columns);
        comparable(random, column.name.to_string(), &column.kind)
    };
    match random.below(6) {
        0 => Predicate::And(vec![one(random), one(random)]),
        1 => Predicate::Or(vec![one(random), one(random)]),
        2 => Predicate::Not(Box::new(one(random))),
        _ => one(random),
    }
}

fn expression(random: &mut Random, table: &Table, depth: usize) -> Expression {
    let column = |random: &mut Random| Expression::Column(random.pick(&table.schema.columns).name.to_string());
    if depth == 0 || random.chance(70) {
        return column(random);
    }
    let parts = |random: &mut Random| (0..random.between(1, 3)).map(|_| expression(random, table, depth - 1)).collect();
    match random.below(5) {
        0 => Expression::Constant(literal(random)),
        1 => Expression::Concat { parts: parts(random), separator: "-".into() },
        2 => Expression::Coalesce(parts(random)),
        3 => Expression::Cast { of: Box::new(column(random)), to: CastType::Text },
        // Now and then a cast that not every value survives: such roots have no document.
        _ => {
            let to =
                if random.chance(60) { CastType::Text } else { *random.pick(&[CastType::Integer, CastType::Json]) };
            Expression::Cast { of: Box::new(column(random)), to }
        }
    }
}

fn compute(random: &mut Random, tables: &[Table], node: &Node, name: String) -> Compute {
    let (mut at, mut relations) = (node, Vec::new());
    let mut fields: Vec<(String, ColumnType)> = Vec::new();
    let mut table = None;
    while relations.is_empty() || (!at.relations.is_empty() && random.chance(60)) {
        let relation = random.pick(&at.relations);
        relations.push(relation.name.clone());
        at = &relation.node;
        let nested = tables.iter().find(|table| *table.id() == relation.table).unwrap();
        let path = relations.join(".");
        let kind = |field: &Field| kind_of(nested, &field.expression).expect("only such fields are declared");
        fields.extend(at.fields.iter().map(|field| (format!("{path}.{}", field.name), kind(field))));
        table = Some(nested);
    }
    let table = table.unwrap();
    let numeric = |field: &&Field| match &field.expression {
        Expression::Column(name) => {
            family(&table.schema.columns[table.schema.column_index(name).unwrap()].kind) == Family::Number
        }
        _ => false,
    };
    let numbers: Vec<&Field> = at.fields.iter().filter(numeric).collect();
    let (function, field) = match random.below(6) {
        0 if !numbers.is_empty() => (Aggregate::Sum, Some(random.pick(&numbers).name.clone())),
        1 if !numbers.is_empty() => (Aggregate::Avg, Some(random.pick(&numbers).name.clone())),
        2 => (Aggregate::Min, Some(random.pick(&at.fields).name.clone())),
        3 => (Aggregate::Max, Some(random.pick(&at.fields).name.clone())),
        4 => (Aggregate::Exists, None),
        _ => (Aggregate::Count, random.chance(30).then(|| random.pick(&at.fields).name.clone())),
    };
    let filter = random.chance(40).then(|| {
        let mut one = || {
            let (name, kind) = random.pick(&fields).clone();
            comparable(random, name, &kind)
        };
        Predicate::And(vec![one(), one()])
    });
    Compute { name, doc: None, function, relations, field, filter }
}

fn index_paths(node: &Node, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let names = node.fields.iter().map(|field| &field.name).chain(node.computes.iter().map(|compute| &compute.name));
    out.extend(names.map(|name| prefix.iter().cloned().chain([name.clone()]).collect()));
    for relation in &node.relations {
        prefix.push(relation.name.clone());
        index_paths(&relation.node, prefix, out);
        prefix.pop();
    }
}
