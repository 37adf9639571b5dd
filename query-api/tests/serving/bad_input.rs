//! What cannot be answered is refused by name; nothing is passed over.

use crate::fixture::World;

#[test]
fn mistakes_are_named_with_the_remedy() {
    let world = World::new();
    for (path, status, code, words) in [
        ("/v1/customer?filter[nmae][eq]=x", 400, "unknown_parameter", &["`nmae`", "`name`", "`invoices.status`"][..]),
        ("/v1/customer?filter[name][like]=x", 400, "unknown_parameter", &["`like`", "startsWith"]),
        ("/v1/customer?filter[n][gt]=abc", 400, "invalid_parameter", &["`n`", "integer"]),
        ("/v1/customer?filter[name]=x", 400, "invalid_parameter", &["filter[path][operator]"]),
        ("/v1/customer?filter[n][eq]=", 400, "invalid_parameter", &["integer"]),
        ("/v1/customer?filter[name][contains]=x", 400, "invalid_parameter", &["contains", "eq"]),
        ("/v1/customer?limt=5", 400, "unknown_parameter", &["`limt`", "`limit`"]),
        ("/v1/customer?limit=0", 400, "invalid_parameter", &["1 to 100"]),
        ("/v1/customer?limit=101", 400, "invalid_parameter", &["1 to 100"]),
        ("/v1/customer?limit=5&limit=6", 400, "invalid_parameter", &["twice"]),
        ("/v1/customer?sort=invoices.status", 400, "invalid_parameter", &["`invoices.status`"]),
        ("/v1/customer?sort=nme", 400, "unknown_parameter", &["`nme`", "`name`"]),
        ("/v1/customer?after=forged", 400, "invalid_cursor", &["`after`"]),
        ("/v1/customer?count=some", 400, "invalid_parameter", &["estimated"]),
        ("/v1/customer?count=exact&filter[n][gt]=1&filter[name][contains]=a", 400, "count_too_large", &["estimated"]),
        ("/v1/customer?ids=1&limit=2", 400, "invalid_parameter", &["`limit`", "`ids`"]),
        ("/v1/customer?fields=nme", 400, "invalid_parameter", &["`nme`", "`name`"]),
        ("/v1/customer?fields=", 400, "invalid_parameter", &["``"]),
        ("/v1/customer?name=%ff", 400, "invalid_parameter", &["UTF-8"]),
        ("/v1/customer/7?limit=1", 400, "unknown_parameter", &["`fields`"]),
        ("/v1/customer/schema?x", 400, "unknown_parameter", &["`x`"]),
        ("/v1/custmer/1", 404, "unknown_model", &["`custmer`", "`customer`"]),
        ("/v1/zzzzzzzz", 404, "unknown_model", &["`customer`", "`rate`"]),
        ("/v2", 404, "not_found", &["/v2", "/openapi.json"]),
        ("/", 404, "not_found", &[]),
    ] {
        let answer = world.get(path);
        let problem = answer.json();
        assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(problem["status"], status, "{path}");
        assert_eq!(problem["requestId"], answer.header("x-request-id"), "{path}");
        assert_eq!(problem["parameter"].is_string(), status == 400, "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{path}: {detail}");
    }
    let many = (0..=100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(world.get(&format!("/v1/customer?ids={many}")).status, 400);
    assert_eq!(world.get(&format!("/v1/customer?filter[n][in]={many}")).status, 400);
}

#[test]
fn other_methods_and_large_bodies_are_refused() {
    let world = World::new();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = world.ask(method, "/v1/customer/7", &[], None);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    let body = " ".repeat(2 << 20);
    let answer = world.ask("POST", "/graphql", &[("content-type", "application/json")], Some(&body));
    assert_eq!((answer.status, &answer.json()["code"]), (413, &"body_too_large".into()));
}

#[test]
fn a_cursor_is_good_for_its_query_only() {
    let world = World::new();
    let page = world.get("/v1/customer?filter[n][gt]=1&sort=n&limit=2").json();
    let next = page["page"]["next"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/customer?filter[n][gt]=1&sort=n&limit=9&fields=id&after={next}")).status, 200);
    for other in
        ["filter[n][gt]=2&sort=n", "filter[n][gt]=1&sort=-n", "filter[n][gt]=1", "sort=n", "filter[n][gte]=1&sort=n"]
    {
        let answer = world.get(&format!("/v1/customer?{other}&after={next}"));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &"invalid_cursor".into()), "{other}");
    }
    let (head, tail) = next.split_at(next.len() - 1);
    let torn = format!("{head}{}", if tail == "A" { "E" } else { "A" });
    assert_eq!(world.get(&format!("/v1/customer?filter[n][gt]=1&sort=n&after={torn}")).status, 400);
}
