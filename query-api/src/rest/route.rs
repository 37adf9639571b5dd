//! From the request's path to what answers it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::{array, describe, list, point};
use crate::api::Api;
use crate::context::{ReadContext, RequestId};
use crate::graphql_http;
use crate::http::{Body, accepts_event_stream};
use crate::metrics::Route;
use crate::problem::Problem;
use crate::serving::Model;

/// Largest body of the bench route, in bytes.
const BENCH_BYTES_MAX: usize = 16 << 20;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'p> {
    List(&'p str),
    Document(&'p str, &'p str),
    Array(&'p str, &'p str, &'p str),
    Schema(&'p str),
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
}

/// Answers a request.
pub(crate) async fn answer(api: &Api, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let context = api.context(RequestId::of(request.headers()));
    let mut answered = Answered { route: Route::Other, model: None, counted: false };
    let response = match dispatch(api, request, &context, &mut answered, started).await {
        Ok(response) => response,
        Err(problem) => {
            api.metrics.failed(problem.code);
            tracing::debug!(
                request_id = context.request_id.as_str(),
                code = problem.code,
                detail = problem.detail,
                "a request was answered with a problem"
            );
            problem.to_response(&context.request_id)
        }
    };
    let is_counted =
        answered.counted && (response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED);
    if !is_counted {
        let model = answered.model.as_ref().map_or("", |model| &model.shape.model);
        let bytes = response.body().len().unwrap_or(0);
        api.metrics.answered(answered.route, model, response.status(), bytes, started.elapsed());
    }
    response
}

async fn dispatch(
    api: &Api,
    request: Request<Incoming>,
    context: &ReadContext,
    answered: &mut Answered,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path();
    let target = target(path).ok_or_else(|| nothing_at(path))?;
    if target == Target::GraphQl {
        answered.route = Route::GraphQl;
        return graphql_http::answer(api, request, context).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    let serving = api.serving();
    let query = request.uri().query();
    let headers = request.headers();
    match target {
        Target::Document(name, id) => {
            answered.route = Route::Point;
            let model = serving.model(name)?;
            answered.model = Some(model.clone());
            if accepts_event_stream(headers) {
                answered.route = Route::Live;
                return crate::live::stream(api, model, id, query.unwrap_or_default(), headers, context).await;
            }
            answered.counted = true;
            point::point(api, model, id, query, headers, context, started).await
        }
        Target::List(name) => {
            answered.route = Route::List;
            let model = serving.model(name)?;
            answered.model = Some(model.clone());
            let (is_batch, response) = list::list(api, model, query.unwrap_or_default(), context).await;
            if is_batch {
                answered.route = Route::Batch;
            }
            response
        }
        Target::Array(name, id, path) => {
            answered.route = Route::Array;
            let model = serving.model(name)?;
            answered.model = Some(model.clone());
            array::array(api, model, (id, path), query.unwrap_or_default(), headers, context).await
        }
        Target::Schema(name) => {
            answered.route = Route::Describe;
            let model = serving.model(name)?;
            answered.model = Some(model.clone());
            describe::schema(model, query.unwrap_or_default(), context)
        }
        Target::OpenApi => {
            answered.route = Route::Describe;
            describe::openapi(&serving, query.unwrap_or_default(), context)
        }
        Target::GraphQlSchema => {
            answered.route = Route::Describe;
            describe::graphql(&serving, query.unwrap_or_default(), context)
        }
        Target::GraphQl => Err(nothing_at(path)),
        Target::Bench if api.bench_route => Ok(bench(query.unwrap_or_default())),
        Target::Bench => Err(nothing_at(path)),
    }
}

fn target(path: &str) -> Option<Target<'_>> {
    let Some(rest) = path.strip_prefix("/v1/") else {
        return match path {
            "/openapi.json" => Some(Target::OpenApi),
            "/graphql" => Some(Target::GraphQl),
            "/graphql/schema" => Some(Target::GraphQlSchema),
            "/bench/static" => Some(Target::Bench),
            _ => None,
        };
    };
    let mut parts = rest.split('/');
    let target = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        (model, None, ..) => Target::List(model),
        (model, Some("schema"), None, _) => Target::Schema(model),
        (model, Some(id), None, _) => Target::Document(model, id),
        (model, Some(id), Some(array), None) => Target::Array(model, id, array),
        _ => return None,
    };
    Some(target)
}

fn nothing_at(path: &str) -> Problem {
    Problem::not_found(format!("nothing is served at {path}; /openapi.json says what is"))
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

    #[test]
    fn paths_name_what_they_look_like() {
        for (path, wanted) in [
            ("/v1/a", Some(Target::List("a"))),
            ("/v1/a/1", Some(Target::Document("a", "1"))),
            ("/v1/a/1~2", Some(Target::Document("a", "1~2"))),
            ("/v1/a/", Some(Target::Document("a", ""))),
            ("/v1/a/1/b", Some(Target::Array("a", "1", "b"))),
            ("/v1/a/schema", Some(Target::Schema("a"))),
            ("/v1/a/1/b/c", None),
            ("/openapi.json", Some(Target::OpenApi)),
            ("/v1", None),
            ("/", None),
        ] {
            assert_eq!(target(path), wanted, "{path}");
        }
    }
}
