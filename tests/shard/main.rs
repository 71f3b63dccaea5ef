//! A whole shard over real RocksDB and FAISS: the tests that [`sagitta_shard::testing`] runs for any engines, and proof
//! that they notice bugs.
//!
//! May not know: what a shard keeps to itself. `SAGITTA_SEED`, `SAGITTA_SEEDS` and `SAGITTA_STEPS` ask for other and
//! longer runs.

mod planted;
mod replicas;
mod rig;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use planted::{Bug, PlantedRig};
use rig::RealRig;
use sagitta_shard::testing::{concurrent, crash, damage, merge, model, split, whole};

/// Seeds and steps of an ordinary run.
const SEEDS: u64 = 3;
const STEPS: u64 = 2_000;

/// In memory if the system has such a place: how long a disk takes to sync is not what is tested.
fn in_folder<T>(test: impl FnOnce(&Path) -> T) -> T {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary folder");
    test(dir.path())
}

/// A number from the environment, or what every day runs.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_histories_agree_with_a_map() {
    let (first, seeds, steps) =
        (number("SAGITTA_SEED", 1), number("SAGITTA_SEEDS", SEEDS), number("SAGITTA_STEPS", STEPS));
    for seed in first..first + seeds {
        let report = in_folder(|dir| model::run(&RealRig::default(), dir, seed, steps as usize));
        println!("{report:?}");
        let per_thousand = |count: u64| count * 1_000 / steps;
        let enough = per_thousand(report.entries) > 250
            && per_thousand(report.jobs) > 30
            && per_thousand(report.disturbed_jobs) > 5
            && per_thousand(report.crashes + report.restarts) > 8;
        assert!(
            enough && report.most_segments >= 4 && report.most_points > 80,
            "seed {seed} did too little: {report:?}"
        );
    }
}

#[test]
fn a_crash_at_any_step_of_an_installation_loses_nothing() {
    assert_eq!(in_folder(|dir| crash::every_step(&RealRig::default(), dir, 1)), (3 * 13 + 9) * 3);
}

#[test]
fn damage_to_any_derived_file_is_noticed_answered_around_and_repaired() {
    // One seed has a flat index and a graph.
    for seed in 1..=number("SAGITTA_SEEDS", 1) {
        assert!(in_folder(|dir| damage::every_file(&RealRig::default(), dir, seed)) >= 40);
    }
}

#[test]
fn readers_see_every_point_once_whatever_happens_meanwhile() {
    for seed in 1..=2 {
        let report = in_folder(|dir| concurrent::run(&RealRig::default(), dir, seed, 300));
        println!("{report:?}");
        assert!(report.views > 50 && report.jobs > 20, "seed {seed} did too little: {report:?}");
    }
}

#[test]
fn a_checkpoint_is_the_shard_as_of_one_entry_whatever_happens_meanwhile() {
    for seed in 1..=2 {
        let report = in_folder(|dir| whole::while_it_works(&RealRig::default(), dir, seed, 20));
        println!("{report:?}");
        assert!(report.rounds > 20 && report.jobs > 5 && report.segments > 5, "seed {seed} did too little: {report:?}");
    }
}

#[test]
fn a_crash_at_any_step_of_taking_over_a_state_leaves_the_old_one_or_the_new_one() {
    assert_eq!(in_folder(|dir| whole::every_step(&RealRig::default(), dir, 1)), 7);
}

#[test]
fn halves_of_shards_that_are_split_at_any_point_answer_together_as_a_map() {
    let (first, seeds) = (number("SAGITTA_SEED", 1), number("SAGITTA_SEEDS", 2));
    for seed in first..first + seeds {
        let report = in_folder(|dir| split::run(&RealRig::default(), dir, seed, 800));
        println!("{report:?}");
        let enough = report.splits >= 3 && report.jobs > 50 && report.crashes > 10;
        assert!(enough, "seed {seed} did too little: {report:?}");
    }
}

/// What it says is how long each step held up the thread that applies: `SAGITTA_SPLIT` is the number of points.
#[test]
fn a_large_shard_is_split_in_the_middle() {
    let rows = number("SAGITTA_SPLIT", 20_000);
    for prepared in [false, true] {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let steps = split::measure(&RealRig::default(), temp.path(), rows, prepared);
        println!("{rows} points, prepared: {prepared}, {steps:?}");
        assert_eq!(steps.len(), 7);
    }
}

#[test]
fn a_crash_at_any_step_of_a_split_loses_nothing_and_leaves_nothing_twice() {
    assert_eq!(in_folder(|dir| split::every_step(&RealRig::default(), dir, 1)), 4 * (7 + 3 + 4 * 2));
}

#[test]
fn shards_that_are_merged_at_any_point_answer_together_as_a_map() {
    let (first, seeds) = (number("SAGITTA_SEED", 1), number("SAGITTA_SEEDS", 2));
    for seed in first..first + seeds {
        let report = in_folder(|dir| merge::run(&RealRig::default(), dir, seed, 2_000));
        println!("{report:?}");
        let enough = report.merges >= 2 && report.imports > 60 && report.rounds > 60 && report.crashes > 30;
        assert!(enough, "seed {seed} did too little: {report:?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    are_found(&Bug::ALL, |rig, dir| format!("{:?}", model::run(rig, dir, 1, 3_000)));
}

#[test]
fn planted_bugs_are_found_in_shards_that_are_split() {
    are_found(&Bug::OF_SPLITS, |rig, dir| format!("{:?}", split::run(rig, dir, 1, 800)));
}

fn are_found(bugs: &[Bug], test: impl Fn(&PlantedRig, &Path) -> String) {
    for &bug in bugs {
        let rig = PlantedRig::new(bug);
        let run = || in_folder(|dir| test(&rig, dir));
        let said = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(report) => panic!("{bug:?} was not found: {report}"),
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        let first = said.lines().next().unwrap_or_default();
        // A full folder or a broken rig would end a run, too.
        assert!(first.contains("seed 1, step") || first.contains("Inconsistent"), "{bug:?} ended the run by: {said}");
        println!("{bug:?} was found: {first}");
    }
}
