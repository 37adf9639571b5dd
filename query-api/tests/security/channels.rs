//! What is outside a channel, by every way in which it might be found out. A channel is no permission, but what it leaves
//! out is as unknown as what was never there: nothing of a front end comes to depend on it by accident.

use headwater_query_api::{Mask, MaskRule, ModelRule};
use serde_json::{Value, json};

use crate::fixture::{World, channel, channels, customer};
use crate::issuer::good;
use crate::world::Guarded;

/// `small` shows neither names nor totals, and one invoice; `other` is like it and has other cursors.
fn world() -> World {
    World::with_options(|options| {
        let fields = ["id", "n", "tariff", "invoices[0:1].{number,status}"];
        let small = || channel(&fields, &[("n", "rank")]);
        options.channels = channels([("small", small()), ("other", small())]);
    })
}

#[test]
fn fields_outside_a_channel_and_unknown_ones_are_refused_alike() {
    let world = world();
    let said = |path: String, name: &str| {
        let answer = world.get_by("small", &path);
        let body = answer.body.replace(name, "_").replace(answer.header("x-request-id"), "");
        (answer.status, body)
    };
    for form in [
        "/v1/customer?fields={}",
        "/v1/customer/7?fields=id,{}",
        "/v1/customer?filter[{}][eq]=x",
        "/v1/customer?filter[{}][contains]=n",
        "/v1/customer?filter[{}][exists]=true",
        "/v1/customer?sort={}",
        "/v1/customer?sort=-{}",
        "/v1/customer/7/{}",
        "/v1/customer/7/invoices?fields={}",
    ] {
        let ask = |name: &str| said(form.replace("{}", name), name);
        let unknown = ask("zzzz");
        assert!(unknown.0 == 400 || unknown.0 == 404, "{form}: {unknown:?}");
        // Left out, renamed, and found only through an array of which elements are left out.
        for name in ["name", "n", "total", "invoices.total"] {
            let told = ask(name);
            assert_eq!(told.0, unknown.0, "{form} {name}: {told:?}");
            // The last name of a path is said again, as it was written.
            let told = told.1.replace("no field `total` (in", "no field `_` (in");
            assert!(!told.contains("`name`") && !told.contains("total"), "{form} {name}: {told}");
        }
        for near in ["nam", "naem", "names", "totl"] {
            assert!(!ask(near).1.contains("`name`") && !ask(near).1.contains("total"), "{form} {near}");
        }
        assert_eq!(ask("name"), unknown, "{form}");
    }
    // What filters by elements that are left out would tell of them.
    let refused = world.get_by("small", "/v1/customer?filter[invoices.status][eq]=open");
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(!refused.body.contains("by `invoices.status`, but by `name`"), "{}", refused.body);
    assert_eq!(world.get("/v1/customer?filter[invoices.status][eq]=open").status, 200);
}

#[test]
fn nothing_outside_a_channel_is_in_any_answer() {
    let world = world();
    for path in [
        "/v1/customer/7",
        "/v1/customer/7?fields=invoices,id",
        "/v1/customer/7/invoices",
        "/v1/customer?limit=100",
        "/v1/customer?ids=1,2,7",
        "/v1/customer?filter[rank][gte]=0",
        "/openapi.json",
        "/graphql/schema",
        "/v1/customer/schema",
        "/openapi.json?channel=small",
    ] {
        let body = world.get_by("small", path).body;
        for word in
            ["\"name\":\"name ", "\"total\"", "  name", "name_ASC", "[name]", "7.00", "total:", "invoices_status"]
        {
            assert!(!body.contains(word), "{path} tells `{word}`: {body}");
        }
        assert!(!body.contains("\"number\":1"), "{path} tells of a second invoice: {body}");
    }
    let types = "{ __schema { types { name fields { name } inputFields { name } enumValues { name } } } }";
    let types = world.graphql_by("small", types).json()["data"]["__schema"]["types"].clone();
    for of in types.as_array().unwrap().iter().filter(|of| of["name"].as_str().unwrap().starts_with("Customer")) {
        let text = of.to_string();
        for word in ["\"total\"", "invoices_", "\"n\"", "\"n_ASC\"", "name_ASC"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    let said = |name: &str| {
        let answer = world.graphql_by("small", &format!("{{ customer(id: 7) {{ id {name} }} }}"));
        (answer.status, answer.body.replace(name, "_").replace(answer.header("x-request-id"), ""))
    };
    assert_eq!(said("name"), said("zzzz"));
    assert_eq!(said("name").0, 400);
    // A query that was prepared for another channel is not answered from there.
    let query = "{ customer(id: 7) { name } }";
    assert_eq!(world.graphql_by("", query).status, 400);
    let whole = world.ask(
        "POST",
        "/graphql",
        &[("content-type", "application/json")],
        Some(&json!({"query": query}).to_string()),
    );
    assert_eq!(whole.json()["data"]["customer"]["name"], customer(7)["name"]);
    assert_eq!(world.graphql_by("small", query).status, 400);
}

#[test]
fn cursors_are_good_for_one_channel_only() {
    let world = world();
    let all = [("small", "rank"), ("other", "rank"), ("", "n")];
    let get = |channel: &str, path: &str| match channel {
        "" => world.get(path),
        channel => world.get_by(channel, path),
    };
    for (channel, field) in all {
        for path in [format!("/v1/customer?limit=3&sort={field}"), "/v1/customer?limit=3".into()] {
            let next = get(channel, &path).json()["page"]["next"].as_str().unwrap().to_string();
            for (other, other_field) in all {
                let path = format!("{}&after={next}", path.replace(field, other_field));
                assert_eq!(get(other, &path).status == 200, other == channel, "{channel} {other} {path}");
            }
        }
    }
    let cursor = world.graphql_by("small", "{ customers(first: 1) { pageInfo { endCursor } } }").json();
    let cursor = cursor["data"]["customers"]["pageInfo"]["endCursor"].as_str().unwrap();
    let query = format!("{{ customers(first: 1, after: \"{cursor}\") {{ nodes {{ id }} }} }}");
    assert_eq!(world.graphql_by("small", &query).status, 200);
    let refused = world.graphql_by("other", &query);
    assert!(refused.body.contains("invalid_cursor"), "{}", refused.body);
    // Of an array, too.
    let next = world.get("/v1/customer/11/invoices?limit=1").json()["page"]["next"].as_str().unwrap().to_string();
    assert_eq!(world.get(&format!("/v1/customer/11/invoices?limit=1&after={next}")).status, 200);
    assert_eq!(world.get_by("small", &format!("/v1/customer/11/invoices?limit=1&after={next}")).status, 400);
}

#[test]
fn a_channel_shows_nothing_that_a_role_does_not() {
    let rule = ModelRule {
        masks: vec![
            MaskRule { fields: vec!["name".into()], mask: Mask::Hidden, except: vec!["support".into()] },
            MaskRule { fields: vec!["tariff.code".into()], mask: Mask::Partial, except: vec!["support".into()] },
        ],
        ..ModelRule::default()
    };
    let world = Guarded::with_options(rule, |options| {
        let of = channel(&["id", "name", "tariff"], &[("name", "label"), ("tariff.code", "c")]);
        options.channels = channels([("all", of)]);
    });
    let get = |claims: Value, path: &str| {
        let token = format!("Bearer {}", good(claims));
        world.get_with(path, &[("authorization", &token), ("x-channel", "all")])
    };
    assert_eq!(get(json!({}), "/v1/customer/7").json(), json!({"id": 7, "tariff": {"c": "****"}}));
    let support = get(json!({"roles": ["support"]}), "/v1/customer/7");
    assert_eq!(support.json(), json!({"id": 7, "label": customer(7)["name"], "tariff": {"c": "T7"}}));
    assert_eq!(support.header("vary"), "accept, accept-encoding, authorization, x-api-key, x-channel");
    assert_eq!(get(json!({}), "/v1/customer?sort=label").status, 400);
    assert_eq!(get(json!({"roles": ["support"]}), "/v1/customer?sort=label").status, 200);
    for path in ["/openapi.json?channel=all", "/graphql/schema?channel=all", "/v1/customer/schema?channel=all"] {
        assert!(!get(json!({}), path).body.contains("label"), "{path}");
    }
    // Channels are told to nobody who is not let in.
    let refused = world.get_by("zzz", "/v1/customer/7");
    assert_eq!(refused.status, 401);
    assert!(!refused.body.contains("all"), "{}", refused.body);
}

#[test]
fn a_channel_cannot_be_named_twice_or_by_tricks() {
    let world = world();
    let url = format!("http://{}/v1/customer/7", world.api.address);
    let twice = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let answer = twice.get(&url).header("x-channel", "small").header("x-channel", "other").call().unwrap();
    assert_eq!(answer.status(), 400);
    for name in ["", "SMALL", "small ,other", "default", "../small", "0", "small\u{e9}"] {
        let answer = world.get_by(name, "/v1/customer/7");
        assert_eq!((answer.status, answer.json()["code"].clone()), (400, json!("unknown_channel")), "{name}");
    }
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    assert!(!metrics.contains("SMALL") && metrics.contains("channel=\"default\""), "names of clients become series");
}
