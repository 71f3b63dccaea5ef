//! Shards are merged under faults of all kinds: what was acknowledged stays, and no read shows a point twice or not at all.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{name, number, seed};
use sagitta_client::{Client, ListShards};
use sagitta_history::{Points, require, unsettled};
use sagitta_model::OperationInfo;

use crate::heal::{CLIENTS, IDS};
use crate::readers::{Readers, written_at_rest};
use crate::split::wait_for_shards;
use crate::trouble::Trouble;
use crate::workload::Workload;
use crate::world::{CALL, Shape, World, breathe};

/// Merges; `SAGITTA_MERGES` runs more.
const MERGES: u64 = 8;
/// Of one world, at most: it begins with one shard more.
const EACH: u64 = 4;
const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };

/// Asks once for two neighbours to be merged; the operation, if it was begun.
async fn ask_for_one(client: &Client, draw: u64) -> Option<u64> {
    let list = ListShards { collection: Some(name("points")), node: None };
    let mut shards = client.list_shards(list, 100, String::new()).await.ok()?.shards;
    shards.sort_by_key(|shard| shard.first_hash);
    let pairs = shards.len().checked_sub(1).filter(|pairs| *pairs > 0)?;
    let at = draw as usize % pairs;
    let [left, right] = [&shards[at], &shards[at + 1]].map(|shard| (shard.id, shard.epoch));
    // What is refused since a replica is not well is asked again.
    client.merge_shards(left, right, false).await.ok()?.operation.map(|operation| operation.id)
}

/// Asks for a merge until one is done that was not `before`, and lets faults go on until then. Says how many were given up before.
fn merge_in_trouble(
    world: &mut World,
    trouble: &mut Trouble,
    draw: u64,
    before: &BTreeSet<u64>,
) -> (OperationInfo, u64) {
    let (ended, cancelled) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
    let (told, given_up, env) = (ended.clone(), cancelled.clone(), world.client_env());
    let makers: Vec<_> = world.coordinators().into_iter().map(|at| world.client(at, CALL)).collect();
    let before = before.clone();
    world.spawn(async move {
        let clients: Vec<_> = makers.iter().map(|make| make()).collect();
        let mut begun: Option<u64> = None;
        for client in clients.iter().cycle() {
            breathe(&env, 50).await;
            if begun.is_none() {
                // A coordinator whose list lags has one asked for that is done, and is told of that.
                begun = ask_for_one(client, draw).await.filter(|id| !before.contains(id));
            }
            let Some(id) = begun else { continue };
            match client.get_operation(id).await {
                // A node was lost, or it took too long.
                Ok(operation) if operation.work.step() == "cancelled" => {
                    given_up.set(given_up.get() + 1);
                    begun = None;
                }
                Ok(operation) if operation.work.has_ended() => {
                    told.set(Some(operation));
                    return;
                }
                _ => {}
            }
        }
    });
    for _ in 0..40 {
        trouble.stir(world);
        if let Some(operation) = ended.take() {
            return (operation, cancelled.get());
        }
    }
    trouble.end(world);
    world.until("the end of a merge", || {
        let operation = ended.take();
        let is_there = operation.is_some();
        ended.set(operation);
        is_there
    });
    (ended.take().expect("it is there"), cancelled.get())
}

#[test]
fn points_are_linearizable_and_seen_once_while_shards_are_merged_in_trouble() {
    let (first, merges) = (seed(), number("SAGITTA_MERGES", MERGES));
    let (mut done, mut seed) = (0, first);
    while done < merges {
        let mut world = World::found(seed, SHAPE);
        let each = EACH.min(merges - done);
        world.create("points", each as u32 + 1, 3);
        let readers = Readers::start(&mut world, "points");
        let workload = Workload::new("points", IDS, 50).pausing(50);
        workload.start(&world, CLIENTS);
        workload.wait_for(&mut world, 20);
        let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
        let mut before = BTreeSet::new();
        for _ in 0..each {
            let draw = world.dice.below(1_000);
            let (operation, given_up) = merge_in_trouble(&mut world, &mut trouble, draw, &before);
            before.insert(operation.id);
            println!("seed {seed}: shard {} {:?}, {given_up} were given up before", operation.shard, operation.work);
            workload.wait_for(&mut world, 10);
            done += 1;
        }
        trouble.end(&mut world);
        workload.wait_for(&mut world, 20);
        let looks = readers.stop(&mut world);
        let history = workload.stop(&mut world);
        require(&Points, &history, &format!("points of seed {seed}"));
        let found = written_at_rest(&mut world);
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
        wait_for_shards(&mut world, 1);
        let (acknowledged, errors) = (workload.acknowledged(), workload.errors());
        println!(
            "seed {seed}: {acknowledged} writes, {looks} looks, {:?}, {:?} of virtual time, errors {errors:?}",
            world.faults(),
            world.now()
        );
        assert!(looks > 50, "seed {seed}: hardly anything was read");
        seed += 1;
    }
}

/// A merge of little data takes about as long as its messages, so whoever is killed is killed in the middle of it.
#[test]
fn a_merge_is_done_or_given_up_whoever_is_killed_at_any_moment_of_it() {
    let (first, merges) = (seed(), number("SAGITTA_MERGES", MERGES));
    let mut steps = BTreeMap::<String, u64>::new();
    for round in 0..merges.div_ceil(EACH) {
        let seed = first + round;
        let mut world = World::found(seed, SHAPE);
        world.create("points", EACH as u32 + 1, 3);
        let readers = Readers::start(&mut world, "points");
        let workload = Workload::new("points", IDS, 50).pausing(50);
        workload.start(&world, CLIENTS);
        workload.wait_for(&mut world, 20);
        let mut left = EACH + 1;
        for _ in 0..EACH {
            // Where nobody is killed, which answers.
            let (control, leader) = (world.control_leader(), world.leader("points"));
            let killed = match world.dice.below(3) {
                0 => control,
                1 => leader,
                _ => {
                    let all = [world.shard_nodes(), world.coordinators()].concat();
                    world.dice.pick(&all)
                }
            };
            let asked = world.coordinators().into_iter().find(|at| *at != killed).expect("there are three");
            let (client, env, draw) = (world.client(asked, CALL), world.client_env(), world.dice.below(1_000));
            let operation = world.ask(async move {
                let client = client();
                loop {
                    if let Some(begun) = ask_for_one(&client, draw).await {
                        return begun;
                    }
                    breathe(&env, 50).await;
                }
            });
            let after = world.dice.below(2_500);
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
            left -= u64::from(ended == "done");
            workload.wait_for(&mut world, 10);
        }
        let looks = readers.stop(&mut world);
        let history = workload.stop(&mut world);
        require(&Points, &history, &format!("points of seed {seed}"));
        let found = written_at_rest(&mut world);
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
        wait_for_shards(&mut world, left);
        println!("seed {seed}: {looks} looks, {left} shards, {:?} of virtual time, killed at {steps:?}", world.now());
    }
    assert!(steps.keys().any(|step| step != "done"), "nobody was killed in the middle: {steps:?}");
}
