//! A place in a consumer group that shares partitions and reads nothing: it only says that it is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;

use super::client::{Cluster, Context};
use super::options::KafkaOptions;
use crate::{Error, Membership, TopicPartition};

const ACTION: &str = "join a group";

pub(super) struct KafkaMembership {
    assigned: watch::Receiver<Arc<BTreeSet<TopicPartition>>>,
    left: Arc<AtomicBool>,
}

impl KafkaMembership {
    /// Joins, in the background.
    pub(super) fn join(
        options: &KafkaOptions,
        cluster: &Arc<Cluster>,
        group: &str,
        topics: &[Arc<str>],
        rebalances: Counter,
    ) -> Result<Self, Error> {
        let failed = |e| cluster.error(ACTION, e);
        let (assign, assigned) = watch::channel(Arc::default());
        // Offsets are committed by one that is no member, which Kafka allows only in a group without members.
        let group = format!("{group}.members");
        let config = options.member(&group);
        let context = Assign { context: Context(Arc::clone(cluster)), assign, rebalances };
        let consumer: BaseConsumer<Assign> = BaseConsumer::from_config_and_context(&config, context).map_err(failed)?;
        consumer.subscribe(&topics.iter().map(|topic| &**topic).collect::<Vec<_>>()).map_err(failed)?;
        let left = Arc::new(AtomicBool::new(false));
        let leaves = Arc::clone(&left);
        let told_by = Arc::clone(cluster);
        let work = move || {
            let mut warned = false;
            while !leaves.load(Ordering::Relaxed) {
                let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) else { continue };
                tracing::debug!(%error, "a group member was told of an error");
                // It is tried again, and says so each time.
                let error = told_by.error(ACTION, error);
                if matches!(error, Error::Forbidden { .. }) && !std::mem::replace(&mut warned, true) {
                    tracing::warn!(group, %error, "nothing is assigned until the cluster allows it");
                }
            }
            // Dropped here, it tells the others that it leaves.
        };
        let thread = std::thread::Builder::new().name("kafka-member".into()).spawn(work);
        thread.map_err(|source| {
            let source = Box::new(source);
            Error::Engine { place: cluster.place.clone(), action: ACTION, source }
        })?;
        Ok(Self { assigned, left })
    }
}

impl Membership for KafkaMembership {
    fn assigned(&self) -> watch::Receiver<Arc<BTreeSet<TopicPartition>>> {
        self.assigned.clone()
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

struct Assign {
    context: Context,
    assign: watch::Sender<Arc<BTreeSet<TopicPartition>>>,
    /// Those that moved partitions of ours.
    rebalances: Counter,
}

impl Assign {
    fn change(&self, change: impl FnOnce(&mut BTreeSet<TopicPartition>)) {
        self.assign.send_modify(|assigned| change(Arc::make_mut(assigned)));
    }

    /// Others may come and go without moving anything here.
    fn count(&self, moved: &TopicPartitionList) {
        if moved.count() > 0 {
            self.rebalances.inc();
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let partition =
        |topic: &str, number: i32| Some(TopicPartition { topic: topic.into(), partition: u32::try_from(number).ok()? });
    list.elements().iter().filter_map(|element| partition(element.topic(), element.partition())).collect()
}

impl ClientContext for Assign {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Assign {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let gone = partitions(list);
            self.change(|assigned| assigned.retain(|partition| !gone.contains(partition)));
            self.count(list);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                // Others read, at offsets they know.
                if let Err(error) = consumer.pause(list) {
                    tracing::debug!(%error, "assigned partitions could not be paused");
                }
                self.change(|assigned| assigned.extend(partitions(list)));
                self.count(list);
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a group could not share its partitions anew"),
        }
    }
}
