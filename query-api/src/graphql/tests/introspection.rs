//! What tools ask about the schema.

use serde_json::json;

use super::fixture::Fixture;

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
