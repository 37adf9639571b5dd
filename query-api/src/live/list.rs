//! The stream of a list: its first page, then what comes, goes and changes on it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::Response;
use hyper::header::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Interval;

use super::difference::difference;
use super::event::{self, COMMENT, HEARTBEAT};
use super::listeners::ListListener;
use super::{Counted, check_live, warn_of_end};
use crate::access::Bound;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::{Body, LAST_EVENT_ID, X_MODEL_VERSION};
use crate::observe::scope;
use crate::problem::Problem;
use crate::query::{FirstPage, ListPage, ListQuery, ListRequest, Member};
use crate::rest::{FollowedList, followed_list};
use crate::serving::{Model, Serving};

/// Whose documents a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// Those the caller may see.
    All,
    /// Those that are the caller's own.
    Own,
}

/// Answers with a stream of events: `page` with the list as it is, then `change` with what is to be removed and put. The
/// id of an event names the state of the list behind it and what is shown of its documents; a client that comes back
/// with it as `Last-Event-ID` is told nothing when that is still the state, and the whole in a `reset` when it is not.
pub(crate) async fn list(
    api: &Arc<Api>,
    model: &Arc<Model>,
    of: Of,
    query: &str,
    headers: &HeaderMap,
    context: &ReadContext,
) -> Result<Response<Body>, Problem> {
    check_live(model)?;
    let counted = Counted::new(api, context).map_err(|refusal| refusal.told(&context.request_id))?;
    let seen = headers.get(LAST_EVENT_ID).map(|seen| seen.as_bytes().to_vec());
    let mut live = Live {
        serving: api.serving.clone(),
        followed: Followed::new(api, model, of, query, context).await?,
        of,
        query: query.to_string(),
        context: context.clone(),
        first: if seen.is_some() { "reset" } else { "page" },
        seen,
        due: true,
        ready: None,
        heartbeat: tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT),
        _counted: counted,
        api: api.clone(),
    };
    // Before the head is sent, so that what is wrong with the list is told as for any other request.
    live.ready = live.read().await?;
    let events = stream::unfold(live, |mut live| async move {
        let request_id = live.context.request_id.clone();
        scope(request_id, live.next()).await.map(|event| (event, live))
    });
    let mut response = event::response(Body::Stream(Box::pin(events)), context);
    response.headers_mut().insert(X_MODEL_VERSION, model.version_header.clone());
    Ok(response)
}

/// A list of one version.
struct Followed {
    model: Arc<Model>,
    request: FollowedList,
    list: Arc<ListQuery>,
    listener: ListListener,
    shown: Arc<FirstPage>,
}

impl Followed {
    async fn new(
        api: &Arc<Api>,
        model: &Arc<Model>,
        of: Of,
        query: &str,
        context: &ReadContext,
    ) -> Result<Self, Problem> {
        let request = followed_list(query, model)?;
        let list = Arc::new(list_query(api, model, &request, of, context).await?);
        let shown = Arc::new(FirstPage::default());
        let listener = api.listeners.listen_to_list(model.visibility.version, shown.clone());
        Ok(Self { model: model.clone(), request, list, listener, shown })
    }
}

async fn list_query(
    api: &Api,
    model: &Model,
    request: &FollowedList,
    of: Of,
    context: &ReadContext,
) -> Result<ListQuery, Problem> {
    let visibility = &model.visibility;
    let bound: Bound = match of {
        Of::All => visibility.bound(&context.principal),
        Of::Own => {
            visibility.own(&context.principal).ok_or_else(|| Problem::not_found("nothing is the caller's own"))?
        }
    };
    let wanted = ListRequest {
        visibility,
        bound,
        conditions: &request.conditions,
        sort: request.sort,
        after: None,
        // See [`FirstPage::read`].
        limit: request.limit + 1,
    };
    ListQuery::new(&*api.reader, wanted, context).await
}

struct Live {
    api: Arc<Api>,
    serving: watch::Receiver<Arc<Serving>>,
    followed: Followed,
    of: Of,
    query: String,
    /// Who listens.
    context: ReadContext,
    /// The event that tells all of the list.
    first: &'static str,
    /// Id of the last event the client has.
    seen: Option<Vec<u8>>,
    /// Whether the list may have changed since it was read.
    due: bool,
    /// What was read and not told yet.
    ready: Option<Bytes>,
    heartbeat: Interval,
    _counted: Counted,
}

impl Live {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.take() {
                self.heartbeat.reset();
                return Some(event);
            }
            if self.due {
                match self.read().await {
                    Ok(event) => self.ready = event,
                    Err(problem) => {
                        warn_of_end(&self.context, &problem, "list");
                        return None;
                    }
                }
                continue;
            }
            // Every arm waits for a mark that stays until it is seen, or for the clock.
            tokio::select! {
                () = self.api.stop.cancelled() => return None,
                // Whoever listens must show again who they are.
                () = self.context.principal.ended() => return None,
                () = self.followed.listener.changed() => self.due = true,
                changed = self.serving.changed() => {
                    if changed.is_err() || !self.switch().await {
                        return None;
                    }
                }
                _ = self.heartbeat.tick() => return Some(COMMENT),
            }
        }
    }

    /// Goes over to the version that is served now; `false` when the client is to come back and ask again.
    async fn switch(&mut self) -> bool {
        let serving = self.serving.borrow_and_update().clone();
        let view = serving.view(&self.context);
        let Ok(model) = view.model(self.followed.model.name()) else { return false };
        if model.visibility.version == self.followed.model.visibility.version {
            return true;
        }
        let followed = Followed::new(&self.api, model, self.of, &self.query, &self.context).await;
        (self.first, self.due) = ("reset", true);
        followed.map(|followed| self.followed = followed).is_ok()
    }

    /// Reads the list; answers with what tells of it, unless the client knows it.
    async fn read(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.followed.list.is_of_few() {
            // What was few may be many now.
            let Followed { model, request, .. } = &self.followed;
            let list = list_query(&self.api, model, request, self.of, &self.context).await?;
            self.followed.list = Arc::new(list);
        }
        let Followed { list, shown, request, model, .. } = &self.followed;
        let read = shown.read(list, request.limit, &*self.api.reader, &self.context).await?;
        self.due = false;
        // Documents of a version that is served no more are gone, not removed; what is served is told soon.
        if shown.is_known() && !self.api.is_active(model.visibility.version) {
            return Ok(None);
        }
        let before = shown.show(list, &read);
        let (page, members, has_more) = (&read.page, &read.members, read.page.has_more);
        if before.as_ref().is_some_and(|before| before.members == *members && before.has_more == has_more) {
            return Ok(None);
        }
        let state = self.state(members, has_more);
        if before.is_none() && self.seen.take().is_some_and(|seen| seen == state.as_bytes()) {
            return Ok(None);
        }
        let was_known = before.is_some();
        let event = match before.and_then(|before| Some((difference(&before.members, members)?, before.members))) {
            Some(((gone, put), before)) => {
                let change = self.change(page, has_more, (&before, &gone, &put), request)?;
                event::of("change", Some(&state), &change)
            }
            None => {
                let kind = if was_known { "reset" } else { self.first };
                event::of(kind, Some(&state), &self.whole(page, has_more, request)?)
            }
        };
        Ok(Some(event))
    }

    /// Names the state of the list. Documents that are shown otherwise, to other roles or by a channel that was changed,
    /// are another state, although none of them changed.
    fn state(&self, members: &[Member], has_more: bool) -> String {
        let Followed { list, request, model, .. } = &self.followed;
        let mut hash = Sha256::new();
        for shape in [model.visibility.fingerprint, request.fields()] {
            hash.update([u8::from(shape.is_some())]);
            hash.update(shape.unwrap_or_default().to_be_bytes());
        }
        hash.update([u8::from(has_more)]);
        for member in members {
            hash.update((member.id.len() as u64).to_be_bytes());
            hash.update(&member.id);
            hash.update(member.stamp.to_be_bytes());
        }
        format!("{}-{}", model.visibility.version.0, list.key_of_state(&hash.finalize(), &self.context))
    }

    /// `{"data":[…],"keys":[…],"page":{"hasMore":…}}`.
    fn whole(&self, page: &ListPage, has_more: bool, request: &FollowedList) -> Result<Vec<u8>, Problem> {
        let bytes: usize = page.documents.iter().map(|(_, document)| document.body.len() + 24).sum();
        let mut out = Vec::with_capacity(bytes + 64);
        out.extend_from_slice(b"{\"data\":[");
        for (at, (_, document)) in page.documents.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            request.write(&mut out, document)?;
        }
        out.extend_from_slice(b"],\"keys\":[");
        for (at, (id, _)) in page.documents.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write_key(&mut out, id);
        }
        out.extend_from_slice(b"],\"page\":{\"hasMore\":");
        out.extend_from_slice(if has_more { b"true}}" } else { b"false}}" });
        Ok(out)
    }

    /// `{"remove":[…],"put":[{"key":…,"after":…,"document":…}],"page":{"hasMore":…}}`.
    fn change(
        &self,
        page: &ListPage,
        has_more: bool,
        (before, gone, put): (&[Member], &[usize], &[usize]),
        request: &FollowedList,
    ) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"remove\":[");
        for (at, number) in gone.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write_key(&mut out, &before[*number].id);
        }
        out.extend_from_slice(b"],\"put\":[");
        for (at, number) in put.iter().enumerate() {
            let (id, document) = &page.documents[*number];
            out.extend_from_slice(if at > 0 { b",{\"key\":" } else { b"{\"key\":" });
            self.write_key(&mut out, id);
            out.extend_from_slice(b",\"after\":");
            match number.checked_sub(1) {
                Some(previous) => self.write_key(&mut out, &page.documents[previous].0),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"document\":");
            request.write(&mut out, document)?;
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"page\":{\"hasMore\":");
        out.extend_from_slice(if has_more { b"true}}" } else { b"false}}" });
        Ok(out)
    }

    /// What a member is called on this list. Its id may be hidden, so it is none.
    fn write_key(&self, out: &mut Vec<u8>, id: &[u8]) {
        out.push(b'"');
        out.extend_from_slice(self.followed.list.key_of_member(id, &self.context).as_bytes());
        out.push(b'"');
    }
}
