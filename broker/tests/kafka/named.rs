//! Many logs on one cluster that have nothing in common: names of topics, groups and producers begin with the log's.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Membership, Offset, Producer, TopicPartition,
    TopicSpec, Watermarks,
};
use tokio::sync::watch;

pub(crate) struct Named {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) name: String,
}

struct NamedProducer {
    producer: Arc<dyn Producer>,
    name: String,
}

fn to(name: &str, topic: &str) -> Arc<str> {
    format!("{name}.{topic}").into()
}

fn from(name: &str, topic: &str) -> Option<Arc<str>> {
    topic.strip_prefix(name)?.strip_prefix('.').map(Into::into)
}

fn partition_to(name: &str, partition: &TopicPartition) -> TopicPartition {
    TopicPartition { topic: to(name, &partition.topic), partition: partition.partition }
}

#[async_trait]
impl EventLog for Named {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        let named = |spec: &TopicSpec| TopicSpec { name: to(&self.name, &spec.name), ..spec.clone() };
        self.log.create_topics(&specs.iter().map(named).collect::<Vec<_>>()).await
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        let all = self.log.topics().await?;
        Ok(all.into_iter().filter_map(|(topic, count)| Some((from(&self.name, &topic)?, count))).collect())
    }

    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error> {
        let producer = self.log.producer(&to(&self.name, name)).await?;
        Ok(Arc::new(NamedProducer { producer, name: self.name.clone() }))
    }

    async fn append(&self, mut batches: Vec<AppendBatch>) -> Result<(), Error> {
        for batch in &mut batches {
            batch.to = partition_to(&self.name, &batch.to);
        }
        self.log.append(batches).await
    }

    async fn fetch(&self, wanted: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        let named =
            |wanted: &FetchFrom| FetchFrom { partition: partition_to(&self.name, &wanted.partition), ..wanted.clone() };
        let mut fetched = self.log.fetch(&wanted.iter().map(named).collect::<Vec<_>>(), limits).await?;
        for batch in &mut fetched {
            batch.from.topic = from(&self.name, &batch.from.topic).unwrap();
        }
        Ok(fetched)
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        self.log.watermarks(&partition_to(&self.name, partition)).await
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        self.log.offset_at(&partition_to(&self.name, partition), timestamp_ms).await
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let named: Vec<_> = offsets.iter().map(|(place, offset)| (partition_to(&self.name, place), *offset)).collect();
        self.log.commit_offsets(&to(&self.name, group), &named).await
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let all = self.log.committed_offsets(&to(&self.name, group)).await?;
        let own = |(place, offset): (TopicPartition, Offset)| {
            let partition = place.partition;
            Some((TopicPartition { topic: from(&self.name, &place.topic)?, partition }, offset))
        };
        Ok(all.into_iter().filter_map(own).collect())
    }

    async fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        let topics: Vec<_> = topics.iter().map(|topic| to(&self.name, topic)).collect();
        let membership = self.log.join(&to(&self.name, group), &topics).await?;
        let mut inner = membership.assigned();
        let name = self.name.clone();
        let own = move |assigned: &BTreeSet<TopicPartition>| {
            let own = |place: &TopicPartition| {
                Some(TopicPartition { topic: from(&name, &place.topic)?, partition: place.partition })
            };
            Arc::new(assigned.iter().filter_map(own).collect::<BTreeSet<_>>())
        };
        let (assign, assigned) = watch::channel(own(&inner.borrow()));
        tokio::spawn(async move {
            while inner.changed().await.is_ok() {
                let changed = own(&inner.borrow_and_update());
                assign.send_replace(changed);
            }
        });
        Ok(Box::new(NamedMembership { _membership: membership, assigned }))
    }
}

struct NamedMembership {
    _membership: Box<dyn Membership>,
    assigned: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
}

impl Membership for NamedMembership {
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>> {
        self.assigned.clone()
    }
}

#[async_trait]
impl Producer for NamedProducer {
    async fn checkpoint(&self) -> Result<Option<bytes::Bytes>, Error> {
        self.producer.checkpoint().await
    }

    async fn append(
        &self,
        mut batches: Vec<AppendBatch>,
        checkpoint: Option<bytes::Bytes>,
    ) -> Result<Vec<Offset>, Error> {
        for batch in &mut batches {
            batch.to = partition_to(&self.name, &batch.to);
        }
        self.producer.append(batches, checkpoint).await
    }

    fn offsets_of(&self, batch: &AppendBatch) -> u64 {
        self.producer.offsets_of(batch)
    }

    fn offsets_behind(&self) -> u64 {
        self.producer.offsets_behind()
    }
}
