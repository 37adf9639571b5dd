//! What can go wrong in a log, and what the caller is to do about it.

use crate::TopicPartition;

/// An error of a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A read from an offset that is no longer, or not yet, there. Never answered by reading from elsewhere.
    #[error(
        "offset {wanted} of {partition} is outside the log, which holds {low} to {high}: retention removed what was not \
         read yet, or the log was replaced; raise the topic's retention, and build anew: stop, remove the store, and take \
         the tables out of the connector's `tables` for one start, so that they are read again"
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
    #[error(
        "topic `{topic}` does not exist: was it removed, or has it another prefix? If its records are gone, build anew: \
         stop, remove the store, and take the tables out of the connector's `tables` for one start, so that they are read \
         again"
    )]
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
    /// Another version of the program wrote it, in a form that this one cannot read.
    #[error(
        "another version of Headwater wrote the log at {place} (its format is {found}, this version reads {read}); start \
         that version again, or stop and restore the whole data folder as it was before that version was started; nothing \
         was changed"
    )]
    OtherFormat {
        /// Where the log is.
        place: String,
        /// What the log says.
        found: String,
        /// What is understood here.
        read: u32,
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
    /// A page that says what counts did not come to disk. The engine takes nothing more until it is opened anew.
    #[error(
        "the disk refused a page of the log at {place}, which answers nothing more; mend the disk, or make room on it, \
         and start again"
    )]
    DiskRefused {
        /// Where the log is.
        place: String,
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
    /// The cluster does not answer.
    #[error(
        "{place} does not answer, so it was not possible to {action}: {why}; is it running, and reachable from here?"
    )]
    Unreachable {
        /// Whom we asked.
        place: String,
        /// What was being done.
        action: &'static str,
        /// What its client said.
        why: String,
    },
    /// The cluster does not believe who we are.
    #[error("{place} refuses our credentials: {why}; check user, password and SASL mechanism")]
    Credentials {
        /// Whom we asked.
        place: String,
        /// What its client said.
        why: String,
    },
    /// No encrypted connection came about, as one side refused it. One that merely breaks is [`Self::Unreachable`].
    #[error(
        "no encrypted connection to {place}: {why}; check that the listener speaks TLS, and the certificate authority and \
         client certificate in the configuration"
    )]
    Unencrypted {
        /// Whom we asked.
        place: String,
        /// What its client said.
        why: String,
    },
    /// The cluster does not allow it.
    #[error(
        "{place} does not allow our user to {action}; give it the operations it needs on the resource type {resource} \
         (docs/adr/0005-kafka-log.md lists them), for example with kafka-acls.sh"
    )]
    Forbidden {
        /// Whom we asked.
        place: String,
        /// What was being done.
        action: &'static str,
        /// Kafka's word for what is protected.
        resource: &'static str,
    },
    /// The cluster is too old.
    #[error("{place} is too old to {action}: it must be Apache Kafka 2.5 or newer, or speak its protocol")]
    TooOld {
        /// Whom we asked.
        place: String,
        /// What was being done.
        action: &'static str,
    },
    /// A setting that the client library refuses.
    #[error("the Kafka client refuses {name}: {why}; see librdkafka's CONFIGURATION.md")]
    Setting {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// A topic that is not as it must be, and that we may not or cannot change.
    #[error("topic `{topic}` {problem}; run: {remedy}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong, as the rest of a sentence.
        problem: String,
        /// The command that mends it.
        remedy: String,
    },
    /// A record larger than its topic takes.
    #[error(
        "a record of {bytes} bytes is too large for topic `{topic}`: raise the topic's `max.message.bytes` and, under \
         `broker.kafka.settings`, the client's `message.max.bytes` and `queue.buffering.max.kbytes` where they are smaller \
         than that"
    )]
    TooLarge {
        /// Where it should have gone.
        topic: String,
        /// Its size.
        bytes: usize,
    },
    /// A record that says it was written with a schema, and there is no topic of schemas.
    #[error(
        "schema {fingerprint}, with which the record at offset {offset} of {partition} was written, cannot be found: there \
         is no topic `{topic}`; was it removed, or has it another prefix? Restore it, or snapshot the source again"
    )]
    UnknownSchema {
        /// Where the record is.
        partition: TopicPartition,
        /// Its offset.
        offset: u64,
        /// The schema.
        fingerprint: String,
        /// Where it should be.
        topic: String,
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
            Self::Engine { .. } | Self::Broken { .. } | Self::Full { .. } | Self::Unreachable { .. } => {
                ErrorKind::Retryable
            }
            _ if self.is_refusal() => ErrorKind::Retryable,
            _ => ErrorKind::Fatal,
        }
    }

    /// Whether the cluster answers, but not as it must: a password, a privilege or a topic. A person mends that at the
    /// cluster while we run, so it may heal as an outage does; where nothing has ever worked it rather is our
    /// configuration, and waiting would only hide it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Credentials { .. } | Self::Unencrypted { .. } | Self::Forbidden { .. } | Self::Topic { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mended_at_the_cluster_is_tried_again() {
        let (place, why) = (|| "Kafka at nowhere:9092".to_owned(), String::new);
        let text = |text: &str| text.to_owned();
        let refusals = [
            Error::Credentials { place: place(), why: why() },
            Error::Unencrypted { place: place(), why: why() },
            Error::Forbidden { place: place(), action: "write records", resource: "Topic" },
            Error::Topic { topic: text("t"), problem: text("does not exist"), remedy: text("kafka-topics.sh") },
        ];
        for error in refusals {
            assert!(error.is_refusal() && error.kind() == ErrorKind::Retryable, "{error}");
        }
        let away = Error::Unreachable { place: place(), action: "write records", why: why() };
        assert!(!away.is_refusal() && away.kind() == ErrorKind::Retryable);
        let ours = [
            Error::TooOld { place: place(), action: "write records" },
            Error::Setting { name: text("linger.ms"), why: why() },
            Error::Fenced { producer: text("p") },
        ];
        for error in ours {
            assert!(!error.is_refusal() && error.kind() == ErrorKind::Fatal, "{error}");
        }
    }
}
