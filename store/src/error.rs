//! What can go wrong in a store, and what the caller is to do about it.

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room to write. What was committed before is safe.
    #[error(
        "the store at {place} cannot grow: {cause}; free disk space, or raise `store.embedded.size_max` and start again"
    )]
    Full {
        /// Where the store is.
        place: String,
        /// What the operating system or engine said.
        cause: String,
    },
    /// Another process has the store open.
    #[error(
        "the store at {place} is in use by another process; stop that process, or give this one another `data` folder"
    )]
    InUse {
        /// Where the store is.
        place: String,
    },
    /// A page that says what counts was not written. The engine takes nothing more until it is opened anew.
    #[error(
        "the disk refused a page of the store at {place}, which answers nothing more; mend the disk, or make room on it, \
         and start again: what is missing is made again from the broker"
    )]
    DiskRefused {
        /// Where the store is.
        place: String,
    },
    /// The engine failed.
    #[error("the store at {place} failed to {action}")]
    Engine {
        /// Where the store is.
        place: String,
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server does not answer.
    #[error(
        "the store at {place} does not answer, so it was not possible to {action}; is it running, and reachable from here?"
    )]
    Unreachable {
        /// Where the store is.
        place: String,
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More was written than the engine takes in one transaction; nothing of it is there. Write less at a time.
    #[error(
        "the store at {place} does not take so much in one transaction: {cause}; where it is a single row, give the server more memory for its cache"
    )]
    BatchTooLarge {
        /// Where the store is.
        place: String,
        /// What the engine said.
        cause: String,
    },
    /// Another process writes under the same name, and took over.
    #[error(
        "another process took over writing to the store at {place}; stop one of the two, or give each a name of its own: \
         `headwater project --name`"
    )]
    TakenOver {
        /// Where the store is.
        place: String,
    },
    /// Of several processes that share the store, another one looks after its registry by now.
    #[error("another process looks after the registry of the store at {place} by now; this one may claim it anew")]
    Superseded {
        /// Where the store is.
        place: String,
    },
    /// What is there cannot be used as a store.
    #[error("the store at {place} cannot be used: {what}; {remedy}")]
    Unusable {
        /// Where the store is.
        place: String,
        /// What is in the way.
        what: String,
        /// What to do about it.
        remedy: &'static str,
        /// Why, where something else said so.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server does not believe who we are, or does not allow what we do.
    #[error(
        "the store at {place} refuses the user, so it was not possible to {action}; check user, password and `authSource` \
         of the connection string, and that the user has `readWrite` on the database"
    )]
    Refused {
        /// Where the store is.
        place: String,
        /// What was being done.
        action: &'static str,
        /// What the server said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes in the store that are not what was written.
    #[error(
        "the store at {place} holds damaged data: {what}; remove it and start again: it is rebuilt from the broker; which \
         tables retention has removed too much of for that, and are to be read again, `headwater status` says then"
    )]
    Damaged {
        /// Where the store is.
        place: String,
        /// What was wrong.
        what: String,
    },
    /// What was committed does not come to disk any more.
    #[error(
        "the store at {place} cannot bring to disk what it wrote; mend the disk and start again: the store goes on from its last checkpoint, and what is missing is made again from the broker"
    )]
    NotSettled {
        /// Where the store is.
        place: String,
        /// Why.
        #[source]
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },
    /// More rows were asked for at once than are read for one document.
    #[error(
        "one key of a relation leads to more than {limit} bytes of rows; a column with so few different values cannot carry a relation: change the relation's `on`"
    )]
    TooManyRows {
        /// How much is read at once at most, in bytes.
        limit: usize,
    },
    /// An engine that one projector at a time writes to, where several are to.
    #[error(
        "the store at {place} keeps no stamps of its callers and no trace of deleted documents, and so cannot be written \
         by several projectors; run one projector"
    )]
    OneWriter {
        /// Where the store is.
        place: String,
    },
    /// A row larger than the engine takes.
    #[error(
        "a row of {bytes} bytes with its keys is over the {limit} that fit into a document of MongoDB, which ends at 16 MiB; \
         leave a large column out by a column list of the connector's publication (PostgreSQL 15 and newer), or keep rows \
         in this process (`store.rows: embedded`)"
    )]
    RowTooLarge {
        /// Its size.
        bytes: usize,
        /// The engine's limit.
        limit: usize,
    },
    /// A document larger than the engine takes.
    #[error(
        "a document of {bytes} bytes is over the store's limit of {limit}; give the relation that makes it large a `limit`"
    )]
    DocumentTooLarge {
        /// Its size.
        bytes: usize,
        /// The engine's limit.
        limit: usize,
    },
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Retryable,
    /// Stop and tell a person.
    Fatal,
    /// This row or document cannot be stored: dead letter.
    Poison,
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Room can come back without us; the batch is made again.
            Self::Engine { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Full { .. }
            | Self::BatchTooLarge { .. }
            | Self::Superseded { .. } => ErrorKind::Retryable,
            Self::OneWriter { .. }
            | Self::TooManyRows { .. }
            | Self::InUse { .. }
            | Self::TakenOver { .. }
            | Self::Unusable { .. }
            | Self::NotSettled { .. }
            | Self::DiskRefused { .. }
            | Self::Damaged { .. } => ErrorKind::Fatal,
            Self::RowTooLarge { .. } | Self::DocumentTooLarge { .. } => ErrorKind::Poison,
        }
    }

    /// Whether the server does not answer us. Others may reach it.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the server answers, and refuses us. Passwords and privileges are mended there while we run, so it may heal as
    /// an outage does; where nothing has worked yet it rather is our configuration, and waiting would only hide it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
