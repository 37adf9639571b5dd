//! Sets of keys as ranges.

use headwater_schemas::{ValueRef, key};
use headwater_store::KeyRange;

/// A set of keys: ranges in ascending order that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<KeyRange>);

impl Ranges {
    /// Every key but null.
    pub(super) fn not_null() -> Self {
        Self(vec![KeyRange { low: behind_null(), high: None }])
    }

    /// These keys.
    pub(super) fn exactly(mut keys: Vec<Vec<u8>>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self(keys.iter().map(|key| KeyRange::exactly(key)).collect())
    }

    /// Keys that are not null and less than `key`.
    pub(super) fn below(key: &[u8], inclusive: bool) -> Self {
        Self(vec![KeyRange { low: behind_null(), high: Some(if inclusive { behind(key) } else { key.to_vec() }) }])
    }

    /// Keys greater than `key`.
    pub(super) fn above(key: &[u8], inclusive: bool) -> Self {
        Self(vec![KeyRange { low: if inclusive { key.to_vec() } else { behind(key) }, high: None }])
    }

    /// Keys of texts that start as the text of `key` does.
    pub(super) fn starting_with(key: &[u8]) -> Self {
        // A text's key ends in two bytes that are less than whatever a longer text has there.
        let prefix = &key[..key.len().saturating_sub(2)];
        Self(vec![KeyRange { low: prefix.to_vec(), high: successor(prefix) }])
    }

    /// Keys that are not null and not in here.
    pub(super) fn others(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut low = behind_null();
        for range in &self.0 {
            if range.low > low {
                gaps.push(KeyRange { low: low.clone(), high: Some(range.low.clone()) });
            }
            match &range.high {
                Some(high) => low = low.max(high.clone()),
                None => return Self(gaps),
            }
        }
        gaps.push(KeyRange { low, high: None });
        Self(gaps)
    }

    /// Keys that are in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let low = a.low.as_slice().max(b.low.as_slice());
            // The one that ends first cannot meet anything further of the other.
            let left_ends = match (&a.high, &b.high) {
                (Some(a), Some(b)) => a <= b,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let high = if left_ends { &a.high } else { &b.high };
            if high.as_deref().is_none_or(|high| low < high) {
                both.push(KeyRange { low: low.to_vec(), high: high.clone() });
            }
            if left_ends {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// Keys that are in either.
    pub(super) fn or(&self, other: &Self) -> Self {
        let mut all: Vec<&KeyRange> = self.0.iter().chain(&other.0).collect();
        all.sort_by(|a, b| a.low.cmp(&b.low));
        let mut either: Vec<KeyRange> = Vec::with_capacity(all.len());
        for range in all {
            match either.last_mut() {
                // It begins before the last one has ended.
                Some(last) if last.high.as_ref().is_none_or(|high| range.low < *high) => {
                    last.high = last.high.take().zip(range.high.clone()).map(|(one, other)| one.max(other));
                }
                _ => either.push(range.clone()),
            }
        }
        Self(either)
    }

    /// As the store takes them.
    pub(super) fn into_inner(self) -> Vec<KeyRange> {
        self.0
    }
}

/// Where the keys that are not null begin: null is the least key.
fn behind_null() -> Vec<u8> {
    behind(&key::of(ValueRef::Null))
}

/// The least byte string behind `key`. No key is the beginning of another, so no key is between.
fn behind(key: &[u8]) -> Vec<u8> {
    let mut behind = key.to_vec();
    behind.push(0);
    behind
}

/// The least byte string greater than everything that begins with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(ranges: &Ranges, key: &[u8]) -> bool {
        ranges.0.iter().any(|range| range.contains(key))
    }

    fn int(n: i64) -> Vec<u8> {
        key::of(ValueRef::Int(n))
    }

    fn one() -> impl Strategy<Value = Ranges> {
        prop_oneof![
            (-9i64..9, any::<bool>()).prop_map(|(n, inclusive)| Ranges::below(&int(n), inclusive)),
            (-9i64..9, any::<bool>()).prop_map(|(n, inclusive)| Ranges::above(&int(n), inclusive)),
            prop::collection::vec(-9i64..9, 0..4).prop_map(|all| Ranges::exactly(all.into_iter().map(int).collect())),
            Just(Ranges::not_null()),
        ]
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(a in one(), b in one(), c in one()) {
            let (both, others, either) = (a.others().and(&b), a.and(&c).others(), a.or(&b).or(&c));
            for set in [&both, &either] {
                let is_before = |high: &Option<Vec<u8>>, low: &Vec<u8>| high.as_ref().is_some_and(|high| high <= low);
                prop_assert!(set.0.windows(2).all(|pair| is_before(&pair[0].high, &pair[1].low)));
            }
            for n in -10..10 {
                let key = int(n);
                prop_assert_eq!(contains(&both, &key), !contains(&a, &key) && contains(&b, &key));
                let in_any = contains(&a, &key) || contains(&b, &key) || contains(&c, &key);
                prop_assert_eq!(contains(&either, &key), in_any);
                prop_assert_eq!(contains(&others, &key), !(contains(&a, &key) && contains(&c, &key)));
            }
            prop_assert!(!contains(&others, &key::of(ValueRef::Null)));
        }

        #[test]
        fn prefixes_are_found(prefix in ".{0,3}", text in ".{0,5}", zeros in 0usize..2) {
            let prefix = format!("{prefix}{}", "\0".repeat(zeros));
            let ranges = Ranges::starting_with(&key::of(ValueRef::Text(&prefix)));
            for text in [text.clone(), format!("{prefix}{text}")] {
                prop_assert_eq!(contains(&ranges, &key::of(ValueRef::Text(&text))), text.starts_with(&prefix));
            }
        }
    }
}
