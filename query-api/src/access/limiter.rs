//! Limits of rate, by the generic cell rate algorithm: of each key one number is kept, the time at which it has used up
//! what it was given. Few lines that are ours keep the number of keys bounded whatever comes, and tell what is left.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use parking_lot::Mutex;

use super::options::Rate;

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Keys kept in each.
const SHARD_MAX: usize = 8192;
/// Keys looked at to make room.
const LOOKED_AT: usize = 64;

/// Limits how often each of many keys may do something.
pub(super) struct Limiter {
    start: Instant,
    /// Time that one request uses up, in nanoseconds.
    cost: u64,
    /// Time that may be used in advance, in nanoseconds.
    ahead_max: u64,
    /// Value of `RateLimit-Policy`.
    policy: HeaderValue,
    name: &'static str,
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, u64>>; SHARDS],
}

/// What the limiter says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether it may go on.
    pub(super) allowed: bool,
    /// How many more may come at once.
    pub(super) remaining: u64,
    /// How long until one more may come, or until all that may come at once.
    pub(super) wait: Duration,
}

impl Limiter {
    /// A limiter that `RateLimit` headers call `name`.
    pub(super) fn new(name: &'static str, rate: Rate) -> Self {
        let cost = (rate.per.as_nanos() as u64 / u64::from(rate.requests.get())).max(1);
        let ahead_max = cost.saturating_mul(u64::from(rate.burst.get()));
        // As the header has it: so many (the burst) in the time in which they are there again.
        let window = Duration::from_nanos(ahead_max).as_secs().max(1);
        let policy = format!("\"{name}\";q={};w={window}", rate.burst);
        Self {
            start: Instant::now(),
            cost,
            ahead_max,
            policy: HeaderValue::from_str(&policy).expect("letters and digits"),
            name,
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    /// Counts a request of a key. Keys are kept as hashes with a secret of this process: nobody can choose to share one.
    pub(super) fn check(&self, key: impl Hash, now: Instant) -> Verdict {
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[hash as usize % SHARDS].lock();
        let known = shard.get_mut(&hash);
        let used = known.as_deref().map_or(now, |used| now.max(*used)) + self.cost;
        let ahead = used - now;
        if ahead > self.ahead_max {
            return Verdict { allowed: false, remaining: 0, wait: Duration::from_nanos(ahead - self.ahead_max) };
        }
        match known {
            Some(known) => *known = used,
            None => {
                if shard.len() >= SHARD_MAX {
                    make_room(&mut shard, now);
                }
                shard.insert(hash, used);
            }
        }
        let remaining = (self.ahead_max - ahead) / self.cost;
        Verdict { allowed: true, remaining, wait: Duration::from_nanos(ahead) }
    }

    /// Value of `RateLimit-Policy`.
    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    /// Value of `RateLimit`.
    pub(super) fn header(&self, verdict: Verdict) -> Option<HeaderValue> {
        let mut text = Vec::with_capacity(48);
        text.push(b'"');
        text.extend_from_slice(self.name.as_bytes());
        text.extend_from_slice(b"\";r=");
        text.extend_from_slice(itoa::Buffer::new().format(verdict.remaining).as_bytes());
        text.extend_from_slice(b";t=");
        text.extend_from_slice(itoa::Buffer::new().format(seconds(verdict.wait)).as_bytes());
        HeaderValue::try_from(text).ok()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Whole seconds, upwards: who waits so long has waited long enough.
pub(super) fn seconds(wait: Duration) -> u32 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u32::MAX)
}

/// Forgets those of a few keys that have used nothing lately, or else the one that has used least.
fn make_room(shard: &mut HashMap<u64, u64>, now: u64) {
    let looked_at: Vec<(u64, u64)> = shard.iter().take(LOOKED_AT).map(|(key, used)| (*key, *used)).collect();
    let mut room = false;
    for (key, _) in looked_at.iter().filter(|(_, used)| *used <= now) {
        shard.remove(key);
        room = true;
    }
    if !room && let Some((key, _)) = looked_at.iter().min_by_key(|(_, used)| *used) {
        shard.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limiter(requests: u32, per: Duration, burst: u32) -> Limiter {
        let number = |n| NonZeroU32::new(n).expect("not zero");
        Limiter::new("test", Rate { requests: number(requests), per, burst: number(burst) })
    }

    #[test]
    fn as_many_pass_as_are_allowed_and_no_more() {
        let limiter = limiter(10, Duration::from_secs(1), 5);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let passed = |key: &str, millis| (0..100).filter(|_| limiter.check(key, at(millis)).allowed).count();
        assert_eq!(passed("a", 0), 5, "the burst");
        assert_eq!(passed("b", 0), 5, "each key by itself");
        assert_eq!(passed("a", 50), 0);
        let refused = limiter.check("a", at(50));
        assert!(refused.wait <= Duration::from_millis(50) && refused.wait > Duration::from_millis(40), "{refused:?}");
        assert_eq!(passed("a", 110), 1);
        assert_eq!(passed("a", 10_000), 5, "a long pause gives no more than the burst");
        let total: usize = (0..1000).map(|tenth| passed("c", 20_000 + tenth * 100)).sum();
        assert!((1000..=1005).contains(&total), "{total} in 100 s at 10 a second");
        assert_eq!(limiter.policy(), "\"test\";q=5;w=1");
        let first = limiter.check("d", at(0));
        assert_eq!(limiter.header(first).expect("a header"), "\"test\";r=4;t=1");
    }

    #[test]
    fn a_flood_of_keys_needs_no_more_room() {
        let limiter = limiter(1, Duration::from_secs(3600), 1);
        let now = Instant::now();
        for key in 0..3 * SHARDS * SHARD_MAX {
            limiter.check(key, now);
        }
        assert!(limiter.len() <= SHARDS * SHARD_MAX);
    }
}
