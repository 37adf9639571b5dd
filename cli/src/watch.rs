//! Whether the broker answers, where it is in another place: asked every few seconds, so that probes tell it from memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::EventLog;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::failure::chain;

const ASK_EVERY: Duration = Duration::from_secs(2);

/// Asks a log for as long as it is held.
pub(crate) struct LogWatch {
    heard: Arc<Mutex<Heard>>,
    asking: JoinHandle<()>,
}

struct Heard {
    last: Instant,
    /// What went wrong since.
    trouble: Option<String>,
}

impl LogWatch {
    /// Begins with a log that has just answered.
    pub(crate) fn start(log: Arc<dyn EventLog>) -> Self {
        let heard = Arc::new(Mutex::new(Heard { last: Instant::now(), trouble: None }));
        let told = heard.clone();
        let asking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                match log.topics().await {
                    Ok(_) => *told.lock() = Heard { last: Instant::now(), trouble: None },
                    Err(error) => told.lock().trouble = Some(chain(&error)),
                }
            }
        });
        Self { heard, asking }
    }

    /// For how long there was no answer, and why, if that is known.
    pub(crate) fn silent_for(&self) -> (Duration, Option<String>) {
        let heard = self.heard.lock();
        (heard.last.elapsed(), heard.trouble.clone())
    }
}

impl Drop for LogWatch {
    fn drop(&mut self) {
        self.asking.abort();
    }
}
