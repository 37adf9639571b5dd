//! The heart of the product: after any drained batch, every document is what the naive evaluator says, byte for byte.
//!
//! Random tables, random models over them, random changes, delivered in random order across partitions (in order within
//! one), in batches of random size, some of them twice, with restarts, failures at any call to the store, schema changes
//! and models declared, changed and replayed on the way.
//!
//! A failing case prints its seed; `HEADWATER_SEED=<seed>` runs that one case alone, and `HEADWATER_CASES=<n>` as many
//! as wanted.
#![allow(clippy::unwrap_used)]

mod case;
mod delivery;
mod engine;
mod flaky;
mod models;
mod random;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use case::Case;
use engine::Kind;
use random::Random;

/// Cases of a run that is not told otherwise.
const CASES: u64 = 2_000;

/// The same, where every step goes to a server and back.
const CASES_MONGODB: u64 = 24;

#[test]
fn documents_are_what_the_naive_evaluator_says() {
    run(Kind::Embedded, CASES);
}

#[test]
fn documents_are_what_the_naive_evaluator_says_in_mongodb() {
    run(Kind::Mongo, CASES_MONGODB);
}

fn run(kind: Kind, cases: u64) {
    if let Some(seed) = number("HEADWATER_SEED") {
        Case::new(kind, seed, true).run();
        return;
    }
    let began = Instant::now();
    let first = number("HEADWATER_FIRST_SEED").unwrap_or_else(|| Random::new(u64::from(std::process::id())).next());
    let cases = number("HEADWATER_CASES").unwrap_or(cases);
    println!("{cases} cases from seed {first}");
    let mut tally = case::Tally::default();
    for seed in (0..cases).map(|at| first.wrapping_add(at)) {
        match catch_unwind(AssertUnwindSafe(|| Case::new(kind, seed, false).run())) {
            Ok(one) => tally.add(one),
            Err(_) => panic!("case failed: run it alone with HEADWATER_SEED={seed}, {kind:?}"),
        }
    }
    println!("{tally:?} in {:?}", began.elapsed());
    // What is never reached is not tested.
    assert!(tally.documents > cases && tally.deleted > cases / 10 && tally.failures > cases / 10);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
