//! Why a table cannot be captured: each is refused by itself, and the others run on.

use std::collections::BTreeMap;

use headwater_schemas::{TableId, nearest};

use super::catalog::{CatalogTable, quote};
use super::connect::Sql;
use super::publication::{Publication, Published};
use crate::{ConnectorConfig, Error, Refusal, Routes};

/// Tells the tables that can be captured from those that cannot, by name, before anything is published.
pub(crate) fn sift(
    config: &ConnectorConfig,
    found: Vec<CatalogTable>,
    publication: Option<&Publication>,
) -> (Vec<CatalogTable>, BTreeMap<String, Refusal>) {
    let (mut fit, mut refused) = (Vec::new(), BTreeMap::new());
    for table in found {
        match unfit(config, &table).or_else(|| not_ours(config, &table, publication)) {
            Some(refusal) => {
                refused.insert(table.name(), refusal);
            }
            None => fit.push(table),
        }
    }
    let hidden = |table: &CatalogTable| Some((table.name(), within_another(config, table, &fit, publication)?));
    let within: BTreeMap<String, Refusal> = fit.iter().filter_map(hidden).collect();
    fit.retain(|table| !within.contains_key(&table.name()));
    refused.extend(within);
    (fit, refused)
}

fn unfit(config: &ConnectorConfig, table: &CatalogTable) -> Option<Refusal> {
    if !table.readable {
        return Some(Refusal {
            problem: format!("user `{}` may not read {}", config.postgres.user, table.name()),
            remedy: format!(
                "GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT ON {} TO {user}",
                quote(&table.schema),
                table.quoted(),
                user = quote(&config.postgres.user)
            ),
        });
    }
    if table.row_security {
        return Some(Refusal {
            problem: format!("row-level security hides rows of {} from user `{}`", table.name(), config.postgres.user),
            remedy: format!("ALTER ROLE {} BYPASSRLS", quote(&config.postgres.user)),
        });
    }
    if table.has_heirs {
        return Some(Refusal {
            problem: format!(
                "other tables inherit from {}, and their changes come under their own names",
                table.name()
            ),
            remedy: "make it a partitioned table, or capture the tables that inherit from it instead".into(),
        });
    }
    if !table.publishable {
        return Some(Refusal {
            problem: format!("changes of {} are not in the log: it is UNLOGGED, or of the system", table.name()),
            remedy: format!("ALTER TABLE {} SET LOGGED, or take it out of `tables`", table.quoted()),
        });
    }
    if let Some(part) = table.partitions.iter().find(|part| !part.logged) {
        return Some(Refusal {
            problem: format!(
                "changes of {}, a partition of {}, are not in the log: it is UNLOGGED",
                part.quoted,
                table.name()
            ),
            remedy: format!("ALTER TABLE {} SET LOGGED", part.quoted),
        });
    }
    table.key().err()
}

/// Whether a table is about to be added to the publication, or published by a new one.
fn is_to_be_published(config: &ConnectorConfig, table: &CatalogTable, publication: Option<&Publication>) -> bool {
    config.postgres.publishes() && publication.is_none_or(|publication| publication.can_take(table))
}

/// Refuses a table that would have to be published and that others own.
fn not_ours(config: &ConnectorConfig, table: &CatalogTable, publication: Option<&Publication>) -> Option<Refusal> {
    if table.owned || !is_to_be_published(config, table, publication) {
        return None;
    }
    Some(Refusal {
        problem: format!("user `{}` may not publish {}, since it does not own it", config.postgres.user, table.name()),
        remedy: format!(
            "as a superuser: ALTER PUBLICATION {} ADD TABLE {}",
            quote(&config.postgres.publication_name(&config.source)),
            table.quoted()
        ),
    })
}

/// Refuses a table for which the log can have no topic.
pub(crate) fn without_topic(config: &ConnectorConfig, table: &CatalogTable, routes: &Routes) -> Option<Refusal> {
    let id = TableId::new(config.source.as_str(), table.schema.as_str(), table.table.as_str());
    let why = routes.refuses(&id)?;
    Some(Refusal {
        problem: format!("the broker can have no topic for {}: {why}", table.name()),
        remedy: format!("ALTER TABLE {} RENAME TO …, or take it out of `tables`", table.quoted()),
    })
}

/// Refuses a partition whose changes come under the name of a table above it.
fn within_another(
    config: &ConnectorConfig,
    table: &CatalogTable,
    fit: &[CatalogTable],
    publication: Option<&Publication>,
) -> Option<Refusal> {
    if publication.is_some_and(|publication| !publication.via_root) {
        return None;
    }
    let (schema, name) = table.ancestors.iter().find(|above| {
        publication.is_some_and(|publication| publication.tables.contains_key(*above))
            || fit.iter().any(|other| {
                (&other.schema, &other.table) == (&above.0, &above.1) && is_to_be_published(config, other, publication)
            })
    })?;
    Some(Refusal {
        problem: format!("changes of {} come under the name of {schema}.{name}, whose partition it is", table.name()),
        remedy: format!("name `{schema}.{name}` in `tables`, and not its partitions"),
    })
}

/// Leaves of a table's columns what its publication sends; a refusal where that is not its whole key.
pub(crate) fn narrow(table: &mut CatalogTable, published: &Published, publication: &str) -> Result<(), Refusal> {
    let Some(sent) = &published.columns else { return Ok(()) };
    if let Some(column) = table.key()?.iter().find(|name| !sent.contains(name)) {
        return Err(Refusal {
            problem: format!(
                "the column list of publication `{publication}` leaves out column `{column}` of the key of {}",
                table.name()
            ),
            remedy: format!(
                "list it, too: ALTER PUBLICATION {publication} DROP TABLE {table}; ALTER PUBLICATION {publication} ADD TABLE \
                 {table} (…)",
                publication = quote(publication),
                table = table.quoted()
            ),
        });
    }
    table.columns.retain(|column| sent.contains(&column.name));
    Ok(())
}

pub(crate) fn not_published(name: &str, publication: &Publication, table: &CatalogTable) -> Refusal {
    if table.kind == "p" && !publication.via_root {
        return Refusal {
            problem: format!(
                "publication `{name}` sends changes of {} under the names of its partitions",
                table.name()
            ),
            remedy: format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true)", quote(name)),
        };
    }
    Refusal {
        problem: format!("publication `{name}` does not contain {}", table.name()),
        remedy: format!("ALTER PUBLICATION {} ADD TABLE {}", quote(name), table.quoted()),
    }
}

/// Says that a table that was captured is published no more, where the publication alone says what is.
pub(crate) fn departed(publication: &str, table: &CatalogTable) -> Refusal {
    let name = table.name();
    Refusal {
        problem: format!("table {name} is in publication `{publication}` no more; its documents are as they were"),
        remedy: format!(
            "ALTER PUBLICATION {} ADD TABLE {}, or name those that are to be captured in `postgres.tables`",
            quote(publication),
            table.quoted_alone()
        ),
    }
}

/// Says that a table does not exist, with the nearest name of one that does.
pub(crate) async fn missing_table(sql: &Sql, schema: &str, table: &str) -> Result<Refusal, Error> {
    let query =
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    let rows = sql.rows("list the tables", query).await?;
    let names: Vec<&str> = rows.iter().filter_map(|row| row.try_get("name").ok().flatten()).collect();
    let name = format!("{schema}.{table}");
    let remedy = match nearest(&name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "create it, or take it out of `tables`".into(),
    };
    Ok(Refusal { problem: format!("table {name} does not exist"), remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_a_topic_is_refused_by_itself() {
        let config = serde_json::json!({ "source": "shop", "postgres": {
            "host": "h", "database": "d", "user": "u", "tables": ["orders", "Order Details"],
        }});
        let config: ConnectorConfig = serde_json::from_value(config).expect("a configuration");
        let routes = Routes::new("hw", 1).refusing(|topic| topic.contains(' ').then_some("no blanks"));
        let refused = |name: &str| {
            let table = CatalogTable::announced("public".into(), name.into(), "d".into(), Vec::new(), Vec::new());
            without_topic(&config, &table, &routes)
        };
        assert_eq!(refused("orders"), None);
        let refusal = refused("Order Details").expect("a refusal");
        assert_eq!(refusal.problem, "the broker can have no topic for public.Order Details: no blanks");
        assert!(refusal.remedy.starts_with("ALTER TABLE \"public\".\"Order Details\" RENAME TO"), "{refusal:?}");
    }
}
