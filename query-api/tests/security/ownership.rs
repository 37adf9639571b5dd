//! Documents of others.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_query_api::ModelRule;
use serde_json::{Value, json};

use crate::fixture::{Answer, customer, int_key, put, wait_until};
use crate::issuer::good;
use crate::one_stamp::OneStamp;
use crate::world::{API_KEY, Guarded, binding, by_id, by_index};

/// What an answer says, without what differs from request to request.
fn said(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"));
    let request_id = answer.header("x-request-id");
    let body = answer.body.replace(request_id, "");
    (answer.status, headers.map(|(name, value)| (name.clone(), value.clone())).collect(), body)
}

#[test]
fn a_foreign_document_is_not_told_from_one_that_is_not_there() {
    for (rule, me, own, foreign) in
        [(by_id(), json!({"customer_id": 7}), 7, 8), (by_index(), json!({"group": 3}), 13, 14)]
    {
        let world = Guarded::new(rule);
        assert_eq!(world.get_as(&me, &format!("/v1/customer/{own}")).json(), customer(own));
        let etag =
            world.get_with(&format!("/v1/customer/{foreign}"), &[("x-api-key", API_KEY)]).header("etag").to_string();
        assert!(!etag.is_empty());
        for tail in ["", "?fields=id", "/invoices", "/invoices?limit=1", "/nonsense", "?fields=nonsense", "?limit=1"] {
            let ask = |id: i64| said(&world.get_as(&me, &format!("/v1/customer/{id}{tail}")));
            assert_eq!(ask(foreign), ask(99_999), "{tail}");
            assert_ne!(ask(foreign).0, 200, "{tail}");
        }
        let token = format!("Bearer {}", good(me.clone()));
        for (name, value) in [("if-none-match", etag.as_str()), ("if-none-match", "*"), ("accept", "text/event-stream")]
        {
            let headers = [("authorization", token.as_str()), (name, value)];
            let ask = |id: i64| said(&world.get_with(&format!("/v1/customer/{id}"), &headers));
            assert_eq!((ask(foreign), ask(foreign).0), (ask(99_999), 404), "{name}: {value}");
        }
        let batch = world.get_as(&me, &format!("/v1/customer?ids={foreign},{own},99999")).json();
        assert_eq!(batch["data"], json!([null, customer(own), null]));
        let query = format!(
            "{{ a: customer(id: {foreign}) {{ id }} b: customer(id: 99999) {{ id }} c: customer(id: {own}) {{ id }} \
             d: customersByIds(ids: [{foreign}, {own}]) {{ id }} e: customers(first: 100) {{ nodes {{ id }} totalCount }} }}"
        );
        let data = world.graphql_as(&me, &query).json()["data"].clone();
        assert_eq!((&data["a"], &data["b"], &data["c"]), (&Value::Null, &Value::Null, &json!({"id": own})), "{data}");
        assert_eq!(data["d"], json!([null, {"id": own}]));
        let ids: Vec<i64> =
            data["e"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_i64().unwrap()).collect();
        assert!(ids.contains(&own) && !ids.contains(&foreign) && data["e"]["totalCount"] == ids.len(), "{data}");
    }
}

#[test]
fn a_foreign_document_takes_as_long_as_one_that_is_not_there() {
    // Whose a document is stands in its id, or behind everything that is large in it.
    for (rule, me) in [(by_id(), json!({"customer_id": 7})), (by_index(), json!({"group": 7}))] {
        let world = Guarded::new(rule);
        // So large that to send or to parse it would show.
        let mut large = customer(8);
        large["name"] = "x".repeat(100_000).into();
        put(&world.store, 1, &int_key(8), Some(&large));
        let token = format!("Bearer {}", good(me.clone()));
        for (before, after, status) in
            [("/v1/customer/", "", 404), ("/graphql?query=%7Bcustomer(id:", ")%7Bid%7D%7D", 200)]
        {
            let ask = |id: i64| {
                let begin = Instant::now();
                let answer = world.get_with(&format!("{before}{id}{after}"), &[("authorization", token.as_str())]);
                assert_eq!(answer.status, status);
                begin.elapsed().as_secs_f64()
            };
            let median = |mut took: Vec<f64>| {
                took.sort_by(f64::total_cmp);
                took[took.len() / 2]
            };
            // In turns, so that a busy machine is as busy for both. Some moments can spoil one round; a difference that
            // is there is there in each.
            let close = (0..10).any(|_| {
                let (foreign, unknown) = (0..200).map(|_| (ask(8), ask(99_999))).unzip();
                let ratio = median(foreign) / median(unknown);
                (0.75..1.33).contains(&ratio)
            });
            assert!(close, "{me} {before}: a foreign document answers in another time than one that is not there");
        }
    }
}

#[test]
fn a_foreign_document_at_hand_is_read_like_one_that_is_not_there() {
    let world = Guarded::new(by_id());
    let counted = |name: &str| -> u64 {
        let metrics = world.admin("GET", "/metrics", &[], None).body;
        let line = metrics.lines().find(|line| line.starts_with(&format!("headwater_api_cache_{name}_total ")));
        line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    wait_until("the owner's document to be at hand", || {
        assert_eq!(world.get_as(&json!({"customer_id": 8}), "/v1/customer/8").status, 200);
        counted("hits") > 0
    });
    let read = |id: i64| {
        let before = counted("misses");
        for _ in 0..5 {
            assert_eq!(world.get_as(&json!({"customer_id": 7}), &format!("/v1/customer/{id}")).status, 404);
        }
        counted("misses") - before
    };
    assert_eq!((read(8), read(99_999)), (5, 5), "what is at hand answers no faster");
}

#[test]
fn a_list_of_ones_own_that_is_large_is_ones_own() {
    let with_few_bytes = |rule| Guarded::with_options(rule, |options| options.documents_bytes_max = 300);
    let world = with_few_bytes(by_index());
    let me = json!({"group": 3});
    for path in ["/v1/customer?sort=name", "/v1/me/customer?sort=-name", "/v1/customer?limit=100"] {
        let (mut seen, mut pages, mut next) = (Vec::new(), 0, path.to_string());
        loop {
            let answer = world.get_as(&me, &next);
            assert_eq!(answer.status, 200, "{next}: {}", answer.body);
            let page = answer.json();
            seen.extend(page["data"].as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()));
            pages += 1;
            let Some(cursor) = page["page"]["next"].as_str() else { break };
            next = format!("{path}{}after={cursor}", if path.contains('?') { '&' } else { '?' });
        }
        seen.sort_unstable();
        assert_eq!(seen, [3, 13, 23, 33, 43], "{path}");
        assert!(pages > 1, "{path}: all are on one page");
    }
    let counted = world.get_as(&me, "/v1/customer?sort=name&count=exact&limit=1").json();
    assert_eq!(counted["count"], json!({"kind": "exact", "value": 5}));
    // Those that claims name are read together.
    let world = with_few_bytes(by_id());
    let named = |ids: Value| world.get_as(&json!({"customer_id": ids}), "/v1/customer?sort=name");
    assert_eq!(named(json!([1])).json()["data"], json!([customer(1)]));
    let refused = named(json!([1, 2, 3, 5, 6, 7]));
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("documents_too_large")));
    // How large those of others are is not told, either.
    let batch = |ids: Value| world.get_as(&json!({"customer_id": ids}), "/v1/customer?ids=7,11,15,19,23");
    assert_eq!(batch(json!(7)).json()["data"], json!([customer(7), null, null, null, null]));
    assert_eq!(batch(json!([7, 11, 15])).status, 413);
}

#[test]
fn no_request_takes_the_restriction_off_a_list() {
    let world = Guarded::new(by_index());
    let me = json!({"group": 3});
    let own = |answer: &Answer| {
        let data = answer.json()["data"].clone();
        data.as_array().unwrap().iter().all(|document| document["n"] == 3)
    };
    for query in [
        "",
        "?limit=100",
        "?filter[n][eq]=4",
        "?filter[n][ne]=3",
        "?filter[n][in]=1,2,3,4,5",
        "?filter[n][nin]=3",
        "?filter[n][gte]=0&limit=100",
        "?filter[n][lte]=9&limit=100",
        "?filter[n][exists]=true&limit=100",
        "?filter[n][exists]=false",
        "?filter[invoices.status][eq]=open&limit=100",
        "?filter[invoices.status][ne]=open&limit=100",
        "?filter[name][startsWith]=name&limit=100",
        "?filter[name][startsWith]=name&filter[name][contains]=even&limit=100",
        "?sort=name&limit=100",
        "?sort=-name&limit=100",
        "?sort=n&limit=100",
        "?sort=-n&filter[n][gte]=0",
    ] {
        let answer = world.get_as(&me, &format!("/v1/customer{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        assert!(own(&answer), "{query}: {}", answer.body);
    }
    let count = |query: &str| world.get_as(&me, &format!("/v1/customer?{query}")).json()["count"]["value"].clone();
    for query in ["count=exact", "count=estimated", "count=exact&sort=name", "count=exact&filter[n][gte]=0"] {
        assert_eq!(count(query), 5, "{query}");
    }
    let ids = |path: &str| -> Vec<i64> {
        let list = world.get_as(&me, path).json();
        list["data"].as_array().unwrap().iter().map(|document| document["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("/v1/customer?sort=-name"), [43, 33, 3, 23, 13]);
    let page = world.get_as(&me, "/v1/customer?sort=-name&limit=2").json();
    let next = page["page"]["next"].as_str().unwrap();
    assert_eq!(ids(&format!("/v1/customer?sort=-name&limit=2&after={next}")), [3, 23]);
    for claims in
        [json!({}), json!({"group": null}), json!({"group": {"a": 1}}), json!({"group": "x"}), json!({"group": []})]
    {
        let answer = world.get_as(&claims, "/v1/customer?limit=100&count=exact&sort=name");
        assert_eq!((&answer.json()["data"], &answer.json()["count"]["value"]), (&json!([]), &json!(0)), "{claims}");
        assert_eq!(world.get_as(&claims, "/v1/customer/3").status, 404);
    }
    let both = world.get_as(&json!({"group": [3, 4]}), "/v1/customer?limit=100&sort=n").json();
    assert_eq!(both["data"].as_array().unwrap().len(), 9, "several values are several groups");
    let query =
        "{ customers(where: {name: {startsWith: \"name\", contains: \"odd\"}}, first: 100) { nodes { id n } } }";
    let nodes = world.graphql_as(&me, query).json()["data"]["customers"]["nodes"].clone();
    assert_eq!(nodes, json!([3, 13, 23, 33, 43].map(|id| json!({"id": id, "n": 3}))));
    let all = world.get_with("/v1/customer?count=exact", &[("x-api-key", API_KEY)]).json();
    assert_eq!(all["count"]["value"], 50, "support sees everything");
}

#[test]
fn lists_of_a_model_bound_by_id_hold_one_document() {
    let world = Guarded::new(by_id());
    let me = json!({"customer_id": "7"});
    for (query, wanted) in [
        ("", 1),
        ("?sort=-name", 1),
        ("?filter[n][exists]=false", 1),
        ("?filter[n][exists]=true", 0),
        ("?filter[invoices.status][eq]=open", 1),
        ("?filter[invoices.status][ne]=open", 0),
        ("?filter[name][startsWith]=name&filter[name][contains]=odd", 1),
        ("?filter[name][startsWith]=name&filter[name][contains]=even", 0),
    ] {
        let answer =
            world.get_as(&me, &format!("/v1/customer{query}{}count=exact", if query.is_empty() { "?" } else { "&" }));
        let list = answer.json();
        assert_eq!(
            (list["data"].as_array().map(Vec::len), &list["count"]["value"]),
            (Some(wanted), &json!(wanted)),
            "{query}"
        );
        assert!(list["data"].as_array().unwrap().iter().all(|document| document["id"] == 7));
        assert_eq!(list["page"]["next"], Value::Null);
    }
}

#[test]
fn me_is_who_the_token_says() {
    let world = Guarded::new(by_id());
    let me = world.get_as(&json!({"customer_id": 7}), "/v1/me/customer?fields=id");
    assert_eq!(me.json(), json!({"id": 7}));
    assert_eq!(
        world.get_as(&json!({"customer_id": 7}), "/v1/me/customer").header("cache-control"),
        "private, no-cache"
    );
    assert_eq!(world.get_as(&json!({}), "/v1/me/customer").status, 404);
    assert_eq!(world.get_as(&json!({"customer_id": 99_999}), "/v1/me/customer").status, 404);
    assert_eq!(world.get_as(&json!({"customer_id": 7}), "/v1/me/rate").status, 404);
    // Whoever may see everything still has only what is theirs here.
    let support = json!({"customer_id": 7, "roles": ["support"]});
    assert_eq!(world.get_as(&support, "/v1/me/customer?fields=id").json(), json!({"id": 7}));
    assert_eq!(world.get_as(&support, "/v1/customer/8?fields=id").json(), json!({"id": 8}));

    let world = Guarded::new(by_index());
    for claims in [json!({"group": 3}), json!({"group": 3, "roles": "support other"})] {
        let list = world.get_as(&claims, "/v1/me/customer?sort=-name&limit=2");
        let link = list.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_string();
        assert!(link.starts_with("/v1/me/customer?"), "{link}");
        let second = world.get_as(&claims, &link).json();
        let n = |list: &Value| list["data"].as_array().unwrap().iter().all(|document| document["n"] == 3);
        assert!(n(&list.json()) && n(&second) && second["data"].as_array().unwrap().len() == 2);
    }
    assert_eq!(world.get_as(&json!({"group": 3}), "/v1/me/customer?ids=1").status, 400);
}

#[test]
fn a_validator_of_ones_own_confirms_nothing_of_anothers() {
    let world = Guarded::over(by_id(), |store| Arc::new(OneStamp(store)), |_| {});
    let ask = |id: i64, path: &str, more: &[(&str, &str)]| {
        let token = format!("Bearer {}", good(json!({"customer_id": id})));
        world.get_with(path, &[&[("authorization", token.as_str())][..], more].concat())
    };
    for path in ["/v1/me/customer", "/v1/me/customer?fields=id,name"] {
        for more in [&[][..], &[("accept", "application/cbor")]] {
            let etag = ask(7, path, more).header("etag").to_string();
            assert!(etag.contains('-'), "{path}: {etag}");
            let again = [more, &[("if-none-match", etag.as_str())]].concat();
            assert_eq!(ask(7, path, &again).status, 304, "{path}: it is still the caller's own");
            let of_another = ask(8, path, &again);
            assert_eq!(of_another.status, 200, "{path}: what one caller has is taken for what another may see");
            assert_ne!(of_another.header("etag"), etag, "{path}");
        }
    }
    assert_eq!(ask(8, "/v1/me/customer?fields=id", &[]).json(), json!({"id": 8}));
}

#[test]
fn tenants_do_not_meet() {
    let rule = ModelRule {
        tenant: Some(binding("tenant", Some("n"))),
        owner: Some(binding("name", Some("name"))),
        ..ModelRule::default()
    };
    let world = Guarded::new(rule);
    let name = |id: i64| customer(id)["name"].clone();
    // The owner is right and the tenant is not, and the other way round.
    let claims = json!({"tenant": 3, "name": name(13)});
    assert_eq!(world.get_as(&claims, "/v1/customer/13").status, 200);
    assert_eq!(world.get_as(&claims, "/v1/customer/23").status, 404);
    assert_eq!(world.get_as(&json!({"tenant": 4, "name": name(13)}), "/v1/customer/13").status, 404);
    assert_eq!(world.get_as(&json!({"name": name(13)}), "/v1/customer/13").status, 404);
    for (claims, wanted) in [(claims, 1), (json!({"tenant": 4, "name": name(13)}), 0), (json!({"tenant": 3}), 0)] {
        for query in ["", "?sort=name", "?filter[n][gte]=0"] {
            let list = world.get_as(&claims, &format!("/v1/customer{query}")).json();
            assert_eq!(list["data"].as_array().map(Vec::len), Some(wanted), "{claims} {query}");
        }
    }
}

#[test]
fn a_cursor_is_good_for_the_one_who_got_it() {
    let world = Guarded::new(by_index());
    let (one, other) = (json!({"group": 3, "sub": "one"}), json!({"group": 3, "sub": "other"}));
    for path in ["/v1/customer?limit=2", "/v1/customer?limit=2&sort=name", "/v1/customer/23/invoices?limit=1"] {
        let next = world.get_as(&one, path).json()["page"]["next"].as_str().unwrap().to_string();
        let go_on = |claims: &Value, cursor: &str| world.get_as(claims, &format!("{path}&after={cursor}"));
        assert_eq!(go_on(&one, &next).status, 200, "{path}");
        for (claims, cursor) in [(&other, next.clone()), (&one, next[1..].to_string()), (&one, format!("{next}AA"))] {
            let refused = go_on(claims, &cursor);
            assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("invalid_cursor")), "{path}");
        }
        // A page with a cursor of one is not confirmed to the other, who could not go on with it.
        let etag = world.get_as(&one, path).header("etag").to_string();
        let again = |claims: &Value| {
            let token = format!("Bearer {}", good(claims.clone()));
            world.get_with(path, &[("authorization", token.as_str()), ("if-none-match", etag.as_str())]).status
        };
        assert_eq!((again(&one), again(&other)), (if etag.is_empty() { 200 } else { 304 }, 200), "{path}");
        assert_eq!(etag.is_empty(), !path.contains("/invoices"), "{path}");
        // Every letter counts.
        for at in 0..next.len() {
            let mut forged = next.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let refused = go_on(&one, &String::from_utf8(forged).unwrap());
            let same_bits = at + 1 == next.len() && refused.status == 200;
            assert!(refused.status == 400 || same_bits, "{path} {at}");
        }
    }
}

#[test]
fn a_live_stream_ends_with_what_it_may_tell() {
    let world = Guarded::new(by_index());
    let follow = |claims: &Value| {
        let mut stream = TcpStream::connect(world.api.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!(
            "GET /v1/customer/13?fields=id,n HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
            good(claims.clone())
        );
        stream.write_all(request.as_bytes()).unwrap();
        BufReader::new(stream).lines().map_while(Result::ok)
    };
    let mut lines = follow(&json!({"group": 3}));
    assert_eq!(lines.find(|line| line.starts_with("data")), Some("data: {\"id\":13,\"n\":3}".into()));
    let mut moved = customer(13);
    moved["n"] = json!(4);
    put(&world.store, 1, &int_key(13), Some(&moved));
    assert_eq!(lines.find(|line| line.starts_with("event")), Some("event: deleted".into()), "it is another's now");
    assert_eq!(lines.find(|line| line.starts_with("data")), Some("data: null".into()));
    moved["name"] = json!("a secret of the other");
    put(&world.store, 1, &int_key(13), Some(&moved));
    put(&world.store, 1, &int_key(13), Some(&customer(13)));
    assert_eq!(lines.find(|line| line.starts_with("data")), Some("data: {\"id\":13,\"n\":3}".into()));

    // Credentials end: within the leeway of 30 s there is no need to wait for it all.
    let begin = Instant::now();
    let mut short = follow(&json!({"group": 3, "exp": crate::issuer::now() - 28}));
    assert!(short.find(|line| line.starts_with("data")).is_some());
    // The last chunk of a body is empty; a stream that goes on says so with comments.
    assert_eq!(
        short.find(|line| line.starts_with("event") || line.starts_with(':') || line == "0").as_deref(),
        Some("0"),
        "the stream ended"
    );
    assert!(begin.elapsed() < Duration::from_secs(25));
}
