//! Live documents.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use headwater_store::VersionState;
use serde_json::{Value, json};

use crate::fixture::{World, customer, customers, int_key, put, record, set_version, set_versions, wait_until};

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

fn follow(world: &World, path: &str, last: Option<&str>) -> Events {
    let headers: Vec<(&str, &str)> = last.iter().map(|last| ("Last-Event-ID", *last)).collect();
    follow_with(world, path, &headers)
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
        loop {
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

#[test]
fn every_change_is_told_and_a_client_resumes() {
    let world = World::new();
    let mut events = follow(&world, "/v1/customer/7", None);
    let first = events.next().unwrap();
    assert_eq!((first.kind.as_str(), first.json()), ("document", customer(7)));
    let mut document = customer(7);
    for n in [100, 101] {
        document["n"] = json!(n);
        put(&world.store, 1, &int_key(8), Some(&customer(8 * n)));
        put(&world.store, 1, &int_key(7), Some(&document));
        assert_eq!(events.next().unwrap().json()["n"], n);
    }
    put(&world.store, 1, &int_key(7), None);
    let deleted = events.next().unwrap();
    assert_eq!((deleted.kind.as_str(), deleted.json()), ("deleted", Value::Null));
    put(&world.store, 1, &int_key(7), Some(&document));
    let back = events.next().unwrap();
    assert_eq!(back.json()["n"], 101);
    drop(events);

    // What the client has is not told again; what came since is.
    let mut resumed = follow(&world, "/v1/customer/7?fields=n", Some(&back.id));
    document["n"] = json!(102);
    put(&world.store, 1, &int_key(7), Some(&document));
    assert_eq!(resumed.next().unwrap().json(), json!({"n": 102}));
    let mut behind = follow(&world, "/v1/customer/7?fields=n", Some(&first.id));
    assert_eq!(behind.next().unwrap().json(), json!({"n": 102}));
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    assert!(metrics.contains("headwater_api_live_streams 2"), "{metrics}");
    let absent = world.get_with("/v1/customer/999", &[("accept", "text/event-stream")]);
    assert_eq!(absent.status, 404);
    drop((resumed, behind));
    wait_until("the streams to be forgotten", || {
        // A closed connection is seen at the next write.
        document["n"] = json!(document["n"].as_i64().unwrap() + 1);
        put(&world.store, 1, &int_key(7), Some(&document));
        world.admin("GET", "/metrics", &[], None).body.contains("headwater_api_live_streams 0")
    });
}

#[test]
fn a_stream_goes_over_to_a_new_version_and_ends_with_the_server() {
    let world = World::new();
    let mut events = follow(&world, "/v1/customer/7", None);
    events.next().unwrap();
    set_version(&world.store, &record(3, customers(), VersionState::Building));
    put(&world.store, 3, &int_key(7), Some(&json!({"id": 7, "new": true})));
    let switch = [record(1, customers(), VersionState::Retired), record(3, customers(), VersionState::Active)];
    set_versions(&world.store, &switch);
    assert_eq!(events.next().unwrap().json()["new"], true);
    put(&world.store, 3, &int_key(7), Some(&json!({"id": 7, "new": false})));
    assert_eq!(events.next().unwrap().json()["new"], false);

    let World { api, stop, runtime, .. } = world;
    stop.cancel();
    assert!(events.next().is_none());
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), api.join).await }).unwrap().unwrap();
    assert!(TcpStream::connect(api.admin_address).is_err(), "the admin port is closed last");
}
