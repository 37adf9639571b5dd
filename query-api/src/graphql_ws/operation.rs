//! One operation on a WebSocket, as a stream of what is to be sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apollo_compiler::response::JsonValue;
use bytes::Bytes;
use futures_util::{Stream, stream};
use hyper::{Method, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::patience::Patience;
use crate::access::{Denial, Refusal};
use crate::api::Api;
use crate::context::ReadContext;
use crate::graphql::Refused;
use crate::graphql_http::{Asked, Port, prepare};
use crate::live::{Counted, Next, Subscription};
use crate::metrics::{About, Route};
use crate::observe::scope;
use crate::observe::slow::Slow;
use crate::problem::Problem;

/// Operations of one connection that are answered or have a result that was not taken. Those behind them wait.
pub(super) const AHEAD_MAX: usize = 8;

/// When to try again what took too long.
const RETRY_SECONDS: u32 = 1;

/// Something to be sent.
pub(super) struct Event {
    /// The operation.
    pub(super) id: Arc<str>,
    pub(super) said: Said,
}

/// What is said of an operation.
pub(super) enum Said {
    /// A result.
    Next(Bytes),
    /// Errors, and that it is over.
    Error(Vec<u8>),
    /// That it is over.
    Complete,
    /// Nothing: what is followed cannot be read, and the connection is to end.
    Broken,
}

enum State {
    Begun(AbortOnDropHandle<Begun>),
    Following(Box<Subscription>),
    Reading(AbortOnDropHandle<Read>),
    Answered,
    Over,
}

/// The first result, what is followed, and the place among those of the connection, which is free when the result is
/// taken.
struct Begun {
    answered: Result<(Bytes, Option<Subscription>), Refused>,
    _ahead: Option<OwnedSemaphorePermit>,
}

/// What is followed, what is to be told of it, and the place.
struct Read {
    subscription: Box<Subscription>,
    told: Option<Next>,
    _ahead: Option<OwnedSemaphorePermit>,
}

/// An operation that was not answered. It may be tried again, and then nothing is told of it.
struct Unbegun {
    refused: Refused,
    denial: Option<Denial>,
}

impl Unbegun {
    /// One that was not let in.
    fn denied(refusal: Box<Refusal>) -> Self {
        let (problem, denial) = refusal.parts();
        Self { refused: problem.into(), denial }
    }

    /// What the client is told, and the audit log.
    fn told(self, context: &ReadContext) -> Refused {
        if let Some(denial) = &self.denial {
            denial.tell(&context.request_id);
        }
        self.refused
    }
}

impl<E: Into<Refused>> From<E> for Unbegun {
    fn from(refused: E) -> Self {
        Self { refused: refused.into(), denial: None }
    }
}

/// Who asks, and where.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) api: Arc<Api>,
    pub(super) context: ReadContext,
    pub(super) address: IpAddr,
    /// Until when subscriptions are tried again that cannot be begun for now.
    pub(super) patient_until: Instant,
}

impl Asker {
    /// Counts an operation that was answered with so many bytes, or refused.
    pub(super) fn count(&self, answered: Result<usize, &Refused>, took: Duration) {
        let Self { api, context, .. } = self;
        if let Err(refused) = answered {
            api.metrics.failed(refused.code());
        }
        let about = About::graphql(api.channels.label(context.channel));
        api.metrics.answered(&about, status_of(answered.map(|_| ())), answered.unwrap_or_default(), took);
    }
}

/// The stream of an operation. It ends by itself behind `Error` or `Complete`, or without either when the connection is
/// to end as well.
///
/// Results are made by tasks of their own, which end when the stream is dropped: they hold a place among all requests, or a
/// read that others wait for, so they go on while a client that is slow takes nothing. No more than `ahead` has room for
/// are made of one connection. What changes is read when the last result was taken: nothing piles up.
pub(super) fn run(
    asker: Asker,
    id: Arc<str>,
    payload: JsonValue,
    ahead: Arc<Semaphore>,
) -> impl Stream<Item = Event> + Send {
    let request_id = asker.context.request_id.clone();
    let task = tokio::spawn(scope(request_id, begin_patiently(payload, asker.clone(), ahead.clone())));
    let begun = State::Begun(AbortOnDropHandle::new(task));
    stream::unfold((begun, asker, id, ahead), |(state, asker, id, ahead)| async move {
        let (said, state) = scope(asker.context.request_id.clone(), next(state, &asker, &ahead)).await?;
        Some((Event { id: id.clone(), said }, (state, asker, id, ahead)))
    })
}

async fn next(mut state: State, asker: &Asker, ahead: &Arc<Semaphore>) -> Option<(Said, State)> {
    let error = |refused: &Refused| (Said::Error(refused.list(&asker.context)), State::Over);
    loop {
        state = match state {
            State::Begun(task) => {
                return Some(match task.await.map(|begun| begun.answered) {
                    Ok(Ok((result, Some(subscription)))) => {
                        (Said::Next(result), State::Following(Box::new(subscription)))
                    }
                    Ok(Ok((result, None))) => (Said::Next(result), State::Answered),
                    Ok(Err(refused)) => error(&refused),
                    Err(failed) => error(&unended(&failed, asker)),
                });
            }
            State::Following(mut subscription) => match subscription.due().await? {
                Ok(()) => State::Reading(read(subscription, asker, ahead.clone())),
                Err(refused) => return Some(error(&refused)),
            },
            State::Reading(task) => match task.await {
                Ok(Read { subscription, told: None, .. }) => State::Following(subscription),
                Ok(Read { subscription, told: Some(told), .. }) => {
                    return Some(match told {
                        Next::Told(told) => (Said::Next(told.body), State::Following(subscription)),
                        Next::Failed(refused) => error(&refused),
                        Next::Broken => (Said::Broken, State::Over),
                    });
                }
                Err(failed) => return Some(error(&unended(&failed, asker))),
            },
            State::Answered => return Some((Said::Complete, State::Over)),
            State::Over => return None,
        };
    }
}

/// Reads what is due of a subscription.
fn read(mut subscription: Box<Subscription>, asker: &Asker, ahead: Arc<Semaphore>) -> AbortOnDropHandle<Read> {
    AbortOnDropHandle::new(tokio::spawn(scope(asker.context.request_id.clone(), async move {
        let ahead = ahead.acquire_owned().await.ok();
        let told = subscription.read().await;
        Read { subscription, told, _ahead: ahead }
    })))
}

fn unended(failed: &JoinError, asker: &Asker) -> Refused {
    tracing::error!(
        request_id = asker.context.request_id.as_str(),
        trace_id = asker.context.request_id.trace_id(),
        error = failed as &dyn std::error::Error,
        "an operation did not end"
    );
    Refused::from(Problem::internal("the operation did not end; the server's log says why"))
}

/// Begins when there is room, and again where that is refused for now and there is patience for it.
async fn begin_patiently(payload: JsonValue, asker: Asker, ahead: Arc<Semaphore>) -> Begun {
    let mut patience = Patience::of(&payload, asker.patient_until);
    loop {
        // Nobody closes it. The wait is before the operation is let in: whoever waits holds no place.
        let place = ahead.clone().acquire_owned().await.ok();
        let started = Instant::now();
        let answered = begin(payload.clone(), &asker, started).await;
        match answered.as_ref().err().and_then(|unbegun| patience.wait(&unbegun.refused)) {
            Some(wait) => {
                drop((answered, place));
                tokio::time::sleep(wait).await;
            }
            None => {
                // Of what is tried again nobody hears.
                let answered = answered.map_err(|unbegun| unbegun.told(&asker.context));
                asker.count(answered.as_ref().map(|(result, _)| result.len()), started.elapsed());
                return Begun { answered, _ahead: place };
            }
        }
    }
}

/// Passes the limits that every request passes, and answers.
async fn begin(payload: JsonValue, asker: &Asker, started: Instant) -> Result<(Bytes, Option<Subscription>), Unbegun> {
    let Asker { api, context, address, .. } = asker;
    // Each operation has its own count of what it reads.
    let context = &context.clone();
    let (answered, _admitted) = match api.gate.admit_again(&context.principal, *address, started) {
        Ok(admitted) => {
            let answered = tokio::time::timeout(api.gate.deadline, answer(payload, api, context)).await;
            let detail = "this took too long; try again, or ask for less";
            let too_slow = || Problem::unavailable("deadline", detail, RETRY_SECONDS).into();
            (answered.unwrap_or_else(|_| Err(too_slow())), Some(admitted))
        }
        Err(refusal) => (Err(Unbegun::denied(refusal)), None),
    };
    let took = started.elapsed();
    if api.slow_query.is_some_and(|limit| took >= limit) {
        let (request_id, reads) = (&context.request_id, &context.reads);
        let (channel, status) = (
            api.channels.label(context.channel),
            status_of(answered.as_ref().map(|_| ()).map_err(|unbegun| &unbegun.refused)).as_u16(),
        );
        let (route, model, method, uri) = (Route::GraphQl, "", &Method::GET, &Uri::from_static("/graphql"));
        Slow { request_id, route, model, channel, method, uri, reads, status, took }.tell();
    }
    answered
}

/// The status by which an operation is counted.
fn status_of(answered: Result<(), &Refused>) -> StatusCode {
    match answered {
        Ok(()) => StatusCode::OK,
        Err(refused) => StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST),
    }
}

async fn answer(
    payload: JsonValue,
    api: &Arc<Api>,
    context: &ReadContext,
) -> Result<(Bytes, Option<Subscription>), Unbegun> {
    let view = api.serving().view(context);
    let graphql = view.graphql()?;
    let (request, operation) = prepare(api, graphql, Asked::from_json(payload)?, Port::Readers, context)?;
    if operation.is_subscription() {
        let counted = Counted::new(api, context).map_err(Unbegun::denied)?;
        let begun = Subscription::begin(api, view.clone(), request, operation, None, counted, context).await;
        let (subscription, first) = begun?;
        // Nothing was seen before, so there is one.
        return Ok((first.map(|told| told.body).unwrap_or_default(), Some(subscription)));
    }
    let answer = graphql.try_answer(&operation, &mut graphql.budget(), &*api.reader, context).await?;
    Ok((answer.body, None))
}
