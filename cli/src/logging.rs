//! Log lines: to standard error, for people or for machines.

use std::env::VarError;
use std::fmt::Display;
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
///
/// # Errors
///
/// With status 2 when HEADWATER_LOG cannot be understood; logging was started at `level` then, so that this can be told in
/// it.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), Failure> {
    let (filter, wrong) = filter(level);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    wrong.map_or(Ok(()), Err)
}

/// Starts logging into a file; errors as for [`start`], and when it cannot be written.
pub(crate) fn start_in_file(path: &Path) -> Result<(), Failure> {
    let (filter, wrong) = filter("info");
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let file =
        File::create(path).map_err(|error| Failure::caused(format_args!("cannot write {}", path.display()), &error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false);
    if lines.with_writer(Mutex::new(file)).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// What HEADWATER_LOG says, or our own lines from `level` on and those of libraries from warnings on; in the latter case
/// also why what it says was not taken.
fn filter(level: &str) -> (EnvFilter, Option<Failure>) {
    let wrong = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => return (filter, None),
            Err(error) => Some(misunderstood(&text, &error)),
        },
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(text)) => Some(misunderstood(&text.to_string_lossy(), &"it is not UTF-8")),
    };
    let ours = [
        "headwater",
        "headwater_connectors",
        "headwater_broker",
        "headwater_store",
        "headwater_projector",
        "headwater_query_api",
    ];
    let rules: Vec<String> = ours.iter().map(|name| format!("{name}={level}")).collect();
    (EnvFilter::new(format!("warn,{}", rules.join(","))), wrong)
}

fn misunderstood(text: &str, why: &dyn Display) -> Failure {
    Failure::new(format_args!(
        "{FILTER_VARIABLE}=`{text}` cannot be understood: {why}; write a level, or levels of modules like \
         `info,headwater_connectors=debug`"
    ))
    .with_status(2)
}
