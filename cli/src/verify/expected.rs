//! What should be there: the tables in one snapshot, and the documents by the naive evaluator.

use std::collections::{BTreeMap, BTreeSet};

use headwater_connectors::postgres;
use headwater_projector::model_shape;
use headwater_projector::naive::{self, NaiveTables};
use headwater_schemas::model::definition::{Expression, ReadModel};
use headwater_schemas::{RowRef, TableId, TableSchema, write_json_value};
use serde_json::Value;

use super::VerifyOptions;
use super::compare::{Body, Seen};
use crate::failure::Failure;

/// The documents of a model as they should be at a snapshot of each source.
pub(super) struct Expected {
    /// Commit position of the snapshot, by source.
    pub(super) positions: BTreeMap<String, u64>,
    /// Roots whose document cannot be built.
    pub(super) poisoned: u64,
    /// Rows of the model's tables that were left out because their key cannot be represented: what they would have changed
    /// in the documents is not known.
    pub(super) unrepresentable: u64,
    bodies: BTreeMap<String, Vec<u8>>,
    poisoned_ids: BTreeSet<String>,
    /// Names of the fields that hold the root's key, where the documents show all of it.
    key_fields: Option<Vec<String>>,
}

impl Expected {
    /// Reads and evaluates; where `only` is given, those roots alone.
    pub(super) async fn read(
        model: &ReadModel,
        options: &VerifyOptions,
        only: Option<&BTreeSet<String>>,
    ) -> Result<Self, Failure> {
        let mut positions = BTreeMap::new();
        let mut tables = NaiveTables::new();
        let mut unrepresentable = 0;
        for config in &options.connectors {
            let wanted: Vec<TableId> =
                model.tables().into_iter().filter(|table| *table.source == *config.source).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let read = postgres::read_tables(config, &wanted).await.map_err(|error| {
                Failure::caused(format_args!("cannot read the tables of `{}`", config.source), &error).with_status(2)
            })?;
            positions.insert(config.source.clone(), read.position.commit);
            unrepresentable += read.unrepresentable;
            for (schema, rows) in read.tables {
                tables.insert(schema.table.clone(), (schema, rows));
            }
        }
        let schemas = tables.iter().map(|(table, (schema, _))| (table.clone(), schema.clone())).collect();
        model_shape(model, &schemas).map_err(|error| {
            Failure::new(format_args!("{error}; change the model's definition, or give the table back what it had"))
                .with_status(2)
        })?;
        let ids = ids_by_key(model, &tables);
        let roots = only.map(|only| {
            ids.iter().filter(|(_, id)| only.contains(*id)).map(|(key, _)| key.clone()).collect::<BTreeSet<_>>()
        });
        let documents = naive::evaluate_roots(model, &tables, roots.as_ref());
        let named = |key: &[u8]| ids.get(key).cloned().unwrap_or_default();
        let poisoned_ids: BTreeSet<String> = documents.poisoned.keys().map(|key| named(key)).collect();
        Ok(Self {
            positions,
            poisoned: poisoned_ids.len() as u64,
            unrepresentable,
            bodies: documents.bodies.into_iter().map(|(key, body)| (named(&key), body)).collect(),
            poisoned_ids,
            key_fields: key_fields(model),
        })
    }

    /// Ids of all documents, or of about `sample` of them, evenly spread.
    pub(super) fn ids(&self, sample: Option<u64>) -> BTreeSet<String> {
        let all = self.bodies.len();
        let wanted = sample.and_then(|n| usize::try_from(n).ok()).unwrap_or(all).clamp(1, all.max(1));
        self.bodies.keys().step_by(all.div_ceil(wanted).max(1)).cloned().collect()
    }

    /// The document that should be there.
    pub(super) fn body(&self, id: &str) -> Body {
        self.bodies.get(id).cloned()
    }

    pub(super) fn is_poisoned(&self, id: &str) -> bool {
        self.poisoned_ids.contains(id)
    }

    /// Whether a document shows which root it is of.
    pub(super) fn shows_keys(&self) -> bool {
        self.key_fields.is_some()
    }

    /// Documents of a whole list that are neither as they should be nor known from looking at single ones.
    pub(super) fn unknown<'l>(&self, listed: &'l [Vec<u8>], seen: &Seen) -> Vec<&'l [u8]> {
        let seen: BTreeSet<&Vec<u8>> = seen.values().flatten().flatten().collect();
        let known: BTreeSet<&Vec<u8>> = self.bodies.values().collect();
        let mut unknown = Vec::new();
        for body in listed.iter().filter(|body| !known.contains(body) && !seen.contains(body)) {
            // A document that changed between being looked at and being listed has an id that is compared already.
            if self.key_fields.is_none() || !self.bodies.contains_key(&self.id_of(body)) {
                unknown.push(body.as_slice());
            }
        }
        unknown
    }

    /// The id of a document, if it shows its key; otherwise its beginning.
    pub(super) fn id_of(&self, body: &[u8]) -> String {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let parts = self
            .key_fields
            .as_ref()
            .and_then(|names| names.iter().map(|name| part_text(json.get(name)?)).collect::<Option<Vec<String>>>());
        match parts {
            Some(parts) => parts.join("~"),
            None => String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned(),
        }
    }
}

/// Id of every root, by its key.
fn ids_by_key(model: &ReadModel, tables: &NaiveTables) -> BTreeMap<Vec<u8>, String> {
    let Some((schema, rows)) = tables.get(&model.root.table) else { return BTreeMap::new() };
    rows.iter().map(|(key, cells)| (key.clone(), id_of_row(model, schema, RowRef(cells)))).collect()
}

fn id_of_row(model: &ReadModel, schema: &TableSchema, row: RowRef<'_>) -> String {
    let parts = model.root.key.iter().map(|column| {
        let mut json = Vec::new();
        if let Some(at) = schema.column_index(column) {
            write_json_value(&mut json, row.cell(at));
        }
        part_text(&serde_json::from_slice(&json).unwrap_or_default()).unwrap_or_default()
    });
    parts.collect::<Vec<String>>().join("~")
}

/// One part of an id as readers write it.
fn part_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
        other => other.to_string(),
    };
    Some(text.replace('%', "%25").replace('~', "%7E"))
}

/// The fields that show the columns of the root's key as they are.
fn key_fields(model: &ReadModel) -> Option<Vec<String>> {
    let shows = |column: &String| {
        let field = model.node.fields.iter().find(|field| field.expression == Expression::Column(column.clone()))?;
        Some(field.name.clone())
    };
    model.root.key.iter().map(shows).collect()
}
