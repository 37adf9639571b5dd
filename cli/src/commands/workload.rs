//! `headwater workload`: the example's users, by themselves.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::block_on;
use crate::arguments::{Global, WorkloadArguments};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::output::say;
use crate::workload::{Tally, WorkloadOptions, create, work};

pub(super) fn execute(global: &Global, arguments: &WorkloadArguments) -> Outcome {
    logging::start(global.log_format, "info")?;
    let database: tokio_postgres::Config = arguments.database_url.parse().map_err(|error| {
        Failure::caused("--database-url is not the URL of a PostgreSQL database", &error).with_status(2)
    })?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let options = WorkloadOptions {
        database,
        rate: arguments.rate,
        duration: arguments.seconds.map(Duration::from_secs),
        connections: arguments.connections,
        seed,
    };
    block_on(|stop| async move {
        if arguments.create {
            create(&options.database).await?;
        }
        let tally = Arc::new(Tally::default());
        let start = Instant::now();
        work(options, tally.clone(), stop).await?;
        if !arguments.quiet {
            let rows = tally.rows.load(Ordering::Relaxed);
            say!(
                "{rows} rows changed in {} transactions, {:.0} rows/s; {} given up in conflicts; --seed {seed}",
                tally.transactions.load(Ordering::Relaxed),
                rows as f64 / start.elapsed().as_secs_f64(),
                tally.conflicts.load(Ordering::Relaxed),
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}
