//! The checker finds what it should and nothing else: compared with all permutations, fed from an object that is right
//! and from one with planted faults, and shown the classic faults one by one.
//!
//! May not know: how the search goes. `SAGITTA_SEED` and `SAGITTA_SEEDS` ask for other and more random histories.

mod faults;
mod notation;
mod permutations;
mod recording;
mod store;

/// A number from the environment, or what every day runs.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The seeds of a test, which says them.
fn seeds(test: &str, count: u64) -> std::ops::Range<u64> {
    let first = number("SAGITTA_SEED", 1);
    let seeds = first..first + number("SAGITTA_SEEDS", count);
    println!("{test}: seeds {seeds:?}");
    seeds
}
