//! From the request's path to what answers it.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::poll;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::asked::Asked;
use super::compressed::Compression;
use super::format::Format;
use super::point::Wanted;
use super::{array, asked_json, describe, list, point, reference};
use crate::access::{self, Admitted};
use crate::api::Api;
use crate::channel::ChannelId;
use crate::context::{ReadContext, RequestId};
use crate::graphql_http::{self, Port};
use crate::graphql_ws;
use crate::http::{Body, PREFERENCE_APPLIED, SERVER_TIMING, prefers_event_stream};
use crate::live;
use crate::metrics::{About, Route};
use crate::observe::scope;
use crate::observe::slow::Slow;
use crate::problem::{self, Problem};
use crate::sending::is_free;
use crate::serving::{Model, View};

/// Largest body of the bench route, in bytes.
const BENCH_BYTES_MAX: usize = 16 << 20;

/// End of the path of a list whose query is posted.
const QUERY_SUFFIX: &str = ":query";

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'p> {
    List(&'p str),
    Document(&'p str, &'p str),
    Array(&'p str, &'p str, &'p str),
    Own(&'p str),
    /// A list whose query is a body, for clients that cannot send `QUERY`.
    ListQuery(&'p str),
    OwnQuery(&'p str),
    Schema(&'p str),
    /// The page of a model, the page that lists them, and a file that they load.
    Reference(&'p str),
    References,
    ReferenceFile(&'p str),
    OpenApi,
    GraphQl,
    GraphQlSchema,
    Bench,
}

/// What was answered, for the counters.
struct Answered {
    route: Route,
    model: Option<Arc<Model>>,
    /// Whether it is counted already.
    counted: bool,
    /// Value of `Preference-Applied`.
    applied: Option<HeaderValue>,
    /// How long it waited because it asked to: that is no time that answering took.
    waited: Duration,
}

/// Answers a request from this address. What only some requests need lies in boxes, for the server moves the future.
pub(crate) async fn answer(api: &Arc<Api>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let started = Instant::now();
    let request_id = RequestId::of(request.headers());
    if let Some(response) = api.gate.preflight(request.method(), request.headers()) {
        return response;
    }
    let origin = api.gate.origin(request.headers());
    // What reads are measured against is measured without all this.
    if api.bench_route && request.uri().path() == "/bench/static" {
        return bench(request.uri().query().unwrap_or_default());
    }
    // A WebSocket is let in by steps of its own: who asks may be said in its first message.
    if graphql_ws::is_opening(&request) {
        return Box::pin(open_socket(api, request, peer, &request_id, started)).await;
    }
    let compression = Compression::of(request.headers(), api.compression);
    let mut answered =
        Answered { route: Route::Other, model: None, counted: false, applied: None, waited: Duration::ZERO };
    // Kept only where it may have to be told.
    let asked = api.slow_query.map(|_| (request.method().clone(), request.uri().clone()));
    let admitted = api.gate.admit(peer, request.headers(), started).await;
    let (mut response, context, verdict, _place) = match admitted {
        Ok(Admitted { place, principal, address, verdict }) => {
            // A channel that is not there is found out when it is known who asks.
            let chosen = api.channels.choose(request.uri(), request.headers());
            let channel = chosen.as_ref().copied().unwrap_or(ChannelId::DEFAULT);
            let context = api.context(request_id.clone(), (principal, address), channel, started);
            let response = match chosen {
                Ok(_) => admitted_request(api, request, compression, &context, &mut answered, started).await,
                Err(problem) => failed(api, &problem, &request_id),
            };
            (response, Some(context), verdict, Some(place))
        }
        Err(refusal) => {
            let page = (refusal.problem.status == StatusCode::UNAUTHORIZED)
                .then(|| {
                    reference::to_strangers(request.uri().path(), request.headers(), &refusal.problem, &request_id)
                })
                .flatten();
            if page.as_ref().is_some_and(|page| page.status() == StatusCode::UNAUTHORIZED) {
                api.metrics.failed(refusal.problem.code);
            }
            // Files that everybody gets are denied nobody.
            if page.as_ref().is_none_or(|page| page.status() == StatusCode::UNAUTHORIZED) {
                refusal.audit(&request_id);
            }
            let mut response = page.unwrap_or_else(|| failed(api, &refusal.problem, &request_id));
            refusal.tell_limit(&mut response);
            (response, None, None, None)
        }
    };
    let took = started.elapsed().saturating_sub(answered.waited);
    let is_counted =
        answered.counted && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED);
    let channel = api.channels.label(context.as_ref().map_or(ChannelId::DEFAULT, |context| context.channel));
    if !is_counted {
        let shape = answered.model.as_ref().map(|model| &model.visibility.shape);
        let about = About {
            route: answered.route,
            model: shape.map_or_else(String::new, |shape| shape.model.clone()),
            version: shape.map_or(0, |shape| shape.version),
            channel: channel.to_string(),
        };
        api.metrics.answered(&about, response.status(), response.body().len().unwrap_or(0), took);
    }
    if let (Some(limit), Some((method, uri)), Some(context)) = (api.slow_query, &asked, &context)
        && took >= limit
    {
        let model = answered.model.as_ref().map_or("", |model| model.name());
        let (route, reads, status) = (answered.route, &context.reads, response.status().as_u16());
        Slow { request_id: &request_id, route, model, channel, method, uri, reads, status, took }.tell();
    }
    let timing = context.as_ref().and_then(|context| context.reads.server_timing());
    response.headers_mut().extend(timing.map(|timing| (SERVER_TIMING, timing)));
    request_id.tell_trace(response.headers_mut());
    api.gate.finish(origin.as_ref(), verdict, &mut response);
    response
}

/// Answers a request that was let in, within the time it may take.
async fn admitted_request(
    api: &Arc<Api>,
    request: Request<Incoming>,
    compression: Compression,
    context: &ReadContext,
    answered: &mut Answered,
    started: Instant,
) -> Response<Body> {
    let request_id = &context.request_id;
    let dispatched = pin!(async {
        let mut response = dispatch(api, request, compression, context, answered, started).await?;
        compression.apply(&mut response).await;
        response.headers_mut().extend(answered.applied.take().map(|applied| (PREFERENCE_APPLIED, applied)));
        Ok(response)
    });
    let mut dispatched = pin!(scope(request_id.clone(), dispatched));
    // Most answers are there at once: no timer is made for them.
    let in_time = match poll!(dispatched.as_mut()) {
        Poll::Ready(response) => Ok(response),
        // It runs since the request came: to find out who asks may have taken time.
        Poll::Pending => tokio::time::timeout(api.gate.deadline.saturating_sub(started.elapsed()), dispatched).await,
    };
    let sent = in_time.unwrap_or_else(|_| Err(too_slow())).and_then(|mut response| {
        api.sending.take(&mut response, || api.gate.caller(&context.principal, context.address))?;
        Ok(response)
    });
    sent.unwrap_or_else(|problem| failed(api, &problem, request_id))
}

/// Opens a WebSocket. What is asked through it is counted by itself.
async fn open_socket(
    api: &Arc<Api>,
    request: Request<Incoming>,
    peer: IpAddr,
    request_id: &RequestId,
    started: Instant,
) -> Response<Body> {
    let opened = scope(request_id.clone(), graphql_ws::open(api, request, peer, request_id, started)).await;
    let mut response = opened.unwrap_or_else(|refusal| {
        refusal.audit(request_id);
        let mut response = failed(api, &refusal.problem, request_id);
        refusal.tell_limit(&mut response);
        response
    });
    let about = About::graphql(api.channels.label(ChannelId::DEFAULT));
    api.metrics.answered(&about, response.status(), 0, started.elapsed());
    request_id.tell_trace(response.headers_mut());
    api.gate.finish(None, None, &mut response);
    response
}

fn failed(api: &Api, problem: &Problem, request_id: &RequestId) -> Response<Body> {
    api.metrics.failed(problem.code);
    tracing::debug!(
        request_id = request_id.as_str(),
        trace_id = request_id.trace_id(),
        code = problem.code,
        detail = problem.detail,
        "a request was answered with a problem"
    );
    problem.to_response(request_id)
}

fn too_slow() -> Problem {
    Problem::unavailable("deadline", "this took too long; try again, or ask for less", 1)
}

/// Whether what a path names takes the method.
fn check_method(target: Target<'_>, method: &Method) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let (fits, allowed) = match target {
        // They say so themselves.
        Target::GraphQl | Target::Bench => return Ok(()),
        Target::ListQuery(_) | Target::OwnQuery(_) => (*method == Method::POST, "POST"),
        Target::List(_) | Target::Own(_) => (reads || method.as_str() == "QUERY", "GET, HEAD, QUERY"),
        _ => (reads, "GET, HEAD"),
    };
    if fits { Ok(()) } else { Err(Problem::method_not_allowed(allowed)) }
}

async fn dispatch(
    api: &Arc<Api>,
    request: Request<Incoming>,
    compression: Compression,
    context: &ReadContext,
    answered: &mut Answered,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path();
    let target = target(path).ok_or_else(|| nothing_at(path))?;
    // Before anything else of the request is looked at.
    check_method(target, request.method())?;
    // The rest of the time is for the answer.
    let wait_max = || api.gate.deadline.saturating_sub(started.elapsed()) / 10 * 9;
    let caller = || api.gate.caller(&context.principal, context.address);
    answered.applied = api.freshness.reach(request.headers(), caller, wait_max, &mut answered.waited).await?;
    let started = started + answered.waited;
    if target == Target::GraphQl {
        answered.route = Route::GraphQl;
        return Box::pin(graphql_http::answer(api, request, context, Port::Readers)).await;
    }
    if let Target::List(name) | Target::Own(name) | Target::ListQuery(name) | Target::OwnQuery(name) = target
        && !matches!(*request.method(), Method::GET | Method::HEAD)
    {
        let is_own = matches!(target, Target::Own(_) | Target::OwnQuery(_));
        let name = name.to_string();
        return Box::pin(queried(api, (&name, is_own), request, compression, context, answered, started)).await;
    }
    let view = api.serving().view(context);
    let query = request.uri().query();
    let headers = request.headers();
    match target {
        Target::Document(name, id) => {
            answered.route = Route::Point;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            if prefers_event_stream(headers) {
                answered.route = Route::Live;
                return Box::pin(live::stream(api, model, id, query.unwrap_or_default(), headers, context)).await;
            }
            let selection = point::selection(query.unwrap_or_default(), model)?;
            let format = Format::chosen(headers, Format::OF_DOCUMENT, Format::usual(model))?;
            let wanted = Wanted { selection, format, compression, headers, is_own: false };
            let response = point::point(api, model, model.parse_id(id), wanted, context, started).await?;
            answered.counted = is_free(response.body().len().unwrap_or(0));
            Ok(response)
        }
        Target::List(name) => {
            answered.route = Route::List;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            let query = query.unwrap_or_default();
            if prefers_event_stream(headers) {
                answered.route = Route::Live;
                return Box::pin(live::list(api, model, live::Of::All, query, headers, context)).await;
            }
            let format = Format::chosen(headers, Format::OF_LIST, Format::usual(model))?;
            let asked = (Asked::of_query(query)?, Some(query));
            let (is_batch, response) = Box::pin(list::list(api, model, asked, format, context)).await;
            if is_batch {
                answered.route = Route::Batch;
            }
            response
        }
        Target::Array(name, id, path) => {
            answered.route = Route::Array;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            let format = Format::chosen(headers, Format::OF_DOCUMENT, Format::usual(model))?;
            Box::pin(array::array(api, model, (id, path), query.unwrap_or_default(), format, headers, context)).await
        }
        Target::Own(name) => {
            answered.route = Route::Own;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            let query = query.unwrap_or_default();
            Box::pin(own(api, model, (Asked::of_query(query)?, Some(query)), (headers, compression), context, started))
                .await
        }
        Target::Schema(name) => {
            answered.route = Route::Describe;
            let view = describe::view(api, query.unwrap_or_default(), context)?;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            Ok(describe::schema(model, context))
        }
        Target::Reference(name) => {
            answered.route = Route::Describe;
            let model = find(&view, name, context)?;
            answered.model = Some(model.clone());
            reference::model(model, query.unwrap_or_default(), context)
        }
        Target::References => {
            answered.route = Route::Describe;
            reference::index(&view, query.unwrap_or_default(), context)
        }
        Target::ReferenceFile(name) => {
            answered.route = Route::Describe;
            reference::file(name, context)
        }
        Target::OpenApi => {
            answered.route = Route::Describe;
            Ok(describe::openapi(&*describe::view(api, query.unwrap_or_default(), context)?, context))
        }
        Target::GraphQlSchema => {
            answered.route = Route::Describe;
            Ok(describe::graphql(&*describe::view(api, query.unwrap_or_default(), context)?, context))
        }
        Target::GraphQl | Target::ListQuery(_) | Target::OwnQuery(_) | Target::Bench => Err(nothing_at(path)),
    }
}

/// A list, or what is the caller's own, whose query is the request's body.
async fn queried(
    api: &Arc<Api>,
    (name, is_own): (&str, bool),
    request: Request<Incoming>,
    compression: Compression,
    context: &ReadContext,
    answered: &mut Answered,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    answered.route = if is_own { Route::Own } else { Route::List };
    let view = api.serving().view(context);
    let model = find(&view, name, context)?;
    answered.model = Some(model.clone());
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        let name = query.split(['=', '&']).next().unwrap_or_default();
        return Err(Problem::unknown_parameter(name, "parameters stand in the body here, and not behind a `?`"));
    }
    let (head, body) = request.into_parts();
    let asked = asked_json::read(&head.headers, body).await?;
    if is_own {
        let own = own(api, model, (asked, None), (&head.headers, compression), context, started).await;
        return own.map_err(Problem::in_body);
    }
    let format = Format::chosen(&head.headers, Format::OF_LIST, Format::usual(model))?;
    let (is_batch, response) = list::list(api, model, (asked, None), format, context).await;
    if is_batch {
        answered.route = Route::Batch;
    }
    response.map_err(Problem::in_body)
}

/// The model named `name`, of those the caller sees.
fn find<'v>(view: &'v View, name: &str, context: &ReadContext) -> Result<&'v Arc<Model>, Problem> {
    view.model(name).inspect_err(|_| {
        if context.is_private {
            access::denied(context, Some(problem::shown(name)), "unknown_model");
        }
    })
}

/// What is the caller's own: the document whose id a claim names, or a list by declared index.
async fn own(
    api: &Arc<Api>,
    model: &Arc<Model>,
    (asked, query): (Asked<'_>, Option<&str>),
    (headers, compression): (&HeaderMap, Compression),
    context: &ReadContext,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let bound = model.visibility.own(&context.principal).ok_or_else(|| {
        let detail = format!("{} has no owner, so nothing of it is the caller's own", model.name());
        Problem { code: "no_owner", ..Problem::not_found(detail) }
    })?;
    let id = match bound.ids.as_deref() {
        Some([]) => None,
        Some([id]) => Some(id.clone()),
        _ => {
            if let Some(query) = query.filter(|_| prefers_event_stream(headers)) {
                return live::list(api, model, live::Of::Own, query, headers, context).await;
            }
            let format = Format::chosen(headers, Format::OF_LIST, Format::usual(model))?;
            return list::own(api, model, bound, (asked, query), format, context).await;
        }
    };
    let format = Format::chosen(headers, Format::OF_DOCUMENT, Format::usual(model))?;
    let wanted = Wanted { selection: asked.of_document(model)?, format, compression, headers, is_own: true };
    point::point(api, model, id, wanted, context, started).await
}

fn target(path: &str) -> Option<Target<'_>> {
    let Some(rest) = path.strip_prefix("/v1/") else {
        return match path {
            "/docs" => Some(Target::References),
            "/openapi.json" => Some(Target::OpenApi),
            "/graphql" => Some(Target::GraphQl),
            "/graphql/schema" => Some(Target::GraphQlSchema),
            "/bench/static" => Some(Target::Bench),
            _ => path.strip_prefix("/docs/").map(Target::ReferenceFile),
        };
    };
    let mut parts = rest.split('/');
    let target = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("me", Some(model), None, _) => match model.strip_suffix(QUERY_SUFFIX) {
            Some(model) => Target::OwnQuery(model),
            None => Target::Own(model),
        },
        (model, None, ..) => match model.strip_suffix(QUERY_SUFFIX) {
            Some(model) => Target::ListQuery(model),
            None => Target::List(model),
        },
        (model, Some("schema"), None, _) => Target::Schema(model),
        (model, Some("docs"), None, _) => Target::Reference(model),
        (model, Some(id), None, _) => Target::Document(model, id),
        (model, Some(id), Some(array), None) => Target::Array(model, id, array),
        _ => return None,
    };
    Some(target)
}

fn nothing_at(path: &str) -> Problem {
    let path = problem::shown(path);
    Problem::not_found(format!("nothing is served at {path}; /openapi.json says what is, and /docs to people"))
}

/// A constant answer of `bytes` bytes: what reads of that size are measured against.
fn bench(query: &str) -> Response<Body> {
    let wanted = query.split('&').find_map(|part| part.strip_prefix("bytes=")?.parse().ok()).unwrap_or(0);
    static BYTES: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    let all = BYTES.get_or_init(|| vec![b' '; BENCH_BYTES_MAX].into());
    let mut response = Response::new(Body::Whole(all.slice(..wanted.min(BENCH_BYTES_MAX))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server moves it for each request, so what is rare and large lies in a box of its own.
    #[test]
    fn the_future_of_an_answer_is_small() {
        fn size_of_answer<'a, R: Future>(_: impl Fn(&'a Arc<Api>, Request<Incoming>, IpAddr) -> R) -> usize {
            size_of::<R>()
        }
        let size = size_of_answer(answer);
        assert!(size <= 3_648, "{size} bytes");
    }

    #[test]
    fn paths_name_what_they_look_like() {
        for (path, wanted) in [
            ("/v1/a", Some(Target::List("a"))),
            ("/v1/a/1", Some(Target::Document("a", "1"))),
            ("/v1/a/1~2", Some(Target::Document("a", "1~2"))),
            ("/v1/a/", Some(Target::Document("a", ""))),
            ("/v1/a/1/b", Some(Target::Array("a", "1", "b"))),
            ("/v1/a/schema", Some(Target::Schema("a"))),
            ("/v1/a/docs", Some(Target::Reference("a"))),
            ("/docs", Some(Target::References)),
            ("/docs/reference.css", Some(Target::ReferenceFile("reference.css"))),
            ("/v1/me/a", Some(Target::Own("a"))),
            ("/v1/a:query", Some(Target::ListQuery("a"))),
            ("/v1/me/a:query", Some(Target::OwnQuery("a"))),
            ("/v1/a/1:query", Some(Target::Document("a", "1:query"))),
            ("/v1/a/1/b/c", None),
            ("/openapi.json", Some(Target::OpenApi)),
            ("/v1", None),
            ("/", None),
        ] {
            assert_eq!(target(path), wanted, "{path}");
        }
    }
}
