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

use crate::access::{Policy, Principal, Roles, Visibility};
use crate::graphql::{GraphQl, GraphQlLimits, sdl_for};
use crate::metrics::{ApiMetrics, RouteMetrics};
use crate::problem::Problem;
use crate::{Error, describe};

/// Seconds after which a model that is being built may be asked for again.
const BUILDING_RETRY_SECONDS: u32 = 2;
/// Views kept, one for each set of roles that came.
const VIEWS_MAX: usize = 64;

/// The models served.
pub(crate) struct Serving {
    active: Vec<(VersionId, ModelShape)>,
    /// Models without a version that can be served yet.
    building: BTreeSet<String>,
    policy: Arc<Policy>,
    metrics: ApiMetrics,
    /// For operators, and for everybody where nobody is asked.
    everything: Arc<View>,
    /// For callers with these roles, the latest last.
    views: Mutex<Vec<(Roles, Arc<View>)>>,
}

/// What callers with the same roles are served.
pub(crate) struct View {
    models: BTreeMap<String, Arc<Model>>,
    building: BTreeSet<String>,
    openapi: OnceLock<Bytes>,
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
    /// Counters of point reads.
    pub(crate) point_metrics: RouteMetrics,
}

impl Serving {
    /// What is served when the registry holds these versions.
    pub(crate) fn new(versions: &[VersionRecord], policy: &Arc<Policy>, metrics: &ApiMetrics) -> Self {
        let is_active = |record: &&VersionRecord| record.state == VersionState::Active;
        let active: Vec<(VersionId, ModelShape)> = versions
            .iter()
            .filter(is_active)
            .filter_map(|record| record.shape.clone().map(|shape| (record.id, shape)))
            .collect();
        let building: BTreeSet<String> = versions
            .iter()
            .filter(|record| record.state == VersionState::Building)
            .filter(|record| !active.iter().any(|(_, shape)| shape.model == record.model))
            .map(|record| record.model.clone())
            .collect();
        let all = active.iter().map(|(version, shape)| Visibility::everything(*version, shape.clone()));
        let everything = Arc::new(View::new(all, building.clone(), metrics));
        // Mistakes in rules are told when a version comes, and not when the first caller does.
        active.iter().for_each(|(version, shape)| {
            policy.visibility(*version, shape, Roles::default());
        });
        Self { active, building, policy: policy.clone(), metrics: metrics.clone(), everything, views: Mutex::default() }
    }

    /// What operators are served.
    pub(crate) fn everything(&self) -> Arc<View> {
        self.everything.clone()
    }

    /// What this caller is served.
    pub(crate) fn view(&self, principal: &Principal) -> Arc<View> {
        if !principal.restricted {
            return self.everything.clone();
        }
        let roles = principal.roles;
        if let Some((_, view)) = self.views.lock().iter().find(|(of, _)| *of == roles) {
            return view.clone();
        }
        let seen = self.active.iter().filter_map(|(version, shape)| self.policy.visibility(*version, shape, roles));
        let building = self.building.iter().filter(|model| self.policy.is_known(model, roles)).cloned().collect();
        let view = Arc::new(View::new(seen, building, &self.metrics));
        let mut views = self.views.lock();
        if let Some((_, known)) = views.iter().find(|(of, _)| *of == roles) {
            return known.clone();
        }
        if views.len() >= VIEWS_MAX {
            views.remove(0);
        }
        views.push((roles, view.clone()));
        view
    }
}

impl View {
    fn new(seen: impl Iterator<Item = Arc<Visibility>>, building: BTreeSet<String>, metrics: &ApiMetrics) -> Self {
        let models = seen
            .map(|visibility| (visibility.shape.model.clone(), Arc::new(Model::new(visibility, metrics))))
            .collect();
        Self { models, building, openapi: OnceLock::new(), sdl: OnceLock::new(), graphql: OnceLock::new() }
    }

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
        self.openapi.get_or_init(|| describe::openapi(self.shapes()).to_string().into()).clone()
    }

    /// The GraphQL schema as text.
    pub(crate) fn sdl(&self) -> Bytes {
        let shapes = || self.shapes().cloned().collect::<Vec<_>>();
        self.sdl.get_or_init(|| sdl_for(&shapes()).into()).clone()
    }

    /// GraphQL over the models. The schema is made when it is first asked for.
    pub(crate) fn graphql(&self) -> Result<&GraphQl, Problem> {
        let made = self.graphql.get_or_init(|| {
            let seen: Vec<Arc<Visibility>> = self.models.values().map(|model| model.visibility.clone()).collect();
            GraphQl::new(&seen, GraphQlLimits::default()).inspect_err(|error| {
                tracing::error!(error = error as &dyn std::error::Error, "GraphQL is not served");
            })
        });
        made.as_ref().map_err(|error| Problem::internal(error.to_string()))
    }

    fn shapes(&self) -> impl Iterator<Item = &ModelShape> {
        self.models.values().map(|model| &model.visibility.shape)
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
        let problem = Problem::not_found(format!("there is no model `{name}`; {help}"));
        Problem { code: "unknown_model", title: "There is no such model", ..problem }
    }
}

impl Model {
    /// A version as some callers see it.
    pub(crate) fn new(visibility: Arc<Visibility>, metrics: &ApiMetrics) -> Self {
        let shape = &visibility.shape;
        let mut etag_prefix = format!("\"{}-", visibility.version.0).into_bytes();
        if let Some(fingerprint) = visibility.fingerprint {
            etag_prefix.extend_from_slice(format!("{fingerprint:x}-").as_bytes());
        }
        Self {
            version_header: HeaderValue::from(shape.version),
            etag_prefix,
            schema: OnceLock::new(),
            point_metrics: metrics.point(&shape.model),
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

    /// Whether a document could have this id. Says nothing about whether there is one.
    pub(crate) fn parse_id(&self, segment: &str) -> Option<Vec<u8>> {
        let id = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        self.visibility.shape.parse_id(&id)
    }

    /// The ETag of a document, with its quotes; `shape` tells answers of other shape apart.
    pub(crate) fn etag(&self, stamp: u64, shape: Option<u64>) -> Vec<u8> {
        let mut etag = Vec::with_capacity(self.etag_prefix.len() + 40);
        etag.extend_from_slice(&self.etag_prefix);
        etag.extend_from_slice(itoa::Buffer::new().format(stamp).as_bytes());
        if let Some(shape) = shape {
            etag.push(b'-');
            etag.extend_from_slice(itoa::Buffer::new().format(shape).as_bytes());
        }
        etag.push(b'"');
        etag
    }
}

/// Keeps `serving` current until `stop` is cancelled.
pub(crate) async fn follow(
    mut versions: watch::Receiver<Arc<Vec<VersionRecord>>>,
    serving: watch::Sender<Arc<Serving>>,
    policy: Arc<Policy>,
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
        serving.send_replace(Arc::new(Serving::new(&records, &policy, &metrics)));
    }
}
