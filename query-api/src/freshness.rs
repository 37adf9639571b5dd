//! How new answers are: `X-Data-As-Of` for people, `Consistency-Token` for programs that must not read back in time.
//!
//! A token names, for each source, the position that the answer reflects. Sent back with another request, to whatever
//! server, it asks for an answer that is at least as new. It is not signed: whoever makes one up waits, and nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_schemas::{SourcePosition, ValueRef, temporal};
use headwater_store::Frontier;
use hyper::header::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::access::Caller;
use crate::http::{CONSISTENCY_TOKEN, PREFER, X_DATA_AS_OF, preferred_wait};
use crate::places::Places;
use crate::problem::Problem;

/// First byte of a token: its format.
const FORMAT: u8 = 1;
/// Bytes of a source's name in a token: of its hash, since names are nobody's business.
const NAME_LEN: usize = 8;
/// Sources of a token, at most.
const SOURCES_MAX: usize = 64;
/// Seconds after which a request that came too early may be tried again.
const RETRY_SECONDS: u32 = 1;
/// Part of the places of those who wait that is kept from a caller who has that part.
const OF_CALLER: usize = 4;

type Frontiers = Arc<BTreeMap<String, Frontier>>;

/// How far every source is projected, for answers and for requests that ask for no less.
pub(crate) struct Freshness {
    frontiers: watch::Receiver<Frontiers>,
    /// What is said of the frontiers seen last.
    said: Mutex<(watch::Receiver<Frontiers>, Moment)>,
    /// Requests that may wait at the same time: each holds a place of those being answered.
    waiting: Semaphore,
    /// Those of each caller.
    of_callers: Places<Caller>,
}

/// What an answer is complete up to.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Value of `X-Data-As-Of`; `None` while a source's time is not known.
    as_of: Option<HeaderValue>,
    /// Value of `Consistency-Token`.
    token: HeaderValue,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted(Vec<(Source, SourcePosition)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// By the hash that a token has.
    Hash([u8; NAME_LEN]),
    /// By its name, at a commit of its present log.
    Name(String),
}

impl Freshness {
    /// Follows these frontiers. At most `waiting_max` requests wait for them at the same time.
    pub(crate) fn new(frontiers: watch::Receiver<Frontiers>, waiting_max: usize) -> Self {
        let mut seen = frontiers.clone();
        let moment = Moment::of(&seen.borrow_and_update());
        let of_callers = Places::new((waiting_max / OF_CALLER).max(1));
        Self { frontiers, said: Mutex::new((seen, moment)), waiting: Semaphore::new(waiting_max), of_callers }
    }

    /// What every document read after this call is complete up to.
    pub(crate) fn now(&self) -> Moment {
        let (seen, moment) = &mut *self.said.lock();
        // An error says that nobody tells more: the last word stays.
        if seen.has_changed().unwrap_or(false) {
            *moment = Moment::of(&seen.borrow_and_update());
        }
        moment.clone()
    }

    /// Lets a request go on when what is read from now on is as new as its `Consistency-Token` asks, as each where there are
    /// several: at once, or, where it has `Prefer: wait=N`, within so many seconds and not longer than `wait_max`; how long
    /// that was is added to `waited`. `Some`: the value of `Preference-Applied`. The last quarter of the places of those who
    /// wait is kept from a `caller` who has a quarter; `None`: it is not known that it is one caller.
    pub(crate) async fn reach(
        &self,
        headers: &HeaderMap,
        caller: impl FnOnce() -> Option<Caller>,
        wait_max: impl FnOnce() -> Duration,
        waited: &mut Duration,
    ) -> Result<Option<HeaderValue>, Problem> {
        if !headers.contains_key(CONSISTENCY_TOKEN) {
            return Ok(None);
        }
        let malformed = || {
            let detail = "this `Consistency-Token` is none: send one that an answer had, or `source=position` with a \
                          position of the source's log, for example `billing=0/16B3748`";
            Problem { code: "invalid_consistency_token", ..Problem::parameter("Consistency-Token", detail) }
        };
        let wanted = Wanted::of(headers).ok_or_else(malformed)?;
        let mut frontiers = self.frontiers.clone();
        let now = frontiers.borrow_and_update().clone();
        if let Some(name) = wanted.unknown(&now) {
            let detail = format!("there is no source `{name}`");
            return Err(Problem {
                code: "invalid_consistency_token",
                ..Problem::parameter("Consistency-Token", detail)
            });
        }
        if wanted.is_reached(&now) {
            return Ok(None);
        }
        let early = || {
            let detail =
                "what was asked for is not projected yet; try again, or have this server wait by `Prefer: wait=2`";
            Problem::unavailable("not_yet_consistent", detail, RETRY_SECONDS)
        };
        let seconds = headers.get_all(PREFER).iter().find_map(preferred_wait).filter(|seconds| *seconds > 0);
        let seconds = seconds.ok_or_else(early)?;
        let wait_max = wait_max().min(Duration::from_secs(seconds.into()));
        let begun = Instant::now();
        // In a box of its own: it is rare, and every request carries the room for it.
        let reached = Box::pin(self.wait(frontiers, &wanted, wait_max, caller())).await;
        *waited += begun.elapsed();
        reached.ok_or_else(early)?;
        Ok(HeaderValue::from_str(&format!("wait={seconds}")).ok())
    }

    /// Waits until the frontiers are as far as is wanted. `None`: in time they were not, nothing comes any more, or as many
    /// wait as may.
    async fn wait(
        &self,
        mut frontiers: watch::Receiver<Frontiers>,
        wanted: &Wanted,
        wait_max: Duration,
        caller: Option<Caller>,
    ) -> Option<()> {
        let room = || self.waiting.available_permits() > self.of_callers.max();
        let _of_caller = match caller {
            Some(caller) => Some(self.of_callers.take_while(caller, room)?),
            None => None,
        };
        let _place = self.waiting.try_acquire().ok()?;
        let reached = frontiers.wait_for(|frontiers| wanted.is_reached(frontiers));
        let reached = tokio::time::timeout(wait_max, reached).await;
        matches!(reached, Ok(Ok(_))).then_some(())
    }
}

impl Moment {
    /// Adds both to an answer.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(CONSISTENCY_TOKEN, self.token);
        if let Some(as_of) = self.as_of {
            headers.insert(X_DATA_AS_OF, as_of);
        }
    }

    fn of(frontiers: &BTreeMap<String, Frontier>) -> Self {
        let micros = frontiers.values().map(|frontier| frontier.at_micros).min().filter(|micros| *micros > 0);
        let as_of = micros.and_then(|micros| {
            let mut text = String::with_capacity(32);
            temporal::format_into(&mut text, ValueRef::TimestampTz(micros));
            HeaderValue::from_str(&text).ok()
        });
        let mut bytes = Vec::with_capacity(1 + frontiers.len() * (NAME_LEN + SourcePosition::LEN));
        bytes.push(FORMAT);
        for (source, frontier) in frontiers.iter().take(SOURCES_MAX) {
            bytes.extend_from_slice(&hash(source));
            bytes.extend_from_slice(&frontier.position.to_bytes());
        }
        let token = HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(bytes)).expect("letters, digits, - and _");
        Self { as_of, token }
    }
}

fn hash(source: &str) -> [u8; NAME_LEN] {
    let mut hash = [0; NAME_LEN];
    hash.copy_from_slice(&Sha256::digest(source.as_bytes())[..NAME_LEN]);
    hash
}

impl Wanted {
    /// What all tokens of a request ask for together; `None`: one of them is none, or they are of too many sources.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all: Vec<(Source, SourcePosition)> = Vec::new();
        for token in headers.get_all(CONSISTENCY_TOKEN) {
            for (source, position) in Self::parse(token.to_str().ok()?)?.0 {
                match all.iter().position(|(of, _)| *of == source) {
                    Some(at) => all[at].1 = position.max(all[at].1),
                    None if all.len() == SOURCES_MAX => return None,
                    None => all.push((source, position)),
                }
            }
        }
        Some(Self(all))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.contains('=') { Self::parse_pairs(text) } else { Self::parse_token(text) }
    }

    fn parse_token(text: &str) -> Option<Self> {
        const ENTRY: usize = NAME_LEN + SourcePosition::LEN;
        if text.len() > (1 + SOURCES_MAX * ENTRY).div_ceil(3) * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let entries = bytes.strip_prefix(&[FORMAT])?.chunks_exact(ENTRY);
        if !entries.remainder().is_empty() {
            return None;
        }
        let wanted = entries.map(|entry| {
            let (name, position) = entry.split_first_chunk()?;
            Some((Source::Hash(*name), SourcePosition::from_bytes(position)?))
        });
        wanted.collect::<Option<_>>().map(Self)
    }

    /// What a writer can say who asked the source for its position: `billing=0/16B3748`, several with commas between. A
    /// position is hexadecimal digits, with a `/` in front of the last 32 bits or without.
    fn parse_pairs(text: &str) -> Option<Self> {
        let pairs = || text.split(',').map(str::trim);
        if pairs().count() > SOURCES_MAX {
            return None;
        }
        let wanted = pairs().map(|pair| {
            let (source, position) = pair.split_once('=')?;
            let hex = |digits: &str| {
                let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            let commit = match position.split_once('/') {
                None => hex(position)?,
                Some((high, low)) => {
                    let (high, low) = (u32::try_from(hex(high)?).ok()?, u32::try_from(hex(low)?).ok()?);
                    u64::from(high) << 32 | u64::from(low)
                }
            };
            let place = SourcePosition { epoch: 0, commit, ordinal: 0 };
            (!source.is_empty()).then(|| (Source::Name(source.to_string()), place))
        });
        wanted.collect::<Option<_>>().map(Self)
    }

    /// A source that is asked for by name and not there.
    fn unknown(&self, frontiers: &BTreeMap<String, Frontier>) -> Option<&str> {
        self.0.iter().find_map(|(source, _)| match source {
            Source::Name(name) if !frontiers.contains_key(name) => Some(name.as_str()),
            _ => None,
        })
    }

    fn is_reached(&self, frontiers: &BTreeMap<String, Frontier>) -> bool {
        let hashed = || frontiers.iter().map(|(name, frontier)| (hash(name), frontier.position));
        self.0.iter().all(|(source, wanted)| match source {
            // A source this server has not heard of yet has not got there.
            Source::Hash(of) => hashed().any(|(name, position)| name == *of && position >= *wanted),
            // A writer knows the log it wrote to, which is the present one.
            Source::Name(name) => frontiers.get(name).is_some_and(|frontier| frontier.position.commit >= wanted.commit),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frontiers(positions: &[(&str, u64)]) -> BTreeMap<String, Frontier> {
        let frontier = |commit| Frontier {
            position: SourcePosition { epoch: 1, commit, ordinal: 5 },
            at_micros: 0,
            snapshot_done: true,
        };
        positions.iter().map(|(name, commit)| (name.to_string(), frontier(*commit))).collect()
    }

    #[test]
    fn a_token_is_reached_by_what_is_no_older() {
        let moment = Moment::of(&frontiers(&[("billing", 10), ("crm", 20)]));
        let wanted = Wanted::parse(moment.token.to_str().expect("text")).expect("a token");
        for (now, reached) in [
            (&[("billing", 10), ("crm", 20)][..], true),
            (&[("billing", 11), ("crm", 20), ("new", 0)], true),
            (&[("billing", 9), ("crm", 99)], false),
            (&[("billing", 10)], false),
            (&[], false),
        ] {
            assert_eq!(wanted.is_reached(&frontiers(now)), reached, "{now:?}");
        }
        assert!(!moment.token.to_str().expect("text").contains("billing"));
    }

    #[test]
    fn a_writer_names_a_position() {
        let now = frontiers(&[("billing", 0x1_0000_00AB)]);
        for (text, reached) in [
            ("billing=1/AB", Some(true)),
            ("billing=1/ac", Some(false)),
            ("billing=1000000AB", Some(true)),
            ("billing=", None),
            ("=1/AB", None),
            ("billing=+1", None),
            ("billing=1/100000000", None),
            ("billing=1/AB,", None),
        ] {
            assert_eq!(Wanted::parse(text).map(|wanted| wanted.is_reached(&now)), reached, "{text}");
        }
        assert_eq!(Wanted::parse("crm=1").expect("a position").unknown(&now), Some("crm"));
    }

    #[test]
    fn each_token_of_a_request_counts() {
        let now = frontiers(&[("billing", 10), ("crm", 20)]);
        let hashed = Moment::of(&frontiers(&[("billing", 11)])).token;
        let hashed = hashed.to_str().expect("text");
        for (given, reached) in [
            (&["billing=a", "crm=14"][..], Some(true)),
            (&["billing=a", "crm=15"], Some(false)),
            (&["crm=15", "billing=a"], Some(false)),
            (&["billing=b", "billing=a"], Some(false)),
            (&["billing=a", hashed], Some(false)),
            (&["billing=a", "x"], None),
        ] {
            let mut headers = HeaderMap::new();
            for text in given {
                headers.append(CONSISTENCY_TOKEN, HeaderValue::from_str(text).expect("text"));
            }
            assert_eq!(Wanted::of(&headers).map(|wanted| wanted.is_reached(&now)), reached, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in ".*", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Wanted::parse(&text);
            let _ = Wanted::parse(&URL_SAFE_NO_PAD.encode(bytes));
        }
    }
}
