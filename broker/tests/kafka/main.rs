//! The Kafka engine on a real broker: the contract of the seam, and what is Kafka's own. One broker for all.
#![allow(clippy::unwrap_used)]

mod contract;
mod events;
mod members;
mod named;
mod offsets;
mod operator;
mod outages;
mod security;
mod world;
