//! Paths of the admin port.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::host::check_host;
use super::{Admin, AdminError};
use crate::access::{Denial, Principal};
use crate::api::Api;
use crate::channel::{ChannelId, ChannelProblem};
use crate::context::RequestId;
use crate::graphql_http::{self, Port};
use crate::http::{Body, X_REQUEST_ID, read_body};
use crate::observe::scope;
use crate::problem::Problem;

/// Largest body of a command, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Dead letters listed, unless asked otherwise, and at most.
const DEAD_LETTERS_DEFAULT: usize = 100;
const DEAD_LETTERS_MAX: usize = 10_000;

const CONSOLE: &str = include_str!("pages/console.html");
const GRAPHIQL: &str = include_str!("pages/graphiql.html");

/// What the admin port needs.
pub(super) struct AdminPort {
    /// Names by which it may be asked, beside those that nobody else can own.
    pub(super) hosts: Vec<String>,
    /// What the start of the process waits for.
    pub(super) waits: Mutex<Option<String>>,
    /// The process, once it has started.
    pub(super) started: OnceLock<Started>,
}

/// A process that has started.
pub(super) struct Started {
    /// The process.
    pub(super) admin: Arc<dyn Admin>,
    /// Every metric of the process.
    pub(super) metrics: Arc<Mutex<Registry>>,
    /// The query API, for its explorer, where this process serves.
    pub(super) api: Option<Arc<Api>>,
}

impl AdminPort {
    /// The process; while it is starting, what it waits for.
    fn started(&self) -> Result<&Started, String> {
        self.started.get().ok_or_else(|| match &*self.waits.lock() {
            Some(what) => format!("still starting: {what}"),
            None => "still starting".to_string(),
        })
    }
}

/// Answers a request from this address.
pub(super) async fn answer(port: &AdminPort, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let request_id = RequestId::of(request.headers());
    match dispatch(port, request, peer, &request_id).await {
        Ok(mut response) => {
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(X_REQUEST_ID, request_id.header());
            response
        }
        Err(problem) => {
            if problem.status == StatusCode::FORBIDDEN {
                Denial::of_stranger(peer, problem.code).tell(&request_id);
            }
            problem.to_response(&request_id)
        }
    }
}

async fn dispatch(
    port: &AdminPort,
    request: Request<Incoming>,
    peer: IpAddr,
    request_id: &RequestId,
) -> Result<Response<Body>, Problem> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path().to_string();
    if !is_open(&path) {
        check_host(request.headers(), &port.hosts)?;
    }
    let started = match (port.started(), path.as_str()) {
        (Ok(started), _) => started,
        (Err(_), "/livez") if is_read => return Ok(probe(Ok(()))),
        (Err(why), "/startupz" | "/readyz") if is_read => return Ok(probe(Err(why))),
        (Err(_), "/" | "/console") if is_read => return Ok(page(CONSOLE)),
        (Err(_), "/metrics") if is_read => return Ok(typed(STARTING, OPEN_METRICS)),
        (Err(why), _) => return Err(starting(why)),
    };
    let admin = &started.admin;
    if path == "/graphql" {
        let Some(api) = &started.api else { return Err(not_served(&path)) };
        same_origin(request.headers())?;
        let caller = (Principal::everything(), peer);
        let context = api.context(request_id.clone(), caller, ChannelId::DEFAULT, Instant::now());
        let answering = graphql_http::answer(api, request, &context, Port::Operators);
        return scope(request_id.clone(), answering).await;
    }
    let is_command = matches!(path.as_str(), "/replay" | "/dead-letters/retry" | "/reload");
    match (is_read, is_command) {
        (false, false) if known(&path) => return Err(Problem::method_not_allowed("GET, HEAD")),
        (_, true) if *request.method() != Method::POST => return Err(Problem::method_not_allowed("POST")),
        _ => {}
    }
    match path.as_str() {
        "/readyz" => Ok(probe(admin.ready())),
        // A role that ends takes the process with it: who answers lives.
        "/livez" | "/startupz" => Ok(probe(Ok(()))),
        "/metrics" => metrics(&started.metrics),
        "/status" => Ok(json_response(&status(started).await)),
        "/dead-letters" => {
            let limit = dead_letters_limit(request.uri().query().unwrap_or_default())?;
            Ok(json_response(&admin.dead_letters(limit).await?))
        }
        "/" | "/console" => Ok(page(CONSOLE)),
        "/graphiql" if started.api.is_none() => Err(not_served(&path)),
        "/graphiql" => Ok(page(GRAPHIQL)),
        "/replay" | "/dead-letters/retry" | "/reload" => {
            same_origin(request.headers())?;
            let body = read_body(request.into_body(), BODY_MAX).await?;
            let given = match body.trim_ascii() {
                b"" => json!({}),
                body => serde_json::from_slice(body).map_err(|error| {
                    let title = "The body is not JSON";
                    Problem::new(
                        StatusCode::BAD_REQUEST,
                        "invalid_json",
                        title,
                        format!("the body is not JSON: {error}"),
                    )
                })?,
            };
            let done = match path.as_str() {
                "/replay" => admin.replay(given).await?,
                "/reload" => admin.reload().await?,
                _ => admin.retry_dead_letters(given).await?,
            };
            Ok(json_response(&done))
        }
        _ => Err(Problem::not_found(format!(
            "nothing is served at {path}; there are /livez /readyz /startupz /metrics /status /console /graphiql /graphql \
             /dead-letters, and by POST /replay /dead-letters/retry /reload"
        ))),
    }
}

/// Where everything stands; beside what the process says what of the channels does not fit the models that are served.
async fn status(started: &Started) -> Value {
    let mut status = started.admin.status().await;
    if let (Some(api), Some(members)) = (&started.api, status.as_object_mut()) {
        let serving = api.serving();
        let problem = |of: &ChannelProblem| {
            let ChannelProblem { channel, model, version, problem, remedy } = of;
            json!({ "channel": **channel, "model": model, "version": version, "problem": problem, "remedy": remedy })
        };
        let problems: Vec<Value> = serving.problems().iter().map(problem).collect();
        if !problems.is_empty() {
            members.insert("channel_problems".into(), problems.into());
        }
    }
    status
}

/// Without a time to come back: a command must say at once what is waited for, and nobody knows for how long.
fn starting(why: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "The process is starting", why)
}

fn not_served(path: &str) -> Problem {
    Problem::not_found(format!("{path} is there where documents are served: ask a process that has the role `serve`"))
}

/// What tells nothing of rows, and is asked by whatever name a monitor has for us.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/startupz" | "/metrics")
}

fn known(path: &str) -> bool {
    matches!(
        path,
        "/" | "/livez" | "/readyz" | "/startupz" | "/metrics" | "/status" | "/dead-letters" | "/console" | "/graphiql"
    )
}

/// Refuses what a page of another site sends through the browser of someone who can reach this port.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, from)| from == host);
    if own {
        return Ok(());
    }
    let title = "Another site may not do this";
    let detail = "this was sent by a page of another origin; use a page of this port, or a command line";
    Err(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", title, detail))
}

fn probe(outcome: Result<(), String>) -> Response<Body> {
    let (status, text) = match outcome {
        Ok(()) => (StatusCode::OK, "ok\n".to_string()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    };
    let mut response = typed(text, "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a process that has not started: whoever is alarmed by it is to know that it lives.
const STARTING: &str = "# HELP headwater_ready 1 while the process does what it is there for.\n\
                        # TYPE headwater_ready gauge\nheadwater_ready 0\n# EOF\n";

fn metrics(registry: &Mutex<Registry>) -> Result<Response<Body>, Problem> {
    let mut text = String::with_capacity(16 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry.lock())
        .map_err(|_| Problem::internal("the metrics could not be written"))?;
    Ok(typed(text, OPEN_METRICS))
}

fn dead_letters_limit(query: &str) -> Result<usize, Problem> {
    if query.is_empty() {
        return Ok(DEAD_LETTERS_DEFAULT);
    }
    let given = query.strip_prefix("limit=").ok_or_else(|| {
        Problem::unknown_parameter(query, "there is one parameter here: `limit`, the number of dead letters")
    })?;
    match given.parse() {
        Ok(limit) if (1..=DEAD_LETTERS_MAX).contains(&limit) => Ok(limit),
        _ => Err(Problem::parameter("limit", format!("`limit` must be a number from 1 to {DEAD_LETTERS_MAX}"))),
    }
}

fn json_response(value: &Value) -> Response<Body> {
    typed(value.to_string(), "application/json")
}

/// A page that loads nothing from elsewhere; the browser is told to see to it.
fn page(html: &'static str) -> Response<Body> {
    let mut response = typed(html, "text/html; charset=utf-8");
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    response.headers_mut().insert("content-security-policy", HeaderValue::from_static(policy));
    response
}

fn typed(body: impl Into<bytes::Bytes>, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        let status = StatusCode::from_u16(error.status).ok().filter(|status| status.as_u16() >= 400);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = match status {
            StatusCode::BAD_REQUEST => "The command cannot be accepted",
            StatusCode::NOT_FOUND => "There is no such thing",
            StatusCode::CONFLICT => "This cannot be done now",
            _ => "The command failed",
        };
        Self::new(status, error.code, title, error.detail)
    }
}
