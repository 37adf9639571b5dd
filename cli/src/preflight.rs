//! Looking before starting: do the sources have the tables and columns that connectors and read models name?

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_connectors::postgres;
use headwater_schemas::{Diagnostic, TableId, TableSchema};

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
    /// Configured tables that are not there.
    pub(crate) diagnostics: Vec<Diagnostic>,
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
            out.diagnostics.extend(check_tables(file, &found));
            let all = config.postgres.tables.is_empty();
            let is_captured = |table: &TableId| {
                all || config.postgres.table_names().any(|name| name == (&*table.schema, &*table.table))
            };
            let captured = found.into_iter().filter(|schema| is_captured(&schema.table));
            out.tables.extend(captured.map(|schema| (schema.table.clone(), schema)));
        }
        out
    }

    /// What the models name and the sources do not have.
    pub(crate) fn check(&self, models: &[ModelFile]) -> Vec<Diagnostic> {
        models.iter().flat_map(|file| check_columns(file, &self.tables)).collect()
    }
}

/// Everything that is wrong as far as the sources answer; the others are only warned of.
pub(crate) async fn preflight(configuration: &Configuration) -> Vec<Diagnostic> {
    let catalogs = Catalogs::ask(&configuration.connectors).await;
    for (source, why) in &catalogs.silent {
        tracing::warn!(%source, %why, "the source does not answer yet; models are checked when it does");
    }
    let mut diagnostics = catalogs.diagnostics.clone();
    diagnostics.extend(catalogs.check(&configuration.models));
    diagnostics
}
