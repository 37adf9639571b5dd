//! GraphQL over HTTP: requests by POST and GET, one or several at once; answers as JSON, or as a stream of events.

mod events;
mod given;
mod media;

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use hyper::{Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::task::yield_now;

pub(crate) use self::given::Asked;
use self::given::Given;
use self::media::Media;
use crate::access;
use crate::api::Api;
use crate::context::ReadContext;
use crate::freshness::Moment;
use crate::graphql::{Answered, Budget, GraphQl, GraphQlRequest, GraphQlResponse, Operation, Refused};
use crate::http::{Body, X_REQUEST_ID, accepts_event_stream, etag_matches, read_body};
use crate::problem::Problem;

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;

/// Who asks through which port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Where readers connect.
    Readers,
    /// Where operators connect: they may ask anything, also where only trusted documents are answered.
    Operators,
}

/// Answers a request.
pub(crate) async fn answer(
    api: &Arc<Api>,
    request: Request<Incoming>,
    context: &ReadContext,
    port: Port,
) -> Result<Response<Body>, Problem> {
    let view = api.serving().view(context);
    let graphql = view.graphql()?;
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let (media, events) = (Media::of(request.headers()), accepts_event_stream(request.headers()));
    if media.is_none() && !events {
        return Err(media::not_acceptable());
    }
    let (given, headers) = match *request.method() {
        Method::POST => {
            let (head, body) = request.into_parts();
            given::is_json(&head.headers)?;
            (given::from_body(read_body(body, BODY_MAX).await?, api.graphql.batch_max)?, head.headers)
        }
        Method::GET | Method::HEAD => {
            let (head, _) = request.into_parts();
            (Given::One(given::from_query(head.uri.query().unwrap_or_default())?), head.headers)
        }
        _ => return Err(Problem::method_not_allowed("GET, HEAD, POST")),
    };
    let moment = api.freshness.now();
    let mut budget = graphql.budget();
    let form = media.unwrap_or(Media::Response);
    Ok(match given {
        Given::One(asked) => {
            let refused = match prepare(api, graphql, asked, port, context) {
                Ok((request, operation)) if operation.is_subscription() && events => {
                    match events::follow(api, view.clone(), request, operation, &headers, context).await {
                        Ok(response) => return Ok(response),
                        Err(refused) => refused,
                    }
                }
                Ok((_, operation)) if operation.is_subscription() => by_stream(),
                Ok((_, operation)) => match graphql.try_answer(&operation, &mut budget, &*api.reader, context).await {
                    Ok(answer) if media.is_none() => return Ok(events::once(&answer.body, context)),
                    Ok(answer) if is_get => return cacheable(answer, form, moment, &headers, context),
                    Ok(answer) => return plain(answer, form, moment, context),
                    Err(refused) => refused,
                },
                Err(refused) => refused,
            };
            let mut response = plain(refused.response(context), form, moment, context)?;
            if is_get {
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            if is_get && refused.is_mutation() {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            }
            response
        }
        Given::Batch(batch) => {
            let mut body = vec![b'['];
            for (at, asked) in batch.into_iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                    // So that the deadline can end it: a store at hand never waits.
                    yield_now().await;
                }
                body.extend_from_slice(&one_of_many(api, graphql, asked, port, &mut budget, context).await);
            }
            body.push(b']');
            let answer = GraphQlResponse { status: 200, body: body.into(), is_clean: true, is_broken: false };
            plain(answer, form, moment, context)?
        }
    })
}

/// Makes what was asked ready to be answered. Its request is answered with it: who follows changes asks it again.
pub(crate) fn prepare(
    api: &Api,
    graphql: &GraphQl,
    asked: Asked,
    port: Port,
    context: &ReadContext,
) -> Result<(GraphQlRequest, Operation), Refused> {
    let Asked { text, operation_name, variables } = asked;
    let answered = match port {
        Port::Operators => Answered::Any,
        Port::Readers if api.channels.trusted_only(context.channel) => Answered::Trusted,
        Port::Readers => Answered::Usual,
    };
    let resolved = api.known_texts.resolve(text, answered).inspect_err(|refused| {
        if refused.status() == StatusCode::FORBIDDEN.as_u16() {
            access::denied(context, None, refused.code());
        }
    })?;
    let request = GraphQlRequest { query: resolved.query.clone(), operation_name, variables };
    let operation = graphql.operation(&request)?;
    api.known_texts.keep(resolved);
    Ok((request, operation))
}

async fn one_of_many(
    api: &Api,
    graphql: &GraphQl,
    asked: Asked,
    port: Port,
    budget: &mut Budget,
    context: &ReadContext,
) -> Bytes {
    match prepare(api, graphql, asked, port, context) {
        Ok((_, operation)) if operation.is_subscription() => by_stream().response(context).body,
        Ok((_, operation)) => graphql.answer(&operation, budget, &*api.reader, context).await.body,
        Err(refused) => refused.response(context).body,
    }
}

fn by_stream() -> Refused {
    let message = "a subscription is answered by itself, with `Accept: text/event-stream` or through a WebSocket with the \
                   subprotocol `graphql-transport-ws`";
    Refused::new("subscription_transport", 406, message)
}

fn plain(
    answer: GraphQlResponse,
    media: Media,
    moment: Moment,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    let status = media.status(answer.status);
    let mut response = Response::new(Body::Whole(answer.body));
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Problem::internal("an answer without status"))?;
    response.headers_mut().insert(CONTENT_TYPE, media.content_type());
    describe(response.headers_mut(), moment, context);
    Ok(response)
}

/// An answer that may be kept and asked for again with its validator, which is a hash of it.
fn cacheable(
    answer: GraphQlResponse,
    media: Media,
    moment: Moment,
    headers: &HeaderMap,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    if !answer.is_clean {
        let mut response = plain(answer, media, moment, context)?;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let digest = Sha256::digest(&answer.body);
    let half = digest[..16].iter().fold(0u128, |half, byte| half << 8 | u128::from(*byte));
    let etag = format!("\"{half:032x}\"");
    let validator = HeaderValue::from_str(&etag).map_err(|_| Problem::internal("a validator cannot be written"))?;
    let mut response = if etag_matches(headers, etag.as_bytes()) {
        let mut response = Response::new(Body::Whole(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(response.headers_mut(), moment, context);
        response
    } else {
        plain(answer, media, moment, context)?
    };
    response.headers_mut().insert(ETAG, validator);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, moment: Moment, context: &ReadContext) {
    moment.tell(headers);
    headers.insert(CACHE_CONTROL, context.cache_control());
    headers.insert(VARY, context.vary());
    headers.insert(X_REQUEST_ID, context.request_id.header());
}
