//! What Headwater promises, one module per guarantee, each against the real binary and real servers.

#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod cli_commands;
mod crash_anywhere;
mod data_folder;
mod descriptions;
mod disk_full;
mod distributed;
mod documents_follow_rows;
mod pages;
mod query_api;
mod shared_projectors;
mod shop;
mod source_troubles;
mod traffic;
mod verify_tells;
mod versions;

/// A number that an environment variable gives, to replay or lengthen a run.
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}
