//! A look at the server once a second: where its log ends, what it keeps for us, and whether the publication is the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryRow;

use super::catalog::{Server, literal};
use super::config::PostgresConfig;
use super::connect::{Sql, number, optional, text};
use super::lsn::Lsn;
use super::publication::Entries;
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
    /// The transaction that wrote the publication's line of the catalog, and what it sends; `None` while there is no
    /// publication.
    pub(crate) publication: Option<(u32, Entries)>,
}

/// A stream from which nothing comes is believed for so long while the server says that nobody reads the slot, or cannot
/// be asked. A connection may be dead without either end having said so.
const UNREAD_MAX: Duration = Duration::from_secs(15);
const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// When the server last said something about the one who reads the slot.
#[derive(Clone, Copy, Debug)]
struct Signs {
    /// It answered.
    seen: Instant,
    /// It answered that somebody reads the slot.
    read: Instant,
}

/// The watch over a server; ends when dropped.
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    signs: Arc<Mutex<Signs>>,
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
    pub(crate) fn begin(
        config: &PostgresConfig,
        server: &Server,
        slot: String,
        publication: String,
        status: StatusCell,
        metrics: SourceMetrics,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let captured = Arc::new(Mutex::new(Lsn::default()));
        let now = Instant::now();
        let signs = Arc::new(Mutex::new(Signs { seen: now, read: now }));
        let look = Look {
            config: config.clone(),
            entries: Entries::query(server),
            slot,
            publication,
            status,
            metrics,
            seen: Arc::clone(&seen),
            captured: Arc::clone(&captured),
            signs: Arc::clone(&signs),
            warned: false,
        };
        Self { seen, captured, signs, task: tokio::spawn(look.run()) }
    }

    /// Fails when a stream that was last `heard` then seems to be dead.
    pub(crate) fn check_alive(&self, heard: Instant) -> Result<(), Error> {
        let signs = *self.signs.lock();
        let problem = match (signs.read.max(heard).elapsed(), signs.seen.max(heard).elapsed()) {
            (_, unseen) if unseen > UNSEEN_MAX => "neither the stream nor the server has said anything for a minute",
            (unread, _) if unread > UNREAD_MAX => {
                "the server says that nobody reads the slot, and the stream is silent"
            }
            _ => return Ok(()),
        };
        Err(Error::NotReady {
            problem: problem.into(),
            remedy: "the connection seems to be dead; it is opened anew".into(),
        })
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
    /// As SQL, see [`Entries::query`].
    entries: String,
    slot: String,
    publication: String,
    status: StatusCell,
    metrics: SourceMetrics,
    seen: Arc<Mutex<Seen>>,
    captured: Arc<Mutex<Lsn>>,
    signs: Arc<Mutex<Signs>>,
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
                    p.xmin AS publication, e.entries, e.entries_sum,
                    s.retained, s.safe_wal_size, s.wal_status, s.active
             FROM (VALUES (1)) v LEFT JOIN pg_publication p ON p.pubname = {} LEFT JOIN LATERAL {} e ON true
             LEFT JOIN LATERAL (
                 SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                             ELSE pg_current_wal_flush_lsn() END, restart_lsn)::bigint AS retained,
                        safe_wal_size, wal_status, active
                 FROM pg_replication_slots WHERE slot_name = {}) s ON true",
            literal(&self.publication),
            self.entries,
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
        let written = optional(row, "publication").and_then(|xmin| xmin.parse().ok());
        let publication = written.map(|written| Ok::<_, Error>((written, Entries::of(row)?))).transpose()?;
        let seen = Seen { end: text(row, "ends")?.parse()?, at_micros: number(row, "at")?, publication };
        *self.seen.lock() = seen;
        let mut signs = self.signs.lock();
        signs.seen = Instant::now();
        if optional(row, "active") == Some("t") {
            signs.read = signs.seen;
        }
        drop(signs);
        let retained: Option<u64> = optional(row, "retained").and_then(|n| n.parse().ok());
        let safe: Option<i64> = optional(row, "safe_wal_size").and_then(|n| n.parse().ok());
        let captured = *self.captured.lock();
        let lag = (captured.0 > 0).then(|| seen.end.0.saturating_sub(captured.0));
        self.metrics.lag_bytes.set(lag.map(|bytes| bytes as i64));
        self.metrics.retained_wal_bytes.set(retained.map(|bytes| bytes as i64));
        self.metrics.safe_wal_bytes.set(safe);
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
