//! The stream of one document: as it is, then each time it changes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use headwater_store::{Document, DocumentReader, VersionRecord, VersionState};
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use tokio::sync::watch;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use super::event::{self, COMMENT, HEARTBEAT};
use super::listeners::Listener;
use super::{Counted, Listeners, check_live, warn_of_end};
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::{Body, LAST_EVENT_ID, X_MODEL_VERSION, X_REQUEST_ID};
use crate::observe::scope;
use crate::problem::Problem;
use crate::projection::Selection;
use crate::rest::selection;
use crate::serving::{Model, Serving};

/// Answers with a stream of events: `document` with the document as data, and `deleted`. The id of an event names the
/// document's state and what was shown of it; a client that comes back with it as `Last-Event-ID` is told only what
/// changed since, or the document again where it is shown otherwise now.
pub(crate) async fn stream(
    api: &Api,
    model: &Arc<Model>,
    id: &str,
    query: &str,
    headers: &HeaderMap,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    check_live(model)?;
    let counted = Counted::new(api, context).map_err(|refusal| refusal.told(&context.request_id))?;
    let selection = selection(query, model)?;
    let absent = || Problem::no_document(model.name());
    let key = model.parse_id(id).ok_or_else(absent)?;
    // Heard before it is read: no change falls between.
    let serving = api.serving.clone();
    let moment = api.freshness.now();
    let listener = api.listeners.listen(model.visibility.version, key.clone().into());
    let document = model.visibility.get(&*api.reader, &key, context).await?;
    let seen = headers.get(LAST_EVENT_ID).map(|seen| seen.as_bytes().to_vec());
    if document.is_none() && seen.is_none() {
        return Err(absent());
    }
    let live = Live {
        reader: api.reader.clone(),
        listeners: api.listeners.clone(),
        listener,
        serving,
        model: model.clone(),
        id: id.to_string(),
        key,
        query: query.to_string(),
        context: ReadContext { is_followed: true, ..context.clone() },
        selection,
        seen,
        read: Some(document),
        heartbeat: tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT),
        stop: api.stop.clone(),
        _counted: counted,
    };
    let events = stream::unfold(live, |mut live| async move {
        let request_id = live.context.request_id.clone();
        scope(request_id, live.next()).await.map(|event| (event, live))
    });
    let mut response = Response::new(Body::Stream(Box::pin(events)));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(VARY, context.vary());
    head.insert(X_MODEL_VERSION, model.version_header.clone());
    head.insert(X_REQUEST_ID, context.request_id.header());
    moment.tell(head);
    Ok(response)
}

struct Live {
    reader: Arc<dyn DocumentReader>,
    listeners: Arc<Listeners>,
    listener: Listener,
    serving: watch::Receiver<Arc<Serving>>,
    model: Arc<Model>,
    /// As it stands in the path.
    id: String,
    key: Vec<u8>,
    query: String,
    /// Who listens.
    context: ReadContext,
    selection: Option<Selection>,
    /// Id of the last event the client has.
    seen: Option<Vec<u8>>,
    /// What was read and not told yet.
    read: Option<Option<Document>>,
    heartbeat: Interval,
    stop: CancellationToken,
    _counted: Counted,
}

impl Live {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(read) = self.read.take()
                && let Some(event) = self.event(read)?
            {
                self.heartbeat.reset();
                return Some(event);
            }
            // Every arm waits for a mark that stays until it is seen, or for the clock.
            tokio::select! {
                () = self.stop.cancelled() => return None,
                // Whoever listens must show again who they are.
                () = self.context.principal.ended() => return None,
                changed = self.listener.changed() => if !changed { return None },
                changed = self.serving.changed() => {
                    if changed.is_err() || !self.switch() {
                        return None;
                    }
                }
                _ = self.heartbeat.tick() => return Some(COMMENT),
            }
            match self.model.visibility.get(&*self.reader, &self.key, &self.context).await {
                // Documents of a version that is served no more are gone, not deleted; what is served is told soon.
                Ok(None) if !self.is_active() => {}
                Ok(document) => self.read = Some(document),
                Err(problem) => {
                    warn_of_end(&self.context, &problem, "document");
                    return None;
                }
            }
        }
    }

    fn is_active(&self) -> bool {
        let is_own =
            |record: &VersionRecord| record.id == self.model.visibility.version && record.state == VersionState::Active;
        self.reader.versions().borrow().iter().any(is_own)
    }

    /// Goes over to the version that is served now; `false` when the client is to come back and ask again.
    fn switch(&mut self) -> bool {
        let serving = self.serving.borrow_and_update().clone();
        let view = serving.view(&self.context);
        let Ok(model) = view.model(self.model.name()) else { return false };
        if model.visibility.version == self.model.visibility.version {
            return true;
        }
        let (Some(key), Ok(selection)) = (model.parse_id(&self.id), selection(&self.query, model)) else {
            return false;
        };
        self.listener = self.listeners.listen(model.visibility.version, key.clone().into());
        (self.model, self.key, self.selection) = (model.clone(), key, selection);
        true
    }

    /// The event that tells of a state, unless the client knows it; `None` outside when it cannot be told.
    fn event(&mut self, document: Option<Document>) -> Option<Option<Bytes>> {
        let state = self.state(document.as_ref());
        if self.seen.as_deref() == Some(state.as_bytes()) {
            return Some(None);
        }
        let event = match document {
            None => event::of("deleted", Some(&state), b"null"),
            Some(document) => {
                let mut body = document.body;
                if let Some(selection) = &self.selection {
                    let mut chosen = Vec::with_capacity(body.len());
                    if selection.write(&mut chosen, &body).is_err() {
                        tracing::error!(
                            request_id = self.context.request_id.as_str(),
                            trace_id = self.context.request_id.trace_id(),
                            model = self.model.name(),
                            "a live stream ends: the document is damaged"
                        );
                        return None;
                    }
                    body = chosen.into();
                }
                event::of("document", Some(&state), &body)
            }
        };
        self.seen = Some(state.into_bytes());
        Some(Some(event))
    }

    /// Names a state: as the ETag of the same answer does, without its quotes. So what is hidden since the client was
    /// here, or shown since, makes another state, too.
    fn state(&self, document: Option<&Document>) -> String {
        let Some(document) = document else { return format!("{}-deleted", self.model.visibility.version.0) };
        let etag = self.model.etag(document.stamp, self.selection.as_ref().map(Selection::fingerprint));
        etag.to_str().expect("digits, hyphens and quotes").trim_matches('"').to_string()
    }
}
