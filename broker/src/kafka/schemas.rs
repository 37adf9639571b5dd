//! The schemas that events on the wire were written with: a compacted topic, keyed by fingerprint.
//!
//! A producer writes a schema in the transaction that first uses it. A reader that meets an unknown fingerprint reads the
//! topic on. The record of a schema and the events that name it stand in different partitions, and a transaction becomes
//! visible in each at its own moment, so a reader has some patience. A record that names a schema which does not come is
//! handed out as unreadable: anybody may have sent it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_schemas::{SchemaFingerprint, TableSchema};
use parking_lot::{Mutex, RwLock};
use rdkafka::message::Message;

use super::scan::Scanner;
use crate::{Error, TopicPartition};

/// A schema and what is derived from it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) schema: TableSchema,
    pub(super) fingerprint: SchemaFingerprint,
    /// The fingerprint as headers and keys have it: 16 hexadecimal digits.
    pub(super) name: String,
    /// [`TableSchema::to_bytes`], the prelude of batches of events.
    pub(super) prelude: Bytes,
}

impl Described {
    pub(super) fn new(schema: TableSchema, prelude: Bytes) -> Self {
        let fingerprint = schema.fingerprint();
        Self { schema, fingerprint, name: format!("{:016x}", fingerprint.0), prelude }
    }
}

/// The schemas read so far.
pub(super) struct Schemas {
    topic: TopicPartition,
    scanner: Scanner,
    known: RwLock<HashMap<SchemaFingerprint, Arc<Described>>>,
    /// Next offset to read of the topic. Held while reading, so that one reads for all.
    next: Mutex<u64>,
}

impl Schemas {
    pub(super) fn new(topic: &str, scanner: Scanner) -> Self {
        let topic = TopicPartition { topic: topic.into(), partition: 0 };
        Self { topic, scanner, known: RwLock::default(), next: Mutex::new(0) }
    }

    /// A schema read earlier.
    pub(super) fn known(&self, fingerprint: SchemaFingerprint) -> Option<Arc<Described>> {
        self.known.read().get(&fingerprint).cloned()
    }

    /// All schemas read earlier.
    pub(super) fn fingerprints(&self) -> HashSet<SchemaFingerprint> {
        self.known.read().keys().copied().collect()
    }

    /// What is wrong with a record whose schema is not in the topic.
    pub(super) fn why_unreadable(&self, schema: SchemaFingerprint) -> String {
        format!(
            "schema {:016x}, with which its header `headwater.schema` says it was written, is not in topic `{}`; restore it \
             there and retry, or leave the record out if others sent it",
            schema.0, self.topic.topic
        )
    }

    /// The error for a record whose schema is not to be found because the topic is not there.
    pub(super) fn unknown(&self, partition: &TopicPartition, offset: u64, schema: SchemaFingerprint) -> Error {
        Error::UnknownSchema {
            partition: partition.clone(),
            offset,
            fingerprint: format!("{:016x}", schema.0),
            topic: self.topic.topic.to_string(),
        }
    }

    /// Reads what was added to the topic; whether there is one. Blocks.
    pub(super) fn read_on(&self) -> Result<bool, Error> {
        let mut next = self.next.lock();
        let Some(marks) = self.scanner.watermarks(&self.topic)? else { return Ok(false) };
        let from = marks.low.0.max(*next);
        if from >= marks.high.0 {
            return Ok(true);
        }
        self.scanner.scan(&self.topic, from, marks.high.0, |message| {
            let schema = message.payload().and_then(|json| serde_json::from_slice::<TableSchema>(json).ok());
            match schema {
                Some(schema) => {
                    let prelude = schema.to_bytes().into();
                    let described = Described::new(schema, prelude);
                    self.known.write().insert(described.fingerprint, Arc::new(described));
                }
                // Events that name it will say so.
                None => tracing::warn!(
                    topic = &*self.topic.topic,
                    offset = message.offset(),
                    "a record in the topic of schemas is none"
                ),
            }
        })?;
        *next = marks.high.0;
        Ok(true)
    }
}
