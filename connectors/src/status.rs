//! What a connector tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// How a source is doing. Numbers that are not known yet are `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Name of the source.
    pub source: String,
    /// What it is doing now.
    pub phase: Phase,
    /// Everything up to here is durable in the log, as [`headwater_schemas::SourcePosition`] writes itself. Stands still
    /// while tables are read: what they have is as old as that reading, and only its end makes it whole.
    pub position: Option<String>,
    /// The same as the source writes it (PostgreSQL: `16/B374D848`).
    pub source_position: Option<String>,
    /// Where the source's own log ends, in the source's notation.
    pub server_position: Option<String>,
    /// Bytes of the source's log between the two.
    pub lag_bytes: Option<u64>,
    /// Source time to which the log is complete, while tables are read: once they are; microseconds since
    /// 1970-01-01T00:00:00Z.
    pub complete_at_micros: Option<i64>,
    /// Commit time of the newest captured change, microseconds since 1970-01-01T00:00:00Z.
    pub last_event_at_micros: Option<i64>,
    /// Bytes of log the source keeps for us.
    pub retained_wal_bytes: Option<u64>,
    /// Bytes the source will yet write before it may drop our slot; unknown where there is no limit.
    pub safe_wal_size: Option<i64>,
    /// Name of the replication slot.
    pub slot: Option<String>,
    /// Change events put into the log since the start.
    pub events_total: u64,
    /// Their size in bytes, as the log stores them.
    pub bytes_total: u64,
    /// Events that became dead letters since the start.
    pub dead_letters_total: u64,
    /// Configured tables that are not captured, and why. The others run on.
    pub refused_tables: BTreeMap<String, Refusal>,
}

/// Why a table is not captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a connector is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Phase {
    /// Reaching the source and looking at its state.
    #[default]
    Connecting,
    /// The source is making the slot, or about to read a table that is published only now: either takes until transactions
    /// that were open before have ended.
    WaitingForSlot {
        /// How many transactions are waited for.
        open_transactions: u64,
        /// Age of the oldest, in seconds.
        oldest_seconds: u64,
    },
    /// Reading the tables as they are.
    Snapshotting {
        /// Progress per table.
        tables: Vec<TableProgress>,
    },
    /// Following the source's log.
    Streaming,
    /// Something failed and will be tried again, for ever.
    Retrying {
        /// What failed.
        error: String,
        /// How many times in a row, from 1.
        attempt: u32,
        /// When it is tried again, in milliseconds from the moment it failed.
        next_in_ms: u64,
    },
    /// Ended: by request when there is no error.
    Stopped {
        /// Why, and what to do about it.
        error: Option<String>,
    },
}

/// How far the snapshot of one table is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableProgress {
    /// `schema.table`.
    pub table: String,
    /// Rows read by this process.
    pub rows_done: u64,
    /// Rows there may be, by the database's statistics; unknown for a table that was never analysed.
    pub rows_estimate: Option<u64>,
    /// Whether all of it is read.
    pub done: bool,
}

/// The status, shared between the one who does and those who look.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusCell(Arc<Mutex<SourceStatus>>);

impl StatusCell {
    pub(crate) fn new(source: &str) -> Self {
        let status = SourceStatus { source: source.into(), ..SourceStatus::default() };
        Self(Arc::new(Mutex::new(status)))
    }

    pub(crate) fn read(&self) -> SourceStatus {
        self.0.lock().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.0.lock());
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.update(|status| status.phase = phase);
    }
}
