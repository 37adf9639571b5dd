//! Answers as a stream of events, one connection for each operation: `next` with a result, then `complete` (the protocol
//! of `graphql-sse`, in its mode of distinct connections). The results of a subscription have ids: a client that comes back
//! with one as `Last-Event-ID` is told nothing as long as that is still the result.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::Response;
use hyper::header::{HeaderMap, HeaderValue};

use crate::api::Api;
use crate::context::ReadContext;
use crate::graphql::{GraphQlRequest, Operation, Refused};
use crate::http::{Body, LAST_EVENT_ID};
use crate::live::event::{self, COMMENT, HEARTBEAT};
use crate::live::{Counted, Next, Subscription, Told};
use crate::observe::scope;
use crate::serving::View;

/// The stream of a subscription.
///
/// # Errors
///
/// What is wrong with it: no stream is begun for that.
pub(super) async fn follow(
    api: &Arc<Api>,
    view: Arc<View>,
    request: GraphQlRequest,
    operation: Operation,
    headers: &HeaderMap,
    context: &ReadContext,
) -> Result<Response<Body>, Refused> {
    let seen = headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let counted = Counted::new(api, context).map_err(|refusal| refusal.told(&context.request_id))?;
    let (subscription, first) = Subscription::begin(api, view, request, operation, seen, counted, context).await?;
    let state = State { first, subscription: Some(subscription), context: context.clone() };
    let events = stream::unfold(state, |mut state| async move {
        let request_id = state.context.request_id.clone();
        scope(request_id, state.next()).await.map(|piece| (piece, state))
    });
    Ok(event::response(Body::Stream(Box::pin(events)), context))
}

/// The stream of what is answered once.
pub(super) fn once(result: &[u8], context: &ReadContext) -> Response<Body> {
    let mut events = Vec::with_capacity(result.len() + 64);
    event::write(&mut events, "next", None, result);
    event::write(&mut events, "complete", None, b"");
    event::response(Body::from(events), context)
}

fn result(told: &Told) -> Bytes {
    event::of("next", Some(&told.id), &told.body)
}

struct State {
    first: Option<Told>,
    /// `None`: everything was told.
    subscription: Option<Subscription>,
    context: ReadContext,
}

impl State {
    /// The next piece of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(result(&first));
        }
        let told = match tokio::time::timeout(HEARTBEAT, self.subscription.as_mut()?.next()).await {
            Ok(told) => told?,
            Err(_) => return Some(COMMENT),
        };
        match told {
            Next::Told(told) => Some(result(&told)),
            Next::Broken => None,
            Next::Failed(refused) => {
                self.subscription = None;
                let mut events = Vec::new();
                event::write(&mut events, "next", None, &refused.response(&self.context).body);
                event::write(&mut events, "complete", None, b"");
                Some(events.into())
            }
        }
    }
}
