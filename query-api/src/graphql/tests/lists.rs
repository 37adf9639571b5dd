//! Connections: filters, orders, pages.

use serde_json::{Value, json};

use super::fixture::Fixture;

async fn ids(fixture: &Fixture, arguments: &str, variables: Value) -> Vec<i64> {
    let declared = if variables.get("v").is_some() { "query($v: CustomerAccountWhere)" } else { "" };
    let query = format!("{declared} {{ customerAccounts(first: 100 {arguments}) {{ nodes {{ id }} }} }}");
    let data = fixture.data(&query, variables).await;
    let nodes = data["customerAccounts"]["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node["id"].as_i64().expect("an id")).collect()
}

#[tokio::test]
async fn filters_ask_what_they_say() {
    let fixture = Fixture::new();
    for (condition, expected) in [
        ("email: {eq: \"c2@example.com\"}", &[2][..]),
        ("email: {eq: null}", &[7]),
        ("email: {exists: false}", &[7]),
        ("email: {ne: null, startsWith: \"c1\"}", &[1, 10]),
        ("email: {startsWith: \"c\", contains: \"0@\"}", &[10]),
        ("email: {contains: \"@\"}, unpaid_total: {gt: 8}", &[4]),
        ("invoices_status: {startsWith: \"o\", contains: \"due\"}", &[1, 3, 6, 7, 10]),
        ("email: {in: [\"c2@example.com\", \"c4@example.com\", \"x\"]}", &[2, 4]),
        ("active: {eq: true}", &[2, 4, 6, 8, 10]),
        ("active: {ne: true}, email: {startsWith: \"c\"}", &[1, 3, 5, 9]),
        ("unpaid_total: {gte: \"7.25\", lt: 9}", &[1, 4]),
        ("unpaid_total: {eq: 7.250}", &[1]),
        ("invoices_status: {eq: \"open\"}, active: {eq: true}", &[2, 6]),
        ("invoices_status: {in: [\"open\"]}, invoices_id: {gt: 699, lte: 700}", &[7]),
        ("invoices_id: {in: [500, 200]}", &[2, 5]),
        ("invoices_status: {ne: \"paid\"}, invoices_id: {exists: true}", &[1, 6, 9]),
    ] {
        let mut found = ids(&fixture, &format!("where: {{{condition}}}"), json!({})).await;
        found.sort_unstable();
        assert_eq!(found, expected, "{condition}");
    }
}

#[tokio::test]
async fn a_filter_can_be_a_variable() {
    let fixture = Fixture::new();
    let found = ids(&fixture, "where: $v", json!({"v": {"email": {"eq": "c2@example.com"}}})).await;
    assert_eq!(found, [2]);
    let big = json!({"v": {"invoices_id": {"eq": "500"}}});
    assert_eq!(ids(&fixture, "where: $v", big).await, [5]);
    assert_eq!(ids(&fixture, "where: $v", json!({"v": null})).await.len(), 10);
}

#[tokio::test]
async fn a_filter_that_says_nothing_is_refused() {
    let fixture = Fixture::new();
    let query = "query($e: String) { customerAccounts(where: {email: {eq: $e}}) { nodes { id } } }";
    let error = fixture.refused(query, json!({})).await;
    assert!(error["message"].as_str().is_some_and(|m| m.contains("`where.email` says nothing")), "{error}");
    let nothing = "email: {startsWith: \"c\", contains: \"\"}";
    for condition in [
        nothing,
        "email: {contains: null}",
        "email: null",
        "email: {in: null}",
        "email: {gt: null}",
        "unpaid_total: {eq: \"ten\"}",
    ] {
        let error = fixture
            .refused(&format!("{{ customerAccounts(where: {{{condition}}}) {{ nodes {{ id }} }} }}"), json!({}))
            .await;
        assert!(error["extensions"]["code"] == "invalid_parameter", "{condition}: {error}");
        assert_eq!(error["locations"], json!([{"line": 1, "column": 3}]), "{condition}: {error}");
    }
}

#[tokio::test]
async fn contains_stands_beside_a_condition_that_leaves_few() {
    let fixture = Fixture::new();
    for rest in ["", ", ne: \"x\"", ", startsWith: \"\"", "}, active: {exists: true"] {
        let query =
            format!("{{ customerAccounts(where: {{email: {{contains: \"c1\"{rest}}}}}) {{ nodes {{ id }} }} }}");
        let error = fixture.refused(&query, json!({})).await;
        let (code, parameter) = (&error["extensions"]["code"], &error["extensions"]["parameter"]);
        assert_eq!((code, parameter), (&json!("invalid_parameter"), &json!("where.email.contains")), "{rest}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("add a condition with eq, in, startsWith"), "{rest}: {error}");
    }
    let query =
        "{ customerAccounts(where: {email: {startsWith: \"c\", contains: \"1\"}}) { totalCount nodes { id } } }";
    let data = fixture.data(query, json!({})).await;
    assert_eq!(data["customerAccounts"], json!({"totalCount": null, "nodes": [{"id": 10}, {"id": 1}]}));
}

#[tokio::test]
async fn orders_ascend_and_descend() {
    let fixture = Fixture::new();
    // n * 7 % 10 of 1..=10.
    let ascending = [10, 3, 6, 9, 2, 5, 8, 1, 4, 7];
    assert_eq!(ids(&fixture, "orderBy: unpaid_total_ASC", json!({})).await, ascending);
    let descending: Vec<i64> = ascending.into_iter().rev().collect();
    assert_eq!(ids(&fixture, "orderBy: unpaid_total_DESC", json!({})).await, descending);
    assert_eq!(ids(&fixture, "", json!({})).await, (1..=10).collect::<Vec<i64>>());
}

#[tokio::test]
async fn pages_go_on_behind_the_cursor_of_the_page_and_of_every_edge() {
    let fixture = Fixture::new();
    for arguments in [
        "",
        "orderBy: unpaid_total_DESC",
        "orderBy: email_ASC",
        "where: {invoices_status: {in: [\"open\", \"paid\"]}}",
        "where: {invoices_id: {gt: 101}}",
        "where: {unpaid_total: {gt: 2}, active: {eq: true}}",
        "where: {email: {startsWith: \"c\", contains: \"@\"}}",
    ] {
        let all = ids(&fixture, arguments, json!({})).await;
        let query = format!(
            "query($after: String) {{ customerAccounts({arguments} first: 2, after: $after) {{ \
             pageInfo {{ hasNextPage endCursor __typename }} edges {{ cursor node {{ id }} }} nodes {{ id }} }} }}"
        );
        let (mut seen, mut after, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let data = fixture.data(&query, json!({"after": after})).await;
            let page = &data["customerAccounts"];
            let edges = page["edges"].as_array().cloned().unwrap_or_default();
            for (at, edge) in edges.iter().enumerate() {
                assert_eq!(edge["node"], page["nodes"][at]);
                seen.push(edge["node"]["id"].as_i64().expect("an id"));
                // What follows an edge is what follows it in the whole list.
                let rest = fixture.data(&query, json!({"after": edge["cursor"]})).await;
                let next = rest["customerAccounts"]["nodes"][0]["id"].as_i64();
                assert_eq!(next, all.get(seen.len()).copied(), "{arguments}");
            }
            pages += 1;
            assert!(pages < 20, "{arguments}: no end");
            after = page["pageInfo"]["endCursor"].clone();
            assert_eq!(page["pageInfo"]["hasNextPage"], json!(!after.is_null()));
            assert_eq!(page["pageInfo"]["__typename"], "PageInfo");
            if after.is_null() {
                break;
            }
        }
        assert_eq!(seen, all, "{arguments}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let fixture = Fixture::new();
    let data = fixture.data("{ customerAccounts(first: 1) { pageInfo { endCursor } } }", json!({})).await;
    let cursor = &data["customerAccounts"]["pageInfo"]["endCursor"];
    for query in [
        format!("{{ customerAccounts(after: {cursor}, orderBy: email_ASC) {{ nodes {{ id }} }} }}"),
        format!("{{ tariffs(after: {cursor}) {{ nodes {{ code }} }} }}"),
        "{ customerAccounts(after: \"AAAA\") { nodes { id } } }".to_owned(),
    ] {
        let error = fixture.refused(&query, json!({})).await;
        assert_eq!(error["extensions"]["code"], "invalid_cursor", "{error}");
    }
}

#[tokio::test]
async fn matches_are_counted() {
    let fixture = Fixture::new();
    let query = "{ all: customerAccounts(first: 0) { totalCount nodes { id } pageInfo { hasNextPage } __typename } \
                 some: customerAccounts(first: 1, where: {active: {eq: true}}) { totalCount edges { __typename } } }";
    let data = fixture.data(query, json!({})).await;
    assert_eq!(data["all"]["totalCount"], 10);
    assert_eq!(data["all"]["nodes"], json!([]));
    assert_eq!(data["all"]["__typename"], "CustomerAccountConnection");
    assert_eq!(data["some"], json!({"totalCount": 5, "edges": [{"__typename": "CustomerAccountEdge"}]}));
}
