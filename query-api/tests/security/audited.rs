//! Every denial is one line of the audit log: who, from where, and why.

use std::num::NonZeroU32;
use std::time::Duration;

use headwater_query_api::{ModelRule, Rate, TrustedDocuments};
use serde_json::{Value, json};

use crate::events::follow_with;
use crate::fixture::{customer, int_key, put};
use crate::issuer::{RSA, Signing, claims, good, now, token};
use crate::lines::Lines;
use crate::socket::{PROTOCOL, Socket};
use crate::world::{API_KEY, Guarded, HANGS, by_id, hang};

const FOLLOW: &str = "subscription { customerChanged(id: 7) { n } }";

/// The lines of a request.
fn lines_of(request_id: &str) -> Vec<Value> {
    let all = Lines::all().of(request_id);
    all.into_iter().filter(|line| line["target"] == "headwater::audit").collect()
}

/// The one line of a request.
fn line_of(request_id: &str) -> Value {
    let told = lines_of(request_id);
    assert_eq!(told.len(), 1, "{request_id}: {told:?}");
    assert_eq!((&told[0]["message"], &told[0]["address"]), (&json!("access denied"), &json!("127.0.0.1")));
    let text = told[0].to_string();
    for word in [API_KEY, "eyJ", "name 8", "secret"] {
        assert!(!text.contains(word), "`{word}` is told: {text}");
    }
    told[0].clone()
}

fn rate(requests: u32) -> Option<Rate> {
    let requests = NonZeroU32::new(requests).unwrap();
    Some(Rate { requests, per: Duration::from_secs(3600), burst: requests })
}

#[test]
fn whoever_cannot_show_who_asks_is_told_of() {
    Lines::all();
    let world = Guarded::with(ModelRule::default(), |access| {
        access.auth.as_mut().unwrap().issuers[0].required = vec!["tenant".into()];
    });
    let signed = |header: Value, more: Value| {
        let more = claims(json!({"tenant": 1})).as_object().unwrap().clone().into_iter().chain(object(more)).collect();
        format!("Bearer {}", token(&header, &Value::Object(more), &Signing::Rs256(&RSA)))
    };
    let bearer = |more: Value| signed(json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"}), more);
    let authorization = |value: &str| vec![("authorization", value.to_string())];
    let key = |value: &str| vec![("x-api-key", value.to_string())];
    let good = bearer(json!({}));
    assert_eq!(world.get_with("/v1/customer/7", &[("authorization", &good), ("x-request-id", "known")]).status, 200);
    assert!(lines_of("known").is_empty());
    for (reason, headers) in [
        ("no_credentials", vec![]),
        ("api_key", key("secret")),
        ("credentials_twice", [key(API_KEY), authorization(&good)].concat()),
        ("authorization_scheme", authorization("Basic c2VjcmV0")),
        ("token_malformed", authorization("Bearer secret")),
        ("token_issuer", authorization(&bearer(json!({"iss": "https://secret.example"})))),
        ("token_algorithm", authorization(&signed(json!({"alg": "RS512", "kid": "rsa"}), json!({})))),
        ("token_key", authorization(&signed(json!({"alg": "RS256", "kid": "secret"}), json!({})))),
        ("token_signature", authorization(&format!("{good}AAAA"))),
        ("token_expired", authorization(&bearer(json!({"exp": now() - 3600})))),
        ("token_not_yet_valid", authorization(&bearer(json!({"nbf": now() + 3600})))),
        ("token_audience", authorization(&bearer(json!({"aud": "secret"})))),
        ("token_claim", authorization(&bearer(json!({"tenant": null})))),
    ] {
        let mut given: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        given.push(("x-request-id", reason));
        assert_eq!(world.get_with("/v1/customer/7", &given).status, 401, "{reason}");
        let line = line_of(reason);
        assert_eq!(line["reason"], reason, "{line}");
        assert!(line.get("principal").is_none(), "who asks is not known: {line}");
    }
    for (id, reason, value) in [
        ("no algorithm", "token_algorithm", signed(json!({"alg": "none", "kid": "rsa"}), json!({}))),
        ("no key id", "token_malformed", signed(json!({"alg": "RS256", "kid": 7}), json!({}))),
    ] {
        let id = id.replace(' ', "-");
        assert_eq!(world.get_with("/v1/customer/7", &[("authorization", &value), ("x-request-id", &id)]).status, 401);
        assert_eq!(line_of(&id)["reason"], reason, "{id}");
    }
    // What everybody gets is denied nobody, and the page that asks who it is for is.
    let page = |path: &str, id: &str| world.get_with(path, &[("x-request-id", id), ("accept", "text/html")]).status;
    assert_eq!(page("/docs/reference.css", "style"), 200);
    assert!(lines_of("style").is_empty());
    assert_eq!(page("/docs", "page"), 401);
    assert_eq!(line_of("page")["reason"], "no_credentials");
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn whoever_cannot_show_who_asks_through_a_socket_is_told_of() {
    Lines::all();
    let world = Guarded::new(by_id());
    let mine = format!("Bearer {}", good(json!({"customer_id": 7})));
    for (id, reason, payload) in [
        ("init-nobody", "no_credentials", json!({})),
        ("init-key", "api_key", json!({"x-api-key": "secret"})),
        ("init-list", "credentials_malformed", json!({"authorization": ["secret"]})),
        ("init-twice", "credentials_twice", json!({"authorization": mine, "x-api-key": API_KEY})),
    ] {
        let mut socket = Socket::open(&world, PROTOCOL, &[("x-request-id", id)]).unwrap();
        socket.say(&json!({"type": "connection_init", "payload": payload}));
        assert_eq!(socket.closed(), 4403, "{id}");
        assert_eq!(line_of(id)["reason"], reason);
    }
    let headers = [("x-request-id", "shown-twice"), ("authorization", mine.as_str())];
    let mut twice = Socket::open(&world, PROTOCOL, &headers).unwrap();
    twice.say(&json!({"type": "connection_init", "payload": {"x-api-key": API_KEY}}));
    assert_eq!(twice.closed(), 4403);
    assert_eq!(line_of("shown-twice")["reason"], "credentials_twice");
    let mut early = Socket::open(&world, PROTOCOL, &[("x-request-id", "early")]).unwrap();
    early.subscribe("a", FOLLOW);
    assert_eq!(early.closed(), 4401);
    assert_eq!(line_of("early")["reason"], "no_credentials");
    let open = |headers: &[(&str, &str)]| Socket::open(&world, PROTOCOL, headers).err();
    assert_eq!(open(&[("x-request-id", "opened"), ("authorization", "Bearer secret")]), Some(401));
    assert_eq!(line_of("opened")["reason"], "token_malformed");
    assert_eq!(open(&[("x-request-id", "foreign-page"), ("origin", "https://evil.example")]), Some(403));
    assert_eq!(line_of("foreign-page")["reason"], "foreign_origin");
}

#[test]
fn whoever_asks_for_what_is_not_theirs_is_told_of() {
    Lines::all();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.graphql"), "query One { customer(id: 7) { id } }").unwrap();
    let trusted = || Some(TrustedDocuments { path: folder.path().into(), only: true });
    let world = Guarded::new(by_id());
    let me = format!("Bearer {}", good(json!({"sub": "one", "customer_id": 7})));
    let ask = |id: &str, path: &str| {
        let headers = [("authorization", me.as_str()), ("x-request-id", id)];
        world.get_with(path, &headers).status
    };
    for (id, path, status, exists) in [
        ("foreign", "/v1/customer/8", 404, true),
        ("absent", "/v1/customer/99999", 404, false),
        ("foreign-array", "/v1/customer/8/invoices", 404, true),
        ("foreign-of-several", "/v1/customer?ids=7,8", 200, true),
    ] {
        assert_eq!(ask(id, path), status, "{id}");
        let line = line_of(id);
        let told = (&line["reason"], &line["model"], &line["exists"]);
        assert_eq!(told, (&json!("not_visible"), &json!("customer"), &json!(exists)), "{line}");
        assert_eq!(line["principal"], "https://id.example|one");
    }
    let by_graphql = |world: &Guarded, id: &str| {
        let headers = [("authorization", me.as_str()), ("x-request-id", id), ("content-type", "application/json")];
        let query = json!({"query": "{ customer(id: 8) { id } }"}).to_string();
        world.ask("POST", "/graphql", &headers, Some(&query)).status
    };
    assert_eq!(by_graphql(&world, "by-graphql"), 200);
    assert_eq!(line_of("by-graphql")["reason"], "not_visible");
    let strict = Guarded::with_options(by_id(), |options| options.graphql.trusted = trusted());
    assert_eq!(by_graphql(&strict, "untrusted"), 403);
    let line = line_of("untrusted");
    assert_eq!((&line["reason"], line.get("model")), (&json!("untrusted_document"), None), "{line}");
    assert_eq!(ask("no-model", "/v1/nothing/8"), 404);
    let line = line_of("no-model");
    assert_eq!((&line["reason"], &line["model"]), (&json!("unknown_model"), &json!("nothing")), "{line}");
    // Of what is the caller's own there is nothing to tell.
    assert_eq!(ask("own", "/v1/customer/7"), 200);
    assert!(lines_of("own").is_empty());
}

#[test]
fn what_is_not_the_callers_is_told_of_once_where_it_is_followed() {
    Lines::all();
    let world = Guarded::new(by_id());
    let eight = format!("Bearer {}", good(json!({"customer_id": 8})));
    let headers = [("authorization", eight.as_str()), ("x-request-id", "followed")];
    let mut socket = Socket::open(&world, PROTOCOL, &headers).unwrap();
    socket.say(&json!({"type": "connection_init"}));
    socket.hear();
    socket.subscribe("foreign", FOLLOW);
    socket.result("foreign");
    socket.subscribe("own", "subscription { customerChanged(id: 8) { n } }");
    socket.result("own");
    let path = "/v1/customer/7";
    let followed = [("Authorization", eight.as_str()), ("X-Request-Id", "streamed"), ("Last-Event-ID", "1-0")];
    let mut events = follow_with(&world, path, &followed);
    assert_eq!(events.next().unwrap().kind, "deleted");
    for n in [100, 101, 102] {
        for id in [7, 8] {
            let mut document = customer(id);
            document["n"] = json!(n);
            put(&world.store, 1, &int_key(id), Some(&document));
        }
        // By then the change of the other was heard of.
        assert_eq!(socket.result("own")["data"]["customerChanged"]["n"], n);
    }
    for id in ["followed", "streamed"] {
        assert_eq!(line_of(id)["reason"], "not_visible");
    }
}

#[test]
fn whoever_asks_too_much_is_told_of() {
    Lines::all();
    let world = Guarded::with(ModelRule::default(), |access| {
        (access.limits.principal, access.limits.streams_max) = (rate(3), Some(1));
    });
    let ask = |id: &str, more: &[(&str, &str)]| {
        let headers = [&[("x-api-key", API_KEY), ("x-request-id", id)][..], more].concat();
        world.get_with("/v1/customer/7", &headers).status
    };
    let _first = follow_with(&world, "/v1/customer/7", &[("X-API-Key", API_KEY)]);
    assert_eq!(ask("streams", &[("accept", "text/event-stream")]), 429);
    assert_eq!(ask("the-last", &[]), 200);
    assert_eq!(ask("principal_rate", &[]), 429);

    let crowded = Guarded::with(ModelRule::default(), |access| {
        (access.limits.requests_max, access.limits.deadline) = (4, HANGS);
    });
    let _hanging = [(); 3].map(|()| hang(&crowded, &[("X-API-Key", API_KEY)]));
    let headers = [("x-api-key", API_KEY), ("x-request-id", "requests")];
    assert_eq!(crowded.get_with("/v1/customer/7", &headers).status, 429);

    let world = Guarded::with_options(ModelRule::default(), |options| options.graphql.subscriptions_max = 1);
    let headers = [("x-api-key", API_KEY), ("x-request-id", "operations")];
    let mut socket = Socket::open(&world, PROTOCOL, &headers).unwrap();
    socket.say(&json!({"type": "connection_init"}));
    socket.hear();
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    socket.subscribe("b", FOLLOW);
    assert_eq!(socket.hear()["type"], "error");
    for reason in ["streams", "principal_rate", "requests", "operations"] {
        let line = line_of(reason);
        assert_eq!((&line["reason"], &line["principal"]), (&json!(reason), &json!("key|reports")), "{line}");
    }

    let world = Guarded::with(ModelRule::default(), |access| access.limits.address = rate(1));
    for (id, status) in [("first", 401), ("address_rate", 429)] {
        assert_eq!(world.get_with("/v1/customer/7", &[("x-request-id", id)]).status, status, "{id}");
    }
    assert_eq!(line_of("address_rate")["reason"], "address_rate");
}

#[test]
fn what_is_tried_again_is_told_of_when_it_is_given_up() {
    Lines::all();
    let world = Guarded::with_options(ModelRule::default(), |options| {
        options.access.limits.streams_max = Some(1);
        options.graphql.patience = Duration::from_secs(2);
    });
    let _first = follow_with(&world, "/v1/customer/7", &[("X-API-Key", API_KEY)]);
    let headers = [("x-api-key", API_KEY), ("x-request-id", "patient")];
    let mut socket = Socket::open(&world, PROTOCOL, &headers).unwrap();
    socket.say(&json!({"type": "connection_init"}));
    socket.hear();
    socket.subscribe("a", FOLLOW);
    std::thread::sleep(Duration::from_millis(500));
    assert!(lines_of("patient").is_empty(), "it is not refused yet");
    assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "too_many_streams");
    assert_eq!(line_of("patient")["reason"], "streams");
}

#[test]
fn whoever_asks_the_admin_port_by_a_foreign_name_or_page_is_told_of() {
    Lines::all();
    let world = Guarded::new(ModelRule::default());
    for (id, reason, method, path, header) in [
        ("by-name", "foreign_host", "GET", "/status", ("host", "evil.example")),
        ("by-page", "foreign_origin", "POST", "/reload", ("origin", "https://evil.example")),
    ] {
        assert_eq!(world.admin(method, path, &[header, ("x-request-id", id)], None).status, 403, "{id}");
        assert_eq!(line_of(id)["reason"], reason);
    }
}
