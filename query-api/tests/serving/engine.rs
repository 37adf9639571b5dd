//! The two engines that documents are served from.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoReader};
use headwater_store::{DocumentReader, Paired, ProjectionStore};
use headwater_test_servers::Mongo;
use tokio::runtime::Runtime;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// In this process.
    Embedded,
    /// Documents in a real MongoDB.
    MongoDb,
}

/// The suites run twice: `serving` and `security` on the embedded engine, `serving_mongodb` and `security_mongodb` on
/// MongoDB.
pub(crate) const OF_THIS_PROGRAM: Engine = match env!("CARGO_CRATE_NAME").as_bytes() {
    b"serving_mongodb" | b"security_mongodb" => Engine::MongoDb,
    _ => Engine::Embedded,
};

/// One server for all tests of this program. Ends with it, by its watchdog.
static SERVER: LazyLock<Mutex<Mongo>> = LazyLock::new(|| Mutex::new(Mongo::start()));
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// An empty store.
pub(crate) struct Opened {
    /// Where documents are written.
    pub(crate) store: Arc<dyn ProjectionStore>,
    readable: Readable,
}

enum Readable {
    Embedded(Arc<EmbeddedStore>),
    MongoDb(MongoOptions),
}

/// Opens an empty store in this folder, or a database of its own.
pub(crate) fn open(engine: Engine, folder: &Path, runtime: &Runtime) -> Opened {
    let embedded = EmbeddedStore::open(EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder) }).unwrap();
    if engine == Engine::Embedded {
        return Opened { store: embedded.clone(), readable: Readable::Embedded(embedded) };
    }
    let url = SERVER.lock().unwrap().url();
    let options = MongoOptions::new(url, format!("serving{}", DATABASES.fetch_add(1, Ordering::Relaxed)));
    let documents = runtime.block_on(MongoDocuments::open(options.clone())).unwrap();
    Opened { store: Paired::new(embedded, documents), readable: Readable::MongoDb(options) }
}

impl Opened {
    /// Reads what is written, over MongoDB as a process does that writes nothing itself.
    pub(crate) fn reader(&self, runtime: &Runtime) -> Arc<dyn DocumentReader> {
        match &self.readable {
            Readable::Embedded(store) => store.clone(),
            Readable::MongoDb(options) => runtime.block_on(MongoReader::open(options.clone())).unwrap(),
        }
    }
}
