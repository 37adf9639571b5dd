//! How much one caller may ask for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headwater_query_api::{AccessOptions, ModelRule, Rate};
use serde_json::json;

use crate::events::follow_with;
use crate::fixture::{World, customer, int_key, put, wait_until};
use crate::issuer::good;
use crate::socket::Socket;
use crate::world::{API_KEY, Guarded, HANGS, hang};

const FOLLOW: &str = "subscription { customerChanged(id: 7) { n } }";

fn rate(requests: u32, per: u64) -> Option<Rate> {
    let requests = NonZeroU32::new(requests).unwrap();
    Some(Rate { requests, per: Duration::from_secs(per), burst: requests })
}

#[test]
fn each_caller_has_a_limit_of_their_own() {
    let world = Guarded::with(ModelRule::default(), |access| access.limits.principal = rate(5, 3600));
    let one = format!("Bearer {}", good(json!({"sub": "one"})));
    let ask = |token: &str| world.get_with("/v1/customer/7", &[("authorization", token)]);
    let first = ask(&one);
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, "\"principal\";q=5;w=3600"));
    assert!(first.header("ratelimit").starts_with("\"principal\";r=4;t="), "{}", first.header("ratelimit"));
    assert!((0..4).all(|_| ask(&one).status == 200));
    let refused = ask(&one);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("rate_limited")));
    assert!(
        (1..=720).contains(&refused.header("retry-after").parse::<u32>().unwrap()),
        "{}",
        refused.header("retry-after")
    );
    assert!(refused.header("ratelimit").starts_with("\"principal\";r=0;t="));
    // A new token, another place or other headers make no new caller.
    let again = format!("Bearer {}", good(json!({"sub": "one", "jti": "another"})));
    assert_eq!(ask(&again).status, 429);
    for (name, value) in
        [("x-forwarded-for", "1.2.3.4"), ("x-real-ip", "1.2.3.4"), ("x-request-id", "new"), ("user-agent", "new")]
    {
        let headers = [("authorization", one.as_str()), (name, value)];
        assert_eq!(world.get_with("/v1/customer/7", &headers).status, 429, "{name}");
    }
    assert_eq!(ask(&format!("Bearer {}", good(json!({"sub": "two"})))).status, 200);
    assert_eq!(world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]).status, 200);
}

#[test]
fn an_address_is_the_one_our_proxies_saw() {
    let world = Guarded::with(ModelRule::default(), |access| {
        access.limits.address = rate(5, 3600);
        access.limits.trusted_hops = 1;
    });
    let from = |forwarded: &str| world.get_with("/v1/customer/7", &[("x-forwarded-for", forwarded)]).status;
    // Guesses count too: the limit comes before credentials.
    assert!((0..5).all(|n| from(&format!("6.6.6.{n}, 1.1.1.1")) == 401));
    assert_eq!(from("6.6.6.99, 1.1.1.1"), 429, "the first entry is the sender's own word");
    let refused = world.get_with("/v1/customer/7", &[("x-forwarded-for", "1.1.1.1")]);
    assert_eq!(refused.header("ratelimit-policy"), "\"address\";q=5;w=3600");
    assert_eq!(from("1.1.1.1, 2.2.2.2"), 401);

    let world = Guarded::with(ModelRule::default(), |access| access.limits.address = rate(5, 3600));
    let from = |forwarded: &str| world.get_with("/v1/customer/7", &[("x-forwarded-for", forwarded)]).status;
    assert!((0..5).all(|n| from(&format!("1.1.1.{n}")) == 401));
    assert_eq!(from("2.2.2.2"), 429, "no proxy is trusted, so none is believed");
}

#[test]
fn each_caller_has_so_many_live_streams() {
    let world = Guarded::with_options(ModelRule::default(), |options| {
        options.access.limits.streams_max = Some(3);
        options.graphql.patience = Duration::ZERO;
    });
    let one = format!("Bearer {}", good(json!({"sub": "one"})));
    let credentials = [("Authorization", one.as_str())];
    let document = follow_with(&world, "/v1/customer/7", &credentials);
    let list = follow_with(&world, "/v1/customer?limit=100", &credentials);
    let mut socket = Socket::ready(&world, &json!({"authorization": one}));
    socket.subscribe("a", FOLLOW);
    socket.result("a");
    // Whichever way in, it is one too many.
    let live = [("authorization", one.as_str()), ("accept", "text/event-stream")];
    let query = percent_encoding::utf8_percent_encode(FOLLOW, percent_encoding::NON_ALPHANUMERIC);
    for path in ["/v1/customer/8", "/v1/customer?sort=n", &format!("/graphql?query={query}")] {
        let refused = world.get_with(path, &live);
        assert_eq!(refused.status, 429, "{path}: {}", refused.body);
        assert!(refused.body.contains("too_many_streams"), "{path}: {}", refused.body);
        assert!(refused.body.contains("3 live streams") && refused.body.contains("streams_max"), "{}", refused.body);
    }
    socket.subscribe("b", FOLLOW);
    let heard = socket.hear();
    assert_eq!(heard["payload"][0]["extensions"]["code"], "too_many_streams", "{heard}");
    // Of other callers and of other requests it is none.
    let of_another = follow_with(&world, "/v1/customer/7", &[("X-API-Key", API_KEY)]);
    assert_eq!(world.get_with("/v1/customer/8", &credentials).status, 200);

    socket.say(&json!({"id": "a", "type": "complete"}));
    wait_until("the operation's place", || {
        socket.subscribe("c", FOLLOW);
        socket.hear()["type"] == "next"
    });
    drop((document, list, socket, of_another));
    let mut changed = customer(7);
    wait_until("the streams to be forgotten", || {
        // A closed connection is seen at the next write.
        changed["n"] = json!(changed["n"].as_i64().unwrap_or_default() + 1);
        put(&world.store, 1, &int_key(7), Some(&changed));
        world.admin("GET", "/metrics", &[], None).body.contains("headwater_api_live_streams 0")
    });
    let _all_again = [(); 3].map(|()| follow_with(&world, "/v1/customer/7", &credentials));
    assert_eq!(world.get_with("/v1/customer/8", &live).status, 429);
}

#[test]
fn a_subscription_that_comes_back_early_is_begun_when_there_is_room() {
    let world = Guarded::with(ModelRule::default(), |access| access.limits.streams_max = Some(1));
    let init = json!({"authorization": format!("Bearer {}", good(json!({"sub": "one"})))});
    let mut old = Socket::ready(&world, &init);
    old.subscribe("a", FOLLOW);
    old.result("a");
    let mut new = Socket::ready(&world, &init);
    new.subscribe("a", FOLLOW);
    new.subscribe("taken back", FOLLOW);
    new.say(&json!({"id": "taken back", "type": "complete"}));
    // Nothing is said of it meanwhile, and others are answered.
    new.subscribe("once", "{ customer(id: 7) { id } }");
    assert_eq!(new.result("once")["data"]["customer"]["id"], 7);
    assert_eq!(new.hear(), json!({"id": "once", "type": "complete"}));
    // By then it was tried, more than once.
    std::thread::sleep(Duration::from_millis(2500));
    old.say(&json!({"id": "a", "type": "complete"}));
    new.result("a");
    new.say(&json!({"type": "ping"}));
    assert_eq!(new.hear(), json!({"type": "pong"}), "nothing is said of what was taken back");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    assert!(!metrics.contains("too_many_streams"), "what nobody was told of is no error:\n{metrics}");
}

#[test]
fn callers_who_are_not_known_are_told_apart_by_their_addresses() {
    let mut access = AccessOptions::default();
    (access.limits.streams_max, access.limits.trusted_hops) = (Some(1), 1);
    let world = World::with(access);
    let _one = follow_with(&world, "/v1/customer/7", &[("X-Forwarded-For", "1.1.1.1")]);
    let live = [("x-forwarded-for", "1.1.1.1"), ("accept", "text/event-stream")];
    assert_eq!(world.get_with("/v1/customer/8", &live).status, 429);
    let _another = follow_with(&world, "/v1/customer/8", &[("X-Forwarded-For", "2.2.2.2")]);
}

#[test]
fn what_is_too_much_is_turned_away_cheaply() {
    let world = Guarded::with(ModelRule::default(), |access| {
        (access.limits.requests_max, access.limits.deadline) = (2, HANGS);
    });
    let of_other = format!("Bearer {}", good(json!({"sub": "other"})));
    let hanging = [("X-API-Key", API_KEY), ("Authorization", &of_other)].map(|who| hang(&world, &[who]));
    // Whoever asks: it is not even looked at who that is.
    for credentials in [API_KEY, "of nobody"] {
        let answer = world.get_with("/v1/customer/7", &[("x-api-key", credentials)]);
        let told = (answer.status, answer.header("retry-after"), answer.json()["code"].clone());
        assert_eq!(told, (503, "1", json!("overloaded")), "{}", answer.body);
    }
    drop(hanging);
    let ask = || world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]).status;
    wait_until("every place to be free again", || ask() == 200);
}

#[test]
fn some_are_turned_away_while_work_waits_for_a_processor() {
    let world = Guarded::with(ModelRule::default(), |access| access.limits.queue_delay_max = Duration::from_millis(20));
    let ask = || world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]);
    assert_eq!(ask().status, 200);
    // Work that lets go of a processor far too seldom, on each of two.
    let end = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let end = end.clone();
        world.runtime.spawn(async move {
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(60));
                tokio::task::yield_now().await;
            }
        });
    }
    wait_until("a request to be turned away", || {
        let answer = ask();
        assert!(answer.status == 200 || answer.json()["code"] == "overloaded", "{}", answer.body);
        answer.status == 503
    });
    end.store(true, Ordering::Relaxed);
    wait_until("all to be let in again", || (0..64).all(|_| ask().status == 200));
}

#[test]
fn a_request_that_does_not_end_is_ended() {
    use std::io::{Read, Write};
    let world = Guarded::with(ModelRule::default(), |access| access.limits.deadline = Duration::from_millis(300));
    let mut stream = std::net::TcpStream::connect(world.api.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A body that is announced and never sent.
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let len = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..len]);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"deadline\""), "{answer}");
}

#[test]
fn one_caller_leaves_places_for_others() {
    let world = Guarded::with_options(ModelRule::default(), |options| {
        (options.access.limits.requests_max, options.access.limits.deadline) = (8, HANGS);
        options.graphql.patience = Duration::ZERO;
    });
    let hanging = [(); 6].map(|()| hang(&world, &[("X-API-Key", API_KEY)]));
    let ask = || world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]);
    let refused = ask();
    assert_eq!((refused.header("retry-after"), refused.json()["code"].as_str()), ("1", Some("too_many_requests")));
    assert!(refused.body.contains("more than 2 requests of this caller"), "{}", refused.body);
    let mut socket = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    socket.subscribe("a", FOLLOW);
    let heard = socket.hear();
    assert_eq!(heard["payload"][0]["extensions"]["code"], "too_many_requests", "{heard}");
    let other = format!("Bearer {}", good(json!({"sub": "other"})));
    assert_eq!(world.get_with("/v1/customer/7", &[("authorization", &other)]).status, 200);
    drop(hanging);
    wait_until("the places to be free again", || ask().status == 200);
}

#[test]
fn one_caller_leaves_places_for_others_to_wait() {
    let world = Guarded::with(ModelRule::default(), |access| {
        (access.limits.requests_max, access.limits.deadline) = (16, Duration::from_secs(10));
    });
    let other = format!("Bearer {}", good(json!({"sub": "other"})));
    let wait = |who: (&str, &str)| {
        let begin = Instant::now();
        let headers = [who, ("consistency-token", "billing=ffff"), ("prefer", "wait=9")];
        let answer = world.get_with("/v1/customer/7", &headers);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("not_yet_consistent")));
        begin.elapsed() >= Duration::from_secs(6)
    };
    std::thread::scope(|scope| {
        let wait = &wait;
        let hanging = [(); 3].map(|()| scope.spawn(move || wait(("x-api-key", API_KEY))));
        std::thread::sleep(Duration::from_secs(1));
        // A quarter of 16 may wait, and the last of these is for others.
        assert!(!wait(("x-api-key", API_KEY)), "this caller waits for all that may");
        assert!(wait(("authorization", &other)), "the place of another");
        assert!(hanging.into_iter().all(|waiting| waiting.join().unwrap()), "those who came first waited");
    });
}

#[test]
fn an_answer_that_is_not_taken_is_counted() {
    use std::io::Write;
    let world = Guarded::with(ModelRule::default(), |access| access.limits.sending_bytes_max = 35 << 20);
    // What a client does not read lies in buffers of the system first, which have some megabytes. MongoDB takes no more
    // than 16 MiB, and a document lies there twice.
    let mut large = customer(9);
    large["tariff"]["code"] = json!("x".repeat(7 << 20));
    put(&world.store, 1, &int_key(9), Some(&large));
    let mut hanging = std::net::TcpStream::connect(world.api.address).unwrap();
    let head = format!("GET /v1/customer?ids=9,9,9 HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n\r\n");
    hanging.write_all(head.as_bytes()).unwrap();
    let other = format!("Bearer {}", good(json!({"sub": "other"})));
    let (one, other) = (("x-api-key", API_KEY), ("authorization", other.as_str()));
    let ask = |who, path: &str| world.get_with(path, &[who]);
    // Of 35 MiB 21 are on their way. With 7 more there would be less than the quarter that is kept for others.
    wait_until("the bytes to be counted", || ask(one, "/v1/customer/9").status == 503);
    let refused = ask(one, "/v1/customer/9");
    assert_eq!((refused.header("retry-after"), refused.json()["code"].as_str()), ("1", Some("sending_full")));
    assert!(refused.body.contains("`api.limits.sending_bytes_max`"), "{}", refused.body);
    assert_eq!(ask(one, "/v1/customer/7").status, 200, "what is small is answered");
    assert_eq!(ask(other, "/v1/customer/9").bytes.len(), large.to_string().len(), "there is room for others");
    assert_eq!(ask(other, "/v1/customer?ids=9,9,9").status, 503, "as much as there is");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    let counted = |line: String| {
        let value = metrics.lines().find_map(|known| known.strip_prefix(&line)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{line} is not in\n{metrics}"))
    };
    let of = r#"model="customer",version="3",channel="default""#;
    let points =
        |status: u16| counted(format!("headwater_api_requests_total{{route=\"Point\",{of},status=\"{status}\"}}"));
    let refused = counted("headwater_api_errors_total{code=\"sending_full\"}".into());
    assert_eq!(points(503) + 1, refused, "one was a list");
    let sent = counted("headwater_api_response_bytes_total{route=\"Point\"}".into()) as usize;
    assert!(sent < points(200) as usize * 2 * large.to_string().len(), "{sent} bytes of {} answers", points(200));
    drop(hanging);
    wait_until("the bytes to be free again", || ask(one, "/v1/customer/9").status == 200);
}

#[test]
fn an_address_is_one_caller_where_it_tells_callers_apart() {
    for (trusted_hops, wanted) in [(1, 429), (0, 200)] {
        let mut access = AccessOptions::default();
        (access.limits.requests_max, access.limits.deadline) = (8, HANGS);
        access.limits.trusted_hops = trusted_hops;
        let world = World::with(access);
        let _hanging = [(); 6].map(|()| hang(&world, &[("X-Forwarded-For", "1.1.1.1")]));
        let ask = |address| world.get_with("/v1/customer/7", &[("x-forwarded-for", address)]).status;
        assert_eq!((ask("1.1.1.1"), ask("2.2.2.2")), (wanted, 200), "behind {trusted_hops} proxies");
    }
}

#[test]
fn bodies_and_heads_are_bounded() {
    let world = Guarded::new(ModelRule::default());
    let headers = [("x-api-key", API_KEY), ("content-type", "application/json")];
    let body = json!({"query": "{__typename}", "variables": {"x": "y".repeat(2 << 20)}}).to_string();
    assert_eq!(world.ask("POST", "/graphql", &headers, Some(&body)).status, 413);
    let long = "x".repeat(300_000);
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.get_with("/v1/customer/7", &[("x-long", &long)]).status
    }));
    // Refused, or cut off while it is still being sent.
    assert!(asked.is_err() || matches!(asked, Ok(431 | 400)), "{asked:?}");
    assert_eq!(world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]).status, 200);
}
