//! Real database servers for tests and benches: started on free loopback ports in temporary folders, stopped and removed
//! on drop, also when a test panics.
//!
//! Setting up a server fails loudly: these functions panic with what is missing and how to install it.

mod certificates;
mod command;
mod forward;
mod kafka;
mod mongodb;
mod port;
mod postgres;
mod small_disk;

pub use certificates::Certificates;
pub use forward::forward_to;
pub use kafka::{Kafka, KafkaOptions};
pub use mongodb::{Mongo, MongoOptions};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use small_disk::on_small_disk;
