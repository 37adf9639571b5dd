//! How fresh the documents of each version were of late, when they became readable.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::clock::now_micros;
use crate::fold::Folded;

/// Source transactions that are kept in mind of each version.
const KEPT: usize = 1_024;

/// From the source's commit to the readable document, of the last thousand transactions or so that changed documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Freshness {
    /// Seconds of the last one.
    pub last_seconds: f64,
    /// Seconds within which one half was readable.
    pub p50_seconds: f64,
    /// Seconds within which 99 of 100 were.
    pub p99_seconds: f64,
}

/// By version, oldest first, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Recent(BTreeMap<u32, VecDeque<f64>>);

impl Recent {
    /// Notes what a step has made readable just now.
    pub(crate) fn note(&mut self, folded: &Folded) {
        let now = now_micros();
        for version in &folded.rebuilt {
            let seconds = self.0.entry(version.0).or_default();
            let newest = folded.committed_at.iter().rev().take(KEPT).rev();
            seconds.extend(newest.map(|at| now.saturating_sub(*at).max(0) as f64 / 1e6));
            seconds.drain(..seconds.len().saturating_sub(KEPT));
        }
    }

    /// Forgets the versions for which this does not hold.
    pub(crate) fn retain(&mut self, lives: impl Fn(u32) -> bool) {
        self.0.retain(|version, _| lives(*version));
    }

    /// `None` of a version whose documents were not changed by a transaction since the start.
    pub(crate) fn of(&self, version: u32) -> Option<Freshness> {
        let seconds = self.0.get(&version)?;
        let last_seconds = *seconds.back()?;
        let mut sorted: Vec<f64> = seconds.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let within = |hundredths: usize| sorted[(sorted.len() * hundredths).div_ceil(100).saturating_sub(1)];
        Some(Freshness { last_seconds, p50_seconds: within(50), p99_seconds: within(99) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use headwater_store::VersionId;

    use super::*;

    fn folded(version: u32, ages: impl Iterator<Item = i64>) -> Folded {
        let now = now_micros();
        let committed_at = ages.map(|age| now - age * 1_000_000).collect();
        Folded { committed_at, rebuilt: vec![VersionId(version)], ..Folded::default() }
    }

    #[test]
    fn a_version_is_as_fresh_as_its_own_transactions() {
        let mut recent = Recent::default();
        recent.note(&folded(1, 1..=100));
        recent.note(&folded(2, [7].into_iter()));
        let rounded = |version| {
            recent.of(version).map(|it| [it.last_seconds, it.p50_seconds, it.p99_seconds].map(|it| it.round() as u64))
        };
        assert_eq!((rounded(1), rounded(2), rounded(3)), (Some([100, 50, 99]), Some([7, 7, 7]), None));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut recent = Recent::default();
        recent.note(&folded(1, std::iter::repeat_n(1_000, 500)));
        recent.note(&folded(1, std::iter::repeat_n(1, 2 * KEPT)));
        assert!(recent.of(1).unwrap().p99_seconds < 10.0);
        recent.retain(|version| version != 1);
        assert_eq!(recent.of(1), None);
    }
}
