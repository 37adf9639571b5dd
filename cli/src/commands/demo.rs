//! `headwater demo`: everything at once, to look at.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use super::block_on;
use crate::arguments::{DemoArguments, Global};
use crate::demo::{self, DemoFolder, DemoOptions};
use crate::failure::{Failure, Outcome};
use crate::logging;

pub(super) fn execute(global: &Global, arguments: DemoArguments) -> Outcome {
    let database = arguments.database_url.as_deref().map(str::parse).transpose().map_err(|error| {
        Failure::caused("--database-url is not the URL of a PostgreSQL database", &error).with_status(2)
    })?;
    let folder = DemoFolder::new()?;
    if std::io::stdout().is_terminal() {
        // Log lines would tear the live view apart.
        logging::start_in_file(&folder.path().join("headwater.log"))?;
    } else {
        logging::start(global.log_format, "warn")?;
    }
    let options = DemoOptions {
        database,
        kafka: arguments.kafka,
        mongodb: arguments.mongodb,
        rate: arguments.rate,
        duration: arguments.seconds.map(Duration::from_secs),
        port: arguments.port,
        admin_port: arguments.admin_port,
    };
    block_on(|stop| async move {
        demo::run(options, folder, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
