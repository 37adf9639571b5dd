//! GraphQL without HTTP around it, for measurements.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use apollo_compiler::response::JsonValue;
use bytes::Bytes;
use headwater_schemas::model::ModelShape;
use headwater_store::{DocumentReader, VersionId};
use hyper::header::{HeaderMap, HeaderValue};

use crate::Error;
use crate::access::{Principal, Visibility};
use crate::api::{DOCUMENTS_BYTES_MAX, ENTRIES_MAX};
use crate::channel::ChannelId;
use crate::context::{ReadContext, RequestId};
use crate::graphql::{GraphQl, GraphQlLimits, GraphQlRequest};
use crate::observe::Reads;
use crate::query::CursorKey;

/// Answers GraphQL requests about one model.
pub struct Executor {
    graphql: GraphQl,
    reader: Arc<dyn DocumentReader>,
    context: ReadContext,
}

impl Executor {
    /// Over the documents of a version.
    ///
    /// # Errors
    ///
    /// A shape that makes no schema.
    pub fn new(version: VersionId, shape: ModelShape, reader: Arc<dyn DocumentReader>) -> Result<Self, Error> {
        let graphql = GraphQl::new(&[Visibility::everything(version, shape)], GraphQlLimits::default())?;
        let context = ReadContext {
            request_id: RequestId::of(&HeaderMap::new()),
            cursors: Arc::new(CursorKey::new(b"measurement")),
            entries_max: ENTRIES_MAX,
            documents_bytes_max: DOCUMENTS_BYTES_MAX,
            principal: Principal::everything(),
            address: Ipv4Addr::LOCALHOST.into(),
            is_private: false,
            channel: ChannelId::DEFAULT,
            vary: HeaderValue::from_static("accept"),
            reads: Reads::new(Instant::now(), false),
            is_followed: false,
        };
        Ok(Self { graphql, reader, context })
    }

    /// The answer to a request, both as JSON; errors are in the answer.
    pub async fn execute(&self, request: Bytes) -> Bytes {
        let mut asked = GraphQlRequest::default();
        if let Ok(JsonValue::Object(mut members)) = JsonValue::from_bytes(request) {
            if let Some(JsonValue::String(query)) = members.remove("query") {
                asked.query = query;
            }
            if let Some(JsonValue::Object(variables)) = members.remove("variables") {
                asked.variables = variables;
            }
        }
        match self.graphql.operation(&asked) {
            Ok(operation) => {
                let mut budget = self.graphql.budget();
                self.graphql.answer(&operation, &mut budget, &*self.reader, &self.context).await.body
            }
            Err(refused) => refused.response(&self.context).body,
        }
    }
}
