//! Places of which each of many has so many: for what takes long, or may, which no limit of rates bounds.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Those who have places taken, and how many.
type Taken<K> = Arc<Mutex<HashMap<K, usize>>>;

/// Places, as many for each key.
pub(crate) struct Places<K: Copy + Eq + Hash> {
    max: usize,
    taken: Taken<K>,
}

/// A place that is taken, free again when this is dropped.
pub(crate) struct TakenPlace<K: Copy + Eq + Hash> {
    of: K,
    taken: Taken<K>,
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// At most so many of each.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Taken::default() }
    }

    /// Places of each.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// One more place; `None`: there is none left.
    pub(crate) fn take(&self, of: K) -> Option<TakenPlace<K>> {
        self.take_while(of, || false)
    }

    /// One more place, or one beyond the last where there is `room` for it.
    pub(crate) fn take_while(&self, of: K, room: impl FnOnce() -> bool) -> Option<TakenPlace<K>> {
        let mut taken = self.taken.lock();
        let before = taken.get(&of).copied().unwrap_or(0);
        if before >= self.max && !room() {
            return None;
        }
        taken.insert(of, before + 1);
        Some(TakenPlace { of, taken: self.taken.clone() })
    }
}

impl<K: Copy + Eq + Hash> Drop for TakenPlace<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        let left = taken.get(&self.of).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.of);
        } else {
            taken.insert(self.of, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_places_and_nothing_is_kept_of_one_who_left() {
        let places = Places::new(2);
        let mut of_one: Vec<_> = (0..2).map(|_| places.take(1).expect("there is room")).collect();
        assert!(places.take(1).is_none(), "there are two");
        let of_other = places.take(2).expect("each has places of their own");
        of_one.pop();
        of_one.push(places.take(1).expect("a place is free again"));
        assert!(places.take(1).is_none(), "only one was");
        drop((of_one, of_other));
        assert!(places.taken.lock().is_empty());
    }
}
