//! GraphQL through a WebSocket: the protocol `graphql-transport-ws`, any number of operations on one connection.
//!
//! Browsers cannot send headers when they open a WebSocket, so who asks may also be said in the first message
//! (`connection_init`); nothing is answered before that. [`session`] is the life of one connection, [`operation`] that of
//! one operation on it, [`patience`] what is tried again before it is refused, [`message`] what is said.

mod message;
mod operation;
mod patience;
mod session;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::session::Session;
use crate::access::Refusal;
use crate::api::Api;
use crate::context::RequestId;
use crate::http::{Body, Held, X_REQUEST_ID};
use crate::problem::Problem;

/// The one protocol that is spoken.
const PROTOCOL: &str = "graphql-transport-ws";
/// Largest message from a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a connection's buffers, about; messages that are larger get room when they come.
const BUFFER_BYTES: usize = 4 * 1024;

/// Whether a request is to become a WebSocket.
pub(crate) fn is_opening<B>(request: &Request<B>) -> bool {
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    *request.method() == Method::GET
        && request.uri().path() == "/graphql"
        && request.headers().get(UPGRADE).is_some_and(is_websocket)
}

/// Opens a WebSocket, and answers what makes the client speak it.
pub(crate) async fn open(
    api: &Arc<Api>,
    mut request: Request<Incoming>,
    peer: IpAddr,
    request_id: &RequestId,
    now: Instant,
) -> Result<Response<Body>, Box<Refusal>> {
    let accept = accept_key(request.headers()).map_err(Refusal::plain)?;
    api.gate.check_page(peer, request.headers())?;
    let address = api.gate.enter(peer, request.headers(), now)?;
    // Whoever shows nothing here has to in the first message.
    let principal = match api.gate.shows_credentials(request.headers()) {
        true => Some(api.gate.identify(request.headers(), address).await?),
        false => None,
    };
    let held = request.extensions_mut().remove::<Held>();
    let upgrade = hyper::upgrade::on(&mut request);
    let head = api.channels.decisive(request.uri(), request.headers());
    let session = Session::new(api.clone(), address, (principal, head), request_id.clone());
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default()
                    .read_buffer_size(BUFFER_BYTES)
                    .write_buffer_size(BUFFER_BYTES)
                    .max_message_size(Some(MESSAGE_BYTES_MAX))
                    .max_frame_size(Some(MESSAGE_BYTES_MAX));
                let socket = TokioIo::new(upgraded);
                session.run(WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await).await;
            }
            Err(error) => tracing::debug!(%error, "a WebSocket was not opened"),
        }
        drop(held);
    });
    let mut response = Response::new(Body::from(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    headers.insert(X_REQUEST_ID, request_id.header());
    Ok(response)
}

/// Checks the client's part of the handshake, and answers with what proves that it was understood.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let title = "This WebSocket cannot be opened";
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "websocket", title, detail);
    let names = |header: HeaderName, wanted: &str| {
        let mut values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(wanted)))
    };
    if !names(CONNECTION, "upgrade") || headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("send `Connection: upgrade` and `Sec-WebSocket-Version: 13`"));
    }
    if !names(SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(bad("the subprotocol that is spoken here is `graphql-transport-ws`"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let key = key.ok_or_else(|| bad("`Sec-WebSocket-Key` must be 16 bytes in base64"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| bad("`Sec-WebSocket-Key` is no key"))
}
