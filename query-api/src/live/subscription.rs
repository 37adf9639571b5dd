//! A GraphQL subscription: what is selected of a document or a list, as it is and each time that changes.

use std::sync::Arc;

use bytes::Bytes;
use headwater_store::VersionId;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Counted;
use super::listeners::{ListListener, Listener};
use crate::api::Api;
use crate::context::ReadContext;
use crate::graphql::{Follows, GraphQlRequest, Operation, Refused};
use crate::problem::Problem;
use crate::query::{Fingerprint, FirstPage};
use crate::serving::{Serving, View};

/// When to try again what the store could not answer.
const RETRY_SECONDS: u32 = 1;

/// Follows one document or list for one caller.
pub(crate) struct Subscription {
    api: Arc<Api>,
    /// What the caller is served.
    view: Arc<View>,
    serving: watch::Receiver<Arc<Serving>>,
    request: GraphQlRequest,
    operation: Operation,
    context: ReadContext,
    version: VersionId,
    followed: Followed,
    /// Whether what is followed may have changed since it was told.
    due: bool,
    /// Tells this operation of this caller from others.
    fingerprint: Fingerprint,
    /// Id of what was told last.
    told: Option<String>,
    _counted: Counted,
}

/// What is followed, and who hears of it.
enum Followed {
    Document(Listener),
    List(ListListener, Arc<FirstPage>),
    /// No document can have the id.
    Nothing,
}

/// A result.
pub(crate) struct Told {
    /// Names the result to this caller, of this operation: the same on every server, and nothing that tells what is in it.
    pub(crate) id: String,
    pub(crate) body: Bytes,
}

/// What a subscriber is told.
pub(crate) enum Next {
    /// A result.
    Told(Told),
    /// Nothing more: the operation does not fit what is served now.
    Failed(Refused),
    /// Nothing more for now: what is followed cannot be read, and the client is to come back.
    Broken,
}

impl Subscription {
    /// Begins what was `counted`, and answers with the first result, too; `None`: it is the one of which the client that
    /// comes back has `seen` the id.
    ///
    /// # Errors
    ///
    /// What is wrong with the operation, or that it cannot be answered now.
    pub(crate) async fn begin(
        api: &Arc<Api>,
        view: Arc<View>,
        request: GraphQlRequest,
        operation: Operation,
        seen: Option<&[u8]>,
        counted: Counted,
        context: &ReadContext,
    ) -> Result<(Self, Option<Told>), Refused> {
        let (request, operation) = view.graphql()?.keep(&request, &operation)?;
        let (version, followed) = listen(api, &view, &operation)?;
        let mut begun = Self {
            serving: api.serving.clone(),
            version,
            followed,
            view,
            fingerprint: fingerprint(&request, context),
            request,
            operation,
            context: context.clone(),
            due: true,
            told: None,
            _counted: counted,
            api: api.clone(),
        };
        let first = begun.result().await?;
        begun.context.is_followed = true;
        Ok((begun, first.filter(|told| seen != Some(told.id.as_bytes()))))
    }

    /// Waits for the next result; `None`: the stream ends, and its client is to come back. Cancellation-safe: what is due
    /// stays due until it was read.
    pub(crate) async fn next(&mut self) -> Option<Next> {
        loop {
            match self.due().await? {
                Ok(()) => {
                    if let Some(told) = self.read().await {
                        return Some(told);
                    }
                }
                Err(refused) => return Some(Next::Failed(refused)),
            }
        }
    }

    /// Waits until there may be something to tell, and reads nothing; `None`: the stream ends, and its client is to come
    /// back. Cancellation-safe: what is due stays due until it was read.
    ///
    /// # Errors
    ///
    /// The operation does not fit what is served now.
    pub(crate) async fn due(&mut self) -> Option<Result<(), Refused>> {
        while !self.due {
            // Every arm waits for a mark that stays until it is seen, or for the clock.
            tokio::select! {
                () = self.api.stop.cancelled() => return None,
                // Whoever listens must show again who they are.
                () = self.context.principal.ended() => return None,
                changed = self.followed.changed() => {
                    if !changed {
                        return None;
                    }
                    self.due = true;
                }
                changed = self.serving.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    if let Err(refused) = self.switch() {
                        return Some(Err(refused));
                    }
                }
            }
        }
        Some(Ok(()))
    }

    /// Reads what is due; `None`: it was told already. Others may wait for the documents that are read: the future is to be
    /// polled until it is ready, or dropped.
    pub(crate) async fn read(&mut self) -> Option<Next> {
        match self.result().await {
            Ok(result) => result.map(Next::Told),
            Err(refused) => {
                tracing::warn!(
                    request_id = self.context.request_id.as_str(),
                    trace_id = self.context.request_id.trace_id(),
                    why = refused.message(),
                    "a subscription ends: what it follows cannot be read"
                );
                // What the caller asks too much of is no better when they come back.
                Some(if refused.status() >= 500 { Next::Broken } else { Next::Failed(refused) })
            }
        }
    }

    /// Reads what is to be told; `None`: it was told already.
    async fn result(&mut self) -> Result<Option<Told>, Refused> {
        let graphql = self.view.graphql()?;
        let (reader, mut budget) = (&*self.api.reader, graphql.budget());
        let answer = match &self.followed {
            Followed::List(_, page) => {
                graphql.try_follow(&self.operation, page, &mut budget, reader, &self.context).await?
            }
            _ => graphql.try_answer(&self.operation, &mut budget, reader, &self.context).await?,
        };
        self.due = false;
        if answer.is_broken {
            let detail = "the store could not be read; try again";
            return Err(Problem::unavailable("store_unavailable", detail, RETRY_SECONDS).into());
        }
        // Documents of a version that is served no more are gone, not deleted; what is served is told soon.
        if self.told.is_some() && !self.api.is_active(self.version) {
            return Ok(None);
        }
        let id = self.context.cursors.name(&self.fingerprint, &Sha256::digest(&answer.body));
        if self.told.as_ref() == Some(&id) {
            return Ok(None);
        }
        self.told = Some(id.clone());
        Ok(Some(Told { id, body: answer.body }))
    }

    /// Goes over to what is served now.
    fn switch(&mut self) -> Result<(), Refused> {
        let view = self.serving.borrow_and_update().view(&self.context);
        self.operation = view.graphql()?.operation(&self.request)?;
        (self.version, self.followed) = listen(&self.api, &view, &self.operation)?;
        (self.view, self.due) = (view, true);
        Ok(())
    }
}

impl Followed {
    /// Waits until it may have changed since the last call; `false`: there will be no more changes. Cancellation-safe,
    /// as listeners are.
    async fn changed(&mut self) -> bool {
        match self {
            Self::Document(listener) => listener.changed().await,
            Self::List(listener, _) => {
                listener.changed().await;
                true
            }
            Self::Nothing => std::future::pending().await,
        }
    }
}

/// Listens to what an operation follows: before it is read, so that no change falls between.
fn listen(api: &Api, view: &View, operation: &Operation) -> Result<(VersionId, Followed), Refused> {
    let (visibility, follows) = view.graphql()?.followed(operation)?;
    let version = visibility.version;
    let followed = match follows {
        Follows::Document(Some(id)) => Followed::Document(api.listeners.listen(version, id.into())),
        Follows::Document(None) => Followed::Nothing,
        Follows::List => {
            let page = Arc::new(FirstPage::default());
            Followed::List(api.listeners.listen_to_list(version, page.clone()), page)
        }
    };
    Ok((version, followed))
}

/// Tells the operation of a request of this caller from others.
fn fingerprint(request: &GraphQlRequest, context: &ReadContext) -> Fingerprint {
    let GraphQlRequest { query, operation_name, variables } = request;
    let mut hash = Sha256::new();
    // Every part behind its length, so that no two operations read the same.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"subscription");
    part(&context.principal.tag);
    part(query.as_str().as_bytes());
    part(operation_name.as_ref().map_or("", |name| name.as_str()).as_bytes());
    part(&serde_json::to_vec(variables).expect("JSON is written as JSON"));
    let mut fingerprint = Fingerprint::default();
    let digest = hash.finalize();
    let len = fingerprint.len();
    fingerprint.copy_from_slice(&digest[..len]);
    fingerprint
}
