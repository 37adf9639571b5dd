//! Rows of one engine and documents of another, as one store.
//!
//! There is no transaction over both. Rows and offsets are committed first, together with a note of the roots whose
//! documents go with them, and [settled](RowStore::settle); then the documents are written. So documents never run ahead
//! of the rows, and what breaks off in between is known: the roots of the note are [unfinished](Batch::unfinished), and
//! are rebuilt from the rows first thing. Writing a document twice is harmless, since it is a function of the rows.
//!
//! Each engine may be restored from a backup without the other. So what is flushed has a mark, which the rows note
//! beforehand beside the one before it: documents with any other mark are of [another time](Batch::is_apart).
//!
//! One event may change very many documents, and MongoDB keeps at most 16 MiB in one of its own: the note is in pieces.

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

/// The notes that hold the roots of the last commit: the first piece has this name, each further one its number behind it.
const NOTE: &str = "paired/unfinished";

/// The note that holds the marks that documents may have which go with the rows: of the flush before the last, and the last.
const MARKS: &str = "paired/marks";

/// A piece ends with the root that brings it to this size.
const PIECE_BYTES: usize = 4 << 20;

/// Rows that a truncation removes in one commit at most: the roots above all of them stand in the note, and are held with
/// their documents until these are flushed.
const SWEPT_MAX: u64 = 20_000;

/// Roots, by version.
type Roots = BTreeMap<VersionId, BTreeSet<Vec<u8>>>;

/// A store made of two engines.
pub struct Paired {
    rows: Arc<dyn RowStore>,
    documents: Arc<dyn DocumentStore>,
    /// How the two stand to each other; `None`: the notes must be read.
    known: Mutex<Option<Known>>,
}

/// How documents stand to their rows.
struct Known {
    /// Roots that are not finished.
    unfinished: Roots,
    /// Mark of the documents.
    mark: u64,
    /// Whether it is none that the rows know.
    apart: bool,
}

impl Paired {
    /// Puts two engines together. `rows` must not be used with another document store.
    pub fn new(rows: Arc<dyn RowStore>, documents: Arc<dyn DocumentStore>) -> Arc<Self> {
        Arc::new(Self { rows, documents, known: Mutex::new(None) })
    }
}

impl ProjectionStore for Paired {
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error> {
        let mut known = self.known.lock();
        let rows = self.rows.begin()?;
        let documents = self.documents.begin()?;
        if known.is_none() {
            let mut roots = read(&*rows)?;
            let versions = documents.versions()?;
            // Documents of a version that is gone are nobody's business.
            roots.retain(|id, _| versions.iter().any(|it| it.id == *id && it.state != VersionState::Retired));
            let mark = documents.stored_mark()?;
            // Rows that no marked flush has gone with yet know nothing of it.
            let fits = |note: Vec<u8>| note.chunks(8).any(|known| known == mark.to_le_bytes());
            let apart = !rows.note(MARKS)?.is_none_or(fits);
            *known = Some(Known { unfinished: roots, mark, apart });
        }
        Ok(Box::new(PairedBatch { store: self, rows, documents, known, put: Roots::default() }))
    }

    fn rows_swept_max(&self) -> u64 {
        self.rows.rows_swept_max().min(SWEPT_MAX)
    }
}

struct PairedBatch<'s> {
    store: &'s Paired,
    rows: Box<dyn RowTransaction + 's>,
    documents: Box<dyn DocumentTransaction + 's>,
    known: MutexGuard<'s, Option<Known>>,
    /// Roots whose documents this batch writes.
    put: Roots,
}

impl Batch for PairedBatch<'_> {
    fn unfinished(&self) -> Result<Vec<(VersionId, ByteList)>, Error> {
        let roots = self.known.iter().flat_map(|known| &known.unfinished);
        let list = |(id, roots): (&VersionId, &BTreeSet<Vec<u8>>)| {
            let mut list = ByteList::default();
            roots.iter().for_each(|root| list.push(root));
            (*id, list)
        };
        Ok(roots.map(list).collect())
    }

    fn is_apart(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.apart)
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        let Self { store, mut rows, mut documents, known: mut held, put } = *self;
        let Known { unfinished: before, mark: stored, apart } = held.take().expect("read when the batch began");
        let mut all = before.clone();
        for (id, roots) in &put {
            all.entry(*id).or_default().extend(roots.iter().cloned());
        }
        // An error from here on leaves it unknown: the notes are read again.
        write(&mut *rows, &all)?;
        let mark = documents.mark();
        if let Some(mark) = mark {
            rows.set_note(MARKS, Some([stored, mark].map(u64::to_le_bytes).as_flattened()))?;
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
        *held = Some(Known { unfinished: left, mark: mark.unwrap_or(stored), apart: apart && mark.is_none() });
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

fn name(piece: usize) -> String {
    if piece == 0 { NOTE.into() } else { format!("{NOTE}/{piece}") }
}

/// The roots of all pieces.
fn read(rows: &dyn RowBatch) -> Result<Roots, Error> {
    let mut roots = Roots::default();
    for piece in 0.. {
        let Some(note) = rows.note(&name(piece))? else { break };
        decode(&note, &mut roots);
    }
    Ok(roots)
}

/// Replaces all pieces.
fn write(rows: &mut dyn RowBatch, roots: &Roots) -> Result<(), Error> {
    let pieces = encode(roots);
    for (piece, note) in pieces.iter().enumerate() {
        rows.set_note(&name(piece), Some(note))?;
    }
    for piece in pieces.len().. {
        let name = name(piece);
        if rows.note(&name)?.is_none() {
            break;
        }
        rows.set_note(&name, None)?;
    }
    Ok(())
}

/// Each piece, and each version in it: version, number of roots, then each root behind its length.
fn encode(roots: &Roots) -> Vec<Vec<u8>> {
    let bytes = |n: usize| u32::try_from(n).expect("a piece is far below 4 GiB").to_le_bytes();
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    for (VersionId(id), roots) in roots {
        let mut roots = roots.iter().peekable();
        while roots.peek().is_some() {
            piece.extend_from_slice(&id.to_le_bytes());
            let (count_at, mut count) = (piece.len(), 0);
            piece.extend_from_slice(&bytes(count));
            while piece.len() < PIECE_BYTES
                && let Some(root) = roots.next()
            {
                piece.extend_from_slice(&bytes(root.len()));
                piece.extend_from_slice(root);
                count += 1;
            }
            piece[count_at..count_at + 4].copy_from_slice(&bytes(count));
            if piece.len() >= PIECE_BYTES {
                pieces.push(std::mem::take(&mut piece));
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// Adds the roots of a piece.
fn decode(mut note: &[u8], roots: &mut Roots) {
    fn number(rest: &mut &[u8]) -> Option<u32> {
        let (number, behind) = rest.split_first_chunk::<4>()?;
        *rest = behind;
        Some(u32::from_le_bytes(*number))
    }
    while let Some((id, count)) = number(&mut note).zip(number(&mut note)) {
        let of_version = roots.entry(VersionId(id)).or_default();
        for _ in 0..count {
            let root = number(&mut note).and_then(|len| note.split_at_checked(len as usize));
            let Some((root, behind)) = root else { return };
            of_version.insert(root.to_vec());
            note = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(pieces: &[Vec<u8>]) -> Roots {
        let mut roots = Roots::default();
        pieces.iter().for_each(|piece| decode(piece, &mut roots));
        roots
    }

    #[test]
    fn roots_come_back_from_their_notes() {
        let mut roots = Roots::from([
            (VersionId(3), BTreeSet::from([b"".to_vec(), b"a".to_vec(), vec![0; 300]])),
            (VersionId(9), BTreeSet::from([b"b".to_vec()])),
        ]);
        let pieces = encode(&roots);
        assert_eq!((pieces.len(), back(&pieces)), (1, roots.clone()));
        assert!(encode(&Roots::default()).is_empty());

        for version in [5, 9] {
            roots.entry(VersionId(version)).or_default().extend((0..100).map(|n| vec![n; PIECE_BYTES / 30]));
        }
        let pieces = encode(&roots);
        assert_eq!((pieces.len(), back(&pieces)), (7, roots));
    }
}
