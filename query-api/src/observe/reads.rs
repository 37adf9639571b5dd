//! What one request reads, and how long its parts took.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;

/// What a request reads. It lies within the request's context and costs no allocation; the clock is looked at only where
/// times are asked for.
#[derive(Debug)]
pub(crate) struct Reads {
    /// When the request came and when it was let in, where times are asked for.
    since: Option<(Instant, Instant)>,
    /// Documents the store handed over.
    documents: AtomicU64,
    /// Nanoseconds from the start to the first read; 0: there was none.
    first: AtomicU64,
    /// Nanoseconds the store took, all reads together.
    took: AtomicU64,
    /// The GraphQL operation, without its values.
    operation: OnceLock<Arc<str>>,
}

impl Reads {
    /// Of a request that came at `started` and is let in now; `timed`: whether times are asked for.
    pub(crate) fn new(started: Instant, timed: bool) -> Self {
        Self {
            since: timed.then(|| (started, Instant::now())),
            documents: AtomicU64::new(0),
            first: AtomicU64::new(0),
            took: AtomicU64::new(0),
            operation: OnceLock::new(),
        }
    }

    /// The store is about to be asked.
    pub(crate) fn begin(&self) -> Option<Instant> {
        let (started, _) = self.since?;
        let now = Instant::now();
        let since = nanos(now - started).max(1);
        // Only the first one counts; whether another thread was first makes no difference worth an order.
        let _ = self.first.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
        Some(now)
    }

    /// The store answered what was begun, with so many documents.
    pub(crate) fn end(&self, begun: Option<Instant>, documents: usize) {
        self.documents.fetch_add(documents as u64, Ordering::Relaxed);
        if let Some(begun) = begun {
            self.took.fetch_add(nanos(begun.elapsed()), Ordering::Relaxed);
        }
    }

    /// Documents the store handed over until now.
    pub(crate) fn documents(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    /// Notes the GraphQL operation, as it is without values. Only the first one is kept.
    pub(crate) fn note_operation(&self, operation: &Arc<str>) {
        let _ = self.operation.set(operation.clone());
    }

    /// The GraphQL operation, where it is one.
    pub(crate) fn operation(&self) -> Option<&str> {
        self.operation.get().map(|operation| &**operation)
    }

    /// Value of `Server-Timing`; `None` where times are not asked for.
    pub(crate) fn server_timing(&self) -> Option<HeaderValue> {
        let (started, admitted) = self.since?;
        let total = started.elapsed();
        let authorize = admitted - started;
        let read = Duration::from_nanos(self.took.load(Ordering::Relaxed));
        let parse = match self.first.load(Ordering::Relaxed) {
            0 => total.saturating_sub(authorize),
            first => Duration::from_nanos(first).saturating_sub(authorize),
        };
        let write = total.saturating_sub(authorize + parse + read);
        let mut text = String::with_capacity(120);
        let parts = [("authorize", authorize), ("parse", parse), ("read", read), ("write", write), ("total", total)];
        for (at, (name, took)) in parts.into_iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{name};dur={:.3}", took.as_secs_f64() * 1e3);
        }
        HeaderValue::try_from(text).ok()
    }
}

impl Clone for Reads {
    /// That of a stream that goes on behind the request: nothing is read yet, and no times are asked for.
    fn clone(&self) -> Self {
        Self::new(Instant::now(), false)
    }
}

fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_where_they_are_asked_for() {
        let reads = Reads::new(Instant::now(), false);
        let begun = reads.begin();
        reads.end(begun, 3);
        assert_eq!((begun, reads.documents(), reads.server_timing()), (None, 3, None));

        let reads = Reads::new(Instant::now(), true);
        let begun = reads.begin();
        std::thread::sleep(Duration::from_millis(2));
        reads.end(begun, 1);
        let text = reads.server_timing().expect("it is asked for");
        let text = text.to_str().expect("ASCII");
        let parts: Vec<(&str, f64)> = text
            .split(", ")
            .map(|part| part.split_once(";dur=").expect("a duration"))
            .map(|(name, ms)| (name, ms.parse().expect("a number")))
            .collect();
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["authorize", "parse", "read", "write", "total"]);
        assert!(parts[2].1 >= 2.0 && parts[4].1 >= parts[2].1, "{text}");
    }
}
