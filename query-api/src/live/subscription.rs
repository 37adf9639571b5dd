//! A GraphQL subscription: what is selected of a document, as it is and each time that changes.

use std::sync::Arc;

use bytes::Bytes;
use headwater_store::VersionId;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Counted;
use super::listeners::Listener;
use crate::api::Api;
use crate::context::ReadContext;
use crate::graphql::{GraphQlRequest, Operation, Refused};
use crate::problem::Problem;
use crate::serving::{Serving, View};

/// When to try again what the store could not answer.
const RETRY_SECONDS: u32 = 1;

/// Follows one document for one caller.
pub(crate) struct Subscription {
    api: Arc<Api>,
    /// What the caller is served.
    view: Arc<View>,
    serving: watch::Receiver<Arc<Serving>>,
    request: GraphQlRequest,
    operation: Operation,
    context: ReadContext,
    version: VersionId,
    /// `None`: no document can have the id.
    listener: Option<Listener>,
    /// Whether the document may have changed since it was told.
    due: bool,
    /// Hash of what was told last.
    told: Option<[u8; 32]>,
    _counted: Counted,
}

/// What a subscriber is told.
pub(crate) enum Told {
    /// A result.
    Next(Bytes),
    /// Nothing more: the operation does not fit what is served now.
    Failed(Refused),
    /// Nothing more for now: the document cannot be read, and the client is to come back.
    Broken,
}

impl Subscription {
    /// Begins, and answers with the first result, too.
    ///
    /// # Errors
    ///
    /// What is wrong with the operation, or that it cannot be answered now.
    pub(crate) async fn begin(
        api: &Arc<Api>,
        view: Arc<View>,
        request: GraphQlRequest,
        operation: Operation,
        context: &ReadContext,
    ) -> Result<(Self, Bytes), Refused> {
        let counted = Counted::new(api, context)?;
        let (request, operation) = view.graphql()?.keep(&request, &operation)?;
        let (version, listener) = listen(api, &view, &operation)?;
        let mut begun = Self {
            serving: api.serving.clone(),
            version,
            listener,
            view,
            request,
            operation,
            context: context.clone(),
            due: true,
            told: None,
            _counted: counted,
            api: api.clone(),
        };
        let first = begun.result().await?.unwrap_or_default();
        Ok((begun, first))
    }

    /// Waits for the next result; `None`: the stream ends, and its client is to come back. Cancellation-safe: what is due
    /// stays due until it was read.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            match self.due().await? {
                Ok(()) => {
                    if let Some(told) = self.read().await {
                        return Some(told);
                    }
                }
                Err(refused) => return Some(Told::Failed(refused)),
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
                changed = changed(&mut self.listener) => {
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

    /// Reads what is due; `None`: it was told already. Others may wait for the document that is read: the future is to be
    /// polled until it is ready, or dropped.
    pub(crate) async fn read(&mut self) -> Option<Told> {
        match self.result().await {
            Ok(result) => result.map(Told::Next),
            Err(refused) => {
                tracing::warn!(
                    request_id = self.context.request_id.as_str(),
                    trace_id = self.context.request_id.trace_id(),
                    why = refused.message(),
                    "a subscription ends: the document cannot be read"
                );
                // What the caller asks too much of is no better when they come back.
                Some(if refused.status() >= 500 { Told::Broken } else { Told::Failed(refused) })
            }
        }
    }

    /// Reads what is to be told; `None`: it was told already.
    async fn result(&mut self) -> Result<Option<Bytes>, Refused> {
        let graphql = self.view.graphql()?;
        let (reader, mut budget) = (&*self.api.reader, graphql.budget());
        let answer = graphql.try_answer(&self.operation, &mut budget, reader, &self.context).await?;
        self.due = false;
        if answer.is_broken {
            let detail = "the store could not be read; try again";
            return Err(Problem::unavailable("store_unavailable", detail, RETRY_SECONDS).into());
        }
        // Documents of a version that is served no more are gone, not deleted; what is served is told soon.
        if self.told.is_some() && !self.api.is_active(self.version) {
            return Ok(None);
        }
        let told = Some(Sha256::digest(&answer.body).into());
        Ok((std::mem::replace(&mut self.told, told) != told).then_some(answer.body))
    }

    /// Goes over to what is served now.
    fn switch(&mut self) -> Result<(), Refused> {
        let view = self.serving.borrow_and_update().view(&self.context);
        self.operation = view.graphql()?.operation(&self.request)?;
        (self.version, self.listener) = listen(&self.api, &view, &self.operation)?;
        (self.view, self.due) = (view, true);
        Ok(())
    }
}

/// Listens to the document that an operation follows: before it is read, so that no change falls between.
fn listen(api: &Api, view: &View, operation: &Operation) -> Result<(VersionId, Option<Listener>), Refused> {
    let (visibility, id) = view.graphql()?.followed(operation)?;
    Ok((visibility.version, id.map(|id| api.listeners.listen(visibility.version, id.into()))))
}

async fn changed(listener: &mut Option<Listener>) -> bool {
    match listener {
        Some(listener) => listener.changed().await,
        None => std::future::pending().await,
    }
}
