//! A read model, compiled against the tables it reads: which columns are needed, and by which way rows are found from
//! their parents (*descent*) and parents from their rows (*ascent*).

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schemas::model::definition::{
    Aggregate, Cardinality, Compute, Expression, JoinColumn, Node, ReadModel, Relation,
};
use headwater_schemas::model::{ModelShape, Predicate};
use headwater_schemas::{RowRef, TableId, TableSchema, ValueRef, nearest, write_json_string};
use headwater_store::{JoinIndex, SchemaId};

use crate::Error;
use crate::columns::Columns;
use crate::expression::Formula;
use crate::shape;

/// The current schema of each table.
pub(crate) type Tables = BTreeMap<TableId, Arc<TableSchema>>;

/// A compiled model. Nodes are numbered by level: parents come before their children.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: String,
    pub(crate) nodes: Vec<PlanNode>,
    pub(crate) shape: ModelShape,
}

/// One level of the document.
#[derive(Clone, Debug)]
pub(crate) struct PlanNode {
    /// Names of the relations from the root, with points between; empty for the root.
    pub(crate) path: String,
    pub(crate) columns: Columns,
    pub(crate) filter: Option<Predicate<usize>>,
    pub(crate) order: Vec<(usize, bool)>,
    pub(crate) limit: Option<usize>,
    pub(crate) one: bool,
    pub(crate) fields: Vec<PlanField>,
    /// Numbers of the nested nodes, in declared order.
    pub(crate) children: Vec<usize>,
    pub(crate) computes: Vec<PlanCompute>,
    /// `None` for the root.
    pub(crate) edge: Option<Edge>,
    /// Whether rows beyond the limit matter, because something is computed over them.
    pub(crate) counted: bool,
}

/// How a node hangs on its parent.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) parent: usize,
    /// `,"name":` without the comma.
    pub(crate) member: Vec<u8>,
    /// From the parent (or the join table) to this node.
    pub(crate) hop: Hop,
    pub(crate) through: Option<Bridge>,
}

/// A join table.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) columns: Columns,
    pub(crate) filter: Option<Predicate<usize>>,
    /// From the parent to the join table.
    pub(crate) hop: Hop,
}

/// One join, to be walked both ways.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// Finds the further rows.
    pub(crate) down: Access,
    /// Slots of the nearer row that make up the key for `down`.
    pub(crate) down_slots: Vec<usize>,
    /// Finds the nearer rows.
    pub(crate) up: Access,
    /// Slots of the further row that make up the key for `up`.
    pub(crate) up_slots: Vec<usize>,
}

/// How rows are found by the values of some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// They are the primary key.
    Key(TableId),
    /// By a join index.
    Index(JoinIndex),
}

/// One scalar member.
#[derive(Clone, Debug)]
pub(crate) struct PlanField {
    pub(crate) name: String,
    /// `"name":`
    pub(crate) member: Vec<u8>,
    pub(crate) formula: Formula<usize>,
    pub(crate) indexes: Vec<u16>,
}

/// One computed member.
#[derive(Clone, Debug)]
pub(crate) struct PlanCompute {
    pub(crate) name: String,
    pub(crate) member: Vec<u8>,
    pub(crate) function: Aggregate,
    /// Nodes along the path, at least one.
    pub(crate) path: Vec<usize>,
    pub(crate) field: Option<Formula<usize>>,
    /// Names are (place in `path`, number of the formula in `filter_fields`).
    pub(crate) filter: Option<Predicate<(usize, usize)>>,
    pub(crate) filter_fields: Vec<Formula<usize>>,
    pub(crate) indexes: Vec<u16>,
}

/// What the documents of a model look like over these tables, which must hold every table the model reads. Fails as the
/// projector would: for what the model names and the tables do not have.
pub fn model_shape(model: &ReadModel, tables: &BTreeMap<TableId, TableSchema>) -> Result<ModelShape, Error> {
    let tables = tables.iter().map(|(table, schema)| (table.clone(), Arc::new(schema.clone()))).collect();
    Plan::new(model, &tables).map(|plan| plan.shape)
}

impl Plan {
    /// Compiles a model; every table must be in `tables`.
    pub(crate) fn new(model: &ReadModel, tables: &Tables) -> Result<Self, Error> {
        // First the nodes: what the model names and the tables do not have is told there.
        let mut planner = Planner { model, tables, nodes: Vec::new() };
        planner.root()?;
        let nodes = planner.nodes;
        let shape = shape::of(model, tables)?;
        Ok(Self { model: model.name.clone(), nodes, shape })
    }

    /// Learns how rows of a schema are read.
    pub(crate) fn learn(&mut self, id: SchemaId, schema: &TableSchema) {
        for node in &mut self.nodes {
            node.columns.learn(id, schema);
            if let Some(bridge) = node.edge.as_mut().and_then(|edge| edge.through.as_mut()) {
                bridge.columns.learn(id, schema);
            }
        }
    }

    /// Whether a row of the root table should have a document, also where it cannot be built. `cells` are emptied first.
    pub(crate) fn wants<'r>(&self, schema: SchemaId, row: RowRef<'r>, cells: &mut Vec<ValueRef<'r>>) -> bool {
        let root = &self.nodes[0];
        cells.clear();
        root.columns.read(schema, row, cells);
        let passes = |filter: &Predicate<usize>| filter.matches(&mut |slot: &usize| cells[*slot]);
        root.columns.is_torn(schema, cells) || root.filter.as_ref().is_none_or(passes)
    }

    pub(crate) fn root_table(&self) -> &TableId {
        &self.nodes[0].columns.table
    }

    /// Every join index that is walked, each once.
    pub(crate) fn join_indexes(&self) -> Vec<JoinIndex> {
        let mut out: Vec<JoinIndex> = Vec::new();
        let edges = self.nodes.iter().filter_map(|node| node.edge.as_ref());
        let hops = edges.flat_map(|edge| [Some(&edge.hop), edge.through.as_ref().map(|bridge| &bridge.hop)]);
        for access in hops.flatten().flat_map(|hop| [&hop.down, &hop.up]) {
            if let Access::Index(index) = access
                && !out.contains(index)
            {
                out.push(index.clone());
            }
        }
        out
    }
}

struct Planner<'m> {
    model: &'m ReadModel,
    tables: &'m Tables,
    nodes: Vec<PlanNode>,
}

impl<'m> Planner<'m> {
    fn root(&mut self) -> Result<(), Error> {
        let root = &self.model.root;
        let schema = &self.tables[&root.table];
        let actual = key_names(schema);
        if actual.is_empty() {
            return Err(Error::NoKey { model: self.model.name.clone(), table: root.table.to_string() });
        }
        if !actual.iter().map(|name| &**name).eq(root.key.iter().map(String::as_str)) {
            for column in &root.key {
                self.check(&root.table, column)?;
            }
            return Err(Error::RootKey {
                model: self.model.name.clone(),
                table: root.table.to_string(),
                declared: root.key.join(", "),
                actual: actual.join(", "),
            });
        }
        let mut node = PlanNode::new(String::new(), root.table.clone());
        node.filter = self.predicate("root", &mut node.columns, root.filter.as_ref())?;
        self.nodes.push(node);
        // Breadth first: a node's number is greater than those of all nodes above it.
        let mut queue = std::collections::VecDeque::from([(0usize, &self.model.node)]);
        while let Some((at, declared)) = queue.pop_front() {
            self.fields(at, declared)?;
            for relation in &declared.relations {
                let child = self.relation(at, relation)?;
                self.nodes[at].children.push(child);
                queue.push_back((child, &relation.node));
            }
        }
        let mut pending = vec![(0usize, &self.model.node)];
        while let Some((at, declared)) = pending.pop() {
            for compute in &declared.computes {
                let compiled = self.compute(at, declared, compute)?;
                for node in &compiled.path {
                    self.nodes[*node].counted = true;
                }
                self.nodes[at].computes.push(compiled);
            }
            pending.extend(self.nodes[at].children.iter().copied().zip(declared.relations.iter().map(|r| &r.node)));
        }
        Ok(())
    }

    fn fields(&mut self, at: usize, declared: &Node) -> Result<(), Error> {
        for field in &declared.fields {
            let formula = self.formula(at, &field.expression)?;
            let indexes = self.indexes(at, &field.name);
            let node = &mut self.nodes[at];
            node.fields.push(PlanField { name: field.name.clone(), member: member(&field.name), formula, indexes });
        }
        Ok(())
    }

    fn relation(&mut self, parent: usize, relation: &'m Relation) -> Result<usize, Error> {
        let path = joined(&self.nodes[parent].path, &relation.name);
        let mut node = PlanNode::new(path, relation.table.clone());
        if key_names(&self.tables[&relation.table]).is_empty() {
            return Err(Error::NoKey { model: self.model.name.clone(), table: relation.table.to_string() });
        }
        node.filter = self.predicate(&node.path, &mut node.columns, relation.filter.as_ref())?;
        for by in &relation.order {
            self.check(&relation.table, &by.column)?;
            node.order.push((node.columns.slot(&by.column), by.descending));
        }
        node.one = relation.cardinality == Cardinality::One;
        node.limit = relation.limit.map(|limit| limit as usize);
        let mut parent_columns =
            std::mem::replace(&mut self.nodes[parent].columns, Columns::new(relation.table.clone()));
        let edge = match &relation.through {
            None => self.hop(&node.path, &relation.on, &mut parent_columns, &mut node.columns).map(|hop| Edge {
                parent,
                member: member(&relation.name),
                hop,
                through: None,
            }),
            Some(through) => {
                let mut columns = Columns::new(through.table.clone());
                let filter = self.predicate(&node.path, &mut columns, through.filter.as_ref());
                let first = self.hop(&node.path, &through.on, &mut parent_columns, &mut columns);
                let second = self.hop(&node.path, &relation.on, &mut columns, &mut node.columns);
                filter.and_then(|filter| {
                    let bridge = Bridge { filter, hop: first?, columns };
                    Ok(Edge { parent, member: member(&relation.name), hop: second?, through: Some(bridge) })
                })
            }
        };
        self.nodes[parent].columns = parent_columns;
        node.edge = Some(edge?);
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn hop(&self, path: &str, on: &[JoinColumn], near: &mut Columns, far: &mut Columns) -> Result<Hop, Error> {
        for pair in on {
            let child = self.check(&far.table, &pair.child)?;
            let parent = self.check(&near.table, &pair.parent)?;
            if !shape::comparable(child, parent) {
                return Err(Error::JoinTypes {
                    model: self.model.name.clone(),
                    relation: path.into(),
                    child: format!("{}.{}", far.table, pair.child),
                    parent: format!("{}.{}", near.table, pair.parent),
                });
            }
        }
        let (down, order) = self.access(&far.table, on.iter().map(|pair| pair.child.as_str()).collect());
        let down_slots = order.into_iter().map(|at| near.slot(&on[at].parent)).collect();
        let (up, order) = self.access(&near.table, on.iter().map(|pair| pair.parent.as_str()).collect());
        let up_slots = order.into_iter().map(|at| far.slot(&on[at].child)).collect();
        Ok(Hop { down, down_slots, up, up_slots })
    }

    /// How rows of `table` are found by `columns`, and in which order the key is made of them.
    fn access(&self, table: &TableId, columns: Vec<&str>) -> (Access, Vec<usize>) {
        let key = key_names(&self.tables[table]);
        let by_key: Option<Vec<usize>> =
            key.iter().map(|name| columns.iter().position(|column| *column == &**name)).collect();
        match by_key {
            Some(order) if order.len() == columns.len() => (Access::Key(table.clone()), order),
            _ => {
                // In the order of names, so that models which join on the same columns share the index.
                let mut order: Vec<usize> = (0..columns.len()).collect();
                order.sort_by_key(|at| columns[*at]);
                let columns = order.iter().map(|at| columns[*at].to_string()).collect();
                (Access::Index(JoinIndex { table: table.clone(), columns }), order)
            }
        }
    }

    fn compute(&mut self, at: usize, declared: &'m Node, compute: &Compute) -> Result<PlanCompute, Error> {
        let unknown = |path: &str| Error::UnknownPath {
            model: self.model.name.clone(),
            path: joined(&self.nodes[at].path, path),
        };
        let mut path = Vec::with_capacity(compute.relations.len());
        let mut levels = Vec::with_capacity(compute.relations.len());
        let (mut number, mut node) = (at, declared);
        for name in &compute.relations {
            let place =
                node.relations.iter().position(|relation| relation.name == *name).ok_or_else(|| unknown(name))?;
            number = self.nodes[number].children[place];
            node = &node.relations[place].node;
            path.push(number);
            levels.push(node);
        }
        let expression_at = |level: usize, name: &str| -> Result<&'m Expression, Error> {
            let field =
                levels.get(level).and_then(|node: &&'m Node| node.fields.iter().find(|field| field.name == name));
            field.map(|field| &field.expression).ok_or_else(|| unknown(name))
        };
        let over =
            compute.field.as_deref().map(|name| expression_at(levels.len().wrapping_sub(1), name)).transpose()?;
        let mut wanted: Vec<(usize, &'m Expression)> = Vec::new();
        let filter = match &compute.filter {
            None => None,
            Some(filter) => Some(filter.rename(&mut |name: &String| {
                let mut names: Vec<&str> = name.split('.').collect();
                let field = names.pop().unwrap_or_default();
                let on_path = names.iter().zip(&compute.relations).all(|(a, b)| a == b);
                let level = names.len().checked_sub(1).filter(|_| on_path).ok_or_else(|| unknown(name))?;
                wanted.push((level, expression_at(level, field)?));
                Ok::<_, Error>((level, wanted.len() - 1))
            })?),
        };
        let field = over.map(|expression| self.formula(number, expression)).transpose()?;
        let comparisons = compute.filter.as_ref().map(Predicate::comparisons).unwrap_or_default();
        for ((level, of), (_, operator, literals)) in wanted.iter().zip(comparisons) {
            self.nodes[path[*level]].columns.compare((*of).clone(), operator, literals);
        }
        let filter_fields =
            wanted.into_iter().map(|(level, of)| self.formula(path[level], of)).collect::<Result<_, _>>()?;
        let indexes = self.indexes(at, &compute.name);
        Ok(PlanCompute {
            name: compute.name.clone(),
            member: member(&compute.name),
            function: compute.function,
            path,
            field,
            filter,
            filter_fields,
            indexes,
        })
    }

    fn formula(&mut self, at: usize, expression: &Expression) -> Result<Formula<usize>, Error> {
        let table = self.nodes[at].columns.table.clone();
        let mut columns = std::mem::replace(&mut self.nodes[at].columns, Columns::new(table.clone()));
        let schema = &self.tables[&table];
        let formula =
            Formula::new(expression, schema, &mut |name| self.check(&table, name).map(|_| columns.slot(name)));
        self.nodes[at].columns = columns;
        formula
    }

    /// Compiles the condition of the root or of a relation, `place`, over the rows of a table.
    fn predicate(
        &self,
        place: &str,
        columns: &mut Columns,
        predicate: Option<&Predicate>,
    ) -> Result<Option<Predicate<usize>>, Error> {
        let table = columns.table.clone();
        for (name, operator, literals) in predicate.map(Predicate::comparisons).unwrap_or_default() {
            let kind = self.check(&table, name)?;
            let schema = &self.tables[&table];
            let called = schema.column_index(name).map_or("?", |at| &*schema.columns[at].source_type);
            shape::fits(&self.model.name, place, &format!("{table}.{name}"), (kind, called), operator, literals)?;
            columns.compare(Expression::Column(name.clone()), operator, literals);
        }
        predicate
            .map(|it| it.rename(&mut |name: &String| self.check(&table, name).map(|_| columns.slot(name))))
            .transpose()
    }

    fn check(&self, table: &TableId, column: &str) -> Result<&'m headwater_schemas::ColumnType, Error> {
        column_type(&self.model.name, &self.tables[table], column)
    }

    fn indexes(&self, at: usize, name: &str) -> Vec<u16> {
        let path = joined(&self.nodes[at].path, name);
        let matching = self.model.indexes.iter().enumerate().filter(|(_, index)| index.name() == path);
        matching.map(|(at, _)| u16::try_from(at).expect("a model declares fewer indexes than 65,536")).collect()
    }
}

impl PlanNode {
    fn new(path: String, table: TableId) -> Self {
        Self {
            path,
            columns: Columns::new(table),
            filter: None,
            order: Vec::new(),
            limit: None,
            one: false,
            fields: Vec::new(),
            children: Vec::new(),
            computes: Vec::new(),
            edge: None,
            counted: false,
        }
    }
}

/// Type of a column, or the error that names the nearest one.
pub(crate) fn column_type<'t>(
    model: &str,
    schema: &'t TableSchema,
    column: &str,
) -> Result<&'t headwater_schemas::ColumnType, Error> {
    match schema.column_index(column) {
        Some(at) => Ok(&schema.columns[at].kind),
        None => Err(Error::UnknownColumn {
            model: model.into(),
            table: schema.table.to_string(),
            column: column.into(),
            hint: match nearest(column, schema.columns.iter().map(|column| &*column.name)) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => {
                    let names: Vec<&str> = schema.columns.iter().map(|column| &*column.name).collect();
                    format!("; it has {}", names.join(", "))
                }
            },
        }),
    }
}

fn key_names(schema: &TableSchema) -> Vec<Arc<str>> {
    schema.key_columns().into_iter().map(|at| schema.columns[at].name.clone()).collect()
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

fn member(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 3);
    write_json_string(&mut out, name);
    out.push(b':');
    out
}

#[cfg(test)]
mod tests {
    use headwater_schemas::model::{ParseContext, parse};
    use headwater_schemas::{Column, ColumnType};

    use super::*;

    /// Three tables of the same columns: `id`, `up`, `b` of a type.
    fn shape(yaml: &str, kind: &ColumnType, source_type: &str) -> Result<ModelShape, Error> {
        let model = parse("m.yaml", yaml, &ParseContext::default()).expect("a sound model");
        let column = |name: &str, kind: &ColumnType, source_type: &str, key_ordinal| Column {
            name: name.into(),
            kind: kind.clone(),
            source_type: source_type.into(),
            key_ordinal,
        };
        let columns = vec![
            column("id", &ColumnType::Int64, "bigint", Some(0)),
            column("up", &ColumnType::Int64, "bigint", None),
            column("b", kind, source_type, None),
        ];
        let schema = |table: &str| {
            let table = TableId::new("s", "public", table);
            (table.clone(), TableSchema { table, columns: columns.clone() })
        };
        model_shape(&model, &["a", "c", "l"].map(schema).into())
    }

    #[test]
    fn a_condition_that_its_column_cannot_meet_is_refused_with_its_place() {
        let on_root = "root: { table: s.a, key: id, where: { b: true } }\nfields: [id]\n";
        let on_nest = "root: { table: s.a, key: id }\nfields: [id]\n\
                       nest: { c: { many: s.c, on: { up: id }, where: { not: { b: { ne: true } } }, fields: [id] } }\n";
        let on_link = "root: { table: s.a, key: id }\nfields: [id]\n\
                       nest: { c: { many: s.c, on: { id: up }, fields: [id], \
                       through: { table: s.l, on: { id: id }, where: { b: true } } } }\n";
        for (yaml, place) in [(on_root, "root"), (on_nest, "c"), (on_link, "c")] {
            let yaml = format!("model: m\n{yaml}");
            shape(&yaml, &ColumnType::Bool, "boolean").expect("a boolean is compared with one");
            let refused = shape(&yaml, &ColumnType::Int64, "bigint").expect_err("a number is not");
            assert!(matches!(&refused, Error::NeverCompared { place: at, .. } if at == place), "{refused}");
        }
    }
}
