//! What is served, described: JSON Schema and OpenAPI.

use std::sync::Arc;

use hyper::Response;
use hyper::header::HeaderValue;

use super::parameters::{once, parse, unknown};
use super::respond;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::Body;
use crate::problem::Problem;
use crate::serving::{Model, View};

/// Parameter that names a channel.
const CHANNEL: &str = "channel";

/// What is described: what the caller is served by the channel that `?channel=` names, or that of the request.
pub(super) fn view(api: &Api, query: &str, context: &ReadContext) -> Result<Arc<View>, Problem> {
    let mut named = None;
    for parameter in parse(query)? {
        match &*parameter.name {
            CHANNEL => once(&mut named, parameter)?,
            name => return Err(unknown(name, &[CHANNEL])),
        }
    }
    let channel = match named {
        Some(name) => api.channels.named(&name, CHANNEL)?,
        None => context.channel,
    };
    Ok(api.serving().view_of(context, channel))
}

/// The JSON Schema of a model's documents.
pub(super) fn schema(model: &Model, context: &ReadContext) -> Response<Body> {
    respond::plain(model.schema(), HeaderValue::from_static("application/schema+json"), context)
}

/// The OpenAPI document.
pub(super) fn openapi(view: &View, context: &ReadContext) -> Response<Body> {
    respond::plain(view.openapi(), respond::JSON, context)
}

/// The GraphQL schema as text.
pub(super) fn graphql(view: &View, context: &ReadContext) -> Response<Body> {
    respond::plain(view.sdl(), HeaderValue::from_static("text/plain; charset=utf-8"), context)
}

pub(super) fn no_parameters(query: &str) -> Result<(), Problem> {
    match parse(query)?.first() {
        Some(parameter) => Err(unknown(&parameter.name, &[])),
        None => Ok(()),
    }
}
