//! The replication slot: the server's promise to keep what we have not captured.

use std::pin::pin;
use std::time::Duration;

use pgwire_replication::ReplicationClient;

use super::catalog::{Server, literal};
use super::connect::{Sql, number, optional, text};
use super::lsn::Lsn;
use crate::Error;
use crate::status::{Phase, StatusCell};

/// A slot as the server shows it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) plugin: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) active_pid: Option<i32>,
    pub(crate) confirmed_flush: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: Option<String>,
}

impl Slot {
    /// Whether the server has thrown away what we still need.
    pub(crate) fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.confirmed_flush.is_none()
    }
}

/// Looks a slot up.
pub(crate) async fn find(sql: &Sql, name: &str) -> Result<Option<Slot>, Error> {
    let query = format!(
        "SELECT plugin, database, active_pid, confirmed_flush_lsn, wal_status
         FROM pg_replication_slots WHERE slot_name = {}",
        literal(name)
    );
    let rows = sql.rows("look up the replication slot", &query).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Slot {
        plugin: optional(row, "plugin").map(str::to_owned),
        database: optional(row, "database").map(str::to_owned),
        active_pid: optional(row, "active_pid").and_then(|pid| pid.parse().ok()),
        confirmed_flush: optional(row, "confirmed_flush_lsn").map(str::parse).transpose()?,
        wal_status: optional(row, "wal_status").map(str::to_owned),
    }))
}

/// Drops a slot.
pub(crate) async fn drop(sql: &Sql, name: &str) -> Result<(), Error> {
    let query = format!("SELECT pg_drop_replication_slot({})", literal(name));
    sql.execute("drop the replication slot", &query).await
}

/// A slot that was just made. Its session keeps the snapshot alive; see [`create`].
pub(crate) struct Created {
    pub(crate) consistent_point: Lsn,
    pub(crate) snapshot: String,
    pub(crate) session: ReplicationClient,
}

/// Makes a slot and exports the snapshot that shows the database as it was where the slot begins. This takes until every
/// transaction that was open has ended; meanwhile the status says so.
pub(crate) async fn create(
    sql: &Sql,
    mut session: ReplicationClient,
    server: &Server,
    name: &str,
    status: &StatusCell,
) -> Result<Created, Error> {
    let options = match server.version {
        170_000.. => "(SNAPSHOT 'export', FAILOVER true)",
        150_000.. => "(SNAPSHOT 'export')",
        _ => "EXPORT_SNAPSHOT",
    };
    let command = format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput {options}");
    let rows = {
        let mut creating = pin!(session.simple_query(&command));
        loop {
            // The command is pinned outside and goes on; the look at open transactions may be dropped.
            tokio::select! {
                rows = &mut creating => break rows,
                waiting = after_a_second(sql) => {
                    let (open_transactions, oldest_seconds) = waiting?;
                    tracing::warn!(slot = name, open_transactions, oldest_seconds, "the slot waits for transactions");
                    status.set_phase(Phase::WaitingForSlot { open_transactions, oldest_seconds });
                }
            }
        }
    };
    let rows = rows.map_err(|source| Error::Replication { action: "create the replication slot", source })?;
    let malformed = Error::Malformed { what: "answer to CREATE_REPLICATION_SLOT" };
    let Some([_, Some(consistent_point), Some(snapshot), ..]) = rows.first().map(Vec::as_slice) else {
        return Err(malformed);
    };
    let (Ok(consistent_point), Ok(snapshot)) = (str::from_utf8(consistent_point), str::from_utf8(snapshot)) else {
        return Err(malformed);
    };
    let (consistent_point, snapshot) = (consistent_point.parse()?, snapshot.to_owned());
    Ok(Created { consistent_point, snapshot, session })
}

async fn after_a_second(sql: &Sql) -> Result<(u64, u64), Error> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let query = "SELECT count(*) AS open, coalesce(max(extract(epoch FROM now() - xact_start)), 0)::bigint AS oldest
                 FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    let rows = sql.rows("look for open transactions", query).await?;
    let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
    text(row, "open")?;
    Ok((number(row, "open")?, number(row, "oldest")?))
}
