//! The store: the latest image of every row, the documents folded from them, and how far that has come.
//!
//! Writing and reading are two seams. The projector writes through [`ProjectionStore`]: one [`Batch`] at a time, in which
//! rows ([`RowBatch`]) and documents ([`DocumentBatch`]) change together and are committed with the offsets they came
//! from. The query API reads through [`DocumentReader`] while that goes on. [`embedded`] is the engine that needs nothing
//! installed, [`mongodb`] the one that spans machines; [`Paired`] puts rows and documents of different engines together.

mod arena;
#[cfg(feature = "test-util")]
pub mod contract;
mod document;
pub mod embedded;
mod error;
mod metrics;
pub mod mongodb;
mod paired;
mod projection;
mod query;
mod registry;

pub use arena::{ByteList, READ_BYTES, READ_BYTES_MAX, RowArena, RowSlot};
pub use document::{Document, DocumentChange, DocumentReader, Frontier};
pub use error::{Error, ErrorKind};
pub use metrics::StoreMetrics;
pub use paired::Paired;
pub use projection::{
    Batch, DocumentBatch, DocumentStore, DocumentTransaction, DocumentWrite, JoinIndex, ProjectionStore, RowBatch,
    RowStore, RowTransaction, RowWrite, SchemaId, Written,
};
pub use query::{Counted, Cursor, Filter, IndexQuery, KeyRange, Page};
pub use registry::{VersionId, VersionRecord, VersionState};
