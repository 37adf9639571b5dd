//! Tables as the database's catalog describes them.

use headwater_schemas::{Column, TableId, TableSchema};
use tokio_postgres::SimpleQueryRow;

use super::connect::{Sql, number, optional, text};
use super::types::Types;
use crate::Error;

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct CatalogTable {
    /// Its number, which a table of the same name that is made later does not get; 0 where it was announced.
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    /// `pg_class.relkind`: `r` table, `p` partitioned.
    pub(crate) kind: String,
    /// `pg_class.relreplident`: `d` default, `n` nothing, `f` full, `i` index.
    pub(crate) identity: String,
    pub(crate) rows_estimate: Option<u64>,
    /// Its size; 0 until it is [`measure`]d.
    pub(crate) blocks: u64,
    /// The file that whoever asked sees the table in; a table that is rewritten gets another one.
    pub(crate) filenode: u32,
    pub(crate) readable: bool,
    /// It may be in a publication, since its changes are in the log.
    pub(crate) publishable: bool,
    /// The user has the rights of its owner, who alone may publish it.
    pub(crate) owned: bool,
    /// Policies would hide rows from the user.
    pub(crate) row_security: bool,
    /// Tables that are not its partitions inherit from it: their rows are its own to a query, and not to the change stream.
    pub(crate) has_heirs: bool,
    pub(crate) columns: Vec<CatalogColumn>,
    pub(crate) indexes: Vec<UniqueIndex>,
    /// Of a partitioned table: those that hold its rows.
    pub(crate) partitions: Vec<CatalogPartition>,
    /// The tables (schema, name) that it is a partition of.
    pub(crate) ancestors: Vec<(String, String)>,
    /// Every place of a column, by `attnum` from 1 on; empty where it was announced.
    pub(crate) places: Vec<CatalogPlace>,
    /// Which file the table is in, or which its partitions are in: something to compare.
    pub(crate) files: String,
}

/// A place that a column has, or had before it was dropped.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct CatalogPlace {
    pub(crate) name: String,
    /// Neither dropped nor generated.
    pub(crate) alive: bool,
    pub(crate) type_oid: u32,
    /// Its values are filled up with blanks.
    #[serde(skip)]
    pub(crate) is_padded: bool,
    pub(crate) modifier: i32,
    /// Rows of before the column was added have a value in it that they do not hold; or those of a partition do.
    #[serde(skip)]
    pub(crate) fills_rows: bool,
    /// The transaction that wrote this line of the catalog.
    pub(crate) written: String,
}

/// One column, in the order the change stream sends them. Generated columns are not among them: the stream leaves them
/// out.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct CatalogColumn {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) source_type: String,
}

/// A partition that holds rows. Its changes are logged by its own replica identity.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct CatalogPartition {
    /// The name as SQL.
    pub(crate) quoted: String,
    /// Its changes are in the log.
    pub(crate) logged: bool,
    /// As [`CatalogTable::identity`].
    pub(crate) identity: String,
    pub(crate) indexes: Vec<UniqueIndex>,
}

/// A unique index that could identify rows: valid, immediate, over plain columns and all rows.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    pub(crate) primary: bool,
    /// Chosen by `REPLICA IDENTITY USING INDEX`.
    pub(crate) identity: bool,
    /// None of the columns can be null.
    pub(crate) not_null: bool,
    pub(crate) columns: Vec<String>,
}

impl CatalogTable {
    /// `schema.table`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The name as SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    /// The same without the tables that inherit from it; with its partitions.
    pub(crate) fn quoted_alone(&self) -> String {
        let only = if self.kind == "p" { "" } else { "ONLY " };
        format!("{only}{}", self.quoted())
    }

    /// The schema its events are written with.
    pub(crate) fn table_schema(&self, source: &str, types: &Types) -> TableSchema {
        let key = self.key().unwrap_or_default();
        let column = |column: &CatalogColumn| Column {
            name: column.name.as_str().into(),
            kind: types.kind(column.type_oid),
            source_type: column.source_type.clone(),
            key_ordinal: key.iter().position(|name| *name == column.name).map(|at| at as u16),
        };
        TableSchema {
            table: TableId::new(source, self.schema.as_str(), self.table.as_str()),
            columns: self.columns.iter().map(column).collect(),
        }
    }

    /// Of each column, whether its values are filled up with blanks.
    pub(crate) fn padded(&self, types: &Types) -> Vec<bool> {
        self.columns.iter().map(|column| types.is_padded(column.type_oid)).collect()
    }
}

/// A name as SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL, for sessions with `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// As SQL: the numbers of the tables of a query `asked`, and of their partitions.
pub(crate) const WITH_PARTITIONS: &str =
    "SELECT oid FROM asked UNION SELECT relid FROM asked, pg_partition_tree(asked.oid)";

/// The condition that picks tables by name, for [`tables`].
pub(crate) fn named<'a>(names: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> =
        names.into_iter().map(|(schema, table)| format!("({},{})", literal(schema), literal(table))).collect();
    if pairs.is_empty() { "false".into() } else { format!("(n.nspname, c.relname) IN ({})", pairs.join(",")) }
}

/// As SQL: table `c` and all that are below it.
const PARTS: &str = "WITH RECURSIVE part(oid) AS (
                         SELECT c.oid UNION ALL
                         SELECT i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid)";

/// As SQL: the [`UniqueIndex`]es of a table, as JSON.
fn unique_indexes(of: &str) -> String {
    format!(
        "(SELECT coalesce(json_agg(json_build_object(
                    'name', ic.relname, 'primary', i.indisprimary, 'identity', i.indisreplident,
                    'not_null', k.not_null, 'columns', k.columns) ORDER BY i.indexrelid), '[]')
         FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid,
              LATERAL (SELECT json_agg(a.attname ORDER BY k.ord) AS columns, bool_and(a.attnotnull) AS not_null
                       FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ord)
                       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                       WHERE k.ord <= i.indnkeyatts) k
         WHERE i.indrelid = {of} AND i.indisunique AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL)"
    )
}

/// The tables for which `condition` (over `pg_class c` and `pg_namespace n`) holds, and the types of their columns.
///
/// Without a lock that would last as long as the transaction does (`pg_partition_tree` takes some): a snapshot may take
/// hours, and whoever alters a table would wait for it. Nor one that waits for those who do: `VACUUM FULL` of one table may
/// take hours, too, and would hold up all others.
pub(crate) async fn tables(sql: &Sql, types: &mut Types, condition: &str) -> Result<Vec<CatalogTable>, Error> {
    let (indexes, partition_indexes) = (unique_indexes("c.oid"), unique_indexes("f.oid"));
    let query = format!(
        "SELECT c.oid::bigint AS oid, n.nspname, c.relname, c.relkind, c.relreplident, c.reltuples::bigint AS rows,
                c.relfilenode AS filenode,
                has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable,
                pg_relation_is_publishable(c.oid) AS publishable, pg_has_role(c.relowner, 'USAGE') AS owned,
                row_security_active(c.oid) AS row_security,
                c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS has_heirs,
                (SELECT coalesce(json_agg(json_build_object(
                            'name', a.attname, 'type_oid', a.atttypid::bigint,
                            'source_type', format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum), '[]')
                 FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
                {indexes} AS indexes,
                (SELECT coalesce(json_agg(json_build_object(
                            'name', a.attname, 'alive', NOT a.attisdropped AND a.attgenerated = '',
                            'type_oid', a.atttypid::bigint, 'modifier', a.atttypmod, 'written', a.xmin::text)
                            ORDER BY a.attnum), '[]')
                 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS places,
                ({PARTS}
                 SELECT coalesce(json_agg(DISTINCT a.attname), '[]')
                 FROM part JOIN pg_attribute a ON a.attrelid = part.oid
                 WHERE a.atthasmissing AND NOT a.attisdropped) AS filled,
                CASE c.relkind WHEN 'p' THEN
                    ({PARTS}
                     SELECT json_agg(json_build_object(
                                'quoted', format('%I.%I', fn.nspname, f.relname), 'logged', f.relpersistence = 'p',
                                'identity', f.relreplident, 'indexes', {partition_indexes}) ORDER BY f.oid)
                     FROM part JOIN pg_class f ON f.oid = part.oid JOIN pg_namespace fn ON fn.oid = f.relnamespace
                     WHERE f.relkind <> 'p')
                END AS partitions,
                CASE WHEN c.relispartition THEN
                    (WITH RECURSIVE above(oid) AS (
                         SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid UNION ALL
                         SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.oid)
                     SELECT json_agg(json_build_array(an.nspname, a.relname))
                     FROM above JOIN pg_class a ON a.oid = above.oid JOIN pg_namespace an ON an.oid = a.relnamespace)
                END AS ancestors,
                CASE c.relkind WHEN 'p' THEN
                    ({PARTS}
                     SELECT string_agg(f.oid::text || ':' || f.relfilenode::text, ',' ORDER BY f.oid)
                     FROM part JOIN pg_class f ON f.oid = part.oid)
                ELSE c.relfilenode::text END AS files
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND ({condition})
         ORDER BY n.nspname, c.relname"
    );
    let mut found = Vec::new();
    for row in sql.rows("read the catalog", &query).await? {
        found.push(table(&row)?);
    }
    let columns = found.iter().flat_map(|table: &CatalogTable| &table.columns);
    types.learn(sql, columns.map(|column| column.type_oid).collect()).await?;
    for place in found.iter_mut().flat_map(|table| &mut table.places) {
        place.is_padded = types.is_padded(place.type_oid);
    }
    Ok(found)
}

/// Looks how large tables are, which waits for whoever alters one.
pub(crate) async fn measure(sql: &Sql, tables: impl Iterator<Item = &mut CatalogTable>) -> Result<(), Error> {
    let mut tables: Vec<&mut CatalogTable> = tables.collect();
    if tables.is_empty() {
        return Ok(());
    }
    let numbers: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
    let query = format!(
        "SELECT oid::bigint AS oid, pg_relation_size(oid) / current_setting('block_size')::int AS blocks
         FROM pg_class WHERE oid IN ({})",
        numbers.join(",")
    );
    for row in sql.rows("look how large tables are", &query).await? {
        let oid: u32 = number(&row, "oid")?;
        if let Some(table) = tables.iter_mut().find(|table| table.oid == oid) {
            table.blocks = optional(&row, "blocks").and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    Ok(())
}

fn table(row: &SimpleQueryRow) -> Result<CatalogTable, Error> {
    let malformed = |_| Error::Malformed { what: "description of a table in the catalog" };
    let rows: i64 = number(row, "rows")?;
    let mut places: Vec<CatalogPlace> = serde_json::from_str(text(row, "places")?).map_err(malformed)?;
    let filled: Vec<String> = serde_json::from_str(text(row, "filled")?).map_err(malformed)?;
    for place in &mut places {
        place.fills_rows = place.alive && filled.contains(&place.name);
    }
    Ok(CatalogTable {
        oid: number(row, "oid")?,
        schema: text(row, "nspname")?.into(),
        table: text(row, "relname")?.into(),
        kind: text(row, "relkind")?.into(),
        identity: text(row, "relreplident")?.into(),
        // Never analysed is -1.
        rows_estimate: u64::try_from(rows).ok(),
        blocks: 0,
        filenode: number(row, "filenode")?,
        readable: text(row, "readable")? == "t",
        publishable: text(row, "publishable")? == "t",
        owned: text(row, "owned")? == "t",
        row_security: text(row, "row_security")? == "t",
        has_heirs: text(row, "has_heirs")? == "t",
        columns: serde_json::from_str(text(row, "columns")?).map_err(malformed)?,
        indexes: serde_json::from_str(text(row, "indexes")?).map_err(malformed)?,
        partitions: serde_json::from_str(optional(row, "partitions").unwrap_or("[]")).map_err(malformed)?,
        ancestors: serde_json::from_str(optional(row, "ancestors").unwrap_or("[]")).map_err(malformed)?,
        places,
        files: optional(row, "files").unwrap_or_default().into(),
    })
}

/// The server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As in `server_version_num`: 150004 is 15.4.
    pub(crate) version: u32,
    pub(crate) wal_level: String,
    /// How the database's texts are encoded, as in `server_encoding`.
    pub(crate) encoding: String,
    /// It follows another server, or is still reading its own log.
    pub(crate) in_recovery: bool,
}

/// Asks what server this is.
pub(crate) async fn server(sql: &Sql) -> Result<Server, Error> {
    let query = "SELECT current_setting('server_version_num') AS version, current_setting('wal_level') AS wal_level,
                        current_setting('server_encoding') AS encoding,
                        pg_is_in_recovery() AS in_recovery";
    let rows = sql.rows("ask for the server's settings", query).await?;
    let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
    let (version, wal_level) = (number(row, "version")?, text(row, "wal_level")?.to_owned());
    let encoding = text(row, "encoding")?.to_owned();
    Ok(Server { version, wal_level, encoding, in_recovery: text(row, "in_recovery")? == "t" })
}

/// Columns of a relation message with the names of their types.
pub(crate) async fn describe_columns(sql: &Sql, columns: Vec<(String, u32, i32)>) -> Result<Vec<CatalogColumn>, Error> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<String> =
        columns.iter().enumerate().map(|(at, (_, oid, modifier))| format!("({at}, {oid}::oid, {modifier})")).collect();
    let query = format!(
        "SELECT format_type(v.oid, v.modifier) AS name FROM (VALUES {}) AS v(at, oid, modifier) ORDER BY at",
        asked.join(",")
    );
    let names = sql.rows("look up the names of types", &query).await?;
    let described = columns.into_iter().zip(&names).map(|((name, type_oid, _), row)| CatalogColumn {
        name,
        type_oid,
        source_type: optional(row, "name").unwrap_or("???").to_owned(),
    });
    Ok(described.collect())
}

impl CatalogTable {
    /// A table as a relation message announces it, with the indexes that the catalog has now.
    pub(crate) fn announced(
        schema: String,
        table: String,
        identity: String,
        columns: Vec<CatalogColumn>,
        indexes: Vec<UniqueIndex>,
    ) -> Self {
        Self {
            oid: 0,
            schema,
            table,
            kind: "r".into(),
            identity,
            rows_estimate: None,
            blocks: 0,
            filenode: 0,
            readable: true,
            publishable: true,
            owned: true,
            row_security: false,
            has_heirs: false,
            columns,
            indexes,
            partitions: Vec::new(),
            ancestors: Vec::new(),
            places: Vec::new(),
            files: String::new(),
        }
    }
}
