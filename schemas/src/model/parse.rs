//! The YAML of a read model, into its definition: every mistake is reported with its place, its line and, for a
//! mistyped name, the nearest correct one.

mod compute;
mod expression;
mod node;
mod predicate;
mod reader;

use std::collections::BTreeMap;

pub(super) use self::compute::aggregate_words;
pub(super) use self::expression::cast_words;
use self::reader::Reader;
use super::definition::{Index, ReadModel, Root};
use crate::yaml::{Place, Yaml};
use crate::{Diagnostic, TableId};

/// Deepest nesting of relations.
pub(super) const DEPTH_MAX: usize = 16;

/// Names the query API serves other things under.
pub(super) const RESERVED: [&str; 4] = ["schema", "openapi", "graphql", "me"];

/// What names mean outside the file.
#[derive(Clone, Debug, Default)]
pub struct ParseContext {
    /// Configured sources, with the schema that is meant where a table is named as `source.table`. When there are none
    /// every source is accepted, with the default schema `public`.
    pub sources: BTreeMap<String, String>,
}

/// Reads a read model. `file` is only named in diagnostics.
///
/// Names are checked against one another; columns are not checked, since only the source knows them.
///
/// # Errors
///
/// Everything that is wrong, in the order of the file.
///
/// ```
/// use headwater_schemas::model::{ParseContext, parse};
///
/// let yaml = "
/// model: customer
/// root: { table: billing.customers, key: id }
/// fields: [id, { name: full_name }]
/// indexes: [naem]
/// ";
/// let wrong = parse("customer.yaml", yaml, &ParseContext::default()).expect_err("two mistakes");
/// assert_eq!(wrong[0].line, 4);
/// assert_eq!(wrong[0].message, "a field in a list is a column's name");
/// ```
pub fn parse(file: &str, yaml: &str, context: &ParseContext) -> Result<ReadModel, Vec<Diagnostic>> {
    let mut reader = Reader::new(file, yaml, context);
    let model = match crate::yaml::parse(yaml) {
        Ok((root, duplicates)) => {
            for duplicate in duplicates {
                reader.error(duplicate.place, duplicate.message);
            }
            reader.model(&root)
        }
        Err(problem) => {
            reader.error(problem.place, problem.message);
            return Err(reader.finish());
        }
    };
    let diagnostics = reader.finish();
    if diagnostics.is_empty() { Ok(model) } else { Err(diagnostics) }
}

// Every function below returns something whether or not it found mistakes, so that the rest of the file is checked too;
// what it returned is thrown away when there was any diagnostic.
impl Reader<'_> {
    fn model(&mut self, yaml: &Yaml) -> ReadModel {
        const KEYS: &[&str] =
            &["model", "version", "doc", "root", "fields", "nest", "compute", "indexes", "dead_letters_percent_max"];
        let members = self.mapping(yaml, "a read model", KEYS);
        let name = match members.required(self, "model") {
            Some(yaml) => self.model_name(yaml),
            None => String::new(),
        };
        let version = match members.get("version") {
            Some(yaml) => self.positive(yaml, "a version"),
            None => 1,
        };
        let root = match members.required(self, "root") {
            Some(yaml) => self.root(yaml),
            None => Root { table: TableId::new("", "", ""), key: Vec::new(), filter: None },
        };
        let doc = members.get("doc").map(|yaml| self.text(yaml));
        let node = self.node(&members, 0);
        let dead_letters_percent_max = members.get("dead_letters_percent_max").map(|yaml| self.percent(yaml));
        let mut model = ReadModel { name, version, doc, root, node, indexes: Vec::new(), dead_letters_percent_max };
        for yaml in members.get("indexes").map(|yaml| self.items(yaml, "paths")).unwrap_or_default() {
            let name = self.text(yaml);
            let index = Index { path: name.split('.').map(Into::into).collect() };
            if model.indexes.contains(&index) {
                self.error(yaml.place, format!("index `{name}` is declared twice"));
            }
            self.check_index(&model.node, &index, yaml.place);
            model.indexes.push(index);
        }
        model
    }

    fn model_name(&mut self, yaml: &Yaml) -> String {
        let name = self.text(yaml);
        let mut letters = name.bytes();
        let valid = letters.next().is_some_and(|b| b.is_ascii_lowercase())
            && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !valid {
            let message = format!("`{name}` cannot name a model");
            self.error_help(yaml.place, message, "use a lower-case letter, then lower-case letters, digits and `_`");
        } else if RESERVED.contains(&name.as_str()) {
            let message = format!("`{name}` is reserved: the query API serves something else there");
            self.error_help(yaml.place, message, format!("use another name, for example `{name}_view`"));
        }
        name
    }

    fn root(&mut self, yaml: &Yaml) -> Root {
        let members = self.mapping(yaml, "root", &["table", "key", "where"]);
        let table = match members.required(self, "table") {
            Some(yaml) => self.table(yaml),
            None => TableId::new("", "", ""),
        };
        let mut key: Vec<String> = Vec::new();
        if let Some(yaml) = members.required(self, "key") {
            for item in self.one_or_more(yaml) {
                let column = self.text(item);
                if key.contains(&column) {
                    self.error(item.place, format!("key column `{column}` stands twice"));
                }
                key.push(column);
            }
            if key.is_empty() {
                self.error_help(yaml.place, "a root needs a key", "name the columns of the table's primary key");
            }
        }
        let filter = members.get("where").map(|yaml| self.predicate(yaml, &mut |reader, yaml| reader.column(yaml)));
        Root { table, key, filter }
    }

    fn table(&mut self, yaml: &Yaml) -> TableId {
        let text = self.text(yaml);
        let parts: Vec<&str> = text.split('.').collect();
        let (source, schema, table) = match parts[..] {
            [source, table] => (source, None, table),
            [source, schema, table] => (source, Some(schema), table),
            _ => ("", None, ""),
        };
        if parts.iter().any(|part| part.is_empty()) || table.is_empty() {
            let message = format!("`{text}` does not name a table");
            self.error_help(yaml.place, message, "write `source.table` or `source.schema.table`");
            return TableId::new("", "", "");
        }
        let sources = &self.context.sources;
        let default = match sources.get(source) {
            Some(schema) => schema.as_str(),
            None if sources.is_empty() => "public",
            None => {
                let near = crate::nearest(source, sources.keys().map(String::as_str));
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        format!("configured sources: {}", sources.keys().cloned().collect::<Vec<_>>().join(", "))
                    }
                };
                self.error_help(yaml.place, format!("there is no source `{source}`"), help);
                "public"
            }
        };
        TableId::new(source, schema.unwrap_or(default), table)
    }

    fn column(&mut self, name: (&str, Place)) -> String {
        if name.0.is_empty() {
            self.error(name.1, "a column's name is empty");
        }
        name.0.to_string()
    }
}

#[cfg(test)]
mod tests;
