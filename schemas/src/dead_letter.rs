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

impl DeadLetter {
    /// Greatest size of a message or value that is kept in a letter, in bytes. A log takes only so much in a record, and a
    /// letter that it does not take would stop everything behind it.
    pub const PAYLOAD_MAX: usize = 1 << 20;

    /// Leaves what is larger than `max` characters out of the payload.
    pub fn shorten(&mut self, max: usize) {
        match &mut self.payload {
            // Whole groups of four characters, so that it can still be read.
            Payload::SourceMessage(message) => message.truncate(max / 4 * 4),
            Payload::Record { value, value_bytes, .. } => {
                if let Some(long) = value.take_if(|value| value.len() > max) {
                    *value_bytes = Some(long.len() as u64 / 4 * 3);
                }
            }
            Payload::Root(_) => {}
        }
    }
}

/// Who gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A value that the source sent cannot be represented: no event was made of it.
    Capture,
    /// The bytes of a record are not an event, or its row is one that the store cannot keep whole.
    Decode,
    /// The rows are stored, but the document cannot be built from them.
    Project,
}

/// What is needed to try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The source's message in its own form, base64; at most [`DeadLetter::PAYLOAD_MAX`] bytes of it.
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
        /// Bytes of a value that is too large for a letter, and not in it. It may still be where the record was read from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_bytes: Option<u64>,
    },
    /// The root whose document could not be built: base64 of its key bytes.
    Root(String),
}

/// The topic of dead letters: `prefix.__dead_letters`.
pub fn dead_letter_topic(prefix: &str) -> String {
    format!("{prefix}.__dead_letters")
}
