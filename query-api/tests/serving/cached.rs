//! Documents at hand: no read of the store while nothing changes, and never an old one when something did.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_query_api::AccessOptions;
use serde_json::json;

use crate::fixture::{World, customer, int_key, put, put_at, wait_until};
use crate::hooked::Hooked;

fn counted(cache_bytes: u64) -> (World, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let world = World::over(
        AccessOptions::default(),
        |store| {
            let before = move || {
                counter.fetch_add(1, Ordering::SeqCst);
                ready(Ok(()))
            };
            Arc::new(Hooked { store, before })
        },
        |options| options.cache_bytes = cache_bytes,
    );
    (world, reads)
}

#[test]
fn a_document_is_read_once_until_it_changes() {
    let (world, reads) = counted(1 << 20);
    // Until changes are heard nothing is kept.
    wait_until("the cache to listen", || {
        let before = reads.load(Ordering::SeqCst);
        world.get("/v1/customer/7");
        reads.load(Ordering::SeqCst) == before
    });
    let before = reads.load(Ordering::SeqCst);
    let first = world.get("/v1/customer/7");
    assert_eq!(first.body, customer(7).to_string());
    for headers in [&[][..], &[("if-none-match", first.header("etag"))], &[("accept", "application/cbor")]] {
        for path in ["/v1/customer/7", "/v1/customer/7?fields=id", "/v1/customer/7/invoices"] {
            assert!(world.get_with(path, headers).status < 400, "{path}");
        }
    }
    let one = json!({"query": "{customer(id: 7) {id}}"}).to_string();
    world.ask("POST", "/graphql", &[("content-type", "application/json")], Some(&one));
    assert_eq!(reads.load(Ordering::SeqCst), before, "the document was at hand");

    let mut document = customer(7);
    document["n"] = json!(77);
    put(&world.store, 1, &int_key(7), Some(&document));
    wait_until("the change", || world.get("/v1/customer/7").json()["n"] == 77);
    let after = reads.load(Ordering::SeqCst);
    assert_eq!(after, before + 1);
    put(&world.store, 1, &int_key(8), Some(&document));
    world.get("/v1/customer/7");
    assert_eq!(reads.load(Ordering::SeqCst), after, "another document changed");
    put(&world.store, 1, &int_key(7), None);
    wait_until("the deletion", || world.get("/v1/customer/7").status == 404);
    let before = reads.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(world.get("/v1/customer/7").status, 404);
    }
    assert_eq!(reads.load(Ordering::SeqCst), before + 3, "what is not there is not kept");
    let metrics = world.admin("GET", "/metrics", &[], None).body;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("headwater_api_cache_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {metrics}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("hits_total") >= 9.0 && value("misses_total") >= 4.0 && value("invalidations_total") == 3.0);
    assert!(value("size_bytes") >= 0.0 && value("evictions_total") == 0.0);
}

#[test]
fn without_a_cache_each_read_is_a_read() {
    let (world, reads) = counted(0);
    for n in 1..=3 {
        assert_eq!(world.get("/v1/customer/7").status, 200);
        assert_eq!(reads.load(Ordering::SeqCst), n);
    }
}

#[test]
fn a_token_is_never_ahead_of_what_is_read() {
    let world = World::new();
    let mut document = customer(7);
    for n in 1..=150_u64 {
        document["n"] = json!(n);
        put_at(&world.store, n, &int_key(7), &document);
        let token = format!("billing={n:x}");
        let answer = world.get_with("/v1/customer/7", &[("consistency-token", &token), ("prefer", "wait=5")]);
        assert_eq!((answer.status, answer.json()["n"].as_u64()), (200, Some(n)), "{}", answer.body);
    }
}
