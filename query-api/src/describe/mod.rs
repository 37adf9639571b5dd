//! What is served, described for programs: JSON Schema of documents, OpenAPI of paths.

mod example;
mod given;
mod json_schema;
mod openapi;
mod operations;
mod query;

pub use json_schema::json_schema;
pub use openapi::openapi;
