//! What is followed, as an attacker sees it: events and subscriptions tell no more than an answer would, and no longer.

use std::time::{Duration, Instant};

use headwater_query_api::{Mask, ModelRule};
use serde_json::{Value, json};

use crate::events::{Events, follow_with};
use crate::fixture::{customer, int_key, put};
use crate::issuer::{good, now};
use crate::socket::Socket;
use crate::world::{Guarded, by_id, by_index, mask};

fn bearer(claims: Value) -> String {
    format!("Bearer {}", good(claims))
}

fn follow(world: &Guarded, claims: Value, path: &str) -> Events {
    follow_with(world, path, &[("Authorization", &bearer(claims))])
}

fn subscribed(query: &str) -> String {
    format!("/graphql?query={}", percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC))
}

fn set(world: &Guarded, id: i64, n: i64, name: &str) {
    let mut document = customer(id);
    (document["n"], document["name"]) = (json!(n), json!(name));
    put(&world.store, 1, &int_key(id), Some(&document));
}

#[test]
fn hidden_fields_are_in_nothing_that_is_followed() {
    let rule = ModelRule {
        masks: vec![mask(&["name", "invoices.total"], Mask::Hidden), mask(&["tariff.code"], Mask::Partial)],
        ..ModelRule::default()
    };
    let world = Guarded::new(rule);
    let mut socket = Socket::ready(&world, &json!({"authorization": bearer(json!({}))}));
    let mut said = |name: &str| {
        socket.subscribe("a", &format!("subscription {{ customerChanged(id: 7) {{ id {name} }} }}"));
        let heard = socket.hear();
        assert_eq!(heard["type"], "error", "{heard}");
        heard["payload"][0]["message"].as_str().unwrap().replace(name, "_")
    };
    assert_eq!(said("name"), said("zzzz"), "hidden and unknown are refused alike");
    assert!(!said("naem").contains("`name`"));
    for refused in ["filter[name][eq]=x", "sort=name", "fields=name", "filter[invoices.total][gt]=1"] {
        let headers = [("accept", "text/event-stream"), ("authorization", &*bearer(json!({})))];
        let answer = world.get_with(&format!("/v1/customer?{refused}"), &headers);
        assert_eq!(answer.status, 400, "{refused}");
    }
    let query = "subscription { customerChanged(id: 11) { id n tariff { code } invoices { number status } } }";
    for hidden in ["where: {name: {eq: \"x\"}}", "orderBy: name_ASC", "where: {invoices_total: {gt: \"1\"}}"] {
        socket.subscribe("c", &format!("subscription {{ customersChanged({hidden}) {{ nodes {{ id }} }} }}"));
        assert_eq!(socket.hear()["type"], "error", "{hidden}");
    }
    socket.subscribe("b", query);
    let mut events = follow(&world, json!({}), &subscribed(query));
    let mut list = follow(&world, json!({}), "/v1/customer?filter[n][gte]=0&sort=n&limit=100");
    let page = "subscription { customersChanged(where: {n: {gte: 5}}, orderBy: n_ASC, first: 100) { nodes { id n \
                tariff { code } invoices { number status } } } }";
    let mut pages = follow(&world, json!({}), &subscribed(page));
    let first = socket.result("b");
    assert_eq!(first["data"]["customerChanged"]["tariff"]["code"], "****", "{first}");
    let mut told =
        vec![first.to_string(), events.next().unwrap().json().to_string(), list.next().unwrap().json().to_string()];
    let is_five = |page: &Value| {
        let nodes = page["data"]["customersChanged"]["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["id"] == 11 && node["n"] == 5)
    };
    let before = pages.next().unwrap().json();
    assert!(!is_five(&before) && before.to_string().contains("****"), "{before}");
    told.push(before.to_string());
    // What changes of a hidden field alone is no event of a subscription: the next one is of what is shown.
    set(&world, 11, 1, "a secret name");
    set(&world, 11, 5, "a secret name");
    for result in [socket.result("b"), events.next().unwrap().json()] {
        assert_eq!(result["data"]["customerChanged"]["n"], 5, "{result}");
        told.push(result.to_string());
    }
    let mut last = list.next().unwrap().json();
    while !last["put"].as_array().unwrap().iter().any(|put| put["document"]["n"] == 5) {
        told.push(last.to_string());
        last = list.next().unwrap().json();
    }
    told.push(last.to_string());
    let page = pages.next().unwrap().json();
    assert!(is_five(&page), "{page}");
    told.push(page.to_string());
    for text in told {
        for word in ["name ", "a secret", "\"total\"", "T11", "11.00"] {
            assert!(!text.contains(word), "`{word}` is told: {text}");
        }
    }
}

#[test]
fn a_foreign_document_is_followed_like_one_that_is_not_there() {
    let world = Guarded::new(by_id());
    let me = || json!({"customer_id": 8});
    let query = |id: &str| subscribed(&format!("subscription {{ customerChanged(id: \"{id}\") {{ n }} }}"));
    for id in ["7", "999", "no number", "-1"] {
        let headers = [("accept", "text/event-stream"), ("authorization", &*bearer(me()))];
        assert_eq!(world.get_with(&format!("/v1/customer/{}", id.replace(' ', "%20")), &headers).status, 404, "{id}");
        let first = follow(&world, me(), &query(id)).next().unwrap();
        assert_eq!(first.json(), json!({"data": {"customerChanged": null}}), "{id}");
        let headers = [("Authorization", &*bearer(me())), ("Last-Event-ID", &*first.id)];
        let mut back = follow_with(&world, &query(id), &headers);
        assert!(back.next_within(Duration::from_millis(100)).is_none(), "{id}: nor is it told to who comes back");
    }
    // Nor is it told that one comes, changes and goes.
    let mut foreign = follow(&world, me(), &query("7"));
    let mut list = follow(&world, me(), "/v1/customer?sort=n");
    let page = "subscription { customersChanged(orderBy: n_ASC) { nodes { id n } pageInfo { hasNextPage } } }";
    let mut pages = follow(&world, me(), &subscribed(page));
    let of = |n: &Value| {
        let page = json!({"nodes": [{"id": 8, "n": n}], "pageInfo": {"hasNextPage": false}});
        json!({"data": {"customersChanged": page}})
    };
    assert_eq!(pages.next().unwrap().json(), of(&customer(8)["n"]));
    assert_eq!(foreign.next().unwrap().json()["data"]["customerChanged"], Value::Null);
    assert_eq!(list.next().unwrap().json()["data"].as_array().unwrap().len(), 1);
    for n in [100, 101] {
        set(&world, 7, n, "a secret");
    }
    put(&world.store, 1, &int_key(7), None);
    set(&world, 8, 55, "mine");
    let event = list.next().unwrap();
    assert_eq!((&event.json()["put"][0]["document"]["n"], event.json()["remove"].clone()), (&json!(55), json!([])));
    assert_eq!(pages.next().unwrap().json(), of(&json!(55)), "nothing is said of the other");
    assert!(foreign.next_within(Duration::from_millis(200)).is_none(), "nothing is said of the other");
}

#[test]
fn a_document_that_goes_to_another_leaves_what_is_followed() {
    let world = Guarded::new(by_index());
    let mut list = follow(&world, json!({"group": 3}), "/v1/customer?limit=100&fields=id,n");
    let first = list.next().unwrap().json();
    assert!(first["data"].as_array().unwrap().iter().all(|one| one["n"] == 3), "{first}");
    let query = "subscription { customerChanged(id: 13) { n name } }";
    let mut events = follow(&world, json!({"group": 3}), &subscribed(query));
    assert_eq!(events.next().unwrap().json()["data"]["customerChanged"]["n"], 3);
    let page = subscribed("subscription { customersChanged(first: 100) { nodes { id } } }");
    let mut pages = follow(&world, json!({"group": 3}), &page);
    let has_13 = |page: Value| page.to_string().contains("{\"id\":13}");
    assert!(has_13(pages.next().unwrap().json()));
    set(&world, 13, 4, "a secret of the other");
    assert!(!has_13(pages.next().unwrap().json()));
    let gone = list.next().unwrap().json();
    assert_eq!((gone["remove"].as_array().unwrap().len(), &gone["put"]), (1, &json!([])), "{gone}");
    assert_eq!(events.next().unwrap().json()["data"]["customerChanged"], Value::Null);
    // What is another's comes and goes unheard; what is one's own again is told.
    set(&world, 13, 4, "another secret");
    set(&world, 14, 3, "one more of ours");
    let come = list.next().unwrap().json();
    assert_eq!(come["put"][0]["document"], json!({"id": 14, "n": 3}), "{come}");
    set(&world, 13, 3, "ours again");
    assert_eq!(events.next().unwrap().json()["data"]["customerChanged"]["name"], "ours again");
}

#[test]
fn no_id_of_an_event_opens_anything() {
    let world = Guarded::new(by_index());
    let all = "/v1/customer?limit=5&fields=id,n";
    let others = follow(&world, json!({"group": 4}), all).next().unwrap();
    for id in [others.id.as_str(), "1-0", "", "x", "99999999999999999999-1", "1-00000000000000000000000000000000"] {
        let headers = [("Authorization", &*bearer(json!({"group": 3}))), ("Last-Event-ID", id)];
        let event = follow_with(&world, all, &headers).next().unwrap();
        assert_eq!(event.kind, "reset", "{id}");
        assert!(event.json()["data"].as_array().unwrap().iter().all(|one| one["n"] == 3), "{id}: {}", event.json());
    }
    // A state has another id for each caller, also where it is the same: nobody can try out what is hidden.
    let by_graphql = subscribed("subscription { customersChanged(first: 5) { nodes { id n } } }");
    for path in [all, &by_graphql] {
        let id_of = |sub: &str| {
            let claims = json!({"sub": sub, "group": 4});
            (follow(&world, claims.clone(), path).next().unwrap(), follow(&world, claims, path).next().unwrap())
        };
        let (one, two) = (id_of("one"), id_of("two"));
        assert_eq!((one.0.json()["data"].clone(), &one.0.id), (two.0.json()["data"].clone(), &one.1.id));
        assert!(one.0.id != two.0.id && two.0.id == two.1.id);
    }
    // What members are called tells no id, and another caller's list calls them otherwise.
    let same = follow(&world, json!({"sub": "another", "group": 4}), all).next().unwrap().json();
    let keys = |page: &Value| page["keys"].as_array().unwrap().clone();
    assert!(keys(&same).iter().all(|key| !keys(&others.json()).contains(key)));
}

#[test]
fn what_is_shown_otherwise_is_told_again() {
    let world = Guarded::new(ModelRule { masks: vec![mask(&["name"], Mask::Hidden)], ..ModelRule::default() });
    let resume = |claims: &Value, path: &str, id: &str| {
        let headers = [("Authorization", &*bearer(claims.clone())), ("Last-Event-ID", id)];
        follow_with(&world, path, &headers)
    };
    let has_name = |told: Value| told.to_string().contains("\"name\":");
    // One and the same caller, who has the role for some time.
    let (before, during) = (json!({}), json!({"roles": ["support"]}));
    for (path, kind) in [("/v1/customer/8", "document"), ("/v1/customer?limit=3", "reset")] {
        let masked = follow(&world, before.clone(), path).next().unwrap();
        let whole = resume(&during, path, &masked.id).next().unwrap();
        assert_eq!(
            (whole.kind.as_str(), has_name(masked.json()), has_name(whole.json())),
            (kind, false, true),
            "{path}"
        );
        // What is hidden from now on does not stay on the page until the document changes.
        let again = resume(&before, path, &whole.id).next().unwrap();
        assert_eq!(
            (again.kind.as_str(), again.json()["page"].clone()),
            (kind, masked.json()["page"].clone()),
            "{path}"
        );
        assert!(!has_name(again.json()) && again.id == masked.id, "{path}");
        let mut same = resume(&before, path, &again.id);
        assert!(same.next_within(Duration::from_millis(200)).is_none(), "{path}: nothing is shown otherwise");
    }
}

#[test]
fn what_is_followed_ends_with_its_credentials() {
    let world = Guarded::new(by_id());
    let begin = Instant::now();
    let page = "subscription { customersChanged(first: 5) { nodes { n } } }";
    // Within the leeway of 30 s there is no need to wait for it all.
    let claims = json!({"customer_id": 7, "exp": now() - 28});
    let query = "subscription { customerChanged(id: 7) { n } }";
    let mut all = [
        follow(&world, claims.clone(), &subscribed(query)),
        follow(&world, claims.clone(), &subscribed(page)),
        follow(&world, claims.clone(), "/v1/customer?limit=5"),
        follow(&world, claims, "/v1/customer/7"),
    ];
    for events in &mut all {
        assert!(events.next().is_some());
    }
    for events in &mut all {
        assert!(events.is_over(), "the stream ended");
    }
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[test]
fn sockets_take_places_of_connections() {
    let world = Guarded::with(ModelRule::default(), |access| access.limits.connections_max = 3);
    let init = json!({"x-api-key": crate::world::API_KEY});
    let mut sockets: Vec<Socket> = (0..3).map(|_| Socket::ready(&world, &init)).collect();
    let address = world.api.address;
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let headers = [("x-api-key", crate::world::API_KEY)];
        let answer = crate::fixture::request(&format!("http://{address}/v1/customer/7"), "GET", &headers, None);
        sender.send(answer.status).unwrap();
    });
    assert!(asked.recv_timeout(Duration::from_millis(300)).is_err(), "there is no place");
    sockets.pop();
    assert_eq!(asked.recv_timeout(Duration::from_secs(20)), Ok(200), "a place is free again");
}
