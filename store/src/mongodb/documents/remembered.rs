//! What the only writer of documents remembers of them. It makes every change itself, so it need not ask for what it
//! wrote or found lately. After a flush that failed it knows nothing for certain, and forgets all.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use super::gathered::Gathered;
use super::stored::Hash;
use crate::VersionId;

/// Documents of a version that are remembered: about 100 bytes each, with a key of common length.
const DOCUMENTS_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct Remembered {
    /// Hashes of what is stored, `None` where there is nothing.
    hashes: BTreeMap<VersionId, Cache<Box<[u8]>, Option<Hash>>>,
    counts: Mutex<BTreeMap<VersionId, u64>>,
}

impl Remembered {
    /// Hash of a stored document, or that there is none; `None` where that is not remembered.
    pub(super) fn hash(&self, version: VersionId, id: &[u8]) -> Option<Option<Hash>> {
        self.hashes.get(&version)?.get(id).copied()
    }

    /// Number of stored documents, asked for by `ask` the first time.
    pub(super) fn count<E>(&self, version: VersionId, ask: impl FnOnce() -> Result<u64, E>) -> Result<u64, E> {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get(&version) {
            return Ok(*count);
        }
        let count = ask()?;
        counts.insert(version, count);
        Ok(count)
    }

    /// What was gathered is stored now.
    pub(super) fn flushed(&mut self, gathered: &Gathered) {
        for (version, items) in &gathered.documents {
            let hashes = self.hashes.entry(*version).or_insert_with(|| Cache::new(DOCUMENTS_MAX));
            for item in &items.items {
                hashes.insert(item.id.as_slice().into(), item.hash());
            }
            if let Some(count) = self.counts.get_mut().get_mut(version) {
                *count = count.saturating_add_signed(items.difference());
            }
        }
        for version in &gathered.removed {
            self.hashes.remove(version);
            self.counts.get_mut().remove(version);
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
