//! The embedded log with groups as Kafka has them: each partition is one member's. And it can refuse topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use headwater_broker::embedded::EmbeddedLog;
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Membership, Offset, Producer, TopicPartition,
    TopicSpec, Watermarks,
};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) struct GroupLog {
    inner: Arc<EmbeddedLog>,
    members: Arc<Mutex<BTreeMap<u64, Member>>>,
    joined: AtomicU64,
    /// Part of the names of topics that cannot be made.
    pub(crate) refused: Mutex<Option<&'static str>>,
}

struct Member {
    group: String,
    places: BTreeSet<TopicPartition>,
    assign: watch::Sender<Arc<BTreeSet<TopicPartition>>>,
}

impl GroupLog {
    pub(crate) fn new(inner: Arc<EmbeddedLog>) -> Arc<Self> {
        let (members, joined, refused) = (Arc::default(), AtomicU64::new(0), Mutex::new(None));
        Arc::new(Self { inner, members, joined, refused })
    }
}

/// Shares the partitions of a group anew, each in turn to one of those who want it.
fn share(members: &BTreeMap<u64, Member>, group: &str) {
    let members: Vec<&Member> = members.values().filter(|member| member.group == group).collect();
    let places: BTreeSet<&TopicPartition> = members.iter().flat_map(|member| &member.places).collect();
    let mut shares: Vec<BTreeSet<TopicPartition>> = vec![BTreeSet::new(); members.len()];
    for (at, place) in places.into_iter().enumerate() {
        let wanted: Vec<usize> = (0..members.len()).filter(|member| members[*member].places.contains(place)).collect();
        shares[wanted[at % wanted.len()]].insert(place.clone());
    }
    members.iter().zip(shares).for_each(|(member, share)| drop(member.assign.send_replace(Arc::new(share))));
}

struct Joined {
    members: Arc<Mutex<BTreeMap<u64, Member>>>,
    id: u64,
    assigned: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
}

impl Membership for Joined {
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>> {
        self.assigned.clone()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut members = self.members.lock();
        if let Some(member) = members.remove(&self.id) {
            share(&members, &member.group);
        }
    }
}

#[async_trait]
impl EventLog for GroupLog {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        let refused = *self.refused.lock();
        if let Some(spec) = specs.iter().find(|spec| refused.is_some_and(|part| spec.name.contains(part))) {
            let (topic, problem) = (spec.name.to_string(), "does not exist".into());
            return Err(Error::Topic { topic, problem, remedy: "make-topic".into() });
        }
        self.inner.create_topics(specs).await
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        self.inner.topics().await
    }

    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error> {
        self.inner.producer(name).await
    }

    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        self.inner.append(batches).await
    }

    async fn fetch(&self, from: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        self.inner.fetch(from, limits).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        self.inner.watermarks(partition).await
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        self.inner.offset_at(partition, timestamp_ms).await
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.inner.commit_offsets(group, offsets).await
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        self.inner.committed_offsets(group).await
    }

    async fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        let known = self.inner.topics().await?;
        let wanted = known.into_iter().filter(|(topic, _)| topics.contains(topic));
        let place = |(topic, partitions): (Arc<str>, u32)| {
            (0..partitions).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        };
        let places = wanted.flat_map(place).collect();
        let (assign, assigned) = watch::channel(Arc::default());
        let id = self.joined.fetch_add(1, Ordering::Relaxed);
        let mut members = self.members.lock();
        members.insert(id, Member { group: group.into(), places, assign });
        share(&members, group);
        Ok(Box::new(Joined { members: self.members.clone(), id, assigned }))
    }
}
