//! Requests that ask for much with few words, and operators where values should be.

use headwater_query_api::ModelRule;
use serde_json::{Value, json};

use crate::fixture::wait_until;
use crate::socket::Socket;
use crate::world::{API_KEY, Guarded, by_index};

fn graphql(world: &Guarded, query: &str) -> (u16, Value) {
    let headers = [("content-type", "application/json"), ("x-api-key", API_KEY)];
    let answer = world.ask("POST", "/graphql", &headers, Some(&json!({"query": query}).to_string()));
    (answer.status, answer.json())
}

fn many(n: usize, one: &dyn Fn(usize) -> String) -> String {
    (0..n).map(one).collect()
}

/// Queries that ask for much, each with the limit that says so; `None`: whichever is found first.
fn floods() -> Vec<(Option<&'static str>, String)> {
    let aliases = many(1000, &|n| format!("a{n}: customer(id: {n}) {{ id }} "));
    let nested_aliases = many(200, &|n| format!("a{n}: id "));
    let directives = format!("{{ customer(id: 1) {{ id {} }} }}", "@skip(if: false) ".repeat(2000));
    let some_directives = format!("{{ customer(id: 1) {{ id {} }} }}", "@include(if: true) ".repeat(50));
    let deep = format!("{{ customer(id: 1) {} }}", "{ tariff ".repeat(500) + &" }".repeat(500));
    let brackets = format!("{{ customer(id: {}1{}) {{ id }} }}", "[".repeat(1000), "]".repeat(1000));
    let costly = "{ customers(first: 100) { nodes { invoices(first: 1000000) { number status total } } } }";
    let cycle = "{ customer(id: 1) { ...A } } fragment A on Customer { ...B } fragment B on Customer { ...A }";
    let numbers = many(5000, &|n| format!("{n},"));
    let values = format!("{{ customers(where: {{ n: {{ in: [{numbers}] }} }}) {{ nodes {{ id }} }} }}");
    let ids = format!("{{ customersByIds(ids: [{}]) {{ id }} }}", many(1000, &|n| format!("{n},")));
    let introspection =
        "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }";
    vec![
        (Some("tokens"), format!("{{ {aliases} }}")),
        (Some("aliases"), format!("{{ customer(id: 1) {{ {nested_aliases} }} }}")),
        (Some("tokens"), directives),
        (None, some_directives),
        (Some("depth"), deep),
        (None, brackets),
        (Some("cost"), costly.into()),
        (None, cycle.into()),
        (Some("tokens"), values),
        (Some("page"), "{ customers(first: 100000) { nodes { id } } }".into()),
        (Some("page"), ids),
        (Some("query bytes"), format!("{{ customer(id: 1) {{ id }} }} #{}", "x".repeat(100_000))),
        (Some("introspection depth"), introspection.into()),
    ]
}

fn is_told(limit: Option<&str>, errors: &Value) -> bool {
    limit.is_none() || errors[0]["extensions"]["limit"].as_str() == limit
}

#[test]
fn floods_are_refused_before_anything_is_read() {
    let world = Guarded::new(ModelRule::default());
    for (limit, query) in floods() {
        let (begin, shown) = (std::time::Instant::now(), &query[..query.len().min(60)]);
        let (status, body) = graphql(&world, &query);
        assert_eq!((status, body.get("data")), (400, None), "{shown}: {body}");
        assert!(is_told(limit, &body["errors"]), "{shown}: {body}");
        assert!(begin.elapsed().as_secs() < 20, "{shown} took {:?}", begin.elapsed());
    }
    let fragments = many(30, &|n| format!("fragment F{n} on Customer {{ ...F{} ...F{} }} ", n + 1, n + 1));
    let bomb = format!("{{ customer(id: 1) {{ ...F0 }} }} {fragments} fragment F30 on Customer {{ id }}");
    // Spreading the same fragment twice is the same as once: it is answered, and not after 2^30 steps.
    let begin = std::time::Instant::now();
    graphql(&world, &bomb);
    assert!(begin.elapsed().as_secs() < 20, "fragments took {:?}", begin.elapsed());
    let headers = [("content-type", "application/json"), ("x-api-key", API_KEY)];
    let batch = json!(vec![json!({"query": "{ customer(id: 1) { id } }"}); 1000]).to_string();
    assert_eq!(world.ask("POST", "/graphql", &headers, Some(&batch)).status, 400, "so many at once");
    // What one operation may cost, several may cost together, and no more.
    let half = "{ customers(first: 100) { nodes { invoices(first: 400) { number status } } } }";
    let batch = json!(vec![json!({"query": half}); 10]).to_string();
    let answers = world.ask("POST", "/graphql", &headers, Some(&batch)).json();
    let refused = answers.as_array().unwrap().iter().filter(|one| one["errors"][0]["extensions"]["limit"] == "cost");
    assert_eq!((answers[0].get("errors"), refused.count()), (None, 9), "{answers}");
    // The limit of the body is that of all of it.
    let batch = json!(vec![json!({"query": format!("{{ __typename }} #{}", "x".repeat(60_000))}); 10]).to_string();
    assert_eq!(world.ask("POST", "/graphql", &headers, Some(&batch)).status, 200);
    let batch =
        json!(vec![json!({"query": "{ __typename }", "variables": {"x": "x".repeat(120_000)}}); 10]).to_string();
    assert_eq!(world.ask("POST", "/graphql", &headers, Some(&batch)).status, 413);
}

#[test]
fn floods_are_refused_by_every_way_in() {
    let world = Guarded::new(ModelRule::default());
    let mut socket = Socket::ready(&world, &json!({"x-api-key": API_KEY}));
    for (limit, query) in floods() {
        let shown = &query[..query.len().min(60)];
        // By URL, where it is short enough for one.
        let escaped = percent_encoding::utf8_percent_encode(&query, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/graphql?query={escaped}");
        if path.len() < 60_000 {
            let by_get = world.get_with(&path, &[("x-api-key", API_KEY)]);
            assert_eq!(by_get.status, 400, "{shown}");
            assert!(is_told(limit, &by_get.json()["errors"]), "{shown}");
        }
        socket.subscribe("a", &query);
        let heard = socket.hear();
        assert_eq!(heard["type"], "error", "{shown}: {heard}");
        assert!(is_told(limit, &heard["payload"]), "{shown}: {heard}");
    }
    // Operations that are begun and taken back at once leave nothing behind.
    for n in 0..3000 {
        socket.subscribe(&n.to_string(), "subscription { customerChanged(id: 7) { id } }");
        socket.say(&json!({"id": n.to_string(), "type": "complete"}));
    }
    socket.say(&json!({"type": "ping"}));
    while socket.hear()["type"] != "pong" {}
    let streams = || world.admin("GET", "/metrics", &[], None).body.contains("headwater_api_live_streams 0");
    wait_until("every operation to be forgotten", streams);
}

#[test]
fn operators_are_never_values() {
    let world = Guarded::new(by_index());
    let me = json!({"group": 3});
    for query in [
        "filter[n][$ne]=0",
        "filter[n][$gt]=",
        "filter[n][eq][$ne]=0",
        "filter[$where][eq]=1",
        "filter[$or][eq]=1",
        "filter[n]=3",
        "filter[n][]=3",
        "filter[__proto__][eq]=1",
        "filter[constructor][eq]=1",
        "filter[n][regex]=.*",
        "filter[name][like]=%25",
        "filter[name][match]=(a%2B)%2B$",
        "filter[n][eq]=%7B%22$ne%22:0%7D",
        "filter[n][eq]=3;drop",
        "n=3",
        "where=1",
        "$where=1",
        "owner=8",
        "customer_id=8",
        "group=4",
        "tenant=8",
        "limit=-1",
        "limit=1e9",
        "limit=100000000000000000000",
        "offset=5",
        "page=2",
        "sort=n,name",
        "sort=n%00",
        "fields=*",
        "fields=n%20as%20id",
    ] {
        let answer = world.get_as(&me, &format!("/v1/customer?{query}"));
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
        assert!(answer.json()["parameter"].is_string(), "{query} names no parameter: {}", answer.body);
    }
    for id in ["1%27%20or%201=1", "%7B%22$ne%22:1%7D", "..%2F..%2Fetc", "%00", "1;", "*", "%ff"] {
        assert_eq!(world.get_as(&me, &format!("/v1/customer/{id}")).status, 404, "{id}");
    }
    let injected = [
        json!({"query": "query($w: CustomerWhere) { customers(where: $w) { nodes { id } } }", "variables": {"w": {"$or": []}}}),
        json!({"query": "query($w: CustomerWhere) { customers(where: $w) { nodes { id } } }", "variables": {"w": {"n": {"$ne": 0}}}}),
        json!({"query": "query($id: ID!) { customer(id: $id) { id } }", "variables": {"id": {"$ne": 0}}}),
        json!({"query": {"$ne": 1}}),
    ];
    for body in injected {
        let headers = [("content-type", "application/json"), ("x-api-key", API_KEY)];
        assert_eq!(world.ask("POST", "/graphql", &headers, Some(&body.to_string())).status, 400, "{body}");
    }
}
