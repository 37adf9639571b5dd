//! Tokens that were verified lately, by their hash: a signature is paid for once and not with every request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring::digest;

use super::principal::Principal;

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Tokens kept in each.
const SHARD_MAX: usize = 2048;
/// How long a token is believed without looking at its signature again.
const KEPT_MAX: Duration = Duration::from_secs(300);

/// Names a token.
pub(super) type TokenHash = [u8; 32];

#[derive(Default)]
pub(super) struct TokenCache {
    shards: [Mutex<HashMap<TokenHash, Entry>>; SHARDS],
}

struct Entry {
    principal: Arc<Principal>,
    /// Of all keys when it was verified.
    generation: u64,
    until: Instant,
}

/// The hash of a token. By `ring`, which is quick also on processors that have no instructions for it: each request pays
/// for this.
pub(super) fn hash(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

impl TokenCache {
    fn shard(&self, hash: &TokenHash) -> &Mutex<HashMap<TokenHash, Entry>> {
        &self.shards[usize::from(hash[0]) % SHARDS]
    }

    /// Whose token it is, if it was verified, with the keys there are now, and still holds.
    pub(super) fn get(&self, hash: &TokenHash, generation: u64, now: Instant) -> Option<Arc<Principal>> {
        let shard = self.shard(hash).lock();
        let entry = shard.get(hash)?;
        (entry.generation == generation && entry.until > now).then(|| entry.principal.clone())
    }

    /// Remembers a token that was verified.
    pub(super) fn put(&self, hash: TokenHash, generation: u64, now: Instant, principal: Arc<Principal>) {
        let kept = now + KEPT_MAX;
        let until = principal.expires.map_or(kept, |expires| expires.min(kept));
        let mut shard = self.shard(&hash).lock();
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
        shard.insert(hash, Entry { principal, generation, until });
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
        let token = |n: usize| hash(&n.to_string());
        let ends = |after| {
            let mut principal = (*Principal::everything()).clone();
            principal.expires = Some(now + Duration::from_secs(after));
            Arc::new(principal)
        };
        cache.put(token(1), 7, now, ends(10));
        assert!(cache.get(&token(1), 7, now + Duration::from_secs(9)).is_some());
        assert!(cache.get(&token(1), 7, now + Duration::from_secs(11)).is_none(), "it has expired");
        assert!(cache.get(&token(1), 8, now).is_none(), "the keys have changed");
        assert!(cache.get(&token(2), 7, now).is_none());
        cache.put(token(3), 7, now, ends(100_000));
        assert!(cache.get(&token(3), 7, now + KEPT_MAX).is_none(), "the signature is looked at again");
        for n in 0..3 * SHARDS * SHARD_MAX {
            cache.put(token(n), 7, now, ends(10));
        }
        assert!(cache.len() <= SHARDS * SHARD_MAX);
    }
}
