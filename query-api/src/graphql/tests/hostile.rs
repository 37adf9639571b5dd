//! Queries that ask for too much, or for what is not there.

use apollo_compiler::response::JsonValue;
use serde_json::{Value as Json, json};

use super::fixture::{Fixture, customer};
use crate::graphql::plan::Slot;
use crate::graphql::{Follows, GraphQlLimits, GraphQlRequest};

#[tokio::test]
async fn mistyped_names_are_named_with_the_nearest() {
    let fixture = Fixture::new();
    for (query, words) in [
        ("{ customerAcount(id: 1) { id } }", &["customerAcount", "did you mean `customerAccount`?"][..]),
        ("{ customerAccount(id: 1) { emial } }", &["`emial`", "did you mean `email`?"]),
        ("{ customerAccount(di: 1) { email } }", &["required argument"]),
        ("{ customerAccounts(frist: 1) { nodes { id } } }", &["`frist`", "did you mean `first`?"]),
        (
            "{ customerAccounts(where: {invoice_status: {eq: 1}}) { nodes { id } } }",
            &["did you mean `invoices_status`?"],
        ),
        ("{ customerAccounts(orderBy: emailASC) { nodes { id } } }", &["did you mean `email_ASC`?"]),
        ("{ customerAccounts(orderBy: invoices_status_ASC) { nodes { id } } }", &["does not exist"]),
        ("{ customerAccounts(where: {name: {eq: \"x\"}}) { nodes { id } } }", &["`name`", "does not exist"]),
        ("{ customerAccount { id } }", &["required argument"]),
        ("{ customerAccount(id: 1) }", &["subselection"]),
        ("{ customerAccounts(first: \"1\") { nodes { id } } }", &["Int"]),
        ("mutation { x }", &["mutation"]),
        ("query($x: Int) { customerAccount(id: 1) { id } }", &["unused variable"]),
        ("query { customerAccount(id: $x) { id } }", &["$x"]),
        ("{ a: customerAccount(id: 1) { id } a: customerAccount(id: 2) { id } }", &["same name"]),
        ("{ ...F } fragment F on Query { ...F }", &["itself"]),
        ("{ customerAccount(id: 1) { id }", &["syntax error"]),
        ("", &["syntax error"]),
        ("\u{0}", &["syntax error"]),
    ] {
        let error = fixture.refused(query, json!({})).await;
        let message = error["message"].as_str().unwrap_or_default();
        assert!(words.iter().all(|word| message.contains(word)), "{query}: {message}");
    }
    let error = fixture.refused("{\n  customerAccount(id: 1) {\n    emial\n  }\n}", json!({})).await;
    assert_eq!(error["locations"], json!([{"line": 3, "column": 5}]));
    assert_eq!(error["extensions"]["code"], "graphql_invalid");
}

#[tokio::test]
async fn variables_of_another_type_are_refused() {
    let fixture = Fixture::new();
    let query = "query($id: ID!, $n: Int) { customerAccount(id: $id) { invoices(first: $n) { id } } }";
    for variables in
        [json!({}), json!({"id": null}), json!({"id": [1, 2]}), json!({"id": 1, "n": "x"}), json!({"id": 1, "n": 3e9})]
    {
        let error = fixture.refused(query, variables.clone()).await;
        assert_eq!(error["extensions"]["code"], "invalid_variables", "{variables}: {error}");
    }
}

async fn limited(fixture: &Fixture, query: &str, limit: &str) {
    let error = fixture.refused(query, json!({})).await;
    assert_eq!(error["extensions"]["code"], "limit_exceeded", "{error}");
    assert_eq!(error["extensions"]["limit"], limit, "{error}");
}

#[tokio::test]
async fn every_limit_is_named() {
    let fixture =
        Fixture::with(GraphQlLimits { depth_max: 4, cost_max: 2_500, page_max: 50, ..GraphQlLimits::default() });
    let flood: String = (0..101).map(|n| format!("a{n}: __typename ")).collect();
    limited(&fixture, &format!("{{ {flood} }}"), "aliases").await;
    let aliased = |bytes: usize| format!("{{ {}: __typename }}", "a".repeat(bytes));
    limited(&fixture, &aliased(257), "alias bytes").await;
    fixture.data(&aliased(256), json!({})).await;
    limited(&fixture, &format!("{{ {} }}", "__typename ".repeat(4_001)), "tokens").await;
    limited(&fixture, &"#".repeat(64 * 1024 + 1), "query bytes").await;
    limited(&fixture, "{ customerAccounts { edges { node { invoices { id } } } } }", "depth").await;
    limited(&fixture, "{ customerAccounts(first: 51) { nodes { id } } }", "page").await;
    limited(&fixture, "{ customerAccounts(first: 50) { nodes { invoices { id } } } }", "cost").await;
    limited(&fixture, "{ customerAccount(id: 1) { invoices(first: 2147483647) { id } } }", "cost").await;
    limited(&fixture, &format!("{{ customerAccountsByIds(ids: [{}]) {{ id }} }}", "1,".repeat(51)), "page").await;
    let deep = format!("{}{}", "{a".repeat(1_000), "}".repeat(1_000));
    limited(&fixture, &deep, "depth").await;
    assert_eq!(fixture.data("{ customerAccount(id: 1) { id } }", json!({})).await["customerAccount"]["id"], 1);
}

#[tokio::test]
async fn fragments_that_multiply_are_cut_off() {
    let fixture = Fixture::new();
    // Each level asks for its nested rows under two names: small text, large plan.
    let fields =
        "a: invoices { x: lines { ...L } y: lines { ...L } } b: invoices { x: lines { ...L } y: lines { ...L } }";
    let selections: String = (0..20).map(|n| format!("c{n}: customerAccount(id: 1) {{ ...C }} ")).collect();
    let lines: String = (0..70).map(|n| format!("t{n}: text ")).collect();
    let query = format!(
        "{{ {selections} }} fragment C on CustomerAccount {{ {fields} }} fragment L on CustomerAccountInvoicesLines {{ {lines} }}"
    );
    let error = fixture.refused(&query, json!({})).await;
    assert_eq!(error["extensions"]["limit"], "fields", "{error}");
}

#[tokio::test]
async fn a_flood_of_texts_keeps_the_cache_bounded() {
    let fixture = Fixture::with(GraphQlLimits { plans_max: 8, ..GraphQlLimits::default() });
    for n in 0..100 {
        let query = format!("{{ a{n}: customerAccount(id: 1) {{ id }} }}");
        assert_eq!(fixture.data(&query, json!({})).await[format!("a{n}")]["id"], 1);
        fixture.data("{ customerAccount(id: 2) { id } }", json!({})).await;
    }
    assert!(fixture.graphql.cache.size().0 <= 8);
    assert!(fixture.graphql.cache.get("{ customerAccount(id: 2) { id } }", None).is_some(), "what is used stays");
}

#[tokio::test]
async fn long_texts_keep_the_cache_bounded_too() {
    const BYTES_MAX: usize = 400_000;
    let fixture = Fixture::with(GraphQlLimits { plans_bytes_max: BYTES_MAX, ..GraphQlLimits::default() });
    for n in 0..50 {
        let query = format!("{{ a{n}: customerAccount(id: 1) {{ id }} }} #{}", "x".repeat(n * 100));
        fixture.data(&query, json!({})).await;
        let (_, bytes) = fixture.graphql.cache.size();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    }
    assert!(fixture.graphql.cache.size().0 > 1);
    let long = format!("{{ customerAccount(id: 1) {{ id }} }} #{}", "x".repeat(BYTES_MAX / 8));
    fixture.data(&long, json!({})).await;
    assert!(fixture.graphql.cache.size().0 > 1, "what has no room throws nothing out");
    assert!(fixture.graphql.cache.get(&long, None).is_none());
}

/// A short text with large plans, one for each set of values of its variables.
fn multiplied(number: usize) -> String {
    let roots: String = (0..20).map(|n| format!("a{n}: customerAccount(id: {n}) {{ ...C }} ")).collect();
    format!(
        "query Q{number}($x: Boolean!, $y: Boolean!, $z: Boolean!) {{ {roots} }} \
         fragment C on CustomerAccount {{ id @include(if: $x) name @include(if: $y) email @include(if: $z) \
         a: invoices {{ ...I }} b: invoices {{ ...I }} }} \
         fragment I on CustomerAccountInvoices {{ id issued_on status total lines {{ text quantity }} }}"
    )
}

fn three(set: usize) -> Json {
    json!({"x": set & 1 > 0, "y": set & 2 > 0, "z": set & 4 > 0})
}

#[tokio::test]
async fn large_plans_of_short_texts_keep_the_cache_bounded_too() {
    const BYTES_MAX: usize = 2_000_000;
    const FEW_BYTES: usize = 200_000;
    let fixture = Fixture::with(GraphQlLimits { plans_bytes_max: BYTES_MAX, ..GraphQlLimits::default() });
    let cache = &fixture.graphql.cache;
    for number in 0..10 {
        let query = multiplied(number);
        for set in 0..8 {
            fixture.data(&query, three(set)).await;
            let (_, bytes) = cache.size();
            assert!(bytes <= BYTES_MAX, "{bytes} bytes");
        }
        assert!(cache.get(&query, None).is_some_and(|kept| kept.bytes() > 300 * query.len()), "all plans are kept");
    }
    assert!((1..10).contains(&cache.size().0), "there is no room for all");

    // With each plan there is more of the same text, until there is no room for it.
    let fixture = Fixture::with(GraphQlLimits { plans_bytes_max: FEW_BYTES, ..GraphQlLimits::default() });
    let (cache, query) = (&fixture.graphql.cache, multiplied(0));
    let mut sizes = vec![cache.size()];
    for set in 0..8 {
        fixture.data(&query, three(set)).await;
        sizes.push(cache.size());
    }
    let fits = |pair: &[(usize, usize)]| pair[1].1 <= FEW_BYTES && (pair[1].0 == 0 || pair[1].1 > pair[0].1);
    assert!(sizes.windows(2).all(fits), "{sizes:?}");
    assert!(sizes[1].0 == 1 && sizes[1..].iter().any(|(kept, _)| *kept == 0), "{sizes:?}");
}

#[tokio::test]
async fn a_plan_counts_its_fields_and_their_keys() {
    let fixture = Fixture::new();
    let bytes = |fields: &str| {
        let query = format!("{{ customerAccount(id: 1) {{ {fields} }} }}").into();
        let request = GraphQlRequest { query, ..Default::default() };
        fixture.graphql.operation(&request).expect("it is valid").plan.bytes
    };
    let one = bytes("id");
    let per_field = bytes("id name") - one;
    assert!(per_field > size_of::<Slot>(), "{per_field}");
    assert!(bytes("id name email active rating") >= one + 4 * per_field);
    assert_eq!(bytes(&format!("{}: id", "x".repeat(202))), one + 200);
    assert_eq!(bytes("id id id"), one, "what is asked for again is there once");
}

#[tokio::test]
async fn the_worst_texts_are_answered_soon() {
    let fixture = Fixture::new();
    let spread: String = (0..120).map(|n| format!("...F{n} ")).collect();
    let fragments: String =
        (0..120).map(|n| format!("fragment F{n} on CustomerAccount{{invoices{{lines{{text}}}}}}")).collect();
    for query in [
        format!("{{{}}}", "customerAccount(id:1){invoices{lines{text}}}".repeat(240)),
        format!("{{customerAccount(id:1){{{}}}}}", "id ".repeat(1_900)),
        format!("{{customerAccount(id:1){{{spread}}}}}{fragments}"),
        format!("{{customerAccount(id:1){{{}id{}}}}}", "...{".repeat(60), "}".repeat(60)),
        format!("{{customerAccounts(where:{}{}){{nodes{{id}}}}}}", "{email:".repeat(90), "}".repeat(90)),
        format!("{{{}", "{".repeat(3_000)),
    ] {
        let start = std::time::Instant::now();
        let (status, body) = fixture.send(&query, json!({})).await;
        let took = start.elapsed();
        assert!(took.as_secs_f64() < 2.0, "{took:?} for {}", &query[..60]);
        let limited = body["errors"][0]["extensions"]["limit"] == "tokens";
        assert!(!limited, "not the worst that is let in: {}", &query[..60]);
        assert!(status == 200 || body["errors"][0]["message"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn pages_and_counts_cost_what_they_may_look_at() {
    let fixture = Fixture::new();
    // Each page looks at up to 10,000 entries, and so does each count.
    let pages = |count: usize, fields: &str| -> String {
        let one = |n: usize| format!("a{n}: customerAccounts(first: 1) {{ {fields} }} ");
        format!("{{ {} }}", (0..count).map(one).collect::<String>())
    };
    fixture.data(&pages(20, "totalCount nodes { id }"), json!({})).await;
    fixture.data(&pages(90, "nodes { id }"), json!({})).await;
    limited(&fixture, &pages(100, "nodes { id }"), "cost").await;
    limited(&fixture, &pages(60, "totalCount"), "cost").await;
    // `contains` looks into up to 64 times as many documents as a page has, besides.
    let looking = |count: usize, operator: &str| -> String {
        let filter = format!("where: {{email: {{startsWith: \"c\", {operator}: \"c1\"}}}}");
        let one = |n: usize| format!("a{n}: customerAccounts(first: 100, {filter}) {{ nodes {{ id }} }} ");
        format!("{{ {} }}", (0..count).map(one).collect::<String>())
    };
    fixture.data(&looking(20, "contains"), json!({})).await;
    limited(&fixture, &looking(30, "contains"), "cost").await;
    fixture.data(&looking(30, "gte"), json!({})).await;
}

#[tokio::test]
async fn the_documents_of_one_request_are_bounded_by_their_bytes() {
    let fields: String = (0..100).map(|n| format!("a{n}: customerAccountsByIds(ids: $ids) {{ id }} ")).collect();
    let query = format!("query($ids: [ID!]!) {{ {fields} }}");
    let one = customer(7).to_string().len();
    let fixture = Fixture::with(GraphQlLimits { documents_bytes_max: 100 * one, ..GraphQlLimits::default() });
    // A hundred times the same in each of a hundred fields: every field holds it once.
    let data = fixture.data(&query, json!({"ids": vec![7; 100]})).await;
    assert_eq!((&data["a0"][0], &data["a99"][99]), (&json!({"id": 7}), &json!({"id": 7})));
    let error = fixture.refused(&query, json!({"ids": [7, 8]})).await;
    assert_eq!(error["extensions"]["limit"], "document bytes", "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("fewer documents at once")), "{error}");

    let fixture = Fixture::with(GraphQlLimits { documents_bytes_max: one, ..GraphQlLimits::default() });
    fixture.data("{ customerAccount(id: 7) { id } }", json!({})).await;
    limited(&fixture, "{ customerAccounts { nodes { id } } }", "document bytes").await;
    limited(&fixture, "{ a: customerAccount(id: 7) { id } b: customerAccount(id: 1) { id } }", "document bytes").await;
}

#[tokio::test]
async fn a_response_is_bounded_by_its_bytes() {
    let fixture = Fixture::with(GraphQlLimits { response_bytes_max: 200_000, ..GraphQlLimits::default() });
    // Every field holds the document once, and writes it as often as it is named.
    let fields: String = (0..90).map(|n| format!("a{n}: customerAccountsByIds(ids: $ids) {{ ...F }} ")).collect();
    let alias = "x".repeat(256);
    let query =
        format!("query($ids: [ID!]!) {{ {fields} }} fragment F on CustomerAccount {{ invoices {{ {alias}: id }} }}");
    let data = fixture.data(&query, json!({"ids": [7]})).await;
    assert_eq!(data["a89"][0]["invoices"][2][&alias], 702);
    let error = fixture.refused(&query, json!({"ids": vec![7; 100]})).await;
    assert_eq!(error["extensions"]["limit"], "response bytes", "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("200000 bytes")), "{error}");

    // One document is bounded within itself, and so is what holds no document.
    let fixture = Fixture::with(GraphQlLimits { response_bytes_max: 2_000, ..GraphQlLimits::default() });
    let aliases: String = (0..90).map(|n| format!("m{n}: meta ")).collect();
    limited(&fixture, &format!("{{ customerAccount(id: 7) {{ {aliases} }} }}"), "response bytes").await;
    let cursors: String = (0..20).map(|n| format!("c{n}: cursor ")).collect();
    limited(&fixture, &format!("{{ customerAccounts {{ edges {{ {cursors} }} }} }}"), "response bytes").await;
    limited(&fixture, "{ __schema { types { name description } } }", "response bytes").await;
    fixture.data("{ customerAccount(id: 7) { id meta } __schema { queryType { name } } }", json!({})).await;
}

#[tokio::test]
async fn operations_of_one_request_share_the_bytes_of_their_responses() {
    let fixture = Fixture::with(GraphQlLimits { response_bytes_max: 1_000, ..GraphQlLimits::default() });
    let request = GraphQlRequest { query: "{ customerAccount(id: 7) { meta } }".into(), ..Default::default() };
    let operation = fixture.graphql.operation(&request).expect("it is valid");
    let (mut budget, mut bytes) = (fixture.graphql.budget(), 0);
    let refused = loop {
        let answer = fixture.graphql.answer(&operation, &mut budget, &*fixture.store, &fixture.context).await;
        if answer.status != 200 {
            break answer;
        }
        bytes += answer.body.len();
        assert!(bytes <= 1_100, "there is no end");
    };
    assert!(bytes > 500, "{bytes} bytes");
    let body = String::from_utf8_lossy(&refused.body);
    assert!(refused.status == 400 && body.contains("\"response bytes\""), "{} {body}", refused.status);
}

#[tokio::test]
async fn a_deadline_comes_between_the_fields_of_an_operation() {
    let fixture = Fixture::new();
    let query = "{ a: customerAccounts { nodes { id } } b: customerAccount(id: 1) { id } c: tariffs { totalCount } }";
    let mut answer = std::pin::pin!(fixture.send(query, json!({})));
    let polled = futures_util::poll!(answer.as_mut());
    assert!(polled.is_pending(), "a store at hand answers at once, and still others get their turn");
    assert_eq!(answer.await.0, 200);
    let one = std::pin::pin!(fixture.send("{ customerAccounts { nodes { id } } }", json!({})));
    assert!(futures_util::poll!(one).is_ready(), "what is asked alone is answered without a detour");
}

#[tokio::test]
async fn long_variables_are_not_put_into_many_fields() {
    let fixture = Fixture::new();
    let fields = |count: usize, field: &str| (0..count).map(|n| format!("a{n}: {field} ")).collect::<String>();
    let by_ids =
        |count| format!("query($ids: [ID!]!) {{ {} }}", fields(count, "customerAccountsByIds(ids: $ids) { id }"));
    let page = "customerAccounts(first: 1, where: {email: {eq: $s}}) { nodes { id } }";
    let pages = |count| format!("query($s: String) {{ {} }}", fields(count, page));
    let long = |bytes: usize| json!({"s": "x".repeat(bytes)});
    for (query, variables, limit) in [
        (by_ids(100), json!({"ids": vec![1; 500_000]}), "arguments"),
        (by_ids(1), json!({"ids": vec![1; 500_000]}), "arguments"),
        (by_ids(1), json!({"ids": vec![1; 10_000]}), "page"),
        (pages(90), long(1_000_000), "arguments"),
        (pages(2), long(600_000), "arguments"),
    ] {
        let error = fixture.refused(&query, variables).await;
        assert_eq!(error["extensions"]["limit"], limit, "{error}");
    }
    fixture.data(&by_ids(90), json!({"ids": (1..=100).collect::<Vec<_>>()})).await;
    fixture.data(&pages(90), long(1_000)).await;
}

#[tokio::test]
async fn a_deadline_comes_between_the_arguments_of_fields_too() {
    let fixture = Fixture::new();
    let query =
        "{ a: customerAccount(id: 1) { id } b: customerAccount(id: 2) { id } c: customerAccount(id: 3) { id } }";
    let mut answer = std::pin::pin!(fixture.send(query, json!({})));
    let mut turns = 0;
    while futures_util::poll!(answer.as_mut()).is_pending() {
        turns += 1;
    }
    assert_eq!(turns, 4, "two between what they ask, and two between what they are answered");
}

#[tokio::test]
async fn what_is_kept_of_a_request_is_not_its_body() {
    let fixture = Fixture::new();
    let text = json!({
        "query": "subscription S($id: ID!) { customerAccountChanged(id: $id) { id } }",
        "name": "S", "variables": {"id": "1", "other": {"more": ["x".repeat(1 << 20)]}},
    });
    let body = bytes::Bytes::from(text.to_string());
    let JsonValue::Object(mut members) = JsonValue::from_bytes(body.clone()).expect("JSON") else {
        panic!("no object")
    };
    let mut text = |name: &str| match members.remove(name) {
        Some(JsonValue::String(text)) => text,
        other => panic!("{other:?}"),
    };
    let (query, name) = (text("query"), text("name"));
    let Some(JsonValue::Object(variables)) = members.remove("variables") else { panic!("no variables") };
    let request = GraphQlRequest { query, operation_name: Some(name), variables };
    let operation = fixture.graphql.operation(&request).expect("it is valid");
    let kept = fixture.graphql.keep(&request, &operation).expect("it is still valid");
    drop((members, request, operation));
    assert!(body.is_unique(), "nothing refers to the body");
    assert_eq!(kept.0.variables.len(), 1);
    let followed = fixture.graphql.followed(&kept.1).expect("a document");
    assert!(matches!(followed.1, Follows::Document(Some(_))));
}
