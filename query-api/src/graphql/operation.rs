//! An operation that is ready to be answered, as often as it is wanted; and why one is not.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apollo_compiler::executable::OperationType;
use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::response::serde_json_bytes::ByteString;
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::validation::Valid;

use super::arguments::count;
use super::error::{Problem, write_errors};
use super::introspection::TooMany;
use super::plan::{Plan, Wanted};
use super::prepare::Prepared;
use super::request::point;
use super::{GraphQl, GraphQlRequest, GraphQlResponse};
use crate::access::Visibility;
use crate::context::ReadContext;

/// An operation that passed validation, with its variables and its plan.
pub(crate) struct Operation {
    pub(super) prepared: Arc<Prepared>,
    pub(super) plan: Arc<Plan>,
    pub(super) variables: Valid<JsonMap>,
    /// The value of every nested `first` of the plan.
    pub(super) firsts: Vec<Option<usize>>,
}

impl Operation {
    /// What each field of `data` that asks for one document writes of these bytes.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn written(&self, document: &[u8]) -> Vec<Vec<u8>> {
        let point = |root: &super::plan::Root| {
            let Wanted::Point(_, plan) = &root.kind else { return None };
            let mut writer = super::write::Writer::new(&self.firsts, 0, usize::MAX);
            writer.document(plan, document).ok().map(|()| writer.out)
        };
        self.plan.roots.iter().filter_map(point).collect()
    }

    /// Whether it is answered more than once.
    pub(crate) fn is_subscription(&self) -> bool {
        self.prepared.operation.operation_type == OperationType::Subscription
    }
}

/// What a subscription follows.
pub(crate) enum Follows {
    /// A document; `None`: no document of its model can have the id.
    Document(Option<Vec<u8>>),
    /// The first page of a list.
    List,
}

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub(super) Vec<Problem>);

impl Refused {
    /// One reason of the caller's own making. `code` is for programs, the message for people.
    pub(crate) fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self(vec![Problem { status, ..Problem::new(code, message) }])
    }

    /// Whether it is because something would be written, which GET must not.
    pub(crate) fn is_mutation(&self) -> bool {
        self.0.iter().any(|problem| problem.code == Problem::MUTATION)
    }

    /// The first reason's code.
    pub(crate) fn code(&self) -> &'static str {
        self.0.first().map_or(Problem::SHAPE, |problem| problem.code)
    }

    /// Status of the answer.
    pub(crate) fn status(&self) -> u16 {
        self.0.iter().map(|problem| problem.status).max().unwrap_or(400)
    }

    /// How long to wait before it may be tried again; `None`: one of the reasons stays as it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds: Option<Vec<NonZeroU32>> = self.0.iter().map(|problem| problem.retry_after_seconds).collect();
        seconds?.into_iter().max().map(|seconds| Duration::from_secs(seconds.get().into()))
    }

    /// The reasons, as GraphQL lists them: `[{"message":…},…]`.
    pub(crate) fn list(&self, context: &ReadContext) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        write_errors(&mut out, &self.0, context.request_id.as_str());
        out.split_off(b"\"errors\":".len())
    }

    /// The reasons, for people.
    pub(crate) fn message(&self) -> String {
        let one = |problem: &Problem| match problem.locations.first() {
            Some(at) => format!("line {}: {}", at.line, problem.message),
            None => problem.message.to_string(),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// The whole answer.
    pub(crate) fn response(&self, context: &ReadContext) -> GraphQlResponse {
        let status = self.status();
        let mut body = Vec::with_capacity(256);
        body.push(b'{');
        write_errors(&mut body, &self.0, context.request_id.as_str());
        body.push(b'}');
        GraphQlResponse { status, body: body.into(), is_clean: false, is_broken: status >= 500 }
    }
}

impl From<crate::problem::Problem> for Refused {
    fn from(problem: crate::problem::Problem) -> Self {
        Self(vec![problem.into()])
    }
}

/// What the operations of one request may cost together.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    left: usize,
    introspection_max: usize,
    /// Values of the schema that may still be asked for.
    introspection_left: usize,
    documents_max: usize,
    /// Bytes of the documents that were read. Those of several fields come in any order.
    documents_taken: AtomicUsize,
    /// Bytes that may still be written.
    response_left: usize,
}

impl Budget {
    /// Takes what an operation costs.
    pub(super) fn spend(&mut self, cost: usize) -> Result<(), Problem> {
        self.check(cost)?;
        self.left -= cost;
        Ok(())
    }

    /// Whether there is so much left.
    pub(super) fn check(&self, cost: usize) -> Result<(), Problem> {
        let (max, left) = (self.max, self.left);
        if cost <= left {
            return Ok(());
        }
        let message = format!(
            "the operation costs {cost} or more, over the limit of {max}{}: ask for fewer documents (`first`), fewer \
             nested elements (`first`), fewer fields, or fewer pages and counts at once",
            rest(max, left)
        );
        Err(Problem::limit(message, "cost"))
    }

    /// Takes what an operation asks about the schema: `count` is told what is left, and tells what is left then.
    pub(super) fn spend_introspection(
        &mut self,
        count: impl FnOnce(usize) -> Result<usize, TooMany>,
    ) -> Result<(), Problem> {
        let (max, left) = (self.introspection_max, self.introspection_left);
        let too_many = |TooMany| {
            let message = format!(
                "the operation asks for more than {left} values of the schema, over the limit of {max}{}: ask for fewer \
                 lists within lists, or send the introspection query of your tools by itself",
                rest(max, left)
            );
            Problem::limit(message, "introspection")
        };
        self.introspection_left = count(left).map_err(too_many)?;
        Ok(())
    }

    /// Takes the bytes of documents that were read, which are to be dropped when there is no room for them.
    pub(super) fn take_documents(&self, bytes: usize) -> Result<(), Problem> {
        let taken = self.documents_taken.fetch_add(bytes, Ordering::Relaxed);
        if taken.saturating_add(bytes) <= self.documents_max {
            return Ok(());
        }
        self.documents_taken.fetch_sub(bytes, Ordering::Relaxed);
        Err(too_many_bytes(self.documents_max))
    }

    /// Bytes that a response may have.
    pub(super) fn response_left(&self) -> usize {
        self.response_left
    }

    /// Takes the bytes of a response that was written.
    pub(super) fn take_response(&mut self, bytes: usize) {
        self.response_left = self.response_left.saturating_sub(bytes);
    }
}

/// Why documents are refused that there is no room for.
pub(super) fn too_many_bytes(max: usize) -> Problem {
    let message = format!(
        "the documents that this request asks for have more than {max} bytes together, which is the limit: ask for \
         fewer documents at once (`first`, or fewer `ids`), or in several requests"
    );
    Problem::limit(message, "document bytes")
}

/// Why a response is refused that has more bytes than this.
pub(super) fn too_long(max: usize) -> Problem {
    let message = format!(
        "the response has more than {max} bytes, which is the limit, or what others of this request leave of it: ask \
         for fewer documents at once (`first`, or fewer `ids`, each once), or fewer fields, or in several requests"
    );
    Problem::limit(message, "response bytes")
}

/// What others of the same request leave of a limit, where they took some.
fn rest(max: usize, left: usize) -> String {
    if left == max { String::new() } else { format!(", of which others of this request leave {left}") }
}

fn copied(text: &ByteString) -> ByteString {
    text.as_str().to_owned().into()
}

fn copied_value(value: &JsonValue) -> JsonValue {
    match value {
        JsonValue::String(text) => JsonValue::String(copied(text)),
        JsonValue::Array(items) => JsonValue::Array(items.iter().map(copied_value).collect()),
        JsonValue::Object(members) => {
            JsonValue::Object(members.iter().map(|(name, value)| (copied(name), copied_value(value))).collect())
        }
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) => value.clone(),
    }
}

impl GraphQl {
    /// What one request may cost.
    pub(crate) fn budget(&self) -> Budget {
        let (max, introspection_max) = (self.limits.cost_max, self.introspection_max);
        Budget {
            max,
            left: max,
            introspection_max,
            introspection_left: introspection_max,
            documents_max: self.limits.documents_bytes_max,
            documents_taken: AtomicUsize::new(0),
            response_left: self.limits.response_bytes_max,
        }
    }

    /// Makes a request ready to be answered. A text that was seen before is neither parsed nor validated again.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the request itself; nothing has been read then.
    pub(crate) fn operation(&self, request: &GraphQlRequest) -> Result<Operation, Refused> {
        let name = request.operation_name.as_ref().map(|name| name.as_str());
        let prepared = self.prepared(request.query.as_str(), name).map_err(Refused)?;
        let coerced = coerce_variable_values(&self.schema, &prepared.operation, &request.variables);
        let variables = coerced.map_err(|wrong| {
            let problem = Problem::new(Problem::VARIABLES, wrong.message().to_string());
            Refused(vec![problem.at(wrong.location(), &prepared.document.sources)])
        })?;
        let one = |problem| Refused(vec![problem]);
        let (plan, is_new) = prepared.plan(&self.catalog, &self.limits, &variables).map_err(one)?;
        if is_new {
            self.cache.put(request.query.as_str(), name, prepared.clone());
        }
        let mut firsts = Vec::with_capacity(plan.firsts.len());
        for first in &plan.firsts {
            let value = count(std::slice::from_ref(first), "first", &variables);
            firsts.push(value.map_err(|problem| one(problem.at(first.location(), &prepared.document.sources)))?);
        }
        Ok(Operation { prepared, plan, variables, firsts })
    }

    /// Makes an operation fit to be kept, with the request it can be made of again. Texts of a request are parts of its
    /// body, which they would keep whole: here they are copied, and variables that the operation does not declare are
    /// left out.
    pub(crate) fn keep(
        &self,
        request: &GraphQlRequest,
        operation: &Operation,
    ) -> Result<(GraphQlRequest, Operation), Refused> {
        let declared = &operation.prepared.operation.variables;
        let is_declared = |name: &ByteString| declared.iter().any(|variable| variable.name == name.as_str());
        let given = request.variables.iter().filter(|(name, _)| is_declared(name));
        let kept = GraphQlRequest {
            query: copied(&request.query),
            operation_name: request.operation_name.as_ref().map(copied),
            variables: given.map(|(name, value)| (copied(name), copied_value(value))).collect(),
        };
        let operation = self.operation(&kept)?;
        Ok((kept, operation))
    }

    /// What a subscription follows.
    pub(crate) fn followed(&self, operation: &Operation) -> Result<(Arc<Visibility>, Follows), Refused> {
        let nothing = || Refused::new(Problem::INVALID, 400, "this follows neither a document nor a list");
        let root = operation.plan.roots.first().ok_or_else(nothing)?;
        match &root.kind {
            Wanted::Point(model, _) => {
                let point = point(&self.catalog.models[*model], root, &operation.variables);
                let at = |problem: Problem| Refused(vec![problem.at(root.at, &operation.prepared.document.sources)]);
                point.map(|(visibility, id)| (visibility, Follows::Document(id))).map_err(at)
            }
            Wanted::Connection(model, _) => Ok((self.catalog.models[*model].visibility.clone(), Follows::List)),
            _ => Err(nothing()),
        }
    }

    /// Whether a document of any number of operations fits the schema.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn check(&self, text: &str) -> Result<(), Refused> {
        Prepared::check(&self.schema, &self.limits, text).map_err(Refused)
    }

    /// The operation of a text. It is kept once it has a plan.
    fn prepared(&self, query: &str, operation_name: Option<&str>) -> Result<Arc<Prepared>, Vec<Problem>> {
        if query.len() > self.limits.query_bytes_max {
            let message =
                format!("the query is {} bytes, over the limit of {}", query.len(), self.limits.query_bytes_max);
            return Err(vec![Problem::limit(message, "query bytes")]);
        }
        if let Some(known) = self.cache.get(query, operation_name) {
            return Ok(known);
        }
        Prepared::new(&self.schema, &self.limits, query, operation_name).map(Arc::new)
    }
}
