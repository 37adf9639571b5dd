//! The suite of `serving`, whole, over a real MongoDB: what readers see does not depend on the engine.
#![allow(clippy::unwrap_used)]

#[path = "../serving/admin.rs"]
mod admin;
#[path = "../serving/bad_input.rs"]
mod bad_input;
#[path = "../serving/cached.rs"]
mod cached;
#[path = "../serving/compressed.rs"]
mod compressed;
#[path = "../serving/consistency.rs"]
mod consistency;
#[path = "../serving/described.rs"]
mod described;
#[path = "../serving/fixture.rs"]
mod fixture;
#[path = "../serving/formats.rs"]
mod formats;
#[path = "../serving/headers.rs"]
mod headers;
#[path = "../serving/live.rs"]
mod live;
#[path = "../serving/queries.rs"]
mod queries;
#[path = "../serving/reads.rs"]
mod reads;
#[path = "../serving/versions.rs"]
mod versions;
