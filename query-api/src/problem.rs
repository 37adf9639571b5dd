//! What a reader is told when a request cannot be answered: `application/problem+json` (RFC 9457).

use headwater_schemas::write_json_string;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use crate::context::RequestId;
use crate::http::{Body, Unreadable, X_REQUEST_ID};
use crate::observe::current;

/// Code of credentials that are not valid.
const CREDENTIALS_INVALID: &str = "credentials_invalid";
/// Characters of a name that are told again.
const SHOWN_MAX: usize = 80;

/// A name that a caller sent, as far as it is told again, to the caller or in the log: not at any length.
pub(crate) fn shown(name: &str) -> &str {
    name.char_indices().nth(SHOWN_MAX).map_or(name, |(end, _)| &name[..end])
}

/// Why a request cannot be answered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Status of the response.
    pub(crate) status: StatusCode,
    /// For programs: stable, lower case with `_`.
    pub(crate) code: &'static str,
    /// For people: the kind of problem.
    pub(crate) title: &'static str,
    /// For people: this problem, with the remedy.
    pub(crate) detail: String,
    /// The parameter it is about, or a JSON pointer to the member of the request's body.
    pub(crate) parameter: Option<String>,
    /// Whether it is a pointer.
    pub(crate) is_in_body: bool,
    /// When to try again, in seconds.
    pub(crate) retry_after_seconds: Option<u32>,
    /// Methods that would do.
    pub(crate) allow: Option<&'static str>,
}

impl Problem {
    /// A problem of any kind.
    pub(crate) fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, code, title, detail, parameter: None, is_in_body: false, retry_after_seconds: None, allow: None }
    }

    /// A parameter that is there and cannot be accepted.
    pub(crate) fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        let title = "A parameter cannot be accepted";
        let problem = Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", title, detail);
        Self { parameter: Some(name.into()), ..problem }
    }

    /// A parameter, path or operator that does not exist here.
    pub(crate) fn unknown_parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: "unknown_parameter", title: "There is no such parameter", ..Self::parameter(name, detail) }
    }

    /// The same problem of a request whose parameters are members of a JSON body: `filter[a.b][eq]` is
    /// `/filter/a.b/eq` there.
    pub(crate) fn in_body(mut self) -> Self {
        self.is_in_body = true;
        self.parameter = self.parameter.take().map(|name| {
            let inside = name.strip_prefix("filter[").and_then(|rest| rest.strip_suffix(']'));
            let escaped = |part: &str| part.replace('~', "~0").replace('/', "~1");
            match inside {
                Some(inside) => {
                    inside.split("][").fold("/filter".to_string(), |pointer, part| pointer + "/" + &escaped(part))
                }
                None if name.is_empty() => name,
                None => format!("/{}", escaped(&name)),
            }
        });
        self
    }

    /// Nothing is served at this path.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here", detail)
    }

    /// No document with this id.
    pub(crate) fn no_document(model: &str) -> Self {
        let detail = format!("there is no {model} with this id");
        Self::new(StatusCode::NOT_FOUND, "document_not_found", "There is no such document", detail)
    }

    /// Another method is wanted.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let title = "This method is not served here";
        let detail = format!("use {allow}");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title, detail);
        Self { allow: Some(allow), ..problem }
    }

    /// It is not known who asks; `given`: what was sent to show it is not valid.
    pub(crate) fn unauthenticated(detail: impl Into<String>, given: bool) -> Self {
        let title = "It is not known who asks";
        let code = if given { CREDENTIALS_INVALID } else { "credentials_missing" };
        Self::new(StatusCode::UNAUTHORIZED, code, title, detail)
    }

    /// What is asked for cannot be answered in a way that the client accepts.
    pub(crate) fn not_acceptable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, code, "It is not served in this form", detail)
    }

    /// So many documents, which are named and read together, have more bytes than that.
    pub(crate) fn too_large(documents: usize, bytes_max: usize) -> Self {
        let title = "These documents are too large together";
        let detail = format!(
            "these {documents} documents have more than {bytes_max} bytes together, which is the limit: ask for \
             fewer of them at once (`ids`)"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "documents_too_large", title, detail)
    }

    /// Too much was asked for; it may be tried again then.
    pub(crate) fn too_many(detail: impl Into<String>, retry_after_seconds: u32) -> Self {
        let title = "Too many requests";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title, detail);
        Self { retry_after_seconds: Some(retry_after_seconds), ..problem }
    }

    /// Comes back by itself.
    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>, retry_after_seconds: u32) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, "This is not available now", detail);
        Self { retry_after_seconds: Some(retry_after_seconds), ..problem }
    }

    /// The fault is on this side.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        let title = "Something is wrong on the server";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", title, detail)
    }

    /// The members of the problem as JSON.
    pub(crate) fn to_json(&self, request_id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.detail.len());
        let mut member = |name: &str, value: &str| {
            out.push(if out.is_empty() { b'{' } else { b',' });
            write_json_string(&mut out, name);
            out.push(b':');
            write_json_string(&mut out, value);
        };
        member("type", &format!("urn:headwater:problem:{}", self.code));
        member("title", self.title);
        member("detail", &self.detail);
        member("code", self.code);
        member("requestId", request_id);
        if let Some(parameter) = &self.parameter {
            member(if self.is_in_body { "pointer" } else { "parameter" }, parameter);
        }
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b'}');
        out
    }

    /// Value of `WWW-Authenticate`, where it is not known who asks.
    pub(crate) fn challenge(&self) -> Option<HeaderValue> {
        let challenge = match self.code {
            _ if self.status != StatusCode::UNAUTHORIZED => return None,
            CREDENTIALS_INVALID => "Bearer realm=\"headwater\", error=\"invalid_token\"",
            _ => "Bearer realm=\"headwater\"",
        };
        Some(HeaderValue::from_static(challenge))
    }

    /// The whole response.
    pub(crate) fn to_response(&self, request_id: &RequestId) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json(request_id.as_str())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, request_id.header());
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.extend(self.challenge().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<headwater_store::Error> for Problem {
    /// The cause goes to the log, not to the reader: it names places on this machine.
    fn from(error: headwater_store::Error) -> Self {
        current(|id| {
            tracing::error!(
                request_id = id.map(RequestId::as_str),
                trace_id = id.and_then(RequestId::trace_id),
                error = &error as &dyn std::error::Error,
                "the store could not be read"
            );
        });
        match error.kind() {
            headwater_store::ErrorKind::Retryable => {
                Self::unavailable("store_unavailable", "the store could not be read; try again", 1)
            }
            _ => Self::internal("the store could not be read; the server's log says why"),
        }
    }
}

impl From<Unreadable> for Problem {
    fn from(cause: Unreadable) -> Self {
        match cause {
            Unreadable::TooLarge => {
                let title = "The body is too large";
                let detail = "send a smaller body, or several requests";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", title, detail)
            }
            Unreadable::Broken => {
                let title = "The body cannot be read";
                Self::new(StatusCode::BAD_REQUEST, "body_broken", title, "the connection ended within the body")
            }
        }
    }
}
