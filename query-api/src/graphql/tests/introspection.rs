//! What tools ask about the schema.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::Fixture;
use crate::graphql::GraphQlLimits;

/// The query GraphiQL sends.
const FULL: &str = include_str!("introspection.graphql");

#[tokio::test]
async fn tools_can_read_the_schema() {
    let fixture = Fixture::new();
    let data = fixture.data(FULL, json!({})).await;
    let types = data["__schema"]["types"].as_array().cloned().unwrap_or_default();
    let of = |name: &str| types.iter().find(|of| of["name"] == name).cloned().unwrap_or_default();
    assert_eq!(of("CustomerAccount")["description"], "A customer with everything owed.");
    assert_eq!(of("CustomerAccountOrderBy")["kind"], "ENUM");
    assert_eq!(data["__schema"]["queryType"]["name"], "Query");
    assert_eq!(data["__schema"]["mutationType"], json!(null));
}

#[tokio::test]
async fn introspection_stands_among_other_fields() {
    let fixture = Fixture::new();
    let query = "query($n: String!) { t: __type(name: $n) { name kind } c: customerAccount(id: 1) { id } __typename }";
    let data = fixture.data(query, json!({"n": "Decimal"})).await;
    let expected = json!({"t": {"name": "Decimal", "kind": "SCALAR"}, "c": {"id": 1}, "__typename": "Query"});
    assert_eq!(data.to_string(), expected.to_string());
}

#[tokio::test]
async fn introspection_that_multiplies_is_refused() {
    let fixture = Fixture::new();
    let query = "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }";
    let error = fixture.refused(query, json!({})).await;
    assert_eq!(error["extensions"]["limit"], "introspection depth", "{error}");
}

/// Fragments on types, each of which spreads the one before, one level of lists further down.
fn chained(levels: usize) -> String {
    let first = "fragment F0 on __Type { name }".to_string();
    let next = |level: usize| {
        let below = level - 1;
        // A list of them is two or three `ofType` away from what it is a list of.
        let of_types = format!("...F{below} ofType {{ ofType {{ ...F{below} ofType {{ ...F{below} }} }} }}");
        format!("fragment F{level} on __Type {{ fields {{ type {{ {of_types} }} }} }}")
    };
    let fragments: Vec<String> = std::iter::once(first).chain((1..=levels).map(next)).collect();
    // Spread from the smallest up, so that each is known when the next one comes to it.
    let spreads: String =
        (0..=levels).map(|level| format!("a{level}: __type(name: \"__Type\") {{ ...F{level} }} ")).collect();
    format!("{{ {spreads} }} {}", fragments.join(" "))
}

/// Every list of the schema under many names.
fn aliased() -> String {
    let many =
        |field: &str, below: &str| -> String { (0..25).map(|n| format!("a{n}: {field} {{ {below} }} ")).collect() };
    let (schemas, types) = (many("__schema", "...S"), many("types", "...T"));
    let (fields, of_type) = (many("fields", "...F"), many("type", "name"));
    format!(
        "{{ {schemas} }} fragment S on __Schema {{ {types} }} fragment T on __Type {{ {fields} }} \
         fragment F on __Field {{ {of_type} }}"
    )
}

async fn refused_soon(query: &str) {
    let fixture = Fixture::new();
    let begun = Instant::now();
    let error = fixture.refused(query, json!({})).await;
    assert_eq!(error["extensions"]["limit"], "introspection", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("over the limit of 200000"), "{message}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn fragments_that_multiply_introspection_are_refused_soon() {
    refused_soon(&chained(20)).await;
}

#[tokio::test]
async fn aliases_that_multiply_introspection_are_refused_soon() {
    refused_soon(&aliased()).await;
}

#[tokio::test]
async fn what_tools_ask_is_far_within_the_budget() {
    // Of a budget that is no larger than the schema makes it.
    let fixture = Fixture::with(GraphQlLimits { cost_max: 2_500, ..GraphQlLimits::default() });
    let (_, fragments) = FULL.split_once("fragment FullType").unwrap_or_default();
    let again = "a: __schema { types { ...FullType } } b: __schema { types { ...FullType } }";
    let twice = format!("{{ {again} }} fragment FullType{fragments}");
    fixture.data(FULL, json!({})).await;
    fixture.data(&twice, json!({})).await;
    let typenames = "customerAccount(id: 1) { __typename address { __typename } } __typename";
    let data = fixture.data(&format!("{{ {typenames} }}"), json!({})).await;
    assert_eq!(data["__typename"], "Query");
}

#[tokio::test]
async fn what_is_skipped_is_not_counted() {
    let fixture = Fixture::new();
    let query = chained(20)
        .replacen("{ a0", "query($no: Boolean!) { a0", 1)
        .replace("\"__Type\")", "\"__Type\") @include(if: $no)");
    assert_eq!(fixture.data(&query, json!({"no": false})).await, json!({}));
    let error = fixture.send(&query, json!({"no": true})).await.1["errors"][0].clone();
    assert_eq!(error["extensions"]["limit"], "introspection", "{error}");
}

#[tokio::test]
async fn operations_of_one_request_share_the_budget() {
    let fixture = Fixture::with(GraphQlLimits { cost_max: 2_500, ..GraphQlLimits::default() });
    let request = crate::graphql::GraphQlRequest { query: FULL.into(), ..Default::default() };
    let operation = fixture.graphql.operation(&request).expect("it is valid");
    let mut budget = fixture.graphql.budget();
    let mut answered = 0;
    while fixture.graphql.try_answer(&operation, &mut budget, &*fixture.store, &fixture.context).await.is_ok() {
        answered += 1;
        assert!(answered < 100, "there is no end");
    }
    assert!(answered > 1, "{answered}");
}
