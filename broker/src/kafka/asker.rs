//! A client for questions that concern no group: which topics there are, where partitions end.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};

use super::client::{Cluster, Context};
use super::options::KafkaOptions;

/// How many events a client may have to tell between two questions: attempts to connect, as a rule.
pub(super) const EVENTS_MAX: usize = 64;

/// Asks, and hears what the client has to say about its connections.
pub(super) struct Asker {
    consumer: BaseConsumer<Context>,
    cluster: Arc<Cluster>,
}

impl Asker {
    pub(super) fn open(options: &KafkaOptions, cluster: &Arc<Cluster>) -> Result<Self, KafkaError> {
        let config = options.reader(&options.reader_group());
        let consumer = BaseConsumer::from_config_and_context(&config, Context(Arc::clone(cluster)))?;
        Ok(Self { consumer, cluster: Arc::clone(cluster) })
    }

    /// Asks. Blocks as long as the question does.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&BaseConsumer<Context>) -> KafkaResult<T>) -> KafkaResult<T> {
        let answer = question(&self.consumer);
        // Why there is no connection is told by events, and only to those who poll.
        for _ in 0..if answer.is_err() { EVENTS_MAX } else { 1 } {
            drop(self.consumer.poll(Duration::ZERO));
        }
        if answer.is_ok() {
            self.cluster.answered();
        }
        answer
    }
}
