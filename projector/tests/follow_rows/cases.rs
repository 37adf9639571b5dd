//! Runs random cases from their seeds.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::random::Random;

/// Runs so many cases from a seed on, or what the environment wants instead; answers what all of them did, and how many
/// they were. `None` where it wanted one alone, which is to say more of itself. `one` gets the seed, and whether it is
/// alone.
pub(crate) fn run<T: Debug + Default>(
    kind: impl Debug,
    cases: u64,
    one: impl Fn(u64, bool) -> T,
    add: impl Fn(&mut T, T),
) -> Option<(T, u64)> {
    if let Some(seed) = number("HEADWATER_SEED") {
        println!("{:?}", one(seed, true));
        return None;
    }
    let began = Instant::now();
    let first = number("HEADWATER_FIRST_SEED").unwrap_or_else(|| Random::new(u64::from(std::process::id())).next());
    let cases = number("HEADWATER_CASES").unwrap_or(cases);
    println!("{cases} cases from seed {first}");
    let mut tally = T::default();
    for seed in (0..cases).map(|at| first.wrapping_add(at)) {
        match catch_unwind(AssertUnwindSafe(|| one(seed, false))) {
            Ok(did) => add(&mut tally, did),
            Err(_) => panic!("case failed: run it alone with HEADWATER_SEED={seed}, {kind:?}"),
        }
    }
    println!("{tally:?} in {:?}", began.elapsed());
    Some((tally, cases))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
