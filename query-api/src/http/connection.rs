//! Accepting connections and serving requests on them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Body;
use crate::access::limited;
use crate::places::{Places, TakenPlace};

/// How long a client may take to send a request's head, and how long a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take too little for the system to want more: an answer, and a place among the connections, are held
/// for it. The system wants more once a part of its buffer is free, which may be a megabyte: a slow reader needs some time.
pub(crate) const WRITE_WAIT: Duration = Duration::from_secs(120);
/// How long requests that are being answered may go on after the stop.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a connection's buffers, at most: also the longest head of a request.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Pause after the operating system refused a connection, most likely for want of file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines of the log about addresses with too many connections.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How many connections are open at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionsMax {
    /// Altogether; more wait until another ends.
    pub(crate) all: usize,
    /// From one address; more are closed at once. `None`: any number.
    pub(crate) of_address: Option<usize>,
}

/// Serves until `stop` is cancelled, then lets running requests end, and returns. `answer` is told the address of the
/// other end too. A connection whose client takes nothing for `write_wait` is cut.
pub(crate) async fn serve<A, R>(
    listener: TcpListener,
    connections_max: ConnectionsMax,
    write_wait: Duration,
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, IpAddr) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(connections_max.all));
    let of_addresses = connections_max.of_address.map(Places::new);
    let mut warned: Option<Instant> = None;
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
                let of_address = of_addresses.as_ref().map(|places| places.take(limited(peer.ip())));
                if matches!(of_address, Some(None)) {
                    if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                        let address = peer.ip();
                        tracing::warn!(%address, "connections are closed: their address has as many as it may have");
                        warned = Some(Instant::now());
                    }
                    continue;
                }
                let held = Held(Arc::new((place, of_address.flatten(), connections.token())));
                let mut stream = TimeoutStream::new(stream);
                stream.set_write_timeout(Some(write_wait));
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
    #[expect(dead_code, reason = "held for its drop")]
    Arc<(OwnedSemaphorePermit, Option<TakenPlace<u128>>, TaskTrackerToken)>,
);

async fn connection<A, R>(
    stream: TimeoutStream<TcpStream>,
    peer: IpAddr,
    stop: CancellationToken,
    answer: A,
    held: Held,
) where
    A: Fn(Request<Incoming>, IpAddr) -> R,
    R: Future<Output = Response<Body>>,
{
    // Without it the kernel holds back the last segment of an answer until the one before is acknowledged.
    if stream.get_ref().set_nodelay(true).is_err() {
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
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;
    use crate::sending::Sending;

    const BODY: usize = 64 << 20;

    /// What a client gets that reads nothing for so long.
    async fn read_after(wait: Duration) -> usize {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let body = Bytes::from(vec![b' '; BODY]);
        let answer = move |_: Request<Incoming>, _| std::future::ready(Response::new(Body::Whole(body.clone())));
        let max = ConnectionsMax { all: 1, of_address: None };
        let serving = tokio::spawn(serve(listener, max, Duration::from_millis(500), stop.clone(), answer));
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        tokio::time::sleep(wait).await;
        let (mut read, mut bytes) = (0, vec![0; 1 << 20]);
        while let Ok(len @ 1..) = client.read(&mut bytes).await {
            read += len;
            if read > BODY {
                break;
            }
        }
        // The only place is free again.
        let begin = Instant::now();
        drop(client);
        let mut other = TcpStream::connect(address).await.expect("it listens");
        other.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        assert!(other.read(&mut bytes).await.is_ok_and(|len| len > 0) && begin.elapsed() < Duration::from_secs(5));
        drop(other);
        stop.cancel();
        serving.await.expect("it ends");
        read
    }

    /// A new connection from this address, if a request on it is answered.
    async fn answered(from: Ipv4Addr, address: SocketAddr) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("all of 127.0.0.0/8 is this machine");
        let mut client = socket.connect(address).await.ok()?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
        let mut bytes = [0; 1024];
        client.read(&mut bytes).await.is_ok_and(|len| len > 0).then_some(client)
    }

    /// Asks on a new connection, and answers with it and what the answer begins with.
    async fn asked(address: SocketAddr) -> (TcpStream, String) {
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is taken");
        let mut bytes = [0; 12];
        client.read_exact(&mut bytes).await.expect("it answers");
        (client, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn until_free(sending: &Sending) {
        let begin = Instant::now();
        while sending.bytes() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(10), "a share is not free again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_keeps_its_share_until_the_client_has_all_of_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let sending = Arc::new(Sending::new(BODY + BODY / 2));
        let counted = sending.clone();
        let answer = move |_: Request<Incoming>, _| {
            let mut response = Response::new(Body::from(vec![b' '; BODY]));
            std::future::ready(match counted.take(&mut response, || None) {
                Ok(()) => response,
                Err(problem) => Response::builder().status(problem.status).body(Body::from("")).expect("a response"),
            })
        };
        let max = ConnectionsMax { all: 10, of_address: None };
        let serving = tokio::spawn(serve(listener, max, WRITE_WAIT, stop.clone(), answer));
        let (mut first, status) = asked(address).await;
        assert_eq!(status, "HTTP/1.1 200");
        // It has the whole body by now, and the client none of it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((sending.bytes(), asked(address).await.1.as_str()), (BODY, "HTTP/1.1 503"));
        // A client that takes a little holds all of it.
        let mut bytes = vec![0; 1 << 20];
        first.read_exact(&mut bytes).await.expect("it is sent");
        assert_eq!((sending.bytes(), asked(address).await.1.as_str()), (BODY, "HTTP/1.1 503"));
        let mut read = bytes.len();
        while read < BODY {
            read += first.read(&mut bytes).await.expect("it is sent");
        }
        until_free(&sending).await;
        let (second, status) = asked(address).await;
        assert_eq!((status.as_str(), sending.bytes()), ("HTTP/1.1 200", BODY));
        drop(second);
        until_free(&sending).await;
        drop(first);
        stop.cancel();
        serving.await.expect("it ends");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_has_so_many_connections() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let answer = |_: Request<Incoming>, _| std::future::ready(Response::new(Body::from("answered")));
        let max = ConnectionsMax { all: 10, of_address: Some(2) };
        let serving = tokio::spawn(serve(listener, max, WRITE_WAIT, stop.clone(), answer));
        let (one, other) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
        let first = answered(one, address).await.expect("there is room");
        let second = answered(one, address).await.expect("there is room");
        assert!(answered(one, address).await.is_none(), "it has two");
        let of_other = answered(other, address).await.expect("each address has its own");
        drop(first);
        let begin = Instant::now();
        let mut again = None;
        while again.is_none() {
            assert!(begin.elapsed() < Duration::from_secs(5), "the place of one that ended is not free again");
            again = answered(one, address).await;
        }
        assert!(answered(one, address).await.is_none(), "only one place was");
        drop((second, of_other, again));
        stop.cancel();
        serving.await.expect("it ends");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_takes_nothing_is_cut() {
        assert!(read_after(Duration::from_millis(1)).await > BODY, "whoever reads gets all of it");
        assert!(read_after(Duration::from_secs(2)).await < BODY, "and who does not is cut");
    }
}
