//! Capture: the changes of source databases into the broker, without loss.
//!
//! [`start`] runs one connector: a [`Source`] (so far [`postgres`]) gathers events, a session appends them to the log
//! together with the source's checkpoint, and only what is durable there is acknowledged to the source. Read
//! `source.rs` (the seam), `session.rs` (the loop), then `postgres/`.

mod capture;
mod config;
#[cfg(any(test, feature = "test-util"))]
pub mod contract;
mod cut;
mod error;
mod gathered;
mod json_schema;
mod metrics;
pub mod postgres;
mod route;
mod secret;
mod session;
mod source;
mod status;

pub use capture::{CaptureHandle, CaptureOptions, start};
pub use config::ConnectorConfig;
pub use error::{Error, ErrorKind};
pub use gathered::Gathered;
pub use json_schema::json_schema;
pub use metrics::CaptureMetrics;
pub use route::{Route, Routes};
pub use secret::Secret;
pub use source::{Mark, Source};
pub use status::{Phase, Refusal, SourceStatus, TableProgress};
