//! Tables as they are at one moment, for whoever wants to compare.

use std::pin::pin;

use futures_util::StreamExt;
use headwater_schemas::{SourcePosition, TableId, TableSchema};

use super::catalog::{self, literal};
use super::connect::{Sql, failed, text};
use super::copy::CopyLine;
use super::lsn::Lsn;
use super::plan::{TablePlan, Tuple};
use super::publication::{self, Published};
use super::refusals::narrow;
use super::snapshot::select_list;
use super::types::Types;
use crate::{ConnectorConfig, Error, Refusal, Routes};

/// Tables read in one snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRead {
    /// Every commit that the snapshot shows stands at or before this position: whoever has captured everything up to
    /// here has seen all that the snapshot shows, and perhaps more. Its epoch is 0, because only capture knows the
    /// current one: compare the commit position.
    pub position: SourcePosition,
    /// The tables in the order asked for, each with what its rows are read by.
    pub tables: Vec<(TableSchema, Vec<KeyedRow>)>,
    /// Rows that were left out because their key cannot be represented, as capture leaves them out. A value outside the key
    /// that cannot be is lost in its row, as capture has it.
    pub unrepresentable: u64,
}

/// A row's key in the form of [`headwater_schemas::key`], and the row in the form of [`headwater_schemas::RowRef`].
pub type KeyedRow = (Vec<u8>, Vec<u8>);

/// The tables that can be captured, as the database has them now: every table outside the system's schemas, partitions
/// under the table they belong to.
pub async fn discover(config: &ConnectorConfig) -> Result<Vec<TableSchema>, Error> {
    let sql = Sql::connect(&config.postgres).await?;
    let mut types = Types::default();
    let condition = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT c.relispartition";
    let tables = catalog::tables(&sql, &mut types, condition).await?;
    Ok(tables.iter().map(|table| table.table_schema(&config.source, &types)).collect())
}

/// Reads tables in one snapshot, with the column lists and row filters of the publication and the very decoder that
/// capture uses. Rows come in no order. Fails for a table that does not exist or has no key.
///
/// Emits a logical message, which capture ignores, so that the source's log reaches beyond the position even when nothing
/// else happens.
pub async fn read_tables(config: &ConnectorConfig, tables: &[TableId]) -> Result<SnapshotRead, Error> {
    let sql = Sql::connect(&config.postgres).await?;
    let server = catalog::server(&sql).await?;
    let name = config.postgres.publication_name(&config.source);
    let publication = publication::find(&sql, &server, &name).await?;
    sql.execute("open a snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The first query takes the snapshot, so that the position read after it is not before anything the snapshot shows.
    let mut types = Types::default();
    let names = tables.iter().map(|table| (&*table.schema, &*table.table));
    let found = catalog::tables(&sql, &mut types, &catalog::named(names)).await?;
    let rows = sql.rows("ask for the end of the log", "SELECT pg_current_wal_insert_lsn() AS ends").await?;
    let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
    let end: Lsn = text(row, "ends")?.parse()?;
    push_log_on(config).await?;

    let mut routes = Routes::new("", 1);
    let mut read = Vec::new();
    let mut unrepresentable = 0;
    for wanted in tables {
        let mut table = found
            .iter()
            .find(|table| *table.schema == *wanted.schema && *table.table == *wanted.table)
            .cloned()
            .ok_or_else(|| Error::NotReady {
                problem: format!("table {}.{} does not exist", wanted.schema, wanted.table),
                remedy: "create it, or take it out of the read models".into(),
            })?;
        let refused = |Refusal { problem, remedy }| Error::NotReady { problem, remedy };
        table.key().map_err(refused)?;
        let published = publication.as_ref().and_then(|publication| publication.place_of(&table));
        let published = published.cloned().unwrap_or_default();
        narrow(&mut table, &published, &name).map_err(refused)?;
        let plan = TablePlan::new(table.table_schema(&config.source, &types), table.padded(&types), &mut routes);
        let (rows, left_out) = read_table(&sql, &table.quoted_alone(), &published, &plan).await?;
        read.push((plan.schema, rows));
        unrepresentable += left_out;
    }
    let position = SourcePosition { epoch: 0, commit: end.0, ordinal: 0 };
    Ok(SnapshotRead { position, tables: read, unrepresentable })
}

async fn read_table(
    sql: &Sql,
    quoted: &str,
    published: &Published,
    plan: &TablePlan,
) -> Result<(Vec<KeyedRow>, u64), Error> {
    let action = format!("read {}", plan.schema.table);
    let filter = published.row_filter.as_ref().map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
    let query = format!("COPY (SELECT {} FROM {quoted}{filter}) TO STDOUT", select_list(plan));
    let mut lines = pin!(sql.client.copy_out(&query).await.map_err(|error| failed(&action, error))?);
    let (mut line, mut scratch) = (CopyLine::default(), Vec::new());
    let (mut rows, mut unrepresentable) = (Vec::new(), 0);
    while let Some(copied) = lines.next().await {
        line.read(&copied.map_err(|error| failed(&action, error))?);
        let tuple = Tuple { bytes: &line.bytes, cells: &line.cells, fallback: None };
        let (mut key, mut row) = (Vec::new(), Vec::new());
        let written =
            plan.write_key(&mut key, tuple, &mut scratch).and_then(|()| plan.write_row(&mut row, tuple, &mut scratch));
        match written {
            Ok(_) => rows.push((key, row)),
            Err(_) => unrepresentable += 1,
        }
    }
    Ok((rows, unrepresentable))
}

/// Writes a message of no meaning into the log. Where that is not allowed, other traffic will push the log on.
async fn push_log_on(config: &ConnectorConfig) -> Result<(), Error> {
    let sql = Sql::connect(&config.postgres).await?;
    let query = format!("SELECT pg_logical_emit_message(false, {}, '')", literal("headwater"));
    match sql.execute("write a message into the log", &query).await {
        Ok(()) | Err(Error::Query { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
