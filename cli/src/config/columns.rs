//! Connectors and read models held against the tables of the sources: every table and column they name must be there, and
//! of a type that documents can be made of.

use std::collections::{BTreeMap, BTreeSet};

use headwater_projector::{Error, model_shape};
use headwater_schemas::model::Predicate;
use headwater_schemas::model::definition::{Cardinality, Expression, JoinColumn, Node, ReadModel, Relation};
use headwater_schemas::{Diagnostic, Names, Places, TableId, TableSchema, nearest};

use super::{ConnectorFile, DEFAULT_SCHEMA, ModelFile, Source};

/// A model's mention of a table, or of a column of it.
#[derive(Clone, Debug)]
struct Mention<'m> {
    table: &'m TableId,
    column: Option<&'m str>,
    /// The keys it stands under.
    under: Vec<&'m str>,
    names: Names,
}

/// Configured tables that `found`, all tables of the source, does not have.
pub(crate) fn check_tables(file: &ConnectorFile, found: &[TableSchema]) -> Vec<(TableId, Diagnostic)> {
    let is_there = |schema: &str, table: &str| {
        found.iter().any(|known| *known.table.schema == *schema && *known.table.table == *table)
    };
    let missing = file.config.postgres.table_names().filter(|(schema, table)| !is_there(schema, table));
    let places = Places::of(&file.text);
    missing
        .map(|(schema, table)| {
            let help = match nearest(table, found.iter().map(|known| &*known.table.table)) {
                Some(near) if near == table => Some(match found.iter().find(|known| *known.table.table == *near) {
                    Some(known) => format!("there is one in another schema: `{}.{near}`", known.table.schema),
                    None => "name its schema".to_string(),
                }),
                Some(near) => Some(format!("did you mean `{near}`?")),
                None => Some("create it, or take it out of `tables`".to_string()),
            };
            let message = format!("the database has no table `{schema}.{table}`");
            let full = format!("{schema}.{table}");
            let is_it = |name: &str| name == full || name == table && schema == DEFAULT_SCHEMA;
            let under = ["postgres", "tables"];
            let (line, column) = places.find(&under, Names::Values, is_it).unwrap_or_else(|| places.at(&under));
            let source = Source { name: &file.file, text: &file.text };
            let missing = source.diagnostic(line, column, message, help);
            (TableId::new(file.config.source.as_str(), schema, table), missing)
        })
        .collect()
}

/// What a model names and the sources do not have, or else why it can never be built, each with its place in the model's
/// file. `known` are the tables that are captured, `others` those that the sources have beside them. Tables of sources that
/// `known` has none of are passed over: nothing is known about those.
pub(crate) fn check_columns(
    file: &ModelFile,
    known: &BTreeMap<TableId, TableSchema>,
    others: &BTreeSet<TableId>,
) -> Vec<Diagnostic> {
    let mut out: Vec<Diagnostic> = Vec::new();
    let (places, source) = (Places::of(&file.text), Source { name: &file.file, text: &file.text });
    for Mention { table, column, under, names } in mentions(&file.model) {
        let problem = match (known.get(table), column) {
            (None, _) => table_missing(table, known, others),
            (Some(schema), Some(column)) if schema.column_index(column).is_none() => {
                Some(column_missing(schema, column))
            }
            _ => None,
        };
        if let Some((message, help)) = problem
            && !out.iter().any(|other| other.message == message)
        {
            let descending = |name: &str| name.strip_prefix('-').is_some_and(|name| Some(name) == column);
            // A table stands alone under its key, by whatever name.
            let is_it = |name: &str| column.is_none_or(|column| name == column) || descending(name);
            let (line, at) = places.find(&under, names, is_it).unwrap_or_else(|| places.at(&under));
            out.push(source.diagnostic(line, at, message, Some(help)));
        }
    }
    let root = &file.model.root;
    if let Some(schema) = known.get(&root.table).filter(|_| out.is_empty()) {
        let key: Vec<&str> = schema.key_columns().iter().map(|at| &*schema.columns[*at].name).collect();
        // In order, too: ids are made of it.
        let is_declared = root.key.iter().map(String::as_str).eq(key.iter().copied());
        if !is_declared && !key.is_empty() {
            let message = format!("the key of {} is ({}), not ({})", root.table, key.join(", "), root.key.join(", "));
            let help = format!("write `key: [{}]`", key.join(", "));
            let (line, at) = places.at(&["root", "key"]);
            out.push(source.diagnostic(line, at, message, Some(help)));
        }
    }
    if let Some(error) = never_built(&file.model, known).filter(|_| out.is_empty()) {
        let (line, at) = place_of(&error, &file.model, &places);
        out.push(source.diagnostic(line, at, error.to_string(), None));
    }
    out
}

/// Why the projector can never build a model whose columns are all there: it joins or compares what never is equal, adds
/// up what is no number, casts what has no form in the wanted type, or reads a table without a key. Nothing is said while
/// a table is not known.
fn never_built(model: &ReadModel, known: &BTreeMap<TableId, TableSchema>) -> Option<Error> {
    let schema = |table: &TableId| Some((table.clone(), known.get(table)?.clone()));
    let tables: BTreeMap<_, _> = model.tables().into_iter().map(schema).collect::<Option<_>>()?;
    model_shape(model, &tables).err()
}

/// Line and column of what is wrong in a model.
fn place_of(error: &Error, model: &ReadModel, places: &Places) -> (usize, usize) {
    // Columns come with their table, fields with their path; neither has a dot itself.
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or(name)
    }
    let (path, inside, names, wanted) = match error {
        Error::JoinTypes { relation, child, .. } => (&**relation, Some("on"), Names::Keys, last(child)),
        Error::NeverCompared { place, name, .. } => (&**place, Some("where"), Names::Keys, last(name)),
        Error::NotANumber { compute, field, .. } => (&**compute, None, Names::Values, last(field)),
        Error::ImpossibleCast { field, .. } => return places.at(&path_of(&model.node, field)),
        _ => return places.at(&["root", "table"]),
    };
    let under = if path == "root" { vec!["root"] } else { path_of(&model.node, path) };
    // Of a relation by way of another table, it may be that one's.
    let own = under.iter().copied().chain(inside).collect::<Vec<_>>();
    let between = under.iter().copied().chain(["through"]).chain(inside).collect::<Vec<_>>();
    let found = [own, between].iter().find_map(|under| places.find(under, names, |name| last(name) == wanted));
    found.unwrap_or_else(|| places.at(&under))
}

/// The keys under which the member at a dotted path is declared.
fn path_of<'m>(node: &'m Node, path: &'m str) -> Vec<&'m str> {
    let (mut under, mut node) = (Vec::new(), Some(node));
    for name in path.split('.') {
        let declared = node.map(|node| {
            let is_field = node.fields.iter().any(|field| field.name == name);
            let is_relation = node.relation(name).is_some();
            if is_relation {
                "nest"
            } else if is_field {
                "fields"
            } else {
                "compute"
            }
        });
        under.extend([declared.unwrap_or("nest"), name]);
        node = node.and_then(|node| node.relation(name));
    }
    under
}

fn column_missing(schema: &TableSchema, column: &str) -> (String, String) {
    let names: Vec<&str> = schema.columns.iter().map(|column| &*column.name).collect();
    let help = match nearest(column, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", names.join(", ")),
    };
    (format!("the table {} has no column `{column}`", schema.table), help)
}

fn table_missing(
    table: &TableId,
    known: &BTreeMap<TableId, TableSchema>,
    others: &BTreeSet<TableId>,
) -> Option<(String, String)> {
    let of_source = || known.keys().chain(others).filter(|known| known.source == table.source);
    known.keys().find(|known| known.source == table.source)?;
    let help = match of_source().find(|known| known.table == table.table) {
        Some(other) if other == table => {
            format!("the database has it: add it to `tables` of the connector `{}`", table.source)
        }
        Some(other) => format!("there is one in another schema: `{other}`"),
        None => match nearest(&table.table, of_source().map(|known| &*known.table)) {
            Some(near) => format!("did you mean `{}.{near}`?", table.source),
            None => "the database has none of that name either: create it, or name another one".to_string(),
        },
    };
    let shown = match &*table.schema {
        DEFAULT_SCHEMA => table.table.to_string(),
        schema => format!("{schema}.{}", table.table),
    };
    Some((format!("the source `{}` captures no table `{shown}`", table.source), help))
}

fn mentions(model: &ReadModel) -> Vec<Mention<'_>> {
    let mut out = Mentions(Vec::new());
    let root = &model.root;
    out.table(&root.table, &["root"], "table");
    out.columns(&root.table, &["root"], "key", Names::Values, root.key.iter());
    out.predicate(&root.table, &["root"], root.filter.as_ref());
    out.node(&root.table, &model.node, &[]);
    out.0
}

struct Mentions<'m>(Vec<Mention<'m>>);

impl<'m> Mentions<'m> {
    /// What stands directly under these keys.
    fn node(&mut self, table: &'m TableId, node: &'m Node, under: &[&'m str]) {
        let fields: Vec<&str> = under.iter().copied().chain(["fields"]).collect();
        for field in &node.fields {
            let mut columns = Vec::new();
            expression_columns(&field.expression, &mut columns);
            self.columns(table, &fields, &field.name, Names::Values, columns.into_iter());
        }
        for relation in &node.relations {
            let under: Vec<&str> = under.iter().copied().chain(["nest", &relation.name]).collect();
            self.relation(table, relation, &under);
        }
    }

    fn relation(&mut self, parent: &'m TableId, relation: &'m Relation, under: &[&'m str]) {
        fn child(join: &JoinColumn) -> &String {
            &join.child
        }
        fn near(join: &JoinColumn) -> &String {
            &join.parent
        }
        let Relation { table, cardinality, on, through, filter, order, node, .. } = relation;
        self.table(table, under, if *cardinality == Cardinality::Many { "many" } else { "one" });
        self.columns(table, under, "on", Names::Keys, on.iter().map(child));
        match through {
            None => self.columns(parent, under, "on", Names::Values, on.iter().map(near)),
            Some(through) => {
                let between: Vec<&str> = under.iter().copied().chain(["through"]).collect();
                self.table(&through.table, &between, "table");
                self.columns(&through.table, &between, "on", Names::Keys, through.on.iter().map(child));
                self.columns(&through.table, under, "on", Names::Values, on.iter().map(near));
                self.columns(parent, &between, "on", Names::Values, through.on.iter().map(near));
                self.predicate(&through.table, &between, through.filter.as_ref());
            }
        }
        self.predicate(table, under, filter.as_ref());
        self.columns(table, under, "order", Names::Values, order.iter().map(|by| &by.column));
        self.node(table, node, under);
    }

    fn predicate(&mut self, table: &'m TableId, under: &[&'m str], predicate: Option<&'m Predicate>) {
        let compared = predicate.map(Predicate::comparisons).unwrap_or_default();
        self.columns(table, under, "where", Names::Keys, compared.into_iter().map(|(column, ..)| column));
    }

    fn table(&mut self, table: &'m TableId, under: &[&'m str], key: &'m str) {
        let under = under.iter().copied().chain([key]).collect();
        self.0.push(Mention { table, column: None, under, names: Names::Values });
    }

    fn columns(
        &mut self,
        table: &'m TableId,
        under: &[&'m str],
        key: &'m str,
        names: Names,
        columns: impl Iterator<Item = &'m String>,
    ) {
        let under: Vec<&str> = under.iter().copied().chain([key]).collect();
        self.0.extend(columns.map(|column| Mention { table, column: Some(column), under: under.clone(), names }));
    }
}

fn expression_columns<'e>(expression: &'e Expression, out: &mut Vec<&'e String>) {
    match expression {
        Expression::Column(column) => out.push(column),
        Expression::Constant(_) => {}
        Expression::Concat { parts, .. } | Expression::Coalesce(parts) => {
            parts.iter().for_each(|part| expression_columns(part, out));
        }
        Expression::Cast { of, .. } => expression_columns(of, out),
    }
}
