//! What can go wrong in a log, and what the caller is to do about it.

use crate::TopicPartition;

/// An error of a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A read from an offset that is no longer, or not yet, there. Never answered by reading from elsewhere.
    #[error(
        "offset {wanted} of {partition} is outside the log, which holds {low} to {high}: retention removed what was not \
         read yet, or the log was replaced; rebuild the read models with `headwater replay --from earliest`, and raise \
         the topic's retention"
    )]
    OffsetOutOfRange {
        /// What was read.
        partition: TopicPartition,
        /// The offset asked for.
        wanted: u64,
        /// First offset present.
        low: u64,
        /// Next offset to be written.
        high: u64,
    },
    /// The topic does not exist.
    #[error("topic `{topic}` does not exist")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("{partition} does not exist: its topic has {partitions} partitions, counted from 0")]
    UnknownPartition {
        /// What was asked for.
        partition: TopicPartition,
        /// How many the topic has.
        partitions: u32,
    },
    /// A name or number that this log cannot store.
    #[error("{what} `{name}` is refused: {why}")]
    Refused {
        /// What kind of thing it names.
        what: &'static str,
        /// The name.
        name: String,
        /// Why, and what is allowed.
        why: &'static str,
    },
    /// Another producer of the same name has taken over.
    #[error("producer `{producer}` was taken over by another process; this one must stop writing")]
    Fenced {
        /// Its name.
        producer: String,
    },
    /// An earlier append of this producer failed, so this one would leave a gap.
    #[error("an earlier append of producer `{producer}` failed; open the producer again and go on from its checkpoint")]
    Broken {
        /// Its name.
        producer: String,
    },
    /// The log is already open, as a rule in another process.
    #[error("the log at {place} is already open; stop the process that has it open, or choose another folder")]
    InUse {
        /// Where the log is.
        place: String,
    },
    /// No room to write. What was acknowledged before is safe.
    #[error(
        "the log at {place} cannot grow: {cause}; free disk space, or raise `broker.embedded.size_max` and start again"
    )]
    Full {
        /// Where the log is.
        place: String,
        /// What the operating system or engine said.
        cause: String,
    },
    /// The engine failed.
    #[error("the log at {place} failed to {action}")]
    Engine {
        /// Where the log is.
        place: String,
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes in the log that are not what was written.
    #[error("the log at {place} holds damaged data: {what}; restore it from a backup, or remove it and snapshot again")]
    Damaged {
        /// Where the log is.
        place: String,
        /// What was wrong.
        what: String,
    },
    /// The log was closed while the call was waiting.
    #[error("the log is closed")]
    Closed,
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Retryable,
    /// Stop and tell a person.
    Fatal,
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Room can come back without us: a disk is cleaned up, retention moves on. What was refused is asked again.
            Self::Engine { .. } | Self::Broken { .. } | Self::Full { .. } => ErrorKind::Retryable,
            _ => ErrorKind::Fatal,
        }
    }
}
