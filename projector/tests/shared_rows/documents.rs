//! Documents in memory, written under the condition of their stamps, with traces of those that were deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_store::{
    DocumentBatch, DocumentStore, DocumentTransaction, DocumentWrite, Error, Frontier, VersionId, VersionRecord,
    VersionState, Written,
};
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct TestDocuments {
    pub(crate) state: Mutex<State>,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    documents: BTreeMap<(VersionId, Vec<u8>), Stored>,
    versions: BTreeMap<VersionId, VersionRecord>,
    pub(crate) frontiers: BTreeMap<String, Frontier>,
    last_version: u32,
    claims: u64,
    /// Writes that found something newer.
    pub(crate) late: u64,
}

#[derive(Clone)]
struct Stored {
    stamp: u64,
    body: Option<Vec<u8>>,
    entries: Vec<(u16, Vec<u8>)>,
}

/// Documents and their index entries by id.
pub(crate) type Contents = (BTreeMap<Vec<u8>, Vec<u8>>, BTreeMap<Vec<u8>, Vec<(u16, Vec<u8>)>>);

impl State {
    pub(crate) fn active(&self, model: &str) -> Vec<VersionRecord> {
        let active = self.versions.values().filter(|it| it.state == VersionState::Active && it.model == model);
        active.cloned().collect()
    }

    pub(crate) fn versions(&self, model: &str) -> Vec<VersionRecord> {
        self.versions.values().filter(|it| it.model == model).cloned().collect()
    }

    pub(crate) fn contents(&self, version: VersionId) -> Contents {
        let mut contents = Contents::default();
        for ((_, id), stored) in self.documents.range((version, Vec::new())..(VersionId(version.0 + 1), Vec::new())) {
            if let Some(body) = &stored.body {
                contents.0.insert(id.clone(), body.clone());
                contents.1.insert(id.clone(), stored.entries.clone());
            }
        }
        contents
    }
}

impl DocumentStore for TestDocuments {
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error> {
        Ok(Box::new(Gathered { store: self, state: self.state.lock().clone(), claim: None }))
    }
}

struct Gathered<'s> {
    store: &'s TestDocuments,
    state: State,
    claim: Option<u64>,
}

impl DocumentTransaction for Gathered<'_> {
    fn flush(self: Box<Self>) -> Result<(), Error> {
        let mut stored = self.store.state.lock();
        if self.claim.is_some_and(|claim| claim != stored.claims) {
            return Err(Error::Superseded { place: "the test".into() });
        }
        *stored = self.state;
        Ok(())
    }

    fn mark(&mut self) -> Option<u64> {
        None
    }

    fn stored_mark(&self) -> Result<u64, Error> {
        Ok(0)
    }
}

impl DocumentBatch for Gathered<'_> {
    fn versions(&self) -> Result<Vec<VersionRecord>, Error> {
        Ok(self.state.versions.values().cloned().collect())
    }

    fn new_version_id(&mut self) -> Result<VersionId, Error> {
        self.state.last_version += 1;
        Ok(VersionId(self.state.last_version))
    }

    fn claim_registry(&mut self) -> Result<u64, Error> {
        let mut stored = self.store.state.lock();
        stored.claims += 1;
        self.state.claims = stored.claims;
        Ok(stored.claims)
    }

    fn under_claim(&mut self, claim: u64) {
        self.claim = Some(claim);
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error> {
        self.state.versions.insert(version.id, version.clone());
        Ok(())
    }

    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error> {
        let of = |key: &&(VersionId, Vec<u8>)| key.0 == version;
        let keys: Vec<_> = self.state.documents.keys().filter(of).take(limit).cloned().collect();
        keys.iter().for_each(|key| drop(self.state.documents.remove(key)));
        if keys.len() < limit {
            self.state.versions.remove(&version);
        }
        Ok(keys.len())
    }

    fn put_documents(
        &mut self,
        version: VersionId,
        _as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        let mut written = Written::default();
        for write in writes {
            let stamp = write.stamp.expect("a worker stamps its documents");
            let body = write.body.map(<[u8]>::to_vec);
            let entries: Vec<_> = write.entries.iter().map(|(index, value)| (*index, value.to_vec())).collect();
            let key = (version, write.id.to_vec());
            match self.state.documents.get(&key) {
                Some(stored) if stored.stamp >= stamp => {
                    self.state.late += 1;
                    written.unchanged += 1;
                    continue;
                }
                Some(stored) if stored.body == body && stored.entries == entries => written.unchanged += 1,
                _ if body.is_some() => written.written += 1,
                _ => written.deleted += 1,
            }
            self.state.documents.insert(key, Stored { stamp, body, entries });
        }
        Ok(written)
    }

    fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        Ok(self.state.contents(version).0.len() as u64)
    }

    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error> {
        Ok(self.state.frontiers.clone())
    }

    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error> {
        self.state.frontiers.insert(source.into(), frontier);
        Ok(())
    }
}

/// For those that need a store to own.
pub(crate) fn new() -> Arc<TestDocuments> {
    Arc::default()
}
