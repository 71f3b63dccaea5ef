//! A cluster whose nodes come to hold alike by themselves, while clients write and read.

use sagitta_callers::seed;
use sagitta_model::{Health, NodeChange, NodeStatus, OperationInfo, OperationKind, OperationStep, Work};

use crate::heal::{CLIENTS, IDS, change, settle, wait_for, wait_for_node};
use crate::workload::Workload;
use crate::world::{CALL, Shape, World};

const SHAPE: Shape = Shape { coordinators: 3, shards: 3 };

/// The operations that are known, once none is under way.
fn operations(world: &mut World) -> Vec<OperationInfo> {
    let client = world.client(0, 6 * CALL);
    world.ask(async move { client().list_operations(1_000, String::new()).await.expect("listed").operations })
}

#[test]
fn a_node_that_joins_fills_up_unasked_and_is_drained_again_while_clients_write() {
    let mut world = World::found(seed(), SHAPE);
    world.create("points", 4, 3);
    let workload = Workload::new("points", IDS, 50).pausing(200);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 50);
    let new = world.join();
    let old: Vec<usize> = world.shard_nodes().into_iter().filter(|at| *at != new).collect();
    wait_for_up(&mut world, new);
    for at in old.iter().copied().chain([new]) {
        let id = world.id(at);
        wait_for_node(&mut world, 0, id, |node| node.wanted_replicas == 3 && node.hosted_replicas == 3);
    }
    wait_for(&mut world, 0, "points", |shard| shard.health == Health::Healthy);
    workload.wait_for(&mut world, 50);
    let moved = operations(&mut world);
    let id = world.id(new);
    for one in &moved {
        let Work::Replica { kind, step, to, .. } = one.work else { panic!("{one:?}") };
        assert_eq!((kind, step, to), (OperationKind::Rebalance, OperationStep::Done, id), "{one:?}");
    }
    assert_eq!(moved.len(), 3, "seed {}: {moved:?}", world.seed);
    change(&mut world, 0, id, NodeChange::Drain);
    wait_for_node(&mut world, 0, id, |node| node.status == NodeStatus::Drained && node.hosted_replicas == 0);
    wait_for(&mut world, 0, "points", |shard| shard.health == Health::Healthy);
    workload.wait_for(&mut world, 50);
    settle(&mut world, &workload, "points");
}

#[test]
fn a_node_that_was_down_comes_to_lead_as_many_shards_as_the_others_again() {
    let mut world = World::found(seed(), SHAPE);
    world.create("points", 6, 3);
    let workload = Workload::new("points", IDS, 50).pausing(400);
    workload.start(&world, CLIENTS);
    workload.wait_for(&mut world, 20);
    let nodes: Vec<(usize, u64)> = world.shard_nodes().into_iter().map(|at| (at, world.id(at))).collect();
    let (down, id) = nodes[0];
    world.kill(down);
    wait_for(&mut world, 0, "points", move |shard| shard.leader.is_some_and(|leader| leader != id));
    world.restart(down);
    for (_, id) in nodes {
        wait_for_node(&mut world, 0, id, |node| node.status == NodeStatus::Up && node.led_shards == 2);
    }
    workload.wait_for(&mut world, 20);
    assert_eq!(operations(&mut world), [], "nothing is moved for that");
    settle(&mut world, &workload, "points");
}

/// Waits until a node that has just been started is one of the cluster's, and up.
fn wait_for_up(world: &mut World, at: usize) {
    world.wait_complete();
    let id = world.id(at);
    wait_for_node(world, 0, id, |node| node.status == NodeStatus::Up);
}
