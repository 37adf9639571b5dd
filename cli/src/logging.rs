//! Log lines: to standard error, for people or for machines.

use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;
use crate::failure::Failure;

/// Variable that sets what is logged.
const FILTER_VARIABLE: &str = "HEADWATER_LOG";

/// Starts logging at `level` where HEADWATER_LOG does not say otherwise. Only the first call counts.
pub(crate) fn start(format: LogFormat, level: &str) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Starts logging into a file.
pub(crate) fn start_in_file(path: &Path) -> Result<(), Failure> {
    let file =
        File::create(path).map_err(|error| Failure::caused(format_args!("cannot write {}", path.display()), &error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter("info")).with_ansi(false).with_target(false);
    if lines.with_writer(Mutex::new(file)).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// What HEADWATER_LOG says, or our own lines from `level` on and those of libraries from warnings on.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| {
        let ours = [
            "headwater",
            "headwater_connectors",
            "headwater_broker",
            "headwater_store",
            "headwater_projector",
            "headwater_query_api",
        ];
        let rules: Vec<String> = ours.iter().map(|name| format!("{name}={level}")).collect();
        EnvFilter::new(format!("warn,{}", rules.join(",")))
    })
}
