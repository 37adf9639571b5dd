//! Why a table cannot be captured: each is refused by itself, and the others run on.

use headwater_schemas::nearest;

use super::catalog::{CatalogTable, quote};
use super::connect::Sql;
use super::publication::{Publication, Published};
use crate::{ConnectorConfig, Error, Refusal};

/// Why a table cannot be captured, if it cannot.
pub(crate) fn unfit(table: &CatalogTable, config: &ConnectorConfig) -> Option<Refusal> {
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
    table.key().err()
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
