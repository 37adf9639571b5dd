//! The same answers whoever is asked: for random tables, models and queries, REST says what GraphQL says, and both what
//! plain filtering of the naive evaluator's documents says. On both engines.
//!
//! A failing case prints its seed; `HEADWATER_SEED=<seed>` runs that one case alone, and `HEADWATER_CASES=<n>` as many as
//! wanted.
#![allow(clippy::unwrap_used)]

mod case;
mod client;
#[path = "../serving/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod fixture;
#[path = "../../../projector/tests/follow_rows/models.rs"]
mod models;
mod plain;
mod query;
#[path = "../../../projector/tests/follow_rows/random.rs"]
mod random;
#[path = "../../../projector/tests/follow_rows/tables.rs"]
#[allow(dead_code, reason = "shared with the tests of the projector")]
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use case::{Case, Tally};
use fixture::engine::Engine;
use random::Random;

/// Cases of a run that is not told otherwise.
const CASES: u64 = 200;
/// The same, where every step goes to a server and back.
const CASES_MONGODB: u64 = 8;

#[test]
fn rest_graphql_and_plain_filtering_agree() {
    run(Engine::Embedded, CASES);
}

#[test]
fn rest_graphql_and_plain_filtering_agree_over_mongodb() {
    run(Engine::MongoDb, CASES_MONGODB);
}

fn run(engine: Engine, cases: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(seed) = number("HEADWATER_SEED") {
        Case::new(engine, seed, &runtime).run();
        return;
    }
    let began = Instant::now();
    let first = number("HEADWATER_FIRST_SEED").unwrap_or_else(|| Random::new(u64::from(std::process::id())).next());
    let cases = number("HEADWATER_CASES").unwrap_or(cases);
    println!("{cases} cases from seed {first}");
    let mut tally = Tally::default();
    for seed in (0..cases).map(|at| first.wrapping_add(at)) {
        match catch_unwind(AssertUnwindSafe(|| Case::new(engine, seed, &runtime).run())) {
            Ok(one) => tally.add(&one),
            Err(_) => panic!("case failed: run it alone with HEADWATER_SEED={seed}, {engine:?}"),
        }
    }
    println!("{tally:?} in {:?}", began.elapsed());
    // What is never reached is not tested. A handful of cases can by chance reach little.
    assert!(tally.lists > 0 && tally.found > 0);
    if cases >= CASES {
        assert!(tally.indexes > cases && tally.passed_over < tally.indexes / 2);
        assert!(tally.lists > cases && tally.conditions > cases && tally.found > cases && tally.pages > tally.lists);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
