//! The reference for people, over HTTP.

use hyper::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use super::describe::no_parameters;
use super::respond;
use crate::context::{ReadContext, RequestId};
use crate::describe::reference;
use crate::http::{Body, X_REQUEST_ID};
use crate::problem::Problem;
use crate::serving::{Model, View};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const POLICY: HeaderValue = HeaderValue::from_static(reference::POLICY);
/// Where the files are that pages load.
const FILES: &str = "/docs/";

/// The page that lists the models.
pub(super) fn index(view: &View, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    Ok(page(respond::plain(view.reference(), HTML, context)))
}

/// The page of one model.
pub(super) fn model(model: &Model, query: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    no_parameters(query)?;
    Ok(page(respond::plain(model.reference(), HTML, context)))
}

/// A file that pages load.
pub(super) fn file(name: &str, context: &ReadContext) -> Result<Response<Body>, Problem> {
    let (text, kind) = reference::asset(name)
        .ok_or_else(|| Problem::not_found(format!("there is no {FILES}{name}; /docs lists the models")))?;
    Ok(respond::plain(text, HeaderValue::from_static(kind), context))
}

/// What a browser gets that did not say who it asks for: it cannot when it goes to an address. The page takes a token
/// and asks again; the files are the same for everybody. `None`: the problem is the answer.
pub(super) fn to_strangers(
    path: &str,
    headers: &HeaderMap,
    problem: &Problem,
    request_id: &RequestId,
) -> Option<Response<Body>> {
    let (text, kind, status) = match path.strip_prefix(FILES).and_then(reference::asset) {
        Some((text, kind)) => (text.to_string(), HeaderValue::from_static(kind), StatusCode::OK),
        None if is_page(path) && wants_page(headers) => (reference::sign_in_page(), HTML, StatusCode::UNAUTHORIZED),
        None => return None,
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let head = response.headers_mut();
    head.insert(hyper::header::CONTENT_TYPE, kind);
    head.insert(hyper::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(X_REQUEST_ID, request_id.header());
    if status == StatusCode::UNAUTHORIZED {
        head.extend(problem.challenge().map(|challenge| (WWW_AUTHENTICATE, challenge)));
    }
    Some(page(response))
}

fn is_page(path: &str) -> bool {
    path == "/docs" || (path.starts_with("/v1/") && path.ends_with("/docs"))
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|kind| kind.to_str().is_ok_and(|kind| kind.contains("text/html")))
}

fn page(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}
