//! Sets of keys.

use std::ops::Range;

use headwater_store::ByteList;

/// Keys gathered in any order, given out sorted and each once. Holds keys only, so that even a change that dirties very
/// many roots stays small in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
}

impl KeySet {
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.push_with(|bytes| {
            bytes.extend_from_slice(key);
            true
        });
    }

    /// Adds what `write` appends, unless it answers `false`, and then must not have appended anything.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.bytes.len();
        if write(&mut self.bytes) {
            // The same key several times in a row is the usual case: all lines of one invoice.
            let same = self.spans.last().is_some_and(|last| self.bytes[last.clone()] == self.bytes[start..]);
            if same {
                self.bytes.truncate(start);
            } else {
                self.spans.push(start..self.bytes.len());
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Sorts and removes duplicates; answers how many keys there are.
    pub(crate) fn settle(&mut self) -> usize {
        let bytes = &self.bytes;
        self.spans.sort_by(|a, b| bytes[a.clone()].cmp(&bytes[b.clone()]));
        self.spans.dedup_by(|a, b| bytes[a.clone()] == bytes[b.clone()]);
        self.spans.len()
    }

    /// The keys at these places of the settled set.
    pub(crate) fn list(&self, range: Range<usize>) -> ByteList {
        let mut list = ByteList::default();
        for span in &self.spans[range] {
            list.push(&self.bytes[span.clone()]);
        }
        list
    }

    /// Keeps the keys that `keep` approves.
    pub(crate) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.spans.retain(|span| keep(&bytes[span.clone()]));
    }
}
