//! Rows in MongoDB: a collection per table, a document per row, everything of a micro-batch in one transaction.
//!
//! ```text
//! headwater.rows.{projector}                format, schemas, join indexes, counts, offsets, notes
//! headwater.rows.{projector}.{table}_{hash} { _id: key, s: schema, p: position, r: row (null: tombstone), j: [join keys] }
//! ```
//!
//! Keys are strings that sort as the bytes do ([`super::text`]). A row's join keys lie in its own document under one
//! index over all of them, so that they cannot differ from the row.
//!
//! Rows that several processes share have no owner: what conflicts are transactions that write the same row or note. Then
//! nothing that every transaction would write is kept (counts), and what is known of schemas and join indexes is read
//! again where it has changed, as a number says that each transaction reads first.

mod catalog;
mod read;
mod transaction;
mod writes;

use std::sync::Arc;

use mongodb::bson::{Document, doc};
use parking_lot::Mutex;

use self::catalog::Catalog;
use self::transaction::MongoRowTransaction;
use super::MongoOptions;
use super::owner::Owner;
use super::server::{Fault, Server};
use crate::{Error, RowStore, RowTransaction, StoreMetrics};

/// Format of the rows; a change that older code cannot read makes it greater.
const FORMAT: i64 = 1;

/// Where the format is kept, beside schemas, offsets and notes. Rows of before have none, and are of the first.
const FORMAT_ID: &str = "format:";

/// Rows of a truncated table that are removed in one transaction. The server ends one that takes a minute.
const SWEPT_MAX: u64 = 20_000;

/// Rows and offsets of one projector.
pub struct MongoRows {
    server: Server,
    /// `None` where several processes write.
    owner: Option<Owner>,
    /// Beginning of the names of all its collections.
    prefix: String,
    catalog: Mutex<Catalog>,
    metrics: StoreMetrics,
}

impl MongoRows {
    /// Connects, and takes over writing from whoever wrote these rows before. Uses the runtime it is called in from then
    /// on, which must have a thread that is never blocked by calls of the store.
    pub async fn open(options: MongoOptions) -> Result<Arc<Self>, Error> {
        let server = Server::connect(&options).await?;
        let prefix = format!("headwater.rows.{}", options.projector);
        let name = format!("rows/{}", options.projector);
        server.within("make its collection", server.make_collection(&prefix)).await?;
        // Before anything is taken over: whoever writes another format goes on.
        server.within("look up the format of its rows", check_format(&server, &prefix)).await?;
        let owner = match options.shared {
            true => {
                server.within("shut out who writes alone", Owner::shut_out(&server, name)).await?;
                None
            }
            false => Some(server.within("take over its rows", Owner::take(&server, name)).await?),
        };
        let catalog = match &owner {
            Some(owner) => server.within("read its names", Catalog::read(&server, owner, &prefix)).await?,
            // Each transaction looks for itself.
            None => Catalog::default(),
        };
        Ok(Arc::new(Self { server, owner, prefix, catalog: Mutex::new(catalog), metrics: options.metrics }))
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}

/// Refuses rows of another format, and has those without one say that they are of ours.
async fn check_format(server: &Server, prefix: &str) -> Result<(), Fault> {
    let names = server.database.collection::<Document>(prefix);
    let of_format = doc! { "_id": FORMAT_ID };
    match names.find_one(of_format.clone()).max_time(server.operation_max()).await? {
        Some(found) => match found.get_i64("n").ok() {
            Some(FORMAT) => Ok(()),
            found => Err(Fault::OtherFormat { found, read: FORMAT }),
        },
        // Only here is anything written: an open that changes nothing needs no majority for it.
        None => {
            names.update_one(of_format, doc! { "$setOnInsert": { "n": FORMAT } }).upsert(true).await?;
            Ok(())
        }
    }
}

impl RowStore for MongoRows {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        Ok(Box::new(MongoRowTransaction::begin(self)?))
    }

    fn rows_swept_max(&self) -> u64 {
        SWEPT_MAX
    }
}
