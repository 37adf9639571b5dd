//! A client of `graphql-transport-ws`.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, HandshakeError, Message, WebSocket, client};

use crate::fixture::World;

pub(crate) const PROTOCOL: &str = "graphql-transport-ws";

pub(crate) struct Socket(pub(crate) WebSocket<TcpStream>);

impl Socket {
    /// Opens one, or answers with the status with which that is refused.
    pub(crate) fn open(world: &World, protocol: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(world.api.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let uri: Uri = format!("ws://{}/graphql", world.api.address).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        let request = headers.iter().fold(request, |request, (name, value)| request.with_header(*name, *value));
        match client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens one and says who asks.
    pub(crate) fn ready(world: &World, payload: &Value) -> Self {
        let mut socket = Self::open(world, PROTOCOL, &[]).unwrap();
        socket.say(&json!({"type": "connection_init", "payload": payload}));
        assert_eq!(socket.hear(), json!({"type": "connection_ack"}));
        socket
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    pub(crate) fn subscribe(&mut self, id: &str, query: &str) {
        self.say(&json!({"id": id, "type": "subscribe", "payload": {"query": query}}));
    }

    /// The next message, or the code with which the connection was closed.
    pub(crate) fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return Err(frame.map_or(0, |frame| frame.code.into())),
                _ => {}
            }
        }
    }

    pub(crate) fn hear(&mut self) -> Value {
        self.next().unwrap()
    }

    /// The result of the next message, which is `next` for `id`.
    pub(crate) fn result(&mut self, id: &str) -> Value {
        let heard = self.hear();
        assert_eq!((&heard["id"], &heard["type"]), (&json!(id), &json!("next")), "{heard}");
        heard["payload"].clone()
    }

    pub(crate) fn closed(&mut self) -> u16 {
        self.next().unwrap_err()
    }
}
