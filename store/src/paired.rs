//! Rows of one engine and documents of another, as one store.
//!
//! There is no transaction over both. Rows and offsets are committed first, together with a note of the roots whose
//! documents go with them, and [settled](RowStore::settle); then the documents are written. So documents never run ahead
//! of the rows, and what breaks off in between is known: the roots of the note are [unfinished](Batch::unfinished), and
//! are rebuilt from the rows first thing. Writing a document twice is harmless, since it is a function of the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_schemas::{TableId, TableSchema};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    Batch, ByteList, DocumentBatch, DocumentStore, DocumentTransaction, DocumentWrite, Error, Frontier, JoinIndex,
    ProjectionStore, RowArena, RowBatch, RowStore, RowTransaction, RowWrite, SchemaId, VersionId, VersionRecord,
    VersionState, Written,
};

/// The note that holds the roots of the last commit.
const NOTE: &str = "paired/unfinished";

/// Roots, by version.
type Roots = BTreeMap<VersionId, BTreeSet<Vec<u8>>>;

/// A store made of two engines.
pub struct Paired {
    rows: Arc<dyn RowStore>,
    documents: Arc<dyn DocumentStore>,
    /// Roots that are not finished; `None`: the note must be read.
    unfinished: Mutex<Option<Roots>>,
}

impl Paired {
    /// Puts two engines together. `rows` must not be used with another document store.
    pub fn new(rows: Arc<dyn RowStore>, documents: Arc<dyn DocumentStore>) -> Arc<Self> {
        Arc::new(Self { rows, documents, unfinished: Mutex::new(None) })
    }
}

impl ProjectionStore for Paired {
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error> {
        let mut unfinished = self.unfinished.lock();
        let rows = self.rows.begin()?;
        let documents = self.documents.begin()?;
        if unfinished.is_none() {
            let mut roots = rows.note(NOTE)?.map_or_else(Roots::default, |note| decode(&note));
            let versions = documents.versions()?;
            // Documents of a version that is gone are nobody's business.
            roots.retain(|id, _| versions.iter().any(|it| it.id == *id && it.state != VersionState::Retired));
            *unfinished = Some(roots);
        }
        Ok(Box::new(PairedBatch { store: self, rows, documents, unfinished, put: Roots::default() }))
    }

    fn rows_swept_max(&self) -> u64 {
        self.rows.rows_swept_max()
    }
}

struct PairedBatch<'s> {
    store: &'s Paired,
    rows: Box<dyn RowTransaction + 's>,
    documents: Box<dyn DocumentTransaction + 's>,
    unfinished: MutexGuard<'s, Option<Roots>>,
    /// Roots whose documents this batch writes.
    put: Roots,
}

impl Batch for PairedBatch<'_> {
    fn unfinished(&self) -> Result<Vec<(VersionId, ByteList)>, Error> {
        let roots = self.unfinished.iter().flatten();
        let list = |(id, roots): (&VersionId, &BTreeSet<Vec<u8>>)| {
            let mut list = ByteList::default();
            roots.iter().for_each(|root| list.push(root));
            (*id, list)
        };
        Ok(roots.map(list).collect())
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        let Self { store, mut rows, documents, mut unfinished, put } = *self;
        let before = unfinished.take().unwrap_or_default();
        let mut all = before.clone();
        for (id, roots) in &put {
            all.entry(*id).or_default().extend(roots.iter().cloned());
        }
        // An error from here on leaves `unfinished` unknown: the note is read again.
        if !all.is_empty() || rows.note(NOTE)?.is_some() {
            rows.set_note(NOTE, (!all.is_empty()).then(|| encode(&all)).as_deref())?;
        }
        rows.commit()?;
        // Or documents and the registry of versions would be ahead of the rows after a stop of the machine.
        store.rows.settle(Duration::ZERO)?;
        fail::fail_point!("store::between_rows_and_documents");
        documents.flush()?;
        let mut left = before;
        for (id, roots) in &put {
            if let Some(left) = left.get_mut(id) {
                left.retain(|root| !roots.contains(root));
            }
        }
        left.retain(|_, roots| !roots.is_empty());
        *unfinished = Some(left);
        Ok(())
    }
}

impl RowBatch for PairedBatch<'_> {
    fn schema_id(&mut self, schema: &TableSchema) -> Result<SchemaId, Error> {
        self.rows.schema_id(schema)
    }

    fn schemas(&self) -> Result<Vec<(SchemaId, TableSchema)>, Error> {
        self.rows.schemas()
    }

    fn rows_by_key(&self, table: &TableId, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error> {
        self.rows.rows_by_key(table, keys, from, out)
    }

    fn rows_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        from: usize,
        out: &mut RowArena,
    ) -> Result<usize, Error> {
        self.rows.rows_by_join(index, join_keys, from, out)
    }

    fn visit_by_join(
        &self,
        index: &JoinIndex,
        join_keys: &ByteList,
        visit: &mut dyn FnMut(&RowArena),
    ) -> Result<(), Error> {
        self.rows.visit_by_join(index, join_keys, visit)
    }

    fn check_row_size(&self, cells: usize, keys: usize) -> Result<(), Error> {
        self.rows.check_row_size(cells, keys)
    }

    fn put_row(&mut self, table: &TableId, indexes: &[&JoinIndex], write: RowWrite<'_>) -> Result<(), Error> {
        self.rows.put_row(table, indexes, write)
    }

    fn remove_row(
        &mut self,
        table: &TableId,
        indexes: &[&JoinIndex],
        key: &[u8],
        removed: &[(usize, &[u8])],
    ) -> Result<(), Error> {
        self.rows.remove_row(table, indexes, key, removed)
    }

    fn scan_rows(&self, table: &TableId, after: Option<&[u8]>, limit: usize, out: &mut RowArena) -> Result<(), Error> {
        self.rows.scan_rows(table, after, limit, out)
    }

    fn row_count(&self, table: &TableId) -> Result<u64, Error> {
        self.rows.row_count(table)
    }

    fn join_indexes(&self) -> Result<Vec<JoinIndex>, Error> {
        self.rows.join_indexes()
    }

    fn add_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        self.rows.add_join_index(index)
    }

    fn drop_join_index(&mut self, index: &JoinIndex) -> Result<(), Error> {
        self.rows.drop_join_index(index)
    }

    fn offsets(&self) -> Result<Vec<(String, u32, u64)>, Error> {
        self.rows.offsets()
    }

    fn set_offset(&mut self, topic: &str, partition: u32, offset: u64) -> Result<(), Error> {
        self.rows.set_offset(topic, partition, offset)
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.rows.note(name)
    }

    fn set_note(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Error> {
        self.rows.set_note(name, value)
    }
}

impl DocumentBatch for PairedBatch<'_> {
    fn versions(&self) -> Result<Vec<VersionRecord>, Error> {
        self.documents.versions()
    }

    fn new_version_id(&mut self) -> Result<VersionId, Error> {
        self.documents.new_version_id()
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<(), Error> {
        self.documents.put_version(version)
    }

    fn purge_version(&mut self, version: VersionId, limit: usize) -> Result<usize, Error> {
        self.documents.purge_version(version, limit)
    }

    fn put_documents(
        &mut self,
        version: VersionId,
        as_of_micros: i64,
        writes: &[DocumentWrite<'_>],
    ) -> Result<Written, Error> {
        let written = self.documents.put_documents(version, as_of_micros, writes)?;
        self.put.entry(version).or_default().extend(writes.iter().map(|write| write.id.to_vec()));
        Ok(written)
    }

    fn document_count(&self, version: VersionId) -> Result<u64, Error> {
        self.documents.document_count(version)
    }

    fn frontiers(&self) -> Result<BTreeMap<String, Frontier>, Error> {
        self.documents.frontiers()
    }

    fn set_frontier(&mut self, source: &str, frontier: Frontier) -> Result<(), Error> {
        self.documents.set_frontier(source, frontier)
    }
}

/// Version, number of roots, then each root behind its length.
fn encode(roots: &Roots) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, n: usize| {
        out.extend_from_slice(&u32::try_from(n).expect("a micro-batch is far below 4 GiB").to_le_bytes());
    };
    for (VersionId(id), roots) in roots {
        out.extend_from_slice(&id.to_le_bytes());
        number(&mut out, roots.len());
        for root in roots {
            number(&mut out, root.len());
            out.extend_from_slice(root);
        }
    }
    out
}

fn decode(mut note: &[u8]) -> Roots {
    fn number(rest: &mut &[u8]) -> Option<u32> {
        let (number, behind) = rest.split_first_chunk::<4>()?;
        *rest = behind;
        Some(u32::from_le_bytes(*number))
    }
    let mut roots = Roots::default();
    while let Some((id, count)) = number(&mut note).zip(number(&mut note)) {
        let of_version = roots.entry(VersionId(id)).or_default();
        for _ in 0..count {
            let root = number(&mut note).and_then(|len| note.split_at_checked(len as usize));
            let Some((root, behind)) = root else { return roots };
            of_version.insert(root.to_vec());
            note = behind;
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_come_back_from_their_note() {
        let roots = Roots::from([
            (VersionId(3), BTreeSet::from([b"".to_vec(), b"a".to_vec(), vec![0; 300]])),
            (VersionId(9), BTreeSet::from([b"b".to_vec()])),
        ]);
        assert_eq!(decode(&encode(&roots)), roots);
        assert_eq!(decode(&[]), Roots::default());
    }
}
