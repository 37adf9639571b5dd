//! A client of server-sent events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::World;

pub(crate) struct Events {
    stream: TcpStream,
    read: Vec<u8>,
    begun: Event,
}

#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) id: String,
    data: Vec<String>,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data.join("\n")).unwrap()
    }
}

pub(crate) fn follow_with(world: &World, path: &str, headers: &[(&str, &str)]) -> Events {
    let mut stream = TcpStream::connect(world.api.address).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut events = Events { stream, read: Vec::new(), begun: Event::default() };
    let mut head = Vec::new();
    while head.last().is_none_or(|line: &String| !line.is_empty()) {
        match events.line() {
            Some(line) => head.push(line),
            None => assert!(events.receive(WAIT), "no head came"),
        }
    }
    assert_eq!(head[0], "HTTP/1.1 200 OK");
    assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
    events
}

const WAIT: Duration = Duration::from_secs(20);

impl Events {
    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let end = Instant::now() + WAIT;
        loop {
            // Comments come now and then also where nothing else does.
            assert!(Instant::now() < end, "no event came");
            if let Some(event) = self.event() {
                return Some(event);
            }
            if !self.receive(WAIT) {
                return None;
            }
        }
    }

    /// The next event, if it comes within so long.
    pub(crate) fn next_within(&mut self, wait: Duration) -> Option<Event> {
        if let Some(event) = self.event() {
            return Some(event);
        }
        self.receive(wait).then(|| self.event()).flatten()
    }

    /// Whether the stream ends, with nothing but comments before.
    pub(crate) fn is_over(&mut self) -> bool {
        loop {
            if let Some(line) = self.line() {
                // The last chunk of a body is empty.
                match line.as_str() {
                    "0" => return true,
                    line if line.starts_with("event") => return false,
                    _ => {}
                }
            } else if !self.receive(WAIT) {
                return true;
            }
        }
    }

    /// Waits for more; `false` at the end, and when a short wait was in vain.
    fn receive(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                count > 0
            }
            Err(error) => {
                assert!(wait < WAIT, "nothing came: {error}");
                false
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(String::from_utf8(line).unwrap().trim_end_matches(['\r', '\n']).to_string())
    }

    /// The next event of what was read. Sizes of chunks and comments are passed over.
    fn event(&mut self) -> Option<Event> {
        loop {
            let line = self.line()?;
            let event = &mut self.begun;
            match line.split_once(": ") {
                Some(("event", kind)) => event.kind = kind.into(),
                Some(("id", id)) => event.id = id.into(),
                Some(("data", data)) => event.data.push(data.into()),
                _ if line.is_empty() && !event.kind.is_empty() => return Some(std::mem::take(event)),
                _ => {}
            }
        }
    }
}
