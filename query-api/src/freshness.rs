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
use headwater_store::{Frontier, VersionRecord, VersionState};
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

/// How far every source is projected, for answers and for requests that ask for no less. A source that nothing served reads
/// counts for neither: its frontier stays where it is for ever.
pub(crate) struct Freshness {
    known: Known,
    /// What is said of what was seen last.
    said: Mutex<(Known, Moment)>,
    /// Requests that may wait at the same time: each holds a place of those being answered.
    waiting: Semaphore,
    /// Those of each caller.
    of_callers: Places<Caller>,
}

/// What the store tells.
#[derive(Clone)]
struct Known {
    frontiers: watch::Receiver<Frontiers>,
    versions: watch::Receiver<Arc<Vec<VersionRecord>>>,
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
    /// Follows these frontiers, of the sources that these versions read. At most `waiting_max` requests wait for them at the
    /// same time.
    pub(crate) fn new(
        frontiers: watch::Receiver<Frontiers>,
        versions: watch::Receiver<Arc<Vec<VersionRecord>>>,
        waiting_max: usize,
    ) -> Self {
        let known = Known { frontiers, versions };
        let mut seen = known.clone();
        let moment = seen.moment();
        let of_callers = Places::new((waiting_max / OF_CALLER).max(1));
        Self { known, said: Mutex::new((seen, moment)), waiting: Semaphore::new(waiting_max), of_callers }
    }

    /// What every document read after this call is complete up to.
    pub(crate) fn now(&self) -> Moment {
        let (seen, moment) = &mut *self.said.lock();
        if seen.has_changed() {
            *moment = seen.moment();
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
        let mut known = self.known.clone();
        let now = known.frontiers.borrow_and_update().clone();
        if let Some(name) = wanted.unknown(&now) {
            let detail = format!("there is no source `{name}`");
            return Err(Problem {
                code: "invalid_consistency_token",
                ..Problem::parameter("Consistency-Token", detail)
            });
        }
        if wanted.is_reached(&now, &known.versions.borrow()) {
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
        let reached = Box::pin(self.wait(known, &wanted, wait_max, caller())).await;
        *waited += begun.elapsed();
        reached.ok_or_else(early)?;
        Ok(HeaderValue::from_str(&format!("wait={seconds}")).ok())
    }

    /// Waits until the frontiers are as far as is wanted. `None`: in time they were not, nothing comes any more, or as many
    /// wait as may.
    async fn wait(&self, known: Known, wanted: &Wanted, wait_max: Duration, caller: Option<Caller>) -> Option<()> {
        let room = || self.waiting.available_permits() > self.of_callers.max();
        let _of_caller = match caller {
            Some(caller) => Some(self.of_callers.take_while(caller, room)?),
            None => None,
        };
        let _place = self.waiting.try_acquire().ok()?;
        let Known { mut frontiers, versions } = known;
        let reached = frontiers.wait_for(|frontiers| wanted.is_reached(frontiers, &versions.borrow()));
        let reached = tokio::time::timeout(wait_max, reached).await;
        matches!(reached, Ok(Ok(_))).then_some(())
    }
}

impl Known {
    /// Whether there is news. That nobody tells more is none: the last word stays.
    fn has_changed(&self) -> bool {
        self.frontiers.has_changed().unwrap_or(false) || self.versions.has_changed().unwrap_or(false)
    }

    /// What is to be said now.
    fn moment(&mut self) -> Moment {
        let frontiers = self.frontiers.borrow_and_update().clone();
        Moment::of(&frontiers, &self.versions.borrow_and_update())
    }
}

/// Whether anything that is served reads a source.
fn is_read(source: &str, versions: &[VersionRecord]) -> bool {
    versions.iter().any(|version| version.state == VersionState::Active && version.reads(source))
}

impl Moment {
    /// Adds both to an answer.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(CONSISTENCY_TOKEN, self.token);
        if let Some(as_of) = self.as_of {
            headers.insert(X_DATA_AS_OF, as_of);
        }
    }

    fn of(frontiers: &BTreeMap<String, Frontier>, versions: &[VersionRecord]) -> Self {
        let read = || frontiers.iter().filter(|(source, _)| is_read(source, versions));
        let micros = read().map(|(_, frontier)| frontier.at_micros).min().filter(|micros| *micros > 0);
        let as_of = micros.and_then(|micros| {
            let mut text = String::with_capacity(32);
            temporal::format_into(&mut text, ValueRef::TimestampTz(micros));
            HeaderValue::from_str(&text).ok()
        });
        let mut bytes = Vec::with_capacity(1 + frontiers.len() * (NAME_LEN + SourcePosition::LEN));
        bytes.push(FORMAT);
        for (source, frontier) in read().take(SOURCES_MAX) {
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

    fn is_reached(&self, frontiers: &BTreeMap<String, Frontier>, versions: &[VersionRecord]) -> bool {
        self.0.iter().all(|(source, wanted)| {
            // A source this server has not heard of yet has not got there.
            let is_it = |name: &String| match source {
                Source::Hash(of) => hash(name) == *of,
                Source::Name(of) => name == of,
            };
            let Some((name, Frontier { position, .. })) = frontiers.iter().find(|(name, _)| is_it(name)) else {
                return false;
            };
            let reached = match source {
                Source::Hash(_) => position >= wanted,
                // A writer knows the log it wrote to, which is the present one.
                Source::Name(_) => position.commit >= wanted.commit,
            };
            reached || !is_read(name, versions)
        })
    }
}

#[cfg(test)]
mod tests {
    use headwater_store::VersionId;
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
        let moment = Moment::of(&frontiers(&[("billing", 10), ("crm", 20)]), &reading(&[]));
        let wanted = Wanted::parse(moment.token.to_str().expect("text")).expect("a token");
        for (now, reached) in [
            (&[("billing", 10), ("crm", 20)][..], true),
            (&[("billing", 11), ("crm", 20), ("new", 0)], true),
            (&[("billing", 9), ("crm", 99)], false),
            (&[("billing", 10)], false),
            (&[], false),
        ] {
            assert_eq!(wanted.is_reached(&frontiers(now), &reading(&[])), reached, "{now:?}");
        }
        assert!(!moment.token.to_str().expect("text").contains("billing"));
    }

    /// One version that serves and reads these sources; none: all.
    fn reading(sources: &[&str]) -> Vec<VersionRecord> {
        let sources = sources.iter().map(|source| source.to_string()).collect();
        let (id, model, definition_hash) = (VersionId(1), "customer".to_owned(), String::new());
        let state = VersionState::Active;
        vec![VersionRecord { id, model, definition_hash, state, sources, shape: None, created_at_ms: 0 }]
    }

    #[test]
    fn a_source_that_nothing_served_reads_holds_nobody() {
        let mut now = frontiers(&[("billing", 10), ("crm", 20)]);
        now.get_mut("billing").expect("it is there").at_micros = 7_200_000_000;
        now.get_mut("crm").expect("it is there").at_micros = 3_600_000_000;
        let wanted = |moment: &Moment| Wanted::parse(moment.token.to_str().expect("text")).expect("a token");
        let as_of = |moment: &Moment| moment.as_of.clone().map(|it| it.to_str().expect("text").to_owned());
        let (both, one) = (reading(&["billing", "crm"]), reading(&["billing"]));
        assert_eq!(as_of(&Moment::of(&now, &both)).as_deref(), Some("1970-01-01T01:00:00Z"));
        let moment = Moment::of(&now, &one);
        assert_eq!(as_of(&moment).as_deref(), Some("1970-01-01T02:00:00Z"));
        assert_eq!(wanted(&moment).0.len(), 1, "of what is not read no position is told");
        let later = wanted(&Moment::of(&frontiers(&[("billing", 10), ("crm", 21)]), &both));
        assert!(!later.is_reached(&now, &both) && later.is_reached(&now, &one));
        let written = Wanted::parse("crm=15").expect("a position");
        assert!(!written.is_reached(&now, &both) && written.is_reached(&now, &one));
        let mut building = reading(&["crm"]);
        building[0].state = VersionState::Building;
        assert!(written.is_reached(&now, &building), "it is not served yet");
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
            assert_eq!(Wanted::parse(text).map(|wanted| wanted.is_reached(&now, &reading(&[]))), reached, "{text}");
        }
        assert_eq!(Wanted::parse("crm=1").expect("a position").unknown(&now), Some("crm"));
    }

    #[test]
    fn each_token_of_a_request_counts() {
        let now = frontiers(&[("billing", 10), ("crm", 20)]);
        let hashed = Moment::of(&frontiers(&[("billing", 11)]), &reading(&[])).token;
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
            assert_eq!(Wanted::of(&headers).map(|wanted| wanted.is_reached(&now, &reading(&[]))), reached, "{given:?}");
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
