//! The contract of the seams, for rows and documents in MongoDB, and for documents beside rows of the embedded engine.

use std::sync::Arc;

use headwater_store::Paired;
use headwater_store::contract::{Opened, Place};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::mongodb::MongoOptions;

use crate::common::{documents, fresh, rows};

/// Fewer random cases than an engine without round trips: each has a collection of its own.
const CASES: u32 = 40;

pub(crate) struct Database {
    pub(crate) options: MongoOptions,
    pub(crate) random_cases: u32,
}

impl Place for Database {
    fn open(&self) -> Opened {
        let documents = documents(&self.options).unwrap();
        let reader = documents.reader();
        Opened { writer: Paired::new(rows(&self.options).unwrap(), documents), reader }
    }

    fn counts_uncommitted_rows(&self) -> bool {
        !self.options.shared
    }

    fn random_cases(&self) -> u32 {
        self.random_cases
    }
}

struct BesideEmbedded {
    folder: tempfile::TempDir,
    options: MongoOptions,
}

impl BesideEmbedded {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options: fresh() }
    }
}

impl Place for BesideEmbedded {
    fn open(&self) -> Opened {
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(self.folder.path()) };
        let documents = documents(&self.options).unwrap();
        let reader = documents.reader();
        let rows: Arc<EmbeddedStore> = EmbeddedStore::open(options).unwrap();
        Opened { writer: Paired::new(rows, documents), reader }
    }

    fn random_cases(&self) -> u32 {
        CASES
    }
}

mod both_in_mongodb {
    use super::{CASES, Database, fresh};

    headwater_store::contract_tests!(Database { options: fresh(), random_cases: CASES });
}

mod rows_embedded {
    use super::BesideEmbedded;

    headwater_store::contract_tests!(BesideEmbedded::new());
}
