//! The scheduler over a cluster that is played: groups follow the steps, nodes come and go.

mod balance;
mod begins;
mod by_hand;
mod halve;
mod leaders;
mod merges;
mod played;
mod recovery;
mod scale;
mod splits;
mod steps;
mod unite;

use std::collections::BTreeSet;
use std::time::Duration;

use self::played::Played;
use super::*;
use crate::node::NodeStatus;
use crate::operation::OperationStep;

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn what_a_lost_node_held_is_made_anew_after_the_grace_period_and_not_before() {
    let mut played = Played::new(1, 5, 5);
    played.create(4, 3);
    played.lose(1);
    played.silent(1, minutes(9));
    assert_eq!(played.plan(), Plan::default(), "it may come back");
    played.silent(1, minutes(11));
    let plan = played.plan();
    let begun = plan.commands.iter().filter(|command| matches!(command, Command::BeginOperation { .. }));
    assert!(begun.clone().count() > 0);
    for command in begun {
        let Command::BeginOperation { kind, from, reason, .. } = command else { continue };
        assert_eq!((*kind, *from), (OperationKind::Repair, Some(1)));
        assert!(reason.contains("node 1 has not been heard of for 11 min"), "{reason}");
    }
    played.run_to_rest();
    assert_eq!(played.placed_on(1), 0);
    assert!(played.state.operations().all(|operation| operation.step == OperationStep::Done));
}

#[test]
fn a_drained_node_holds_nothing_then_and_replicas_stay_in_zones_of_their_own() {
    let mut played = Played::new(1, 6, 3);
    played.create(6, 3);
    played.set(1, NodeStatus::Draining);
    played.run_to_rest();
    assert_eq!((played.placed_on(1), played.hosted_on(1)), (0, 0));
    assert_eq!(played.state.nodes()[&1].status, NodeStatus::Drained);
    for (_, shard) in played.state.shards() {
        let zones: BTreeSet<_> = shard.replicas.iter().map(|node| &played.state.nodes()[node].place.zone).collect();
        assert_eq!(zones.len(), 3, "{:?}", shard.replicas);
    }
}

#[test]
fn no_more_is_under_way_at_once_than_the_limits_say() {
    let mut played = Played::new(1, 6, 6);
    played.create(40, 3);
    played.set(1, NodeStatus::Draining);
    let limits = played.limits;
    let mut most = 0;
    for _ in 0..400 {
        played.step();
        let under_way: Vec<_> = played.state.operations().filter(|one| one.is_under_way()).cloned().collect();
        most = most.max(under_way.iter().filter(|one| one.kind == OperationKind::Drain).count());
        assert!(under_way.len() <= limits.at_once, "{under_way:?}");
        for node in 1..=6 {
            let into = under_way.iter().filter(|one| one.to == node).count();
            let out_of = under_way.iter().filter(|one| one.from == Some(node)).count();
            assert!(into <= limits.per_node && out_of <= limits.per_node, "node {node}: {under_way:?}");
        }
    }
    assert_eq!(most, limits.per_node, "one node is drained by so many at once");
    assert_eq!(played.placed_on(1), 0);
}

#[test]
fn what_cannot_be_done_is_told_with_the_reason() {
    let mut played = Played::new(1, 3, 1);
    played.create(1, 3);
    played.set(2, NodeStatus::Draining);
    let told = |played: &Played| played.plan().waiting.first().map(|(_, why)| why.clone()).unwrap_or_default();
    assert_eq!(told(&played), "node 2 is being drained; no other node takes replicas: add one");
    played.join(4, "");
    played.shortage(4, true);
    assert!(told(&played).ends_with("silent or short of room"), "{}", told(&played));
    played.shortage(4, false);
    played.mute_leaders(true);
    assert!(told(&played).contains("it has no leader"), "{}", told(&played));
    played.mute_leaders(false);
    assert_eq!(told(&played), "");
    played.run_to_rest();
    assert_eq!(played.placed_on(2), 0);
}

#[test]
fn a_cancelled_operation_leaves_all_as_it_was() {
    let mut played = Played::new(1, 4, 1);
    played.create(1, 3);
    let before = played.state.shards().next().expect("there is one").1.clone();
    let from = before.replicas[0];
    played.set(from, NodeStatus::Draining);
    while played.state.operations().all(|one| one.step == OperationStep::Join) {
        played.step();
    }
    let id = played.state.operations().next().expect("begun").id;
    played.apply(Command::CancelOperation { id });
    played.set(from, NodeStatus::Up);
    played.run_to_rest();
    let operation = played.state.operation(id).expect("still known");
    assert_eq!((operation.step, operation.ended_unix_micros.is_some()), (OperationStep::Cancelled, true));
    let after = played.state.shards().next().expect("there is one").1;
    assert_eq!((&after.replicas, after.epoch), (&before.replicas, before.epoch));
    assert_eq!(played.hosted_on(operation.to), 0);
}

#[test]
fn a_replica_that_comes_back_is_told_where_the_log_stood_when_it_left() {
    let mut played = Played::new(1, 4, 1);
    played.create(1, 3);
    let node = played.state.shards().next().expect("there is one").1.replicas[0];
    played.set(node, NodeStatus::Draining);
    played.run_to_rest();
    let shard = played.state.shards().next().expect("there is one").1.clone();
    let floor = shard.left[&node];
    assert!(floor.index > 0 && floor.term > 0, "{floor:?}");
    assert!(shard.founders.contains(&node), "it would found the group anew");
    played.set(node, NodeStatus::Up);
    let other = shard.replicas[0];
    played.set(other, NodeStatus::Draining);
    played.run_to_rest();
    let shard = played.state.shards().next().expect("there is one").1;
    assert!(shard.replicas.contains(&node) && shard.left[&node] == floor);
}

/// Whatever nodes do meanwhile: no group loses what it has acknowledged by what the scheduler does, and in the end all is where it should be.
#[test]
fn whatever_happens_meanwhile_no_last_good_copy_goes_and_all_ends_well() {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut ended = 0;
    for seed in first..first + 150 {
        let mut played = Played::new(seed, 7, 3);
        played.create(6, 3);
        played.create(2, 1);
        for _ in 0..120 {
            played.trouble();
            played.step();
        }
        played.end_trouble();
        played.run_to_rest();
        ended += played.state.operations().filter(|one| one.step == OperationStep::Done).count();
        for (collection, shard) in played.state.shards() {
            assert_eq!(shard.replicas.len(), collection.replication as usize, "seed {seed}");
            let up = |node: &u64| played.state.nodes()[node].status == NodeStatus::Up;
            assert!(shard.replicas.iter().all(up), "seed {seed}: {:?}", shard.replicas);
            let members = GroupMembers { voters: shard.replicas.clone(), learners: Vec::new() };
            assert_eq!(*played.members(shard.id), members, "seed {seed}");
        }
    }
    println!("seeds {first} to {}: {ended} operations done", first + 149);
    assert!(ended > 300, "too little happened: {ended}");
}
