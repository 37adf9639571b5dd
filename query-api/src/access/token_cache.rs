//! Tokens that were verified lately, by their tag: a signature is paid for once and not with every request.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::principal::Principal;

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Tokens kept in each.
const SHARD_MAX: usize = 2048;
/// How long a token is believed without looking at its signature again.
const KEPT_MAX: Duration = Duration::from_secs(300);

/// Names a token among those of one cache.
pub(super) type TokenTag = u128;

#[derive(Default)]
pub(super) struct TokenCache {
    /// Keys of the tags, made with the cache.
    keys: [RandomState; 2],
    shards: [Mutex<HashMap<TokenTag, Entry>>; SHARDS],
}

struct Entry {
    principal: Arc<Principal>,
    /// Of all keys when it was verified.
    generation: u64,
    until: Instant,
}

impl TokenCache {
    /// The tag of a token: two SipHashes with keys that nobody sees, so that to find a token with the tag of another is to
    /// guess 128 bits, one try a request. Each request pays for this, and would pay more for a digest.
    pub(super) fn tag(&self, token: &str) -> TokenTag {
        let [high, low] = [0, 1].map(|half| u128::from(self.keys[half].hash_one(token)));
        high << 64 | low
    }

    fn shard(&self, tag: TokenTag) -> &Mutex<HashMap<TokenTag, Entry>> {
        &self.shards[tag as usize % SHARDS]
    }

    /// Whose token it is, if it was verified, with the keys there are now, and still holds.
    pub(super) fn get(&self, tag: TokenTag, generation: u64, now: Instant) -> Option<Arc<Principal>> {
        let shard = self.shard(tag).lock();
        let entry = shard.get(&tag)?;
        (entry.generation == generation && entry.until > now).then(|| entry.principal.clone())
    }

    /// Remembers a token that was verified.
    pub(super) fn put(&self, tag: TokenTag, generation: u64, now: Instant, principal: Arc<Principal>) {
        let kept = now + KEPT_MAX;
        let until = principal.expires.map_or(kept, |expires| expires.min(kept));
        let mut shard = self.shard(tag).lock();
        if shard.len() >= SHARD_MAX {
            shard.retain(|_, entry| entry.generation == generation && entry.until > now);
        }
        if shard.len() >= SHARD_MAX {
            // All are in use: half go, whichever, so that the search is paid once in many insertions.
            let mut keep = false;
            shard.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        shard.insert(tag, Entry { principal, generation, until });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_forgotten_in_time_and_their_number_is_bounded() {
        let cache = TokenCache::default();
        let now = Instant::now();
        let token = |n: usize| cache.tag(&n.to_string());
        let ends = |after| {
            let mut principal = (*Principal::everything()).clone();
            principal.expires = Some(now + Duration::from_secs(after));
            Arc::new(principal)
        };
        cache.put(token(1), 7, now, ends(10));
        assert!(cache.get(token(1), 7, now + Duration::from_secs(9)).is_some());
        assert!(cache.get(token(1), 7, now + Duration::from_secs(11)).is_none(), "it has expired");
        assert!(cache.get(token(1), 8, now).is_none(), "the keys have changed");
        assert!(cache.get(token(2), 7, now).is_none());
        cache.put(token(3), 7, now, ends(100_000));
        assert!(cache.get(token(3), 7, now + KEPT_MAX).is_none(), "the signature is looked at again");
        for n in 0..3 * SHARDS * SHARD_MAX {
            cache.put(token(n), 7, now, ends(10));
        }
        assert!(cache.len() <= SHARDS * SHARD_MAX);
    }
}
