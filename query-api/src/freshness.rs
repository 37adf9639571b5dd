//! Up to when answers are complete: the `X-Data-As-Of` header.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schemas::{ValueRef, temporal};
use headwater_store::Frontier;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The instant up to which every source is projected.
pub(crate) struct Freshness {
    frontiers: watch::Receiver<Arc<BTreeMap<String, Frontier>>>,
    /// The last instant, as it is written.
    written: Mutex<(i64, HeaderValue)>,
}

impl Freshness {
    /// Follows these frontiers.
    pub(crate) fn new(frontiers: watch::Receiver<Arc<BTreeMap<String, Frontier>>>) -> Self {
        Self { frontiers, written: Mutex::new((0, HeaderValue::from_static("1970-01-01T00:00:00Z"))) }
    }

    /// What every document read after this call is complete up to; `None` while a source's time is not known.
    pub(crate) fn as_of(&self) -> Option<HeaderValue> {
        let micros = self.frontiers.borrow().values().map(|frontier| frontier.at_micros).min()?;
        if micros <= 0 {
            return None;
        }
        let mut written = self.written.lock();
        if written.0 != micros {
            let mut text = String::with_capacity(32);
            temporal::format_into(&mut text, ValueRef::TimestampTz(micros));
            *written = (micros, HeaderValue::from_str(&text).ok()?);
        }
        Some(written.1.clone())
    }
}
