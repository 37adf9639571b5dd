//! What is told of requests: trace and id in answers and log lines, slow ones, counters, times.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use headwater_query_api::{AccessOptions, ApiKeyOptions, AuthOptions, BindingRule, ChannelOptions, ModelRule, Rate};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::{Answer, World, channel, channels, int_key, put, set_frontier, wait_until};
use crate::lines::Lines;
use crate::socket::Socket;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn slow_world(limit: Option<Duration>) -> World {
    World::with_options(|options| {
        options.slow_query = limit;
        options.channels = channels([("mobile", channel(&["id", "n"], &[("n", "rank")]))]);
    })
}

fn get(world: &World, request_id: &str, channel: &str, path: &str) -> Answer {
    let headers = [("x-request-id", request_id), ("x-channel", channel), ("traceparent", TRACEPARENT)];
    world.get_with(path, &headers)
}

#[test]
fn a_slow_request_is_one_line_without_values() {
    let lines = Lines::all();
    let world = slow_world(Some(Duration::ZERO));
    let path = "/v1/customer?filter[rank][gte]=3&filter[rank][in]=3,4&sort=-rank&fields=id,rank&limit=7";
    assert_eq!(get(&world, "slow-list", "mobile", path).status, 200);
    let told = lines.of("slow-list");
    assert_eq!(told.len(), 1, "{told:?}");
    let line = &told[0];
    assert_eq!((&line["message"], &line["level"]), (&json!("slow query"), &json!("WARN")));
    assert_eq!(line["target"], "headwater::slow");
    assert_eq!(
        (&line["route"], &line["model"], &line["channel"]),
        (&json!("list"), &json!("customer"), &json!("mobile"))
    );
    assert_eq!(line["query"], "GET /v1/customer?fields=id,rank&filter[rank][gte]&filter[rank][in]&limit&sort=-rank");
    assert_eq!((&line["trace_id"], &line["status"]), (&json!(TRACE), &json!(200)));
    assert!(line["documents"].as_u64().unwrap() >= 7 && line["milliseconds"].as_f64().unwrap() > 0.0, "{line}");

    let query = r#"{"query": "query A($n: Int) { customers(first: 3, where: {rank: {eq: $n}}) { nodes { id } } customer(id: \"5\") { id } }", "variables": {"n": 7}}"#;
    let headers = [("x-request-id", "slow-graphql"), ("x-channel", "mobile"), ("content-type", "application/json")];
    assert_eq!(world.ask("POST", "/graphql", &headers, Some(query)).status, 200);
    let line = &lines.of("slow-graphql")[0];
    assert_eq!((&line["route"], &line["documents"]), (&json!("graphql"), &json!(4)));
    let told =
        "query A($n: Int) { customers(first: ? where: {rank: {eq: $n}}) { nodes { id } } customer(id: ?) { id } }";
    assert_eq!(line["query"], told);
    assert!(line.get("trace_id").is_none(), "none came");

    get(&world, "slow-point", "mobile", "/v1/customer/5");
    let line = &lines.of("slow-point")[0];
    assert_eq!((&line["query"], &line["documents"]), (&json!("GET /v1/customer/{id}"), &json!(1)));
    let quiet = slow_world(None);
    get(&quiet, "not-slow", "mobile", "/v1/customer/5");
    assert!(lines.of("not-slow").is_empty());
}

#[test]
fn what_a_request_waited_for_is_no_time_that_it_took() {
    let lines = Lines::all();
    let world = slow_world(Some(Duration::from_millis(700)));
    let ask = |id: &str, prefer: &str| {
        let begun = Instant::now();
        let headers = [("x-request-id", id), ("consistency-token", "billing=ab"), ("prefer", prefer)];
        let status = world.get_with("/v1/customer/7", &headers).status;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{id} waited");
        status
    };
    assert_eq!(ask("waited-in-vain", "wait=1"), 503);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask("waited", "wait=9"));
        std::thread::sleep(Duration::from_millis(1500));
        set_frontier(&world.store, "billing", 0xab);
        assert_eq!(waiting.join().unwrap(), 200);
    });
    for id in ["waited-in-vain", "waited"] {
        let told = lines.of(id);
        assert!(told.iter().all(|line| line["target"] != "headwater::slow"), "{told:?}");
    }
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    for about in [r#"route="Point",model="customer",version="3""#, r#"route="Other",model="",version="0""#] {
        let quick = format!("headwater_api_request_seconds_bucket{{le=\"0.5\",{about},channel=\"default\"}} 1");
        assert!(metrics.contains(&quick), "{quick} is not in\n{metrics}");
    }
}

#[test]
fn every_line_of_a_request_names_it_and_its_trace() {
    let lines = Lines::all();
    let world = World::new();
    // A document that does not have the shape of its version.
    put(&world.store, 1, &int_key(99), Some(&json!({"id": 99})));
    let headers = |id: &'static str| [("x-request-id", id), ("traceparent", TRACEPARENT)];
    assert_eq!(world.get_with("/v1/customer/99/invoices", &headers("torn-array")).status, 500);
    let graphql = [("content-type", "application/json"), headers("torn-graphql")[0], headers("torn-graphql")[1]];
    let body = json!({"query": "{ customer(id: 99) { name } }"}).to_string();
    world.ask("POST", "/graphql", &graphql, Some(&body));
    for id in ["torn-array", "torn-graphql"] {
        let told = lines.of(id);
        assert!(told.iter().any(|line| line["level"] == "ERROR"), "{id}: {told:?}");
        assert!(told.iter().all(|line| line["trace_id"] == TRACE), "{told:?}");
    }
    assert_eq!(world.get_with("/v1/customer?sort=zzz", &headers("refused")).status, 400);
    let told = lines.of("refused");
    assert_eq!((told.len(), &told[0]["code"], &told[0]["trace_id"]), (1, &json!("unknown_parameter"), &json!(TRACE)));
}

#[test]
fn a_name_that_was_sent_is_not_told_at_any_length() {
    let lines = Lines::all();
    let key = ApiKeyOptions {
        name: "reports".into(),
        sha256: Sha256::digest("a key").into(),
        roles: vec![],
        claims: serde_json::Map::new(),
    };
    let auth = AuthOptions { anonymous: false, issuers: vec![], api_keys: vec![key] };
    let world = World::with(AccessOptions { auth: Some(auth), ..AccessOptions::default() });
    let long = "x".repeat(20_000);
    for (id, path) in [("long-model", format!("/v1/{long}")), ("long-path", format!("/{long}"))] {
        let answer = world.get_with(&path, &[("x-request-id", id), ("x-api-key", "a key")]);
        assert_eq!(answer.status, 404, "{id}");
        assert!(answer.body.contains(&"x".repeat(70)) && answer.body.len() < 1_000, "{id}: {}", answer.body);
        let told = lines.of(id);
        assert!(told.iter().all(|line| line.to_string().len() < 1_000), "{told:?}");
        if id == "long-model" {
            let denied: Vec<&Value> = told.iter().filter(|line| line["target"] == "headwater::audit").collect();
            assert_eq!((denied.len(), &denied[0]["model"]), (1, &json!("x".repeat(80))));
        }
    }
}

#[test]
fn a_trace_goes_on_and_is_told() {
    let world = World::new();
    let state = "vendor=1,other=two";
    let answer = world.get_with("/v1/customer/1", &[("traceparent", TRACEPARENT), ("tracestate", state)]);
    let told = answer.header("traceparent");
    assert_eq!((told.len(), &told[..36], &told[52..]), (55, &TRACEPARENT[..36], "-01"));
    assert_ne!(told[36..52], TRACEPARENT[36..52], "the span is another");
    assert_eq!(answer.header("tracestate"), state);
    let again = world.get_with("/v1/customer/1", &[("traceparent", TRACEPARENT)]);
    assert_ne!(again.header("traceparent"), told);
    // On refusals, too; and nothing where nothing came, or what came is none.
    assert_eq!(world.get_with("/v1/zzz", &[("traceparent", TRACEPARENT)]).header("traceparent").len(), 55);
    for given in ["00-0-0-0", "", &TRACEPARENT.to_uppercase()] {
        let answer = world.get_with("/v1/customer/1", &[("traceparent", given), ("tracestate", state)]);
        assert_eq!((answer.header("traceparent"), answer.header("tracestate")), ("", ""), "{given}");
    }
}

#[test]
fn requests_are_counted_by_route_model_version_and_channel() {
    let world = slow_world(None);
    world.get_by("mobile", "/v1/customer/1");
    world.get("/v1/customer/1");
    world.get_by("mobile", "/v1/customer?limit=2");
    world.get_by("mobile", "/v1/customer?limit=0");
    world.get_by("wrong", "/v1/customer/1");
    world.get("/v1/nothing/1");
    world.graphql_by("mobile", "{ customer(id: 1) { id } }");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    for line in [
        r#"headwater_api_requests_total{route="Point",model="customer",version="3",channel="mobile",status="200"} 1"#,
        r#"headwater_api_requests_total{route="Point",model="customer",version="3",channel="default",status="200"} 1"#,
        r#"headwater_api_requests_total{route="List",model="customer",version="3",channel="mobile",status="200"} 1"#,
        r#"headwater_api_requests_total{route="List",model="customer",version="3",channel="mobile",status="400"} 1"#,
        r#"headwater_api_requests_total{route="GraphQl",model="",version="0",channel="mobile",status="200"} 1"#,
        r#"headwater_api_requests_total{route="Other",model="",version="0",channel="default",status="400"} 1"#,
        r#"headwater_api_request_seconds_count{route="Point",model="customer",version="3",channel="mobile"} 1"#,
        r#"headwater_api_request_seconds_count{route="List",model="customer",version="3",channel="mobile"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("wrong") && !metrics.contains("nothing"), "what clients write becomes no series");
}

#[test]
fn operations_that_a_socket_refuses_are_counted_too() {
    let world = World::with_options(|options| {
        let requests = NonZeroU32::new(3).unwrap();
        options.access.limits.address = Some(Rate { requests, per: Duration::from_secs(3600), burst: requests });
        options.graphql.subscriptions_max = 1;
    });
    // Opening it is the first request.
    let mut socket = Socket::ready(&world, &json!({}));
    socket.subscribe("followed", "subscription { customerChanged(id: 7) { n } }");
    socket.result("followed");
    let refused = |socket: &mut Socket, query: &str, code: &str| {
        socket.subscribe("refused", query);
        let heard = socket.hear();
        assert_eq!(heard["payload"][0]["extensions"]["code"], code, "{heard}");
    };
    refused(&mut socket, "{ customer(id: 7) { id } }", "limit_exceeded");
    socket.say(&json!({"id": "followed", "type": "complete"}));
    refused(&mut socket, "{ nothing }", "graphql_invalid");
    refused(&mut socket, "{ customer(id: 7) { id } }", "rate_limited");
    refused(&mut socket, "{ customer(id: 7) { id } }", "rate_limited");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    for line in [
        r#"headwater_api_requests_total{route="GraphQl",model="",version="0",channel="default",status="429"} 3"#,
        r#"headwater_api_requests_total{route="GraphQl",model="",version="0",channel="default",status="400"} 1"#,
        r#"headwater_api_errors_total{code="limit_exceeded"} 1"#,
        r#"headwater_api_errors_total{code="graphql_invalid"} 1"#,
        r#"headwater_api_errors_total{code="rate_limited"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn what_is_ones_own_is_counted_once() {
    let key = ApiKeyOptions {
        name: "seven".into(),
        sha256: Sha256::digest("a key").into(),
        roles: vec![],
        claims: serde_json::Map::from_iter([("customer_id".to_string(), json!(7))]),
    };
    let auth = AuthOptions { anonymous: false, issuers: vec![], api_keys: vec![key] };
    let owner = BindingRule { claim: "customer_id".into(), field: None, except: vec![] };
    let rules = [("customer".to_string(), ModelRule { owner: Some(owner), ..ModelRule::default() })].into();
    let world = World::with(AccessOptions { auth: Some(auth), rules, ..AccessOptions::default() });
    let ask = |path: &str, etag: &str| world.get_with(path, &[("x-api-key", "a key"), ("if-none-match", etag)]);
    let first = ask("/v1/me/customer", "");
    assert_eq!((first.status, first.json()["id"].as_i64()), (200, Some(7)));
    assert_eq!(ask("/v1/me/customer", first.header("etag")).status, 304);
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    let of = r#"model="customer",version="3",channel="default""#;
    for line in [
        format!("headwater_api_requests_total{{route=\"Own\",{of},status=\"200\"}} 1"),
        format!("headwater_api_requests_total{{route=\"Own\",{of},status=\"304\"}} 1"),
        format!("headwater_api_requests_total{{route=\"Point\",{of},status=\"200\"}} 0"),
        format!("headwater_api_requests_total{{route=\"Point\",{of},status=\"304\"}} 0"),
        format!("headwater_api_request_seconds_count{{route=\"Own\",{of}}} 2"),
        format!("headwater_api_request_seconds_count{{route=\"Point\",{of}}} 0"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn times_are_told_where_that_is_configured() {
    let world = World::with_options(|options| {
        options.server_timing = true;
        options.channels = channels([("all", ChannelOptions::default())]);
    });
    let graphql = [("content-type", "application/json")];
    let body = json!({"query": "{ customers { nodes { id } } }"}).to_string();
    for answer in [
        world.get("/v1/customer/1"),
        world.get_by("all", "/v1/customer?limit=9&count=exact"),
        world.get("/v1/customer?sort=zzz"),
        world.ask("POST", "/graphql", &graphql, Some(&body)),
    ] {
        let timing = answer.header("server-timing");
        let names: Vec<&str> = timing.split(", ").map(|part| part.split(';').next().unwrap()).collect();
        assert_eq!(names, ["authorize", "parse", "read", "write", "total"], "{timing}");
    }
    let read = |answer: &Answer| {
        let timing = answer.header("server-timing").to_string();
        let part = timing.split(", ").find_map(|part| part.strip_prefix("read;dur=")).unwrap().to_string();
        part.parse::<f64>().unwrap()
    };
    wait_until("a read that takes time", || read(&world.get("/v1/customer?limit=50")) > 0.0);
    assert_eq!(read(&world.get("/v1/customer?sort=zzz")), 0.0);
    assert_eq!(World::new().get("/v1/customer/1").header("server-timing"), "", "not unless it is configured");
}
