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
mod cases;
mod changes;
mod delivery;
mod engine;
mod flaky;
mod models;
mod random;
mod tables;

use case::Case;
use engine::Kind;

/// Cases of a run that is not told otherwise.
const CASES: u64 = 2_000;

/// The same, where every step goes to a server and back.
const CASES_MONGODB: u64 = 24;

#[test]
fn documents_are_what_the_naive_evaluator_says() {
    run(Kind::Embedded, CASES);
}

#[test]
fn documents_are_what_the_naive_evaluator_says_in_two_engines() {
    run(Kind::Paired, CASES / 2);
}

#[test]
fn documents_are_what_the_naive_evaluator_says_in_mongodb() {
    run(Kind::Mongo, CASES_MONGODB);
}

fn run(kind: Kind, cases: u64) {
    let ran = cases::run(kind, cases, |seed, alone| Case::new(kind, seed, alone).run(), case::Tally::add);
    let Some((tally, cases)) = ran else { return };
    // What is never reached is not tested.
    assert!(tally.documents > cases && tally.deleted > cases / 10 && tally.failures > cases / 10);
    // In a few cases what is rare may not come.
    assert!(cases < 500 || tally.held > cases / 100, "{tally:?}");
}
