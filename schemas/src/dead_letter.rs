//! Events that could not be processed, kept with their cause so that they can be read, mended and retried.

use serde::{Deserialize, Serialize};

/// One dead letter: the JSON value of a record in [`dead_letter_topic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Which stage gave up.
    pub stage: Stage,
    /// What was wrong and what to do about it. Holds no values of a row but its key.
    pub cause: String,
    /// When, milliseconds since 1970-01-01T00:00:00Z.
    pub at_millis: i64,
    /// Where the event belongs.
    pub table: Option<String>,
    /// Where the event stands in the source, as [`crate::SourcePosition`] writes it.
    pub position: Option<String>,
    /// Read model, for letters of the projection.
    pub model: Option<String>,
    /// Id of the document that could not be built, as readers write it.
    pub root: Option<String>,
    /// The event itself.
    pub payload: Payload,
}

/// Who gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A value that the source sent cannot be represented: no event was made of it.
    Capture,
    /// The bytes of a record are not an event, or its row is one that the store cannot keep.
    Decode,
    /// The rows are stored, but the document cannot be built from them.
    Project,
}

/// What is needed to try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The source's message in its own form, base64.
    SourceMessage(String),
    /// The record as it stood in the log; keys, values and preludes are base64.
    Record {
        /// Topic it was read from.
        topic: String,
        /// Partition it was read from.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// Prelude of its batch.
        prelude: String,
        /// Its key.
        key: String,
        /// Its value.
        value: Option<String>,
    },
    /// The root whose document could not be built: base64 of its key bytes.
    Root(String),
}

/// The topic of dead letters: `prefix.__dead_letters`.
pub fn dead_letter_topic(prefix: &str) -> String {
    format!("{prefix}.__dead_letters")
}
