//! Promise 6: the same seed gives the same run, to the last byte on the network.

use std::process::Command;
use std::time::Duration;

use crate::network::Digest;
use crate::trouble::Trouble;
use crate::workload::{Workload, at_rest};
use crate::world::{Shape, World};
use sagitta_callers::{number, seed};

/// Seeds; `SAGITTA_SEEDS` runs more.
const SEEDS: u64 = 200;
/// Seeds that another process runs once more.
const ELSEWHERE: u64 = 8;
/// Has the test of two processes run one seed and say what it sent.
const THIS_SEED: &str = "SAGITTA_TRACED_SEED";
const FAULTS: u64 = 2;
/// Long enough for what a fault left behind to happen.
const CALM: Duration = Duration::from_millis(500);

/// A cluster with clients and faults, and all that was sent in it.
fn run(seed: u64) -> Digest {
    let shapes = [(1, 1), (1, 2), (3, 1), (3, 3)];
    let (coordinators, shards) = shapes[(seed % shapes.len() as u64) as usize];
    let mut world = World::found(seed, Shape { coordinators, shards });
    world.create("points", 2, shards as u32);
    let workload = Workload::new("points", 20, 50);
    workload.start(&world, 3);
    let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
    (0..FAULTS).for_each(|_| {
        // Begins it, and ends it.
        trouble.stir(&mut world);
        trouble.stir(&mut world);
    });
    trouble.end(&mut world);
    world.run_for(CALM);
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

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "tokio draws from no seed: run `make simulate`")]
fn another_process_sends_the_same_bytes_at_the_same_times() {
    let first = seed();
    let said = |seed: u64, digest: &Digest| format!("seed {seed} sends {digest:?}");
    if let Ok(seed) = std::env::var(THIS_SEED) {
        let seed = seed.parse().expect("a number");
        println!("{}", said(seed, &run(seed)));
        return;
    }
    for seed in first..first + ELSEWHERE {
        // The other process has run nothing before this seed.
        let test = ["--exact", "trace::another_process_sends_the_same_bytes_at_the_same_times", "--nocapture"];
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program).args(test).env(THIS_SEED, seed.to_string()).output().expect("it runs");
        let (here, there) = (said(seed, &run(seed)), String::from_utf8_lossy(&output.stdout).into_owned());
        assert!(output.status.success() && there.contains(&here), "here {here}, there {there}");
        println!("{here}, in another process, too");
    }
}
