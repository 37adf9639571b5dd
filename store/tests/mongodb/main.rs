//! The MongoDB engine on a real server: the contract of the seams, and what only this engine promises.
#![allow(clippy::unwrap_used)]

mod common;
mod contract;
mod crashes;
mod following;
mod natural;
mod plans;
mod refusals;
mod shared;
mod snapshots;
mod takeover;
mod unconfirmed;
