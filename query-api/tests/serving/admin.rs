//! The admin port.

use std::sync::Arc;

use serde_json::json;

use crate::fixture::{TestAdmin, World, admin_server, request};

#[test]
fn probes_metrics_and_commands() {
    let world = World::new();
    let get = |path: &str| world.admin("GET", path, &[], None);
    assert_eq!((get("/livez").status, get("/startupz").status), (200, 200));
    let ready = get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "the snapshot of billing is being read\n"));
    assert_eq!(get("/status").json()["sources"][0]["source"], "billing");
    assert_eq!(get("/dead-letters?limit=5").json()["limit"], 5);
    assert_eq!(get("/dead-letters?limit=x").status, 400);
    assert_eq!(get("/nothing").status, 404);

    let etag = world.get("/v1/customer/7").header("etag").to_string();
    world.get_with("/v1/customer/7", &[("if-none-match", &etag)]);
    world.get("/v1/customer?limit=0");
    let metrics = get("/metrics");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        r#"headwater_api_requests_total{route="Point",model="customer",version="3",channel="default",status="200"} 1"#,
        r#"headwater_api_requests_total{route="Point",model="customer",version="3",channel="default",status="304"} 1"#,
        r#"headwater_api_requests_total{route="List",model="customer",version="3",channel="default",status="400"} 1"#,
        r#"headwater_api_errors_total{code="invalid_parameter"} 1"#,
        "headwater_api_request_seconds_bucket",
        "headwater_api_response_bytes_total",
    ] {
        assert!(metrics.body.contains(line), "{line}\n{}", metrics.body);
    }

    let post = |path: &str, headers: &[(&str, &str)], body| world.admin("POST", path, headers, body);
    assert_eq!(post("/replay", &[], Some("{\"model\":\"customer\"}")).json(), json!({"replaying": "customer"}));
    assert_eq!(post("/reload", &[], None).json(), json!({"reloaded": true}));
    assert_eq!(post("/replay", &[], Some("{")).json()["code"], "invalid_json");
    let retry = post("/dead-letters/retry", &[], Some("{}"));
    assert_eq!((retry.status, retry.json()["code"].as_str()), (409, Some("retry_running")));
    assert_eq!(world.admin("GET", "/reload", &[], None).header("allow"), "POST");
    assert_eq!(post("/status", &[], None).header("allow"), "GET, HEAD");
    let foreign = post("/reload", &[("origin", "https://elsewhere.example")], None);
    assert_eq!(foreign.json()["code"], "foreign_origin");
    let own = format!("http://{}", world.admin.address());
    assert_eq!(post("/reload", &[("origin", &own)], None).status, 200);
}

/// Whoever looks after processes must not take one that waits for somebody for a dead one.
#[test]
fn a_process_that_starts_lives_and_says_what_it_waits_for() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin = admin_server(&runtime);
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        request(&format!("http://{}{path}", admin.address()), method, headers, None)
    };
    let get = |path: &str| ask("GET", path, &[]);
    assert_eq!((get("/livez").status, get("/startupz").body.as_str()), (200, "still starting\n"));
    admin.waits(Some("waiting to use MongoDB".into()));
    let told = "still starting: waiting to use MongoDB";
    assert_eq!(get("/livez").status, 200);
    for path in ["/startupz", "/readyz"] {
        let probe = get(path);
        assert_eq!((probe.status, probe.body.trim_end()), (503, told), "{path}");
    }
    for (method, path) in
        [("GET", "/status"), ("GET", "/dead-letters"), ("POST", "/graphql"), ("POST", "/replay"), ("POST", "/reload")]
    {
        let refused = ask(method, path, &[]);
        let problem = refused.json();
        assert_eq!(refused.status, 503, "{method} {path}");
        assert_eq!((&problem["code"], &problem["detail"]), (&json!("starting"), &json!(told)), "{method} {path}");
        assert_eq!(refused.header("retry-after"), "", "a command says it at once: {method} {path}");
    }
    assert_eq!(get("/console").status, 200);
    let metrics = get("/metrics");
    assert!(metrics.status == 200 && metrics.body.ends_with("\nheadwater_ready 0\n# EOF\n"), "{}", metrics.body);
    assert_eq!(ask("GET", "/status", &[("host", "evil.example")]).status, 403);

    admin.open(Arc::new(TestAdmin), Arc::default(), None);
    for path in ["/livez", "/startupz", "/metrics", "/status"] {
        assert_eq!(get(path).status, 200, "{path}");
    }
    assert_eq!(get("/readyz").body, "the snapshot of billing is being read\n");
    assert_eq!(get("/graphiql").status, 404, "nothing is served by this process");
}

/// A page whose name was made to lead to this port reads nothing.
#[test]
fn names_that_others_may_own_are_refused() {
    let world = World::new();
    let json = ("content-type", "application/json");
    let query = json!({"query": "{customer(id: 7) {id}}"}).to_string();
    let asked = [
        ("GET", "/status", None),
        ("GET", "/dead-letters", None),
        ("GET", "/console", None),
        ("POST", "/graphql", Some(query.as_str())),
        ("POST", "/replay", Some("{\"model\":\"customer\"}")),
        ("POST", "/reload", None),
    ];
    let ask = |(method, path, body), host: &str| {
        let origin = format!("http://{host}");
        world.admin(method, path, &[json, ("host", host), ("origin", origin.as_str())], body)
    };
    for asked in asked {
        let refused = ask(asked, "evil.example:9090");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("foreign_host")), "{asked:?}");
        for word in ["`evil.example`", "`admin.hosts`"] {
            assert!(refused.body.contains(word), "{}", refused.body);
        }
        for host in ["127.0.0.1", "localhost:1234", "[::1]:9090", "headwater.billing.svc:9090", "ops.example.com"] {
            assert_eq!(ask(asked, host).status, 200, "{asked:?} by {host}");
        }
    }
    for path in ["/livez", "/startupz", "/metrics"] {
        assert_eq!(ask(("GET", path, None), "evil.example:9090").status, 200, "{path}");
    }
}

/// What stands in an attribute, wherever a page has it.
fn named<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
    page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn pages_name_nothing_but_what_is_served_beside_them() {
    let world = World::new();
    let of_operators: &[&str] = &["/", "/console", "/graphiql"];
    let of_readers: &[&str] = &["/docs", "/v1/customer/docs", "/v1/rate/docs"];
    for (is_operator, pages) in [(true, of_operators), (false, of_readers)] {
        let get = |path: &str| if is_operator { world.admin("GET", path, &[], None) } else { world.get(path) };
        for path in pages {
            let page = get(path);
            assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
            // Without an icon of its own a browser asks for one that nobody has.
            assert!(page.body.contains("<link rel=\"icon\" href=\"data:,\">"), "{path}");
            let policy = page.header("content-security-policy");
            let allows = |what: &str| policy.split("; ").any(|directive| directive == what);
            for what in ["default-src 'none'", "connect-src 'self'", "img-src data:", "frame-ancestors 'none'"] {
                assert!(allows(what), "{path}: {what} is not in {policy}");
            }
            let is_inline = page.body.contains("<script>");
            let source = if is_inline { "'unsafe-inline'" } else { "'self'" };
            assert!(
                allows(&format!("script-src {source}")) && allows(&format!("style-src {source}")),
                "{path}: {policy}"
            );
            let loaded = named(&page.body, " src=\"");
            assert!(is_inline == loaded.is_empty(), "{path}: {loaded:?}");
            for other in loaded.into_iter().chain(named(&page.body, " href=\"")) {
                if other == "data:," || other.starts_with('#') {
                    continue;
                }
                assert!(other.starts_with('/') && !other.starts_with("//"), "{path} names {other}");
                let found = get(other);
                assert_eq!(found.status, 200, "{path} names {other}");
                let kind = found.header("content-type");
                assert!(!other.ends_with(".js") || kind.starts_with("text/javascript"), "{other}: {kind}");
                assert!(!other.ends_with(".css") || kind.starts_with("text/css"), "{other}: {kind}");
            }
        }
    }
    let body = json!({"query": "{customer(id: 7) {id}}"}).to_string();
    let answer = world.admin("POST", "/graphql", &[("content-type", "application/json")], Some(&body));
    assert_eq!(answer.json()["data"]["customer"]["id"], 7);
}
