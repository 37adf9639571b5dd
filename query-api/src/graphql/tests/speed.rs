//! How fast a point query is beside the read of the store alone. Prints; run with
//! `cargo test -p headwater-query-api graphql::tests::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use headwater_schemas::{ValueRef, key};
use headwater_store::DocumentReader;
use serde_json::json;

use super::fixture::{CUSTOMERS, Fixture, given};
use crate::graphql::GraphQlRequest;

async fn per_second<F: Future<Output = ()>>(mut once: impl FnMut() -> F) -> f64 {
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_secs(2) {
        for _ in 0..100 {
            once().await;
        }
        count += 100;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn a_point_query_beside_the_read_of_the_store() {
    let fixture = Fixture::new();
    let id = key::of(ValueRef::Int(7));
    let raw = per_second(|| async {
        assert!(fixture.store.get(CUSTOMERS, &id).await.expect("read").is_some());
    })
    .await;
    println!("store get: {raw:.0}/s");
    for (name, query) in [
        ("three fields", "query($id: ID!) { customerAccount(id: $id) { id name email } }"),
        (
            "whole document",
            "query($id: ID!) { customerAccount(id: $id) { id name email active rating joined_at meta address { city zip } \
             invoices { id issued_on status total lines { text quantity } } unpaid_total invoice_count } }",
        ),
    ] {
        let request =
            GraphQlRequest { query: query.into(), operation_name: None, variables: given(&json!({"id": "7"})) };
        let rate = per_second(|| async {
            let response = fixture.graphql.execute(request.clone(), &*fixture.store, &fixture.context).await;
            assert_eq!(response.status, 200);
        })
        .await;
        println!("{name}: {rate:.0}/s, {:.2} of the store's", rate / raw);
    }
}
