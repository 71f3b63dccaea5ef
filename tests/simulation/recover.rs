//! Shards that lose most of their replicas for ever go on with what is left, and what comes back of the lost ones is heard by nobody.

use std::collections::BTreeMap;

use sagitta_callers::{contents, name, point, seed};
use sagitta_client::{Client, ClientError};
use sagitta_model::{ErrorKind, Health, NodeChange, NodeStatus, ShardInfo};

use crate::heal::{change, wait_for, wait_for_node};
use crate::world::{CALL, Shape, World, breathe};

const SHAPE: Shape = Shape { coordinators: 3, shards: 5 };
const IDS: u64 = 20;

/// What is written to every point, at once.
fn written(value: u64) -> BTreeMap<u64, u64> {
    (0..IDS).map(|id| (id, value + id)).collect()
}

fn write(world: &mut World, at: usize, value: u64) -> Result<(), ClientError> {
    let client = world.client(at, CALL);
    let points = written(value).into_iter().map(|(id, value)| point(id, value)).collect();
    world.ask(async move { client().upsert(name("points"), points).await }).map(drop)
}

fn read(world: &mut World, at: usize) -> BTreeMap<u64, u64> {
    let client = world.client(at, 6 * CALL);
    world.ask(async move { contents(&client(), "points").await }).expect("read")
}

fn shard(world: &mut World) -> ShardInfo {
    wait_for(world, 0, "points", |_| true).remove(0)
}

/// A cluster with one shard whose three replicas all have what was written, and which nodes have them: the leader first.
fn found(seed: u64) -> (World, [usize; 3]) {
    let mut world = World::found(seed, SHAPE);
    world.create("points", 1, 3);
    write(&mut world, 0, 100).expect("written");
    let leader = world.leader("points");
    wait_for(&mut world, 0, "points", |shard| {
        shard.replicas.iter().all(|replica| replica.told.as_ref().is_some_and(|told| told.lag_entries == Some(0)))
    });
    let nodes: Vec<(usize, u64)> = world.shard_nodes().into_iter().map(|at| (at, world.id(at))).collect();
    let held = shard(&mut world).replicas.into_iter().map(|replica| replica.node);
    let mut held: Vec<usize> =
        held.map(|id| nodes.iter().find(|(_, node)| *node == id).expect("it is one of ours").0).collect();
    held.sort_by_key(|at| *at != leader);
    (world, held.try_into().expect("three"))
}

/// The processes end and do not come back: the cluster notes that they are lost.
fn lose(world: &mut World, nodes: &[usize]) -> Vec<u64> {
    let ids: Vec<u64> = nodes.iter().map(|at| world.id(*at)).collect();
    nodes.iter().for_each(|at| world.kill(*at));
    for id in &ids {
        wait_for_node(world, 0, *id, |node| node.status == NodeStatus::Lost);
    }
    ids
}

async fn recover(client: &Client, shard: u64, epoch: u64) -> Result<u64, ClientError> {
    client.recover_shard(shard, epoch, false).await.map(|recovered| recovered.survivor)
}

/// Has the shard go on with what is left, as soon as all know what is lost.
fn go_on(world: &mut World) -> u64 {
    let (client, env, before) = (world.client(0, CALL), world.client_env(), shard(world));
    world.ask(async move {
        let client = client();
        loop {
            match recover(&client, before.id, before.epoch).await {
                Ok(survivor) => return survivor,
                Err(error) => assert!(error.message.contains("may not know yet"), "{error:?}"),
            }
            breathe(&env, 100).await;
        }
    })
}

/// Waits until the shard has three replicas that work.
fn is_whole(world: &mut World) -> ShardInfo {
    let whole = |shard: &ShardInfo| {
        let wanted = shard.replicas.iter().filter(|replica| replica.wanted).count();
        shard.health == Health::Healthy && wanted == 3
    };
    wait_for(world, 0, "points", whole).remove(0)
}

#[test]
fn a_shard_goes_on_with_what_is_left_and_what_comes_back_of_the_lost_ones_is_heard_by_nobody() {
    for round in 0..3 {
        let (mut world, [leader, other, survivor]) = found(seed() + round);
        // Whoever led goes in two of three rounds.
        let (lost, survivor) = if round == 2 { ([survivor, other], leader) } else { ([leader, other], survivor) };
        let survivor_id = world.id(survivor);
        let before = shard(&mut world);
        let ids = lose(&mut world, &lost);
        let (shard_id, epoch) = (before.id, before.epoch);
        let asked = |world: &mut World| {
            let client = world.client(0, CALL);
            world.ask(async move { recover(&client(), shard_id, epoch).await }).expect_err("refused")
        };
        let refused = asked(&mut world);
        assert_eq!(refused.kind, ErrorKind::Conflict, "{refused:?}");
        assert!(refused.message.contains("--lost-for-ever"), "they may come back: {refused:?}");
        write(&mut world, 0, 200).expect_err("one of three decides nothing");
        let told = shard(&mut world).problems.join("\n");
        assert!(told.contains("sagitta node remove NODE --lost-for-ever"), "{told}");
        change(&mut world, 0, ids[0], NodeChange::GiveUp);
        assert!(asked(&mut world).message.contains(&ids[1].to_string()), "that one may come back");
        change(&mut world, 0, ids[1], NodeChange::GiveUp);
        let told = shard(&mut world).problems.join("\n");
        assert!(told.contains("sagitta shard unsafe-recover points"), "{told}");
        assert_eq!(go_on(&mut world), survivor_id, "seed {}", world.seed);
        let whole = is_whole(&mut world);
        assert!(whole.replicas.iter().any(|replica| replica.node == survivor_id), "{whole:?}");
        assert_eq!(read(&mut world, 0), written(100), "seed {}", world.seed);
        write(&mut world, 0, 300).expect("written");
        comes_back_in_vain(&mut world, &lost);
    }
}

/// The lost nodes come back together, reach each other and those who have replicas now, and learn of nothing at first: they are a majority
/// of the group as they know it.
fn comes_back_in_vain(world: &mut World, lost: &[usize]) {
    let term = |shard: &ShardInfo| {
        let told = shard.replicas.iter().filter(|replica| Some(replica.node) == shard.leader);
        told.filter_map(|replica| replica.told.as_ref()).map(|told| told.term).next()
    };
    let before = is_whole(world);
    for coordinator in world.coordinators() {
        lost.iter().for_each(|at| world.part(*at, coordinator));
    }
    lost.iter().for_each(|at| world.restart(*at));
    world.run_for(8 * CALL);
    assert!(lost.iter().all(|at| world.nodes[*at].replicas() == 1), "they know nothing");
    for at in world.coordinators() {
        assert_eq!(read(world, at), written(300), "seed {}: by coordinator {at}", world.seed);
    }
    write(world, 0, 400).expect("written");
    let after = is_whole(world);
    assert_eq!((term(&after), after.leader), (term(&before), before.leader), "seed {}: nobody listens", world.seed);
    lost.iter().for_each(|at| world.reconnect(*at));
    let mut left = lost.to_vec();
    let machines = world.nodes.clone();
    world.until("the removal of what is not theirs", || {
        left.retain(|at| machines[*at].replicas() > 0);
        left.is_empty()
    });
    for at in world.coordinators() {
        assert_eq!(read(world, at), written(400), "seed {}: by coordinator {at}", world.seed);
    }
    let nodes = world.client(0, CALL);
    let nodes = world.ask(async move { nodes().list_nodes(100, String::new()).await }).expect("listed").nodes;
    assert_eq!(nodes.iter().filter(|node| node.status == NodeStatus::Removed).count(), 2, "they stay removed");
}

#[test]
fn nothing_is_given_for_lost_while_a_coordinator_does_not_know_and_could_go_on_writing_there() {
    let (mut world, [leader, other, survivor]) = found(seed());
    let behind = world.coordinators().into_iter().next_back().expect("there are three");
    let control = world.control_leader();
    let behind = if behind == control { behind - 1 } else { behind };
    let behind_id = world.id(behind);
    let before = shard(&mut world);
    let ids = lose(&mut world, &[leader, other]);
    // It hears of nothing more, and nobody hears it.
    world.isolate(behind);
    for id in ids {
        change(&mut world, 0, id, NodeChange::GiveUp);
    }
    world.run_for(2 * CALL);
    let client = world.client(0, CALL);
    let refused = world.ask(async move { recover(&client(), before.id, before.epoch).await }).expect_err("refused");
    assert!(refused.message.contains("may not know yet"), "{refused:?}");
    assert!(refused.message.contains(&behind_id.to_string()), "{refused:?}");
    world.reconnect(behind);
    assert_eq!(go_on(&mut world), world.id(survivor), "seed {}", world.seed);
    is_whole(&mut world);
    assert_eq!(read(&mut world, behind), written(100), "seed {}", world.seed);
}
