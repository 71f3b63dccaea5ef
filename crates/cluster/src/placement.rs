//! Which nodes get the replicas of a new shard.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{Node, NodeStatus};

/// Chooses `replication` nodes for one shard, ascending by id: in different zones for as long as there are any, in each zone
/// the one with the fewest replicas, and of those the one with the lowest id. `load` counts the replicas of every node. Returns
/// nothing when there are not enough nodes that take replicas.
pub(crate) fn place(
    nodes: &BTreeMap<u64, Arc<Node>>,
    load: &BTreeMap<u64, usize>,
    replication: usize,
) -> Option<Vec<u64>> {
    let mut free: Vec<&Node> = nodes.values().map(|node| &**node).filter(|node| takes_replicas(node)).collect();
    let mut chosen: Vec<&Node> = Vec::with_capacity(replication);
    while chosen.len() < replication {
        let crowding = |zone: &str| chosen.iter().filter(|node| node.place.zone == zone).count();
        let cost = |node: &Node| (crowding(&node.place.zone), load.get(&node.id).copied().unwrap_or(0), node.id);
        let best = (0..free.len()).max_by_key(|&at| Reverse(cost(free[at])))?;
        chosen.push(free.swap_remove(best));
    }
    let mut ids: Vec<u64> = chosen.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    Some(ids)
}

/// Whether a node may get replicas.
pub(crate) fn takes_replicas(node: &Node) -> bool {
    node.place.roles.shard && node.status == NodeStatus::Up
}
