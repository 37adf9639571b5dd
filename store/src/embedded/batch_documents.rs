//! The documents of a micro-batch.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::EmbeddedBatch;
use super::catalog::numbered;
use super::documents::{Outcome, document_key};
use super::environment::Fault;
use crate::{
    DocumentBatch, DocumentChange, DocumentWrite, Error, Frontier, RowBatch, VersionId, VersionRecord, Written,
};

/// A larger document is refused: the limit other document stores have, so that a model fits any of them.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Name of the note that holds the number of the next version.
const NEXT_VERSION: &str = "version/next";

impl EmbeddedBatch<'_> {
    fn put_document_count(&mut self, version: VersionId, change: impl FnOnce(u64) -> u64) -> Result<(), Fault> {
        self.catalog.unsettled = true;
        let count = self.catalog.documents.entry(version).or_default();
        *count = change(*count);
        Ok(self.tables.meta.put(&mut self.txn, &numbered(b'D', version.0), &count.to_le_bytes())?)
    }

    fn put_document(&mut self, version: VersionId, as_of: i64, write: &DocumentWrite<'_>) -> Result<Outcome, Fault> {
        let stamp = self.catalog.stamp + 1;
        let outcome = self.documents.put(&self.tables, &mut self.txn, version, stamp, as_of, write)?;
        let stamp = match outcome {
            Outcome::Unchanged => return Ok(outcome),
            Outcome::Created | Outcome::Replaced => {
                self.bytes_written += self.documents.value_len() as u64;
                self.catalog.stamp = stamp;
                self.stamp_given = true;
                Some(stamp)
            }
            Outcome::Deleted => None,
        };
        if self.listened {
            self.changes.push(DocumentChange { version, id: Bytes::copy_from_slice(write.id), stamp });
        }
        Ok(outcome)
    }

    fn put_all_documents(
        &mut self,
        version: VersionId,
        as_of: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Fault> {
        let mut written = Written::default();
        let mut created = 0;
        for write in writes {
            match self.put_document(version, as_of, write)? {
                Outcome::Unchanged => written.unchanged += 1,
                Outcome::Created => {
                    created += 1;
                    written.written += 1;
                }
                Outcome::Replaced => written.written += 1,
                Outcome::Deleted => written.deleted += 1,
            }
        }
        if created != written.deleted {
            self.put_document_count(version, |count| (count + created).saturating_sub(written.deleted))?;
        }
        Ok(written)
    }

    fn purge(&mut self, version: VersionId, limit: usize) -> Result<usize, Fault> {
        let mut prefix = Vec::new();
        document_key(&mut prefix, version, &[]);
        let keys = self
            .tables
            .documents
            .prefix_iter(&self.txn, &prefix)?
            .take(limit.saturating_add(1))
            .map(|entry| entry.map(|(key, _)| key.to_vec()))
            .collect::<heed::Result<Vec<_>>>()?;
        let removed = keys.len().min(limit);
        for key in &keys[..removed] {
            self.documents.remove(&self.tables, &mut self.txn, version, key)?;
        }
        if keys.len() > limit {
            self.put_document_count(version, |count| count.saturating_sub(removed as u64))?;
        } else {
            self.catalog.remove_version(self.tables.meta, &mut self.txn, version)?;
            self.versions_changed = true;
        }
        Ok(removed)
    }
}

impl DocumentBatch for EmbeddedBatch<'_> {
    fn versions(&self) -> Result<Vec<VersionRecord>, Error> {
        Ok(self.catalog.versions.values().cloned().collect())
    }

    fn new_version_id(&mut self) -> Result<VersionId, Error> {
        let damaged = || self.environment().fail("number a version", Fault::Damaged("the next number cannot be read"));
        let next = match self.note(NEXT_VERSION)? {
            Some(bytes) => u32::from_be_bytes(bytes.as_slice().try_into().map_err(|_| damaged())?),
            None => 1,
        };
        self.set_note(NEXT_VERSION, Some(&(next + 1).to_be_bytes()))?;
        Ok(VersionId(next))
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error> {
        if self.catalog.versions.get(&version.id) == Some(version) {
            return Ok(());
        }
        self.versions_changed = true;
        let environment = self.environment();
        let put = self.catalog.put_version(self.tables.meta, &mut self.txn, version);
        put.map_err(|e| environment.fail("write a version", e))
    }

    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error> {
        let environment = self.environment();
        self.purge(version, limit).map_err(|e| environment.fail("remove documents", e))
    }

    fn put_documents(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        if writes.iter().any(|write| write.stamp.is_some()) {
            return Err(Error::OneWriter { place: self.environment().place.clone() });
        }
        // All or none of them.
        if let Some(bytes) = writes.iter().filter_map(|w| Some(w.body?.len())).find(|n| *n > DOCUMENT_BYTES_MAX) {
            return Err(Error::DocumentTooLarge { bytes, limit: DOCUMENT_BYTES_MAX });
        }
        let environment = self.environment();
        let written = self
            .put_all_documents(version, as_of_micros, writes)
            .map_err(|e| environment.fail("write documents", e))?;
        self.documents_written.written += written.written;
        self.documents_written.deleted += written.deleted;
        self.documents_written.unchanged += written.unchanged;
        Ok(written)
    }

    fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        Ok(self.catalog.documents.get(&version).copied().unwrap_or(0))
    }

    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error> {
        Ok(self.catalog.frontiers.clone())
    }

    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error> {
        if self.catalog.frontiers.get(source) == Some(&frontier) {
            return Ok(());
        }
        self.frontiers_changed = true;
        let environment = self.environment();
        let put = self.catalog.put_frontier(self.tables.meta, &mut self.txn, source, frontier);
        put.map_err(|e| environment.fail("write a frontier", e))
    }
}
