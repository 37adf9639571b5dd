//! The query API over a real store and real sockets.
#![allow(clippy::unwrap_used)]

mod admin;
mod bad_input;
mod cached;
mod channels;
mod compressed;
mod consistency;
mod described;
mod events;
mod fixture;
mod formats;
mod graphql;
mod headers;
mod hooked;
mod lines;
mod live;
mod live_lists;
mod observed;
mod queries;
mod reads;
mod socket;
mod subscriptions;
mod versions;
