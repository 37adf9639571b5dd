//! The suite of `serving`, whole, over a real MongoDB: what readers see does not depend on the engine.
#![allow(clippy::unwrap_used)]

#[path = "../serving/admin.rs"]
mod admin;
#[path = "../serving/bad_input.rs"]
mod bad_input;
#[path = "../serving/cached.rs"]
mod cached;
#[path = "../serving/channels.rs"]
mod channels;
#[path = "../serving/compressed.rs"]
mod compressed;
#[path = "../serving/consistency.rs"]
mod consistency;
#[path = "../serving/described.rs"]
mod described;
#[path = "../serving/events.rs"]
mod events;
#[path = "../serving/fixture.rs"]
mod fixture;
#[path = "../serving/formats.rs"]
mod formats;
#[path = "../serving/graphql.rs"]
mod graphql;
#[path = "../serving/headers.rs"]
mod headers;
#[path = "../serving/hooked.rs"]
mod hooked;
#[path = "../serving/lines.rs"]
mod lines;
#[path = "../serving/live.rs"]
mod live;
#[path = "../serving/live_lists.rs"]
mod live_lists;
#[path = "../serving/observed.rs"]
mod observed;
#[path = "../serving/queries.rs"]
mod queries;
#[path = "../serving/reads.rs"]
mod reads;
#[path = "../serving/socket.rs"]
mod socket;
#[path = "../serving/subscriptions.rs"]
mod subscriptions;
#[path = "../serving/versions.rs"]
mod versions;
