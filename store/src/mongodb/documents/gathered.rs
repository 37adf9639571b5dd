//! Writes that are gathered until they are flushed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::stored::Hash;
use crate::{Frontier, VersionId, VersionRecord};

/// Everything of one gathering.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) documents: BTreeMap<VersionId, Items>,
    /// Documents with stamps of the caller's, each once.
    pub(super) stamped: BTreeMap<VersionId, Vec<Stamped>>,
    pub(super) versions: BTreeMap<VersionId, VersionRecord>,
    /// Versions that are gone, with their collections.
    pub(super) removed: BTreeSet<VersionId>,
    pub(super) frontiers: BTreeMap<String, Frontier>,
    /// Number of the claim to the registry under which this is gathered.
    pub(super) claim: Option<u64>,
    /// What the owner leaves as a mark of this.
    pub(super) mark: Option<u64>,
}

/// Documents of one version in the order in which they were first written.
#[derive(Default)]
pub(super) struct Items {
    pub(super) items: Vec<Item>,
    by_id: HashMap<Vec<u8>, usize>,
}

/// A document, as it was stored and as it is to be.
pub(super) struct Item {
    pub(super) id: Vec<u8>,
    /// Hash of what is stored.
    pub(super) stored: Option<Hash>,
    pub(super) now: Now,
    /// Whether listeners are not told.
    pub(super) quiet: bool,
}

/// A document as a caller wants it, unless there is one with its stamp or a greater one.
pub(super) struct Stamped {
    pub(super) id: Vec<u8>,
    pub(super) stamp: u64,
    /// Hash and document; `None` deletes.
    pub(super) put: Option<(Hash, Vec<u8>)>,
}

/// What is to become of a document.
pub(super) enum Now {
    AsStored,
    Put { stamp: u64, hash: Hash, document: Vec<u8> },
    Deleted,
}

impl Gathered {
    /// Whether there is nothing to flush.
    pub(super) fn is_nothing(&self) -> bool {
        let untouched = |items: &Items| items.items.iter().all(|item| matches!(item.now, Now::AsStored));
        self.documents.values().all(untouched)
            && self.stamped.is_empty()
            && self.versions.is_empty()
            && self.removed.is_empty()
            && self.frontiers.is_empty()
    }
}

impl Items {
    pub(super) fn get(&self, id: &[u8]) -> Option<&Item> {
        self.by_id.get(id).map(|at| &self.items[*at])
    }

    /// The document's item, made when it was not touched before.
    pub(super) fn item(&mut self, id: &[u8], stored: impl FnOnce() -> Option<Hash>) -> &mut Item {
        let at = *self.by_id.entry(id.to_vec()).or_insert_with(|| {
            self.items.push(Item { id: id.to_vec(), stored: stored(), now: Now::AsStored, quiet: false });
            self.items.len() - 1
        });
        &mut self.items[at]
    }

    /// Documents more, or less, than are stored.
    pub(super) fn difference(&self) -> i64 {
        self.items.iter().map(|item| i64::from(item.hash().is_some()) - i64::from(item.stored.is_some())).sum()
    }
}

impl Item {
    /// Hash of the document as it is to be; `None` when there is to be none.
    pub(super) fn hash(&self) -> Option<Hash> {
        match &self.now {
            Now::AsStored => self.stored,
            Now::Put { hash, .. } => Some(*hash),
            Now::Deleted => None,
        }
    }
}
