//! Looking before starting: do the sources have the tables and columns that connectors and read models name?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_connectors::postgres;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{Diagnostic, TableId, TableSchema};
use headwater_store::{VersionRecord, VersionState};

use crate::config::{Configuration, ConnectorFile, ModelFile, check_columns, check_tables};
use crate::failure::chain;

/// A source that does not answer by then is looked at when it does: capture tries for ever, and the projector checks each
/// model against the tables that come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The tables that are captured, as the sources have them now, and which sources did not answer.
#[derive(Debug, Default)]
pub(crate) struct Catalogs {
    /// Captured tables.
    pub(crate) tables: BTreeMap<TableId, TableSchema>,
    /// Tables that the sources have beside those.
    pub(crate) others: BTreeSet<TableId>,
    /// Configured tables that are not there.
    pub(crate) missing: Vec<(TableId, Diagnostic)>,
    /// Sources that did not answer, and why.
    pub(crate) silent: Vec<(String, String)>,
}

impl Catalogs {
    /// Asks every source.
    pub(crate) async fn ask(connectors: &[ConnectorFile]) -> Self {
        let mut out = Self::default();
        for file in connectors {
            let config = &file.config;
            let found = match tokio::time::timeout(PATIENCE, postgres::discover(config)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    out.silent.push((config.source.clone(), chain(&error)));
                    continue;
                }
                Err(_) => {
                    out.silent.push((config.source.clone(), format!("no answer within {} s", PATIENCE.as_secs())));
                    continue;
                }
            };
            out.missing.extend(check_tables(file, &found));
            let all = config.postgres.tables.is_empty();
            let is_captured = |table: &TableId| {
                all || config.postgres.table_names().any(|name| name == (&*table.schema, &*table.table))
            };
            let (captured, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|schema| is_captured(&schema.table));
            out.tables.extend(captured.into_iter().map(|schema| (schema.table.clone(), schema)));
            out.others.extend(others.into_iter().map(|schema| schema.table));
        }
        out
    }

    /// What the models name and the sources do not have.
    pub(crate) fn check(&self, models: &[ModelFile]) -> Vec<Diagnostic> {
        models.iter().flat_map(|file| check_columns(file, &self.tables, &self.others)).collect()
    }
}

/// What the sources lack of what is configured, as far as they answer; the others are only warned of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preflight {
    /// Configured tables that are not there, and the topics they would have.
    tables: Vec<(TableId, Diagnostic)>,
    /// Models that do not find what they name.
    models: Vec<Lacking>,
}

/// A model, and what the sources lack of what it names.
#[derive(Clone, Debug)]
struct Lacking {
    model: ReadModel,
    wrong: Vec<Diagnostic>,
    /// Tables that are not captured, if those are all there is.
    uncaptured: Vec<TableId>,
}

impl Preflight {
    /// Asks every source.
    pub(crate) async fn of(configuration: &Configuration) -> Self {
        let catalogs = Catalogs::ask(&configuration.connectors).await;
        for (source, why) in &catalogs.silent {
            tracing::warn!(%source, %why, "the source does not answer yet; models are checked when it does");
        }
        let models = configuration.models.iter().map(|file| {
            let wrong = check_columns(file, &catalogs.tables, &catalogs.others);
            let named = file.model.tables().into_iter();
            let mut uncaptured: Vec<TableId> =
                named.filter(|table| !catalogs.tables.contains_key(*table)).cloned().collect();
            // Of each of these one thing is said.
            if uncaptured.len() != wrong.len() {
                uncaptured.clear();
            }
            Lacking { model: file.model.clone(), wrong, uncaptured }
        });
        Self { tables: catalogs.missing, models: models.filter(|lacking| !lacking.wrong.is_empty()).collect() }
    }

    /// What must not start. A table that was captured before, and a definition that is served, may have been left behind by
    /// a change of the database: what is there is served on, and everything else goes on, as it did before this start. A
    /// table that was captured may also have been taken out for one start, so that it is read again.
    pub(crate) fn refused(&self, known: &Known<'_>) -> Vec<Diagnostic> {
        let mut refused = Vec::new();
        for (table, missing) in &self.tables {
            match known.topics.contains(&table.topic(known.prefix)) {
                true => tracing::error!("a table is gone; everything else goes on\n{missing}"),
                false => refused.push(missing.clone()),
            }
        }
        let Some(versions) = known.versions else {
            // Models are for those who project.
            return refused;
        };
        let versions = || versions.iter().filter(|version| version.state == VersionState::Active);
        for Lacking { model, wrong, uncaptured } in &self.models {
            let is_served = |version: &VersionRecord| {
                version.model == model.name && model.is_definition_of(&version.definition_hash)
            };
            let was_captured = |table: &TableId| known.topics.contains(&table.topic(known.prefix));
            let taken_out = !uncaptured.is_empty() && uncaptured.iter().all(was_captured);
            match taken_out || versions().any(is_served) {
                true => wrong.iter().for_each(|wrong| {
                    tracing::error!(
                        "a model does not fit its tables any more; its documents stay as they are\n{wrong}"
                    );
                }),
                false => refused.extend(wrong.iter().cloned()),
            }
        }
        refused
    }
}

/// What earlier runs left.
pub(crate) struct Known<'e> {
    /// Begins the name of every topic.
    pub(crate) prefix: &'e str,
    /// Topics of the log.
    pub(crate) topics: BTreeSet<String>,
    /// Versions of models; `None` where this process does not project.
    pub(crate) versions: Option<&'e [VersionRecord]>,
}
