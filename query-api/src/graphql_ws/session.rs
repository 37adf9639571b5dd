//! The life of one WebSocket.

use std::collections::HashMap;
use std::future::pending;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apollo_compiler::response::{JsonMap, JsonValue};
use bytes::Bytes;
use futures_util::stream::{AbortHandle, SelectAll, abortable};
use futures_util::{SinkExt, Stream, StreamExt};
use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::message::{self, Ending, Received};
use super::operation::{self, Asker, Event, Said};
use crate::access::{Denial, Principal, X_API_KEY};
use crate::api::Api;
use crate::channel::ChannelId;
use crate::context::RequestId;
use crate::graphql::Refused;

/// How often a client is asked whether it is there. One that says nothing for twice as long is not.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a client may take to take what is sent.
const SEND_WAIT: Duration = Duration::from_secs(20);
/// How long a client may take to say goodbye.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Events = SelectAll<Pin<Box<dyn Stream<Item = Event> + Send>>>;

/// One connection.
pub(super) struct Session {
    api: Arc<Api>,
    address: IpAddr,
    request_id: RequestId,
    /// Who has shown who they are when it was opened.
    shown: Option<Arc<Principal>>,
    /// What of the opening decides on the channel.
    head: (Uri, HeaderMap),
    /// Who asks, from the first message on.
    asker: Option<Asker>,
    /// What ends each operation that runs.
    running: HashMap<Arc<str>, AbortHandle>,
    events: Events,
    /// Room for operations whose first result is made or was not taken.
    ahead: Arc<Semaphore>,
}

/// How a connection ends: with a word, or because nobody is there.
enum End {
    Said(Ending),
    Gone,
}

impl Session {
    /// Of a caller at this address, with what was shown when the connection was opened: who it is, if that was, and what
    /// decides on the channel.
    pub(super) fn new(
        api: Arc<Api>,
        address: IpAddr,
        (shown, head): (Option<Arc<Principal>>, (Uri, HeaderMap)),
        request_id: RequestId,
    ) -> Self {
        let (running, events) = (HashMap::new(), SelectAll::new());
        let ahead = Arc::new(Semaphore::new(operation::AHEAD_MAX));
        Self { api, address, request_id, shown, head, asker: None, running, events, ahead }
    }

    /// Talks until one side ends it.
    pub(super) async fn run(mut self, mut socket: Socket) {
        if let End::Said(Ending(code, reason)) = self.talk(&mut socket).await {
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            let goodbye = async {
                socket.close(Some(frame)).await?;
                while socket.next().await.transpose()?.is_some() {}
                Ok::<(), Error>(())
            };
            // Whether the client has heard it makes no difference any more.
            let _ = timeout(CLOSE_WAIT, goodbye).await;
        }
    }

    async fn talk(&mut self, socket: &mut Socket) -> End {
        let init_end = Instant::now() + self.api.graphql.init_wait;
        let mut heard = Instant::now();
        let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.api.stop.clone();
        loop {
            let principal = self.asker.as_ref().map(|asker| asker.context.principal.clone());
            // Streams keep what was not taken, marks stay until they are seen, and the rest are clocks.
            let done = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.take(socket, message).await,
                        Some(Err(Error::Capacity(_))) => Err(End::Said(Ending::TOO_LARGE)),
                        Some(Err(Error::Utf8(_))) => Err(End::Said(Ending::INVALID)),
                        Some(Err(_)) | None => Err(End::Gone),
                    }
                }
                Some(event) = self.events.next(), if !self.events.is_empty() => self.tell(socket, event).await,
                () = stop.cancelled() => Err(End::Said(Ending::STOPPING)),
                () = ended(principal.as_deref()) => Err(End::Said(Ending::EXPIRED)),
                () = sleep_until(init_end), if principal.is_none() => Err(End::Said(Ending::INIT_TIMEOUT)),
                _ = ping.tick() => match heard.elapsed() > 2 * PING_EVERY {
                    true => Err(End::Gone),
                    false => send(socket, Message::Ping(Bytes::new())).await,
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Does what a message says.
    async fn take(&mut self, socket: &mut Socket, message: Message) -> Result<(), End> {
        let text = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(_) => return Err(End::Said(Ending::INVALID)),
            Message::Close(_) => {
                // The library has the answer at hand (RFC 6455, 5.5.1), and nothing else would send it.
                let _ = timeout(CLOSE_WAIT, socket.flush()).await;
                return Err(End::Gone);
            }
            // The library has answered a ping already.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        match Received::read(text).ok_or(End::Said(Ending::INVALID))? {
            Received::Init(_) if self.asker.is_some() => Err(End::Said(Ending::INIT_TWICE)),
            Received::Init(payload) => {
                let principal = self.identify(&payload).await?;
                let channel = self.channel(&payload)?;
                let (caller, now) = ((principal, self.address), Instant::now().into_std());
                let context = self.api.context(self.request_id.clone(), caller, channel, now);
                let patient_until = now + self.api.graphql.patience;
                self.asker = Some(Asker { api: self.api.clone(), context, address: self.address, patient_until });
                send(socket, message::ack()).await
            }
            Received::Ping => send(socket, message::pong()).await,
            Received::Pong => Ok(()),
            Received::Subscribe(id, payload) => self.subscribe(socket, id.into(), payload).await,
            Received::Complete(id) => {
                if let Some(running) = self.running.remove(id.as_str()) {
                    running.abort();
                }
                Ok(())
            }
        }
    }

    /// Who asks, by what the first message shows, or else by what was shown when the connection was opened.
    async fn identify(&mut self, payload: &JsonMap) -> Result<Arc<Principal>, End> {
        let mut given = HeaderMap::new();
        for (name, value) in payload.iter() {
            let header = match name.as_str() {
                name if name.eq_ignore_ascii_case("authorization") => AUTHORIZATION,
                name if name.eq_ignore_ascii_case(X_API_KEY.as_str()) => X_API_KEY,
                _ => continue,
            };
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            let value = value.ok_or_else(|| self.denied("credentials_malformed", Ending::FORBIDDEN))?;
            given.append(header, value);
        }
        match self.shown.take() {
            Some(shown) if given.is_empty() => Ok(shown),
            // Two answers to one question: whichever is meant, the other is not.
            Some(_) => Err(self.denied("credentials_twice", Ending::FORBIDDEN)),
            None => self.api.gate.identify(&given, self.address).await.map_err(|refusal| {
                refusal.audit(&self.request_id);
                End::Said(Ending::FORBIDDEN)
            }),
        }
    }

    /// Ends the connection of a caller that is not known.
    fn denied(&self, reason: &'static str, ending: Ending) -> End {
        Denial::of_stranger(self.address, reason).tell(&self.request_id);
        End::Said(ending)
    }

    /// The channel, by what the connection was opened with and what the first message adds: browsers send no headers of
    /// a page's own when they open one.
    fn channel(&mut self, payload: &JsonMap) -> Result<ChannelId, End> {
        let channels = self.api.channels.clone();
        let (uri, headers) = &mut self.head;
        for (name, value) in payload.iter() {
            let named = channels.headers().iter().find(|header| name.as_str().eq_ignore_ascii_case(header.as_str()));
            if let Some(header) = named {
                let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
                headers.append(header.clone(), value.ok_or(End::Said(Ending::NO_CHANNEL))?);
            }
        }
        channels.choose(uri, headers).map_err(|problem| {
            self.api.metrics.failed(problem.code);
            End::Said(Ending::NO_CHANNEL)
        })
    }

    async fn subscribe(&mut self, socket: &mut Socket, id: Arc<str>, payload: JsonValue) -> Result<(), End> {
        let asker = self.asker.as_ref().ok_or_else(|| self.denied("no_credentials", Ending::UNAUTHORIZED))?;
        if self.running.contains_key(&id) {
            return Err(End::Said(Ending(4409, "Subscriber for this id already exists")));
        }
        let max = self.api.graphql.subscriptions_max;
        if self.running.len() >= max {
            let message = format!("{max} operations run on this connection already: complete one of them");
            let refused = Refused::new("limit_exceeded", 429, message);
            asker.count(Err(&refused), Duration::ZERO);
            Denial::of_caller(&asker.context.principal, self.address, "operations").tell(&self.request_id);
            let refused = refused.list(&asker.context);
            return send(socket, operation_message("error", &id, Some(&refused))?).await;
        }
        let (events, handle) = abortable(operation::run(asker.clone(), id.clone(), payload, self.ahead.clone()));
        self.running.insert(id, handle);
        self.events.push(Box::pin(events));
        Ok(())
    }

    /// Sends what an operation says.
    async fn tell(&mut self, socket: &mut Socket, event: Event) -> Result<(), End> {
        let Event { id, said } = event;
        let message = match &said {
            Said::Next(result) => operation_message("next", &id, Some(&result[..]))?,
            Said::Error(errors) => operation_message("error", &id, Some(&errors[..]))?,
            Said::Complete => operation_message("complete", &id, None)?,
            Said::Broken => return Err(End::Said(Ending::BROKEN)),
        };
        if !matches!(said, Said::Next(_)) {
            self.running.remove(&id);
        }
        send(socket, message).await
    }
}

/// Waits until it is no longer known who asks; for ever where that was not said.
async fn ended(principal: Option<&Principal>) {
    match principal {
        Some(principal) => principal.ended().await,
        None => pending().await,
    }
}

fn operation_message(kind: &str, id: &str, payload: Option<&[u8]>) -> Result<Message, End> {
    message::of_operation(kind, id, payload).ok_or(End::Said(Ending::INTERNAL))
}

/// Sends, and waits until it is taken. Nothing is read meanwhile: a client that takes nothing gives nothing to do.
async fn send(socket: &mut Socket, message: Message) -> Result<(), End> {
    match timeout(SEND_WAIT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}
