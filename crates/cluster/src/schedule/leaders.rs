//! Who leads shards: a leader has every write and every read of the latest to do, so nodes lead alike, and one that is drained leads
//! nothing as soon as that can be.
//!
//! It ends for the reason that `balance` does: each handover makes the sum of the squares of how many shards nodes lead smaller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{CAUGHT_UP, Limits, Told, View};
use crate::node::NodeStatus;
use crate::placement::takes_replicas;
use crate::report::{GroupMembers, ReplicaReport, ReplicaRole};
use crate::state::State;

/// A handover leaves the node that gives still leading as many as the one that takes, and more by this part of what a node leads on
/// average: writes pause for the moment that one takes.
const MARGIN_PARTS: usize = 10;

/// That another replica is to lead a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement.
    pub epoch: u64,
    /// The node that leads it.
    pub from: u64,
    /// The node that is to lead it.
    pub to: u64,
    /// Why, in words.
    pub reason: String,
}

/// Which leaders hand over now. `leads_for` says how long a shard has had the leader that it has: whoever has just come to lead is left
/// alone, so that a node that restarts, or an operator who hands over, has no more follow at once.
pub fn handovers(
    state: &State,
    told: &BTreeMap<u64, Told>,
    limits: &Limits,
    leads_for: impl Fn(u64) -> Duration,
) -> Vec<Handover> {
    let view = View::new(told);
    let busy = state.busy_shards();
    let mut led: BTreeMap<u64, usize> =
        state.nodes().values().filter(|node| takes_replicas(node)).map(|node| (node.id, 0)).collect();
    let margin = 2 + view.leaders.len() / led.len().max(1) / MARGIN_PARTS;
    for (leader, _) in view.leaders.values() {
        if let Some(count) = led.get_mut(leader) {
            *count += 1;
        }
    }
    let drained = |node: u64| {
        state.nodes().get(&node).is_some_and(|node| matches!(node.status, NodeStatus::Draining | NodeStatus::Drained))
    };
    let mut groups = Vec::new();
    for (_, shard) in state.shards().filter(|(_, shard)| !busy.contains(&shard.id)) {
        let Some((from, leader)) = view.leaders.get(&shard.id) else { continue };
        let Some(members) = &leader.members else { continue };
        let is_drained = drained(*from);
        // Whether anybody leads so much less is told at once; whether one could lead takes longer.
        let has_more =
            |from: usize| members.voters.iter().filter_map(|voter| led.get(voter)).any(|gets| from >= gets + margin);
        let gives = || led.get(from).is_some_and(|from| has_more(*from));
        if is_drained || gives() && leads_for(shard.id) >= limits.leads_at_least {
            groups.push((!is_drained, shard, *from, *leader, members));
        }
    }
    // What leaves comes first, and then the nodes that lead most.
    groups.sort_by_key(|(stays, shard, from, ..)| (*stays, std::cmp::Reverse(led.get(from).copied()), shard.id));
    let (mut handovers, mut involved) = (Vec::new(), BTreeSet::new());
    for (stays, shard, from, leader, members) in groups {
        if handovers.len() >= limits.handovers_at_once {
            break;
        }
        let able = able(&view, members, leader).filter(|node| led.contains_key(node) && !involved.contains(node));
        let Some(to) = able.min_by_key(|node| (led[node], *node)) else { continue };
        let (has, gets) = (led.get(&from).copied().unwrap_or(0), led[&to]);
        if stays && (involved.contains(&from) || has < gets + margin) {
            continue;
        }
        let reason = match stays {
            true => format!("node {from} leads {has} shards and node {to} {gets}"),
            false => format!("node {from} is being drained"),
        };
        // One at a time for each node: what follows of it is seen before the next one.
        involved.insert(to);
        if stays {
            involved.insert(from);
        }
        handovers.push(Handover { shard: shard.id, epoch: shard.epoch, from, to, reason });
    }
    handovers
}

/// The voters that could lead a group at once: they work, follow its leader and lack next to nothing.
fn able<'t>(
    view: &'t View<'t>,
    members: &'t GroupMembers,
    leader: &'t ReplicaReport,
) -> impl Iterator<Item = u64> + 't {
    let is_able = |node: u64| {
        let has_room = view.report(node).is_some_and(|report| report.shortage.is_none());
        let follows = view.replica(node, leader.shard).is_some_and(|told| {
            let is_near = told.term == leader.term && told.applied + CAUGHT_UP >= leader.applied;
            told.role == ReplicaRole::Follower && told.problem.is_none() && is_near
        });
        has_room && follows
    };
    members.voters.iter().copied().filter(move |node| is_able(*node))
}
