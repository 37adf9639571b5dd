//! GraphQL over the served models.
//!
//! The schema is generated from the models' shapes ([`sdl`], named by [`catalog`]). A query is parsed and validated by
//! `apollo-compiler`, compiled to a [`plan`] once ([`prepare`]), and executed by copying ranges of stored bytes into one
//! response buffer ([`write`], over [`scan`]): no resolvers, no tree of values. Introspection is `apollo-compiler`'s, once it was
//! counted ([`introspection`]).

mod arguments;
mod catalog;
mod error;
mod execute;
mod introspection;
mod known;
mod names;
mod operation;
mod plan;
mod prepare;
mod request;
mod scan;
mod sdl;
mod suggest;
mod trusted;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use apollo_compiler::Schema;
use apollo_compiler::collections::HashMap;
use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::ByteString;
use apollo_compiler::schema::Implementers;
use apollo_compiler::validation::Valid;
use bytes::Bytes;
use headwater_schemas::model::ModelShape;
use headwater_store::VersionId;

use self::catalog::Catalog;
pub(crate) use self::known::{Answered, GivenText, KnownTexts};
pub(crate) use self::names::{field_name, plural};
pub(crate) use self::operation::{Budget, Follows, Operation, Refused};
use self::prepare::Cache;
pub(crate) use self::trusted::TrustedTexts;
use crate::Error;
use crate::access::Visibility;
use crate::api::DOCUMENTS_BYTES_MAX;

/// How much one request may ask for. What goes beyond is refused before anything is executed, by the name of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GraphQlLimits {
    /// Bytes of the query's text.
    pub(crate) query_bytes_max: usize,
    /// Tokens of the query's text.
    pub(crate) tokens_max: usize,
    /// Levels of fields.
    pub(crate) depth_max: usize,
    /// Aliases in the whole text.
    pub(crate) aliases_max: usize,
    /// Fields of the operation once its fragments are spread.
    pub(crate) fields_max: usize,
    /// Fields written to the response, with `first` (10 for a nested array without) for the length of arrays, and what a
    /// page or a count looks at in an index, and for `contains` into documents. Of the schema as many values, or more
    /// where the schema is large.
    pub(crate) cost_max: usize,
    /// Bytes of the variables in the arguments of `data`'s fields, about, each as often as it is named there.
    pub(crate) arguments_bytes_max: usize,
    /// Documents of one page, and ids of one `…ByIds`.
    pub(crate) page_max: usize,
    /// Matches counted for `totalCount`, which is null beyond.
    pub(crate) count_max: u64,
    /// Bytes of the documents that are read for one request; with more it is refused while they are read, a few fields at
    /// a time. They are held until they are written, however little of them is wanted.
    pub(crate) documents_bytes_max: usize,
    /// Bytes of the responses to one request; with more it is refused while they are written. A document that is named
    /// again is written again, and its values under every alias.
    pub(crate) response_bytes_max: usize,
    /// Prepared queries kept.
    pub(crate) plans_max: usize,
    /// Bytes that they take, about: what was parsed of their texts, and their plans.
    pub(crate) plans_bytes_max: usize,
}

impl Default for GraphQlLimits {
    fn default() -> Self {
        Self {
            query_bytes_max: 64 * 1024,
            tokens_max: 4_000,
            depth_max: 16,
            aliases_max: 100,
            fields_max: 2_000,
            cost_max: 200_000,
            arguments_bytes_max: 1 << 20,
            page_max: 100,
            count_max: 10_000,
            documents_bytes_max: DOCUMENTS_BYTES_MAX,
            response_bytes_max: 2 * DOCUMENTS_BYTES_MAX,
            plans_max: 512,
            plans_bytes_max: 8 << 20,
        }
    }
}

/// One request, as its JSON body or its URL says.
#[derive(Clone, Debug)]
pub(crate) struct GraphQlRequest {
    /// The document.
    pub(crate) query: ByteString,
    /// Which of its operations; needed when it has several.
    pub(crate) operation_name: Option<ByteString>,
    /// Values of its variables.
    pub(crate) variables: JsonMap,
}

impl Default for GraphQlRequest {
    fn default() -> Self {
        Self { query: String::new().into(), operation_name: None, variables: JsonMap::new() }
    }
}

/// The answer, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct GraphQlResponse {
    /// 200, or 400 and up when the request was refused as a whole and there is no `data`.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Bytes,
    /// Whether there are no errors in it.
    pub(crate) is_clean: bool,
    /// Whether something could not be read, so that its null says nothing.
    pub(crate) is_broken: bool,
}

/// The schema of a set of model versions, ready to execute. Made anew when the versions change.
pub(crate) struct GraphQl {
    catalog: Catalog,
    schema: Valid<Schema>,
    implementers: HashMap<apollo_compiler::Name, Implementers>,
    limits: GraphQlLimits,
    /// Values of the schema that one request may ask for.
    introspection_max: usize,
    cache: Cache,
}

impl GraphQl {
    /// The schema of these models, as one kind of callers sees them.
    ///
    /// # Errors
    ///
    /// Shapes whose names GraphQL does not take; models that passed validation have none.
    pub(crate) fn new(models: &[Arc<Visibility>], limits: GraphQlLimits) -> Result<Self, Error> {
        let catalog = Catalog::new(models);
        let sdl = sdl::write(&catalog);
        let schema = Schema::parse_and_validate(sdl.as_str(), "schema.graphql")
            .map_err(|invalid| Error::Schema { message: invalid.errors.to_string() })?;
        let implementers = schema.implementers_map();
        let introspection_max = introspection::values_max(&schema, limits.cost_max);
        let cache = Cache::new(limits.plans_max, limits.plans_bytes_max);
        Ok(Self { catalog, schema, implementers, limits, introspection_max, cache })
    }
}

/// The GraphQL schema of these models as text.
pub fn sdl_for(shapes: &[ModelShape]) -> String {
    let models: Vec<Arc<Visibility>> =
        shapes.iter().map(|shape| Visibility::everything(VersionId(0), shape.clone())).collect();
    sdl_of(&models)
}

/// The GraphQL schema of models as text, as one kind of callers sees them by one channel.
pub(crate) fn sdl_of(models: &[Arc<Visibility>]) -> String {
    sdl::write(&Catalog::new(models))
}
