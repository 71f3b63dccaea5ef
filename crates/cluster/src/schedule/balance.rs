//! Which replicas move so that nodes hold alike and the replicas of a shard are in zones of their own.
//!
//! It ends. A move brings the replicas of a shard into more zones, or it keeps them as far apart as they were and makes the sum of the
//! squares of what nodes hold smaller. And it is not undone by noise: for a replica to go back, what nodes hold must have changed by
//! twice the margin that the move had to gain.

use std::collections::{BTreeMap, BTreeSet};

use super::target::Traffic;
use super::{Limits, View, unwell};
use crate::collection::{Collection, ShardDescriptor};
use crate::command::Command;
use crate::operation::{Operation, OperationKind, OperationStep};
use crate::placement::takes_replicas;
use crate::state::State;

/// What a replica costs a node beside its bytes on disk: a Raft group, a database, their files and buffers. So nodes hold as many of small and
/// empty shards, and as many bytes of large ones.
pub(super) const REPLICA_BYTES: u64 = 64 << 20;
/// A move leaves the node that gives still fuller than the one that takes, by at least this part of what a node holds on average:
/// figures of bytes rise and fall while databases are compacted.
const MARGIN_PARTS: u64 = 20;
/// A replica that somebody has moved by hand, or that somebody did not want to be moved, is left where it is for a day.
const LEFT_ALONE_MICROS: u64 = 24 * 3_600 * 1_000_000;

/// Begins as many moves as may be under way now, the best ones first.
pub(super) fn moves(
    state: &State,
    view: &View<'_>,
    limits: &Limits,
    traffic: &mut Traffic,
    (busy, unix_micros): (&BTreeSet<u64>, u64),
) -> Vec<Command> {
    let mut commands = Vec::new();
    let is_full =
        |traffic: &Traffic| traffic.total() >= limits.at_once || traffic.balancing() >= limits.balance_at_once;
    // Whoever is silent may hold anything: nothing is weighed until all have told, as after another leader was elected.
    let all_told =
        state.nodes().values().filter(|node| takes_replicas(node)).all(|node| view.report(node.id).is_some());
    if is_full(traffic) || !all_told {
        return commands;
    }
    let mut held = Held::new(state, view, busy, &left_alone(state, unix_micros));
    while !is_full(traffic) {
        let Some(best) = held.best(state, view, limits, traffic) else { break };
        let (kind, (from, to)) = (OperationKind::Rebalance, (best.from, best.to));
        let (reason, piece) = (held.reason(&best), held.take(&best));
        traffic.note(kind, Some(from), to);
        let (shard, epoch) = (piece.shard.id, piece.shard.epoch);
        commands.push(Command::BeginOperation { kind, shard, epoch, from: Some(from), to, reason, unix_micros });
    }
    commands
}

/// The shards that somebody has moved by hand or did not want to be moved, a short while ago.
fn left_alone(state: &State, unix_micros: u64) -> BTreeSet<u64> {
    let by_hand = |one: &Operation| match one.step {
        OperationStep::Done => one.kind == OperationKind::Move,
        OperationStep::Cancelled => one.cancelled && matches!(one.kind, OperationKind::Move | OperationKind::Rebalance),
        _ => false,
    };
    let lately = |ended: u64| unix_micros.saturating_sub(ended) < LEFT_ALONE_MICROS;
    let alone = state.operations().filter(|one| by_hand(one) && one.ended_unix_micros.is_some_and(lately));
    alone.map(|one| one.shard).collect()
}

/// What nodes hold, as it will be once all that is under way has ended.
struct Held<'s> {
    /// The shards that could move.
    pieces: Vec<Piece<'s>>,
    /// The nodes that take replicas.
    nodes: BTreeMap<u64, Load>,
    /// The zones that have such nodes, and what the emptiest of them holds.
    zones: Vec<Zone<'s>>,
    /// The zone of each node.
    zone_of: BTreeMap<u64, &'s str>,
    margin: u64,
}

struct Piece<'s> {
    collection: &'s Collection,
    shard: &'s ShardDescriptor,
    /// What a replica of it costs a node.
    cost: u64,
}

#[derive(Clone, Copy, Default)]
struct Load {
    replicas: u64,
    /// What its replicas cost.
    cost: u64,
}

struct Zone<'s> {
    name: &'s str,
    /// Its nodes that take replicas, with what they hold, ascending by that.
    nodes: Vec<(u64, u64)>,
}

/// A move that makes it better.
struct Move {
    piece: usize,
    from: u64,
    to: u64,
    /// By how much: first the replicas of a shard that have a zone of their own more, then the sum of squares.
    gain: (usize, i128),
    /// Of the shard's replicas, how many are in the zone that gives and in the one that takes.
    in_zones: (usize, usize),
}

impl<'s> Held<'s> {
    fn new(state: &'s State, view: &View<'_>, busy: &BTreeSet<u64>, alone: &BTreeSet<u64>) -> Self {
        let taking = state.nodes().values().filter(|node| takes_replicas(node));
        let mut nodes: BTreeMap<u64, Load> = taking.map(|node| (node.id, Load::default())).collect();
        let mut pieces = Vec::new();
        for (collection, shard) in state.shards() {
            let cost = REPLICA_BYTES.saturating_add(bytes(view, shard));
            for node in &shard.replicas {
                if let Some(load) = nodes.get_mut(node) {
                    load.add(cost);
                }
            }
            match busy.contains(&shard.id) {
                true => under_way(state, &mut nodes, shard, cost),
                false if alone.contains(&shard.id) => {}
                false => pieces.push(Piece { collection, shard, cost }),
            }
        }
        let total: u128 = nodes.values().map(|load| u128::from(load.cost)).sum();
        let margin = total / nodes.len().max(1) as u128 / u128::from(MARGIN_PARTS);
        let zone_of = state.nodes().values().map(|node| (node.id, &*node.place.zone)).collect();
        let margin = u64::try_from(margin).unwrap_or(u64::MAX);
        let mut held = Self { pieces, nodes, zones: Vec::new(), zone_of, margin };
        held.sort();
        held
    }

    /// Puts the nodes of each zone, and the zones, in order.
    fn sort(&mut self) {
        let mut zones: BTreeMap<&'s str, Vec<(u64, u64)>> = BTreeMap::new();
        for (node, load) in &self.nodes {
            zones.entry(self.zone_of[node]).or_default().push((load.cost, *node));
        }
        let zones = zones.into_iter().map(|(name, mut nodes)| {
            nodes.sort_unstable();
            Zone { name, nodes }
        });
        self.zones = zones.collect();
        self.zones.sort_by_key(|zone| zone.nodes[0]);
    }

    /// The move that gains most, of equals the first by shard and nodes.
    fn best(&self, state: &State, view: &View<'_>, limits: &Limits, traffic: &Traffic) -> Option<Move> {
        let gives = |node: u64| traffic.out_of(node) < limits.balance_per_node;
        let has_room = |node: u64| view.report(node).is_some_and(|report| report.shortage.is_none());
        let takes = |node: u64| traffic.moving_to(node) < limits.balance_per_node && has_room(node);
        let mut best: Option<Move> = None;
        for (at, piece) in self.pieces.iter().enumerate() {
            let mut is_well = None;
            for from in piece.shard.replicas.iter().copied().filter(|node| gives(*node)) {
                let Some(found) = self.best_of(at, from, takes) else { continue };
                let is_better = best.as_ref().is_none_or(|best| found.gain > best.gain);
                let well = || unwell(state, view, piece.collection, piece.shard).is_none();
                if is_better && *is_well.get_or_insert_with(well) {
                    best = Some(found);
                }
            }
        }
        best
    }

    /// The best place for a replica that is on this node, if there is one that is better.
    fn best_of(&self, at: usize, from: u64, takes: impl Fn(u64) -> bool) -> Option<Move> {
        let Piece { shard, cost, .. } = &self.pieces[at];
        let has = self.nodes.get(&from)?.cost;
        let least = |zone: &Zone<'_>| zone.nodes[0].0.saturating_add(*cost).saturating_add(self.margin);
        let crowd = |zone: &str| shard.replicas.iter().filter(|node| self.zone_of.get(node) == Some(&zone)).count();
        let own = self.zone_of[&from];
        let mut crowded = None;
        let mut best: Option<Move> = None;
        for zone in &self.zones {
            let is_emptier = has >= least(zone);
            // Zones are in the order of what they hold: those that follow are fuller still.
            if !is_emptier && *crowded.get_or_insert_with(|| crowd(own)) < 2 {
                break;
            }
            let (here, there) = (*crowded.get_or_insert_with(|| crowd(own)), crowd(zone.name));
            let spreads = if zone.name == own { 0 } else { here.saturating_sub(there + 1) };
            if zone.name != own && there >= here || !is_emptier && spreads == 0 {
                continue;
            }
            let free = |(_, node): &&(u64, u64)| !shard.replicas.contains(node) && takes(*node);
            let Some(&(load, to)) = zone.nodes.iter().find(free) else { continue };
            let narrower = i128::from(has) - i128::from(load) - i128::from(*cost);
            if spreads == 0 && narrower < i128::from(self.margin) {
                continue;
            }
            let gain = (spreads, i128::from(*cost).saturating_mul(narrower));
            if best.as_ref().is_none_or(|best| gain > best.gain) {
                best = Some(Move { piece: at, from, to, gain, in_zones: (here, there) });
            }
        }
        best
    }

    /// The shard of a move, which counts as made from now on.
    fn take(&mut self, taken: &Move) -> Piece<'s> {
        let piece = self.pieces.remove(taken.piece);
        if let Some(load) = self.nodes.get_mut(&taken.from) {
            load.remove(piece.cost);
        }
        if let Some(load) = self.nodes.get_mut(&taken.to) {
            load.add(piece.cost);
        }
        self.sort();
        piece
    }

    fn reason(&self, one: &Move) -> String {
        let (from, to) = (one.from, one.to);
        if one.gain.0 > 0 {
            let zone = |node: u64| match self.zone_of[&node] {
                "" => "the nodes without a zone".to_owned(),
                zone => format!("zone {zone}"),
            };
            let ((here, there), (giving, taking)) = (one.in_zones, (zone(from), zone(to)));
            return format!("{here} of the shard's replicas are in {giving} and {there} in {taking}");
        }
        let mib = |bytes: u64| bytes >> 20;
        let told = |node: u64| {
            let load = self.nodes[&node];
            let bytes = load.cost.saturating_sub(load.replicas.saturating_mul(REPLICA_BYTES));
            format!("node {node} has {} replicas of {} MiB", load.replicas, mib(bytes))
        };
        let own = mib(self.pieces[one.piece].cost - REPLICA_BYTES);
        format!("{} and {}; this one has {own} MiB", told(from), told(to))
    }
}

impl Load {
    fn add(&mut self, cost: u64) {
        (self.replicas, self.cost) = (self.replicas + 1, self.cost.saturating_add(cost));
    }

    fn remove(&mut self, cost: u64) {
        (self.replicas, self.cost) = (self.replicas.saturating_sub(1), self.cost.saturating_sub(cost));
    }
}

/// What an operation makes of what nodes hold.
fn under_way(state: &State, nodes: &mut BTreeMap<u64, Load>, shard: &ShardDescriptor, cost: u64) {
    let Some(operation) = state.operation_on(shard.id) else { return };
    let comes_about = !operation.cancelled && operation.step != OperationStep::Undo;
    if !comes_about || shard.replicas.contains(&operation.to) {
        return;
    }
    if let Some(load) = nodes.get_mut(&operation.to) {
        load.add(cost);
    }
    if let Some(load) = operation.from.and_then(|from| nodes.get_mut(&from)) {
        load.remove(cost);
    }
}

/// Bytes of one replica of a shard: the median of what is told, since one that is being compacted or filled has other ones for a while.
fn bytes(view: &View<'_>, shard: &ShardDescriptor) -> u64 {
    let told = shard.replicas.iter().filter_map(|node| view.replica(*node, shard.id));
    let mut told: Vec<u64> = told.map(|replica| replica.disk_bytes).collect();
    told.sort_unstable();
    told.get(told.len() / 2).copied().unwrap_or(0)
}
