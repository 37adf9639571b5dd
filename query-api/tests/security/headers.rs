//! Headers that claim things, and headers of answers.

use std::time::Duration;

use headwater_query_api::{CorsOptions, ModelRule};
use serde_json::json;

use crate::issuer::good;
use crate::world::{Guarded, by_id};

#[test]
fn nobody_is_who_a_header_says() {
    let world = Guarded::new(by_id());
    let token = format!("Bearer {}", good(json!({"customer_id": 7})));
    for (name, value) in [
        ("x-user", "8"),
        ("x-user-id", "8"),
        ("x-customer-id", "8"),
        ("x-auth-user", "admin"),
        ("x-roles", "support"),
        ("x-role", "support"),
        ("x-tenant", "8"),
        ("x-forwarded-user", "admin"),
        ("x-remote-user", "admin"),
        ("remote-user", "admin"),
        ("x-amzn-oidc-identity", "admin"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-original-url", "/v1/customer/8"),
        ("x-rewrite-url", "/v1/customer/8"),
        ("x-http-method-override", "GET"),
        ("cookie", "session=admin"),
    ] {
        assert_eq!(world.get_with("/v1/customer/8", &[(name, value)]).status, 401, "{name}");
        let headers = [("authorization", token.as_str()), (name, value)];
        assert_eq!(world.get_with("/v1/customer/8", &headers).status, 404, "{name}");
        assert_eq!(world.get_with("/v1/me/customer?fields=id", &headers).json(), json!({"id": 7}), "{name}");
    }
}

#[test]
fn every_answer_is_data_and_never_a_page() {
    let world = Guarded::new(ModelRule::default());
    for path in ["/v1/customer/7", "/v1/customer", "/openapi.json", "/graphql/schema", "/nothing", "/v1/customer?x=1"] {
        for answer in [world.get(path), world.get_as(&json!({}), path)] {
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
            let private = matches!(answer.header("cache-control"), "private, no-cache" | "no-store");
            assert!(private, "{path}: {}", answer.header("cache-control"));
            assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
        }
    }
}

#[test]
fn every_401_says_how_to_show_who_asks() {
    let world = Guarded::new(ModelRule::default());
    let html = ("accept", "text/html");
    let missing = [("/v1/customer/7", &[][..]), ("/docs", &[html]), ("/v1/customer/docs", &[html])];
    for (path, headers) in missing {
        let answer = world.get_with(path, headers);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer realm=\"headwater\""), "{path}");
    }
    let refused = world.get_with("/docs", &[html, ("x-api-key", "wrong")]);
    let challenge = "Bearer realm=\"headwater\", error=\"invalid_token\"";
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge));
    assert_eq!(world.get_with("/docs/reference.css", &[]).header("www-authenticate"), "", "a file is everybody's");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    for line in ["{code=\"credentials_missing\"} 3", "{code=\"credentials_invalid\"} 1"] {
        assert!(metrics.contains(&format!("headwater_api_errors_total{line}")), "{line} is not in\n{metrics}");
    }
}

#[test]
fn only_listed_origins_read_answers() {
    let cors = |origins: &[&str], credentials| CorsOptions {
        origins: origins.iter().map(|origin| origin.to_string()).collect(),
        credentials,
        max_age: Duration::from_secs(60),
    };
    let world = Guarded::with(ModelRule::default(), |access| access.cors = Some(cors(&["https://app.example"], true)));
    let token = format!("Bearer {}", good(json!({})));
    let from = |origin: &str| world.get_with("/v1/customer/7", &[("authorization", &token), ("origin", origin)]);
    let own = from("https://app.example");
    assert_eq!(own.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(own.header("access-control-allow-credentials"), "true");
    assert!(own.header("access-control-expose-headers").contains("etag"));
    // A cache must not hand what one page may read to another, nor what none may to one that may.
    let of_no_page = world.get_with("/v1/customer/7", &[("authorization", &token)]);
    for answer in [&own, &from("https://evil.example"), &of_no_page] {
        assert!(answer.header("vary").contains("origin"), "{}", answer.header("vary"));
    }
    for origin in
        ["https://app.example.evil", "https://evil.example", "null", "http://app.example", "https://APP.example", ""]
    {
        let answer = from(origin);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""), "{origin}");
        assert_eq!(answer.header("access-control-allow-credentials"), "", "{origin}");
    }
    let ask = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization"),
        ];
        world.ask("OPTIONS", "/v1/customer/7", &headers, None)
    };
    let allowed = ask("https://app.example");
    assert_eq!(
        (allowed.status, allowed.header("access-control-max-age")),
        (204, "60"),
        "without credentials: browsers send none"
    );
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(allowed.header("access-control-allow-methods"), "GET, HEAD, POST, QUERY");
    for name in ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"] {
        assert_eq!(ask("https://evil.example").header(name), "", "{name}");
    }
    assert_eq!(world.ask("OPTIONS", "/v1/customer/7", &[], None).status, 401, "no question of a browser");

    let world = Guarded::with(ModelRule::default(), |access| access.cors = Some(cors(&["*"], true)));
    let answer = world.get_with("/v1/customer/7", &[("authorization", &token), ("origin", "https://evil.example")]);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-credentials"), "", "never both");
    assert!(!answer.header("vary").contains("origin"), "the same for every page");
}
