//! Where the events of a table go.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use headwater_broker::TopicPartition;
use headwater_schemas::{TableId, TableSchema};

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

/// Why the log can have no topic of a name, if it cannot; see [`headwater_broker::EventLog::refuses_topic`].
type Refuses = Box<dyn Fn(&str) -> Option<&'static str> + Send + Sync>;

/// The routes of a source, made as its tables become known. Equal schemas get equal routes.
pub struct Routes {
    prefix: String,
    refuses: Refuses,
    partitions: u32,
    topics: HashMap<Arc<str>, usize>,
    routes: HashMap<Bytes, Route>,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("prefix", &self.prefix).field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Routes {
    /// Without any route yet. `prefix` begins every topic's name; the keys of each table are spread over so many `partitions`.
    pub fn new(prefix: &str, partitions: u32) -> Self {
        Self {
            prefix: prefix.into(),
            refuses: Box::new(|_| None),
            partitions: partitions.max(1),
            topics: HashMap::new(),
            routes: HashMap::new(),
        }
    }

    /// The same into a log that does not take every name for a topic.
    pub(crate) fn refusing(self, refuses: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        Self { refuses: Box::new(refuses), ..self }
    }

    /// Number of partitions over which the keys of every table are spread.
    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Why a table can have no topic, if it cannot.
    pub(crate) fn refuses(&self, table: &TableId) -> Option<&'static str> {
        (self.refuses)(&table.topic(&self.prefix))
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
