//! The publication: which tables, columns and rows the change stream sends.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryRow;

use super::catalog::{CatalogTable, Server, literal, quote};
use super::connect::{Sql, number, optional, text};
use crate::Error;

/// A table's place in a publication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Columns that are sent; `None` for all.
    pub(crate) columns: Option<Vec<String>>,
    /// Condition on the rows that are sent, as SQL.
    pub(crate) row_filter: Option<String>,
    /// The line of the catalog that publishes it, see [`publishing`]: a number that no other will have.
    pub(crate) by: u32,
}

/// A publication.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// Changes of partitions are sent as changes of the partitioned table.
    pub(crate) via_root: bool,
    /// Kinds of change that it leaves out, of insert, update, delete, truncate.
    pub(crate) left_out: Vec<&'static str>,
    pub(crate) all_tables: bool,
    /// The user has the rights of its owner, who alone may add to it.
    pub(crate) owned: bool,
    /// The transaction that wrote its line of the catalog, which `ALTER PUBLICATION … SET (…)` writes anew; its tables have
    /// lines of their own.
    pub(crate) written: u32,
    pub(crate) entries: Entries,
    pub(crate) tables: HashMap<(String, String), Published>,
}

/// The lines of the catalog that say which tables a publication sends, of all or of a schema: how many, and the sum of their
/// numbers. A line that is added has a greater number than those there are, so that of a publication from which something was
/// taken out, or to which something was added, one of the two is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    count: u64,
    sum: u64,
}

impl Entries {
    /// As SQL: a row about publication `p`, for [`Self::of`].
    pub(crate) fn query(server: &Server) -> String {
        let of_schemas = match server.version >= 150_000 {
            true => "UNION ALL SELECT oid FROM pg_publication_namespace WHERE pnpubid = p.oid",
            false => "",
        };
        format!(
            "(SELECT count(*) AS entries, coalesce(sum(oid::bigint), 0) AS entries_sum
              FROM (SELECT oid FROM pg_publication_rel WHERE prpubid = p.oid {of_schemas}) lines)"
        )
    }

    /// What a row says that [`Self::query`] made.
    pub(crate) fn of(row: &SimpleQueryRow) -> Result<Self, Error> {
        Ok(Self { count: number(row, "entries")?, sum: number(row, "entries_sum")? })
    }
}

impl Publication {
    /// The place of a table, if it is in there.
    pub(crate) fn place_of(&self, table: &CatalogTable) -> Option<&Published> {
        self.tables.get(&(table.schema.clone(), table.table.clone()))
    }

    /// Whether a table is not in there and can be added, by its owner.
    pub(crate) fn can_take(&self, table: &CatalogTable) -> bool {
        self.owned && !self.all_tables && self.place_of(table).is_none() && (table.kind != "p" || self.via_root)
    }
}

/// Looks a publication up; `None` if there is none of that name.
pub(crate) async fn find(sql: &Sql, server: &Server, name: &str) -> Result<Option<Publication>, Error> {
    let lists = if server.version >= 150_000 { LISTS } else { "false" };
    let query = format!(
        "SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
                pg_has_role(pubowner, 'USAGE') AS owned, p.xmin AS written, {lists} AS lists, entries, entries_sum
         FROM pg_publication p CROSS JOIN LATERAL {} e WHERE pubname = {}",
        Entries::query(server),
        literal(name)
    );
    let rows = sql.rows("look up the publication", &query).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let on = |column: &str| text(row, column).map(|value| value == "t");
    let mut left_out = Vec::new();
    for (column, kind) in
        [("pubinsert", "insert"), ("pubupdate", "update"), ("pubdelete", "delete"), ("pubtruncate", "truncate")]
    {
        if !on(column)? {
            left_out.push(kind);
        }
    }
    let query = if on("lists")? { listed_tables(name) } else { all_tables(server, name) };
    let mut tables = HashMap::new();
    for row in sql.rows("look up the publication's tables", &query).await? {
        let columns = match optional(&row, "columns") {
            Some(json) => Some(
                serde_json::from_str(json).map_err(|_| Error::Malformed { what: "column list of a publication" })?,
            ),
            None => None,
        };
        let row_filter = optional(&row, "rowfilter").map(str::to_owned);
        let published = Published { columns, row_filter, by: number(&row, "by")? };
        tables.insert((text(&row, "schemaname")?.to_owned(), text(&row, "tablename")?.to_owned()), published);
    }
    let (via_root, all_tables, owned) = (on("pubviaroot")?, on("puballtables")?, on("owned")?);
    Ok(Some(Publication {
        via_root,
        left_out,
        all_tables,
        owned,
        written: number(row, "written")?,
        entries: Entries::of(row)?,
        tables,
    }))
}

/// As SQL: whether publication `p` names each of the tables that it sends.
const LISTS: &str = "NOT puballtables AND NOT EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
     AND (pubviaroot OR NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
                                    WHERE r.prpubid = p.oid AND c.relkind = 'p'))";

/// As SQL: the tables of a publication that [`LISTS`] them. Unlike [`all_tables`] it waits for nobody who alters one, but for
/// those of tables with a row filter.
fn listed_tables(name: &str) -> String {
    // Partitions come under the name of the table above them.
    format!(
        "SELECT n.nspname AS schemaname, c.relname AS tablename,
                (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                 WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])) AS columns,
                pg_get_expr(r.prqual, r.prrelid) AS rowfilter, r.oid::bigint AS by
         FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE pubname = {}
           AND NOT (c.relispartition AND EXISTS (
                    SELECT FROM pg_partition_ancestors(c.oid) above JOIN pg_publication_rel o ON o.prrelid = above.relid
                    WHERE o.prpubid = p.oid AND above.relid <> c.oid))",
        literal(name)
    )
}

/// As SQL: the tables of any publication. From PostgreSQL 16 on the server opens each of them for that.
fn all_tables(server: &Server, name: &str) -> String {
    let details = if server.version >= 150_000 {
        "to_json(attnames) AS columns, rowfilter"
    } else {
        "NULL AS columns, NULL AS rowfilter"
    };
    format!(
        "SELECT schemaname, tablename, {details}, {}::bigint AS by
         FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
              JOIN pg_namespace n ON n.nspname = t.schemaname
              JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
         WHERE pubname = {}",
        publishing(server, "c.oid"),
        literal(name)
    )
}

/// As SQL: the number of the line of the catalog by which publication `p` sends the table of this number: its own, or that
/// of its schema, or of a table above it or the schema of one; or else that of the publication. Taken out and put back, a
/// table has another one.
fn publishing(server: &Server, table: &str) -> String {
    // From the table itself up; one that is no partition is not among its ancestors.
    let above = format!(
        "(SELECT {table}::oid AS relid, 0 AS steps
          UNION ALL SELECT relid::oid, n FROM pg_partition_ancestors({table}::oid) WITH ORDINALITY AS a (relid, n))"
    );
    let listed = format!(
        "(SELECT r.oid FROM {above} u JOIN pg_publication_rel r ON r.prrelid = u.relid
          WHERE r.prpubid = p.oid ORDER BY steps LIMIT 1)"
    );
    let of_schema = format!(
        "(SELECT s.oid FROM {above} u JOIN pg_class o ON o.oid = u.relid
               JOIN pg_publication_namespace s ON s.pnnspid = o.relnamespace
          WHERE s.pnpubid = p.oid ORDER BY steps LIMIT 1)"
    );
    match server.version >= 150_000 {
        true => format!("coalesce({listed}, {of_schema}, p.oid)"),
        false => format!("coalesce({listed}, p.oid)"),
    }
}

/// What publishes a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// As [`Published::by`]: a table that was taken out since has not the number it had.
    pub(crate) by: u32,
    /// As [`Publication::written`].
    pub(crate) written: u32,
}

/// What publishes a table now. `None` if the publication is gone.
pub(crate) async fn entry_of(sql: &Sql, server: &Server, name: &str, table: u32) -> Result<Option<Entry>, Error> {
    let query = format!(
        "SELECT {}::bigint AS by, p.xmin AS written FROM pg_publication p WHERE p.pubname = {}",
        publishing(server, &table.to_string()),
        literal(name)
    );
    let rows = sql.rows("look up what publishes a table", &query).await?;
    rows.first().map(|row| Ok(Entry { by: number(row, "by")?, written: number(row, "written")? })).transpose()
}

/// Makes or completes the publication. Of the tables, each must be one that can be published: one alone would keep all from
/// it.
pub(crate) async fn publish(
    sql: &Sql,
    name: &str,
    publication: Option<&Publication>,
    tables: &[CatalogTable],
) -> Result<(), Error> {
    match publication {
        None => {
            tracing::info!(publication = name, tables = tables.len(), "creating the publication");
            sql.execute("create the publication", &create_command(name, tables)).await
        }
        Some(publication) => {
            let lacking: Vec<&CatalogTable> = tables.iter().filter(|table| publication.can_take(table)).collect();
            if lacking.is_empty() {
                return Ok(());
            }
            tracing::info!(publication = name, tables = lacking.len(), "adding tables to the publication");
            let command = format!("ALTER PUBLICATION {} ADD TABLE {}", quote(name), list(lacking));
            sql.execute("add tables to the publication", &command).await
        }
    }
}

/// The command that makes the publication.
pub(crate) fn create_command(name: &str, tables: &[CatalogTable]) -> String {
    let for_tables = if tables.is_empty() { String::new() } else { format!("FOR TABLE {} ", list(tables)) };
    format!("CREATE PUBLICATION {} {for_tables}WITH (publish_via_partition_root = true)", quote(name))
}

/// Tables as a command names them: not those that inherit from one, since the application could not update such a one that
/// has no key.
fn list<'t>(tables: impl IntoIterator<Item = &'t CatalogTable>) -> String {
    tables.into_iter().map(CatalogTable::quoted_alone).collect::<Vec<_>>().join(", ")
}

/// Says that there is none.
pub(crate) fn missing(name: &str) -> Error {
    Error::NotReady {
        problem: format!("publication `{name}` does not exist"),
        remedy: format!(
            "CREATE PUBLICATION {} FOR TABLE … WITH (publish_via_partition_root = true), or set `create_publication: true` \
             and name the `tables`",
            quote(name)
        ),
    }
}
