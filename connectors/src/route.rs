//! Where the events of a table go.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::TopicPartition;
use headwater_schemas::TableSchema;

/// Topic and prelude of one table under one schema. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Route {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: usize,
    pub(crate) schema_id: usize,
    pub(crate) prelude: Bytes,
    pub(crate) partitions: u32,
}

impl Route {
    /// Number of partitions of the topic.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a key: FNV-1a over its bytes, so that every process and version agrees.
    pub fn partition_of(&self, key: &[u8]) -> u32 {
        if self.partitions == 1 {
            return 0;
        }
        (fnv(key) % u64::from(self.partitions)) as u32
    }

    pub(crate) fn partition(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition }
    }
}

/// FNV-1a: the same in every process and version.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The routes of a source, made as its tables become known. Equal schemas get equal routes.
#[derive(Debug)]
pub struct Routes {
    prefix: String,
    partitions: u32,
    topics: HashMap<Arc<str>, usize>,
    routes: HashMap<Bytes, Route>,
}

impl Routes {
    /// Without any route yet. `prefix` begins every topic's name; `partitions` is what each topic has.
    pub fn new(prefix: &str, partitions: u32) -> Self {
        Self { prefix: prefix.into(), partitions: partitions.max(1), topics: HashMap::new(), routes: HashMap::new() }
    }

    /// The route of a table under a schema.
    pub fn of(&mut self, schema: &TableSchema) -> Route {
        let prelude = Bytes::from(schema.to_bytes());
        if let Some(route) = self.routes.get(&prelude) {
            return route.clone();
        }
        let topic: Arc<str> = schema.table.topic(&self.prefix).into();
        let next = self.topics.len();
        let topic_id = *self.topics.entry(Arc::clone(&topic)).or_insert(next);
        let schema_id = self.routes.len();
        let route = Route { topic, topic_id, schema_id, prelude: prelude.clone(), partitions: self.partitions };
        self.routes.insert(prelude, route.clone());
        route
    }
}
