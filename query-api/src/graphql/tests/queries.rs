//! Reads by id: selections, fragments, variables, conditions.

use serde_json::json;

use super::fixture::{Fixture, customer};

#[tokio::test]
async fn a_document_is_selected_in_the_order_of_the_query() {
    let fixture = Fixture::new();
    let query = "{ a: customerAccount(id: 5) { invoice_count name invoices { total lines { quantity text } id } \
                 address { zip } id __typename meta } }";
    let request = crate::graphql::GraphQlRequest { query: query.into(), ..Default::default() };
    let response = fixture.graphql.execute(request, &*fixture.store, &fixture.context).await;
    let c = customer(5);
    let expected = format!(
        "{{\"data\":{{\"a\":{{\"invoice_count\":1,\"name\":{},\"invoices\":[{{\"total\":\"50.50\",\"lines\":\
         [{{\"quantity\":0,\"text\":{}}}],\"id\":500}}],\"address\":{{\"zip\":\"3000\"}},\"id\":5,\
         \"__typename\":\"CustomerAccount\",\"meta\":{}}}}}}}",
        c["name"], c["invoices"][0]["lines"][0]["text"], c["meta"]
    );
    assert_eq!(String::from_utf8_lossy(&response.body), expected);
}

#[tokio::test]
async fn what_is_absent_is_null() {
    let fixture = Fixture::new();
    let query = "query($id: ID!) { customerAccount(id: $id) { id address { city } email } }";
    assert_eq!(fixture.data(query, json!({"id": "99"})).await, json!({"customerAccount": null}));
    assert_eq!(fixture.data(query, json!({"id": "no number"})).await, json!({"customerAccount": null}));
    let data = fixture.data(query, json!({"id": 3})).await;
    assert_eq!(data["customerAccount"], json!({"id": 3, "address": null, "email": "c3@example.com"}));
}

#[tokio::test]
async fn a_composite_id_is_joined_by_tildes() {
    let fixture = Fixture::new();
    let data = fixture.data("{ tariff(id: \"a%7Eb%25~2026\") { code year } }", json!({})).await;
    assert_eq!(data["tariff"], json!({"code": "a~b%", "year": 2026}));
    assert_eq!(fixture.data("{ tariff(id: \"a\") { code } }", json!({})).await["tariff"], json!(null));
}

#[tokio::test]
async fn several_ids_keep_their_order() {
    let fixture = Fixture::new();
    let query = "query($ids: [ID!]!) { customerAccountsByIds(ids: $ids) { id } }";
    let data = fixture.data(query, json!({"ids": ["4", "x", "2", "77", "4"]})).await;
    assert_eq!(data["customerAccountsByIds"], json!([{"id": 4}, null, {"id": 2}, null, {"id": 4}]));
    assert_eq!(fixture.data(query, json!({"ids": "2"})).await["customerAccountsByIds"], json!([{"id": 2}]));
    assert_eq!(fixture.data(query, json!({"ids": []})).await["customerAccountsByIds"], json!([]));
}

#[tokio::test]
async fn fragments_merge_and_conditions_are_kept() {
    let fixture = Fixture::new();
    let query = "
        query Q($with: Boolean! = true, $without: Boolean = false) {
          customerAccount(id: 2) {
            ...Head
            invoices { id }
            ... on CustomerAccount @include(if: $with) { invoices { status } x: email @skip(if: $with) }
            ... @skip(if: $without) { invoices @include(if: true) { ...I id } }
          }
          customerAccount(id: 2) { id @include(if: false) active }
          gone: customerAccount(id: 2) @skip(if: true) { id }
        }
        fragment Head on CustomerAccount { name ...Tail }
        fragment Tail on CustomerAccount { invoice_count ...Tail2 }
        fragment Tail2 on CustomerAccount { address { ...A } }
        fragment A on CustomerAccountAddress { city }
        fragment I on CustomerAccountInvoices { total }";
    let c = customer(2);
    let invoice = |names: &[&str], n: usize| {
        serde_json::Value::Object(
            names.iter().map(|name| (name.to_string(), c["invoices"][n][*name].clone())).collect(),
        )
    };
    let both = |names: &[&str]| json!([invoice(names, 0), invoice(names, 1)]);
    let expected = json!({"customerAccount": {
        "name": c["name"], "invoice_count": 2, "address": {"city": "Bern"},
        "invoices": both(&["id", "status", "total"]), "active": true,
    }});
    assert_eq!(fixture.data(query, json!({})).await.to_string(), expected.to_string());
    let expected = json!({"customerAccount": {
        "name": c["name"], "invoice_count": 2, "address": {"city": "Bern"},
        "invoices": both(&["id"]), "active": true,
    }});
    let variables = json!({"with": false, "without": true});
    assert_eq!(fixture.data(query, variables).await.to_string(), expected.to_string());
    assert_eq!(fixture.data(query, json!({})).await["customerAccount"]["x"], json!(null));
}

#[tokio::test]
async fn nested_arrays_are_cut_by_first() {
    let fixture = Fixture::new();
    let query = "query($n: Int, $m: Int) { customerAccount(id: 7) { invoices(first: $n) { id lines(first: $m) { quantity } } \
                 two: invoices(first: 2) { id } name } }";
    let data = fixture.data(query, json!({"n": 3, "m": 1})).await;
    let c = &data["customerAccount"];
    assert_eq!(c["invoices"].as_array().map(Vec::len), Some(3));
    assert_eq!(c["invoices"][2]["lines"], json!([{"quantity": 0}]));
    assert_eq!(c["two"], json!([{"id": 700}, {"id": 701}]));
    assert_eq!(c["name"], customer(7)["name"]);
    let data = fixture.data(query, json!({"n": 0})).await;
    assert_eq!(data["customerAccount"]["invoices"], json!([]));
    assert_eq!(fixture.data(query, json!({})).await["customerAccount"]["invoices"][2]["lines"][2]["quantity"], 2);
    let error = fixture.refused(query, json!({"n": -1})).await;
    assert_eq!(error["extensions"]["code"], "invalid_parameter", "{error}");
}

#[tokio::test]
async fn an_operation_is_chosen_by_name() {
    let fixture = Fixture::new();
    let query = "query A { customerAccount(id: 1) { id } } query B { t: __typename }";
    let (_, body) = fixture.send_named(query, Some("B"), json!({})).await;
    assert_eq!(body, json!({"data": {"t": "Query"}}));
    let (_, body) = fixture.send_named(query, Some("A"), json!({})).await;
    assert_eq!(body, json!({"data": {"customerAccount": {"id": 1}}}));
    let (status, body) = fixture.send_named(query, Some("C"), json!({})).await;
    assert_eq!((status, body["errors"][0]["message"].as_str()), (400, Some("No operation named 'C'")));
    assert!(fixture.refused(query, json!({})).await["message"].as_str().is_some_and(|m| m.contains("operationName")));
}

#[tokio::test]
async fn a_float_that_is_not_finite_is_null_and_an_error() {
    let fixture = Fixture::new();
    let (status, body) = fixture.send("{ a: customerAccountsByIds(ids: [2, 3]) { rating id } }", json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(body["data"], json!({"a": [{"rating": 1.0, "id": 2}, {"rating": null, "id": 3}]}));
    assert_eq!(body["errors"][0]["path"], json!(["a", 1, "rating"]));
}

#[tokio::test]
async fn the_path_of_an_error_leads_through_a_connection() {
    let fixture = Fixture::new();
    let list = "nodes { rating } edges { cursor node { rating } }";
    let aliased = "some: nodes { r: rating } all: edges { one: node { id r: rating } }";
    let query = format!("{{ customerAccounts(first: 5) {{ {list} }} b: customerAccounts(first: 3) {{ {aliased} }} }}");
    let (status, body) = fixture.send(&query, json!({})).await;
    assert_eq!((status, &body["data"]["b"]["all"][2]), (200, &json!({"one": {"id": 3, "r": null}})));
    let paths: Vec<_> = body["errors"].as_array().expect("errors").iter().map(|error| error["path"].clone()).collect();
    let expected = [
        json!(["customerAccounts", "nodes", 2, "rating"]),
        json!(["customerAccounts", "edges", 2, "node", "rating"]),
        json!(["b", "some", 2, "r"]),
        json!(["b", "all", 2, "one", "r"]),
    ];
    assert_eq!(paths, expected);
}
