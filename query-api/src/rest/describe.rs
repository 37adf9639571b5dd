//! What is served, described: JSON Schema and OpenAPI.

use hyper::Response;
use hyper::header::HeaderValue;

use super::parameters::{parse, unknown};
use super::respond;
use crate::context::ReadContext;
use crate::http::Body;
use crate::problem::Problem;
use crate::serving::{Model, View};

/// The JSON Schema of a model's documents.
pub(super) fn schema(model: &Model, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    let kind = HeaderValue::from_static("application/schema+json");
    Ok(respond::plain(model.schema(), kind, context))
}

/// The OpenAPI document.
pub(super) fn openapi(view: &View, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    Ok(respond::plain(view.openapi(), respond::JSON, context))
}

/// The GraphQL schema as text.
pub(super) fn graphql(view: &View, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(respond::plain(view.sdl(), kind, context))
}

pub(super) fn no_parameters(query: &str) -> Result<(), Problem> {
    match parse(query)?.first() {
        Some(parameter) => Err(unknown(&parameter.name, &[])),
        None => Ok(()),
    }
}
