//! A look at the server once a second: where its log ends, and what it keeps for us.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryRow;

use super::catalog::literal;
use super::config::PostgresConfig;
use super::connect::{Sql, number, optional, text};
use super::lsn::Lsn;
use crate::Error;
use crate::metrics::SourceMetrics;
use crate::status::StatusCell;

const PERIOD: Duration = Duration::from_secs(1);

/// Where the log ended at a moment of the server's clock. Everything committed before that moment stands before that
/// place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) end: Lsn,
    pub(crate) at_micros: i64,
}

/// The watch over a server; ends when dropped.
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    captured: Arc<Mutex<Lsn>>,
    task: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Begins to look. It has a session of its own, so that a slow answer holds nothing up.
    pub(crate) fn begin(config: &PostgresConfig, slot: String, status: StatusCell, metrics: SourceMetrics) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let captured = Arc::new(Mutex::new(Lsn::default()));
        let look = Look {
            config: config.clone(),
            slot,
            status,
            metrics,
            seen: Arc::clone(&seen),
            captured: Arc::clone(&captured),
            warned: false,
        };
        Self { seen, captured, task: tokio::spawn(look.run()) }
    }

    /// What was seen last.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Takes note of what is durable, to compare it with what there is.
    pub(crate) fn note(&self, captured: Lsn) {
        *self.captured.lock() = captured;
    }
}

struct Look {
    config: PostgresConfig,
    slot: String,
    status: StatusCell,
    metrics: SourceMetrics,
    seen: Arc<Mutex<Seen>>,
    captured: Arc<Mutex<Lsn>>,
    warned: bool,
}

impl Look {
    async fn run(mut self) {
        loop {
            // Trouble shows in the stream itself; here it is only tried again.
            if let Err(error) = self.watch().await {
                tracing::debug!(%error, "looking at the server failed");
            }
            tokio::time::sleep(PERIOD * 5).await;
        }
    }

    async fn watch(&mut self) -> Result<(), Error> {
        let sql = Sql::connect(&self.config).await?;
        let query = format!(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at,
                    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS ends,
                    s.retained, s.safe_wal_size, s.wal_status
             FROM (VALUES (1)) v LEFT JOIN LATERAL (
                 SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                             ELSE pg_current_wal_flush_lsn() END, restart_lsn)::bigint AS retained,
                        safe_wal_size, wal_status
                 FROM pg_replication_slots WHERE slot_name = {}) s ON true",
            literal(&self.slot)
        );
        loop {
            let rows = sql.rows("look at the server's log", &query).await?;
            if let Some(row) = rows.first() {
                self.take(row)?;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn take(&mut self, row: &SimpleQueryRow) -> Result<(), Error> {
        let seen = Seen { end: text(row, "ends")?.parse()?, at_micros: number(row, "at")? };
        *self.seen.lock() = seen;
        let retained: Option<u64> = optional(row, "retained").and_then(|n| n.parse().ok());
        let safe: Option<i64> = optional(row, "safe_wal_size").and_then(|n| n.parse().ok());
        let captured = *self.captured.lock();
        let lag = (captured.0 > 0).then(|| seen.end.0.saturating_sub(captured.0));
        self.metrics.lag_bytes.set(lag.unwrap_or(0) as i64);
        self.metrics.retained_wal_bytes.set(retained.unwrap_or(0) as i64);
        self.metrics.safe_wal_bytes.set(safe.unwrap_or(0));
        self.status.update(|status| {
            status.server_position = Some(seen.end.to_string());
            status.lag_bytes = lag;
            status.retained_wal_bytes = retained;
            status.safe_wal_size = safe;
        });
        let threatened = matches!(optional(row, "wal_status"), Some("unreserved" | "lost"));
        let much = threatened || retained.is_some_and(|bytes| bytes > self.config.retained_wal_warn_bytes);
        if much && !self.warned {
            let (slot, wal_status) = (&self.slot, optional(row, "wal_status").unwrap_or("unknown"));
            tracing::warn!(
                slot,
                retained_wal_bytes = retained,
                wal_status,
                "the server keeps much log for this slot, or is about to drop it: let capture catch up, or raise \
                 max_slot_wal_keep_size"
            );
        }
        self.warned = much;
        Ok(())
    }
}
