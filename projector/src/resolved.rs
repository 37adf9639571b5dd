//! Which dead letters a retry has resolved: their offsets, in a note beside the rows.
//!
//! Most often whole runs of letters are resolved together, and letters that retention has removed need not be remembered: so
//! the note holds ranges, from the first letter that is left on.

use std::collections::BTreeMap;

use headwater_store::RowBatch;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Name of the note.
const NOTE: &str = "dead_letters/resolved";

/// A set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The last offset of each range, by the first one. They neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

/// How a range is written: an offset alone, as in the notes of earlier versions, or the first and the last one.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(u64),
    Range(u64, u64),
}

impl Resolved {
    /// Those that were noted.
    pub(crate) fn load(batch: &dyn RowBatch) -> Result<Self, Error> {
        let Some(note) = batch.note(NOTE)? else { return Ok(Self::default()) };
        Self::decode(&note).ok_or_else(|| Error::Note { note: NOTE.into() })
    }

    /// Notes that these were resolved, too, and answers with all of them. Those below `low` are forgotten: they are not in
    /// the log any more.
    pub(crate) fn mark(batch: &mut dyn RowBatch, offsets: &[u64], low: u64) -> Result<Self, Error> {
        let mut all = Self::load(batch)?;
        offsets.iter().for_each(|offset| all.insert(*offset, *offset));
        all.forget_below(low);
        batch.set_note(NOTE, Some(&all.encode()))?;
        Ok(all)
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.ranges.range(..=offset).next_back().is_some_and(|(_, last)| offset <= *last)
    }

    /// How many there are from an offset on.
    pub(crate) fn count_from(&self, offset: u64) -> u64 {
        self.ranges.iter().filter(|(_, last)| offset <= **last).map(|(first, last)| last - offset.max(*first) + 1).sum()
    }

    /// Adds those of another set.
    pub(crate) fn extend(&mut self, other: &Self) {
        other.ranges.iter().for_each(|(first, last)| self.insert(*first, *last));
    }

    fn insert(&mut self, mut first: u64, mut last: u64) {
        // From the last one backward, all that it touches become one with it.
        while let Some((from, to)) = self.ranges.range(..=last.saturating_add(1)).next_back().map(|(a, b)| (*a, *b))
            && first <= to.saturating_add(1)
        {
            self.ranges.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.ranges.insert(first, last);
    }

    fn forget_below(&mut self, low: u64) {
        let left = self.ranges.split_off(&low);
        let over_it = self.ranges.pop_last().filter(|(_, last)| low <= *last);
        self.ranges = left;
        self.ranges.extend(over_it.map(|(_, last)| (low, last)));
    }

    fn encode(&self) -> Vec<u8> {
        let written = |(first, last): (&u64, &u64)| match first == last {
            true => Written::One(*first),
            false => Written::Range(*first, *last),
        };
        let ranges: Vec<Written> = self.ranges.iter().map(written).collect();
        serde_json::to_vec(&ranges).expect("a list of numbers")
    }

    /// `None`: it is no such note.
    fn decode(note: &[u8]) -> Option<Self> {
        let ranges: Vec<Written> = serde_json::from_slice(note).ok()?;
        let mut all = Self::default();
        for range in ranges {
            let (first, last) = match range {
                Written::One(offset) => (offset, offset),
                Written::Range(first, last) => (first, last),
            };
            if last < first {
                return None;
            }
            all.insert(first, last);
        }
        Some(all)
    }
}

impl FromIterator<u64> for Resolved {
    fn from_iter<I: IntoIterator<Item = u64>>(offsets: I) -> Self {
        let mut all = Self::default();
        offsets.into_iter().for_each(|offset| all.insert(offset, offset));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(offsets: &Resolved) -> String {
        String::from_utf8_lossy(&offsets.encode()).into_owned()
    }

    #[test]
    fn offsets_that_touch_are_one_range() {
        // In whatever order they come.
        for offsets in [[1, 2, 3, 5, 9, 10], [10, 3, 1, 9, 2, 5], [2, 10, 5, 9, 3, 1]] {
            let set = Resolved::from_iter(offsets);
            assert_eq!(written(&set), "[[1,3],5,[9,10]]");
            let found: Vec<u64> = (0..20).filter(|offset| set.contains(*offset)).collect();
            assert_eq!(found, [1, 2, 3, 5, 9, 10]);
            assert_eq!([0, 1, 2, 4, 6, 10, 11].map(|from| set.count_from(from)), [6, 6, 5, 3, 2, 1, 0]);
        }
        let mut set = Resolved::from_iter([1, 2, 3, 7]);
        set.extend(&Resolved::from_iter([2, 3, 4, 5, 6, 20]));
        assert_eq!(written(&set), "[[1,7],20]");
        set.insert(u64::MAX, u64::MAX);
        assert!(set.contains(u64::MAX) && !set.contains(u64::MAX - 1));
    }

    #[test]
    fn notes_of_earlier_versions_are_read() {
        let set = Resolved::decode(b"[1,2,3,7]").expect("a list of offsets");
        assert_eq!(set, Resolved::from_iter([1, 2, 3, 7]));
        assert_eq!(Resolved::decode(&set.encode()), Some(set));
        assert_eq!(Resolved::decode(b"[]"), Some(Resolved::default()));
        assert_eq!((Resolved::decode(b"[[3,1]]"), Resolved::decode(b"{}")), (None, None));
    }

    #[test]
    fn what_is_below_is_forgotten() {
        for (low, left) in [
            (0, "[[1,3],5,[8,9]]"),
            (1, "[[1,3],5,[8,9]]"),
            (2, "[[2,3],5,[8,9]]"),
            (4, "[5,[8,9]]"),
            (9, "[9]"),
            (10, "[]"),
        ] {
            let mut set = Resolved::from_iter([1, 2, 3, 5, 8, 9]);
            set.forget_below(low);
            assert_eq!(written(&set), left, "from {low} on");
        }
    }
}
