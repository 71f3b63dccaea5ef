//! Which nodes get the replicas of a new shard.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{Node, NodeStatus};

/// Places new shards, one after the other.
///
/// The replicas of a shard go to different zones for as long as there are any, then to a second node in each, and so on. Of the
/// zones that come into question the one with the fewest replicas per node is taken, in it the node with the fewest replicas; of
/// equals the first by name or id. Where zones have the same number of nodes, nodes end up within one replica of each other.
pub(crate) struct Placement<'n> {
    zones: Vec<Zone<'n>>,
}

struct Zone<'n> {
    name: &'n str,
    nodes: Vec<Slot>,
    /// Replicas on all of its nodes.
    load: usize,
    /// Replicas of the shard that is being placed.
    chosen: usize,
}

struct Slot {
    node: u64,
    load: usize,
    chosen: bool,
}

impl<'n> Placement<'n> {
    /// Over these nodes, of which those take part that take replicas. `held` names the node of every replica that there is.
    pub(crate) fn new<'r>(nodes: &'n BTreeMap<u64, Arc<Node>>, held: impl Iterator<Item = &'r u64>) -> Self {
        let mut loads: BTreeMap<u64, usize> = BTreeMap::new();
        for node in held {
            *loads.entry(*node).or_default() += 1;
        }
        let mut zones: BTreeMap<&str, Zone<'n>> = BTreeMap::new();
        for node in nodes.values().filter(|node| takes_replicas(node)) {
            let name = node.place.zone.as_str();
            let zone = zones.entry(name).or_insert_with(|| Zone { name, nodes: Vec::new(), load: 0, chosen: 0 });
            let load = loads.get(&node.id).copied().unwrap_or(0);
            zone.nodes.push(Slot { node: node.id, load, chosen: false });
            zone.load += load;
        }
        Self { zones: zones.into_values().collect() }
    }

    /// How many nodes take part.
    pub(crate) fn nodes(&self) -> usize {
        self.zones.iter().map(|zone| zone.nodes.len()).sum()
    }

    /// The nodes of the next shard, ascending by id; nothing if there are not as many.
    pub(crate) fn next(&mut self, replication: usize) -> Option<Vec<u64>> {
        if self.nodes() < replication {
            return None;
        }
        for zone in &mut self.zones {
            zone.chosen = 0;
            zone.nodes.iter_mut().for_each(|slot| slot.chosen = false);
        }
        let mut replicas: Vec<u64> = (0..replication).filter_map(|_| self.take()).collect();
        replicas.sort_unstable();
        Some(replicas)
    }

    fn take(&mut self) -> Option<u64> {
        let free = self.zones.iter_mut().filter(|zone| zone.chosen < zone.nodes.len());
        let zone = free.min_by(|a, b| a.compare(b))?;
        let free = zone.nodes.iter_mut().filter(|slot| !slot.chosen);
        let slot = free.min_by_key(|slot| (slot.load, slot.node))?;
        slot.chosen = true;
        slot.load += 1;
        zone.chosen += 1;
        zone.load += 1;
        Some(slot.node)
    }
}

impl Zone<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        // Per node, without a fraction: a / n < b / m as a * m < b * n.
        let load = |one: &Self, other: &Self| one.load * other.nodes.len();
        let loads = load(self, other).cmp(&load(other, self));
        self.chosen.cmp(&other.chosen).then(loads).then(self.name.cmp(other.name))
    }
}

/// Whether a node may get replicas.
pub(crate) fn takes_replicas(node: &Node) -> bool {
    node.place.roles.shard && node.status == NodeStatus::Up
}
