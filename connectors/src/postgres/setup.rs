//! From a configuration to tables that can be captured: publication, tables, their keys.

use std::collections::BTreeMap;

use super::catalog::{self, CatalogTable, Publication, Published, Server, quote};
use super::connect::Sql;
use super::refusals::{missing_table, narrow, not_published, unfit};
use super::types::Types;
use crate::{ConnectorConfig, Error, Refusal};

/// What is captured, and what is not and why.
pub(crate) struct Tables {
    pub(crate) captured: Vec<(CatalogTable, Published)>,
    pub(crate) refused: BTreeMap<String, Refusal>,
    pub(crate) types: Types,
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
/// itself; above all it is not published, because publishing a table without a key makes the application's own updates
/// of it fail.
pub(crate) async fn prepare(config: &ConnectorConfig, sql: &Sql, server: &Server) -> Result<Tables, Error> {
    let name = config.postgres.publication_name(&config.source);
    let mut publication = catalog::publication(sql, server, &name).await?;
    let mut types = Types::default();
    let named: Vec<(&str, &str)> = if config.postgres.tables.is_empty() {
        let publication = publication.as_ref().ok_or_else(|| missing_publication(&name))?;
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
    let mut good = Vec::new();
    for table in found {
        match unfit(&table, config) {
            Some(refusal) => {
                refused.insert(table.name(), refusal);
            }
            None => good.push(table),
        }
    }
    if config.postgres.publishes() {
        publish(sql, &name, publication.as_ref(), &good).await?;
        publication = catalog::publication(sql, server, &name).await?;
    }
    let publication = publication.ok_or_else(|| missing_publication(&name))?;
    if !publication.left_out.is_empty() {
        return Err(Error::NotReady {
            problem: format!("publication `{name}` leaves out {}", publication.left_out.join(", ")),
            remedy: format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')", quote(&name)),
        });
    }
    let mut captured = Vec::new();
    for mut table in good {
        let published = publication.tables.get(&(table.schema.clone(), table.table.clone())).cloned();
        let published = published.ok_or_else(|| not_published(&name, &publication, &table));
        match published.and_then(|published| narrow(&mut table, &published, &name).map(|()| published)) {
            Ok(published) => captured.push((table, published)),
            Err(refusal) => {
                refused.insert(table.name(), refusal);
            }
        }
    }
    Ok(Tables { captured, refused, types })
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
    let publication = catalog::publication(sql, server, &name).await?.ok_or_else(|| missing_publication(&name))?;
    let names = tables.captured.iter().map(|(table, _)| (table.schema.as_str(), table.table.as_str()));
    let seen = catalog::tables(sql, &mut tables.types, &catalog::named(names)).await?;
    let mut captured = Vec::new();
    for (known, before) in std::mem::take(&mut tables.captured) {
        let table = seen.iter().find(|table| table.name() == known.name() && table.key().is_ok());
        let published = publication.tables.get(&(known.schema.clone(), known.table.clone()));
        let sent = table.cloned().zip(published).and_then(|(mut table, published)| {
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

/// Makes or completes the publication.
async fn publish(
    sql: &Sql,
    name: &str,
    publication: Option<&Publication>,
    tables: &[CatalogTable],
) -> Result<(), Error> {
    // Not those that inherit from it: the application could not update one that has no key.
    let list = |tables: &[&CatalogTable]| tables.iter().map(|t| t.quoted_alone()).collect::<Vec<_>>().join(", ");
    match publication {
        None => {
            let all: Vec<&CatalogTable> = tables.iter().collect();
            let for_tables = if all.is_empty() { String::new() } else { format!("FOR TABLE {}", list(&all)) };
            let command =
                format!("CREATE PUBLICATION {} {for_tables} WITH (publish_via_partition_root = true)", quote(name));
            tracing::info!(publication = name, tables = all.len(), "creating the publication");
            sql.execute("create the publication", &command).await
        }
        Some(publication) => {
            let lacking: Vec<&CatalogTable> = tables
                .iter()
                .filter(|table| !publication.tables.contains_key(&(table.schema.clone(), table.table.clone())))
                .filter(|table| table.kind != "p" || publication.via_root)
                .collect();
            if lacking.is_empty() || publication.all_tables {
                return Ok(());
            }
            tracing::info!(publication = name, tables = lacking.len(), "adding tables to the publication");
            let command = format!("ALTER PUBLICATION {} ADD TABLE {}", quote(name), list(&lacking));
            sql.execute("add tables to the publication", &command).await
        }
    }
}

pub(crate) fn missing_publication(name: &str) -> Error {
    Error::NotReady {
        problem: format!("publication `{name}` does not exist"),
        remedy: format!(
            "CREATE PUBLICATION {} FOR TABLE … WITH (publish_via_partition_root = true), or set `create_publication: true` \
             and name the `tables`",
            quote(name)
        ),
    }
}
