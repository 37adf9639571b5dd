//! Waiting for those who write to a table.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::catalog::{CatalogTable, WITH_PARTITIONS, literal};
use super::connect::{Sql, text};
use super::lsn::Lsn;
use crate::Error;
use crate::status::{Phase, StatusCell};

const POLL: Duration = Duration::from_millis(200);
/// From then on the status tells.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Waits until every transaction has ended that has written to one of these tables by now; nobody else waits. What it
/// wrote before a table was published is not decoded, so a snapshot must see it. Answers where the log ended on disk before
/// that: a snapshot made from now on sees what was committed to these tables before there, and no crash takes it back.
pub(super) async fn wait<'t>(
    sql: &Sql,
    tables: impl Iterator<Item = &'t CatalogTable>,
    status: &StatusCell,
) -> Result<Lsn, Error> {
    let tables: Vec<String> = tables.map(|table| literal(&table.quoted())).collect();
    let end =
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS at";
    let rows = sql.rows("ask where the log ends", end).await?;
    let end = text(rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?, "at")?.parse()?;
    if tables.is_empty() {
        return Ok(end);
    }
    let query = format!(
        "WITH asked AS (SELECT t::regclass AS oid FROM unnest(ARRAY[{}]) t)
         SELECT DISTINCT l.virtualtransaction AS writer FROM pg_locks l
         WHERE l.locktype = 'relation' AND l.granted
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           AND l.relation IN ({WITH_PARTITIONS})",
        tables.join(", ")
    );
    let begin = Instant::now();
    let mut waited_for: Option<BTreeSet<String>> = None;
    loop {
        let rows = sql.rows("look who writes to tables", &query).await?;
        let now: BTreeSet<String> =
            rows.iter().map(|row| text(row, "writer").map(str::to_owned)).collect::<Result<_, _>>()?;
        let left = match &waited_for {
            None => now,
            Some(before) => before.intersection(&now).cloned().collect(),
        };
        if left.is_empty() {
            return Ok(end);
        }
        if begin.elapsed() > TELL_AFTER {
            let (open_transactions, oldest_seconds) = (left.len() as u64, begin.elapsed().as_secs());
            status.set_phase(Phase::WaitingForSlot { open_transactions, oldest_seconds });
        }
        waited_for = Some(left);
        tokio::time::sleep(POLL).await;
    }
}
