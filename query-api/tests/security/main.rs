//! The query API as an attacker sees it, over a real store and real sockets.
#![allow(clippy::unwrap_used)]

#[path = "../serving/events.rs"]
mod events;
#[path = "../serving/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod fixture;

mod audited;
mod channels;
mod channels_property;
mod floods;
mod followed;
mod forms;
mod headers;
mod hidden;
mod issuer;
mod limits;
#[path = "../serving/lines.rs"]
mod lines;
mod one_stamp;
mod ownership;
mod property;
mod reference;
#[path = "../serving/socket.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod socket;
mod sockets;
mod tokens;
mod world;
