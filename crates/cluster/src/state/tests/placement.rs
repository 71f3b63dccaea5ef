//! Where replicas go.

use std::collections::BTreeMap;

use super::*;
use crate::limits;

fn loads(state: &State) -> BTreeMap<u64, usize> {
    let mut loads: BTreeMap<u64, usize> = state.nodes().keys().map(|id| (*id, 0)).collect();
    for node in state.shards().flat_map(|(_, shard)| &shard.replicas) {
        *loads.entry(*node).or_default() += 1;
    }
    loads
}

#[test]
fn equal_nodes_get_as_many_replicas_to_within_one() {
    for (nodes, zones) in [(1, 1), (5, 1), (6, 3), (9, 3), (8, 2), (12, 4), (7, 7)] {
        for replication in 1..=nodes.min(7) as u32 {
            let mut state = cluster(nodes, zones);
            for (request, shards) in [1, 3, 1, 7, 2, 64].into_iter().enumerate() {
                let name = format!("c{request}");
                apply(&mut state, create_replicated(request as u128, &name, shards, replication)).expect("created");
                let loads = loads(&state);
                let (least, most) = (loads.values().min(), loads.values().max());
                let within = most.expect("nodes") - least.expect("nodes") <= 1;
                assert!(within, "{nodes} nodes in {zones} zones, replication {replication}: {loads:?}");
            }
        }
    }
}

#[test]
fn what_was_deleted_leaves_room_that_is_filled_first() {
    let mut state = cluster(4, 1);
    apply(&mut state, create_replicated(1, "a", 2, 2)).expect("created");
    apply(&mut state, status(4, NodeStatus::Lost)).expect("lost");
    apply(&mut state, create_replicated(2, "b", 6, 1)).expect("created");
    apply(&mut state, status(4, NodeStatus::Up)).expect("back");
    let before = loads(&state);
    assert!(before[&4] < before[&1], "{before:?}");
    apply(&mut state, create_replicated(3, "c", 2, 1)).expect("created");
    assert_eq!(loads(&state)[&4], before[&4] + 2, "the emptiest node comes first");
}

#[test]
fn a_small_zone_is_not_filled_before_the_others() {
    // One node in zone z0, three in z1: with one replica a shard nothing has to be spread.
    let mut state = State::new(1);
    for id in 1..=4 {
        apply(&mut state, join(id, place(id, if id == 1 { "z0" } else { "z1" }))).expect("joined");
        apply(&mut state, status(id, NodeStatus::Up)).expect("up");
    }
    apply(&mut state, create_replicated(1, "a", 40, 1)).expect("created");
    assert!(loads(&state).values().all(|load| *load == 10), "{:?}", loads(&state));
}

#[test]
fn a_collection_that_does_not_fit_is_refused_with_what_would() {
    let mut state = state(3);
    let refused = |field: &str, text: &str| Err(Refusal::invalid(field, text));
    for (shards, replication, refusal) in [
        (0, 1, refused("shards", "is 0, expected 1 to 1024")),
        (1_025, 1, refused("shards", "is 1025, expected 1 to 1024")),
        (1, 0, refused("replication", "is 0, expected 1 to 7")),
        (1, 8, refused("replication", "is 8, expected 1 to 7")),
        (1, 4, Err(Refusal::TooFewNodes { wanted: 4, nodes: 3 })),
    ] {
        assert_eq!(apply(&mut state, create_replicated(1, "a", shards, replication)), refusal);
    }
    apply(&mut state, status(2, NodeStatus::Draining)).expect("draining");
    apply(&mut state, join(8, place(8, ""))).expect("joined");
    let too_few = Err(Refusal::TooFewNodes { wanted: 3, nodes: 2 });
    assert_eq!(apply(&mut state, create_replicated(1, "a", 1, 3)), too_few, "only nodes that are up take replicas");
    let mut many = state.clone();
    for at in 0..97_u128 {
        many.apply(create(100 + at, &format!("c{at}"), limits::MAX_SHARDS)).expect("created");
    }
    let refusal = many.apply(create(1, "a", limits::MAX_SHARDS)).expect_err("too many");
    assert_eq!(refusal, Refusal::TooManyShards(98 * 1_024));
    many.apply(create(1, "a", 100_000 - 97 * 1_024)).expect("as many as there may be");
    many.check(None).expect("sound");
}

#[test]
fn a_shard_is_placed_anew_only_by_who_has_seen_where_it_is() {
    let mut state = cluster(5, 1);
    apply(&mut state, create_replicated(1, "a", 2, 3)).expect("created");
    let set = |epoch, replicas: &[u64]| Command::SetReplicas { shard: 17, epoch, replicas: replicas.to_vec() };
    let before = state.shard(17).expect("there").1.clone();
    apply(&mut state, join(6, Place { roles: Roles { coordinator: false, shard: true }, ..place(6, "") })).expect("in");
    let coordinator = Place { roles: Roles { coordinator: true, shard: false }, ..place(7, "") };
    apply(&mut state, join(7, coordinator)).expect("in");
    apply(&mut state, status(7, NodeStatus::Up)).expect("up");
    let lacks = |node, reason: &str| Refusal::TakesNoReplicas { node, reason: reason.to_owned() };
    for (command, refusal) in [
        (set(2, &[1]), Refusal::Stale { shard: 17, epoch: 1, expected: 2 }),
        (set(u64::MAX, &[1]), Refusal::Stale { shard: 17, epoch: 1, expected: u64::MAX }),
        (set(1, &[]), Refusal::invalid("replicas", "are 0, expected 1 to 7")),
        (set(1, &[1, 2, 3, 4, 5, 6, 7, 8]), Refusal::invalid("replicas", "are 8, expected 1 to 7")),
        (set(1, &[2, 1, 2]), Refusal::invalid("replicas", "name node 2 twice")),
        (set(1, &[1, 77]), Refusal::NoNode(77)),
        (set(1, &[1, 6]), lacks(6, "it is joining")),
        (set(1, &[1, 7]), lacks(7, "it has not the role shard")),
        (Command::SetReplicas { shard: 99, epoch: 1, replicas: vec![1] }, Refusal::NoShard(99)),
    ] {
        assert_eq!(apply(&mut state, command.clone()), Err(refusal), "{command:?}");
    }
    // A replica that is there may stay, however its node is.
    let held = before.replicas[0];
    apply(&mut state, status(held, NodeStatus::Lost)).expect("lost");
    let fresh = (1..=5).find(|node| !before.replicas.contains(node)).expect("five nodes");
    let mut wanted = vec![held, fresh];
    wanted.sort_unstable();
    let placed = apply(&mut state, set(1, &[fresh, held])).expect("placed");
    let shard = ShardDescriptor { epoch: 2, replicas: wanted, ..before.clone() };
    assert_eq!(placed, Effect::Placed { collection: 1 << 64, shard });
    assert_eq!(apply(&mut state, set(1, &[held, fresh])).expect("the same again"), placed);
    let other = apply(&mut state, set(1, &[held]));
    assert_eq!(other, Err(Refusal::Stale { shard: 17, epoch: 2, expected: 1 }));
    assert_eq!(state.shard(16).expect("there").1.epoch, 1);
}
