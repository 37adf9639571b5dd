//! Connectors and read models held against the tables of the sources: every table and column they name must be there, and
//! of a type that documents can be made of.

use std::collections::BTreeMap;

use headwater_projector::{Error, model_shape};
use headwater_schemas::model::definition::{Expression, JoinColumn, Node, ReadModel, Relation};
use headwater_schemas::model::{Literal, Operator, Predicate};
use headwater_schemas::{Column, Diagnostic, TableId, TableSchema, nearest};

use super::{ConnectorFile, DEFAULT_SCHEMA, ModelFile, Source};

/// A model's mention of a table, or of a column of it.
#[derive(Clone, Debug)]
struct Mention<'m> {
    table: &'m TableId,
    column: Option<&'m str>,
    /// Name of the relation it is mentioned in, or `root`.
    place: &'m str,
    /// What the column is compared with.
    compared: Option<(Operator, &'m [Literal])>,
}

/// Configured tables that `found`, all tables of the source, does not have.
pub(crate) fn check_tables(file: &ConnectorFile, found: &[TableSchema]) -> Vec<(TableId, Diagnostic)> {
    let is_there = |schema: &str, table: &str| {
        found.iter().any(|known| *known.table.schema == *schema && *known.table.table == *table)
    };
    let missing = file.config.postgres.table_names().filter(|(schema, table)| !is_there(schema, table));
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
            let missing = place(&file.file, &file.text, "tables", table).diagnostic(message, help);
            (TableId::new(file.config.source.as_str(), schema, table), missing)
        })
        .collect()
}

/// What a model names and the sources do not have, or else why it can never be built, each with its place in the model's
/// file. `known` are the tables that are captured. Tables of sources that `known` has none of are passed over: nothing is
/// known about those.
pub(crate) fn check_columns(file: &ModelFile, known: &BTreeMap<TableId, TableSchema>) -> Vec<Diagnostic> {
    let mut out: Vec<Diagnostic> = Vec::new();
    for mention in mentions(&file.model) {
        let problem = match known.get(mention.table) {
            None => table_missing(mention.table, known),
            Some(schema) => mention.column.and_then(|column| match schema.column_index(column) {
                None => Some(column_missing(schema, column)),
                Some(at) => never_compared(schema, &schema.columns[at], mention.compared?),
            }),
        };
        if let Some((word, message, help)) = problem
            && !out.iter().any(|other| other.message == message)
        {
            out.push(place(&file.file, &file.text, mention.place, &word).diagnostic(message, Some(help)));
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
            out.push(place(&file.file, &file.text, "root", "key").diagnostic(message, Some(help)));
        }
    }
    if out.is_empty() {
        out.extend(check_types(file, known));
    }
    out
}

/// Why the projector can never build a model whose columns are all there: it joins or compares what never is equal, adds
/// up what is no number, casts what has no form in the wanted type, or reads a table without a key. Nothing is said while
/// a table is not known.
fn check_types(file: &ModelFile, known: &BTreeMap<TableId, TableSchema>) -> Option<Diagnostic> {
    let schema = |table: &TableId| Some((table.clone(), known.get(table)?.clone()));
    let tables: BTreeMap<_, _> = file.model.tables().into_iter().map(schema).collect::<Option<_>>()?;
    let error = model_shape(&file.model, &tables).err()?;
    let path: &str = match &error {
        Error::JoinTypes { relation, .. } => relation,
        Error::NotANumber { compute: place, .. } | Error::NeverCompared { place, .. } => place,
        Error::ImpossibleCast { field, .. } => field,
        _ => "root",
    };
    let mut names = path.split('.');
    let first = names.next().unwrap_or(path);
    let last = names.next_back().unwrap_or(first);
    Some(place(&file.file, &file.text, first, last).diagnostic(error.to_string(), None))
}

fn column_missing(schema: &TableSchema, column: &str) -> (String, String, String) {
    let names: Vec<&str> = schema.columns.iter().map(|column| &*column.name).collect();
    let help = match nearest(column, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", names.join(", ")),
    };
    (column.to_string(), format!("the table {} has no column `{column}`", schema.table), help)
}

/// A condition that holds for no row, or for every one, whatever it has in the column.
fn never_compared(
    schema: &TableSchema,
    column: &Column,
    (operator, literals): (Operator, &[Literal]),
) -> Option<(String, String, String)> {
    let literal = operator.unfit(&column.kind, literals)?;
    let (name, word) = (&column.name, operator.word());
    let message = format!(
        "`{name}` of the table {} is of the type {} and cannot be compared with {literal} (`{word}`)",
        schema.table, column.source_type
    );
    let help = "write what the database writes: 1 for true in a column of numbers, '2026-01-31' for a day".to_string();
    Some((name.to_string(), message, help))
}

fn table_missing(table: &TableId, known: &BTreeMap<TableId, TableSchema>) -> Option<(String, String, String)> {
    let of_source = || known.keys().filter(|known| known.source == table.source);
    of_source().next()?;
    let help = match of_source().find(|known| known.table == table.table) {
        Some(other) => format!("there is one in another schema: `{other}`"),
        None => match nearest(&table.table, of_source().map(|known| &*known.table)) {
            Some(near) => format!("did you mean `{}.{near}`?", table.source),
            None => format!("add it to `tables` of the connector `{}` if the database has it", table.source),
        },
    };
    let shown = match &*table.schema {
        DEFAULT_SCHEMA => table.table.to_string(),
        schema => format!("{schema}.{}", table.table),
    };
    Some((table.table.to_string(), format!("the source `{}` captures no table `{shown}`", table.source), help))
}

fn mentions(model: &ReadModel) -> Vec<Mention<'_>> {
    let mut out = Mentions(Vec::new());
    let root = &model.root;
    out.columns(&root.table, "root", root.key.iter());
    out.predicate(&root.table, "root", root.filter.as_ref());
    out.node(&root.table, &model.node, "fields");
    out.0
}

struct Mentions<'m>(Vec<Mention<'m>>);

impl<'m> Mentions<'m> {
    fn node(&mut self, table: &'m TableId, node: &'m Node, place: &'m str) {
        for field in &node.fields {
            let mut columns = Vec::new();
            expression_columns(&field.expression, &mut columns);
            self.columns(table, place, columns.into_iter());
        }
        for relation in &node.relations {
            self.relation(table, relation);
        }
    }

    fn relation(&mut self, parent: &'m TableId, relation: &'m Relation) {
        fn child(join: &JoinColumn) -> &String {
            &join.child
        }
        fn near(join: &JoinColumn) -> &String {
            &join.parent
        }
        let Relation { name, table, on, through, filter, order, node, .. } = relation;
        self.columns(table, name, on.iter().map(child));
        match through {
            None => self.columns(parent, name, on.iter().map(near)),
            Some(through) => {
                self.columns(&through.table, name, through.on.iter().map(child).chain(on.iter().map(near)));
                self.columns(parent, name, through.on.iter().map(near));
                self.predicate(&through.table, name, through.filter.as_ref());
            }
        }
        self.predicate(table, name, filter.as_ref());
        self.columns(table, name, order.iter().map(|by| &by.column));
        self.node(table, node, name);
    }

    fn predicate(&mut self, table: &'m TableId, place: &'m str, predicate: Option<&'m Predicate>) {
        for (column, operator, literals) in predicate.map(Predicate::comparisons).unwrap_or_default() {
            self.0.push(Mention { table, column: Some(column), place, compared: Some((operator, literals)) });
        }
    }

    fn columns(&mut self, table: &'m TableId, place: &'m str, columns: impl Iterator<Item = &'m String>) {
        self.0.push(Mention { table, column: None, place, compared: None });
        self.0.extend(columns.map(|column| Mention { table, column: Some(column), place, compared: None }));
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

/// A place in a file.
struct Place<'a> {
    source: Source<'a>,
    line: usize,
    column: usize,
}

impl Place<'_> {
    fn diagnostic(&self, message: String, help: Option<String>) -> Diagnostic {
        self.source.diagnostic(self.line, self.column, message, help)
    }
}

/// Where `word` stands behind `after`, or anywhere, or else `after` itself.
fn place<'a>(file: &'a str, text: &'a str, after: &str, word: &str) -> Place<'a> {
    let start = find_word(text, after, 0).unwrap_or(0);
    let at = find_word(text, word, start).or_else(|| find_word(text, word, 0)).unwrap_or(start);
    let line = 1 + text[..at].matches('\n').count();
    let column = 1 + text[..at].rsplit('\n').next().unwrap_or_default().chars().count();
    Place { source: Source { name: file, text }, line, column }
}

/// Where `word` stands by itself at or after `start`, outside comments.
fn find_word(text: &str, word: &str, start: usize) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text[start..].match_indices(word).map(|(at, _)| start + at).find(|&at| {
        let before = &text[..at];
        let line = before.rsplit('\n').next().unwrap_or_default();
        !line.contains('#')
            && !before.chars().next_back().is_some_and(part)
            && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}
