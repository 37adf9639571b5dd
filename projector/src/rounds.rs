//! What the thread of a projector does, whether it works alone or shares: it goes on after errors that may pass, waits for
//! the log, notes how far it has read, and answers who asked.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_broker::{EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::handle::{Command, Shared};
use crate::records::Input;
use crate::times::Times;
use crate::{Error, ErrorKind, ProjectorMetrics};

/// What waiting for the log ended with.
pub(crate) enum Woken {
    Fetched(Vec<FetchedBatch>),
    Asked(Command),
    Cancelled,
}

/// Pauses after errors that may pass, each twice as long as the one before.
pub(crate) struct BackOff {
    range: (Duration, Duration),
    pause: Duration,
}

impl BackOff {
    /// From the first of these pauses up to the second.
    pub(crate) fn new(range: (Duration, Duration)) -> Self {
        Self { range, pause: range.0 }
    }

    /// Something went well: the next error is the first.
    pub(crate) fn reset(&mut self) {
        self.pause = self.range.0;
    }

    /// Shows an error in the status, and tells how long to pause; an error that trying again cannot mend comes back.
    pub(crate) fn after(
        &mut self,
        error: Error,
        shared: &Shared,
        metrics: &ProjectorMetrics,
    ) -> Result<Duration, Error> {
        shared.status.lock().last_error = Some(explained(&error));
        if error.kind() == ErrorKind::Fatal {
            tracing::error!(error = explained(&error), "projector stops");
            return Err(error);
        }
        let pause = self.pause;
        tracing::warn!(error = explained(&error), again_in = ?pause, "projector tries again");
        metrics.retries.inc();
        self.pause = (pause * 2).min(self.range.1);
        Ok(pause)
    }
}

/// Waits so long, or until it is cancelled.
pub(crate) fn pause(runtime: &Handle, cancel: &CancellationToken, time: Duration) {
    runtime.block_on(async {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    });
}

/// Fetches what there is at these places, or waits as long where there are none. May be dropped: a fetch changes nothing.
pub(crate) async fn fetch<'p>(
    log: &dyn EventLog,
    places: impl Iterator<Item = (&'p TopicPartition, &'p Offset)>,
    limits: FetchLimits,
) -> Result<Vec<FetchedBatch>, Error> {
    let from: Vec<FetchFrom> =
        places.map(|(partition, offset)| FetchFrom { partition: partition.clone(), offset: *offset }).collect();
    if from.is_empty() {
        tokio::time::sleep(limits.wait_max).await;
        return Ok(Vec::new());
    }
    Ok(log.fetch(&from, limits).await?)
}

/// Notes that these records were read: where to read on, and when the last of each place was written.
pub(crate) fn passed(
    inputs: &[Input<'_>],
    next: &mut BTreeMap<TopicPartition, Offset>,
    times: &mut Times,
    metrics: &ProjectorMetrics,
) {
    for input in inputs {
        let from = &input.batch.from;
        next.insert(from.clone(), input.next());
        if let Some(at) = input.written_at() {
            times.folded(from, at);
        }
        // A batch that is read in parts counts with the first.
        if input.skip == 0 {
            metrics.events_bytes.inc_by(input.batch.byte_len() as u64);
        }
    }
}

/// Answers who asked. What was wrong about the request is the asker's; what stops the projector is ours.
pub(crate) fn answer<T>(to: oneshot::Sender<Result<T, Error>>, result: Result<T, Error>) -> Result<(), Error> {
    let (answer, ours) = match result {
        Err(error) if error.kind() == ErrorKind::Fatal => (Err(Error::Stopped), Err(error)),
        result => (result, Ok(())),
    };
    // An asker that has gone away does not mind.
    drop(to.send(answer));
    ours
}

/// An error with its causes.
pub(crate) fn explained(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
