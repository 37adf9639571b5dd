//! What can go wrong in the projector, and what is done about it.

use headwater_broker::TopicPartition;
use headwater_schemas::ColumnType;

/// An error of the projector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] headwater_store::Error),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] headwater_broker::Error),
    /// A model names a column that its table does not have.
    #[error("read model `{model}`: table {table} has no column `{column}`{hint}")]
    UnknownColumn {
        /// The model.
        model: String,
        /// The table.
        table: String,
        /// The column as the model spells it.
        column: String,
        /// The remedy, beginning with a separator.
        hint: String,
    },
    /// The root's key is not the primary key of its table.
    #[error(
        "read model `{model}`: `root.key` names {declared}, but the primary key of {table} is {actual}; name exactly \
         its columns, or give the table that primary key"
    )]
    RootKey {
        /// The model.
        model: String,
        /// The root's table.
        table: String,
        /// What the model names.
        declared: String,
        /// What the table has.
        actual: String,
    },
    /// A table without a key that is sent whole.
    #[error(
        "read model `{model}`: table {table} has no key that its changes name rows by, and such rows cannot be kept; \
         `headwater check` says why and what to do"
    )]
    NoKey {
        /// The model.
        model: String,
        /// The table.
        table: String,
    },
    /// Columns are compared that can never be equal.
    #[error(
        "read model `{model}`: relation `{relation}` joins `{child}` with `{parent}`, whose types never compare equal; \
         join columns of one kind"
    )]
    JoinTypes {
        /// The model.
        model: String,
        /// Path of the relation.
        relation: String,
        /// Column of the table further from the root, with its table.
        child: String,
        /// Column of the table nearer to the root, with its table.
        parent: String,
    },
    /// Something is summed that is no number.
    #[error(
        "read model `{model}`: `{compute}` adds up `{field}`, which is no number; cast the field to decimal, but make a \
         column of the type `money`, whose texts have a currency in them, `numeric` in the database"
    )]
    NotANumber {
        /// The model.
        model: String,
        /// Path of the computed field.
        compute: String,
        /// The field it is computed from.
        field: String,
    },
    /// A cast that no value of its type survives.
    #[error(
        "read model `{model}`: `{field}` casts values of the type {from:?} to {to}, which none of them survives; cast to a \
         type that they have a form in, or leave the cast out"
    )]
    ImpossibleCast {
        /// The model.
        model: String,
        /// Path of the field.
        field: String,
        /// The type of what is cast.
        from: ColumnType,
        /// What it is cast to.
        to: &'static str,
    },
    /// A condition holds for no value, or for every one.
    #[error(
        "read model `{model}`: the condition of `{place}` says nothing: `{name}` {why}; write what the database writes: 1 for true \
         in a column of numbers, '2026-01-31' for a day"
    )]
    NeverCompared {
        /// The model.
        model: String,
        /// Path of the computed field or of the relation, or `root`.
        place: String,
        /// The column, with its table, or the path of the field.
        name: String,
        /// What it cannot be compared with.
        why: String,
    },
    /// A path that the model does not have; the parser of definitions refuses it first.
    #[error("read model `{model}`: nothing is at `{path}`")]
    UnknownPath {
        /// The model.
        model: String,
        /// The path.
        path: String,
    },
    /// There is no such model.
    #[error("there is no read model `{model}`{hint}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// The remedy, beginning with a separator.
        hint: String,
    },
    /// A model is declared twice.
    #[error("read model `{model}` is declared twice; rename one of the two")]
    DuplicateModel {
        /// Its name.
        model: String,
    },
    /// A version of the model is being built already.
    #[error(
        "read model `{model}` is being built already; `headwater status` tells how far it is, or what holds it back"
    )]
    RebuildRunning {
        /// The model.
        model: String,
    },
    /// Rows that several projectors share, for one that works alone.
    #[error(
        "the rows of projector `{name}` are shared by several processes, and its offsets are those from before; share them \
         again (`store.rows: mongodb` with `broker.kafka`), or give this projector another name: `headwater \
         project --name`"
    )]
    SharedRows {
        /// The projector's name.
        name: String,
    },
    /// A log in which the store's offsets do not count.
    #[error(
        "the store was filled from another log ({known}) than this one ({found}): changes would be skipped, since its \
         offsets count there; stop, and restore log and store both as of one time, or remove the store as well: it is \
         built anew from the beginning of this log, and `headwater status` says which tables are to be read again"
    )]
    OtherLog {
        /// Id of the log that it was filled from.
        known: String,
        /// Id of the log that is there.
        found: String,
    },
    /// A log that ends before what the store has applied.
    #[error(
        "the store has applied {partition} up to offset {next}, and the log ends at {end}: the log was restored from an \
         earlier time than the store, or was made anew, and changes would be skipped; stop, and restore log and store \
         both as of one time, or remove the store as well: it is built anew from the beginning of this log, and \
         `headwater status` says which tables are to be read again"
    )]
    LogBehind {
        /// What was applied.
        partition: TopicPartition,
        /// Next offset to be applied.
        next: u64,
        /// Next offset to be written.
        end: u64,
    },
    /// A place of a replay that is not in the log.
    #[error("cannot replay from there: {why}")]
    ReplayFrom {
        /// What is wrong, and the remedy.
        why: String,
    },
    /// What the projector kept for itself is not what it wrote.
    #[error(
        "the projector's note `{note}` in the store is damaged; remove the store and start again: it is rebuilt from \
         the broker"
    )]
    Note {
        /// Name of the note.
        note: String,
    },
    /// The thread could not be started.
    #[error("the projector's thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The projector ended by a panic: a broken invariant, told in the log.
    #[error("the projector ended by a panic; its message is in the log, please report it")]
    Panicked,
    /// Told to stop while a large table was swept.
    #[error("the rows of {table} below its truncation are not all removed yet; that goes on at the next start")]
    SweepBrokenOff {
        /// The table.
        table: String,
    },
    /// The projector is not running.
    #[error("the projector has stopped")]
    Stopped,
}

/// What the caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Retryable,
    /// Stop and tell a person.
    Fatal,
    /// The request or definition is wrong: refuse it, and go on.
    Poison,
}

impl Error {
    /// Whether less of the same may go well.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Store(headwater_store::Error::BatchTooLarge { .. }))
    }

    /// Whether a store does not answer us.
    pub(crate) fn is_store_away(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unreachable())
    }

    /// Whether an engine answers, and refuses us: see [`headwater_broker::Error::is_refusal`].
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Store(error) => error.is_refusal(),
            Self::Log(error) => error.is_refusal(),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => match error.kind() {
                headwater_store::ErrorKind::Retryable => ErrorKind::Retryable,
                headwater_store::ErrorKind::Fatal => ErrorKind::Fatal,
                headwater_store::ErrorKind::Poison => ErrorKind::Poison,
            },
            Self::Log(error) => match error.kind() {
                headwater_broker::ErrorKind::Retryable => ErrorKind::Retryable,
                headwater_broker::ErrorKind::Fatal => ErrorKind::Fatal,
            },
            Self::SweepBrokenOff { .. } => ErrorKind::Retryable,
            Self::Note { .. }
            | Self::SharedRows { .. }
            | Self::OtherLog { .. }
            | Self::LogBehind { .. }
            | Self::Thread(_)
            | Self::Panicked
            | Self::Stopped => ErrorKind::Fatal,
            _ => ErrorKind::Poison,
        }
    }
}
