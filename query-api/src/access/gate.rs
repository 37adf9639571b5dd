//! What every request of a reader passes, in one place: room, the limit of its address, who asks, the limit of its
//! principal. And what every answer gets on its way out.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::authenticate::{Authenticator, Denied, X_API_KEY};
use super::cors::Cors;
use super::limiter::{Limiter, Verdict, seconds};
use super::options::AccessOptions;
use super::policy::Policy;
use super::principal::{self, Caller, Principal, RoleNames};
use super::{Denial, address};
use crate::context::{ReadContext, RequestId};
use crate::http::Body;
use crate::places::{Places, TakenPlace};
use crate::problem::Problem;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// An answer is data and never a page.
const NOTHING_LOADED: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");
/// How often it is looked how long work waits for a processor.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks in a row that must find too long a wait: a single pause is no overload.
const LOOKS: u32 = 3;
/// Seconds after which a request that was turned away may be tried again.
const RETRY_SECONDS: u32 = 1;
/// Part of all places that one caller may have while no more than that part is free.
const OF_CALLER: usize = 4;

/// Lets requests in.
pub(crate) struct Gate {
    authenticator: Authenticator,
    cors: Option<Cors>,
    principal_limit: Option<Limiter>,
    address_limit: Option<Limiter>,
    streams: Option<Places<Caller>>,
    trusted_hops: usize,
    requests_max: usize,
    /// Requests being answered.
    requests: AtomicUsize,
    /// Those of each caller. Whoever holds requests open leaves places for others.
    of_callers: Places<Caller>,
    /// Whether an address tells callers apart who do not say who they are: without a word on proxies all of them may come
    /// from one.
    tells_addresses: bool,
    /// How long a request may take.
    pub(crate) deadline: Duration,
    queue_delay_max: Duration,
    /// Whether work waits too long for a processor, and how many of 256 requests are turned away for it.
    shed: AtomicU64,
    counted: AtomicU64,
}

/// A request that was let in.
pub(crate) struct Admitted<'g> {
    pub(crate) place: Place<'g>,
    /// Who asks.
    pub(crate) principal: Arc<Principal>,
    /// Where they are.
    pub(crate) address: IpAddr,
    /// What the limit of that caller said.
    pub(crate) verdict: Option<Verdict>,
}

/// A request that was not let in.
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// For the audit log; `None`: there was no room, whoever asked.
    denial: Option<Denial>,
    /// `RateLimit-Policy` and `RateLimit` of the limit that was passed.
    limit: Option<(HeaderValue, Option<HeaderValue>)>,
}

impl Refusal {
    /// One that denies nobody anything.
    pub(crate) fn plain(problem: Problem) -> Box<Self> {
        Box::new(Self { problem, denial: None, limit: None })
    }

    fn of(problem: Problem, denial: Denial) -> Box<Self> {
        Box::new(Self { problem, denial: Some(denial), limit: None })
    }

    fn of_limit(limit: &Limiter, who: &str, verdict: Verdict, denial: Denial) -> Box<Self> {
        let detail = format!("{who} sends too many requests; wait and try again");
        let problem = Problem::too_many(detail, seconds(verdict.wait).max(1));
        Box::new(Self { problem, denial: Some(denial), limit: Some((limit.policy(), limit.header(verdict))) })
    }

    /// Writes the audit log's line. To be called once, where the caller is told.
    pub(crate) fn audit(&self, request_id: &RequestId) {
        if let Some(denial) = &self.denial {
            denial.tell(request_id);
        }
    }

    /// What the caller is told, and the audit log.
    pub(crate) fn told(self, request_id: &RequestId) -> Problem {
        self.audit(request_id);
        self.problem
    }

    /// What the caller is told, and what the audit log is to be told then.
    pub(crate) fn parts(self) -> (Problem, Option<Denial>) {
        (self.problem, self.denial)
    }

    /// Adds what is told of the limit to the answer.
    pub(crate) fn tell_limit(self, response: &mut Response<Body>) {
        if let Some((policy, value)) = self.limit {
            response.headers_mut().insert(RATELIMIT_POLICY, policy);
            response.headers_mut().extend(value.map(|value| (RATELIMIT, value)));
        }
    }
}

/// A place among the requests being answered, and among those of its caller, free again when this is dropped.
pub(crate) struct Place<'g> {
    requests: &'g AtomicUsize,
    of_caller: Option<TakenPlace<Caller>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // First: whoever finds the place among all free finds that of the caller free.
        self.of_caller = None;
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// A gate with these rules, and the policy that goes with it. `channel_headers`: those that name channels.
    pub(crate) fn new(options: &AccessOptions, channel_headers: &[HeaderName], secret: &[u8]) -> (Self, Policy) {
        let names = RoleNames::of(options);
        let limits = &options.limits;
        let gate = Self {
            authenticator: Authenticator::new(options, &names),
            cors: options.cors.as_ref().map(|cors| Cors::new(cors, channel_headers)),
            principal_limit: limits.principal.map(|rate| Limiter::new("principal", rate)),
            address_limit: limits.address.map(|rate| Limiter::new("address", rate)),
            streams: limits.streams_max.map(Places::new),
            trusted_hops: limits.trusted_hops,
            requests_max: limits.requests_max,
            requests: AtomicUsize::new(0),
            of_callers: Places::new((limits.requests_max / OF_CALLER).max(1)),
            tells_addresses: limits.trusted_hops > 0 || limits.address.is_some(),
            deadline: limits.deadline,
            queue_delay_max: limits.queue_delay_max,
            shed: AtomicU64::new(0),
            counted: AtomicU64::new(0),
        };
        (gate, Policy::new(options, names, secret))
    }

    /// Whether callers are asked who they are.
    pub(crate) fn asks(&self) -> bool {
        self.authenticator.asks()
    }

    /// The answer to a browser that asks what a page may ask.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        self.cors.as_ref()?.preflight(method, headers)
    }

    /// The origin of the page that asks, where that makes a difference.
    pub(crate) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.cors.as_ref().and_then(|_| headers.get(ORIGIN).cloned())
    }

    /// Lets a request in, or says why not.
    pub(crate) async fn admit(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Admitted<'_>, Box<Refusal>> {
        let mut place = self.place().map_err(Refusal::plain)?;
        let address = self.enter(peer, headers, now)?;
        let principal = self.identify(headers, address).await?;
        place.of_caller = self.place_of_caller(&principal, address)?;
        let verdict = self.count(&principal, address, now)?;
        Ok(Admitted { place, principal, address, verdict })
    }

    /// Lets one more request in of a caller who is known, on a connection that was entered.
    pub(crate) fn admit_again(
        &self,
        principal: &Arc<Principal>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Admitted<'_>, Box<Refusal>> {
        let mut place = self.place().map_err(Refusal::plain)?;
        self.count_address(address, now)?;
        place.of_caller = self.place_of_caller(principal, address)?;
        let verdict = self.count(principal, address, now)?;
        Ok(Admitted { place, principal: principal.clone(), address, verdict })
    }

    /// The first step alone: whether anybody at this address may ask. Answers with the address behind trusted hops.
    pub(crate) fn enter(&self, peer: IpAddr, headers: &HeaderMap, now: Instant) -> Result<IpAddr, Box<Refusal>> {
        let address = address::of(peer, headers, self.trusted_hops);
        self.count_address(address, now)?;
        Ok(address)
    }

    /// Whether one more request may come from an address.
    fn count_address(&self, address: IpAddr, now: Instant) -> Result<(), Box<Refusal>> {
        if let Some(limit) = &self.address_limit {
            let verdict = limit.check(principal::limited(address), now);
            if !verdict.allowed {
                let denial = Denial::of_stranger(address, "address_rate");
                return Err(Refusal::of_limit(limit, "this address", verdict, denial));
            }
        }
        Ok(())
    }

    /// The second: who asks.
    pub(crate) async fn identify(&self, headers: &HeaderMap, address: IpAddr) -> Result<Arc<Principal>, Box<Refusal>> {
        let denied = |Denied { reason, problem }| Refusal::of(problem, Denial::of_stranger(address, reason));
        self.authenticator.principal(headers).await.map_err(denied)
    }

    /// The third: whether that caller may ask once more. `None`: there is no limit.
    fn count(
        &self,
        principal: &Arc<Principal>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Option<Verdict>, Box<Refusal>> {
        let verdict = self.principal_limit.as_ref().map(|limit| limit.check(principal.caller(address), now));
        if let (Some(limit), Some(verdict)) = (&self.principal_limit, verdict)
            && !verdict.allowed
        {
            let denial = Denial::of_caller(principal, address, "principal_rate");
            return Err(Refusal::of_limit(limit, "this caller", verdict, denial));
        }
        Ok(verdict)
    }

    /// As whom a caller is told from others; `None`: it is not known that it is one caller.
    pub(crate) fn caller(&self, principal: &Principal, address: IpAddr) -> Option<Caller> {
        let caller = principal.caller(address);
        (matches!(caller, Caller::Known(_)) || self.tells_addresses).then_some(caller)
    }

    /// Whether that caller may have one more request answered at the same time. `None`: it is not known that it is one
    /// caller.
    fn place_of_caller(
        &self,
        principal: &Arc<Principal>,
        address: IpAddr,
    ) -> Result<Option<TakenPlace<Caller>>, Box<Refusal>> {
        let Some(caller) = self.caller(principal, address) else { return Ok(None) };
        let quarter = self.of_callers.max();
        let room = || self.requests.load(Ordering::Relaxed) + quarter <= self.requests_max;
        let place = self.of_callers.take_while(caller, room).ok_or_else(|| {
            Refusal::of(too_many_requests(quarter), Denial::of_caller(principal, address, "requests"))
        })?;
        Ok(Some(place))
    }

    /// Lets one more live stream of a caller begin, which has a place where these are counted.
    ///
    /// # Errors
    ///
    /// The caller has as many as may be.
    pub(crate) fn begin_stream(&self, context: &ReadContext) -> Result<Option<TakenPlace<Caller>>, Box<Refusal>> {
        let Some(streams) = &self.streams else { return Ok(None) };
        let ReadContext { principal, address, .. } = context;
        let place = streams.take(principal.caller(*address)).ok_or_else(|| {
            Refusal::of(too_many_streams(streams.max()), Denial::of_caller(principal, *address, "streams"))
        })?;
        Ok(Some(place))
    }

    /// Whether a request shows who sent it.
    pub(crate) fn shows_credentials(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(AUTHORIZATION) || headers.contains_key(X_API_KEY)
    }

    /// Refuses what a page of another origin does that may not read answers: browsers leave that to the server where a
    /// WebSocket is opened.
    pub(crate) fn check_page(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Box<Refusal>> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, from)| from.as_bytes());
        if (from.is_some() && from == host) || self.cors.as_ref().is_some_and(|cors| cors.allows(origin)) {
            return Ok(());
        }
        let title = "A page of this origin may not do this";
        let detail = "add the page's origin to `api.cors.origins`";
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_origin", title, detail);
        let address = address::of(peer, headers, self.trusted_hops);
        Err(Refusal::of(problem, Denial::of_stranger(address, "foreign_origin")))
    }

    fn place(&self) -> Result<Place<'_>, Problem> {
        let place = Place { requests: &self.requests, of_caller: None };
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        if before >= self.requests_max {
            return Err(overloaded());
        }
        let shed = self.shed.load(Ordering::Relaxed);
        // Evenly: of 256 requests so many are turned away, one here and one there.
        if shed > 0 && self.counted.fetch_add(167, Ordering::Relaxed) % 256 < shed {
            return Err(overloaded());
        }
        Ok(place)
    }

    /// What every answer gets on its way out. `origin`: of the page that asked; `verdict`: of the limit of who asked.
    pub(crate) fn finish(&self, origin: Option<&HeaderValue>, verdict: Option<Verdict>, response: &mut Response<Body>) {
        let head = response.headers_mut();
        head.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
        // A page says itself what it loads.
        head.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING_LOADED);
        if let (Some(limit), Some(verdict)) = (&self.principal_limit, verdict) {
            head.insert(RATELIMIT_POLICY, limit.policy());
            if let Some(value) = limit.header(verdict) {
                head.insert(RATELIMIT, value);
            }
        }
        if let Some(cors) = &self.cors {
            cors.add(origin, head);
        }
    }

    /// Looks how long work waits for a processor, and has requests turned away while that is too long: a part of them
    /// that grows and shrinks with each look. Until `stop` is cancelled.
    pub(crate) async fn watch(&self, stop: CancellationToken) {
        let mut late = 0;
        while !stop.is_cancelled() {
            let asked = Instant::now();
            tokio::time::sleep(LOOK_EVERY).await;
            // The clock is a millisecond coarse; what is more was waiting.
            let waited = asked.elapsed().saturating_sub(LOOK_EVERY + Duration::from_millis(1));
            late = if waited > self.queue_delay_max { late + 1 } else { 0 };
            let shed = self.shed.load(Ordering::Relaxed);
            let next = match late {
                0 => shed.saturating_sub(16),
                late if late < LOOKS => shed,
                _ => (shed + 32).min(240),
            };
            if shed == 0 && next > 0 {
                tracing::warn!(waited_ms = waited.as_millis() as u64, "overloaded: some requests are turned away");
            }
            self.shed.store(next, Ordering::Relaxed);
        }
    }

    /// Keeps the keys of issuers current, until `stop` is cancelled.
    pub(crate) async fn follow_keys(&self, stop: CancellationToken) {
        self.authenticator.follow_keys(stop).await;
    }
}

fn too_many_requests(max: usize) -> Problem {
    let detail = format!(
        "more than {max} requests of this caller are being answered (a quarter of `api.limits.requests_max`), and few places \
         are left for others: wait for some of them"
    );
    Problem { code: "too_many_requests", ..Problem::too_many(detail, RETRY_SECONDS) }
}

fn too_many_streams(max: usize) -> Problem {
    let title = "Too many live streams";
    let detail = format!(
        "this caller has {max} live streams open, which is the limit (`api.limits.streams_max`): end some of them, or \
         follow a list in place of its documents one by one"
    );
    Problem { title, code: "too_many_streams", ..Problem::too_many(detail, RETRY_SECONDS) }
}

fn overloaded() -> Problem {
    Problem::unavailable("overloaded", "there are too many requests at the moment; try again", RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(change: impl FnOnce(&mut AccessOptions)) -> Arc<Gate> {
        let mut options = AccessOptions::default();
        change(&mut options);
        Arc::new(Gate::new(&options, &[], b"secret").0)
    }

    #[test]
    fn so_many_requests_have_places_and_no_more() {
        let gate = gate(|options| options.limits.requests_max = 3);
        let mut places: Vec<_> = (0..3).map(|_| gate.place().expect("there is room")).collect();
        for _ in 0..10 {
            // Those that are turned away take none.
            assert_eq!(gate.place().err().map(|problem| problem.code), Some("overloaded"));
        }
        places.pop();
        places.push(gate.place().expect("one is free again"));
        assert!(gate.place().is_err());
        drop(places);
        assert_eq!(gate.requests.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_part_of_requests_is_turned_away_while_work_waits_for_a_processor() {
        let gate = gate(|options| options.limits.queue_delay_max = Duration::from_millis(20));
        let stop = CancellationToken::new();
        let (watching, watched) = (stop.clone(), gate.clone());
        let watch = tokio::spawn(async move { watched.watch(watching).await });
        let turned_away = || (0..256).filter(|_| gate.place().is_err()).count();
        assert_eq!(turned_away(), 0);
        // This test's only thread does nothing else meanwhile.
        for _ in 0..LOOKS + 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            std::thread::sleep(LOOK_EVERY + Duration::from_millis(50));
        }
        tokio::task::yield_now().await;
        let while_late = turned_away();
        assert!((1..256).contains(&while_late), "{while_late}");
        let begun = Instant::now();
        while turned_away() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is over and requests are turned away still");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        stop.cancel();
        watch.await.expect("it ends");
    }
}
