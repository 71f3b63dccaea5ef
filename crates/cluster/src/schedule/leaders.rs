//! Who leads shards: a leader has every write and every read of the latest to do, so nodes do alike, and one that is drained leads nothing
//! as soon as that can be.
//!
//! What a node does is the load of its replicas, as it tells, and a little for each shard that it leads. A handover moves what the leader
//! does more than the replica that takes over, and that little. It ends for the reason that `balance` does: each handover makes the sum of
//! the squares of what nodes do smaller.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{CAUGHT_UP, Limits, Told, View};
use crate::collection::ShardDescriptor;
use crate::node::NodeStatus;
use crate::placement::takes_replicas;
use crate::report::{GroupMembers, ReplicaReport, ReplicaRole};
use crate::state::State;

/// What leading a shard costs a node beside what is measured, in microseconds a second: to take writes in, and to be asked for everything.
/// So idle shards are led alike by number, and what is hardly above idle moves none.
pub(super) const LEADER_US: u64 = 10_000;
/// A handover leaves the node that gives still doing as much as the one that takes, and more by this part of what a node does on average, and
/// by what one idle shard costs at least: writes pause for the moment that one takes.
const MARGIN_PARTS: u64 = 10;
/// And by this part of what both do as measured: what two do that do much more than all others is measured no better than by a few hundredths.
const NOISE_PARTS: u64 = 20;

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
    let is_young = |shard: u64| leads_for(shard) < limits.leads_at_least;
    let work = Work::of(state, &view, is_young);
    let mut offers = offers(state, &view, &work, is_young);
    // What leaves comes first, and then what makes it best.
    offers.sort_by_key(|offer| (offer.stays, std::cmp::Reverse(offer.gain), offer.shard.id));
    let (mut handovers, mut involved) = (Vec::new(), BTreeSet::new());
    for Offer { shard, from, leader, members, stays, .. } in offers {
        if handovers.len() >= limits.handovers_at_once {
            break;
        }
        if stays && involved.contains(&from) {
            continue;
        }
        let able = able(&view, members, leader).filter(|node| work.done.contains_key(node) && !involved.contains(node));
        let best = match stays {
            true => able
                .filter_map(|to| Some((work.gain(shard.id, from, to)?, to)))
                .max_by_key(|(gain, to)| (*gain, std::cmp::Reverse(*to))),
            false => able.map(|to| (0, to)).min_by_key(|(_, to)| (work.done[to].us, *to)),
        };
        let Some((_, to)) = best else { continue };
        let reason = match stays {
            true => work.reason(shard.id, from, to),
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

/// A shard that could be led elsewhere.
struct Offer<'s> {
    shard: &'s ShardDescriptor,
    from: u64,
    leader: &'s ReplicaReport,
    members: &'s GroupMembers,
    /// The node is not about to leave.
    stays: bool,
    /// By how much it could become better at most.
    gain: u128,
}

fn offers<'s>(state: &'s State, view: &View<'s>, work: &Work, is_young: impl Fn(u64) -> bool) -> Vec<Offer<'s>> {
    let busy = state.busy_shards();
    let drained = |node: u64| {
        state.nodes().get(&node).is_some_and(|node| matches!(node.status, NodeStatus::Draining | NodeStatus::Drained))
    };
    let mut offers = Vec::new();
    for (_, shard) in state.shards().filter(|(_, shard)| !busy.contains(&shard.id)) {
        let Some((from, leader)) = view.leaders.get(&shard.id).copied() else { continue };
        let Some(members) = &leader.members else { continue };
        let stays = !drained(from);
        // Whether anybody does so much less is told at once; whether one could lead takes longer.
        let best = || members.voters.iter().filter_map(|to| work.gain(shard.id, from, *to)).max();
        let gain = if work.could_give(from) { best() } else { None };
        if !stays || gain.is_some() && !is_young(shard.id) {
            offers.push(Offer { shard, from, leader, members, stays, gain: gain.unwrap_or(0) });
        }
    }
    offers
}

/// What nodes do.
struct Work {
    /// Of those that take replicas.
    done: BTreeMap<u64, Done>,
    /// What replicas do that are not idle: by shard and node, in microseconds a second. In no order, which nobody asks for.
    replicas: HashMap<(u64, u64), u64>,
    margin: u64,
    /// What the node does that does least.
    least: u64,
}

#[derive(Clone, Copy, Default)]
struct Done {
    /// Shards that it leads.
    leads: u64,
    /// What its replicas do, in microseconds a second.
    measured: u64,
    /// That, and what leading costs.
    us: u64,
}

impl Work {
    fn of(state: &State, view: &View<'_>, is_young: impl Fn(u64) -> bool) -> Self {
        let taking = state.nodes().values().filter(|node| takes_replicas(node));
        let mut done: BTreeMap<u64, Done> = taking.map(|node| (node.id, Done::default())).collect();
        for (leader, _) in view.leaders.values() {
            if let Some(done) = done.get_mut(leader) {
                done.leads += 1;
            }
        }
        let replicas = measured(state, view, is_young);
        for ((_, node), us) in &replicas {
            if let Some(done) = done.get_mut(node) {
                done.measured = done.measured.saturating_add(*us);
            }
        }
        for done in done.values_mut() {
            done.us = done.measured.saturating_add(done.leads * LEADER_US);
        }
        let total: u128 = done.values().map(|done| u128::from(done.us)).sum();
        let margin = total / done.len().max(1) as u128 / u128::from(MARGIN_PARTS);
        let margin = u64::try_from(margin).unwrap_or(u64::MAX).max(LEADER_US);
        let least = done.values().map(|done| done.us).min().unwrap_or(0);
        Self { done, replicas, margin, least }
    }

    fn measured(&self, shard: u64, node: u64) -> u64 {
        self.replicas.get(&(shard, node)).copied().unwrap_or(0)
    }

    /// Whether anybody at all does so much less than a node that it could hand over.
    fn could_give(&self, from: u64) -> bool {
        let least = self.least.saturating_add(LEADER_US).saturating_add(self.margin);
        self.done.get(&from).is_some_and(|done| done.us >= least)
    }

    /// By how much the sum of squares becomes smaller (half of it) when a shard is handed over, if that is worth it.
    fn gain(&self, shard: u64, from: u64, to: u64) -> Option<u128> {
        let (has, gets) = (self.done.get(&from)?, self.done.get(&to)?);
        let more = self.measured(shard, from).saturating_sub(self.measured(shard, to));
        let moved = LEADER_US.saturating_add(more);
        let narrower = has.us.checked_sub(gets.us)?.checked_sub(moved)?;
        let noise = has.measured.saturating_add(gets.measured) / NOISE_PARTS;
        (narrower >= self.margin.max(noise)).then(|| u128::from(moved) * u128::from(narrower))
    }

    fn reason(&self, shard: u64, from: u64, to: u64) -> String {
        let (has, gets) = (self.done[&from], self.done[&to]);
        let counts = format!("node {from} leads {} shards and node {to} {}", has.leads, gets.leads);
        if has.measured.max(gets.measured) < LEADER_US {
            return counts;
        }
        let ms = |us: u64| us / 1_000;
        format!(
            "{counts}; what their replicas do takes threads {} and {} ms of a second, this one {} and {}",
            ms(has.measured),
            ms(gets.measured),
            ms(self.measured(shard, from)),
            ms(self.measured(shard, to))
        )
    }
}

/// What replicas do of shards that are not idle.
///
/// What is told is smoothed, so that it follows another leader by half a minute. Until then it is what all replicas do together that
/// stays the same: each is taken to do what the one does that does least, and the leader the rest.
fn measured(state: &State, view: &View<'_>, is_young: impl Fn(u64) -> bool) -> HashMap<(u64, u64), u64> {
    let mut measured = HashMap::new();
    for (node, told) in view.told {
        for replica in told.report.iter().flat_map(|report| &report.replicas) {
            if replica.load.recent_us > 0 {
                measured.insert((replica.shard, *node), replica.load.recent_us);
            }
        }
    }
    let mut young: HashSet<u64> = measured.keys().map(|(shard, _)| *shard).collect();
    young.retain(|shard| is_young(*shard));
    if young.is_empty() {
        return measured;
    }
    for (_, shard) in state.shards().filter(|(_, shard)| young.contains(&shard.id)) {
        let Some((leader, _)) = view.leaders.get(&shard.id) else { continue };
        let of = |node: &u64| measured.get(&(shard.id, *node)).copied().unwrap_or(0);
        let least = shard.replicas.iter().map(of).min().unwrap_or(0);
        let rest = shard.replicas.iter().map(|node| of(node) - least).fold(least, u64::saturating_add);
        for node in &shard.replicas {
            measured.insert((shard.id, *node), if node == leader { rest } else { least });
        }
    }
    measured
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
