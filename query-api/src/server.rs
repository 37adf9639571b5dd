//! Starting and stopping.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_store::DocumentReader;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access::Gate;
use crate::access::options::AccessOptions;
use crate::api::{Api, DOCUMENTS_BYTES_MAX, ENTRIES_MAX};
use crate::cache::{CacheMetrics, CachedReader, DocumentCache, Follower};
use crate::channel::{ChannelId, Channels, ChannelsOptions, tell_problems};
use crate::freshness::Freshness;
use crate::graphql::{GraphQl, KnownTexts, TrustedTexts};
use crate::http::{ConnectionsMax, WRITE_WAIT, serve};
use crate::listen::BoundPort;
use crate::live;
use crate::metrics::ApiMetrics;
use crate::query::CursorKey;
use crate::sending::Sending;
use crate::serving::{self, Serving, View};
use crate::{Error, rest};

/// Requests that take longer are logged, unless set otherwise.
const SLOW_QUERY: Duration = Duration::from_millis(250);

/// Bytes of documents kept at hand, unless set otherwise.
const CACHE_BYTES: u64 = 64 << 20;

/// How the query API is to run.
#[derive(Clone)]
pub struct ApiOptions {
    /// Signs cursors: all instances behind one address must have the same. Any length; 32 random bytes are right.
    pub cursor_secret: Vec<u8>,
    /// Index entries one query may look at, at most.
    pub entries_max: usize,
    /// Bytes of the documents that are read for one list, at most: a page ends early, and a batch is refused.
    pub documents_bytes_max: usize,
    /// Who may see what, and how much.
    pub access: AccessOptions,
    /// Bytes of documents kept at hand, at most; 0: each read goes to the store.
    pub cache_bytes: u64,
    /// Whether answers are compressed for clients that take them so.
    pub compression: bool,
    /// How GraphQL is served.
    pub graphql: GraphQlOptions,
    /// Shapes of models for kinds of readers.
    pub channels: ChannelsOptions,
    /// Requests that take longer are logged, one line each; `None`: none is.
    pub slow_query: Option<Duration>,
    /// Whether answers tell by `Server-Timing` how long their parts took. That helps those who guess from times, too.
    pub server_timing: bool,
    /// Whether `/bench/static?bytes=N` is served: the limit that reads are measured against.
    pub bench_route: bool,
}

impl ApiOptions {
    /// Options with everything else as it is usually right.
    pub fn new(cursor_secret: Vec<u8>) -> Self {
        Self {
            cursor_secret,
            entries_max: ENTRIES_MAX,
            documents_bytes_max: DOCUMENTS_BYTES_MAX,
            access: AccessOptions::default(),
            cache_bytes: CACHE_BYTES,
            compression: true,
            graphql: GraphQlOptions::default(),
            channels: ChannelsOptions::default(),
            slow_query: Some(SLOW_QUERY),
            server_timing: false,
            bench_route: false,
        }
    }
}

/// How GraphQL is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphQlOptions {
    /// Operations of one request, at most; 0: a request is never an array.
    pub batch_max: usize,
    /// Bytes of the persisted queries that are kept; with 0 there are none.
    pub persisted_bytes_max: usize,
    /// Documents that callers may name by their ids.
    pub trusted: Option<TrustedDocuments>,
    /// Operations that run on one WebSocket at the same time.
    pub subscriptions_max: usize,
    /// How long a WebSocket may take to say who it is, from its opening on.
    pub init_wait: Duration,
    /// How long, from there on, a subscription that cannot be begun for now is tried again before that is told.
    pub patience: Duration,
}

/// Documents that callers may name by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedDocuments {
    /// A folder of `*.graphql`, or a manifest in JSON.
    pub path: PathBuf,
    /// Whether nothing else is answered.
    pub only: bool,
}

impl Default for GraphQlOptions {
    fn default() -> Self {
        Self {
            batch_max: 10,
            persisted_bytes_max: 4 << 20,
            trusted: None,
            subscriptions_max: 100,
            init_wait: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

/// A running query API.
pub struct ApiHandle {
    /// Where readers connect.
    pub address: SocketAddr,
    /// Ends when the token given to [`start`] was cancelled and the requests being answered have ended.
    pub join: JoinHandle<()>,
    /// As requests see it; for the admin port.
    pub(crate) api: Arc<Api>,
}

/// Serves until `cancel` is cancelled: no new connections then, requests being answered end, live streams are closed.
///
/// # Errors
///
/// [`Error::Listen`] when somebody else listens there by now, [`Error::TrustedDocuments`] when these cannot be read.
pub async fn start(
    options: ApiOptions,
    port: BoundPort,
    reader: Arc<dyn DocumentReader>,
    metrics: Arc<Mutex<Registry>>,
    cancel: CancellationToken,
) -> Result<ApiHandle, Error> {
    let trusted = options.graphql.trusted.as_ref().map(|of| TrustedTexts::load(&of.path, of.only)).transpose()?;
    let known_texts = KnownTexts::new(trusted, options.graphql.persisted_bytes_max);
    let (listener, address) = port.listen()?;

    let api_metrics = ApiMetrics::default();
    api_metrics.register(&mut metrics.lock());
    let (reader, cache, follower) = cached(reader, options.cache_bytes, &metrics);
    let mut versions = reader.versions();
    let current = versions.borrow_and_update().clone();
    let channels = Arc::new(Channels::new(&options.channels));
    let (gate, policy) = Gate::new(&options.access, channels.headers(), &options.cursor_secret);
    let policy = Arc::new(policy);
    if !gate.asks() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "ANYBODY who reaches this address sees EVERY document: `api.auth` is not configured"
        );
    }
    let first = Serving::new(&current, &policy, &channels, &api_metrics);
    tell_problems(first.problems(), &[]);
    let sender = watch::Sender::new(Arc::new(first));
    let api = Arc::new(Api {
        serving: sender.subscribe(),
        freshness: Freshness::new(reader.frontiers(), reader.versions(), options.access.limits.requests_max / 4),
        cursors: Arc::new(CursorKey::new(&options.cursor_secret)),
        entries_max: options.entries_max,
        documents_bytes_max: options.documents_bytes_max,
        gate,
        sending: Sending::new(options.access.limits.sending_bytes_max),
        graphql: options.graphql.clone(),
        known_texts,
        channels: channels.clone(),
        slow_query: options.slow_query,
        server_timing: options.server_timing,
        listeners: Arc::default(),
        cache,
        compression: options.compression,
        metrics: api_metrics.clone(),
        bench_route: options.bench_route,
        stop: cancel.clone(),
        reader,
    });
    let changes = live::dispatch(api.listeners.clone(), api.reader.clone(), api.reader.changes(), cancel.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(serving::follow(versions, sender, policy, channels, api_metrics, cancel.clone()));
    tasks.spawn(changes);
    if let Some(follower) = follower {
        tasks.spawn(follower.follow(cancel.clone()));
    }
    let (watching, following) = (api.clone(), api.clone());
    let (watch_stop, follow_stop) = (cancel.clone(), cancel.clone());
    tasks.spawn(async move { watching.gate.watch(watch_stop).await });
    tasks.spawn(async move { following.gate.follow_keys(follow_stop).await });
    tasks.spawn(check_trusted(api.clone(), cancel.clone()));
    let answering = api.clone();
    let limits = &options.access.limits;
    // Through proxies all come from the addresses of these.
    let of_address = limits.connections_per_address_max.filter(|_| limits.trusted_hops == 0);
    let connections_max = ConnectionsMax { all: limits.connections_max, of_address };
    tasks.spawn(serve(listener, connections_max, WRITE_WAIT, cancel.clone(), move |request, peer| {
        let api = answering.clone();
        async move { rest::answer(&api, request, peer).await }
    }));
    let join = tokio::spawn(async move {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the query API failed");
            }
        }
    });
    tracing::info!(%address, "the query API listens");
    Ok(ApiHandle { address, join, api })
}

/// Looks whether the trusted documents fit what is served by one channel or another, each time that changes, until `stop` is cancelled.
async fn check_trusted(api: Arc<Api>, stop: CancellationToken) {
    let Some(trusted) = api.known_texts.trusted() else { return };
    tracing::info!(documents = trusted.len(), only = trusted.only, "trusted documents are answered");
    let mut serving = api.serving.clone();
    loop {
        let served = serving.borrow_and_update().clone();
        let ids = std::iter::once(ChannelId::DEFAULT).chain(api.channels.all().map(|(id, _)| id));
        let views: Vec<Arc<View>> = ids.map(|id| served.everything(id)).filter(|view| !view.is_empty()).collect();
        let schemas: Vec<&GraphQl> = views.iter().filter_map(|view| view.graphql().ok()).collect();
        trusted.check(&schemas);
        // Waiting for a change is cancellation-safe: a change that was not seen stays marked.
        tokio::select! {
            changed = serving.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// The reader with a cache of so many bytes in front of it, and what must be run for that.
fn cached(
    reader: Arc<dyn DocumentReader>,
    bytes_max: u64,
    metrics: &Mutex<Registry>,
) -> (Arc<dyn DocumentReader>, Option<Arc<DocumentCache>>, Option<Follower>) {
    if bytes_max == 0 {
        return (reader, None, None);
    }
    let cache_metrics = CacheMetrics::default();
    cache_metrics.register(&mut metrics.lock());
    let cache = Arc::new(DocumentCache::new(bytes_max, cache_metrics));
    let (reader, follower) = CachedReader::new(reader, cache.clone());
    (reader, Some(cache), Some(follower))
}
