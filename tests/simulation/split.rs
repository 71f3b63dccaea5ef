//! Shards are split under faults of all kinds: what was acknowledged stays, and no read shows a point twice or not at all.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{name, number, seed};
use sagitta_client::ListShards;
use sagitta_history::{Points, require, unsettled};
use sagitta_model::{OperationInfo, ShardInfo};

use crate::heal::{CLIENTS, IDS};
use crate::readers::{Readers, written_at_rest};
use crate::trouble::Trouble;
use crate::workload::Workload;
use crate::world::{CALL, Shape, World, breathe};

/// Splits under trouble; `SAGITTA_SPLITS` runs more.
const SPLITS: u64 = 12;
/// Of one world.
const EACH: u64 = 4;
const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };

pub(crate) fn shards(world: &mut World) -> Vec<ShardInfo> {
    let list = ListShards { collection: Some(name("points")), node: None };
    let client = world.client(0, 12 * CALL);
    world.ask(async move { client().list_shards(list, 100, String::new()).await }).expect("listed").shards
}

/// Asks for a split of one of the shards until it is begun, and lets faults go on until it is done.
fn split_in_trouble(world: &mut World, trouble: &mut Trouble, draw: u64) -> OperationInfo {
    let ended = Rc::new(Cell::new(None));
    let (told, env) = (ended.clone(), world.client_env());
    let makers: Vec<_> = world.coordinators().into_iter().map(|at| world.client(at, CALL)).collect();
    world.spawn(async move {
        let clients: Vec<_> = makers.iter().map(|make| make()).collect();
        let list = ListShards { collection: Some(name("points")), node: None };
        let mut begun: Option<u64> = None;
        for client in clients.iter().cycle() {
            breathe(&env, 50).await;
            if begun.is_none() {
                let Ok(page) = client.list_shards(list.clone(), 100, String::new()).await else { continue };
                let shard = &page.shards[draw as usize % page.shards.len()];
                // What is refused since a replica is not well is asked again.
                let Ok(split) = client.split_shard(shard.id, shard.epoch, false).await else { continue };
                begun = split.operation.map(|operation| operation.id);
            }
            let Some(id) = begun else { continue };
            match client.get_operation(id).await {
                // A node was lost: it was not begun.
                Ok(operation) if operation.work.step() == "cancelled" => begun = None,
                Ok(operation) if operation.work.has_ended() => {
                    told.set(Some(operation));
                    return;
                }
                _ => {}
            }
        }
    });
    for _ in 0..200 {
        trouble.stir(world);
        if let Some(operation) = ended.take() {
            return operation;
        }
    }
    trouble.end(world);
    world.until("the end of a split", || {
        let operation = ended.take();
        let is_there = operation.is_some();
        ended.set(operation);
        is_there
    });
    ended.take().expect("it is there")
}

#[test]
fn points_are_linearizable_and_seen_once_while_shards_are_split_in_trouble() {
    let (first, splits) = (seed(), number("SAGITTA_SPLITS", SPLITS));
    let (mut done, mut seed) = (0, first);
    while done < splits {
        let mut world = World::found(seed, SHAPE);
        world.create("points", 1, 3);
        let readers = Readers::start(&mut world, "points");
        let workload = Workload::new("points", IDS, 50).pausing(50);
        workload.start(&world, CLIENTS);
        workload.wait_for(&mut world, 20);
        let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
        for _ in 0..EACH.min(splits - done) {
            let draw = world.dice.below(1_000);
            let operation = split_in_trouble(&mut world, &mut trouble, draw);
            let took =
                operation.ended_unix_micros.map(|ended| ended.saturating_sub(operation.begun_unix_micros) / 1_000);
            println!("seed {seed}: shard {} {:?} in {took:?} ms by jumping clocks", operation.shard, operation.work);
            workload.wait_for(&mut world, 10);
            done += 1;
        }
        trouble.end(&mut world);
        workload.wait_for(&mut world, 20);
        let looks = readers.stop(&mut world);
        let parts = shards(&mut world).len();
        let history = workload.stop(&mut world);
        require(&Points, &history, &format!("points of seed {seed}"));
        let found = written_at_rest(&mut world);
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
        let (acknowledged, errors) = (workload.acknowledged(), workload.errors());
        println!(
            "seed {seed}: {parts} shards, {acknowledged} writes, {looks} looks, {:?}, {:?} of virtual time, errors {errors:?}",
            world.faults(),
            world.now()
        );
        assert!(looks > 50, "seed {seed}: hardly anything was read");
        seed += 1;
    }
}

/// Waits until the first coordinator lists so many shards: it may have learned of the last split after the one that was
/// asked.
pub(crate) fn wait_for_shards(world: &mut World, count: u64) {
    let (client, env) = (world.client(0, CALL), world.client_env());
    world.ask(async move {
        let client = client();
        let list = ListShards { collection: Some(name("points")), node: None };
        loop {
            match client.list_shards(list.clone(), 100, String::new()).await {
                Ok(page) if page.shards.len() as u64 == count => return,
                _ => breathe(&env, 50).await,
            }
        }
    });
}

/// Asks for a split of the last shard, once it is well; says which operation that is. Lists may lag behind: a shard of an
/// epoch that a split `before` has ended is answered with that split.
fn begin(world: &mut World, at: usize, before: &BTreeSet<u64>) -> u64 {
    let (client, env, before) = (world.client(at, CALL), world.client_env(), before.clone());
    world.ask(async move {
        let client = client();
        let list = ListShards { collection: Some(name("points")), node: None };
        loop {
            if let Ok(page) = client.list_shards(list.clone(), 100, String::new()).await
                && let Some(shard) = page.shards.last()
                && let Ok(split) = client.split_shard(shard.id, shard.epoch, false).await
                && let Some(operation) = split.operation
                && !before.contains(&operation.id)
            {
                return operation.id;
            }
            breathe(&env, 50).await;
        }
    })
}

/// Nothing of a split takes longer than a network's messages, so whoever is killed is killed in the middle of it.
#[test]
fn a_split_goes_on_whoever_is_killed_at_any_moment_of_it() {
    let (first, splits) = (seed(), number("SAGITTA_SPLITS", SPLITS));
    let mut steps = BTreeMap::<String, u64>::new();
    for round in 0..splits.div_ceil(EACH) {
        let seed = first + round;
        let mut world = World::found(seed, SHAPE);
        world.create("points", 1, 3);
        let readers = Readers::start(&mut world, "points");
        let workload = Workload::new("points", IDS, 50).pausing(50);
        workload.start(&world, CLIENTS);
        workload.wait_for(&mut world, 20);
        let mut begun = BTreeSet::new();
        for _ in 0..EACH {
            // Where nobody is killed, which answers.
            let control = world.control_leader();
            let leader = world.leader("points");
            let killed = match world.dice.below(3) {
                0 => control,
                1 => leader,
                _ => {
                    let all = [world.shard_nodes(), world.coordinators()].concat();
                    world.dice.pick(&all)
                }
            };
            let asked = world.coordinators().into_iter().find(|at| *at != killed).expect("there are three");
            let operation = begin(&mut world, asked, &begun);
            begun.insert(operation);
            let after = world.dice.below(120);
            world.run_for(Duration::from_millis(after));
            world.kill(killed);
            let client = world.client(asked, 12 * CALL);
            let step = world.ask(async move { client().get_operation(operation).await }).expect("known").work.step();
            *steps.entry(step.to_owned()).or_default() += 1;
            workload.wait_for(&mut world, 10);
            world.restart(killed);
            let (client, env) = (world.client(asked, CALL), world.client_env());
            let ended = world.ask(async move {
                let client = client();
                loop {
                    match client.get_operation(operation).await {
                        Ok(operation) if operation.work.has_ended() => return operation.work.step(),
                        _ => breathe(&env, 50).await,
                    }
                }
            });
            assert_eq!(ended, "done", "seed {seed}: node {killed} was killed at {step}");
            workload.wait_for(&mut world, 10);
        }
        let looks = readers.stop(&mut world);
        let history = workload.stop(&mut world);
        require(&Points, &history, &format!("points of seed {seed}"));
        let found = written_at_rest(&mut world);
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
        wait_for_shards(&mut world, 1 + EACH);
        println!("seed {seed}: {looks} looks, {:?} of virtual time, killed at {steps:?}", world.now());
    }
    assert!(steps.keys().any(|step| step != "done"), "nobody was killed in the middle: {steps:?}");
}
