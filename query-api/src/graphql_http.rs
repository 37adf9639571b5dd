//! GraphQL over HTTP: requests by POST and GET, answers as JSON.

use std::borrow::Cow;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value};

use crate::api::Api;
use crate::context::ReadContext;
use crate::graphql::{GraphQl, GraphQlRequest};
use crate::http::{Body, X_REQUEST_ID, read_body};
use crate::problem::Problem;

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;

/// Answers a request.
pub(crate) async fn answer(
    api: &Api,
    request: Request<Incoming>,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let view = api.serving().view(context);
    let graphql = view.graphql()?;
    let asked = match *request.method() {
        Method::POST => from_body(request).await?,
        Method::GET | Method::HEAD => from_query(request.uri().query().unwrap_or_default())?,
        _ => return Err(Problem::method_not_allowed("GET, HEAD, POST")),
    };
    respond(api, graphql, asked, context).await
}

async fn respond(
    api: &Api,
    graphql: &GraphQl,
    asked: GraphQlRequest,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let moment = api.freshness.now();
    let answer = graphql.execute(asked, &*api.reader, context).await;
    let status = StatusCode::from_u16(answer.status).map_err(|_| Problem::internal("an answer without status"))?;
    let mut response = Response::new(Body::Whole(answer.body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, context.cache_control());
    headers.insert(VARY, context.vary());
    headers.insert(X_REQUEST_ID, context.request_id.header());
    moment.tell(headers);
    Ok(response)
}

async fn from_body(request: Request<Incoming>) -> Result<GraphQlRequest, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // A form of another site cannot send this kind, so no page makes a browser ask in its user's name.
    if !kind.eq_ignore_ascii_case("application/json") {
        let title = "The body must be JSON";
        let detail = "send `{\"query\": …}` with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", title, detail));
    }
    let body = read_body(request.into_body(), BODY_MAX).await?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let Value::Object(mut members) = body else {
        return Err(bad("the body must be an object with `query`, and perhaps `variables` and `operationName`"));
    };
    let query = match members.remove("query") {
        Some(Value::String(query)) => query,
        _ => return Err(bad("`query` must be a text")),
    };
    let operation_name = match members.remove("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(bad("`operationName` must be a text")),
    };
    let variables = variables(members.remove("variables"))?;
    Ok(GraphQlRequest { query, operation_name, variables })
}

fn from_query(text: &str) -> Result<GraphQlRequest, Problem> {
    let [mut query, mut operation_name, mut given] = [const { None::<Cow<'_, str>> }; 3];
    for parameter in crate::rest::parameters(text)? {
        match &*parameter.name {
            "query" => query = Some(parameter.value),
            "operationName" => operation_name = Some(parameter.value),
            "variables" => given = Some(parameter.value),
            "extensions" => {}
            name => {
                let detail =
                    format!("there is no parameter `{name}` here, but `query`, `operationName` and `variables`");
                return Err(Problem::unknown_parameter(name, detail));
            }
        }
    }
    let query = query.ok_or_else(|| bad("`query` is missing; to look around, open /graphiql on the admin port"))?;
    let given = given.map(|text| serde_json::from_str(&text)).transpose();
    let given = given.map_err(|error| bad(format!("`variables` is not JSON: {error}")))?;
    Ok(GraphQlRequest {
        query: query.into_owned(),
        operation_name: operation_name.filter(|name| !name.is_empty()).map(Cow::into_owned),
        variables: variables(given)?,
    })
}

fn variables(given: Option<Value>) -> Result<Map<String, Value>, Problem> {
    match given {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(variables)) => Ok(variables),
        Some(_) => Err(bad("`variables` must be an object")),
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    let title = "This is not a GraphQL request";
    Problem::new(StatusCode::BAD_REQUEST, "graphql_request", title, detail)
}
