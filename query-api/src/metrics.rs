//! What the query API counts.

use std::time::Duration;

use hyper::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Route {
    /// One document.
    Point,
    /// A page of documents.
    List,
    /// Several documents by id.
    Batch,
    /// A page inside a document.
    Array,
    /// What is the caller's own.
    Own,
    /// A document or a list and its changes.
    Live,
    /// JSON Schema and OpenAPI.
    Describe,
    /// GraphQL.
    GraphQl,
    /// Anything else.
    Other,
}

/// What a request was about. Models, versions and channels are those that are served, whatever clients write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct About {
    /// What was asked for.
    pub(crate) route: Route,
    /// Empty where none was found.
    pub(crate) model: String,
    /// Version number the model's author gave it; 0 where none was found.
    pub(crate) version: u32,
    /// The channel, or `default`.
    pub(crate) channel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Route,
    model: String,
    version: u32,
    channel: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    code: &'static str,
}

/// Counters of the query API.
#[derive(Clone, Debug)]
pub(crate) struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<About, Histogram, fn() -> Histogram>,
    response_bytes: Family<RouteLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    /// Live streams being served.
    pub(crate) live_streams: Gauge,
}

/// The counters of one route of one model, found once and not for each request.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    ok: Counter,
    not_modified: Counter,
    seconds: Histogram,
    bytes: Counter,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5])
            }),
            response_bytes: Family::default(),
            errors: Family::default(),
            live_streams: Gauge::default(),
        }
    }
}

impl ApiMetrics {
    /// Registers them under `headwater_api_…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let api = registry.sub_registry_with_prefix("headwater_api");
        api.register(
            "requests",
            "Requests answered, by route, model, version, channel and status",
            self.requests.clone(),
        );
        api.register_with_unit(
            "request",
            "Time from a request's head to its answer, without waits it asked for, by route, model, version and channel",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        api.register_with_unit(
            "response",
            "Bytes of answers without heads, live streams aside, by route",
            Unit::Bytes,
            self.response_bytes.clone(),
        );
        api.register("errors", "Requests answered with a problem, by its code", self.errors.clone());
        api.register("live_streams", "Live streams being served", self.live_streams.clone());
    }

    /// The counters of point reads of a version by a channel.
    pub(crate) fn point(&self, model: &str, version: u32, channel: &str) -> RouteMetrics {
        let route = Route::Point;
        let about = About { route, model: model.into(), version, channel: channel.into() };
        let count = |status| self.requests.get_or_create_owned(&about.with(status));
        RouteMetrics {
            ok: count(200),
            not_modified: count(304),
            seconds: self.request_seconds.get_or_create_owned(&about),
            bytes: self.response_bytes.get_or_create_owned(&RouteLabels { route }),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, about: &About, status: StatusCode, bytes: usize, took: Duration) {
        self.requests.get_or_create(&about.with(status.as_u16())).inc();
        self.request_seconds.get_or_create(about).observe(took.as_secs_f64());
        self.response_bytes.get_or_create(&RouteLabels { route: about.route }).inc_by(bytes as u64);
    }

    /// A request was answered with a problem.
    pub(crate) fn failed(&self, code: &'static str) {
        self.errors.get_or_create(&ErrorLabels { code }).inc();
    }
}

impl About {
    /// A request of GraphQL, which may be about several models or none.
    pub(crate) fn graphql(channel: &str) -> Self {
        Self { route: Route::GraphQl, model: String::new(), version: 0, channel: channel.into() }
    }

    fn with(&self, status: u16) -> RequestLabels {
        let Self { route, model, version, channel } = self.clone();
        RequestLabels { route, model, version, channel, status }
    }
}

impl Route {
    /// Its name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::List => "list",
            Self::Batch => "batch",
            Self::Array => "array",
            Self::Own => "own",
            Self::Live => "live",
            Self::Describe => "describe",
            Self::GraphQl => "graphql",
            Self::Other => "other",
        }
    }
}

impl RouteMetrics {
    /// A document was sent.
    pub(crate) fn sent(&self, bytes: usize, took: Duration) {
        self.ok.inc();
        self.bytes.inc_by(bytes as u64);
        self.seconds.observe(took.as_secs_f64());
    }

    /// The reader has it already.
    pub(crate) fn not_modified(&self, took: Duration) {
        self.not_modified.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
