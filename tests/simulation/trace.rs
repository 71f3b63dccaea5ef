//! Promise 6: the same seed gives the same run, to the last byte on the network.

use std::time::Duration;

use crate::dice::{number, seed};
use crate::network::Digest;
use crate::trouble::Trouble;
use crate::workload::{Workload, at_rest};
use crate::world::{Shape, World};

/// Seeds; `SAGITTA_SEEDS` runs more.
const SEEDS: u64 = 10;

/// A cluster with clients and faults, and all that was sent in it.
fn run(seed: u64) -> Digest {
    let shapes = [(1, 1), (1, 2), (3, 1), (3, 3)];
    let (coordinators, shards) = shapes[(seed % shapes.len() as u64) as usize];
    let mut world = World::found(seed, Shape { coordinators, shards });
    world.create("points", 2, shards as u32);
    let workload = Workload::new("points", 20, 50);
    workload.start(&world, 3);
    let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
    (0..3).for_each(|_| trouble.stir(&mut world));
    trouble.end(&mut world);
    world.run_for(Duration::from_secs(2));
    workload.stop(&mut world);
    at_rest(&mut world, "points", 20);
    world.digest()
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio draws from no seed: run `make simulate`")]
fn the_same_seed_sends_the_same_bytes_at_the_same_times() {
    let (first, seeds) = (seed(), number("SAGITTA_SEEDS", SEEDS));
    let (mut same, mut messages, mut bytes) = (0, 0, 0);
    let mut all = Vec::new();
    for seed in first..first + seeds {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one, other, "seed {seed} gives two different runs");
        (same, messages, bytes) = (same + 1, messages + one.messages, bytes + one.bytes);
        all.push(one.hash);
    }
    all.sort_unstable();
    all.dedup();
    println!("{same} seeds, each run twice: {messages} messages, {bytes} bytes, {} different runs", all.len());
    assert_eq!((same, all.len() as u64), (seeds, seeds), "different seeds give different runs");
}
