//! Offsets that consumer groups have committed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{Cluster, Context};
use super::options::KafkaOptions;
use crate::{Error, Offset, TopicPartition};

/// A consumer per group, which joins no group: it only speaks in its name.
#[derive(Default)]
pub(super) struct Groups(Mutex<HashMap<String, Arc<BaseConsumer<Context>>>>);

impl Groups {
    fn of(
        &self,
        group: &str,
        options: &KafkaOptions,
        cluster: &Arc<Cluster>,
    ) -> Result<Arc<BaseConsumer<Context>>, Error> {
        if let Some(known) = self.0.lock().get(group) {
            return Ok(Arc::clone(known));
        }
        let made = BaseConsumer::from_config_and_context(&options.reader(group), Context(Arc::clone(cluster)));
        let made: Arc<BaseConsumer<Context>> = Arc::new(made.map_err(|e| cluster.error("speak for a group", e))?);
        Ok(Arc::clone(self.0.lock().entry(group.into()).or_insert(made)))
    }

    /// Commits. The partitions are known to exist: Kafka would commit the others otherwise. Blocks.
    pub(super) fn commit(
        &self,
        group: &str,
        offsets: &[(TopicPartition, Offset)],
        options: &KafkaOptions,
        cluster: &Arc<Cluster>,
    ) -> Result<(), Error> {
        const ACTION: &str = "commit the offsets of a group";
        if offsets.is_empty() {
            return Ok(());
        }
        let failed = |e| cluster.error(ACTION, e);
        let consumer = self.of(group, options, cluster)?;
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            let number = i32::try_from(partition.partition).unwrap_or(i32::MAX);
            let offset = rdkafka::Offset::Offset(i64::try_from(offset.0).unwrap_or(i64::MAX));
            list.add_partition_offset(&partition.topic, number, offset).map_err(failed)?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(failed)
    }

    /// What the group has committed of these topics. Blocks.
    pub(super) fn committed(
        &self,
        group: &str,
        topics: &[(Arc<str>, u32)],
        options: &KafkaOptions,
        cluster: &Arc<Cluster>,
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                list.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let consumer = self.of(group, options, cluster)?;
        let found = consumer.committed_offsets(list, options.request_timeout);
        let found = found.map_err(|e| cluster.error("read the offsets of a group", e))?;
        let mut committed = Vec::new();
        for element in found.elements() {
            if let rdkafka::Offset::Offset(offset) = element.offset() {
                let partition = u32::try_from(element.partition()).unwrap_or_default();
                let partition = TopicPartition { topic: element.topic().into(), partition };
                committed.push((partition, Offset(offset.max(0) as u64)));
            }
        }
        Ok(committed)
    }
}
