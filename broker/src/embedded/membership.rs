//! The place in a group of the only process there is: everything is its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::core::Core;
use crate::{Membership, TopicPartition};

/// How often it looks for topics that were made.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct EmbeddedMembership {
    assigned: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
    looking: JoinHandle<()>,
}

impl EmbeddedMembership {
    pub(super) fn new(core: &Arc<Core>, topics: Vec<Arc<str>>) -> Self {
        let (assign, assigned) = watch::channel(Arc::new(partitions(core, &topics)));
        let core: Weak<Core> = Arc::downgrade(core);
        let looking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Some(core) = core.upgrade() else { return };
                let found = partitions(&core, &topics);
                assign.send_if_modified(|known| {
                    let changed = **known != found;
                    if changed {
                        *known = Arc::new(found);
                    }
                    changed
                });
            }
        });
        Self { assigned, looking }
    }
}

fn partitions(core: &Core, topics: &[Arc<str>]) -> BTreeSet<TopicPartition> {
    let known = core.topics.read();
    let of = |topic: &Arc<str>| known.by_name.get(topic).map(|row| (Arc::clone(topic), row.partitions));
    let partitions = |(topic, count): (Arc<str>, u32)| {
        (0..count).map(move |partition| TopicPartition { topic: topic.clone(), partition })
    };
    topics.iter().filter_map(of).flat_map(partitions).collect()
}

impl Membership for EmbeddedMembership {
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>> {
        self.assigned.clone()
    }
}

impl Drop for EmbeddedMembership {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
