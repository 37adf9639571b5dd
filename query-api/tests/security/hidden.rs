//! Fields that are not shown, by every way in which they might be found out.

use headwater_query_api::{Mask, ModelRule};
use serde_json::{Value, json};

use crate::fixture::customer;
use crate::issuer::good;
use crate::world::{API_KEY, Guarded, mask};

fn masked() -> Guarded {
    Guarded::new(ModelRule {
        masks: vec![
            mask(&["name", "invoices.total"], Mask::Hidden),
            mask(&["tariff.code"], Mask::Partial),
            mask(&["n"], Mask::Hash),
        ],
        ..ModelRule::default()
    })
}

#[test]
fn hidden_fields_are_in_no_answer() {
    let world = masked();
    let me = json!({});
    let seen = world.get_as(&me, "/v1/customer/7").json();
    let wanted: Vec<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(wanted, ["id", "n", "tariff", "invoices"]);
    assert_eq!(seen["tariff"], json!({"code": "****"}));
    assert_eq!(seen["invoices"][0], json!({"number": 0, "status": "paid"}));
    assert_eq!(seen["n"], Value::Null, "that there is no value is shown");
    let hash = |id: i64| world.get_as(&me, &format!("/v1/customer/{id}")).json()["n"].clone();
    assert_eq!((hash(13), hash(13).as_str().map(str::len)), (hash(23), Some(32)), "equal values have equal hashes");
    assert_ne!(hash(13), hash(24));
    for path in [
        "/v1/customer/7",
        "/v1/customer/7?fields=invoices,id",
        "/v1/customer/7/invoices",
        "/v1/customer?limit=100",
        "/v1/customer?ids=1,2,7",
        "/v1/customer?filter[invoices.status][eq]=open",
        "/openapi.json",
        "/graphql/schema",
        "/v1/customer/schema",
    ] {
        let body = world.get_as(&me, path).body;
        for word in ["\"name\":\"name ", "\"total\"", "T7\"", "  name", "name_ASC", "[name]", "7.00", "total:"] {
            assert!(!body.contains(word), "{path} tells `{word}`: {body}");
        }
    }
    let support = world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]);
    assert_eq!(support.json(), customer(7), "who may see it sees it");
}

#[test]
fn hidden_and_unknown_fields_are_refused_alike() {
    let world = masked();
    // A hidden name, and names that are as near to it as a guess might be.
    let said = |path: String, name: &str| {
        let answer = world.get_as(&json!({}), &path);
        let body = answer.body.replace(name, "_").replace(answer.header("x-request-id"), "");
        (answer.status, body)
    };
    for form in [
        "/v1/customer?fields={}",
        "/v1/customer/7?fields=id,{}",
        "/v1/customer?filter[{}][eq]=x",
        "/v1/customer?filter[{}][startsWith]=n",
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
        assert_eq!(ask("name"), unknown, "{form}");
        for near in ["nam", "naem", "names", "invoices.totl"] {
            assert!(
                !ask(near).1.contains("`name`") && !ask(near).1.contains("total"),
                "{form} {near}: {:?}",
                ask(near)
            );
        }
    }
    for (form, hidden) in [
        ("/v1/customer?filter[invoices.{}][gte]=1", "total"),
        ("/v1/customer?sort=invoices.{}", "total"),
        ("/v1/customer?fields=invoices.{}", "total"),
    ] {
        let ask = |name: &str| said(form.replace("{}", name), name);
        // As near to what is shown as the hidden name is.
        assert_eq!(ask(hidden), ask("totap"), "{form}");
    }
    // What is shown in part cannot be searched for in whole.
    for query in ["filter[n][gt]=1", "sort=n", "filter[tariff.code][startsWith]=T"] {
        assert_eq!(world.get_as(&json!({}), &format!("/v1/customer?{query}")).status, 400, "{query}");
    }
}

#[test]
fn graphql_knows_no_hidden_field() {
    let world = masked();
    let said = |query: &str, name: &str| {
        let answer = world.graphql_as(&json!({}), query);
        let request_id = answer.header("x-request-id").to_string();
        (answer.status, answer.body.replace(name, "_").replace(&request_id, ""))
    };
    for form in [
        "{ customer(id: 7) { {} } }",
        "{ customer(id: 7) { id {} } }",
        "{ customers(where: { {}: { eq: \"x\" } }) { nodes { id } } }",
        "{ customers(orderBy: {}_ASC) { nodes { id } } }",
    ] {
        let ask = |name: &str| said(&form.replacen("{}", name, 1), name);
        assert_eq!(ask("name"), ask("zzzz"), "{form}");
        assert_eq!(ask("name").0, 400);
        for near in ["nam", "naem", "names"] {
            assert!(!ask(near).1.contains("`name`"), "{form} {near}");
        }
    }
    let schema = world.graphql_as(
        &json!({}),
        "{ __schema { types { name fields { name } inputFields { name } enumValues { name } } } }",
    );
    let types = schema.json()["data"]["__schema"]["types"].clone();
    for of in types.as_array().unwrap().iter().filter(|of| of["name"].as_str().unwrap().starts_with("Customer")) {
        let text = of.to_string();
        assert!(
            !text.contains("\"total\"") && !text.contains("\"invoices_total\"") && !text.contains("name_ASC"),
            "{text}"
        );
        assert!(
            !of["fields"].as_array().is_some_and(|fields| fields.iter().any(|field| field["name"] == "name")),
            "{text}"
        );
    }
    assert_eq!(
        world.graphql_as(&json!({}), "{ __type(name: \"CustomerOrderBy\") { name } }").json()["data"]["__type"],
        Value::Null
    );
    let data =
        world.graphql_as(&json!({}), "{ customer(id: 7) { id n tariff { code } invoices { number status } } }").json();
    assert_eq!(data["data"]["customer"]["tariff"]["code"], "****");
    assert_eq!(data["data"]["customer"]["invoices"][0], json!({"number": 0, "status": "paid"}));
    // A query that was prepared for somebody else is not answered from there.
    let query = "{ customer(id: 7) { name } }";
    let support = json!({"roles": ["support"]});
    assert_eq!(world.graphql_as(&support, query).json()["data"]["customer"]["name"], customer(7)["name"]);
    assert_eq!(world.graphql_as(&json!({}), query).status, 400);
}

#[test]
fn a_validator_is_of_what_was_shown() {
    let world = masked();
    let of = |claims: Value, etag: Option<&str>| {
        let token = format!("Bearer {}", good(claims));
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(etag.map(|etag| ("if-none-match", etag)));
        world.get_with("/v1/customer/7", &headers)
    };
    let support = json!({"roles": ["support"]});
    let (all, some) = (of(support.clone(), None), of(json!({}), None));
    assert_ne!(all.header("etag"), some.header("etag"));
    assert_eq!(of(support, Some(some.header("etag"))).status, 200, "another's validator brings the document");
    assert_eq!(of(json!({}), Some(all.header("etag"))).status, 200);
    assert_eq!(of(json!({}), Some(some.header("etag"))).status, 304);
    for answer in [all, some] {
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("vary"), "accept, accept-encoding, authorization, x-api-key");
    }
}

#[test]
fn a_cursor_tells_nothing_hidden() {
    let world = Guarded::new(ModelRule { masks: vec![mask(&["id"], Mask::Hidden)], ..ModelRule::default() });
    let list = world.get_as(&json!({}), "/v1/customer?limit=3&sort=name").json();
    assert!(list["data"][0].get("id").is_none());
    let next = list["page"]["next"].as_str().unwrap();
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(next).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"name"), "the place can be read");
}

#[test]
fn models_that_are_not_for_a_caller_are_not_there() {
    let world = Guarded::new(ModelRule { roles: Some(vec!["support".into()]), ..ModelRule::default() });
    let said = |name: &str, tail: &str| {
        let answer = world.get_as(&json!({}), &format!("/v1/{name}{tail}"));
        (answer.status, answer.body.replace(name, "_").replace(answer.header("x-request-id"), ""))
    };
    // `rate` is not named by any rule: nobody sees it.
    for name in ["customer", "rate"] {
        for tail in ["", "/7", "/schema", "/7/invoices", "?ids=7"] {
            assert_eq!(said(name, tail), said("zzzzzz", tail), "{name}{tail}");
            assert_eq!(said(name, tail).0, 404);
        }
    }
    assert!(!said("custmer", "").1.contains("customer"));
    assert!(!world.get_as(&json!({}), "/openapi.json").body.contains("/v1/customer"));
    assert!(!world.get_as(&json!({}), "/graphql/schema").body.to_lowercase().contains("customer"));
    assert_eq!(world.graphql_as(&json!({}), "{ customer(id: 7) { id } }").status, 400);
    assert_eq!(world.get_as(&json!({"roles": ["support"]}), "/v1/customer/7").status, 200);
    assert_eq!(world.get_as(&json!({"roles": ["support"]}), "/v1/rate").status, 404);
}

#[test]
fn a_rule_that_does_not_fit_shows_nothing() {
    let rules = [
        ModelRule { masks: vec![mask(&["nmae"], Mask::Hidden)], ..ModelRule::default() },
        ModelRule { owner: Some(crate::world::binding("x", Some("tariff.code"))), ..ModelRule::default() },
    ];
    for rule in rules {
        let world = Guarded::new(rule);
        assert_eq!(world.get_as(&json!({"roles": ["support"], "x": "T7"}), "/v1/customer/7").status, 404);
    }
}
