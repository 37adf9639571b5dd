//! Lists that are followed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use headwater_store::VersionState;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::events::{Event, Events, follow_with};
use crate::fixture::{World, customer, customers, int_key, put, put_with_statuses, record, set_version, set_versions};

/// What a client of a followed list keeps, and how it applies what it is told.
#[derive(Default)]
struct Client {
    list: Vec<(String, Value)>,
    has_more: bool,
    last_id: Option<String>,
}

impl Client {
    fn apply(&mut self, event: &Event) {
        let data = event.json();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        match event.kind.as_str() {
            "page" | "reset" => {
                let keys = data["keys"].as_array().unwrap().iter().map(text);
                self.list = keys.zip(data["data"].as_array().unwrap().iter().cloned()).collect();
            }
            "change" => {
                let (gone, put) = (data["remove"].as_array().unwrap(), data["put"].as_array().unwrap());
                let taken: BTreeSet<String> = gone.iter().chain(put.iter().map(|one| &one["key"])).map(text).collect();
                self.list.retain(|(key, _)| !taken.contains(key));
                for one in put {
                    let behind = |after: &str| self.list.iter().position(|(key, _)| key == after).unwrap() + 1;
                    let at = one["after"].as_str().map_or(0, behind);
                    self.list.insert(at, (text(&one["key"]), one["document"].clone()));
                }
            }
            kind => panic!("an event of kind {kind}"),
        }
        self.has_more = data["page"]["hasMore"] == true;
        self.last_id = Some(event.id.clone());
    }

    fn documents(&self) -> Vec<&Value> {
        self.list.iter().map(|(_, document)| document).collect()
    }

    fn follow(&self, world: &World, path: &str) -> Events {
        let headers: Vec<(&str, &str)> = self.last_id.iter().map(|id| ("Last-Event-ID", id.as_str())).collect();
        follow_with(world, path, &headers)
    }
}

fn set(world: &World, id: i64, n: i64) {
    let mut document = customer(id);
    document["n"] = json!(n);
    put(&world.store, 1, &int_key(id), Some(&document));
}

#[test]
fn what_comes_goes_and_changes_is_told_and_no_more() {
    let world = World::new();
    let path = "/v1/customer?filter[n][gte]=100&sort=n&limit=3&fields=id,n";
    let mut client = Client::default();
    let mut events = client.follow(&world, path);
    let mut next = |client: &mut Client| {
        let event = events.next().unwrap();
        client.apply(&event);
        (event.kind.clone(), event.json())
    };
    let (kind, data) = next(&mut client);
    assert_eq!((kind.as_str(), data), ("page", json!({"data": [], "keys": [], "page": {"hasMore": false}})));
    set(&world, 5, 105);
    let (kind, data) = next(&mut client);
    assert_eq!((kind.as_str(), data["put"].as_array().unwrap().len()), ("change", 1));
    assert_eq!(client.documents(), [&json!({"id": 5, "n": 105})]);
    // What is not on the list makes no event: the next one is of what is.
    set(&world, 6, 6);
    set(&world, 3, 103);
    next(&mut client);
    assert_eq!(client.documents(), [&json!({"id": 3, "n": 103}), &json!({"id": 5, "n": 105})]);
    set(&world, 3, 109);
    let (_, data) = next(&mut client);
    assert_eq!((data["remove"].as_array().unwrap().len(), data["put"].as_array().unwrap().len()), (0, 1));
    assert_eq!(client.documents(), [&json!({"id": 5, "n": 105}), &json!({"id": 3, "n": 109})]);
    set(&world, 9, 100);
    next(&mut client);
    set(&world, 8, 101);
    let (_, data) = next(&mut client);
    assert_eq!((data["remove"].as_array().unwrap().len(), client.has_more), (1, true), "one too many: {data}");
    // Behind the end of the page.
    set(&world, 10, 500);
    put(&world.store, 1, &int_key(9), None);
    next(&mut client);
    let ids: Vec<&Value> = client.documents().iter().map(|document| &document["id"]).collect();
    assert_eq!(ids, [8, 5, 3]);
    for (query, parameter) in [("limit=3&count=exact", "count"), ("ids=1,2", "ids"), ("fields=nothing", "fields")] {
        let answer = world.get_with(&format!("/v1/customer?{query}"), &[("accept", "text/event-stream")]);
        assert_eq!((answer.status, &answer.json()["parameter"]), (400, &json!(parameter)));
    }
}

#[test]
fn a_page_that_ended_early_notices_what_comes_where_it_looked() {
    let world = World::with_options(|options| options.entries_max = 4);
    // Only the first of these has an open invoice, and the fourth is the last that is looked at.
    for (id, n) in [(9, 101), (1, 102), (5, 103), (4, 104), (13, 105)] {
        set(&world, id, n);
    }
    let mut client = Client::default();
    let path = "/v1/customer?filter[n][gte]=100&filter[invoices.status][eq]=open&sort=n&fields=id";
    let mut events = client.follow(&world, path);
    client.apply(&events.next().unwrap());
    assert_eq!((client.documents(), client.has_more), (vec![&json!({"id": 9})], true));
    // Behind the last that was found.
    set(&world, 3, 102);
    client.apply(&events.next().unwrap());
    assert_eq!(client.documents(), [&json!({"id": 9}), &json!({"id": 3})]);
}

#[test]
fn that_nothing_more_is_behind_the_page_is_told() {
    let world = World::new();
    for path in ["/v1/customer?filter[n][gte]=100&sort=n&limit=3", "/v1/customer?filter[n][gte]=100&sort=-n&limit=3"] {
        // The first three stand on the page, whichever way it is walked.
        let ids = if path.contains("-n") { [5, 4, 3, 2, 1] } else { [1, 2, 3, 4, 5] };
        (1..=5).for_each(|id| set(&world, id, 100 + id));
        let mut client = Client::default();
        let mut events = client.follow(&world, path);
        client.apply(&events.next().unwrap());
        assert_eq!((client.list.len(), client.has_more), (3, true), "{path}");
        // One is still there.
        put(&world.store, 1, &int_key(ids[3]), None);
        assert!(events.next_within(Duration::from_millis(200)).is_none(), "{path}: there is more as before");
        // It stays, but not on this list.
        set(&world, ids[4], 5);
        let told = json!({"remove": [], "put": [], "page": {"hasMore": false}});
        let event = events.next().unwrap();
        assert_eq!((event.kind.as_str(), event.json()), ("change", told), "{path}");
        set(&world, ids[4], 100 + ids[4]);
        let told = json!({"remove": [], "put": [], "page": {"hasMore": true}});
        assert_eq!(events.next().unwrap().json(), told, "{path}");
        put(&world.store, 1, &int_key(ids[4]), None);
        client.apply(&events.next().unwrap());
        assert_eq!((client.list.len(), client.has_more), (3, false), "{path}");
    }
}

#[test]
fn what_two_elements_meet_together_is_not_on_the_list() {
    let world = World::new();
    let path = "/v1/customer?filter[invoices.status][startsWith]=TALK&filter[invoices.status][contains]=FLAT&fields=id";
    let mut client = Client::default();
    let mut events = client.follow(&world, path);
    client.apply(&events.next().unwrap());
    put_with_statuses(&world, 1, ["TALK-MIN", "DATA-FLAT"]);
    put_with_statuses(&world, 2, ["TALK-FLAT", "DATA-MIN"]);
    client.apply(&events.next().unwrap());
    assert_eq!(client.documents(), [&json!({"id": 2})]);
}

#[test]
fn a_client_that_comes_back_is_told_what_it_missed_and_only_then() {
    let world = World::new();
    let path = "/v1/customer?filter[n][gte]=100&sort=-n";
    let mut client = Client::default();
    set(&world, 5, 105);
    client.apply(&client.follow(&world, path).next().unwrap());
    let mut events = client.follow(&world, path);
    set(&world, 6, 106);
    let event = events.next().unwrap();
    assert_eq!(event.kind, "change", "nothing was missed, so nothing was told again");
    client.apply(&event);
    drop(events);
    put(&world.store, 1, &int_key(5), None);
    let event = client.follow(&world, path).next().unwrap();
    assert_eq!(event.kind, "reset");
    client.apply(&event);
    assert_eq!(client.documents().len(), 1);
    // A state of another list is no state of this one.
    let event = client.follow(&world, "/v1/customer?filter[n][gte]=3&sort=n").next().unwrap();
    assert_eq!(event.kind, "reset");
    let event = client.follow(&world, &format!("{path}&fields=id")).next().unwrap();
    assert_eq!((event.kind.as_str(), &event.json()["data"]), ("reset", &json!([{"id": 6}])), "other fields of it");

    // A new version is a new list.
    let mut events = client.follow(&world, path);
    set_version(&world.store, &record(3, customers(), VersionState::Building));
    put(
        &world.store,
        3,
        &int_key(7),
        Some(&{
            let mut document = customer(7);
            document["n"] = json!(777);
            document
        }),
    );
    let switch = [record(1, customers(), VersionState::Retired), record(3, customers(), VersionState::Active)];
    set_versions(&world.store, &switch);
    let event = events.next().unwrap();
    assert_eq!((event.kind.as_str(), &event.json()["data"][0]["n"]), ("reset", &json!(777)));
    let World { stop, .. } = &world;
    stop.cancel();
    assert!(events.next().is_none());
}

/// Whatever is written, and wherever the client was cut off, in the end it has what a fresh read has.
#[test]
fn a_client_that_is_cut_off_at_random_ends_with_what_there_is() {
    let seed: u64 =
        std::env::var("HEADWATER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("HEADWATER_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new();
    let queries = [
        "filter[n][gte]=5&sort=n&limit=4",
        "sort=-n&limit=10",
        "filter[invoices.status][eq]=open&limit=7",
        "filter[invoices.status][ne]=paid&filter[n][lt]=8&sort=-name&limit=5&fields=id,n",
        "limit=6",
        "filter[name][contains]=even&filter[n][in]=1,2,3,4,5&limit=100",
    ];
    let paths = queries.map(|query| format!("/v1/customer?{query}"));
    let mut clients: Vec<(Client, Option<Events>)> = paths.iter().map(|_| (Client::default(), None)).collect();
    for _ in 0..40 {
        for _ in 0..random.random_range(1..4) {
            let id = random.random_range(1..=60);
            if random.random_bool(0.3) {
                put(&world.store, 1, &int_key(id), None);
            } else {
                set(&world, id, random.random_range(0..10));
            }
        }
        for ((client, events), path) in clients.iter_mut().zip(&paths) {
            match random.random_range(0..4) {
                0 => *events = None,
                1 => *events = Some(client.follow(&world, path)),
                // Some that came are read, and others are left in the pipe for when it is cut.
                _ => {
                    if let Some(event) = events.as_mut().and_then(|events| events.next_within(Duration::from_millis(3)))
                    {
                        client.apply(&event);
                    }
                }
            }
        }
    }
    for ((client, events), path) in clients.iter_mut().zip(&paths) {
        let fresh = world.get(path).json();
        let wanted: Vec<&Value> = fresh["data"].as_array().unwrap().iter().collect();
        let mut events = events.take().unwrap_or_else(|| client.follow(&world, path));
        let end = Instant::now() + Duration::from_secs(60);
        while client.last_id.is_none()
            || client.documents() != wanted
            || client.has_more != (fresh["page"]["hasMore"] == true)
        {
            assert!(Instant::now() < end, "{path} ended with {:?}, and not {wanted:?}", client.documents());
            if let Some(event) = events.next_within(Duration::from_millis(100)) {
                client.apply(&event);
            }
        }
    }
}
