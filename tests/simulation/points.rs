//! Promise 4: points are linearizable at `strong`, and `session` reads what it has written.

use std::time::Duration;

use sagitta_callers::{number, seed};
use sagitta_history::{
    BUDGET_STEPS, Freshness, History, PointInput, PointOutput, Points, Verdict, check, require, unsettled,
};

use crate::trouble::Trouble;
use crate::workload::{Plant, Workload, at_rest};
use crate::world::{Shape, World};

/// Answered operations; `SAGITTA_OPERATIONS` runs more.
const OPERATIONS: u64 = 20_000;
/// Operations of one history and world.
const EACH: u64 = 5_000;
/// So few that clients meet at them.
const IDS: u64 = 24;
const CLIENTS: u64 = 12;
/// Shorter than it takes to elect another leader.
const LAG: Duration = Duration::from_millis(400);
const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };

/// A history of so many answered operations, with trouble all the while.
fn history(world: &mut World, answers: u64, plant: Option<Plant>) -> History<PointInput, PointOutput> {
    world.create("points", 2, 3);
    let mut workload = Workload::new("points", IDS, 50).pausing(10);
    if let Some(plant) = plant {
        workload = workload.with(plant);
    }
    workload.start(world, CLIENTS);
    match plant {
        None => stir(world, &workload, answers),
        Some(_) => lag(world, &workload, answers),
    }
    let history = workload.stop(world);
    println!(
        "seed {}: {} operations, {} answered, {:?}, {:?} of virtual time, errors {:?}",
        world.seed,
        history.operations.len(),
        workload.answered(),
        world.faults(),
        world.now(),
        workload.errors()
    );
    history
}

/// Faults of all kinds until there are so many answers.
fn stir(world: &mut World, workload: &Workload, answers: u64) {
    let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
    while workload.answered() < answers {
        trouble.stir(world);
    }
    trouble.end(world);
}

/// One replica after the other lags behind what it would have to know to answer, until there are so many answers.
fn lag(world: &mut World, workload: &Workload, answers: u64) {
    for at in world.shard_nodes().into_iter().cycle() {
        world.hold_from_peers(at);
        world.run_for(LAG);
        world.release(at);
        world.run_for(LAG);
        if workload.answered() >= answers {
            return;
        }
    }
}

#[test]
fn points_are_linearizable_at_strong_and_session_reads_its_own_writes() {
    let (first, operations) = (seed(), number("SAGITTA_OPERATIONS", OPERATIONS));
    let (mut answered, mut sessions, mut seed) = (0, 0, first);
    while answered < operations {
        let mut world = World::found(seed, SHAPE);
        let history = history(&mut world, EACH.min(operations - answered), None);
        require(&Points, &history, &format!("points of seed {seed}"));
        let told = history.operations.iter().filter(|operation| operation.returned().is_some());
        sessions += told.clone().filter(|told| matches!(told.freshness, Freshness::Session(_))).count();
        answered += told.count() as u64;
        let found = at_rest(&mut world, "points", IDS);
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
        seed += 1;
    }
    println!("{answered} operations answered, {sessions} of them reads of a session");
    assert!(sessions as u64 > operations / 20, "too few reads of sessions");
}

/// Promise 5: what the checkers are there for, they see.
#[test]
fn faults_of_coordinators_that_are_planted_are_caught() {
    let seed = seed();
    let plants = [
        Plant::EarlyAcknowledgement,
        Plant::StaleStrongRead,
        Plant::SessionIgnored,
        Plant::CachedRead,
        Plant::DeleteForgotten,
        Plant::RetriedAnew,
    ];
    for plant in plants {
        // A read has to hit a replica that lags, by chance.
        let caught = (seed..seed + 4).find(|seed| {
            let mut world = World::found(*seed, SHAPE);
            let history = history(&mut world, 1_500, Some(plant));
            matches!(check(&Points, &history, BUDGET_STEPS), Verdict::Violation(_))
        });
        println!("{plant:?} is caught with seed {caught:?}");
        assert!(caught.is_some(), "seeds from {seed} on: {plant:?} is not caught");
    }
}

/// Promise 9: a fault costs a few seconds, and no wrong answer.
mod bounded {
    use super::*;

    /// Leaders that are killed or cut off; `SAGITTA_FAULTS` runs more.
    const FAULTS: u64 = 16;
    /// Time without an acknowledged write after any of these faults.
    const LONGEST_GAP: Duration = Duration::from_secs(3);
    /// Time for connections that have lost messages to be given up and made anew: the simulated network sends none of them again.
    const REPAIRED: Duration = Duration::from_secs(10);

    #[test]
    fn writes_go_on_within_three_seconds_after_a_leader_is_killed_or_half_cut_off() {
        let (seed, faults) = (seed(), number("SAGITTA_FAULTS", FAULTS));
        let mut world = World::found(seed, SHAPE);
        world.create("points", 1, 3);
        let workload = Workload::new("points", IDS, 50).pausing(10);
        workload.start(&world, CLIENTS);
        let mut gaps = Vec::new();
        for fault in 0..faults {
            let leader = world.leader("points");
            let began = world.now();
            match fault % 3 {
                0 => world.kill(leader),
                1 => world.mute(leader),
                _ => world.deafen(leader),
            }
            workload.wait_for(&mut world, 30);
            let gap = longest(&workload.moments(), began);
            println!("fault {fault}: {:?} without an acknowledged write", gap);
            gaps.push(gap);
            match fault % 3 {
                0 => world.restart(leader),
                _ => world.reconnect(leader),
            }
            workload.wait_for(&mut world, 200);
            world.run_for(REPAIRED);
        }
        let history = workload.stop(&mut world);
        require(&Points, &history, &format!("failovers of seed {seed}"));
        gaps.sort_unstable();
        let longest = gaps.last().expect("there were faults");
        println!("gaps: median {:?}, at most {longest:?}, {:?}", gaps[gaps.len() / 2], world.faults());
        assert_eq!(gaps.len() as u64, faults);
        assert!(*longest <= LONGEST_GAP, "seed {seed}: {longest:?} without a write");
    }

    /// The longest time between two acknowledged writes from a moment on.
    fn longest(moments: &[Duration], from: Duration) -> Duration {
        let after: Vec<_> = std::iter::once(from).chain(moments.iter().copied().filter(|at| *at > from)).collect();
        after.windows(2).map(|pair| pair[1] - pair[0]).max().expect("writes went on")
    }
}
