//! Whose request it is that a task is busy with, for log lines of places that are not told.

use crate::context::RequestId;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Answers a request as `answering` does, with its id known to [`current`] meanwhile.
pub(crate) fn scope<F: Future>(request_id: RequestId, answering: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(request_id, answering)
}

/// Calls `with` with the id of the request that this task is busy with; `None` where it is with none.
pub(crate) fn current<R>(with: impl FnOnce(Option<&RequestId>) -> R) -> R {
    // The closure is taken by whichever of the two calls it.
    let mut with = Some(with);
    let mut call = |id: Option<&RequestId>| with.take().map(|with| with(id));
    let answered = CURRENT.try_with(|id| call(Some(id))).ok().flatten();
    answered.or_else(|| call(None)).expect("it is called once: by the first, or else by the second")
}
