//! Forms of the change event outside this process.

mod cell;
pub mod debezium;

use crate::TableId;

/// Why an event could not be written or read. It will not go better when tried again: such an event is a dead letter.
/// Never holds row values.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A cell that would not come back as it is.
    #[error("column {column} of {table} cannot be written as JSON: {reason}")]
    Unrepresentable {
        /// The table.
        table: TableId,
        /// The column's name.
        column: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A cell that is not of its column's type.
    #[error("column {column} of {table}: {reason}")]
    Cell {
        /// The table.
        table: TableId,
        /// The column's name.
        column: String,
        /// What was expected.
        reason: &'static str,
    },
    /// A row whose bytes are not the cells of its schema.
    #[error("a row of {table} does not have the {columns} readable cells of its schema")]
    Row {
        /// The table.
        table: TableId,
        /// Columns the schema has.
        columns: usize,
    },
    /// JSON that is not an event of ours.
    #[error("not a change event: {reason}")]
    Envelope {
        /// What is wrong.
        reason: &'static str,
    },
    /// Text that is not JSON, or lacks a member.
    #[error("not a change event in JSON")]
    Json(#[from] serde_json::Error),
}
