//! Several workers share one projection, and whatever happens to them, every document is in the end what the naive
//! evaluator says, byte for byte.
//!
//! Random tables, models and changes as in `follow_rows`, in a log with several partitions. Two to four workers are
//! driven step by step in random order: every transaction, append and write is a point where another one may go on.
//! Partitions move at any of these points, and the worker that had them may learn of it late or never; workers are lost and
//! replaced; the row store fails, before a commit or after it; records come twice; models are declared anew. There are no
//! threads, so that a seed replays exactly.
//!
//! A failing case prints its seed; `HEADWATER_SEED=<seed>` runs that one case alone, and `HEADWATER_CASES=<n>` as many as
//! wanted.
#![allow(clippy::unwrap_used)]

mod case;
#[path = "../follow_rows/cases.rs"]
mod cases;
#[path = "../follow_rows/changes.rs"]
mod changes;
mod documents;
mod engine;
mod flaky;
mod frozen;
mod held;
#[path = "../follow_rows/items.rs"]
mod items;
mod log;
mod lost;
#[path = "../follow_rows/models.rs"]
mod models;
mod place;
#[path = "../follow_rows/random.rs"]
mod random;
mod reading_again;
mod replaced;
mod source;
#[path = "../follow_rows/tables.rs"]
mod tables;
mod topics;
mod turns;
mod worker;

use case::{Case, Tally};
use engine::Kind;

/// Cases of a run that is not told otherwise.
const CASES: u64 = 500;

/// The same, where every step goes to a server and back.
const CASES_MONGODB: u64 = 8;

#[test]
fn documents_are_right_whatever_happens_to_the_workers() {
    run(Kind::Here, CASES);
}

#[test]
fn documents_are_right_whatever_happens_to_the_workers_in_mongodb() {
    run(Kind::Mongo, CASES_MONGODB);
}

fn run(kind: Kind, cases: u64) {
    let ran = cases::run(kind, cases, |seed, alone| Case::new(kind, seed, alone).run(), Tally::add);
    let Some((tally, cases)) = ran else { return };
    // What is never reached is not tested. In a few cases what is rare may not come.
    let of_many = |often| if matches!(kind, Kind::Here) { often } else { u64::MAX };
    let (late_writes, recovered) = (of_many(tally.late_writes), of_many(tally.recovered));
    for often in [tally.moves, tally.taken_over, late_writes, tally.frontiers] {
        assert!(often > cases, "too little happened: {tally:?}");
    }
    let held = of_many(tally.held * 20);
    for seldom in [tally.crashes, tally.failures, recovered, held] {
        assert!(seldom > cases / 5, "too little happened: {tally:?}");
    }
}
