//! Where partitions end once what this process appended is visible.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::TopicPartition;

/// Kafka answers a commit before readers see it. What is noted here lets this process wait for its own.
#[derive(Default)]
pub(super) struct Ends(Mutex<HashMap<TopicPartition, u64>>);

impl Ends {
    /// Notes that the partition will end here or later.
    pub(super) fn note(&self, partition: &TopicPartition, end: u64) {
        let mut ends = self.0.lock();
        match ends.get_mut(partition) {
            Some(known) => *known = end.max(*known),
            None => {
                ends.insert(partition.clone(), end);
            }
        }
    }

    /// Whether a partition that ends here has all that was noted.
    pub(super) fn is_reached(&self, partition: &TopicPartition, high: u64) -> bool {
        let mut ends = self.0.lock();
        match ends.get(partition) {
            Some(end) if *end > high => false,
            Some(_) => {
                ends.remove(partition);
                true
            }
            None => true,
        }
    }
}
