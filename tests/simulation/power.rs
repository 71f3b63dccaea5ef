//! Promise 2: what was acknowledged survives power loss.

use std::collections::BTreeMap;
use std::time::Duration;

use sagitta_callers::{number, seed};
use sagitta_consensus::Fault;
use sagitta_history::{Unsettled, unsettled};

use crate::workload::{Workload, at_rest};
use crate::world::{Shape, World};

const IDS: u64 = 200;
/// Power cuts; `SAGITTA_CUTS` runs more.
const CUTS: u64 = 60;
const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };
const WHEN: [Option<Fault>; 4] =
    [None, Some(Fault::PowerBeforeWrite), Some(Fault::PowerBeforeSync), Some(Fault::PowerAfterSync)];

/// Cuts the power of nodes again and again while clients write. What the end says against what they were told.
fn cut(world: &mut World, cuts: u64) -> (u64, Vec<Unsettled>) {
    world.create("points", 2, 3);
    let workload = Workload::new("points", IDS, 0);
    workload.start(world, 6);
    let mut done = 0;
    while done < cuts {
        workload.wait_for(world, 10);
        let pick = |world: &mut World| {
            let nodes = [world.shard_nodes(), world.coordinators()];
            match world.dice.below(8) {
                // The whole house is dark.
                0 => nodes.concat(),
                1 => nodes[0].clone(),
                2 => nodes[1].clone(),
                3 => world.dice.pick(&[&nodes[0][..2], &nodes[0][1..]]).to_vec(),
                _ => vec![world.dice.pick(&nodes[0])],
            }
        };
        let dark = pick(world);
        for at in &dark {
            let (when, kept) = (world.dice.pick(&WHEN), world.dice.below(3) as usize);
            world.cut_power(*at, when, kept);
        }
        done += dark.len() as u64;
        let pause = world.dice.below(1_500);
        world.run_for(Duration::from_millis(pause));
        dark.iter().for_each(|at| world.restart(*at));
    }
    workload.wait_for(world, 10);
    let history = workload.stop(world);
    let found = at_rest(world, "points", IDS);
    println!(
        "seed {}: {} writes acknowledged, {} in doubt, {} points in the end, {:?}, {:?} of virtual time, errors {:?}",
        world.seed,
        workload.acknowledged(),
        history.operations.len() as u64 - workload.acknowledged(),
        found.len(),
        world.faults(),
        world.now(),
        workload.errors(),
    );
    let acknowledged = workload.acknowledged();
    (acknowledged, unsettled(&history, &found))
}

#[test]
fn acknowledged_writes_survive_power_loss() {
    let (seed, cuts) = (seed(), number("SAGITTA_CUTS", CUTS));
    let mut world = World::found(seed, SHAPE);
    let (acknowledged, wrong) = cut(&mut world, cuts);
    assert_eq!(wrong, [], "of {acknowledged} acknowledged writes");
    assert!(world.faults()["power cut"] >= cuts && acknowledged >= 10 * cuts / 6, "too little was tried");
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_caught() {
    let seed = seed();
    let mut world = World::found(seed, SHAPE);
    world.create("points", 2, 3);
    let liars = world.shard_nodes();
    liars.iter().for_each(|at| world.nodes[*at].disk.lie());
    let workload = Workload::new("points", IDS, 0);
    workload.start(&world, 6);
    workload.wait_for(&mut world, 50);
    let dark = world.shard_nodes();
    dark.iter().for_each(|at| world.cut_power(*at, None, 0));
    dark.iter().for_each(|at| world.restart(*at));
    let history = workload.stop(&mut world);
    let found = at_rest(&mut world, "points", IDS);
    let wrong = unsettled(&history, &found);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    wrong.iter().for_each(|wrong| *kinds.entry(format!("{:?}", wrong.fault)).or_default() += 1);
    println!("{} of {} points are caught: {kinds:?}", wrong.len(), found.len());
    assert!(!wrong.is_empty());
}
