//! A log that takes not every name for a topic, as Kafka does.

use std::sync::Arc;

use async_trait::async_trait;
use headwater_broker::embedded::EmbeddedLog;
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Membership, Offset, Producer, TopicPartition,
    TopicSpec, Watermarks,
};

/// Refuses topics with a blank in their name: by the name, as the seam says, and when one is made, as a cluster does.
pub(crate) struct Picky(pub(crate) Arc<EmbeddedLog>);

const WHY: &str = "no blanks";

#[async_trait]
impl EventLog for Picky {
    async fn create_topics(&self, specs: &[TopicSpec]) -> Result<(), Error> {
        if let Some(spec) = specs.iter().find(|spec| self.refuses_topic(&spec.name).is_some()) {
            return Err(Error::Refused { what: "topic", name: spec.name.to_string(), why: WHY });
        }
        self.0.create_topics(specs).await
    }

    fn refuses_topic(&self, name: &str) -> Option<&'static str> {
        name.contains(' ').then_some(WHY)
    }

    async fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, Error> {
        self.0.topics().await
    }

    async fn producer(&self, name: &str) -> Result<Arc<dyn Producer>, Error> {
        self.0.producer(name).await
    }

    async fn append(&self, batches: Vec<AppendBatch>) -> Result<(), Error> {
        self.0.append(batches).await
    }

    async fn fetch(&self, from: &[FetchFrom], limits: FetchLimits) -> Result<Vec<FetchedBatch>, Error> {
        self.0.fetch(from, limits).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, Error> {
        self.0.watermarks(partition).await
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Offset, Error> {
        self.0.offset_at(partition, timestamp_ms).await
    }

    async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.0.commit_offsets(group, offsets).await
    }

    async fn committed_offsets(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        self.0.committed_offsets(group).await
    }

    async fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Box<dyn Membership>, Error> {
        self.0.join(group, topics).await
    }
}
