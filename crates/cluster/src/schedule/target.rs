//! Which node gets a replica.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Limits, View};
use crate::collection::ShardDescriptor;
use crate::operation::{Operation, OperationKind};
use crate::placement::takes_replicas;
use crate::state::State;

/// Replicas on their way, and how many each node has or is about to have.
#[derive(Default)]
pub(super) struct Traffic {
    total: usize,
    /// Of these, the ones that only have nodes hold alike.
    balancing: usize,
    into: BTreeMap<u64, usize>,
    out_of: BTreeMap<u64, usize>,
    /// Replicas that are placed on each node; counted once that is asked for, since they are many.
    placed: OnceCell<BTreeMap<u64, usize>>,
}

/// A node that gets a replica, and why that one.
pub(super) struct Target {
    pub(super) node: u64,
    pub(super) why: String,
}

impl Traffic {
    pub(super) fn new(under_way: &[&Arc<Operation>]) -> Self {
        let mut traffic = Self::default();
        for operation in under_way {
            traffic.note(operation.kind, operation.from, operation.to);
        }
        traffic
    }

    pub(super) fn note(&mut self, kind: OperationKind, from: Option<u64>, to: u64) {
        self.total += 1;
        self.balancing += usize::from(kind == OperationKind::Rebalance);
        *self.into.entry(to).or_default() += 1;
        if let Some(from) = from {
            *self.out_of.entry(from).or_default() += 1;
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn balancing(&self) -> usize {
        self.balancing
    }

    pub(super) fn out_of(&self, node: u64) -> usize {
        self.out_of.get(&node).copied().unwrap_or(0)
    }

    pub(super) fn moving_to(&self, node: u64) -> usize {
        self.into.get(&node).copied().unwrap_or(0)
    }

    /// In the zone with the fewest of the shard's other replicas the node with the fewest replicas; of equals the first.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn choose(
        &self,
        state: &State,
        view: &View<'_>,
        limits: &Limits,
        (shard, from): (&ShardDescriptor, Option<u64>),
    ) -> Result<Target, String> {
        let others = || shard.replicas.iter().copied().filter(|node| Some(*node) != from);
        let zone_of = |node: u64| state.nodes().get(&node).map_or("", |node| &*node.place.zone);
        let in_zone = |zone: &str| others().filter(|node| zone_of(*node) == zone).count();
        let fit = state.nodes().values().filter(|node| takes_replicas(node) && !shard.replicas.contains(&node.id));
        let fit: Vec<_> = fit.collect();
        if fit.is_empty() {
            return Err("no other node takes replicas: add one".to_owned());
        }
        let able = |node: u64| view.report(node).is_some_and(|report| report.shortage.is_none());
        let able: Vec<_> = fit.into_iter().filter(|node| able(node.id)).collect();
        if able.is_empty() {
            return Err("the nodes that could take it are silent or short of room".to_owned());
        }
        // A node that is busy now is waited for if it keeps the zones apart better.
        let best_zone = able.iter().map(|node| in_zone(&node.place.zone)).min().unwrap_or(0);
        let best: Vec<_> = able.into_iter().filter(|node| in_zone(&node.place.zone) == best_zone).collect();
        let free = best.iter().filter(|node| self.moving_to(node.id) < limits.per_node);
        let placed = self.placed.get_or_init(|| {
            let mut placed: BTreeMap<u64, usize> = BTreeMap::new();
            for node in state.shards().flat_map(|(_, shard)| &shard.replicas) {
                *placed.entry(*node).or_default() += 1;
            }
            placed
        });
        let held = |node: u64| placed.get(&node).copied().unwrap_or(0) + self.moving_to(node);
        let Some(node) = free.min_by_key(|node| (held(node.id), node.id)) else {
            return Err(format!("{} replicas are on their way into each node that suits", limits.per_node));
        };
        let (id, zone) = (node.id, &node.place.zone);
        let why = match (zone.is_empty(), best_zone) {
            (true, _) => format!("node {id} has the fewest replicas"),
            (false, 0) => format!("node {id} has the fewest replicas in a zone without another one of this shard"),
            (false, _) => format!("node {id} has the fewest replicas, and no node of a zone of its own takes one"),
        };
        Ok(Target { node: id, why })
    }
}
