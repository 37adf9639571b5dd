//! Headwater's command line and the one process in which all roles run.
//!
//! [`main`] reads the arguments and hands over to one module of `commands`. The process itself, with all roles in it, is
//! put together in `pipeline`. What is configured is in `config`; the example's workload is in `workload`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod client;
mod commands;
mod config;
mod control;
mod crash;
mod demo;
mod engines;
mod failure;
mod gauges;
mod logging;
mod output;
mod pipeline;
mod preflight;
mod report;
mod roles;
mod table;
mod verify;
mod watch;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use self::arguments::{Arguments, LogFormat};
pub use self::config::settings_json_schema;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Where lines are for machines, the last one of a process that runs for long is one of them.
    let as_line = arguments.command.is_role() && arguments.global.log_format == LogFormat::Json;
    match commands::execute(arguments) {
        Ok(code) => code,
        Err(failure) => {
            if as_line && tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!(status = failure.status(), "{failure}");
            } else {
                // Written whole, so that it is not torn apart by log lines.
                eprintln!("headwater: {failure}");
            }
            failure.exit_code()
        }
    }
}
