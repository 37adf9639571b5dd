//! The vocabulary of Headwater: what a change event, a row, a key and a read model are, and how they are
//! written down. Everything else in the house speaks these words; this crate does no I/O.
//!
//! Read in this order: [`Value`] and [`ValueRef`] (one cell), [`RowRef`] (one row as bytes), [`TableSchema`] (what
//! the cells mean), [`SourcePosition`] (when a row was so), [`EventRef`] (one change), [`key`] (bytes that sort as the
//! values do), [`model`] (what documents are made of the rows).

pub mod codec;
mod dead_letter;
mod decimal;
mod diagnostic;
mod event;
mod json;
pub mod key;
pub mod model;
mod places;
mod position;
mod progress;
mod row;
mod suggest;
mod table;
pub mod temporal;
mod value;
mod varint;
mod yaml;

pub use dead_letter::{DeadLetter, Payload, Stage, dead_letter_topic};
pub use decimal::{DecimalSum, InvalidDecimal, compare_decimals, is_decimal};
pub use diagnostic::Diagnostic;
pub use event::{EventHeader, EventRef, MalformedEvent, Op, WriteRow};
pub use json::{write_json_string, write_json_value};
pub use places::{Names, Places};
pub use position::SourcePosition;
pub use progress::{SourceProgress, progress_topic};
pub use row::{RowBuilder, RowRef};
pub use suggest::{nearest, suggestion};
pub use table::{Column, ColumnType, SchemaFingerprint, TableId, TableSchema};
pub use value::{ArrayRef, ArrayValue, Interval, UnparsableValue, Value, ValueRef};
