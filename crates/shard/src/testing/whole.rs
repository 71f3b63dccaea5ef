//! Shards that go from one folder to another as a whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sagitta_env::Env;
use sagitta_model::Schema;

use super::concurrent::{SetOnDrop, check_view, write_round};
use super::dice::Dice;
use super::{Rig, open, run_jobs, schema, small_options, unhurried};
use crate::home::{Home, Switch};
use crate::{Checkpoint, Shard};

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Entries that were applied.
    pub rounds: u64,
    /// Jobs that ended.
    pub jobs: u64,
    /// Segments of all checkpoints.
    pub segments: u64,
}

/// Makes `checkpoints` checkpoints of a shard while entries are applied and segments installed. Each must be a shard of its own,
/// undamaged, as of the entry that it says. `dir` is empty.
///
/// # Panics
/// When one is not.
pub fn while_it_works(rig: &dyn Rig, dir: &Path, seed: u64, checkpoints: u64) -> Report {
    println!("checkpoint test: seed {seed}, {checkpoints} checkpoints");
    let (env, _clock) = Env::seeded(seed);
    let schema = schema(seed, rig.policies());
    let shard = open(rig, &dir.join("original"), &schema, &env, &small_options());
    let (done, rounds, jobs) = (AtomicBool::new(false), AtomicU64::new(1), AtomicU64::new(0));
    write_round(&shard, &Dice::new(seed), 1);
    let mut segments = 0;
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&done);
        scope.spawn(|| {
            let _end = SetOnDrop(&done);
            let dice = Dice::new(seed);
            while !done.load(Ordering::Acquire) {
                // Else the jobs fall behind, and nothing happens at the same time.
                if shard.write_pressure().is_over() {
                    std::thread::yield_now();
                    continue;
                }
                write_round(&shard, &dice, 1 + rounds.fetch_add(1, Ordering::Relaxed));
            }
        });
        scope.spawn(|| {
            let _end = SetOnDrop(&done);
            while !done.load(Ordering::Acquire) {
                let Some(job) = shard.next_job() else {
                    std::thread::yield_now();
                    continue;
                };
                job.run(&unhurried()).expect("a job ends well");
                jobs.fetch_add(1, Ordering::Relaxed);
            }
        });
        let dice = Dice::new(seed + 1);
        for number in 0..checkpoints {
            let before = rounds.load(Ordering::Relaxed);
            let copy = dir.join(format!("copy-{number}"));
            let stands = shard.checkpoint(&copy).expect("a checkpoint");
            assert!(stands.applied_index <= shard.applied_index(), "seed {seed}");
            segments += check_copy(rig, &copy, &schema, &env, &stands, &dice);
            // Something happens between any two.
            while rounds.load(Ordering::Relaxed) == before && !done.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    });
    check_view(&shard.view(), &Dice::new(seed));
    Report { rounds: rounds.into_inner(), jobs: jobs.into_inner(), segments }
}

/// Opens a checkpoint, checks all of it, goes on with it, and removes it; says how many segments it had.
fn check_copy(rig: &dyn Rig, dir: &Path, schema: &Schema, env: &Env, stands: &Checkpoint, dice: &Dice) -> u64 {
    let copy = open(rig, dir, schema, env, &small_options());
    let view = copy.view();
    assert_eq!((view.applied_index(), view.applied_term()), (stands.applied_index, stands.applied_term));
    assert_eq!(view.members(), stands.members.as_deref());
    check_view(&view, dice);
    let segments = view.segments().len() as u64;
    drop(view);
    // Among them those that verify every byte.
    run_jobs(&copy).expect("jobs end well");
    assert_eq!(copy.stats().damages, []);
    write_round(&copy, dice, stands.applied_index + 1);
    check_view(&copy.view(), dice);
    drop(copy);
    rig.engines().kv.destroy(&super::database_dir(dir)).expect("the database goes");
    fs::remove_dir_all(dir).expect("the folder goes");
    segments
}

/// Cuts the power at every step of taking over a state from another replica: the home must hold the old state or the new
/// one, whole, and nothing else after it was cleared. `dir` is empty. Returns the number of cuts.
///
/// # Panics
/// When it does not.
pub fn every_step(rig: &dyn Rig, dir: &Path, seed: u64) -> usize {
    println!("installation test: seed {seed}");
    let steps = [
        Cut::Empty,
        Cut::HalfFetched,
        Cut::Fetched,
        Cut::Marked,
        Cut::At(Some(Switch::Written)),
        Cut::At(Some(Switch::Renamed)),
        Cut::At(None),
    ];
    for (number, cut) in steps.into_iter().enumerate() {
        let case = dir.join(number.to_string());
        fs::create_dir(&case).expect("a folder for the case");
        cut_at(rig, &case, seed, cut);
    }
    steps.len()
}

/// Where the power is cut: after this was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Empty,
    HalfFetched,
    Fetched,
    Marked,
    At(Option<Switch>),
}

const NUMBER: u128 = 0xab;
const OLD: u64 = 5;
const NEW: u64 = 30;
const MEMBERS: &[u8] = b"those of the offer";

fn cut_at(rig: &dyn Rig, dir: &Path, seed: u64, cut: Cut) {
    let (env, _clock) = Env::seeded(seed);
    let schema = schema(seed, rig.policies());
    let dice = Dice::new(seed);
    let fill = |shard: &Arc<Shard>, rounds: u64| {
        for round in 1..=rounds {
            write_round(shard, &dice, round);
            run_jobs(shard).expect("jobs end well");
        }
        shard.flush().expect("it flushes");
    };
    let home_dir = dir.join("home");
    let home = Home::create(&home_dir).expect("a home");
    let old = open(rig, &home.current().expect("a folder"), &schema, &env, &small_options());
    fill(&old, OLD);
    let other = open(rig, &dir.join("other"), &schema, &env, &small_options());
    fill(&other, NEW);

    let incoming = home.incoming(NUMBER);
    if cut == Cut::Empty {
        fs::create_dir(&incoming).expect("a folder");
    } else {
        other.checkpoint(&incoming).expect("a checkpoint");
    }
    if cut == Cut::HalfFetched {
        fs::remove_dir_all(incoming.join("db")).expect("half of it goes");
    }
    if matches!(cut, Cut::Marked | Cut::At(_)) {
        let fetched = open(rig, &incoming, &schema, &env, &small_options());
        fetched.mark_installed(MEMBERS).expect("marked");
        assert_eq!(fetched.installed(), Some((NEW, 1)));
    }
    if let Cut::At(last) = cut {
        home.switch(NUMBER, last).expect("switched");
    }
    rig.crash(old, &home_dir, 0);

    let is_new = matches!(cut, Cut::At(Some(Switch::Renamed) | None));
    home.clear(&*rig.engines().kv).expect("cleared");
    let shard = open(rig, &home.current().expect("a state"), &schema, &env, &small_options());
    if is_new {
        assert_eq!((shard.applied_index(), shard.installed()), (NEW, Some((NEW, 1))), "{cut:?}");
        assert_eq!(shard.view().members(), Some(MEMBERS), "{cut:?}");
        // As it would be by the next entry.
        write_round(&shard, &dice, NEW + 1);
    } else {
        assert_eq!((shard.applied_index(), shard.installed()), (OLD, None), "{cut:?}");
    }
    run_jobs(&shard).expect("jobs end well");
    assert_eq!(shard.stats().damages, [], "{cut:?}");
    check_view(&shard.view(), &dice);
    let left: Vec<_> =
        fs::read_dir(&home_dir).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
    let is_left = |name: &str| left.iter().any(|other| other == name);
    assert_eq!(is_left("segments"), !is_new, "{cut:?}: {left:?}");
    let state = incoming.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!((is_left(state), is_left("current.partial")), (is_new, false), "{cut:?}: {left:?}");
}
