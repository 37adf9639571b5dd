//! What the end-to-end tests share: the real binary, the database it reads, and eyes to look at both.

#![allow(clippy::unwrap_used)]

mod binary;
mod cluster;
mod http;
mod tools;
mod world;

pub use binary::{headwater, project_root};
pub use cluster::{Cluster, Process};
pub use headwater_test_servers::{Kafka, Mongo, Postgres};
pub use http::{Answer, get, get_with, post};
pub use tools::{browse, node, python, succeeded};
pub use world::{Running, World, wait_until};
