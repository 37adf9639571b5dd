//! A billing department at work: changes the example's database at a chosen rate, from several connections.

mod changes;
mod session;
mod spotlight;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use self::changes::Change;
use self::session::Session;
pub(crate) use self::spotlight::Spotlight;
use crate::failure::{Failure, chain};

/// Tables of the example.
pub(crate) const SCHEMA_SQL: &str = include_str!("../../../examples/billing/schema.sql");
/// First rows of the example.
pub(crate) const SEED_SQL: &str = include_str!("../../../examples/billing/seed.sql");

/// The customer of [`Spotlight`], whom merges leave alone.
pub(crate) const SPOTLIGHT_CUSTOMER: i32 = 7;

/// Transactions that may fail one after another before it is taken as more than a conflict.
const FAILURES_MAX: u32 = 50;

/// How hard it works.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadOptions {
    /// The database.
    pub(crate) database: tokio_postgres::Config,
    /// Changed rows per second over all connections; 0: as many as go.
    pub(crate) rate: u32,
    /// How long; for ever where there is no end.
    pub(crate) duration: Option<Duration>,
    /// Connections.
    pub(crate) connections: u16,
    /// Fixes the choices.
    pub(crate) seed: u64,
}

/// What it has done so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rows inserted, updated or deleted, and committed.
    pub(crate) rows: AtomicU64,
    /// Transactions committed.
    pub(crate) transactions: AtomicU64,
    /// Transactions given up because of a conflict with another connection.
    pub(crate) conflicts: AtomicU64,
}

/// Numbers that all connections draw from, so that no two take the same.
#[derive(Debug)]
struct Counters {
    customer: AtomicI32,
    account: AtomicI32,
    invoice: AtomicI32,
    payment: AtomicI64,
}

/// Connects; the task that drives the connection ends with the client.
pub(crate) async fn connect(database: &tokio_postgres::Config) -> Result<Client, Failure> {
    let (client, connection) = database.connect(NoTls).await.map_err(|error| {
        Failure::new(format_args!(
            "cannot connect to the database: {}; is it running, and the URL right?",
            chain(&error)
        ))
    })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %chain(&error), "a connection of the workload ended");
        }
    });
    Ok(client)
}

/// Creates the example's tables and first rows in an empty database.
pub(crate) async fn create(database: &tokio_postgres::Config) -> Result<(), Failure> {
    let client = connect(database).await?;
    for (what, sql) in [("create the example's tables", SCHEMA_SQL), ("fill them", SEED_SQL)] {
        let all = format!("BEGIN;\n{sql}\nCOMMIT;");
        client.batch_execute(&all).await.map_err(|error| Failure::caused(format_args!("cannot {what}"), &error))?;
    }
    Ok(())
}

/// Works until the time is over or `cancel`.
pub(crate) async fn work(
    options: WorkloadOptions,
    tally: Arc<Tally>,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let client = connect(&options.database).await?;
    let counters = Arc::new(count(&client).await?);
    let end = options.duration.map(|duration| Instant::now() + duration);
    let mut tasks = JoinSet::new();
    for number in 0..options.connections {
        let mut session = Session::new(connect(&options.database).await?);
        let mut random = StdRng::seed_from_u64(options.seed.wrapping_add(u64::from(number)));
        let (counters, tally, cancel) = (counters.clone(), tally.clone(), cancel.clone());
        let pace = Pace::new(f64::from(options.rate) / f64::from(options.connections));
        tasks.spawn(async move {
            let mut failures = 0;
            let mut done = 0;
            while !cancel.is_cancelled() && end.is_none_or(|end| Instant::now() < end) {
                match Change::choose(&mut random).apply(&mut session, &mut random, &counters).await {
                    Ok(rows) => {
                        failures = 0;
                        done += rows;
                        tally.rows.fetch_add(rows, Ordering::Relaxed);
                        tally.transactions.fetch_add(u64::from(rows > 0), Ordering::Relaxed);
                    }
                    Err(error) => {
                        failures += 1;
                        if failures == FAILURES_MAX || !is_conflict(&error) {
                            return Err(Failure::caused("the workload cannot go on", &error));
                        }
                        tally.conflicts.fetch_add(1, Ordering::Relaxed);
                        session.roll_back().await;
                    }
                }
                tokio::select! {
                    () = pace.wait(done, end) => {}
                    () = cancel.cancelled() => {}
                }
            }
            Ok(())
        });
    }
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(Failure::caused("the workload broke", &error)));
        outcome = outcome.and(ended);
    }
    // A stop in the middle of a statement shows as an error of that statement only.
    if cancel.is_cancelled() { Ok(()) } else { outcome }
}

/// Two connections wanted the same: the loser tries something else.
fn is_conflict(error: &tokio_postgres::Error) -> bool {
    let conflicts = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::UNIQUE_VIOLATION];
    error.code().is_some_and(|code| conflicts.contains(code))
}

async fn count(client: &Client) -> Result<Counters, Failure> {
    let sql = "SELECT (SELECT coalesce(max(cust_no), 0) FROM cust), (SELECT coalesce(max(acct_no), 0) FROM acct), \
               (SELECT coalesce(max(inv_no), 0) FROM inv_hdr), (SELECT coalesce(max(pmt_id), 0) FROM paymt)";
    let row = client.query_one(sql, &[]).await.map_err(|error| {
        Failure::caused(
            "this database does not hold the billing example (`headwater workload --create` makes it)",
            &error,
        )
    })?;
    Ok(Counters {
        customer: AtomicI32::new(row.get(0)),
        account: AtomicI32::new(row.get(1)),
        invoice: AtomicI32::new(row.get(2)),
        payment: AtomicI64::new(row.get(3)),
    })
}

/// Keeps to a number of rows per second, counted from the start so that delays are made good.
struct Pace {
    start: Instant,
    rows_per_second: f64,
}

impl Pace {
    fn new(rows_per_second: f64) -> Self {
        Self { start: Instant::now(), rows_per_second }
    }

    /// Waits until so many rows are due, but not beyond `end`.
    async fn wait(&self, done: u64, end: Option<Instant>) {
        if self.rows_per_second > 0.0 {
            let due = self.start + Duration::from_secs_f64(done as f64 / self.rows_per_second);
            tokio::time::sleep_until(end.map_or(due, |end| due.min(end)).into()).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}
