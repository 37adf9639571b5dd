//! The broker: change events between their capture and their projection, kept in order, durable, and readable again
//! from any offset.
//!
//! [`EventLog`] is the seam; [`embedded`] is the engine that needs nothing installed, [`kafka`] the one that scales out. A record goes in as part of a
//! [`RecordBuffer`] (one run of bytes, filled by the connector, written as it is) and comes out as part of a
//! [`FetchedBatch`] (the same bytes).

mod batch;
#[cfg(feature = "test-util")]
pub mod contract;
pub mod embedded;
mod error;
mod event_log;
pub mod kafka;
mod metrics;

pub use batch::{AppendBatch, FetchedBatch, RecordBuffer, RecordRef};
pub use error::{Error, ErrorKind};
pub use event_log::{
    EventLog, FetchFrom, FetchLimits, Membership, Offset, Producer, RecordSizes, Retention, TopicPartition, TopicSpec,
    Watermarks,
};
pub use metrics::{GroupLabels, LogMetrics, PartitionLabels};
