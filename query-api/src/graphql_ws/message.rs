//! What is said: the messages of `graphql-transport-ws`, and the codes with which a connection is closed.

use apollo_compiler::response::{JsonMap, JsonValue};
use bytes::Bytes;
use headwater_schemas::write_json_string;
use tokio_tungstenite::tungstenite::Message;

/// Longest id of an operation, in bytes.
const ID_BYTES_MAX: usize = 256;

/// Why a connection is closed: code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending(pub(super) u16, pub(super) &'static str);

impl Ending {
    pub(super) const STOPPING: Self = Self(1001, "the server stops; come back");
    pub(super) const TOO_LARGE: Self = Self(1009, "the message is too large");
    pub(super) const INTERNAL: Self = Self(1011, "something is wrong on the server");
    /// A code after which clients come back by themselves; after an `error` they do not.
    pub(super) const BROKEN: Self = Self(1013, "what is followed cannot be read now; come back");
    pub(super) const INVALID: Self = Self(4400, "Invalid message received");
    pub(super) const UNAUTHORIZED: Self = Self(4401, "Unauthorized");
    pub(super) const FORBIDDEN: Self = Self(4403, "Forbidden");
    pub(super) const NO_CHANNEL: Self = Self(4403, "a channel must be named, once, and be one there is");
    pub(super) const EXPIRED: Self = Self(4403, "the credentials have ended; come back with others");
    pub(super) const INIT_TIMEOUT: Self = Self(4408, "Connection initialisation timeout");
    pub(super) const INIT_TWICE: Self = Self(4429, "Too many initialisation requests");
}

/// A message from a client.
#[derive(Debug)]
pub(super) enum Received {
    Init(JsonMap),
    Ping,
    Pong,
    Subscribe(String, JsonValue),
    Complete(String),
}

impl Received {
    /// Reads a message; `None`: it is none of the protocol.
    pub(super) fn read(text: Bytes) -> Option<Self> {
        let JsonValue::Object(mut members) = JsonValue::from_bytes(text).ok()? else { return None };
        let payload = members.remove("payload");
        let id = match members.remove("id") {
            None => None,
            Some(JsonValue::String(id)) if (1..=ID_BYTES_MAX).contains(&id.as_str().len()) => {
                Some(id.as_str().to_owned())
            }
            Some(_) => return None,
        };
        match (members.get("type")?.as_str()?, id, payload) {
            ("connection_init", None, None | Some(JsonValue::Null)) => Some(Self::Init(JsonMap::new())),
            ("connection_init", None, Some(JsonValue::Object(payload))) => Some(Self::Init(payload)),
            ("ping", None, _) => Some(Self::Ping),
            ("pong", None, _) => Some(Self::Pong),
            ("subscribe", Some(id), Some(payload @ JsonValue::Object(_))) => Some(Self::Subscribe(id, payload)),
            ("complete", Some(id), _) => Some(Self::Complete(id)),
            _ => None,
        }
    }
}

/// `connection_ack`.
pub(super) fn ack() -> Message {
    Message::text("{\"type\":\"connection_ack\"}")
}

/// `pong`.
pub(super) fn pong() -> Message {
    Message::text("{\"type\":\"pong\"}")
}

/// `next` with a result, `error` with a list of errors, or `complete` without a payload. `None`: it is no UTF-8.
pub(super) fn of_operation(kind: &str, id: &str, payload: Option<&[u8]>) -> Option<Message> {
    let mut out = Vec::with_capacity(40 + id.len() + payload.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"id\":");
    write_json_string(&mut out, id);
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if let Some(payload) = payload {
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(payload);
    }
    out.push(b'}');
    String::from_utf8(out).ok().map(Message::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_the_protocol_are_read() {
        for (text, wanted) in [
            (r#"{"type":"connection_init"}"#, "Init"),
            (r#"{"type":"connection_init","payload":null}"#, "Init"),
            (r#"{"type":"connection_init","payload":{"a":1}}"#, "Init"),
            (r#"{"type":"ping","payload":{"x":1}}"#, "Ping"),
            (r#"{"type":"pong"}"#, "Pong"),
            (r#"{"id":"1","type":"subscribe","payload":{}}"#, "Subscribe"),
            (r#"{"id":"1","type":"complete"}"#, "Complete"),
            (r#"{"id":"1","type":"subscribe"}"#, ""),
            (r#"{"type":"subscribe","payload":{}}"#, ""),
            (r#"{"id":"","type":"subscribe","payload":{}}"#, ""),
            (r#"{"id":1,"type":"subscribe","payload":{}}"#, ""),
            (r#"{"type":"connection_init","payload":[]}"#, ""),
            (r#"{"type":"start","id":"1","payload":{}}"#, ""),
            (r#"{"type":"connection_ack"}"#, ""),
            ("{}", ""),
            ("[]", ""),
            ("", ""),
            ("{", ""),
        ] {
            let read = Received::read(Bytes::from_static(text.as_bytes()));
            let said = read.map_or(String::new(), |read| format!("{read:?}"));
            assert!(said.starts_with(wanted) && said.is_empty() == wanted.is_empty(), "{text}: {said}");
        }
    }
}
