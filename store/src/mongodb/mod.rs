//! The MongoDB engine: rows, offsets and documents on a replica set or a sharded cluster, MongoDB 5.0 or newer.
//!
//! [`MongoRows`] keeps what the projector needs, [`MongoDocuments`] what readers see; [`crate::Paired`] puts them
//! together. Each writes a micro-batch in one transaction, in which it also shows that it is still the one that may write
//! under its projector's name (`owner`). [`MongoReader`] reads in any number of other processes and learns of changes from
//! the server. The decisions are told in `docs/adr/0006-mongodb-store.md`.

mod bson;
mod context;
mod documents;
mod options;
mod owner;
mod rows;
mod server;
mod text;

pub use documents::{MongoDocuments, MongoReader, RetiredVersion, retire_model};
pub use options::MongoOptions;
pub use rows::MongoRows;
