//! Queries by declared index. Everything is a range of key bytes, so that an engine needs to understand no values.

use crate::Document;

/// A range of [`headwater_schemas::key`] bytes: `low` inclusive, `high` exclusive; `None` is unbounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key in the range.
    pub low: Vec<u8>,
    /// First key behind the range.
    pub high: Option<Vec<u8>>,
}

impl KeyRange {
    /// Whether `key` is within.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.low.as_slice() && self.high.as_deref().is_none_or(|high| key < high)
    }

    /// Exactly one key.
    pub fn exactly(key: &[u8]) -> Self {
        let mut high = key.to_vec();
        high.push(0);
        Self { low: key.to_vec(), high: Some(high) }
    }
}

/// A condition on a document's entries of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Number of the index within the model.
    pub index: u16,
    /// The document matches when any of its entries is in any of these. Sorted by `low`, not overlapping.
    pub ranges: Vec<KeyRange>,
    /// Instead, it matches when it has entries and none of them is in any range.
    pub negated: bool,
}

impl Filter {
    /// Whether `key` is in any of the ranges.
    pub fn within(&self, key: &[u8]) -> bool {
        // Of ranges that do not overlap only the last that begins at or before the key can hold it.
        let behind = self.ranges.partition_point(|range| range.low.as_slice() <= key);
        behind > 0 && self.ranges[behind - 1].contains(key)
    }

    /// Whether a document with these entries matches.
    pub fn matches<'e>(&self, mut entries: impl Iterator<Item = (u16, &'e [u8])>) -> bool {
        if self.negated {
            let mut own = entries.filter(|(index, _)| *index == self.index).peekable();
            own.peek().is_some() && own.all(|(_, key)| !self.within(key))
        } else {
            entries.any(|(index, key)| index == self.index && self.within(key))
        }
    }
}

/// A page of documents in the order of an index, or of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexQuery {
    /// The index that is walked, within its ranges; the page is in its order, then by id. Not negated. `None` walks ids.
    /// A document with several entries in the ranges appears once, at its first in the walk's direction. Values, or ids,
    /// that agree in their first 200 bytes may be in an order of the engine's own.
    pub walk: Option<Filter>,
    /// Walks from the greatest to the least.
    pub descending: bool,
    /// Conditions that every document on the page meets.
    pub filters: Vec<Filter>,
    /// Starts behind this place.
    pub after: Option<Cursor>,
    /// Documents on the page, at most.
    pub limit: usize,
    /// Entries looked at, at most: a page may end early, with a cursor, when filters pass few.
    pub entries_max: usize,
    /// Bytes of the documents on the page together, at most: it ends early, with a cursor, before the document that
    /// would be too much. One that is too large by itself is on a page of its own.
    pub bytes_max: usize,
}

/// A place in the walk of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Value of the walked index's entry; empty when ids are walked.
    pub value: Vec<u8>,
    /// Id of the document.
    pub id: Vec<u8>,
}

/// How many documents match, as far as that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Documents that were seen.
    pub seen: u64,
    /// Whether there are no others.
    pub is_all: bool,
}

/// An answer to an [`IndexQuery`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Ids and documents in order.
    pub documents: Vec<(Vec<u8>, Document)>,
    /// Where the next page starts; `None` when this is the last.
    pub next: Option<Cursor>,
}
