//! The driver's runtime, for callers that have another one or none.
//!
//! The driver sets timers and spawns tasks on the runtime it finds around it. Ours is found around every poll and every
//! drop of what belongs to it, whoever polls: the projector's own thread, or a reader's runtime that has no timers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::runtime::Handle;

/// Something of the driver's that is used, and dropped, within a runtime's context.
pub(super) struct Within<T> {
    handle: Handle,
    /// Always there until the drop.
    inner: Option<Pin<Box<T>>>,
}

impl<T> Within<T> {
    pub(super) fn new(handle: &Handle, inner: T) -> Self {
        Self { handle: handle.clone(), inner: Some(Box::pin(inner)) }
    }
}

impl<T: Unpin> Within<T> {
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("it goes only when this goes").as_mut().get_mut()
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { handle, inner } = &mut *self;
        let _context = handle.enter();
        inner.as_mut().expect("it goes only when this goes").as_mut().poll(context)
    }
}

impl<T> Drop for Within<T> {
    fn drop(&mut self) {
        let _context = self.handle.enter();
        self.inner = None;
    }
}

/// Waits for a future on this thread. Also right on a thread of another runtime, which `Handle::block_on` refuses.
pub(super) fn block<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    // A task of another runtime around us has a budget of polls, and we never return to it to get a new one.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
