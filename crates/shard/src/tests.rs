//! The whole shard with the twins in memory; see [`crate::testing`].

mod adopt;
mod inspect;
mod lifecycle;
mod merge;
mod split;

use std::path::Path;

use crate::testing::{self, TwinRig, concurrent, crash, damage, model, whole};

/// In memory if the system has such a place: what is tested is what is written, not how long a disk takes to sync it.
fn in_folder<T>(test: impl FnOnce(&Path) -> T) -> T {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary folder");
    test(dir.path())
}

#[test]
fn random_histories_agree_with_a_map() {
    for seed in 1..=5 {
        let report = in_folder(|dir| model::run(&TwinRig::default(), dir, seed, 3_000));
        println!("{report:?}");
        let enough = report.entries > 800 && report.jobs > 100 && report.disturbed_jobs > 20 && report.crashes > 20;
        let enough = enough && report.adoptions > 40 && report.adopted_rows > 300 && report.refusals > 0;
        assert!(
            enough && report.most_segments >= 4 && report.most_points > 80,
            "seed {seed} did too little: {report:?}"
        );
    }
}

#[test]
fn a_power_cut_at_any_step_of_an_installation_loses_nothing() {
    assert_eq!(in_folder(|dir| crash::every_step(&TwinRig::default(), dir, 1)), (3 * 13 + 9) * 3);
}

#[test]
fn damage_to_any_derived_file_is_noticed_answered_around_and_repaired() {
    assert!(in_folder(|dir| damage::every_file(&TwinRig::default(), dir, 1)) >= 40);
}

#[test]
fn readers_see_every_point_once_whatever_happens_meanwhile() {
    for seed in 1..=3 {
        let report = in_folder(|dir| concurrent::run(&TwinRig::default(), dir, seed, 400));
        println!("{report:?}");
        assert!(report.views > 50 && report.jobs > 50, "seed {seed} did too little: {report:?}");
    }
}

#[test]
fn a_checkpoint_is_the_shard_as_of_one_entry_whatever_happens_meanwhile() {
    for seed in 1..=3 {
        let report = in_folder(|dir| whole::while_it_works(&TwinRig::default(), dir, seed, 30));
        println!("{report:?}");
        assert!(
            report.rounds > 30 && report.jobs > 10 && report.segments > 5,
            "seed {seed} did too little: {report:?}"
        );
    }
}

#[test]
fn a_crash_at_any_step_of_taking_over_a_state_leaves_the_old_one_or_the_new_one() {
    assert_eq!(in_folder(|dir| whole::every_step(&TwinRig::default(), dir, 1)), 7);
}

#[test]
fn halves_of_shards_that_are_split_at_any_point_answer_together_as_a_map() {
    for seed in 1..=5 {
        let report = in_folder(|dir| testing::split::run(&TwinRig::default(), dir, seed, 500));
        println!("{report:?}");
        let enough = report.splits >= 5 && report.jobs > 50 && report.crashes > 10 && report.points > 40;
        assert!(enough, "seed {seed} did too little: {report:?}");
    }
}

#[test]
fn a_large_shard_is_split_in_the_middle() {
    for prepared in [false, true] {
        let steps = in_folder(|dir| testing::split::measure(&TwinRig::default(), dir, 20_000, prepared));
        println!("prepared: {prepared}, {steps:?}");
        assert_eq!(steps.len(), 7);
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_split_loses_nothing_and_leaves_nothing_twice() {
    assert_eq!(in_folder(|dir| testing::split::every_step(&TwinRig::default(), dir, 1)), 4 * (7 + 3 + 4 * 2));
}

#[test]
fn shards_that_are_merged_at_any_point_answer_together_as_a_map() {
    let (mut merges, mut thawed, mut repeated, mut in_part) = (0, 0, 0, 0);
    for seed in 1..=5 {
        let report = in_folder(|dir| testing::merge::run(&TwinRig::default(), dir, seed, 3_000));
        println!("seed {seed}: {report:?}");
        (merges, thawed) = (merges + report.merges, thawed + report.thawed);
        (repeated, in_part) = (repeated + report.repeated, in_part + report.in_part);
        let copied = report.imports > 100 && report.late > 3 && report.passes > 10;
        let closed = report.rounds > 100 && report.closed > 20 && report.crashes > 30;
        assert!(copied && closed && report.most_points > 60, "seed {seed} did too little: {report:?}");
    }
    let some = (merges >= 15, thawed > 0, repeated > 5, in_part > 5);
    assert_eq!(
        some,
        (true, true, true, true),
        "{merges} merges, {thawed} thawed, {repeated} and {in_part} requests came again"
    );
}
