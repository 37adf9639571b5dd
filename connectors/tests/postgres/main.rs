//! Capture from a real PostgreSQL into the real embedded log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod changes;
mod check;
mod connection;
mod handover;
mod harness;
mod lost_checkpoint;
mod picky;
mod publication;
mod refusals;
mod resume;
mod schema_changes;
mod slot;
mod too_large;
mod values;
