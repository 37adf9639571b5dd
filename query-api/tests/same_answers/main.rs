//! The same answers whoever is asked: for random tables, models and queries, REST says what GraphQL says, and both what
//! plain filtering of the naive evaluator's documents says. On both engines.
//!
//! A failing case prints its seed; `HEADWATER_SEED=<seed>` runs that one case alone, and `HEADWATER_CASES=<n>` as many as
//! wanted.
#![allow(clippy::unwrap_used)]

mod case;
#[path = "../../../projector/tests/follow_rows/cases.rs"]
mod cases;
mod client;
#[path = "../serving/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of serving")]
mod fixture;
#[path = "../../../projector/tests/follow_rows/models.rs"]
#[allow(dead_code, reason = "shared with the tests of documents")]
mod models;
mod plain;
mod query;
#[path = "../../../projector/tests/follow_rows/random.rs"]
mod random;
#[path = "../../../projector/tests/follow_rows/tables.rs"]
#[allow(dead_code, reason = "shared with the tests of the projector")]
mod tables;

use case::{Case, Tally};
use fixture::engine::Engine;

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
    let ran = cases::run(engine, cases, |seed, _| Case::new(engine, seed, &runtime).run(), Tally::add);
    let Some((tally, cases)) = ran else { return };
    // What is never reached is not tested. A handful of cases can by chance reach little.
    assert!(tally.lists > 0 && tally.found > 0);
    if cases >= CASES {
        assert!(tally.indexes > cases && tally.passed_over < tally.indexes / 2);
        assert!(tally.lists > cases && tally.conditions > cases && tally.found > cases && tally.pages > tally.lists);
        assert!(tally.looked_into > cases / 10 && tally.refused > cases / 40 && tally.elements > cases / 2);
        assert!(tally.of_written_types > cases / 20);
    }
}
