//! From a configuration to tables that can be captured: publication, tables, their keys.

use std::collections::BTreeMap;

use super::catalog::{self, CatalogTable, Server, quote};
use super::checkpoint::Checkpoint;
use super::connect::Sql;
use super::publication::{self, Entries, Published};
use super::refusals::{departed, missing_table, narrow, not_published, sift, without_topic};
use super::types::Types;
use crate::{ConnectorConfig, Error, Refusal, Routes};

/// What is captured, and what is not and why.
pub(crate) struct Tables {
    pub(crate) captured: Vec<(CatalogTable, Published)>,
    pub(crate) refused: BTreeMap<String, Refusal>,
    pub(crate) types: Types,
    /// See [`publication::Publication::written`].
    pub(crate) publication_written: u32,
    pub(crate) publication_entries: Entries,
}

/// The oldest version with all that capture needs.
pub(crate) const VERSION_MIN: u32 = 140_000;

/// Refuses a server that cannot be captured from.
pub(crate) fn check_server(server: &Server) -> Result<(), Error> {
    let not_ready = |problem: String, remedy: &str| Err(Error::NotReady { problem, remedy: remedy.into() });
    if server.version < VERSION_MIN {
        let (major, minor) = (server.version / 10_000, server.version % 10_000);
        return not_ready(format!("PostgreSQL {major}.{minor} is too old"), "version 14 or later is needed");
    }
    if server.wal_level != "logical" {
        return not_ready(
            format!("wal_level is `{}`, but capture needs `logical`", server.wal_level),
            "ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL",
        );
    }
    Ok(())
}

/// Finds the configured tables and makes or completes the publication. A table that cannot be captured is refused by
/// itself; above all it is not published: one without a key would make the application's own updates of it fail, and one
/// that cannot be published would keep the others from it.
pub(crate) async fn prepare(
    config: &ConnectorConfig,
    sql: &Sql,
    server: &Server,
    routes: &Routes,
) -> Result<Tables, Error> {
    let name = config.postgres.publication_name(&config.source);
    let mut publication = publication::find(sql, server, &name).await?;
    let mut types = Types::default();
    let named: Vec<(&str, &str)> = if config.postgres.tables.is_empty() {
        let publication = publication.as_ref().ok_or_else(|| publication::missing(&name))?;
        publication.tables.keys().map(|(schema, table)| (schema.as_str(), table.as_str())).collect()
    } else {
        config.postgres.table_names().collect()
    };
    let found = catalog::tables(sql, &mut types, &catalog::named(named.iter().copied())).await?;
    let mut refused = BTreeMap::new();
    for (schema, table) in &named {
        if !found.iter().any(|found| found.schema == *schema && found.table == *table) {
            refused.insert(format!("{schema}.{table}"), missing_table(sql, schema, table).await?);
        }
    }
    let (mut good, unfit) = sift(config, found, publication.as_ref());
    refused.extend(unfit);
    refused.extend(good.iter().filter_map(|table| Some((table.name(), without_topic(config, table, routes)?))));
    good.retain(|table| !refused.contains_key(&table.name()));
    if config.postgres.publishes() {
        publication::publish(sql, &name, publication.as_ref(), &good).await?;
        publication = publication::find(sql, server, &name).await?;
    }
    let publication = publication.ok_or_else(|| publication::missing(&name))?;
    if !publication.left_out.is_empty() {
        return Err(Error::NotReady {
            problem: format!("publication `{name}` leaves out {}", publication.left_out.join(", ")),
            remedy: format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')", quote(&name)),
        });
    }
    let mut captured = Vec::new();
    for mut table in good {
        let published = publication.place_of(&table).cloned();
        let published = published.ok_or_else(|| not_published(&name, &publication, &table));
        match published.and_then(|published| narrow(&mut table, &published, &name).map(|()| published)) {
            Ok(published) => captured.push((table, published)),
            Err(refusal) => {
                refused.insert(table.name(), refusal);
            }
        }
    }
    let (publication_written, publication_entries) = (publication.written, publication.entries);
    Ok(Tables { captured, refused, types, publication_written, publication_entries })
}

/// Refuses the tables of a checkpoint that are there and neither captured nor refused, where the publication alone says what
/// is to be captured: they have left it. Of those that are not there any more nothing is to be done.
pub(crate) async fn refuse_departed(
    config: &ConnectorConfig,
    sql: &Sql,
    checkpoint: &Checkpoint,
    tables: &mut Tables,
) -> Result<(), Error> {
    if !config.postgres.tables.is_empty() {
        return Ok(());
    }
    let publication = config.postgres.publication_name(&config.source);
    let is_known =
        |name: &str| tables.captured.iter().any(|(table, _)| table.name() == name) || tables.refused.contains_key(name);
    let gone = checkpoint.tables.keys().filter(|name| !is_known(name)).filter_map(|name| name.split_once('.'));
    let there = catalog::tables(sql, &mut Types::default(), &catalog::named(gone)).await?;
    let refused = there.iter().map(|table| (table.name(), departed(&publication, table)));
    tables.refused.extend(refused);
    Ok(())
}

/// Reads the captured tables and their publication again as `sql`'s transaction sees them. Where one is gone, unfit or not
/// published there, all is to be looked at anew.
pub(crate) async fn look_again(
    config: &ConnectorConfig,
    sql: &Sql,
    server: &Server,
    tables: &mut Tables,
) -> Result<(), Error> {
    let name = config.postgres.publication_name(&config.source);
    let publication = publication::find(sql, server, &name).await?.ok_or_else(|| publication::missing(&name))?;
    let names = tables.captured.iter().map(|(table, _)| (table.schema.as_str(), table.table.as_str()));
    let seen = catalog::tables(sql, &mut tables.types, &catalog::named(names)).await?;
    let mut captured = Vec::new();
    for (known, before) in std::mem::take(&mut tables.captured) {
        let table = seen.iter().find(|table| table.name() == known.name() && table.key().is_ok());
        let sent = table.cloned().zip(publication.place_of(&known)).and_then(|(mut table, published)| {
            narrow(&mut table, published, &name).ok()?;
            Some((table, published))
        });
        let Some((table, published)) = sent else {
            return Err(Error::NotReady {
                problem: format!("table {} changed while it was about to be read", known.name()),
                remedy: "nothing is to be done: it is looked at anew".into(),
            });
        };
        // Another entry than the one that was compared is for the next comparison.
        captured.push((table, Published { by: before.by, ..published.clone() }));
    }
    tables.captured = captured;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_told() {
        let server = |version, wal_level: &str| Server {
            version,
            wal_level: wal_level.into(),
            encoding: "UTF8".into(),
            in_recovery: false,
        };
        let told = check_server(&server(130_022, "logical")).unwrap_err().to_string();
        assert!(told.contains("PostgreSQL 13.22 is too old") && told.contains("version 14 or later"), "{told}");
        assert!(check_server(&server(140_000, "logical")).is_ok());
        let told = check_server(&server(140_000, "replica")).unwrap_err().to_string();
        assert!(told.contains("ALTER SYSTEM SET wal_level"), "{told}");
    }
}
