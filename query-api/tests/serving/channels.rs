//! Channels: the same documents in other shapes, by every way to ask for them.

use headwater_query_api::{ChannelOptions, Format, PageLimits, SelectRule, TrustedDocuments};
use headwater_store::VersionState;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::events::follow_with;
use crate::fixture::{
    Answer, World, channel, channels, customer, customers, int_key, put, record, set_versions, wait_until,
};
use crate::socket::{PROTOCOL, Socket};

/// `mobile`: few fields under other names, two invoices each; `iot`: one document at a time; `all`: everything.
fn world() -> World {
    World::with_options(|options| {
        let fields = ["id", "n", "invoices[0:2].{total,status}"];
        let names = [("n", "rank"), ("invoices", "bills"), ("invoices.total", "sum")];
        let mobile = ChannelOptions { page: PageLimits { default: 5, max: 10 }, ..channel(&fields, &names) };
        let iot = ChannelOptions {
            page: PageLimits { default: 1, max: 1 },
            live: false,
            format: Format::Cbor,
            ..channel(&["id", "name"], &[("name", "label")])
        };
        options.channels = channels([("mobile", mobile), ("iot", iot), ("all", ChannelOptions::default())]);
        let select = &mut options.channels.select;
        select.push(SelectRule::host("m.example.com", "mobile"));
        select.push(SelectRule::user_agent("^Fridge/", "iot").unwrap());
    })
}

fn mobile(id: i64) -> Value {
    let whole = customer(id);
    let bills: Vec<Value> = whole["invoices"]
        .as_array()
        .unwrap()
        .iter()
        .take(2)
        .map(|invoice| json!({"status": invoice["status"], "sum": invoice["total"]}))
        .collect();
    json!({"id": id, "rank": whole["n"], "bills": bills})
}

#[test]
fn a_channel_is_chosen_by_header_host_or_user_agent() {
    let world = world();
    let by = |headers: &[(&str, &str)]| world.get_with("/v1/customer/11", headers);
    assert_eq!(by(&[]).json(), customer(11));
    assert_eq!(by(&[("x-channel", "all")]).json(), customer(11));
    assert_eq!(by(&[("x-channel", "mobile")]).json(), mobile(11));
    assert_eq!(by(&[("host", "m.example.com")]).json(), mobile(11));
    let fridge = by(&[("user-agent", "Fridge/7 (cold)"), ("accept", "application/json")]);
    assert_eq!(fridge.json(), json!({"id": 11, "label": customer(11)["name"]}));
    // Its own format is what it gets where it does not say.
    for accept in [None, Some(("accept", "*/*"))] {
        let headers: Vec<_> = [("user-agent", "Fridge/7")].into_iter().chain(accept).collect();
        let answer = by(&headers);
        assert_eq!((answer.header("content-type"), answer.bytes[0]), ("application/cbor", 0xbf));
        assert!(answer.bytes.windows(6).any(|part| part == b"elabel"));
    }
    for path in ["/v1/customer", "/v1/customer?ids=11"] {
        assert_eq!(world.get_by("iot", path).header("content-type"), "application/cbor", "{path}");
    }
    assert_eq!(by(&[("user-agent", "Fridge/7"), ("x-channel", "mobile")]).json(), mobile(11));
    for answer in [by(&[]), by(&[("x-channel", "mobile")])] {
        assert_eq!(answer.header("vary"), "accept, accept-encoding, host, user-agent, x-channel");
    }
    let refused = by(&[("x-channel", "mobil")]);
    assert_eq!((refused.status, refused.json()["code"].clone()), (400, json!("unknown_channel")));
    let detail = refused.json()["detail"].as_str().unwrap().to_string();
    assert!(detail.contains("did you mean `mobile`?") && detail.contains("`all`, `iot`, `mobile`"), "{detail}");
    assert_eq!(world.get_by("mobile", "/v1/rate").status, 404, "the channel has no such model");
    assert_eq!(world.get_by("all", "/v1/rate").status, 200);
}

#[test]
fn requests_of_no_channel_can_be_refused() {
    let world = World::with_options(|options| {
        options.channels = channels([("all", ChannelOptions::default())]);
        options.channels.required = true;
    });
    let refused = world.get("/v1/customer/1");
    assert_eq!((refused.status, refused.json()["code"].clone()), (400, json!("channel_required")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("`x-channel`; there are `all`"), "{}", refused.body);
    assert_eq!(world.get_by("all", "/v1/customer/1").status, 200);
}

#[test]
fn lists_fields_filters_and_orders_go_by_the_names_of_the_channel() {
    let world = world();
    let ids = |answer: &Answer| -> Vec<i64> {
        let json = answer.json();
        let data = json["data"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
        data.iter().map(|one| one["id"].as_i64().unwrap()).collect()
    };
    let get = |path: &str| world.get_by("mobile", path);
    let list = get("/v1/customer").json();
    let wanted: Vec<Value> = (1..=5).map(mobile).collect();
    assert_eq!(list["data"], json!(wanted), "the page has as many as is usual for the channel");
    assert_eq!(get("/v1/customer?limit=11").status, 400);
    assert_eq!(get("/v1/customer?ids=1,2").json()["data"], json!([mobile(1), mobile(2)]));
    assert_eq!(get(&format!("/v1/customer?ids={}", ["1"; 11].join(","))).status, 400);

    let some = get("/v1/customer/11?fields=bills.sum").json();
    assert_eq!(some, json!({"bills": [{"sum": "11.00"}, {"sum": "11.10"}]}));
    let sorted = get("/v1/customer?sort=-rank&limit=10");
    assert_eq!(ids(&sorted), [39, 29, 19, 9, 48, 38, 18, 8, 47, 37]);
    let next = sorted.json()["page"]["next"].as_str().unwrap().to_string();
    assert_eq!(ids(&get(&format!("/v1/customer?sort=-rank&limit=3&after={next}"))), [27, 17, 46]);
    assert!(sorted.header("link").contains(&next));
    assert_eq!(ids(&get("/v1/customer?filter[rank][eq]=7&limit=3")), [17, 27, 37]);
    let told = get("/v1/customer?sort=n").json()["detail"].as_str().unwrap().to_string();
    assert!(told.contains("by `n`, but by `rank`"), "{told}");

    // A page inside the document ends where the channel does.
    let bills = get("/v1/customer/11/bills?limit=1").json();
    assert_eq!(
        (&bills["data"], &bills["count"]["value"]),
        (&json!([{"status": "overdue", "sum": "11.00"}]), &json!(2))
    );
    assert_eq!(get("/v1/customer/11/invoices").status, 404);
}

#[test]
fn validators_are_of_the_channel() {
    let world = world();
    let tag = |channel: &str| world.get_by(channel, "/v1/customer/11").header("etag").to_string();
    let tags = [world.get("/v1/customer/11").header("etag").to_string(), tag("mobile"), tag("iot"), tag("all")];
    for (at, (channel, of)) in [("mobile", &tags[1]), ("iot", &tags[2]), ("all", &tags[3])].into_iter().enumerate() {
        for (other, tag) in tags.iter().enumerate() {
            let answer = world.get_with("/v1/customer/11", &[("x-channel", channel), ("if-none-match", tag)]);
            assert_eq!(answer.status == 304, other == at + 1, "{channel}: {of} and {tag}");
        }
    }
}

#[test]
fn live_streams_are_of_the_channel() {
    let world = world();
    let headers = [("x-channel", "iot"), ("accept", "text/event-stream")];
    let refused = world.get_with("/v1/customer/11", &headers);
    assert_eq!((refused.status, refused.json()["code"].clone()), (406, json!("live_not_served")));

    let url = format!("http://{}/v1/customer/11", world.api.address);
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(None).build().into();
    let request = agent.get(url).header("x-channel", "mobile").header("accept", "text/event-stream");
    let mut lines = std::io::BufReader::new(request.call().unwrap().into_body().into_reader());
    let mut event = || {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0);
        }
        serde_json::from_str::<Value>(&line["data: ".len()..]).unwrap()
    };
    assert_eq!(event(), mobile(11));
    let mut changed = customer(11);
    changed["n"] = json!(77);
    put(&world.store, 1, &int_key(11), Some(&changed));
    assert_eq!(event()["rank"], 77);
}

#[test]
fn lists_and_subscriptions_are_followed_by_the_channel() {
    let world = world();
    let refused = world.get_with("/v1/customer?limit=3", &[("x-channel", "iot"), ("accept", "text/event-stream")]);
    assert_eq!((refused.status, refused.json()["code"].clone()), (406, json!("live_not_served")));
    let mut list = follow_with(&world, "/v1/customer?filter[rank][gte]=50&sort=rank", &[("x-channel", "mobile")]);
    assert_eq!(list.next().unwrap().json()["data"], json!([]));
    let query = "subscription { customerChanged(id: 11) { id rank bills { sum status } } }";
    let mut socket = Socket::open(&world, PROTOCOL, &[("x-channel", "mobile")]).unwrap();
    // Browsers send no headers of a page's own, so the first message can name it, too.
    let mut named = Socket::open(&world, PROTOCOL, &[]).unwrap();
    let by_host = Socket::open(&world, PROTOCOL, &[("user-agent", "Fridge/7")]).unwrap();
    socket.say(&json!({"type": "connection_init"}));
    named.say(&json!({"type": "connection_init", "payload": {"X-Channel": "mobile"}}));
    for socket in [&mut socket, &mut named] {
        assert_eq!(socket.hear()["type"], "connection_ack");
        socket.subscribe("a", query);
        assert_eq!(socket.result("a"), json!({"data": {"customerChanged": mobile(11)}}));
        socket.subscribe("whole", "subscription { customerChanged(id: 11) { n } }");
        assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "graphql_invalid");
    }
    let mut changed = customer(11);
    changed["n"] = json!(77);
    put(&world.store, 1, &int_key(11), Some(&changed));
    let mut wanted = mobile(11);
    wanted["rank"] = json!(77);
    assert_eq!(list.next().unwrap().json()["put"][0]["document"], wanted);
    for socket in [&mut socket, &mut named] {
        assert_eq!(socket.result("a"), json!({"data": {"customerChanged": wanted}}));
    }
    // A channel without live streams has no subscriptions; other operations are answered.
    let mut fridge = by_host;
    fridge.say(&json!({"type": "connection_init"}));
    fridge.hear();
    fridge.subscribe("a", "subscription { customerChanged(id: 11) { id } }");
    assert_eq!(fridge.hear()["payload"][0]["extensions"]["code"], "graphql_invalid");
    fridge.subscribe("b", "{ customer(id: 11) { label } }");
    assert_eq!(fridge.result("b")["data"]["customer"]["label"], customer(11)["name"]);
    assert!(!world.get("/graphql/schema?channel=iot").body.contains("Subscription"));
    for (headers, payload) in [
        (&[("x-channel", "mobil")][..], json!({})),
        (&[], json!({"x-channel": "mobil"})),
        (&[], json!({"x-channel": 7})),
        (&[("x-channel", "mobile")], json!({"x-channel": "all"})),
    ] {
        let mut socket = Socket::open(&world, PROTOCOL, headers).unwrap();
        socket.say(&json!({"type": "connection_init", "payload": payload}));
        assert_eq!(socket.closed(), 4403, "{payload}");
    }
}

#[test]
fn a_channel_can_answer_trusted_documents_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.graphql"), "query($id: ID!) { customer(id: $id) { rank } }").unwrap();
    let follow = "subscription { customerChanged(id: 11) { rank } }";
    std::fs::write(folder.path().join("follow.graphql"), follow).unwrap();
    let world = World::with_options(|options| {
        let kiosk = ChannelOptions { trusted_only: true, ..channel(&["id", "n"], &[("n", "rank")]) };
        options.channels = channels([("kiosk", kiosk), ("web", channel(&["id", "n"], &[("n", "rank")]))]);
        options.graphql.trusted = Some(TrustedDocuments { path: folder.path().into(), only: false });
    });
    let ask = |channel: &str, body: &Value| {
        let headers = [("content-type", "application/json"), ("x-channel", channel)];
        world.ask("POST", "/graphql", &headers, Some(&body.to_string()))
    };
    let rank = |answer: &Answer| answer.json()["data"]["customer"]["rank"].clone();
    let by_id = json!({"documentId": "one", "variables": {"id": 11}});
    let free = json!({"query": "{ customer(id: 11) { rank } }"});
    assert_eq!((rank(&ask("kiosk", &by_id)), rank(&ask("web", &by_id))), (json!(1), json!(1)));
    assert_eq!(rank(&ask("web", &free)), json!(1));
    let refused = ask("kiosk", &free);
    assert_eq!((refused.status, code(&refused.json())), (403, json!("untrusted_document")));
    let by_get = world.get_by("kiosk", "/graphql?query=%7Bcustomer(id:11)%7Brank%7D%7D");
    assert_eq!((by_get.status, code(&by_get.json())), (403, json!("untrusted_document")));
    let batch = ask("kiosk", &json!([by_id, free])).json();
    assert_eq!(
        (batch[0]["data"]["customer"]["rank"].clone(), code(&batch[1])),
        (json!(1), json!("untrusted_document"))
    );
    // What was registered by another channel is not trusted here.
    let hash: String = Sha256::digest("{ customer(id: 11) { rank } }").iter().map(|b| format!("{b:02x}")).collect();
    let mut persisted = free.clone();
    persisted["extensions"] = json!({"persistedQuery": {"version": 1, "sha256Hash": hash}});
    assert_eq!((rank(&ask("web", &persisted)), ask("kiosk", &persisted).status), (json!(1), 403));
    persisted.as_object_mut().unwrap().remove("query");
    assert_eq!((rank(&ask("web", &persisted)), ask("kiosk", &persisted).status), (json!(1), 404));
    let mut socket = Socket::open(&world, PROTOCOL, &[("x-channel", "kiosk")]).unwrap();
    socket.say(&json!({"type": "connection_init"}));
    socket.hear();
    socket.subscribe("free", "subscription { customerChanged(id: 11) { id rank } }");
    assert_eq!(socket.hear()["payload"][0]["extensions"]["code"], "untrusted_document");
    socket.say(&json!({"id": "a", "type": "subscribe", "payload": {"documentId": "follow"}}));
    assert_eq!(socket.result("a"), json!({"data": {"customerChanged": {"rank": 1}}}));
}

fn code(answer: &Value) -> Value {
    answer["errors"][0]["extensions"]["code"].clone()
}

#[test]
fn graphql_speaks_the_names_of_the_channel() {
    let world = world();
    let query = "{ customer(id: 11) { id rank bills { sum status } } \
                   customers(first: 2, where: {rank: {eq: 7}}, orderBy: rank_DESC) { nodes { id } } }";
    let answer = world.graphql_by("mobile", query);
    let data = answer.json()["data"].clone();
    assert_eq!(data["customer"], mobile(11), "{}", answer.body);
    assert_eq!(data["customers"]["nodes"], json!([{"id": 47}, {"id": 37}]));
    assert_eq!(answer.header("vary"), "accept, accept-encoding, host, user-agent, x-channel");
    let nodes = world.graphql_by("mobile", "{ customers { nodes { id } } }").json();
    assert_eq!(nodes["data"]["customers"]["nodes"].as_array().unwrap().len(), 5);
    for (query, limit) in
        [("{ customers(first: 2) { nodes { id } } }", 1), ("{ customersByIds(ids: [1, 2]) { id } }", 1)]
    {
        let refused = world.graphql_by("iot", query);
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains(&format!("over the limit of {limit}")), "{}", refused.body);
    }
    assert_eq!(world.graphql_by("iot", "{ customer(id: 11) { rank } }").status, 400);
    assert_eq!(world.graphql_by("iot", "{ rates { nodes { rate } } }").status, 400);
    assert_eq!(world.graphql_by("all", "{ customer(id: 11) { n } }").json()["data"]["customer"]["n"], 1);
}

#[test]
fn each_channel_is_described_as_it_is() {
    let world = world();
    let names = |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for ask in ["/v1/customer/schema?channel=mobile", "/v1/customer/schema"] {
        let answer = if ask.contains('?') { world.get(ask) } else { world.get_by("mobile", ask) };
        assert_eq!(names(&answer.json()), ["id", "rank", "bills"], "{ask}");
        assert_eq!(names(&answer.json()["properties"]["bills"]["items"]), ["status", "sum"]);
    }
    let openapi = world.get("/openapi.json?channel=mobile").json();
    assert_eq!(names(&openapi["components"]["schemas"]["customer"]), ["id", "rank", "bills"]);
    assert_eq!(openapi["components"]["parameters"]["limit"]["schema"]["maximum"], 10);
    assert!(openapi["paths"]["/v1/customer/{id}/bills"].is_object() && openapi["paths"]["/v1/rate"].is_null());
    let parameter = &openapi["components"]["parameters"]["channel"];
    assert_eq!((&parameter["name"], &parameter["schema"]["enum"]), (&json!("x-channel"), &json!(["mobile"])));
    let text = openapi.to_string();
    assert!(text.contains("filter[rank][eq]") && !text.contains("[invoices") && !text.contains("filter[n]"), "{text}");
    let whole = world.get("/openapi.json").json();
    assert!(whole["components"]["parameters"]["channel"].is_null());
    assert!(whole["info"]["description"].as_str().unwrap().contains("`?channel=mobile`"));
    let sdl = world.get("/graphql/schema?channel=mobile").body;
    assert!(sdl.contains("rank: Int") && sdl.contains("bills(first: Int)") && sdl.contains("first: Int = 5"), "{sdl}");
    assert!(!sdl.contains("invoices") && !sdl.contains("tariff"), "{sdl}");
    assert_eq!(world.get("/graphql/schema?channel=mobil").status, 400);
    assert_eq!(world.get("/openapi.json?chanel=mobile").status, 400);
}

#[test]
fn what_no_longer_fits_is_told_and_the_rest_is_served() {
    let world = world();
    assert_eq!(world.admin("GET", "/status", &[], None).json()["channel_problems"], Value::Null);
    let mut next = customers();
    next.version = 4;
    next.fields.retain(|field| field.name != "n");
    next.indexes.remove(1);
    // A field of which the name is one that another field has in the channel.
    let mut bills = next.fields[0].clone();
    bills.name = "bills".into();
    next.fields.push(bills);
    let mut document = customer(11);
    document.as_object_mut().unwrap().remove("n");
    document["bills"] = json!(3);
    put(&world.store, 7, &int_key(11), Some(&json!({"id": 0})));
    let mut batch = headwater_store::ProjectionStore::begin(&*world.store).unwrap();
    let body = document.to_string();
    let id = int_key(11);
    let write = headwater_store::DocumentWrite { id: &id, body: Some(body.as_bytes()), entries: &[], stamp: None };
    batch.put_documents(headwater_store::VersionId(7), 1, &[write]).unwrap();
    batch.commit().unwrap();
    let old = record(1, customers(), VersionState::Retired);
    set_versions(&world.store, &[old, record(7, next, VersionState::Active)]);
    wait_until("the new version", || world.get("/v1/customer/11").header("x-model-version") == "4");

    let seen = world.get_by("mobile", "/v1/customer/11").json();
    let mut wanted = mobile(11);
    wanted.as_object_mut().unwrap().remove("rank");
    assert_eq!(seen, wanted, "bills go on to be what they were");
    let problems = world.admin("GET", "/status", &[], None).json()["channel_problems"].clone();
    let told: Vec<&str> = problems.as_array().unwrap().iter().map(|one| one["problem"].as_str().unwrap()).collect();
    assert_eq!(told, ["`n`: customer has no field `n`", "the new name of `n`: customer has no field `n`"]);
    assert_eq!(problems[0]["channel"], "mobile");
    assert_eq!((&problems[0]["model"], &problems[0]["version"]), (&json!("customer"), &json!(4)));
    assert!(problems[0]["remedy"].as_str().unwrap().contains("there are `id`"), "{problems}");
}
