//! How far behind in time a reader of the log is.
//!
//! Told by what is seen anyway, twice a second and with each batch, without reading a record for it.

use std::collections::BTreeMap;

use headwater_broker::{FetchedBatch, Offset, TopicPartition};

/// The times of partitions that are read, milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Times(BTreeMap<TopicPartition, Place>);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Everything that was written before this is folded; `None` before that is known.
    folded_to: Option<i64>,
    /// Where the partition ended when it was last seen to have grown, and when that was. Its newest record is as old.
    grown: (Offset, i64),
}

impl Times {
    /// Notes what is about to be folded: the first of it tells how far behind a reader is who has just begun.
    pub(crate) fn met(&mut self, batches: &[FetchedBatch]) {
        for batch in batches {
            if let Some(first) = batch.records().next() {
                self.place(&batch.from).folded_to.get_or_insert(first.timestamp_ms);
            }
        }
    }

    /// Notes that a record of this time is folded.
    pub(crate) fn folded(&mut self, at: &TopicPartition, written_at: i64) {
        self.place(at).folded_to = Some(written_at);
    }

    /// Seconds between what was folded last and the newest record; 0 for a reader who stands at the end. `None` while nothing
    /// of the partition was met.
    pub(crate) fn lag_seconds(&mut self, at: &TopicPartition, next: Offset, high: Offset, now: i64) -> Option<f64> {
        let place = self.place(at);
        if high > place.grown.0 || place.grown.1 == 0 {
            place.grown = (high, now);
        }
        if next >= high {
            // What comes later was not there now, however old the last record is.
            place.folded_to = Some(now);
            return Some(0.0);
        }
        place.folded_to.map(|folded| place.grown.1.saturating_sub(folded).max(0) as f64 / 1000.0)
    }

    fn place(&mut self, at: &TopicPartition) -> &mut Place {
        // Not by `entry`, which wants a key of its own for each look.
        if !self.0.contains_key(at) {
            self.0.insert(at.clone(), Place::default());
        }
        self.0.get_mut(at).expect("it was just put there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_as_late_as_the_newest_record_is_younger_than_what_it_folded() {
        let at = TopicPartition { topic: "t".into(), partition: 0 };
        let mut times = Times::default();
        let lag = |times: &mut Times, next, high, now| times.lag_seconds(&at, Offset(next), Offset(high), now);
        assert_eq!(lag(&mut times, 3, 9, 100_000), None, "nothing was met");
        times.folded(&at, 40_000);
        assert_eq!(lag(&mut times, 5, 9, 100_000), Some(60.0));
        // Time goes on, and nothing is written.
        assert_eq!(lag(&mut times, 5, 9, 300_000), Some(60.0));
        assert_eq!(lag(&mut times, 5, 10, 400_000), Some(360.0));
        assert_eq!(lag(&mut times, 10, 10, 500_000), Some(0.0));
        // An hour without changes is no lag of the first one after it.
        assert_eq!(lag(&mut times, 10, 10, 4_100_000), Some(0.0));
        assert_eq!(lag(&mut times, 10, 11, 4_100_500), Some(0.5));
    }
}
