//! The suite of `security`, whole, over a real MongoDB: what readers may see does not depend on the engine.
#![allow(clippy::unwrap_used)]

#[path = "../security/audited.rs"]
mod audited;
#[path = "../security/channels.rs"]
mod channels;
#[path = "../security/channels_property.rs"]
mod channels_property;
#[path = "../serving/events.rs"]
mod events;
#[path = "../serving/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod fixture;
#[path = "../security/floods.rs"]
mod floods;
#[path = "../security/followed.rs"]
mod followed;
#[path = "../security/forms.rs"]
mod forms;
#[path = "../security/headers.rs"]
mod headers;
#[path = "../security/hidden.rs"]
mod hidden;
#[path = "../security/issuer.rs"]
mod issuer;
#[path = "../security/limits.rs"]
mod limits;
#[path = "../serving/lines.rs"]
mod lines;
#[path = "../security/one_stamp.rs"]
mod one_stamp;
#[path = "../security/ownership.rs"]
mod ownership;
#[path = "../security/property.rs"]
mod property;
#[path = "../security/reference.rs"]
mod reference;
#[path = "../serving/socket.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod socket;
#[path = "../security/sockets.rs"]
mod sockets;
#[path = "../security/tokens.rs"]
mod tokens;
#[path = "../security/world.rs"]
mod world;
