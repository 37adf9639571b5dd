//! What the log says about itself: its topics, the ends of partitions, the number of dead letters.
//!
//! That takes several questions to a log which may be far away, so they are asked beside the projector's thread: it takes
//! the answers when they are there, and folds meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::{ErrorKind, EventLog, Offset, TopicPartition};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::Error;
use crate::dead_letters::{Counted, LetterCount};

/// Pause between the end of an observation and the next.
const PAUSE: Duration = Duration::from_millis(500);

/// The log at one moment, or rather some moments close together.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// Topics and how many partitions each has.
    pub(crate) topics: Vec<(Arc<str>, u32)>,
    /// High watermarks of the partitions that were asked for, as far as they are known.
    pub(crate) ends: BTreeMap<TopicPartition, Offset>,
    /// Dead letters.
    pub(crate) letters: Counted,
}

/// Observes the log, one observation at a time.
pub(crate) struct Observer {
    log: Arc<dyn EventLog>,
    runtime: Handle,
    letters: Arc<tokio::sync::Mutex<LetterCount>>,
    running: Option<JoinHandle<Result<Observation, Error>>>,
    ended: Instant,
}

impl Observer {
    pub(crate) fn new(log: Arc<dyn EventLog>, prefix: &str, runtime: Handle) -> Self {
        let letters = Arc::new(tokio::sync::Mutex::new(LetterCount::new(prefix)));
        Self { log, runtime, letters, running: None, ended: Instant::now() }
    }

    /// Observes now, and waits for it.
    pub(crate) fn observe<'p>(
        &mut self,
        places: impl Iterator<Item = &'p TopicPartition>,
    ) -> Result<Observation, Error> {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        let (log, letters, places) = (self.log.clone(), self.letters.clone(), places.cloned().collect());
        let observed = self.runtime.block_on(observe(log, letters, places));
        self.ended = Instant::now();
        observed
    }

    /// The observation that was finished since the last call, if any. Begins the next when it is time.
    pub(crate) fn poll<'p>(
        &mut self,
        places: impl Iterator<Item = &'p TopicPartition>,
    ) -> Result<Option<Observation>, Error> {
        match self.running.take() {
            Some(running) if running.is_finished() => {
                self.ended = Instant::now();
                match self.runtime.block_on(running) {
                    Ok(observed) => observed.map(Some),
                    Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                    // The runtime is shutting down.
                    Err(_) => Ok(None),
                }
            }
            Some(running) => {
                self.running = Some(running);
                Ok(None)
            }
            None if self.ended.elapsed() >= PAUSE => {
                let (log, letters, places) = (self.log.clone(), self.letters.clone(), places.cloned().collect());
                self.running = Some(self.runtime.spawn(observe(log, letters, places)));
                Ok(None)
            }
            None => Ok(None),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn observe(
    log: Arc<dyn EventLog>,
    letters: Arc<tokio::sync::Mutex<LetterCount>>,
    places: Vec<TopicPartition>,
) -> Result<Observation, Error> {
    let topics = log.topics().await?;
    let mut ends = BTreeMap::new();
    for place in places {
        match log.watermarks(&place).await {
            Ok(marks) => {
                ends.insert(place, marks.high);
            }
            // Only the lag is told by it. What is away altogether is found out by reading.
            Err(error) if error.kind() == ErrorKind::Retryable => {
                tracing::debug!(%place, %error, "the end of a partition is not known");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let letters = letters.lock().await.bring_up_to_date(&*log, &topics).await?;
    Ok(Observation { topics, ends, letters })
}
