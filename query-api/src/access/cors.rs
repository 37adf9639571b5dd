//! Pages of other origins: which of them a browser lets read answers.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Response, StatusCode};

use super::options::CorsOptions;
use crate::http::Body;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, QUERY");
const ALLOWED: &str = "accept, authorization, consistency-token, content-type, if-none-match, last-event-id, prefer, \
                       traceparent, tracestate, x-api-key, x-request-id";
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "consistency-token, etag, link, preference-applied, ratelimit, ratelimit-policy, retry-after, server-timing, \
     traceparent, tracestate, x-count, x-count-kind, x-data-as-of, x-model-version, x-next-cursor, x-request-id",
);

/// Origins that are allowed.
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
    any: bool,
    credentials: bool,
    max_age: HeaderValue,
    allowed_headers: HeaderValue,
}

impl Cors {
    /// `more`: headers that requests may have besides.
    pub(super) fn new(options: &CorsOptions, more: &[HeaderName]) -> Self {
        let allowed = more.iter().fold(ALLOWED.to_string(), |all, name| format!("{all}, {name}"));
        Self {
            allowed_headers: HeaderValue::try_from(allowed).expect("names of headers"),
            any: options.origins.iter().any(|origin| origin == "*"),
            origins: options.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
            credentials: options.credentials,
            max_age: HeaderValue::from(options.max_age.as_secs()),
        }
    }

    /// The value that allows this origin; `None` when there is none or it is not allowed.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = origin?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// Whether pages of this origin may read answers.
    pub(super) fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed(Some(origin)).is_some()
    }

    /// The answer to a browser that asks what it may ask; `None`: it is no such question.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::from(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        self.add(headers.get(ORIGIN), response.headers_mut());
        if response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            let head = response.headers_mut();
            head.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            head.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allowed_headers.clone());
            head.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            head.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        }
        Some(response)
    }

    /// Adds to an answer what lets the page that asked read it.
    pub(super) fn add(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        // The answer depends on the origin also where there is none, or it is refused: caches must know.
        if !self.any {
            response.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = self.allowed(origin) else { return };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials && !self.any {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}
