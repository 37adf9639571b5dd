//! Where partitions end once what this process appended is visible.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::TopicPartition;

/// The cluster ends every transaction by then, so what cannot be read until then is gone: somebody has made the topic anew.
const VISIBLE_BY: Duration = Duration::from_secs(90);

/// Partitions that are looked at between two appends, at most.
const LOOKED_AT_MAX: usize = 8;

/// Kafka answers a commit before readers see it. What is noted here lets this process wait for its own.
#[derive(Default)]
pub(super) struct Ends(Mutex<HashMap<TopicPartition, End>>);

struct End {
    offset: u64,
    noted: Instant,
}

impl Ends {
    /// Notes that the partition will end here or later.
    pub(super) fn note(&self, partition: &TopicPartition, end: u64) {
        let mut ends = self.0.lock();
        if ends.get(partition).is_none_or(|known| known.offset < end) {
            ends.insert(partition.clone(), End { offset: end, noted: Instant::now() });
        }
    }

    /// Partitions whose name begins so and whose end was noted longer ago than this, a few.
    pub(super) fn noted_before(&self, prefix: &str, age: Duration) -> Vec<TopicPartition> {
        let ends = self.0.lock();
        let old = ends.iter().filter(|(at, end)| at.topic.starts_with(prefix) && end.noted.elapsed() > age);
        old.map(|(at, _)| at.clone()).take(LOOKED_AT_MAX).collect()
    }

    /// Whether a partition that ends here has all that was noted.
    pub(super) fn is_reached(&self, partition: &TopicPartition, high: u64) -> bool {
        let mut ends = self.0.lock();
        match ends.get(partition) {
            Some(end) if end.offset > high && end.noted.elapsed() < VISIBLE_BY => false,
            Some(_) => {
                ends.remove(partition);
                true
            }
            None => true,
        }
    }
}
