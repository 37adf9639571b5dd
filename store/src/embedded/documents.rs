//! Documents and their index entries as they are stored.
//!
//! * A document: stamp (8 bytes), source time (8), length of its entries (4), length of its id if that was cut and else
//!   0 (4), that id, the entries (index 2, length 4, value), the body.
//! * An index entry: flags (1), length of the value within the key (2), value and id if they were cut.

use heed::{RoTxn, RwTxn};

use super::environment::{Fault, Table, Tables};
use super::key::{push_first, push_last, push_prefixed, take, take_prefixed, take_u16, take_u32, take_u64};
use crate::{Document, DocumentWrite, VersionId};

const VALUE_CUT: u8 = 1;
const ID_CUT: u8 = 2;

/// Bytes of an index entry's key before the value.
pub(super) const INDEX_PREFIX: usize = 6;
/// Bytes of a document's key before the id.
const DOCUMENT_PREFIX: usize = 4;

const BROKEN: Fault = Fault::Damaged("a document is cut short");

/// A document as it lies in the map.
#[derive(Clone, Copy)]
pub(super) struct StoredDocument<'t> {
    stamp: u64,
    as_of_micros: i64,
    cut_id: Option<&'t [u8]>,
    entries: &'t [u8],
    body: &'t [u8],
}

impl<'t> StoredDocument<'t> {
    pub(super) fn decode(value: &'t [u8]) -> Result<Self, Fault> {
        Self::parse(value).ok_or(BROKEN)
    }

    fn parse(value: &'t [u8]) -> Option<Self> {
        let rest = &mut &*value;
        let stamp = take_u64(rest)?;
        let as_of_micros = take_u64(rest)? as i64;
        let entries_len = take_u32(rest)? as usize;
        let id_len = take_u32(rest)? as usize;
        let cut_id = if id_len == 0 { None } else { Some(take(rest, id_len)?) };
        let entries = take(rest, entries_len)?;
        Some(Self { stamp, as_of_micros, cut_id, entries, body: rest })
    }

    /// A copy that outlives the transaction.
    pub(super) fn to_document(self) -> Document {
        let body = bytes::Bytes::copy_from_slice(self.body);
        Document { stamp: self.stamp, as_of_micros: self.as_of_micros, body }
    }

    /// Bytes of its body.
    pub(super) fn body_len(self) -> usize {
        self.body.len()
    }

    /// Its index entries.
    pub(super) fn entries(self) -> Entries<'t> {
        Entries(self.entries)
    }

    /// Its id, given the key it is stored under.
    pub(super) fn id(self, stored_key: &'t [u8]) -> &'t [u8] {
        self.cut_id.unwrap_or(&stored_key[DOCUMENT_PREFIX..])
    }
}

/// Index entries in their order. What cannot be read ends them.
#[derive(Clone)]
pub(super) struct Entries<'e>(&'e [u8]);

impl<'e> Iterator for Entries<'e> {
    type Item = (u16, &'e [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let index = take_u16(&mut self.0)?;
        Some((index, take_prefixed(&mut self.0)?))
    }
}

/// The key of a document.
pub(super) fn document_key(key: &mut Vec<u8>, version: VersionId, id: &[u8]) -> bool {
    key.clear();
    key.extend_from_slice(&version.0.to_be_bytes());
    push_last(key, id)
}

/// The beginning of the keys of an index's entries.
pub(super) fn index_prefix(key: &mut Vec<u8>, version: VersionId, index: u16) {
    key.clear();
    key.extend_from_slice(&version.0.to_be_bytes());
    key.extend_from_slice(&index.to_be_bytes());
}

/// Reads one document.
pub(super) fn get<'t>(
    documents: Table,
    txn: &'t RoTxn<'_>,
    key: &mut Vec<u8>,
    version: VersionId,
    id: &[u8],
) -> Result<Option<StoredDocument<'t>>, Fault> {
    document_key(key, version, id);
    documents.get(txn, key)?.map(StoredDocument::decode).transpose()
}

/// Reads several documents, unless two or more of them have over `bytes_max` bytes together.
pub(super) fn get_many(
    documents: Table,
    txn: &RoTxn<'_>,
    version: VersionId,
    ids: &[Vec<u8>],
    bytes_max: usize,
) -> Result<Option<Vec<Option<Document>>>, Fault> {
    let mut key = Vec::with_capacity(64);
    let mut found = Vec::with_capacity(ids.len());
    let (mut there, mut bytes) = (0, 0);
    for id in ids {
        let document = get(documents, txn, &mut key, version, id)?;
        if let Some(document) = document {
            there += 1;
            bytes += document.body_len();
            if there > 1 && bytes > bytes_max {
                return Ok(None);
            }
        }
        found.push(document.map(StoredDocument::to_document));
    }
    Ok(Some(found))
}

/// An entry of an index as it lies in the map.
pub(super) struct IndexEntry<'t> {
    pub value: &'t [u8],
    pub id: &'t [u8],
}

impl<'t> IndexEntry<'t> {
    pub(super) fn decode(stored_key: &'t [u8], data: &'t [u8]) -> Result<Self, Fault> {
        Self::parse(stored_key, data).ok_or(Fault::Damaged("an index entry is cut short"))
    }

    fn parse(stored_key: &'t [u8], data: &'t [u8]) -> Option<Self> {
        let rest = &mut &*data;
        let flags = take(rest, 1)?[0];
        let value_len = take_u16(rest)? as usize;
        let (value, id) = stored_key.get(INDEX_PREFIX..)?.split_at_checked(value_len)?;
        let value = if flags & VALUE_CUT == 0 { value } else { take_prefixed(rest)? };
        let id = if flags & ID_CUT == 0 { id } else { take_prefixed(rest)? };
        Some(Self { value, id })
    }
}

/// What became of a document.
pub(super) enum Outcome {
    Unchanged,
    Created,
    Replaced,
    Deleted,
}

/// Writes documents of one version; keeps its memory between them.
#[derive(Default)]
pub(super) struct DocumentWriter {
    key: Vec<u8>,
    value: Vec<u8>,
    entries: Vec<u8>,
    old_entries: Vec<u8>,
    value_len: usize,
}

impl DocumentWriter {
    /// Brings a document and its index entries to their new state. Only what differs is touched.
    pub(super) fn put(
        &mut self,
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        version: VersionId,
        stamp: u64,
        as_of_micros: i64,
        write: &DocumentWrite<'_>,
    ) -> Result<Outcome, Fault> {
        debug_assert!(write.entries.is_sorted(), "entries must be sorted");
        self.entries.clear();
        for (index, value) in write.entries.iter().filter(|_| write.body.is_some()) {
            self.entries.extend_from_slice(&index.to_le_bytes());
            push_prefixed(&mut self.entries, value);
        }
        let cut = document_key(&mut self.key, version, write.id);
        self.old_entries.clear();
        let old = tables.documents.get(txn, &self.key)?.map(StoredDocument::decode).transpose()?;
        let existed = old.is_some();
        if let Some(old) = old {
            if write.body == Some(old.body) && old.entries == self.entries {
                return Ok(Outcome::Unchanged);
            }
            self.old_entries.extend_from_slice(old.entries);
        }
        let Some(body) = write.body else {
            if !existed {
                return Ok(Outcome::Unchanged);
            }
            tables.documents.delete(txn, &self.key)?;
            self.change_entries(tables.index, txn, version, write.id)?;
            return Ok(Outcome::Deleted);
        };
        let id: &[u8] = if cut { write.id } else { &[] };
        self.value.clear();
        self.value.reserve(24 + id.len() + self.entries.len() + body.len());
        self.value.extend_from_slice(&stamp.to_le_bytes());
        self.value.extend_from_slice(&as_of_micros.to_le_bytes());
        for len in [self.entries.len(), id.len()] {
            let len = u32::try_from(len).map_err(|_| Fault::Damaged("a document's index entries exceed 4 GiB"))?;
            self.value.extend_from_slice(&len.to_le_bytes());
        }
        self.value.extend_from_slice(id);
        self.value.extend_from_slice(&self.entries);
        self.value.extend_from_slice(body);
        tables.documents.put(txn, &self.key, &self.value)?;
        self.value_len = self.value.len();
        self.change_entries(tables.index, txn, version, write.id)?;
        Ok(if existed { Outcome::Replaced } else { Outcome::Created })
    }

    /// Size of what was last stored as a document.
    pub(super) fn value_len(&self) -> usize {
        self.value_len
    }

    /// Removes a document that is stored under `stored_key`.
    pub(super) fn remove(
        &mut self,
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        version: VersionId,
        stored_key: &[u8],
    ) -> Result<(), Fault> {
        let Some(value) = tables.documents.get(txn, stored_key)? else { return Ok(()) };
        let old = StoredDocument::decode(value)?;
        let id = old.id(stored_key).to_vec();
        self.entries.clear();
        self.old_entries.clear();
        self.old_entries.extend_from_slice(old.entries);
        tables.documents.delete(txn, stored_key)?;
        self.change_entries(tables.index, txn, version, &id)
    }

    /// Merges the sorted lists of old and new entries: removes what is only in the one, adds what is only in the other.
    fn change_entries(
        &mut self,
        index_table: Table,
        txn: &mut RwTxn<'_>,
        version: VersionId,
        id: &[u8],
    ) -> Result<(), Fault> {
        if self.old_entries == self.entries {
            return Ok(());
        }
        let (mut old, mut new) = (Entries(&self.old_entries).peekable(), Entries(&self.entries).peekable());
        loop {
            let (index, value, add) = match (old.peek().copied(), new.peek().copied()) {
                (None, None) => return Ok(()),
                (Some(gone), Some(kept)) if gone == kept => {
                    old.next();
                    new.next();
                    continue;
                }
                (Some(gone), added) if added.is_none_or(|added| gone < added) => {
                    old.next();
                    (gone.0, gone.1, false)
                }
                (_, Some(added)) => {
                    new.next();
                    (added.0, added.1, true)
                }
                (Some(_), None) => unreachable!("taken by the arm before the last"),
            };
            index_prefix(&mut self.key, version, index);
            let value_cut = push_first(&mut self.key, value);
            let value_len = self.key.len() - INDEX_PREFIX;
            let id_cut = push_last(&mut self.key, id);
            if !add {
                index_table.delete(txn, &self.key)?;
                continue;
            }
            self.value.clear();
            self.value.push(if value_cut { VALUE_CUT } else { 0 } | if id_cut { ID_CUT } else { 0 });
            self.value.extend_from_slice(&(value_len as u16).to_le_bytes());
            if value_cut {
                push_prefixed(&mut self.value, value);
            }
            if id_cut {
                push_prefixed(&mut self.value, id);
            }
            index_table.put(txn, &self.key, &self.value)?;
        }
    }
}
