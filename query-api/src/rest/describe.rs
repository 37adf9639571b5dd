//! What is served, described: JSON Schema and OpenAPI.

use hyper::Response;
use hyper::header::HeaderValue;

use super::parameters::{parse, unknown};
use super::respond;
use crate::context::ReadContext;
use crate::http::Body;
use crate::problem::Problem;
use crate::serving::{Model, Serving};

/// The JSON Schema of a model's documents.
pub(super) fn schema(model: &Model, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    let kind = HeaderValue::from_static("application/schema+json");
    Ok(respond::plain(model.schema.clone(), kind, &context.request_id))
}

/// The OpenAPI document.
pub(super) fn openapi(serving: &Serving, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    Ok(respond::plain(serving.openapi.clone(), respond::JSON, &context.request_id))
}

/// The GraphQL schema as text.
pub(super) fn graphql(serving: &Serving, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(respond::plain(serving.sdl.clone(), kind, &context.request_id))
}

fn no_parameters(query: &str) -> Result<(), Problem> {
    match parse(query)?.first() {
        Some(parameter) => Err(unknown(&parameter.name, &[])),
        None => Ok(()),
    }
}
