//! The one way from a source into the log: gather, append, and only when durable tell the source.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_broker::{EventLog, Retention};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cut::Refused;
use crate::metrics::{CaptureMetrics, SourceMetrics};
use crate::postgres::PostgresSource;
use crate::session::Session;
use crate::status::{Phase, SourceStatus, StatusCell};
use crate::{ConnectorConfig, Error, ErrorKind, Source};

/// How events are put into the log.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Begins the name of every topic.
    pub prefix: String,
    /// Partitions of each new topic, at least 1.
    pub partitions: u32,
    /// What the topics of change events may lose.
    pub retention: Retention,
}

/// A running connector. Dropping the handle does not stop it: cancel its token.
#[derive(Debug)]
pub struct CaptureHandle {
    status: StatusCell,
    task: JoinHandle<Result<(), Error>>,
}

impl CaptureHandle {
    /// How it is doing.
    pub fn status(&self) -> SourceStatus {
        self.status.read()
    }

    /// A way to ask for the status that outlives the handle.
    pub fn status_reader(&self) -> impl Fn() -> SourceStatus + Send + Sync + Clone + 'static {
        let status = self.status.clone();
        move || status.read()
    }

    /// Whether it ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it ends: after cancellation with everything gathered durable, or with the error that stopped it.
    pub async fn join(self) -> Result<(), Error> {
        self.task.await.unwrap_or(Err(Error::TaskLost { what: "captures a source" }))
    }
}

/// Captures a source until `cancel` is cancelled or going on would be unsafe. Everything else is tried again for ever;
/// see [`CaptureHandle::status`]. Must be called within a tokio runtime.
pub fn start(
    config: ConnectorConfig,
    options: CaptureOptions,
    log: Arc<dyn EventLog>,
    metrics: CaptureMetrics,
    cancel: CancellationToken,
) -> CaptureHandle {
    let status = StatusCell::new(&config.source);
    let metrics = metrics.of(&config.source);
    let source = PostgresSource::new(config.clone(), status.clone(), metrics.clone());
    start_source(&config.source, Box::new(source), options, log, status, metrics, cancel)
}

/// [`start`] for any source.
pub(crate) fn start_source(
    name: &str,
    mut source: Box<dyn Source>,
    options: CaptureOptions,
    log: Arc<dyn EventLog>,
    status: StatusCell,
    metrics: SourceMetrics,
    cancel: CancellationToken,
) -> CaptureHandle {
    let (name, shared) = (name.to_owned(), status.clone());
    tokio::spawn(tell_age(status.clone(), metrics.clone(), cancel.clone()));
    let task = tokio::spawn(async move {
        let mut attempt = 0;
        let mut refused = Refused::default();
        loop {
            let mut session = Session::new(&name, source.as_mut(), &options, &log, &status, &metrics, &refused);
            let ended = session.run(&cancel).await;
            metrics.streaming.set(0);
            // What somebody has to mend first is not there sooner for being asked more often.
            if session.made_progress() && !matches!(ended, Err(Error::NotReady { .. })) {
                attempt = 0;
            }
            let error = match ended {
                Ok(()) => {
                    status.set_phase(Phase::Stopped { error: None });
                    return Ok(());
                }
                // It is cut when it comes again.
                Err(error) if refused.note(&error) => error,
                Err(error) if error.kind() == ErrorKind::Fatal => {
                    tracing::error!(source = name, error = error.chain(), "capture stopped");
                    status.set_phase(Phase::Stopped { error: Some(error.chain()) });
                    return Err(error);
                }
                Err(error) => error,
            };
            attempt += 1;
            let pause = back_off(attempt);
            let next_in_ms = pause.as_millis() as u64;
            metrics.retries.inc();
            tracing::warn!(source = name, error = error.chain(), attempt, next_in_ms, "capture will be tried again");
            status.set_phase(Phase::Retrying { error: error.chain(), attempt, next_in_ms });
            // Neither arm holds anything that dropping could lose.
            tokio::select! {
                () = cancel.cancelled() => {
                    status.set_phase(Phase::Stopped { error: None });
                    return Ok(());
                }
                () = tokio::time::sleep(pause) => status.set_phase(Phase::Connecting),
            }
        }
    });
    CaptureHandle { status: shared, task }
}

/// How often the age of what is captured is told.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// Keeps the age of the captured state true while nothing is captured: cut off from the source, or stopped for good. An
/// alarm on it would otherwise be silent just then. Tells how many tables are refused, too.
async fn tell_age(status: StatusCell, metrics: SourceMetrics, cancel: CancellationToken) {
    loop {
        // Neither arm holds anything.
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(AGE_EVERY) => {}
        }
        let status = status.read();
        metrics.refused_tables.set(i64::try_from(status.refused_tables.len()).unwrap_or(i64::MAX));
        if let Some(at_micros) = status.complete_at_micros {
            metrics.tell_age_of(at_micros);
        }
    }
}

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Doubles with every attempt up to a limit, less up to a quarter so that many connectors do not return at one moment.
fn back_off(attempt: u32) -> Duration {
    let pause = PAUSE_FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(PAUSE_MAX);
    let noise = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    pause - pause / 4 * (noise % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert!(back_off(1) <= PAUSE_FIRST && back_off(1) >= PAUSE_FIRST / 2);
        assert!(back_off(40) <= PAUSE_MAX && back_off(40) >= PAUSE_MAX / 2);
    }
}
