//! A cluster splits what has grown too large by itself, while clients write and read: nothing is lost or seen twice, and it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use sagitta_callers::{name, point, seed};
use sagitta_history::{Points, require, unsettled};
use sagitta_model::{Consistency, ShardInfo, SplitStep, Work};

use crate::heal::{CLIENTS, IDS};
use crate::readers::{self, Readers, STEADY};
use crate::split::shards;
use crate::workload::{Workload, at_rest};
use crate::world::{CALL, Shape, World};

const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };
/// What comes in by and by: with ids after those of the others, and values below those of the steady ones.
const POINTS: u64 = 2_400;
const VALUE: u64 = 700_000;
const BATCH: u64 = 100;
/// Above which shards are split: what some five hundred points take.
const ABOVE: u64 = 24 << 10;
/// Longer than halves are left whole.
const LONG: Duration = Duration::from_secs(400);

/// How many splits are done, and whether anything is under way.
fn splits(world: &mut World) -> (usize, bool) {
    let client = world.client(0, 6 * CALL);
    let all =
        world.ask(async move { client().list_operations(1_000, String::new()).await }).expect("listed").operations;
    let is_done = |work: &Work| matches!(work, Work::Split { step: SplitStep::Done, .. });
    (all.iter().filter(|one| is_done(&one.work)).count(), all.iter().any(|one| !one.work.has_ended()))
}

#[test]
fn a_shard_that_grows_is_split_again_and_again_until_each_is_below_the_limit() {
    let mut world = World::found_to_grow(seed(), SHAPE, ABOVE);
    world.create("points", 1, 3);
    let steady = readers::write(&mut world, "points");
    let readers = Readers::of(&world, &steady, 1_000, &[Consistency::Strong, Consistency::Eventual]);
    let workload = Workload::new("points", IDS, 50).pausing(1_000);
    workload.start(&world, CLIENTS);
    let first = IDS + STEADY;
    let mut most = 0;
    for from in (first..first + POINTS).step_by(BATCH as usize) {
        let coordinators = world.coordinators();
        let at = world.dice.pick(&coordinators);
        let (client, points) = (world.client(at, 12 * CALL), name("points"));
        let batch = (from..from + BATCH).map(|id| point(id, VALUE)).collect();
        let written = world.ask(async move { client().upsert(points, batch).await }).expect("written");
        assert!(written.failures.is_empty(), "seed {}: {:?}", world.seed, written.failures);
        world.run_for(Duration::from_secs(20));
        most = most.max(shards(&mut world).iter().map(|shard| shard.data_bytes).max().unwrap_or(0));
    }
    let is_small = |shard: &ShardInfo| shard.data_bytes <= ABOVE;
    let (mut waited, mut parts) = (0, shards(&mut world));
    while !parts.iter().all(is_small) || splits(&mut world).1 {
        waited += 1;
        assert!(waited < 30, "seed {}: it does not end: {parts:?}", world.seed);
        world.run_for(Duration::from_secs(60));
        parts = shards(&mut world);
    }
    assert!(most > ABOVE && parts.iter().all(|shard| shard.data_bytes > ABOVE / 3), "seed {}: {parts:?}", world.seed);
    world.run_for(LONG);
    assert_eq!(shards(&mut world).len(), parts.len(), "seed {}: it goes on", world.seed);
    let (count, open) = splits(&mut world);
    assert_eq!((count, open), (parts.len() - 1, false), "seed {}", world.seed);
    assert!(parts.len() >= 4, "seed {}: too little happened: {parts:?}", world.seed);
    let looks = readers.stop(&mut world);
    assert!(looks > 1_000, "seed {}: hardly anything was read", world.seed);
    let history = workload.stop(&mut world);
    require(&Points, &history, &format!("points of seed {}", world.seed));
    let mut found = at_rest(&mut world, "points", first + POINTS);
    let grown: BTreeSet<u64> = found.iter().filter(|(_, value)| **value == VALUE).map(|(id, _)| *id).collect();
    assert!(grown.iter().copied().eq(first..first + POINTS), "seed {}: {} came in", world.seed, grown.len());
    let others = found.len() - grown.len();
    found.retain(|id, _| *id < IDS);
    assert_eq!(others - found.len(), STEADY as usize, "seed {}", world.seed);
    assert_eq!(unsettled(&history, &found), [], "seed {}", world.seed);
    println!(
        "seed {}: {} shards, {looks} looks, {:?} of virtual time, errors {:?}",
        world.seed,
        parts.len(),
        world.now(),
        workload.errors()
    );
}
