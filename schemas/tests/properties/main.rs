//! Properties of the vocabulary that hold for every value, not only for those somebody thought of.
//!
//! Each property prints its seed; `PROPTEST_RNG_SEED=<seed> cargo test -p headwater-schemas --test properties <name>`
//! runs the same cases again.

#![allow(clippy::unwrap_used, missing_docs)]

mod bytes;
mod decimals;
mod events;
mod keys;
mod rows;
mod times;
mod values;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Runs `property` on `cases` random inputs and panics with the smallest failing one.
fn check<S: Strategy>(name: &str, cases: u32, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed = match std::env::var("PROPTEST_RNG_SEED") {
        Ok(seed) => seed.parse().expect("PROPTEST_RNG_SEED is a number"),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    };
    println!("{name}: seed {seed}");
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(&strategy, property) {
        panic!("{name} failed with seed {seed}: {error}");
    }
}
