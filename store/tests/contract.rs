//! The embedded engine keeps the contract of the seams.
#![allow(clippy::unwrap_used)]

use headwater_store::contract::{Opened, Place};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Place for Folder {
    fn open(&self) -> Opened {
        let options = EmbeddedOptions { size_max: 4 << 30, ..EmbeddedOptions::new(self.0.path()) };
        let store = EmbeddedStore::open(options).unwrap();
        Opened { writer: store.clone(), reader: store }
    }
}

headwater_store::contract_tests!(Folder::new());
