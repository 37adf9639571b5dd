//! Accepting connections and serving requests on them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Body;

/// How long a client may take to send a request's head, and how long a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long requests that are being answered may go on after the stop.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a connection's buffers, at most: also the longest head of a request.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Pause after the operating system refused a connection, most likely for want of file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled, then lets running requests end, and returns. `answer` is told the address of the
/// other end too. Beyond `connections_max` a connection waits until another ends.
pub(crate) async fn serve<A, R>(listener: TcpListener, connections_max: usize, stop: CancellationToken, answer: A)
where
    A: Fn(Request<Incoming>, IpAddr) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        // Both are cancellation-safe: a connection that is not taken stays in the backlog.
        let accepted = async {
            let place = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            listener.accept().await.map(|accepted| (accepted, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(((stream, peer), place)) => {
                let held = Held(Arc::new((place, connections.token())));
                connections.spawn(connection(stream, peer.ip(), stop.clone(), answer.clone(), held));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_WAIT, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut: they did not end in time");
    }
}

/// Keeps a connection counted, and waited for at the end, while it is there. Requests that ask for another protocol
/// carry it: what speaks that protocol outlives the connection's service of HTTP.
#[derive(Clone)]
pub(crate) struct Held(
    #[expect(dead_code, reason = "held for its drop")] Arc<(OwnedSemaphorePermit, TaskTrackerToken)>,
);

async fn connection<A, R>(stream: TcpStream, peer: IpAddr, stop: CancellationToken, answer: A, held: Held)
where
    A: Fn(Request<Incoming>, IpAddr) -> R,
    R: Future<Output = Response<Body>>,
{
    // Without it the kernel holds back the last segment of an answer until the one before is acknowledged.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|mut request: Request<Incoming>| {
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(held.clone());
        }
        answer(request, peer).map(Ok::<_, Infallible>)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    // Both arms may be dropped and taken up again: the connection keeps its state in `serving`.
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_WAIT, serving).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
