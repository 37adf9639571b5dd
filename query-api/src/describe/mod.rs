//! What is served, described: for programs by JSON Schema of documents and OpenAPI of paths, for people by pages.

mod example;
mod given;
mod json_schema;
mod openapi;
mod operations;
mod query;
pub(crate) mod reference;

pub use json_schema::json_schema;
pub use openapi::openapi;
pub(crate) use openapi::openapi_of;
