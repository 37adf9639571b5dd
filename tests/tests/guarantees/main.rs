//! What Headwater promises, one module per guarantee, each against the real binary and real servers.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod cli_commands;
mod crash_anywhere;
mod disk_full;
mod documents_follow_rows;
mod query_api;
mod shop;
mod source_troubles;
mod verify_tells;
mod versions;
