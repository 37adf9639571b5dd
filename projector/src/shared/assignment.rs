//! Which partitions are a worker's own, as the log's group says.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;

use headwater_broker::{EventLog, Membership, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::Error;

/// A membership that is renewed when other topics are wanted.
pub(crate) struct Assignment {
    group: String,
    topics: BTreeSet<Arc<str>>,
    joined: Option<Joined>,
}

struct Joined {
    /// Left when dropped.
    _membership: Box<dyn Membership>,
    assigned: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
}

impl Assignment {
    pub(crate) fn new(group: String) -> Self {
        Self { group, topics: BTreeSet::new(), joined: None }
    }

    /// Makes these the wanted topics.
    pub(crate) fn join(
        &mut self,
        log: &dyn EventLog,
        runtime: &Handle,
        topics: BTreeSet<Arc<str>>,
    ) -> Result<(), Error> {
        if self.topics == topics && (self.joined.is_some() || topics.is_empty()) {
            return Ok(());
        }
        // Left first: a partition must not be given to ourselves twice.
        self.joined = None;
        if !topics.is_empty() {
            let list: Vec<Arc<str>> = topics.iter().cloned().collect();
            let membership = runtime.block_on(log.join(&self.group, &list))?;
            let mut assigned = membership.assigned();
            assigned.mark_changed();
            self.joined = Some(Joined { _membership: membership, assigned });
        }
        self.topics = topics;
        Ok(())
    }

    /// Gives all partitions up to the other members, until the next [`Self::join`].
    pub(crate) fn leave(&mut self) {
        self.joined = None;
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// What is assigned now; later changes are told by [`Self::changed`].
    pub(crate) fn take(&mut self) -> BTreeSet<TopicPartition> {
        let assigned = self.joined.as_mut().map(|joined| BTreeSet::clone(&joined.assigned.borrow_and_update()));
        assigned.unwrap_or_default()
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.joined.as_ref().is_some_and(|joined| joined.assigned.has_changed().unwrap_or(false))
    }

    /// Waits until something else is assigned than [`Self::take`] answered. Dropped without effect: a change is seen again.
    pub(crate) async fn changed(&mut self) {
        match &mut self.joined {
            Some(joined) => {
                if joined.assigned.changed().await.is_err() {
                    pending::<()>().await;
                }
                joined.assigned.mark_changed();
            }
            None => pending().await,
        }
    }
}
