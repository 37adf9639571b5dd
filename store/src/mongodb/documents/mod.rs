//! Documents in MongoDB: a collection per version, a document per document, in a form that other tools read too.
//!
//! ```text
//! {model}_v{version}   { _id: id, …the model's fields…, _hw: { stamp, as_of, json, hash, e: [index entries] } }
//! headwater.versions   the registry: { _id: version, collection, projector, model, state, record }
//! headwater.counts     { _id: version (in processes that share: + counter * 2^32), documents }
//! headwater.traces     { _id: version/id, stamp, at }: of documents that were deleted, in processes that share
//! headwater.frontiers  { _id: projector/source, position, at_micros, snapshot_done }
//! headwater.secrets    { _id: "servers", secret }: what all servers of the documents sign with
//! ```
//!
//! A micro-batch is flushed in one transaction ([`flush`]), and queries read one snapshot, so that readers see whole
//! micro-batches. Index entries lie in the document they lead to, under one multikey index in each direction ([`walk`]).

mod decimal;
mod flush;
mod follow;
mod gathered;
mod json;
mod natural;
mod parts;
mod reader;
mod registry;
mod remembered;
mod retire;
mod secret;
mod stamped;
mod stored;
mod transaction;
mod walk;
mod window;

use std::sync::Arc;

use parking_lot::Mutex;

pub use self::reader::MongoReader;
use self::registry::{COUNTS, FRONTIERS, Registry, VERSIONS};
use self::remembered::Remembered;
pub use self::retire::{RetiredVersion, retire_model};
use self::transaction::MongoDocumentTransaction;
use super::MongoOptions;
use super::owner::Owner;
use crate::{DocumentStore, DocumentTransaction, Error, StoreMetrics};

/// Processes that share documents have as many counters at most: each but the last few has one of its own, and none is in
/// another's way.
pub(super) const COUNTERS: i64 = 32;

/// Stamps of one owner; those of a later owner are greater.
const STAMPS_BITS: u32 = 32;

/// Documents of one projector's versions. Other projectors may keep other versions beside them.
pub struct MongoDocuments {
    reader: Arc<MongoReader>,
    /// `None` where several processes write.
    owner: Option<Owner>,
    /// Number under which this process counts documents.
    counter: i64,
    projector: String,
    writing: Mutex<Writing>,
    metrics: StoreMetrics,
}

/// What one gathering leaves to the next.
struct Writing {
    /// The last that was given.
    stamp: u64,
    /// Whether a flush broke off since the last good one: what is known of the registry may be behind what is stored, and
    /// readers of this process behind documents.
    unsettled: bool,
    /// Stays empty where several processes write.
    remembered: Remembered,
}

impl MongoDocuments {
    /// Connects, and takes over writing from whoever wrote this projector's documents before. Uses the runtime it is
    /// called in from then on, which must have a thread that is never blocked by calls of the store.
    pub async fn open(options: MongoOptions) -> Result<Arc<Self>, Error> {
        let (projector, metrics) = (options.projector.clone(), options.metrics.clone());
        let server = super::server::Server::connect(&options).await?;
        let name = format!("documents/{projector}");
        let owner = match options.shared {
            true => server.within("shut out who writes alone", Owner::shut_out(&server, name)).await?.0,
            false => server.within("take over its documents", Owner::take(&server, name)).await?,
        };
        for collection in [VERSIONS, FRONTIERS, COUNTS] {
            server.within("make its collections", server.make_collection(collection)).await?;
        }
        if options.shared {
            server.within("make its collections", stamped::make_traces(&server)).await?;
        }
        // After that, so that it sees all that was written by the owner before.
        let registry = if options.shared { Registry::of_several_writers() } else { Registry::of_one_writer() };
        let reader = MongoReader::follow(server, registry).await?;
        let writing = Mutex::new(Writing {
            stamp: owner.number << STAMPS_BITS,
            unsettled: false,
            remembered: Remembered::default(),
        });
        let counter = if options.shared { 1 + (owner.number % COUNTERS as u64) as i64 } else { 0 };
        let owner = Some(owner).filter(|_| !options.shared);
        Ok(Arc::new(Self { reader, owner, counter, projector, writing, metrics }))
    }

    /// The readers' side.
    pub fn reader(&self) -> Arc<MongoReader> {
        self.reader.clone()
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }
}

impl DocumentStore for MongoDocuments {
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error> {
        Ok(Box::new(MongoDocumentTransaction::begin(self)?))
    }
}
