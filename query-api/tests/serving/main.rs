//! The query API over a real store and real sockets.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_input;
mod cached;
mod compressed;
mod consistency;
mod channels;
mod described;
mod fixture;
mod formats;
mod headers;
mod live;
mod queries;
mod observed;
mod reads;
mod versions;
