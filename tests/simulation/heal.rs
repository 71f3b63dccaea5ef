//! A cluster that runs itself: what a lost node held is made anew elsewhere, what is drained is moved away, and nothing is lost on the way.

use std::time::Duration;

use sagitta_callers::{name, seed};
use sagitta_client::ListShards;
use sagitta_history::{Points, require, unsettled};
use sagitta_model::{Health, NodeChange, NodeInfo, NodeStatus, OperationStep, ShardInfo};

use crate::disk::Disk;
use crate::workload::{Workload, at_rest};
use crate::world::{CALL, Shape, World, breathe};

pub(crate) const IDS: u64 = 24;
pub(crate) const CLIENTS: u64 = 6;
const SHAPE: Shape = Shape { coordinators: 3, shards: 4 };
/// Shorter than a node is silent before it is called lost.
const REPAIR_AFTER: Duration = Duration::from_secs(20);

fn found(seed: u64) -> World {
    World::found_with(seed, SHAPE, |_| Disk::honest(), REPAIR_AFTER)
}

/// Waits until the shards of a collection are as they should be by what one coordinator says.
pub(crate) fn wait_for(
    world: &mut World,
    at: usize,
    collection: &str,
    be: impl Fn(&ShardInfo) -> bool + 'static,
) -> Vec<ShardInfo> {
    let list = ListShards { collection: Some(name(collection)), node: None };
    let (client, env) = (world.client(at, CALL), world.client_env());
    world.ask(async move {
        let client = client();
        loop {
            if let Ok(page) = client.list_shards(list.clone(), 100, String::new()).await
                && page.shards.iter().all(&be)
            {
                return page.shards;
            }
            breathe(&env, 200).await;
        }
    })
}

/// Whether a shard has three replicas that work, none of which is on this node, and which holds none.
fn is_whole_without(node: u64) -> impl Fn(&ShardInfo) -> bool {
    move |shard| {
        let wanted = shard.replicas.iter().filter(|replica| replica.wanted).count();
        shard.health == Health::Healthy
            && wanted == 3
            && shard.replicas.iter().all(|replica| replica.node != node || !replica.wanted)
    }
}

/// Ends the clients, and holds what they were told against what is there.
pub(crate) fn settle(world: &mut World, workload: &Workload, collection: &str) {
    let history = workload.stop(world);
    require(&Points, &history, &format!("{collection} of seed {}", world.seed));
    let found = at_rest(world, collection, IDS);
    assert_eq!(unsettled(&history, &found), [], "seed {}", world.seed);
    let (acknowledged, errors) = (workload.acknowledged(), workload.errors());
    println!("seed {}: {acknowledged} writes, {:?} of virtual time, errors {errors:?}", world.seed, world.now());
}

#[test]
fn what_a_lost_node_held_is_made_anew_on_another_and_nothing_is_lost() {
    let mut world = found(seed());
    world.create("points", 2, 3);
    let workload = Workload::new("points", IDS, 50).pausing(200);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 50);
    let lost = world.leader("points");
    let id = world.id(lost);
    world.kill(lost);
    let shards = wait_for(&mut world, 0, "points", is_whole_without(id));
    assert!(shards.iter().all(|shard| shard.epoch <= 2), "moved more than once: {shards:?}");
    workload.wait_for(&mut world, 50);
    settle(&mut world, &workload, "points");
}

/// Has a node drained by what one coordinator says, and waits until it holds nothing.
fn drain(world: &mut World, at: usize, node: u64) {
    change(world, at, node, NodeChange::Drain);
    wait_for_node(world, at, node, |node| node.status == NodeStatus::Drained && node.hosted_replicas == 0);
}

pub(crate) fn change(world: &mut World, at: usize, node: u64, change: NodeChange) {
    let client = world.client(at, 6 * CALL);
    world.ask(async move { client().change_node(node, change, false).await }).expect("decided");
}

pub(crate) fn wait_for_node(world: &mut World, at: usize, id: u64, be: impl Fn(&NodeInfo) -> bool + 'static) {
    let (client, env) = (world.client(at, CALL), world.client_env());
    world.ask(async move {
        let client = client();
        while !client.get_node(id).await.is_ok_and(|node| be(&node)) {
            breathe(&env, 200).await;
        }
    });
}

#[test]
fn a_drained_node_holds_no_replica_and_can_be_removed() {
    let mut world = found(seed());
    world.create("points", 2, 3);
    let workload = Workload::new("points", IDS, 50).pausing(200);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 50);
    let leader = world.leader("points");
    let id = world.id(leader);
    let early = world.client(0, CALL);
    let refused = world.ask(async move { early().change_node(id, NodeChange::Remove, false).await });
    let refused = refused.expect_err("it holds replicas").to_string();
    assert!(refused.contains("drain it first"), "{refused}");
    let dry = world.client(0, CALL);
    let dry = world.ask(async move { dry().change_node(id, NodeChange::Drain, true).await }).expect("told");
    assert!(!dry.follows.is_empty() && dry.follows.iter().all(|line| line.contains("is being drained")), "{dry:?}");
    drain(&mut world, 0, id);
    wait_for(&mut world, 0, "points", is_whole_without(id));
    change(&mut world, 0, id, NodeChange::Remove);
    workload.wait_for(&mut world, 50);
    settle(&mut world, &workload, "points");
}

/// Promise 8: it has forgotten how it voted, so it must not found its group anew, and is a member like any other in the end.
#[test]
fn a_replica_that_was_moved_away_and_back_joins_its_group_and_is_needed_there() {
    let mut world = found(seed());
    world.create("points", 1, 3);
    let workload = Workload::new("points", IDS, 50).pausing(100);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 50);
    let back = world.leader("points");
    let back_id = world.id(back);
    drain(&mut world, 0, back_id);
    change(&mut world, 0, back_id, NodeChange::Undrain);
    let other = world.leader("points");
    let other_id = world.id(other);
    drain(&mut world, 0, other_id);
    wait_for(&mut world, 0, "points", is_whole_without(other_id));
    // Of the three that are left one goes, so that the one that came back is needed for every decision.
    let third = world.shard_nodes().into_iter().find(|at| ![back, other].contains(at)).expect("there are four");
    world.kill(third);
    workload.wait_for(&mut world, 50);
    world.restart(third);
    settle(&mut world, &workload, "points");
}

/// Nothing else has what it holds, so it must not go before the other one decides; and a founder of a group of one needs nobody's vote, so
/// that it could begin anew where it comes back.
#[test]
fn the_only_replica_moves_away_and_back_and_nothing_is_lost() {
    let mut world = found(seed());
    world.create("points", 1, 1);
    let workload = Workload::new("points", IDS, 50).pausing(100);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 50);
    let home = world.leader("points");
    let mut others = world.shard_nodes();
    others.retain(|at| *at != home);
    let away = others.pop().expect("there are four");
    for other in others {
        let id = world.id(other);
        drain(&mut world, 0, id);
    }
    for (from, to) in [(home, away), (away, home)] {
        let id = world.id(from);
        drain(&mut world, 0, id);
        assert_eq!(world.leader("points"), to, "seed {}", world.seed);
        change(&mut world, 0, id, NodeChange::Undrain);
        workload.wait_for(&mut world, 50);
    }
    settle(&mut world, &workload, "points");
}

/// The leader of the control group is killed at each step, once the step is agreed on.
#[test]
fn an_operation_goes_on_wherever_the_control_leader_is_killed() {
    use OperationStep::{CatchUp, Drop, Join, Switch, Undo};
    for (round, step) in [Join, CatchUp, Switch, Drop, Undo].into_iter().enumerate() {
        let mut world = found(seed() + round as u64);
        world.create("points", 1, 3);
        let workload = Workload::new("points", IDS, 50).pausing(200);
        workload.start(&world, CLIENTS);
        workload.wait_for(&mut world, 20);
        let node = world.leader("points");
        let id = world.id(node);
        let leader = world.control_leader();
        let other = world.coordinators().into_iter().find(|at| *at != leader).expect("there are three");
        change(&mut world, other, id, NodeChange::Drain);
        let operation = reach(&mut world, other, step);
        world.kill(leader);
        println!("seed {}: the control leader is killed at the step {step} of operation {operation}", world.seed);
        if step == Undo {
            change(&mut world, other, id, NodeChange::Undrain);
            wait_for(&mut world, other, "points", |shard| shard.health == Health::Healthy && shard.epoch == 1);
        } else {
            wait_for_node(&mut world, other, id, |node| {
                node.status == NodeStatus::Drained && node.hosted_replicas == 0
            });
            wait_for(&mut world, other, "points", is_whole_without(id));
        }
        let client = world.client(other, 6 * CALL);
        let ended = world.ask(async move { client().get_operation(operation).await }).expect("still known");
        let expected = if step == Undo { OperationStep::Cancelled } else { OperationStep::Done };
        assert_eq!(ended.work.step(), expected.name(), "seed {}: {ended:?}", world.seed);
        world.restart(leader);
        workload.wait_for(&mut world, 20);
        settle(&mut world, &workload, "points");
    }
}

/// Waits until an operation is at a step; cancels it where that is how one comes there.
fn reach(world: &mut World, at: usize, step: OperationStep) -> u64 {
    let (client, env) = (world.client(at, 6 * CALL), world.client_env());
    world.ask(async move {
        let client = client();
        loop {
            let page = client.list_operations(10, String::new()).await.expect("listed");
            if let Some(operation) = page.operations.first() {
                if operation.work.step() == step.name() {
                    return operation.id;
                }
                if step == OperationStep::Undo && !operation.cancelled {
                    client.cancel_operation(operation.id, false).await.expect("it has just begun");
                }
                assert!(!operation.work.has_ended(), "the step {step} was missed: {operation:?}");
            }
            breathe(&env, 20).await;
        }
    })
}
