//! GraphQL over HTTP: caches, forms, batches, and texts that are named instead of sent.

use headwater_query_api::{AccessOptions, Error, GraphQlOptions, TrustedDocuments};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::{Answer, World, customer, int_key, put, wait_until};

const KIND: (&str, &str) = ("content-type", "application/json");

fn post(world: &World, body: &Value) -> Answer {
    world.ask("POST", "/graphql", &[KIND], Some(&body.to_string()))
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn by_get(world: &World, query: &str, headers: &[(&str, &str)]) -> Answer {
    world.get_with(&format!("/graphql?query={}", escaped(query)), headers)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn code(answer: &Value) -> &Value {
    &answer["errors"][0]["extensions"]["code"]
}

#[test]
fn what_is_asked_by_get_can_be_kept() {
    let world = World::new();
    let query = "{ customer(id: 7) { name n } }";
    let first = by_get(&world, query, &[]);
    let etag = first.header("etag").to_string();
    assert_eq!((first.status, first.header("cache-control"), etag.len()), (200, "no-cache", 34));
    let again = by_get(&world, query, &[("if-none-match", &etag)]);
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", etag.as_str()));
    assert_eq!(again.header("vary"), first.header("vary"));
    let mut document = customer(7);
    document["n"] = json!(1234);
    put(&world.store, 1, &int_key(7), Some(&document));
    // Servers of another store than this process's hear of it a moment later.
    wait_until("the change", || by_get(&world, query, &[]).json()["data"]["customer"]["n"] == 1234);
    let changed = by_get(&world, query, &[("if-none-match", &etag)]);
    assert_eq!((changed.status, &changed.json()["data"]["customer"]["n"]), (200, &json!(1234)));
    assert_ne!(changed.header("etag"), etag);
    let head = world.ask("HEAD", &format!("/graphql?query={}", escaped(query)), &[], None);
    assert_eq!((head.status, head.header("etag")), (200, changed.header("etag")));
    // Errors are nobody's to keep, and what is sent by POST has no validator.
    let wrong = by_get(&world, "{ custmer { id } }", &[]);
    assert_eq!((wrong.status, wrong.header("etag"), wrong.header("cache-control")), (400, "", "no-store"));
    assert_eq!(post(&world, &json!({"query": query})).header("etag"), "");
}

#[test]
fn get_does_not_write_and_does_not_subscribe() {
    let world = World::new();
    let mutation = by_get(&world, "mutation { x }", &[]);
    assert_eq!((mutation.status, mutation.header("allow")), (405, "POST"));
    assert_eq!(code(&mutation.json()), "nothing_to_write");
    assert_eq!(post(&world, &json!({"query": "mutation { x }"})).status, 400);
    let subscription = by_get(&world, "subscription { customerChanged(id: 7) { id } }", &[]);
    assert_eq!((subscription.status, code(&subscription.json())), (406, &json!("subscription_transport")));
}

#[test]
fn the_form_is_the_one_that_is_accepted() {
    let world = World::new();
    let good = json!({"query": "{ customer(id: 7) { id } }"}).to_string();
    let bad = json!({"query": "{ custmer { id } }"}).to_string();
    let both = "application/graphql-response+json, application/json;q=0.9";
    for (accept, kind, status) in [
        ("*/*", "application/graphql-response+json", 400),
        (both, "application/graphql-response+json", 400),
        ("application/json", "application/json", 200),
        ("text/html", "application/problem+json", 406),
    ] {
        let answer = world.ask("POST", "/graphql", &[KIND, ("accept", accept)], Some(&bad));
        assert_eq!((answer.header("content-type"), answer.status), (kind, status), "{accept}");
    }
    let answer = world.ask("POST", "/graphql", &[KIND, ("accept", "application/json")], Some(&good));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    // What cannot be read as a request is one in no form.
    for body in ["{}", "{\"query\": 1}", "{\"query\": \"{ a }\", \"variables\": []}", "[1]", "7"] {
        let answer = world.ask("POST", "/graphql", &[KIND, ("accept", "application/json")], Some(body));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("graphql_request")), "{body}");
    }
}

#[test]
fn several_are_answered_in_order_up_to_the_limit() {
    let world = World::with_options(|options| options.graphql.batch_max = 3);
    let one = |id: i64| json!({"query": "query($id: ID!) { customer(id: $id) { id } }", "variables": {"id": id}});
    let answer = post(&world, &json!([one(3), {"query": "{ nothing }"}, one(1)]));
    let answers = answer.json();
    assert_eq!((answer.status, answers.as_array().unwrap().len()), (200, 3));
    assert_eq!((&answers[0]["data"]["customer"]["id"], &answers[2]["data"]["customer"]["id"]), (&json!(3), &json!(1)));
    assert_eq!(code(&answers[1]), "graphql_invalid");
    let many = post(&world, &json!([one(1), one(2), one(3), one(4)]));
    assert_eq!((many.status, &many.json()["code"]), (400, &json!("batch_too_large")));
    let none = World::with_options(|options| options.graphql.batch_max = 0);
    assert_eq!(post(&none, &json!([one(1)])).json()["code"], "batch_too_large");
}

#[test]
fn a_deadline_ends_a_batch_that_never_waits() {
    let world = World::with_options(|options| {
        options.graphql.batch_max = 1_000;
        options.access.limits.deadline = std::time::Duration::from_millis(1);
    });
    let one = json!({"query": "{ customersByIds(ids: [1, 2, 3, 4, 5, 6, 7, 8, 9]) { id name } }"});
    let answer = post(&world, &json!(vec![one; 1_000]));
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("deadline")));
}

#[test]
fn a_query_that_was_sent_once_is_known_by_its_hash() {
    let world = World::new();
    let query = "query One($id: ID!) { customer(id: $id) { id } }";
    let named = |hash: &str| json!({"variables": {"id": 7}, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}});
    let unknown = post(&world, &named(&sha256(query)));
    assert_eq!((unknown.status, &unknown.json()["errors"][0]["message"]), (404, &json!("PersistedQueryNotFound")));
    assert_eq!(code(&unknown.json()), "PERSISTED_QUERY_NOT_FOUND");
    let mut full = named(&sha256(query));
    full["query"] = json!(query);
    assert_eq!(post(&world, &full).json()["data"]["customer"]["id"], 7);
    assert_eq!(post(&world, &named(&sha256(query))).json()["data"]["customer"]["id"], 7);
    let extensions = named(&sha256(query))["extensions"].to_string();
    let url = format!("/graphql?variables={}&extensions={}", escaped("{\"id\": 8}"), escaped(&extensions));
    let by_get = world.get(&url);
    assert_eq!((by_get.json()["data"]["customer"]["id"].clone(), by_get.header("etag").len()), (json!(8), 34));
    // A text under a hash that is not its own would be answered to everybody who sends that hash.
    full["query"] = json!("{ customer(id: 8) { id } }");
    assert_eq!(code(&post(&world, &full).json()), "persisted_query_mismatch");
    assert_eq!(post(&world, &named(&sha256(query))).json()["data"]["customer"]["id"], 7);
    // What is not valid is not kept.
    let mut wrong = named(&sha256("{ nothing }"));
    wrong["query"] = json!("{ nothing }");
    assert_eq!(code(&post(&world, &wrong).json()), "graphql_invalid");
    assert_eq!(code(&post(&world, &named(&sha256("{ nothing }"))).json()), "PERSISTED_QUERY_NOT_FOUND");
    let off = World::with_options(|options| options.graphql.persisted_bytes_max = 0);
    full["query"] = json!(query);
    assert_eq!(post(&off, &full).json()["data"]["customer"]["id"], 7);
    assert_eq!(code(&post(&off, &named(&sha256(query))).json()), "PERSISTED_QUERY_NOT_FOUND");
}

#[test]
fn only_trusted_documents_where_only_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = "query One($id: ID!) { customer(id: $id) { name } }";
    std::fs::write(folder.path().join("one.graphql"), text).unwrap();
    std::fs::write(folder.path().join("old.graphql"), "{ customer(id: 1) { gone } }").unwrap();
    let trusted = |only| GraphQlOptions {
        trusted: Some(TrustedDocuments { path: folder.path().into(), only }),
        ..GraphQlOptions::default()
    };
    let world = World::with_options(|options| options.graphql = trusted(true));
    let by_id = json!({"documentId": "one", "variables": {"id": "7"}});
    assert_eq!(post(&world, &by_id).json()["data"]["customer"]["name"], customer(7)["name"]);
    let url = format!("/graphql?documentId=one&variables={}", escaped("{\"id\": 7}"));
    assert_eq!(world.get(&url).json()["data"]["customer"]["name"], customer(7)["name"]);
    let whole = post(&world, &json!({"query": text, "variables": {"id": "7"}}));
    assert_eq!(whole.status, 200, "word for word it is the same");
    for (body, wanted) in [
        (json!({"query": "{ customer(id: 7) { name } }"}), "untrusted_document"),
        (json!({"query": "{ __schema { types { name } } }"}), "untrusted_document"),
        (json!({"documentId": "two"}), "unknown_document"),
        (json!({"documentId": "one", "query": "{ customer(id: 7) { name } }"}), "graphql_request"),
        (json!({"documentId": "old"}), "graphql_invalid"),
        (json!({"documentId": "../one"}), "unknown_document"),
    ] {
        assert_eq!(code(&post(&world, &body).json()), wanted, "{body}");
    }
    let batch = post(&world, &json!([by_id, {"query": "{ customer(id: 7) { name } }"}])).json();
    assert_eq!((batch[0].get("errors"), code(&batch[1])), (None, &json!("untrusted_document")));
    // Operators look around as they like.
    let free = json!({"query": "{ customer(id: 7) { id } }"}).to_string();
    assert_eq!(world.admin("POST", "/graphql", &[KIND], Some(&free)).status, 200);
    let open = World::with_options(|options| options.graphql = trusted(false));
    assert_eq!(post(&open, &json!({"query": "{ customer(id: 7) { id } }"})).status, 200);
    assert_eq!(post(&open, &by_id).status, 200);
}

#[test]
fn documents_that_cannot_be_read_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.graphql"), "query {").unwrap();
    let trusted = Some(TrustedDocuments { path: folder.path().into(), only: true });
    let error = World::try_over(AccessOptions::default(), |store| store, |options| options.graphql.trusted = trusted);
    let error = error.err().unwrap();
    assert!(matches!(&error, Error::TrustedDocuments { path, .. } if path.ends_with("broken.graphql")), "{error}");
}
