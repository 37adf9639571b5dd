//! The naive evaluator: what a document is, said as plainly as possible.
//!
//! It holds all tables in memory, follows the declaration one row at a time, builds a tree and writes it out. It shares
//! with the real evaluator what single values mean (comparison, keys, JSON, formulas, exact sums) and nothing of how rows
//! are found, grouped, ordered and written. Property tests and `headwater verify` compare the two byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schemas::model::Predicate;
use headwater_schemas::model::definition::{
    Aggregate, Cardinality, Compute, Expression, JoinColumn, Node, ReadModel, Relation,
};
use headwater_schemas::{
    DecimalSum, RowBuilder, RowRef, TableId, TableSchema, ValueRef, key, write_json_string, write_json_value,
};

use crate::expression::{Formula, decimal_text};

/// Tables in memory: each with its schema and its rows, as (primary key in the form of [`key`], cells).
pub type NaiveTables = BTreeMap<TableId, (TableSchema, Vec<(Vec<u8>, Vec<u8>)>)>;

/// What the documents of a model should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NaiveDocuments {
    /// Bytes of each document, by root key.
    pub bodies: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Index entries of each document, sorted, without duplicates: (number of the index, value as key).
    pub entries: BTreeMap<Vec<u8>, Vec<(u16, Vec<u8>)>>,
    /// Roots whose document cannot be built, and why.
    pub poisoned: BTreeMap<Vec<u8>, String>,
}

/// Evaluates every document of `model`. Tables and columns that the model names but `tables` does not have are empty and
/// null.
pub fn evaluate(model: &ReadModel, tables: &NaiveTables) -> NaiveDocuments {
    evaluate_roots(model, tables, None)
}

/// Evaluates the documents of some roots only, where `roots` are given.
pub fn evaluate_roots(model: &ReadModel, tables: &NaiveTables, roots: Option<&BTreeSet<Vec<u8>>>) -> NaiveDocuments {
    let database = Database::new(tables);
    let mut out = NaiveDocuments::default();
    for row in database.rows(&model.root.table) {
        if roots.is_some_and(|roots| !roots.contains(row.key)) {
            continue;
        }
        let filter = model.root.filter.as_ref();
        let whole = row.knows(filter, [], Some(&model.node));
        match whole.and_then(|()| row.passes(filter).then(|| database.object(&model.node, row)).transpose()) {
            Ok(None) => {}
            Ok(Some(tree)) => {
                let mut body = Vec::new();
                tree.write(&mut body);
                let mut entries = BTreeSet::new();
                for (number, index) in (0u16..).zip(&model.indexes) {
                    tree.collect(&index.path, number, &mut entries);
                }
                out.bodies.insert(row.key.to_vec(), body);
                out.entries.insert(row.key.to_vec(), entries.into_iter().collect());
            }
            Err(cause) => {
                out.poisoned.insert(row.key.to_vec(), cause);
            }
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Row<'t> {
    schema: &'t TableSchema,
    key: &'t [u8],
    cells: RowRef<'t>,
}

impl<'t> Row<'t> {
    fn cell(&self, column: &str) -> ValueRef<'t> {
        self.schema.column_index(column).map_or(ValueRef::Null, |at| self.cells.cell(at))
    }

    fn passes(&self, filter: Option<&Predicate>) -> bool {
        filter.is_none_or(|filter| filter.matches(&mut |column: &String| self.cell(column)))
    }

    /// Whether the row has everything that a document needs of it, whatever comes of it: what the filter looks at, the
    /// columns of the relation that leads to it, and what its object and the relations from there use.
    fn knows<'m>(
        &self,
        filter: Option<&'m Predicate>,
        relation: impl IntoIterator<Item = &'m String>,
        node: Option<&'m Node>,
    ) -> Result<(), String> {
        if self.cells.is_whole() {
            return Ok(());
        }
        let mut needed: BTreeSet<String> = relation.into_iter().cloned().collect();
        needed.extend(filter.into_iter().flat_map(Predicate::names).cloned());
        if let Some(node) = node {
            for relation in &node.relations {
                let on = relation.through.as_ref().map_or(&relation.on, |through| &through.on);
                needed.extend(on.iter().map(|pair| pair.parent.clone()));
            }
            for field in &node.fields {
                Formula::new(&field.expression, self.schema, &mut |column| {
                    needed.insert(column.to_string());
                    Ok::<_, String>(())
                })?;
            }
        }
        match needed.iter().find(|column| self.cell(column) == ValueRef::Missing) {
            Some(column) => Err(format!("a row of {} is without `{column}`", self.schema.table)),
            None => Ok(()),
        }
    }

    fn value(&self, name: &str, expression: &Expression) -> Result<Cell, String> {
        let formula = Formula::new(expression, self.schema, &mut |column| Ok::<_, String>(column.to_string()))?;
        let value = formula.evaluate(&|column: &String| self.cell(column));
        value.map(|value| Cell::new(value.get())).map_err(|to| format!("`{name}` cannot be cast to {to}"))
    }
}

/// Rows by table, and found by the values of some columns.
struct Database<'t> {
    tables: &'t NaiveTables,
    found: std::cell::RefCell<BTreeMap<(TableId, Vec<String>), Lookup>>,
}

/// Numbers of rows by the key of some columns' values.
type Lookup = BTreeMap<Vec<u8>, Vec<usize>>;

impl<'t> Database<'t> {
    fn new(tables: &'t NaiveTables) -> Self {
        Self { tables, found: Default::default() }
    }

    fn rows(&self, table: &TableId) -> Vec<Row<'t>> {
        let Some((schema, rows)) = self.tables.get(table) else { return Vec::new() };
        rows.iter().map(|(key, cells)| Row { schema, key, cells: RowRef(cells) }).collect()
    }

    /// Rows of `table` whose child columns equal the parent's; null equals nothing.
    fn joined(&self, parent: Row<'t>, table: &TableId, on: &[JoinColumn]) -> Vec<Row<'t>> {
        let columns: Vec<String> = on.iter().map(|pair| pair.child.clone()).collect();
        let mut found = self.found.borrow_mut();
        let lookup = found.entry((table.clone(), columns.clone())).or_insert_with(|| {
            let mut lookup = Lookup::new();
            for (at, row) in self.rows(table).into_iter().enumerate() {
                if let Some(key) = all_keys(columns.iter().map(|column| row.cell(column))) {
                    lookup.entry(key).or_default().push(at);
                }
            }
            lookup
        });
        let Some(wanted) = all_keys(on.iter().map(|pair| parent.cell(&pair.parent))) else { return Vec::new() };
        let Some((schema, rows)) = self.tables.get(table) else { return Vec::new() };
        let numbers = lookup.get(&wanted).into_iter().flatten();
        numbers.map(|at| Row { schema, key: &rows[*at].0, cells: RowRef(&rows[*at].1) }).collect()
    }

    /// The nested rows of a relation in the document's order, before the limit.
    fn nested(&self, parent: Row<'t>, relation: &Relation) -> Result<Vec<Row<'t>>, String> {
        let mut rows = match &relation.through {
            None => self.joined(parent, &relation.table, &relation.on),
            Some(through) => {
                let mut links = self.joined(parent, &through.table, &through.on);
                for link in &links {
                    let on = through.on.iter().map(|pair| &pair.child);
                    let on = on.chain(relation.on.iter().map(|pair| &pair.parent));
                    link.knows(through.filter.as_ref(), on, None)?;
                }
                links.retain(|link| link.passes(through.filter.as_ref()));
                links.into_iter().flat_map(|link| self.joined(link, &relation.table, &relation.on)).collect()
            }
        };
        for row in &rows {
            let columns = relation.on.iter().map(|pair| &pair.child);
            let columns = columns.chain(relation.order.iter().map(|by| &by.column));
            row.knows(relation.filter.as_ref(), columns, Some(&relation.node))?;
        }
        rows.retain(|row| row.passes(relation.filter.as_ref()));
        rows.sort_by(|a, b| a.key.cmp(b.key));
        rows.dedup_by(|a, b| a.key == b.key);
        rows.sort_by(|a, b| {
            let criteria = relation.order.iter().map(|by| {
                let order = a.cell(&by.column).compare(&b.cell(&by.column));
                if by.descending { order.reverse() } else { order }
            });
            criteria.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        if relation.cardinality == Cardinality::One {
            rows.truncate(1);
        }
        Ok(rows)
    }

    fn object(&self, node: &Node, row: Row<'t>) -> Result<Tree, String> {
        let mut members = Vec::new();
        for field in &node.fields {
            members.push((field.name.clone(), Tree::Value(row.value(&field.name, &field.expression)?)));
        }
        for relation in &node.relations {
            let mut rows = self.nested(row, relation)?;
            rows.truncate(relation.limit.map_or(usize::MAX, |limit| limit as usize));
            let mut objects = Vec::new();
            for nested in rows {
                objects.push(self.object(&relation.node, nested)?);
            }
            let tree = match relation.cardinality {
                Cardinality::Many => Tree::Array(objects),
                Cardinality::One => objects.pop().unwrap_or(Tree::Value(Cell::new(ValueRef::Null))),
            };
            members.push((relation.name.clone(), tree));
        }
        for compute in &node.computes {
            members.push((compute.name.clone(), Tree::Value(self.compute(node, row, compute)?)));
        }
        Ok(Tree::Object(members))
    }

    fn compute(&self, node: &Node, row: Row<'t>, compute: &Compute) -> Result<Cell, String> {
        // Every way down the path: the rows met on it, one a level.
        let mut ways: Vec<Vec<Row<'t>>> = vec![vec![row]];
        let mut nodes = vec![node];
        for name in &compute.relations {
            let here = nodes.last().expect("begins with one");
            let relation = here.relations.iter().find(|it| it.name == *name).ok_or("no such relation")?;
            let mut longer = Vec::new();
            for way in ways {
                for next in self.nested(*way.last().expect("begins with one"), relation)? {
                    longer.push(way.iter().copied().chain([next]).collect());
                }
            }
            ways = longer;
            nodes.push(&relation.node);
        }
        let value_at = |way: &[Row<'t>], level: usize, name: &str| -> Result<Cell, String> {
            let field = nodes[level].fields.iter().find(|field| field.name == name).ok_or("no such field")?;
            way[level].value(name, &field.expression)
        };
        let mut values = Vec::new();
        for way in &ways {
            if let Some(filter) = &compute.filter {
                let mut named = BTreeMap::new();
                for path in filter.names() {
                    let level = path.split('.').count() - 1;
                    let name = path.rsplit('.').next().unwrap_or(path);
                    named.insert(path.as_str(), value_at(way, level, name)?);
                }
                if !filter.matches(&mut |path: &String| named[path.as_str()].get()) {
                    continue;
                }
            }
            values.push(match &compute.field {
                Some(name) => value_at(way, nodes.len() - 1, name)?,
                None => Cell::new(ValueRef::Bool(true)),
            });
        }
        values.retain(|value| !value.get().is_null());
        match compute.function {
            Aggregate::Count => Ok(Cell::new(ValueRef::Int(values.len() as i64))),
            Aggregate::Exists => Ok(Cell::new(ValueRef::Bool(!values.is_empty()))),
            Aggregate::Min | Aggregate::Max => {
                let mut best: Option<Cell> = None;
                for value in values {
                    let better = best.as_ref().is_none_or(|best| {
                        let order = value.get().compare(&best.get());
                        if compute.function == Aggregate::Min { order.is_lt() } else { order.is_gt() }
                    });
                    if better {
                        best = Some(value);
                    }
                }
                Ok(best.unwrap_or(Cell::new(ValueRef::Null)))
            }
            Aggregate::Sum | Aggregate::Avg => {
                let mut sum = DecimalSum::default();
                for value in values {
                    let number = match value.get() {
                        ValueRef::Decimal(text) => Some(text.to_string()),
                        other => decimal_text(other),
                    };
                    let added = number.map(|text| sum.add_decimal(&text));
                    added.and_then(Result::ok).ok_or_else(|| format!("`{}` adds up no number", compute.name))?;
                }
                Ok(match (compute.function, sum.average()) {
                    (Aggregate::Sum, _) => Cell::new(ValueRef::Decimal(&sum.to_text())),
                    (_, Some(average)) => Cell::new(ValueRef::Decimal(&average)),
                    (_, None) => Cell::new(ValueRef::Null),
                })
            }
        }
    }
}

/// One value of any type that owns what it holds: a row of one cell.
#[derive(Clone)]
struct Cell(Vec<u8>);

impl Cell {
    fn new(value: ValueRef<'_>) -> Self {
        let mut bytes = Vec::new();
        RowBuilder::new(&mut bytes).push(value);
        Self(bytes)
    }

    fn get(&self) -> ValueRef<'_> {
        RowRef(&self.0).cell(0)
    }
}

fn all_keys<'v>(values: impl Iterator<Item = ValueRef<'v>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for value in values {
        if value.is_null() {
            return None;
        }
        key::write(&mut out, value);
    }
    Some(out)
}

/// A document as a tree.
enum Tree {
    Value(Cell),
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
}

impl Tree {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) => write_json_value(out, value.get()),
            Self::Object(members) => {
                for (at, (name, tree)) in members.iter().enumerate() {
                    out.push(if at == 0 { b'{' } else { b',' });
                    write_json_string(out, name);
                    out.push(b':');
                    tree.write(out);
                }
                if members.is_empty() {
                    out.push(b'{');
                }
                out.push(b'}');
            }
            Self::Array(items) => {
                out.push(b'[');
                for (at, tree) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    tree.write(out);
                }
                out.push(b']');
            }
        }
    }

    /// Index entries under a path: every element of an array, null where an object is not there.
    fn collect(&self, path: &[String], number: u16, entries: &mut BTreeSet<(u16, Vec<u8>)>) {
        match self {
            Self::Array(items) => items.iter().for_each(|tree| tree.collect(path, number, entries)),
            Self::Object(members) => {
                let Some((name, rest)) = path.split_first() else { return };
                let member = members.iter().find(|(member, _)| member == name);
                if let Some((_, tree)) = member {
                    tree.collect(rest, number, entries);
                }
            }
            Self::Value(value) => {
                entries.insert((number, key::of(value.get())));
            }
        }
    }
}
