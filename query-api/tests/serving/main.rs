//! The query API over a real store and real sockets.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_input;
mod described;
mod fixture;
mod live;
mod reads;
mod versions;
