//! What is served at a moment: the active versions of the models. Made anew when versions change; each request keeps the
//! one it began with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_schemas::model::ModelShape;
use headwater_schemas::nearest;
use headwater_store::{VersionId, VersionRecord, VersionState};
use hyper::header::HeaderValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::graphql::{GraphQl, GraphQlLimits, sdl_for};
use crate::metrics::{ApiMetrics, RouteMetrics};
use crate::problem::Problem;
use crate::{Error, describe};

/// Seconds after which a model that is being built may be asked for again.
const BUILDING_RETRY_SECONDS: u32 = 2;

/// The models served.
pub(crate) struct Serving {
    models: BTreeMap<String, Arc<Model>>,
    /// Models without a version that can be served yet.
    building: BTreeSet<String>,
    /// The OpenAPI document.
    pub(crate) openapi: Bytes,
    /// The GraphQL schema as text.
    pub(crate) sdl: Bytes,
    /// GraphQL over the same models.
    graphql: Result<GraphQl, Error>,
}

/// One model that is served.
pub(crate) struct Model {
    /// The version whose documents are read.
    pub(crate) version: VersionId,
    /// What they look like.
    pub(crate) shape: ModelShape,
    /// Value of `X-Model-Version`.
    pub(crate) version_header: HeaderValue,
    /// Beginning of the documents' ETags.
    pub(crate) etag_prefix: Vec<u8>,
    /// JSON Schema of the documents.
    pub(crate) schema: Bytes,
    /// Counters of point reads.
    pub(crate) point_metrics: RouteMetrics,
}

impl Serving {
    /// What is served when the registry holds these versions.
    pub(crate) fn new(versions: &[VersionRecord], metrics: &ApiMetrics) -> Self {
        let active = versions.iter().filter(|record| record.state == VersionState::Active);
        let models: BTreeMap<String, Arc<Model>> = active
            .filter_map(|record| {
                Some((record.model.clone(), Arc::new(Model::new(record.id, record.shape.clone()?, metrics))))
            })
            .collect();
        let building = versions
            .iter()
            .filter(|record| record.state == VersionState::Building && !models.contains_key(&record.model))
            .map(|record| record.model.clone())
            .collect();
        let shapes = models.values().map(|model| &model.shape);
        let openapi = describe::openapi(shapes).to_string().into();
        let served: Vec<(VersionId, ModelShape)> =
            models.values().map(|model| (model.version, model.shape.clone())).collect();
        let graphql = GraphQl::new(&served, GraphQlLimits::default());
        if let Err(error) = &graphql {
            tracing::error!(error = error as &dyn std::error::Error, "GraphQL is not served");
        }
        let shapes: Vec<ModelShape> = served.into_iter().map(|(_, shape)| shape).collect();
        let sdl = sdl_for(&shapes).into();
        Self { models, building, openapi, sdl, graphql }
    }

    /// The model named `name`.
    pub(crate) fn model(&self, name: &str) -> Result<&Arc<Model>, Problem> {
        self.models.get(name).ok_or_else(|| self.missing(name))
    }

    /// GraphQL over the models.
    pub(crate) fn graphql(&self) -> Result<&GraphQl, Problem> {
        self.graphql.as_ref().map_err(|error| Problem::internal(error.to_string()))
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
    fn new(version: VersionId, shape: ModelShape, metrics: &ApiMetrics) -> Self {
        Self {
            version,
            version_header: HeaderValue::from(shape.version),
            etag_prefix: format!("\"{}-", version.0).into_bytes(),
            schema: describe::json_schema(&shape).to_string().into(),
            point_metrics: metrics.point(&shape.model),
            shape,
        }
    }

    /// Whether a document could have this id. Says nothing about whether there is one.
    pub(crate) fn parse_id(&self, segment: &str) -> Option<Vec<u8>> {
        let id = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        self.shape.parse_id(&id)
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
        serving.send_replace(Arc::new(Serving::new(&records, &metrics)));
    }
}
