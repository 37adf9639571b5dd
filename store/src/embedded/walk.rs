//! Queries: a walk over an index, or over ids, in the order in which entries are stored.

use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::ControlFlow;

use headwater_schemas::key::split_first;
use heed::RoTxn;

use super::documents::{IndexEntry, StoredDocument, document_key, get, index_prefix};
use super::environment::{Fault, Table, Tables};
use super::key::{FIRST_MAX, push_first, push_last, successor};
use crate::{Counted, Cursor, Document, Filter, IndexQuery, KeyRange, Page, VersionId};

/// How a walk ended.
enum End {
    /// There is nothing more.
    Finished,
    /// The visitor has enough.
    Stopped,
    /// The budget is used up; the place reached.
    Budget(Cursor),
}

/// Stored keys and values.
type StoredEntries<'t> = Box<dyn Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>> + 't>;

/// Stored keys from `low`, inclusive, to `high`, exclusive; `None` is unbounded.
struct Window {
    low: Vec<u8>,
    high: Option<Vec<u8>>,
}

/// The documents of a page.
pub(super) fn page(tables: &Tables, txn: &RoTxn<'_>, version: VersionId, query: &IndexQuery) -> Result<Page, Fault> {
    let mut documents: Vec<(Vec<u8>, Document)> = Vec::with_capacity(query.limit.min(1000));
    let mut bytes = 0;
    // Of the last document on the page.
    let mut last_value = Vec::new();
    let end = walk(tables, txn, version, query, |value, id, document| {
        bytes += document.body_len();
        // One more than the page holds shows that there is a next one.
        if documents.len() == query.limit || (bytes > query.bytes_max && !documents.is_empty()) {
            return ControlFlow::Break(());
        }
        documents.push((id.to_vec(), document.to_document()));
        last_value.clear();
        last_value.extend_from_slice(value);
        ControlFlow::Continue(())
    })?;
    let next = match (end, documents.last()) {
        (End::Finished, _) => None,
        (End::Budget(reached), _) => Some(reached),
        (End::Stopped, Some((id, _))) => Some(Cursor { value: last_value, id: id.clone() }),
        (End::Stopped, None) => query.after.clone(),
    };
    Ok(Page { documents, next })
}

/// How many documents match, up to `limit` and as far as the budget goes.
pub(super) fn count(
    tables: &Tables,
    txn: &RoTxn<'_>,
    version: VersionId,
    query: &IndexQuery,
    limit: u64,
) -> Result<Counted, Fault> {
    let mut seen = 0;
    if limit == 0 {
        return Ok(Counted { seen, is_all: false });
    }
    let end = walk(tables, txn, version, query, |_, _, _| {
        seen += 1;
        if seen == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(Counted { seen, is_all: matches!(end, End::Finished) })
}

fn walk(
    tables: &Tables,
    txn: &RoTxn<'_>,
    version: VersionId,
    query: &IndexQuery,
    found: impl FnMut(&[u8], &[u8], StoredDocument<'_>) -> ControlFlow<()>,
) -> Result<End, Fault> {
    match &query.walk {
        None => walk_ids(tables, txn, version, query, found),
        Some(filter) => walk_index(tables, txn, version, query, filter, found),
    }
}

fn walk_ids(
    tables: &Tables,
    txn: &RoTxn<'_>,
    version: VersionId,
    query: &IndexQuery,
    mut found: impl FnMut(&[u8], &[u8], StoredDocument<'_>) -> ControlFlow<()>,
) -> Result<End, Fault> {
    let mut low = Vec::new();
    document_key(&mut low, version, &[]);
    let window = Window { high: after_all(low.clone()), low };
    let after = query.after.as_ref().map(|cursor| {
        let mut key = Vec::new();
        document_key(&mut key, version, &cursor.id);
        key
    });
    let mut budget = Budget::of(query);
    for entry in window.entries(tables.documents, txn, after.as_deref(), query.descending)? {
        if let Some(reached) = budget.used_up() {
            return Ok(End::Budget(reached));
        }
        let (stored_key, value) = entry?;
        let document = StoredDocument::decode(value)?;
        let id = document.id(stored_key);
        if matches(&query.filters, document) && found(&[], id, document).is_break() {
            return Ok(End::Stopped);
        }
        budget.spend(&[], id);
    }
    Ok(End::Finished)
}

fn walk_index(
    tables: &Tables,
    txn: &RoTxn<'_>,
    version: VersionId,
    query: &IndexQuery,
    filter: &Filter,
    mut found: impl FnMut(&[u8], &[u8], StoredDocument<'_>) -> ControlFlow<()>,
) -> Result<End, Fault> {
    let after = query.after.as_ref().map(|cursor| {
        let mut key = Vec::new();
        index_prefix(&mut key, version, filter.index);
        push_first(&mut key, &cursor.value);
        push_last(&mut key, &cursor.id);
        key
    });
    let mut windows = windows(version, filter);
    if query.descending {
        windows.reverse();
    }
    let mut key = Vec::with_capacity(64);
    let mut budget = Budget::of(query);
    for window in windows {
        for entry in window.entries(tables.index, txn, after.as_deref(), query.descending)? {
            if let Some(reached) = budget.used_up() {
                return Ok(End::Budget(reached));
            }
            let (stored_key, data) = entry?;
            let entry = IndexEntry::decode(stored_key, data)?;
            if filter.within(entry.value) {
                let document = get(tables.documents, txn, &mut key, version, entry.id)?
                    .ok_or(Fault::Damaged("an index entry leads to no document"))?;
                if is_first(filter, document, entry.value, query.descending)
                    && matches(&query.filters, document)
                    && found(entry.value, entry.id, document).is_break()
                {
                    return Ok(End::Stopped);
                }
            }
            budget.spend(entry.value, entry.id);
        }
    }
    Ok(End::Finished)
}

/// Entries that may still be looked at, at least one, and the last that was.
struct Budget<'t> {
    left: usize,
    reached: Option<(&'t [u8], &'t [u8])>,
}

impl<'t> Budget<'t> {
    fn of(query: &IndexQuery) -> Self {
        Self { left: query.entries_max.max(1), reached: None }
    }

    fn spend(&mut self, value: &'t [u8], id: &'t [u8]) {
        self.left -= 1;
        self.reached = Some((value, id));
    }

    /// The place reached, if there is nothing left to go on with.
    fn used_up(&self) -> Option<Cursor> {
        let (value, id) = self.reached.filter(|_| self.left == 0)?;
        Some(Cursor { value: value.to_vec(), id: id.to_vec() })
    }
}

fn matches(filters: &[Filter], document: StoredDocument<'_>) -> bool {
    filters.iter().all(|filter| filter.matches(document.entries()))
}

/// Whether the walk meets the document at `value` before it meets it at any other of its values.
fn is_first(filter: &Filter, document: StoredDocument<'_>, value: &[u8], descending: bool) -> bool {
    let mut others = document.entries().filter(|(index, other)| *index == filter.index && *other != value);
    !others.any(|(_, other)| filter.within(other) && stored_before(other, value) != descending)
}

/// Whether entries of the value `a` are stored before those of `b`, another value.
fn stored_before(a: &[u8], b: &[u8]) -> bool {
    if a.len() <= FIRST_MAX && b.len() <= FIRST_MAX {
        return a < b;
    }
    let stored = |value| {
        let mut key = Vec::new();
        push_first(&mut key, value);
        key
    };
    stored(a) < stored(b)
}

/// What of an index has to be walked to meet all entries in the filter's ranges: ascending, not overlapping. It may hold
/// a few others.
fn windows(version: VersionId, filter: &Filter) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::with_capacity(filter.ranges.len());
    for range in &filter.ranges {
        let window = Window::of(version, filter.index, range);
        if window.high.as_ref().is_some_and(|high| *high <= window.low) {
            continue;
        }
        match windows.last_mut() {
            // The ranges do not overlap, but cut values can make windows of two meet.
            Some(last) if last.high.as_ref().is_none_or(|high| window.low < *high) => {
                if last.high.is_some() && (window.high.is_none() || window.high > last.high) {
                    last.high = window.high;
                }
            }
            _ => windows.push(window),
        }
    }
    windows
}

impl Window {
    fn of(version: VersionId, index: u16, range: &KeyRange) -> Self {
        let mut prefix = Vec::new();
        index_prefix(&mut prefix, version, index);
        let high = match &range.high {
            None => after_all(prefix.clone()),
            Some(high) => bound(&prefix, high, false),
        };
        let low = bound(&prefix, &range.low, true).unwrap_or(prefix);
        Self { low, high }
    }

    /// The entries in the window and, in the walk's direction, behind `after`.
    fn entries<'t>(
        &self,
        table: Table,
        txn: &'t RoTxn<'_>,
        after: Option<&[u8]>,
        descending: bool,
    ) -> heed::Result<StoredEntries<'t>> {
        let mut low: Bound<&[u8]> = Included(&self.low);
        let mut high: Bound<&[u8]> = self.high.as_deref().map_or(Unbounded, Excluded);
        match after {
            Some(after) if descending && self.high.as_deref().is_none_or(|high| after < high) => {
                high = Excluded(after);
                if after <= self.low.as_slice() {
                    return Ok(Box::new(std::iter::empty()));
                }
            }
            Some(after) if !descending && after >= self.low.as_slice() => {
                low = Excluded(after);
                if self.high.as_deref().is_some_and(|high| after >= high) {
                    return Ok(Box::new(std::iter::empty()));
                }
            }
            _ => {}
        }
        Ok(if descending {
            Box::new(table.rev_range(txn, &(low, high))?)
        } else {
            Box::new(table.range(txn, &(low, high))?)
        })
    }
}

/// Where in an index the values from `value` on begin, or, for an upper bound, where those below it end; not within the
/// entries of one value. `None` is the end of all keys.
fn bound(prefix: &[u8], value: &[u8], is_low: bool) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    // A whole value and more: between this value, with whatever ids follow it, and all greater ones.
    if let Some((whole, more)) = split_first(value)
        && !more.is_empty()
    {
        if whole.len() > FIRST_MAX {
            key.extend_from_slice(&whole[..FIRST_MAX]);
            return if is_low { Some(key) } else { after_all(key) };
        }
        key.extend_from_slice(whole);
        return after_all(key);
    }
    // Behind what is kept of a cut value comes its hash, not its order: take them all.
    if value.len() > FIRST_MAX {
        key.extend_from_slice(&value[..FIRST_MAX]);
        return if is_low { Some(key) } else { after_all(key) };
    }
    key.extend_from_slice(value);
    Some(key)
}

fn after_all(mut prefix: Vec<u8>) -> Option<Vec<u8>> {
    successor(&mut prefix).then_some(prefix)
}
