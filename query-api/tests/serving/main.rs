//! The query API over a real store and real sockets.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_input;
mod cached;
mod channels;
mod compressed;
mod consistency;
mod described;
mod fixture;
mod formats;
mod headers;
mod live;
mod observed;
mod queries;
mod reads;
mod versions;
