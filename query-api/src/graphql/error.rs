//! Errors as GraphQL reports them: message, locations, path, and `extensions` with a code and the request's id.

use std::num::NonZeroU32;

use apollo_compiler::Name;
use apollo_compiler::parser::{LineColumn, SourceMap, SourceSpan};
use headwater_schemas::write_json_string;

/// One error of a response.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// What is wrong, and the remedy.
    pub(super) message: Box<str>,
    /// Status of the response when the request is refused for it.
    pub(super) status: u16,
    /// Machine-readable.
    pub(super) code: &'static str,
    /// The argument it is about.
    pub(super) parameter: Option<Box<str>>,
    /// When to try again, in seconds; `None`: it stays as it is.
    pub(super) retry_after_seconds: Option<NonZeroU32>,
    /// The limit that was passed.
    pub(super) limit: Option<&'static str>,
    /// Where in the query.
    pub(super) locations: Vec<LineColumn>,
    /// Where in the data; empty when it concerns the request.
    pub(super) path: Vec<Step>,
}

/// One step of a path into the data.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A response key.
    Key(Name),
    /// A place in a list.
    Item(usize),
}

impl Problem {
    pub(super) const SYNTAX: &'static str = "graphql_syntax";
    pub(super) const INVALID: &'static str = "graphql_invalid";
    pub(super) const MUTATION: &'static str = "nothing_to_write";
    pub(super) const VARIABLES: &'static str = "invalid_variables";
    pub(super) const ARGUMENT: &'static str = "invalid_parameter";
    pub(super) const LIMIT: &'static str = "limit_exceeded";
    pub(super) const SHAPE: &'static str = "internal_error";
    pub(super) const DATA: &'static str = "unrepresentable_value";

    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into().into();
        Self {
            message,
            status: 400,
            code,
            parameter: None,
            retry_after_seconds: None,
            limit: None,
            locations: Vec::new(),
            path: Vec::new(),
        }
    }

    pub(super) fn limit(message: impl Into<String>, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..Self::new(Self::LIMIT, message) }
    }

    pub(super) fn at(mut self, span: Option<SourceSpan>, sources: &SourceMap) -> Self {
        self.locations.extend(span.and_then(|span| span.line_column(sources)));
        self
    }
}

impl From<crate::problem::Problem> for Problem {
    fn from(problem: crate::problem::Problem) -> Self {
        Self {
            status: problem.status.as_u16(),
            parameter: problem.parameter.map(Into::into),
            retry_after_seconds: problem.retry_after_seconds.and_then(NonZeroU32::new),
            ..Self::new(problem.code, problem.detail)
        }
    }
}

/// Appends `"errors":[…]`.
pub(super) fn write_errors(out: &mut Vec<u8>, problems: &[Problem], request_id: &str) {
    let number = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    out.extend_from_slice(b"\"errors\":[");
    for (at, problem) in problems.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"message\":");
        write_json_string(out, &problem.message);
        if !problem.locations.is_empty() {
            out.extend_from_slice(b",\"locations\":[");
            for (at, location) in problem.locations.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b",{\"line\":" } else { b"{\"line\":" });
                number(out, location.line);
                out.extend_from_slice(b",\"column\":");
                number(out, location.column);
                out.push(b'}');
            }
            out.push(b']');
        }
        if !problem.path.is_empty() {
            out.extend_from_slice(b",\"path\":[");
            for (at, step) in problem.path.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                match step {
                    Step::Key(key) => write_json_string(out, key),
                    Step::Item(item) => number(out, *item),
                }
            }
            out.push(b']');
        }
        out.extend_from_slice(b",\"extensions\":{\"code\":");
        write_json_string(out, problem.code);
        if let Some(parameter) = &problem.parameter {
            out.extend_from_slice(b",\"parameter\":");
            write_json_string(out, parameter);
        }
        if let Some(limit) = problem.limit {
            out.extend_from_slice(b",\"limit\":");
            write_json_string(out, limit);
        }
        out.extend_from_slice(b",\"requestId\":");
        write_json_string(out, request_id);
        out.extend_from_slice(b"}}");
    }
    out.push(b']');
}
