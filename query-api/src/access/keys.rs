//! The keys of an issuer: fetched, kept, and fetched again when a token names one that is not known, however many such
//! tokens come, once in a while only. Whoever waits for that holds a place among the requests while it is not known whose:
//! few do, and not for long.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::RwLock;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;

use super::options::{IssuerOptions, KeySource, LimitOptions};

/// Bytes of a key set, at most.
const SET_BYTES_MAX: u64 = 256 * 1024;
/// Keys of a set that are kept.
const KEYS_MAX: usize = 64;
/// Keys that are tried for a token that names none.
const TRIED_MAX: usize = 4;
/// How long a fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Requests that wait for a fetch at the same time, and part of all requests that may.
const WAITING_MAX: usize = 32;
const WAITING_PART: usize = 4;

/// The keys of one issuer.
pub(super) struct Keys {
    /// Whose they are, for the log.
    issuer: String,
    source: Source,
    known: RwLock<Arc<Vec<Key>>>,
    /// Rises whenever the keys change: what was verified by others is to be verified again.
    generation: AtomicU64,
    /// When keys were last fetched or tried to be. Held while it is done, so that one does it and others wait.
    fetched: Arc<Mutex<Option<Instant>>>,
    refetch_min: Duration,
    /// Places of requests that wait for a fetch.
    waiting: Semaphore,
    /// How long one waits.
    wait_max: Duration,
}

/// Keys were not fetched for a request: too many wait for that, or it took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotFetched;

enum Source {
    /// What was configured; it does not change.
    Fixed,
    Url(String),
    File(PathBuf),
}

/// One key.
pub(super) struct Key {
    id: Option<String>,
    /// The algorithm it is meant for, if it says.
    algorithm: Option<KeyAlgorithm>,
    pub(super) decoding: DecodingKey,
    /// Ends when the issuer takes the key back: what was verified by it is not vouched for any more.
    pub(super) gone: CancellationToken,
}

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the key set could not be fetched")]
    Http(#[from] ureq::Error),
    #[error("the key set could not be read")]
    File(#[from] std::io::Error),
    #[error("what was fetched is no key set")]
    Json(#[from] serde_json::Error),
    #[error("the key set has no key for the algorithms of the issuer")]
    Empty,
    #[error("the fetch did not end")]
    Stopped,
}

impl Keys {
    /// Those of an issuer, for which requests wait within these limits.
    pub(super) fn new(options: &IssuerOptions, limits: &LimitOptions) -> Self {
        let (source, keys) = match &options.keys {
            KeySource::Url(url) => (Source::Url(url.clone()), Vec::new()),
            KeySource::File(path) => (Source::File(path.clone()), Vec::new()),
            KeySource::Secret(secret) => {
                let decoding = DecodingKey::from_secret(secret);
                let key = Key { id: None, algorithm: None, decoding, gone: CancellationToken::new() };
                (Source::Fixed, vec![key])
            }
        };
        Self {
            source,
            known: RwLock::new(Arc::new(keys)),
            generation: AtomicU64::new(0),
            fetched: Arc::default(),
            refetch_min: options.refetch_min,
            waiting: Semaphore::new((limits.requests_max / WAITING_PART).clamp(1, WAITING_MAX)),
            wait_max: limits.deadline,
            issuer: options.issuer.clone(),
        }
    }

    /// Whether keys come and go.
    pub(super) fn changes(&self) -> bool {
        !matches!(self.source, Source::Fixed)
    }

    /// See [`Keys::generation`].
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether any keys are there.
    pub(super) fn are_there(&self) -> bool {
        !self.known.read().is_empty()
    }

    /// The keys that a token with this header may be signed with.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates {
        let known = self.known.read().clone();
        let fits = |key: &&Key| {
            key.decoding.family() == algorithm.family()
                && key.algorithm.is_none_or(|of| of.to_string() == format!("{algorithm:?}"))
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        let places = known.iter().enumerate().filter(|(_, key)| fits(key)).map(|(at, _)| at).take(TRIED_MAX).collect();
        Candidates { known, places }
    }

    /// Fetches the keys again for a token, unless that was done a moment ago. Whoever comes while it is being done waits
    /// for it.
    ///
    /// # Errors
    ///
    /// As many wait already as may, or it took longer than a request may: whether there is such a key is not known.
    pub(super) async fn refetch(self: &Arc<Self>) -> Result<(), NotFetched> {
        let _place = self.waiting.try_acquire().map_err(|_| NotFetched)?;
        let asked = Instant::now();
        let fetched = async {
            let fetched = self.fetched.clone().lock_owned().await;
            // Those who waited for a fetch do not make another one after it, one by one.
            if fetched.is_none_or(|at| at < asked && at.elapsed() >= self.refetch_min) {
                self.fetch_with(fetched).await;
            }
        };
        tokio::time::timeout(self.wait_max, fetched).await.map_err(|_| NotFetched)
    }

    /// Fetches the keys again because it is time to. It does not matter when that was last done: whoever sends tokens
    /// with unknown keys could otherwise put it off for ever.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let fetched = self.fetched.clone().lock_owned().await;
        self.fetch_with(fetched).await;
    }

    /// Fetches the keys and keeps them, as a task of its own: a request can be dropped at any time, and what was fetched
    /// for it would be lost while nobody else may fetch.
    async fn fetch_with(self: &Arc<Self>, mut fetched: OwnedMutexGuard<Option<Instant>>) {
        if !self.changes() {
            return;
        }
        // Before it is tried: a failure is not repeated at once either.
        *fetched = Some(Instant::now());
        let keys = self.clone();
        let done = tokio::spawn(async move {
            keys.fetch_and_keep().await;
            // And when it has ended: from then on others have what it brought.
            *fetched = Some(Instant::now());
        });
        if let Err(error) = done.await {
            tracing::error!(
                issuer = self.issuer,
                from = %self.source,
                error = &error as &dyn std::error::Error,
                "the fetch of an issuer's keys did not end"
            );
        }
    }

    async fn fetch_and_keep(&self) {
        match self.fetch().await {
            Ok(mut keys) => {
                let known = self.known.read().clone();
                if known.len() == keys.len() && known.iter().zip(&keys).all(|(old, new)| old.is(new)) {
                    return;
                }
                let (issuer, from) = (&self.issuer, &self.source);
                tracing::info!(issuer, %from, keys = keys.len(), "the keys of an issuer of tokens changed");
                for new in &mut keys {
                    if let Some(old) = known.iter().find(|old| old.verifies_as(new)) {
                        new.gone = old.gone.clone();
                    }
                }
                let keys = Arc::new(keys);
                *self.known.write() = keys.clone();
                self.generation.fetch_add(1, Ordering::Release);
                // Behind that: who comes back because of it is verified by the keys there are now.
                for old in known.iter().filter(|old| !keys.iter().any(|new| old.verifies_as(new))) {
                    old.gone.cancel();
                }
            }
            // The keys there are stay good: an issuer that cannot be reached does not lock everybody out.
            Err(error) => tracing::warn!(
                issuer = self.issuer,
                from = %self.source,
                error = &error as &dyn std::error::Error,
                "the keys of an issuer of tokens could not be fetched; those known stay good"
            ),
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        let json = match &self.source {
            Source::Fixed => return Err(FetchError::Empty),
            Source::File(path) => tokio::fs::read(path).await?,
            Source::Url(url) => {
                let url = url.clone();
                tokio::task::spawn_blocking(move || get(&url)).await.map_err(|_| FetchError::Stopped)??
            }
        };
        let set: serde_json::Value = serde_json::from_slice(&json)?;
        let keys: Vec<Key> = match set.get("keys") {
            // One by one: a key of a kind we do not know makes the others no worse.
            Some(serde_json::Value::Array(keys)) => keys.iter().filter_map(Key::read).take(KEYS_MAX).collect(),
            _ => serde_json::from_slice::<JwkSet>(&json)?.keys.iter().filter_map(Key::new).collect(),
        };
        if keys.is_empty() { Err(FetchError::Empty) } else { Ok(keys) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("the configuration"),
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn get(url: &str) -> Result<Vec<u8>, FetchError> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(FETCH_MAX)).max_redirects(2).build().into();
    let mut response = agent.get(url).header("accept", "application/jwk-set+json, application/json").call()?;
    Ok(response.body_mut().with_config().limit(SET_BYTES_MAX).read_to_vec()?)
}

/// Keys that a token may be signed with.
pub(super) struct Candidates {
    known: Arc<Vec<Key>>,
    places: Vec<usize>,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.places.iter().map(|at| &self.known[*at])
    }
}

impl Key {
    fn read(json: &serde_json::Value) -> Option<Self> {
        Self::new(&serde_json::from_value(json.clone()).ok()?)
    }

    /// A key that tokens of others can be verified with. A shared secret in a set that is published is none.
    fn new(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
            return None;
        }
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        if decoding.family() == AlgorithmFamily::Hmac {
            return None;
        }
        let (id, algorithm) = (jwk.common.key_id.clone(), jwk.common.key_algorithm);
        Some(Self { id, algorithm, decoding, gone: CancellationToken::new() })
    }

    fn is(&self, other: &Self) -> bool {
        self.verifies_as(other) && self.id == other.id && self.algorithm == other.algorithm
    }

    /// Whether it is the same key, whatever is said of it.
    fn verifies_as(&self, other: &Self) -> bool {
        use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        match (self.decoding.kind(), other.decoding.kind()) {
            (SecretOrDer(a), SecretOrDer(b)) => a == b,
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: other_n, e: other_e }) => {
                n == other_n && e == other_e
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Serves key sets on a port, one after another, each once it may; tells how many it was asked for.
    fn issuer(sets: Vec<(&'static str, std::sync::mpsc::Receiver<()>)>) -> (String, Arc<AtomicU64>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        std::thread::spawn(move || {
            for (set, may) in sets {
                let (mut stream, _) = listener.accept().expect("a connection");
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = may.recv();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", set.len());
                let _ = stream.write_all((head + set).as_bytes());
            }
        });
        (url, asked)
    }

    const ONE: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    const TWO: &str =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"two","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// The keys at an address, fetched for requests no more often than this and for no longer than that.
    fn keys(url: String, refetch_min: Duration, deadline: Duration) -> Arc<Keys> {
        let options = IssuerOptions::new("https://id.example", "a", Algorithm::EdDSA, KeySource::Url(url));
        let limits = LimitOptions { deadline, ..LimitOptions::default() };
        Arc::new(Keys::new(&IssuerOptions { refetch_min, ..options }, &limits))
    }

    const HOUR: Duration = Duration::from_secs(3600);

    async fn until(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited too long for {what}");
    }

    #[tokio::test]
    async fn what_is_fetched_for_a_request_that_goes_away_is_kept() {
        let (go, may) = std::sync::mpsc::channel();
        let (url, asked) = issuer(vec![(ONE, may)]);
        let keys = keys(url, HOUR, HOUR);
        {
            let mut request = pin!(keys.refetch());
            assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            until("the issuer to be asked", || asked.load(Ordering::SeqCst) == 1).await;
        }
        go.send(()).expect("the issuer waits");
        until("the key to be known", || !keys.candidates(Some("one"), Algorithm::EdDSA).is_empty()).await;
    }

    #[tokio::test]
    async fn few_wait_for_an_issuer_that_does_not_answer() {
        let [(go, may), (_second, never)] = [std::sync::mpsc::channel(), std::sync::mpsc::channel()];
        let (url, asked) = issuer(vec![(ONE, may), (TWO, never)]);
        let keys = keys(url, Duration::from_millis(1), HOUR);
        let waiting = |of: usize| -> Vec<_> {
            let refetch = || {
                let keys = keys.clone();
                tokio::spawn(async move { keys.refetch().await })
            };
            (0..of).map(|_| refetch()).collect()
        };
        let first = waiting(WAITING_MAX);
        until("the issuer to be asked", || asked.load(Ordering::SeqCst) == 1).await;
        for refused in waiting(8) {
            assert_eq!(refused.await.expect("it ends"), Err(NotFetched), "there are as many as may be");
        }
        assert!(first.iter().all(|waiting| !waiting.is_finished()));
        go.send(()).expect("the issuer waits");
        for waited in first {
            assert_eq!(waited.await.expect("it ends"), Ok(()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "those who waited fetch again, one after another");
        assert!(!keys.candidates(Some("one"), Algorithm::EdDSA).is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_a_request_may() {
        let (_go, never) = std::sync::mpsc::channel();
        let (url, _) = issuer(vec![(ONE, never)]);
        let keys = keys(url, Duration::from_millis(1), Duration::from_millis(100));
        let begin = Instant::now();
        assert_eq!(keys.refetch().await, Err(NotFetched));
        assert!(begin.elapsed() < FETCH_MAX, "the fetch goes on without the request");
    }

    #[tokio::test]
    async fn only_a_key_that_goes_ends_what_it_vouched_for() {
        const BOTH: &str = r#"{"keys":[
            {"kty":"OKP","crv":"Ed25519","kid":"two","x":"JKyhqWGlfxu4RHn28n0kiMbWX6bSbkBw1iV1aFj9SGE"},
            {"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        const OTHER: &str =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"two","x":"JKyhqWGlfxu4RHn28n0kiMbWX6bSbkBw1iV1aFj9SGE"}]}"#;
        let sets = [ONE, BOTH, OTHER].map(|set| {
            let (go, may) = std::sync::mpsc::channel();
            go.send(()).expect("it is kept");
            (set, may)
        });
        let keys = keys(issuer(sets.into()).0, HOUR, HOUR);
        let gone = |id| {
            let candidates = keys.candidates(Some(id), Algorithm::EdDSA);
            candidates.iter().next().expect("the key is known").gone.clone()
        };
        keys.refresh().await;
        let one = gone("one");
        keys.refresh().await;
        let two = gone("two");
        assert!(!one.is_cancelled(), "another came");
        keys.refresh().await;
        assert!(one.is_cancelled() && !two.is_cancelled(), "the first went, and the other stayed");
    }

    #[tokio::test]
    async fn requests_cannot_put_off_the_refresh() {
        let sets = [ONE, TWO].map(|set| {
            let (go, may) = std::sync::mpsc::channel();
            go.send(()).expect("it is kept");
            (set, may)
        });
        let (url, asked) = issuer(sets.into());
        let keys = keys(url, HOUR, HOUR);
        let is_known = |id| !keys.candidates(Some(id), Algorithm::EdDSA).is_empty();
        assert_eq!((keys.refetch().await, keys.refetch().await), (Ok(()), Ok(())));
        assert_eq!((asked.load(Ordering::SeqCst), is_known("one")), (1, true), "a request asks once in a while only");
        keys.refresh().await;
        assert_eq!((is_known("one"), is_known("two")), (false, true), "a key that was taken back is forgotten");
    }
}
