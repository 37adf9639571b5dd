//! PostgreSQL: the tables as they are by an exported snapshot, then every change by logical replication.
//!
//! `capture.rs` is the source itself; `setup.rs` finds out what there is and makes what is missing, `refusals.rs` says
//! which tables cannot be captured; `snapshot.rs` and `stream.rs` bring the rows, `plan.rs` and `cell.rs` turn them into
//! the one form both share. `layout.rs` says which changes of a table make it be read again.

mod array;
mod capture;
mod catalog;
mod cell;
mod check;
mod checkpoint;
mod config;
mod connect;
mod copy;
mod fetch;
mod history;
mod identity;
mod layout;
mod lsn;
mod monitor;
mod pgoutput;
mod plan;
mod publication;
mod read;
mod refusals;
mod setup;
mod slot;
mod snapshot;
mod stream;
mod tls;
mod transaction;
mod tunnel;
mod types;
mod writers;

pub use capture::PostgresSource;
pub use check::{Finding, Severity, check};
pub use config::{OnLostSlot, PostgresConfig, SnapshotConfig, TlsConfig, TlsMode};
pub use read::{KeyedRow, SnapshotRead, discover, read_tables};
