//! What is said to be served is what is served.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::World;

/// Every reference in a document leads somewhere.
fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|member| check_references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        _ => {}
    }
}

#[test]
fn openapi_describes_every_path() {
    let world = World::new();
    let openapi = world.get("/openapi.json").json();
    assert_eq!(openapi["openapi"], "3.1.0");
    check_references(&openapi, &openapi);
    let paths = openapi["paths"].as_object().unwrap();
    let names: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let wanted = [
        "/graphql",
        "/v1/customer",
        "/v1/customer:query",
        "/v1/customer/schema",
        "/v1/customer/{id}",
        "/v1/customer/{id}/invoices",
        "/v1/rate",
        "/v1/rate:query",
        "/v1/rate/schema",
        "/v1/rate/{id}",
    ];
    assert_eq!(names, BTreeSet::from(wanted));
    let mut operations = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(operations.insert(id.to_string()), "{id} stands twice");
            let names: Vec<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| one["name"].as_str())
                .collect();
            assert_eq!(path.contains("{id}"), names.contains(&"id"), "{method} {path}");
            assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{method} {path}");
        }
    }
    // Every filter that is described is accepted, with the example given.
    let list = openapi.pointer("/paths/~1v1~1customer/get/parameters").unwrap().as_array().unwrap();
    let filters: Vec<&Value> =
        list.iter().filter(|one| one["name"].as_str().is_some_and(|name| name.starts_with("filter"))).collect();
    assert_eq!(filters.len(), 11 + 9 + 11 + 9);
    for filter in filters {
        let name = filter["name"].as_str().unwrap();
        let value = match filter["schema"]["type"].as_str() {
            Some("boolean") => "true".to_string(),
            Some("number") => "0.5".to_string(),
            Some("array") => "1,2".to_string(),
            _ => filter["schema"]["examples"][0].as_str().unwrap().to_string(),
        };
        let beside = if name.contains("contains") { "&filter[n][gt]=1" } else { "" };
        let answer = world.get(&format!("/v1/customer?{name}={value}{beside}"));
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
}

#[test]
fn documents_are_valid_by_their_schema() {
    let world = World::new();
    let answer = world.get("/v1/customer/schema");
    assert_eq!(answer.header("content-type"), "application/schema+json");
    let schema = answer.json();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for id in 1..=50 {
        let document = world.get(&format!("/v1/customer/{id}")).json();
        if let Err(error) = validator.validate(&document) {
            panic!("{id}: {error}");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({"id": "x"})));
}

#[test]
fn people_have_a_page_for_each_model() {
    let world = World::new();
    let index = world.get("/docs");
    assert!(index.body.contains("<a href=\"/v1/customer/docs\">customer</a>"), "{}", index.body);
    let page = world.get("/v1/customer/docs");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    for wanted in ["<h1>customer", "<code>invoices.status</code>", "data-path=\"/v1/customer/{id}/invoices\""] {
        assert!(page.body.contains(wanted), "{wanted}\n{}", page.body);
    }
    for answer in [&index, &page] {
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self'"), "{policy}");
        assert!(
            !answer.body.contains("http://") && !answer.body.contains("https://"),
            "nothing is loaded from elsewhere"
        );
    }
    for (file, kind) in [("reference.css", "text/css"), ("reference.js", "text/javascript")] {
        assert!(page.body.contains(&format!("/docs/{file}")), "{file}");
        assert!(world.get(&format!("/docs/{file}")).header("content-type").starts_with(kind), "{file}");
    }
    for (path, status) in [("/docs?x", 400), ("/docs/other", 404), ("/v1/nothing/docs", 404)] {
        assert_eq!(world.get(path).status, status, "{path}");
    }
}
