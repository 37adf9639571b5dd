//! What can go wrong in capturing, and what the caller is to do about it.

use headwater_broker as broker;

/// An error of a connector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be reached or refuses the session.
    #[error("cannot connect to {place}: {hint}")]
    Connect {
        /// Host, port, database and user.
        place: String,
        /// What it may be and what to do.
        hint: String,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A query failed.
    #[error("failed to {action}: {message}")]
    Query {
        /// What was being done.
        action: String,
        /// What the database said.
        message: String,
        /// The driver's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The stream of changes broke.
    #[error("failed to {action}: {source}")]
    Replication {
        /// What was being done.
        action: &'static str,
        /// The library's error.
        #[source]
        source: pgwire_replication::PgWireError,
    },
    /// The source sent bytes that are not its protocol.
    #[error("the source sent a malformed {what}")]
    Malformed {
        /// Which message or value.
        what: &'static str,
    },
    /// The database is not set up for capture. Tried again, because people mend this while we run.
    #[error("{problem}; {remedy}")]
    NotReady {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// Going on would lose or invent changes. Never tried again by itself.
    #[error("{problem}; {remedy}")]
    Unsafe {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The configuration is wrong.
    #[error("{path}: {problem}")]
    Config {
        /// Dotted path of the key.
        path: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file named in the configuration cannot be used.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The broker's log failed.
    #[error(transparent)]
    Log(#[from] broker::Error),
    /// A record got a later offset than was counted, so what progress says of the ends of partitions is too low. Nothing is
    /// lost: a new session reads the ends and says so at once.
    #[error(
        "a record of {partition} got offset {found} where {counted} was counted: something else than this connector was \
         written there; reading the ends of all partitions again"
    )]
    Miscounted {
        /// Where it was appended.
        partition: broker::TopicPartition,
        /// The offset that was expected.
        counted: u64,
        /// The one it got.
        found: u64,
    },
    /// A task of the connector ended early, which only a broken invariant can cause.
    #[error("the task that {what} ended unexpectedly")]
    TaskLost {
        /// What it did.
        what: &'static str,
    },
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later, for ever, visibly.
    Retryable,
    /// Stop and tell a person.
    Fatal,
}

impl Error {
    /// What to do about it. Everything outside this process may heal (a database that is down, a missing privilege, a
    /// slot in use), so only what would lose changes or cannot be mended without us is fatal.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsafe { .. } | Self::Config { .. } => ErrorKind::Fatal,
            Self::Log(error) => match error.kind() {
                broker::ErrorKind::Retryable => ErrorKind::Retryable,
                broker::ErrorKind::Fatal => ErrorKind::Fatal,
            },
            _ => ErrorKind::Retryable,
        }
    }

    /// The message and those of its causes that it does not already tell, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }
}
