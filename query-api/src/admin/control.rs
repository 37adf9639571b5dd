//! What the admin port asks of the process.

use async_trait::async_trait;
use serde_json::Value;

/// The process as the admin port sees it, once it has started. Probes answer from what is known, at once, and never wait. That
/// it lives is told by this port itself: a role that ends takes the process with it.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Whether it should get requests; otherwise why not.
    fn ready(&self) -> Result<(), String>;

    /// Where everything stands. The console shows these members: `ready`, `at_micros`, `sources`, `models`, `consumers`,
    /// `projector`, `dead_letters`, `document_store_silent_seconds`, and `channel_problems`, which this port adds.
    async fn status(&self) -> Value;

    /// Begins a replay; see `headwater replay`.
    async fn replay(&self, request: Value) -> Result<Value, AdminError>;

    /// Events that could not be processed, newest last.
    async fn dead_letters(&self, limit: usize) -> Result<Value, AdminError>;

    /// Tries dead letters again.
    async fn retry_dead_letters(&self, request: Value) -> Result<Value, AdminError>;

    /// Reads the definitions again.
    async fn reload(&self) -> Result<Value, AdminError>;
}

/// Why a command was not done. Answered as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct AdminError {
    /// HTTP status: 400 the request is wrong, 404 there is no such thing, 409 not now, 500 it failed. Others mean 500.
    pub status: u16,
    /// For programs: stable, lower case with `_`.
    pub code: &'static str,
    /// For people: what is wrong, and the remedy.
    pub detail: String,
}

impl AdminError {
    /// The request is wrong.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 400, code, detail: detail.into() }
    }

    /// There is no such thing.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 404, code, detail: detail.into() }
    }

    /// Not as things stand now.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 409, code, detail: detail.into() }
    }

    /// It was tried and failed.
    pub fn failed(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 500, code, detail: detail.into() }
    }
}
