//! What is served at a moment: the active versions of the models. Made anew when versions change; each request keeps the
//! one it began with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use headwater_schemas::model::ModelShape;
use headwater_schemas::nearest;
use headwater_store::{VersionId, VersionRecord, VersionState};
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::{Policy, Roles, Visibility};
use crate::channel::{ChannelId, ChannelProblem, Channels, Fitted, fit_all, tell_problems};
use crate::context::ReadContext;
use crate::graphql::{GraphQl, GraphQlLimits, sdl_of};
use crate::metrics::{ApiMetrics, RouteMetrics};
use crate::problem::{self, Problem};
use crate::{Error, describe};

/// Seconds after which a model that is being built may be asked for again.
const BUILDING_RETRY_SECONDS: u32 = 2;
/// Views kept, one for each set of roles that came by each channel.
const VIEWS_MAX: usize = 64;

/// The models served.
pub(crate) struct Serving {
    active: Vec<Active>,
    /// Models without a version that can be served yet.
    building: BTreeSet<String>,
    policy: Arc<Policy>,
    channels: Arc<Channels>,
    metrics: ApiMetrics,
    /// By channel, for operators, and for everybody where nobody is asked.
    everything: Vec<OnceLock<Arc<View>>>,
    /// For callers with these roles, the latest last.
    views: Mutex<Vec<(ViewKey, Arc<View>)>>,
    /// What of the channels does not fit the versions.
    problems: Vec<ChannelProblem>,
}

/// What a view depends on.
type ViewKey = (Roles, ChannelId);

/// A version that is served.
struct Active {
    version: VersionId,
    shape: ModelShape,
    /// By channel, without that of requests of no channel; `None`: the channel has nothing of it.
    fitted: Vec<Option<Arc<Fitted>>>,
}

/// What callers with the same roles are served by a channel.
pub(crate) struct View {
    channel: ChannelId,
    channels: Arc<Channels>,
    models: BTreeMap<String, Arc<Model>>,
    building: BTreeSet<String>,
    openapi: OnceLock<Bytes>,
    reference: OnceLock<Bytes>,
    sdl: OnceLock<Bytes>,
    graphql: OnceLock<Result<GraphQl, Error>>,
}

/// One model that is served.
pub(crate) struct Model {
    /// What is seen of it.
    pub(crate) visibility: Arc<Visibility>,
    /// Value of `X-Model-Version`.
    pub(crate) version_header: HeaderValue,
    /// Beginning of the documents' ETags.
    pub(crate) etag_prefix: Vec<u8>,
    /// JSON Schema of the documents.
    schema: OnceLock<Bytes>,
    /// The page about it.
    reference: OnceLock<Bytes>,
    /// Counters of point reads.
    pub(crate) point_metrics: RouteMetrics,
}

impl Serving {
    /// What is served when the registry holds these versions.
    pub(crate) fn new(
        versions: &[VersionRecord],
        policy: &Arc<Policy>,
        channels: &Arc<Channels>,
        metrics: &ApiMetrics,
    ) -> Self {
        let is_active = |record: &&VersionRecord| record.state == VersionState::Active;
        let mut problems = Vec::new();
        let active: Vec<Active> = versions
            .iter()
            .filter(is_active)
            .filter_map(|record| record.shape.clone().map(|shape| (record.id, shape)))
            .map(|(version, shape)| Active { version, fitted: fit_all(channels, &shape, &mut problems), shape })
            .collect();
        let building: BTreeSet<String> = versions
            .iter()
            .filter(|record| record.state == VersionState::Building)
            .filter(|record| !active.iter().any(|of| of.shape.model == record.model))
            .map(|record| record.model.clone())
            .collect();
        // Mistakes in rules are told when a version comes, and not when the first caller does.
        active.iter().for_each(|of| {
            policy.visibility(of.version, &of.shape, Roles::default(), None);
        });
        Self {
            active,
            building,
            policy: policy.clone(),
            channels: channels.clone(),
            metrics: metrics.clone(),
            everything: std::iter::repeat_with(OnceLock::new).take(channels.all().count() + 1).collect(),
            views: Mutex::default(),
            problems,
        }
    }

    /// What of the channels does not fit what is served.
    pub(crate) fn problems(&self) -> &[ChannelProblem] {
        &self.problems
    }

    /// What this caller is served by the channel of the request.
    pub(crate) fn view(&self, context: &ReadContext) -> Arc<View> {
        self.view_of(context, context.channel)
    }

    /// What this caller is served by a channel.
    pub(crate) fn view_of(&self, context: &ReadContext, channel: ChannelId) -> Arc<View> {
        if !context.principal.restricted {
            return self.everything(channel);
        }
        let roles = context.principal.roles;
        let key = (roles, channel);
        if let Some((_, view)) = self.views.lock().iter().find(|(of, _)| *of == key) {
            return view.clone();
        }
        let seen = |of: &Active| self.policy.visibility(of.version, &of.shape, roles, of.fitted(channel)?);
        let view = self.made(channel, self.active.iter().filter_map(seen), |model| self.policy.is_known(model, roles));
        let mut views = self.views.lock();
        if let Some((_, known)) = views.iter().find(|(of, _)| *of == key) {
            return known.clone();
        }
        if views.len() >= VIEWS_MAX {
            views.remove(0);
        }
        views.push((key, view.clone()));
        view
    }

    /// All there is by a channel: what callers are served of whom nothing is hidden.
    pub(crate) fn everything(&self, channel: ChannelId) -> Arc<View> {
        let everything = || {
            let seen = |of: &Active| match of.fitted(channel)? {
                None => Some(Visibility::everything(of.version, of.shape.clone())),
                Some(fitted) => Visibility::of_channel(of.version, &of.shape, fitted),
            };
            self.made(channel, self.active.iter().filter_map(seen), |_| true)
        };
        self.everything[channel.place()].get_or_init(everything).clone()
    }

    /// A view of what is seen; `knows`: whether the caller may know of a model that is being built.
    fn made(
        &self,
        channel: ChannelId,
        seen: impl Iterator<Item = Arc<Visibility>>,
        knows: impl Fn(&str) -> bool,
    ) -> Arc<View> {
        let has = |model: &str| self.channels.get(channel).is_none_or(|of| of.options.of(model).is_some());
        let building = self.building.iter().filter(|model| has(model) && knows(model)).cloned().collect();
        let label = self.channels.label(channel);
        let models = seen
            .map(|visibility| (visibility.shape.model.clone(), Arc::new(Model::new(visibility, label, &self.metrics))))
            .collect();
        Arc::new(View {
            channel,
            channels: self.channels.clone(),
            models,
            building,
            openapi: OnceLock::new(),
            reference: OnceLock::new(),
            sdl: OnceLock::new(),
            graphql: OnceLock::new(),
        })
    }
}

impl Active {
    /// A channel as it fits; `None`: it has nothing of this model. The inner one: it takes everything as it is.
    fn fitted(&self, channel: ChannelId) -> Option<Option<&Fitted>> {
        match channel.place().checked_sub(1) {
            None => Some(None),
            Some(at) => self.fitted.get(at)?.as_deref().map(Some),
        }
    }
}

impl View {
    /// The model named `name`. One that the caller may not see is not told from one that is not there.
    pub(crate) fn model(&self, name: &str) -> Result<&Arc<Model>, Problem> {
        self.models.get(name).ok_or_else(|| self.missing(name))
    }

    /// Whether there is no model in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The OpenAPI document.
    pub(crate) fn openapi(&self) -> Bytes {
        let made = || {
            let seen = self.models.values().map(|model| &*model.visibility);
            describe::openapi_of(seen, self.channel, &self.channels).to_string().into()
        };
        self.openapi.get_or_init(made).clone()
    }

    /// The page that lists the models.
    pub(crate) fn reference(&self) -> Bytes {
        let shapes = self.models.values().map(|model| &model.visibility.shape);
        self.reference.get_or_init(|| describe::reference::index_page(shapes).into()).clone()
    }

    /// The GraphQL schema as text.
    pub(crate) fn sdl(&self) -> Bytes {
        self.sdl.get_or_init(|| sdl_of(&self.seen()).into()).clone()
    }

    /// GraphQL over the models. The schema is made when it is first asked for.
    pub(crate) fn graphql(&self) -> Result<&GraphQl, Problem> {
        let made = self.graphql.get_or_init(|| {
            GraphQl::new(&self.seen(), GraphQlLimits::default()).inspect_err(|error| {
                tracing::error!(error = error as &dyn std::error::Error, "GraphQL is not served");
            })
        });
        made.as_ref().map_err(|error| Problem::internal(error.to_string()))
    }

    fn seen(&self) -> Vec<Arc<Visibility>> {
        self.models.values().map(|model| model.visibility.clone()).collect()
    }

    fn missing(&self, name: &str) -> Problem {
        if self.building.contains(name) {
            let detail = format!("the first version of {name} is being built; it is served when it is complete");
            return Problem::unavailable("model_building", detail, BUILDING_RETRY_SECONDS);
        }
        let names = || self.models.keys().chain(&self.building).map(String::as_str);
        let help = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names().next().is_none() => "no model is configured".to_string(),
            None => format!("there are {}", names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        };
        let problem = Problem::not_found(format!("there is no model `{}`; {help}", problem::shown(name)));
        Problem { code: "unknown_model", title: "There is no such model", ..problem }
    }
}

impl Model {
    /// A version as some callers see it by the channel of this name.
    pub(crate) fn new(visibility: Arc<Visibility>, channel: &str, metrics: &ApiMetrics) -> Self {
        let shape = &visibility.shape;
        let mut etag_prefix = format!("\"{}-", visibility.version.0).into_bytes();
        if let Some(fingerprint) = visibility.fingerprint {
            etag_prefix.extend_from_slice(format!("{fingerprint:x}-").as_bytes());
        }
        Self {
            version_header: HeaderValue::from(shape.version),
            etag_prefix,
            schema: OnceLock::new(),
            reference: OnceLock::new(),
            point_metrics: metrics.point(&shape.model, shape.version, channel),
            visibility,
        }
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        &self.visibility.shape.model
    }

    /// JSON Schema of the documents.
    pub(crate) fn schema(&self) -> Bytes {
        self.schema.get_or_init(|| describe::json_schema(&self.visibility.shape).to_string().into()).clone()
    }

    /// The page about the model.
    pub(crate) fn reference(&self) -> Bytes {
        self.reference.get_or_init(|| describe::reference::model_page(&self.visibility.shape).into()).clone()
    }

    /// Whether a document could have this id. Says nothing about whether there is one.
    pub(crate) fn parse_id(&self, segment: &str) -> Option<Vec<u8>> {
        let id = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        self.visibility.shape.parse_id(&id)
    }

    /// The ETag of a document, with its quotes; `shape` tells answers of other shape apart. It names no document: where one
    /// address leads to one document for this caller and to another for that, `shape` must tell those apart, too.
    pub(crate) fn etag(&self, stamp: u64, shape: Option<u64>) -> HeaderValue {
        let mut etag = Vec::with_capacity(self.etag_prefix.len() + 40);
        etag.extend_from_slice(&self.etag_prefix);
        etag.extend_from_slice(itoa::Buffer::new().format(stamp).as_bytes());
        if let Some(shape) = shape {
            etag.push(b'-');
            etag.extend_from_slice(itoa::Buffer::new().format(shape).as_bytes());
        }
        etag.push(b'"');
        HeaderValue::try_from(etag).expect("digits, hyphens and quotes")
    }
}

/// Keeps `serving` current until `stop` is cancelled.
pub(crate) async fn follow(
    mut versions: watch::Receiver<Arc<Vec<VersionRecord>>>,
    serving: watch::Sender<Arc<Serving>>,
    policy: Arc<Policy>,
    channels: Arc<Channels>,
    metrics: ApiMetrics,
    stop: CancellationToken,
) {
    loop {
        // Waiting for a change is cancellation-safe: a change that was not seen stays marked.
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let records = versions.borrow_and_update().clone();
        let next = Serving::new(&records, &policy, &channels, &metrics);
        tell_problems(next.problems(), serving.borrow().problems());
        serving.send_replace(Arc::new(next));
    }
}
