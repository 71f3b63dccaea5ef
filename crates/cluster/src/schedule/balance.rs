//! Which replicas move so that nodes hold alike and the replicas of a shard are in zones of their own.
//!
//! It ends. A move brings the replicas of a shard into more zones, or it keeps them as far apart as they were and makes the sum of the
//! squares of what nodes hold smaller. And it is not undone by noise: for a replica to go back, what nodes hold must have changed by
//! twice the margin that the move had to gain.

use std::collections::BTreeSet;

use super::target::Traffic;
use super::{Limits, View, unwell};
use crate::collection::{Collection, ShardDescriptor};
use crate::command::Command;
use crate::limits::MAX_REPLICATION;
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
        let (kind, from, to) = (OperationKind::Rebalance, held.nodes[best.from].id, held.nodes[best.to].id);
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

/// What nodes hold, as it will be once all that is under way has ended. Nodes and zones are numbered, since every replica is looked at.
struct Held<'s> {
    /// The shards that could move.
    pieces: Vec<Piece<'s>>,
    /// All nodes, ascending by id.
    nodes: Vec<Spot>,
    /// The zones that have nodes which take replicas, ascending by what the emptiest of these holds.
    zones: Vec<Zone>,
    /// The names of all zones.
    names: Vec<&'s str>,
    margin: u64,
}

struct Piece<'s> {
    collection: &'s Collection,
    shard: &'s ShardDescriptor,
    /// What a replica of it costs a node.
    cost: u64,
    /// Where its replicas are.
    places: Vec<usize>,
    /// Whether two of them are in one zone.
    is_crowded: bool,
}

struct Spot {
    id: u64,
    zone: usize,
    takes_replicas: bool,
    load: Load,
}

#[derive(Clone, Copy, Default)]
struct Load {
    replicas: u64,
    /// What its replicas cost.
    cost: u64,
}

struct Zone {
    number: usize,
    /// Its nodes that take replicas, with what they hold, ascending by that.
    nodes: Vec<(u64, usize)>,
}

/// A move that makes it better.
struct Move {
    piece: usize,
    from: usize,
    to: usize,
    /// By how much: first the replicas of a shard that have a zone of their own more, then the sum of squares.
    gain: (usize, i128),
    /// Of the shard's replicas, how many are in the zone that gives and in the one that takes.
    in_zones: (usize, usize),
}

impl<'s> Held<'s> {
    fn new(state: &'s State, view: &View<'_>, busy: &BTreeSet<u64>, alone: &BTreeSet<u64>) -> Self {
        let mut names: Vec<&str> = state.nodes().values().map(|node| &*node.place.zone).collect();
        names.sort_unstable();
        names.dedup();
        let spots = state.nodes().values().map(|node| Spot {
            id: node.id,
            zone: names.binary_search(&&*node.place.zone).unwrap_or_default(),
            takes_replicas: takes_replicas(node),
            load: Load::default(),
        });
        let (nodes, pieces, zones, margin) = (spots.collect(), Vec::new(), Vec::new(), 0);
        let mut held = Self { pieces, nodes, zones, names, margin };
        for (collection, shard) in state.shards() {
            let cost = REPLICA_BYTES.saturating_add(bytes(view, shard));
            let places: Vec<usize> = shard.replicas.iter().filter_map(|node| held.place(*node)).collect();
            for at in &places {
                held.nodes[*at].load.add(cost);
            }
            match busy.contains(&shard.id) {
                true => held.foresee(state, shard, cost),
                false if alone.contains(&shard.id) => {}
                false => {
                    let zone = |at: &usize| held.nodes[*at].zone;
                    let is_crowded =
                        (1..places.len()).any(|at| places[..at].iter().any(|other| zone(other) == zone(&places[at])));
                    held.pieces.push(Piece { collection, shard, cost, places, is_crowded });
                }
            }
        }
        let taking = held.nodes.iter().filter(|node| node.takes_replicas);
        let total: u128 = taking.clone().map(|node| u128::from(node.load.cost)).sum();
        let margin = total / taking.count().max(1) as u128 / u128::from(MARGIN_PARTS);
        held.margin = u64::try_from(margin).unwrap_or(u64::MAX);
        held.sort();
        held
    }

    fn place(&self, node: u64) -> Option<usize> {
        self.nodes.binary_search_by_key(&node, |spot| spot.id).ok()
    }

    /// What an operation that is under way will make of what nodes hold.
    fn foresee(&mut self, state: &State, shard: &ShardDescriptor, cost: u64) {
        let Some(operation) = state.operation_on(shard.id) else { return };
        let comes_about = !operation.cancelled && operation.step != OperationStep::Undo;
        if !comes_about || shard.replicas.contains(&operation.to) {
            return;
        }
        if let Some(to) = self.place(operation.to) {
            self.nodes[to].load.add(cost);
        }
        if let Some(from) = operation.from.and_then(|from| self.place(from)) {
            self.nodes[from].load.remove(cost);
        }
    }

    /// Puts the nodes of each zone, and the zones, in order.
    fn sort(&mut self) {
        let mut zones: Vec<Zone> = (0..self.names.len()).map(|number| Zone { number, nodes: Vec::new() }).collect();
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.takes_replicas) {
            zones[node.zone].nodes.push((node.load.cost, at));
        }
        zones.retain(|zone| !zone.nodes.is_empty());
        zones.iter_mut().for_each(|zone| zone.nodes.sort_unstable());
        zones.sort_by_key(|zone| zone.nodes[0]);
        self.zones = zones;
    }

    /// The move that gains most, of equals the first by shard and nodes.
    fn best(&self, state: &State, view: &View<'_>, limits: &Limits, traffic: &Traffic) -> Option<Move> {
        let emptiest = self.zones.first()?.nodes[0].0.saturating_add(self.margin);
        let has_room = |node: u64| view.report(node).is_some_and(|report| report.shortage.is_none());
        let takes = |at: usize| {
            let node = self.nodes[at].id;
            traffic.moving_to(node) < limits.balance_per_node && has_room(node)
        };
        let mut best: Option<Move> = None;
        for (at, piece) in self.pieces.iter().enumerate() {
            let mut is_well = None;
            for from in piece.places.iter().copied() {
                let node = &self.nodes[from];
                let could = piece.is_crowded || node.load.cost >= emptiest.saturating_add(piece.cost);
                if !could || !node.takes_replicas || traffic.out_of(node.id) >= limits.balance_per_node {
                    continue;
                }
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
    fn best_of(&self, at: usize, from: usize, takes: impl Fn(usize) -> bool) -> Option<Move> {
        let Piece { cost, places, .. } = &self.pieces[at];
        let (has, own) = (self.nodes[from].load.cost, self.nodes[from].zone);
        let crowd = |zone: usize| places.iter().filter(|place| self.nodes[**place].zone == zone).count();
        let here = crowd(own);
        let mut best: Option<Move> = None;
        for zone in &self.zones {
            let is_emptier = has >= zone.nodes[0].0.saturating_add(*cost).saturating_add(self.margin);
            // Zones are in the order of what they hold: those that follow are fuller still.
            if !is_emptier && here < 2 {
                break;
            }
            let there = crowd(zone.number);
            let spreads = if zone.number == own { 0 } else { here.saturating_sub(there + 1) };
            if zone.number != own && there >= here || !is_emptier && spreads == 0 {
                continue;
            }
            let free = |(_, node): &&(u64, usize)| !places.contains(node) && takes(*node);
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
        self.nodes[taken.from].load.remove(piece.cost);
        self.nodes[taken.to].load.add(piece.cost);
        self.sort();
        piece
    }

    fn reason(&self, one: &Move) -> String {
        if one.gain.0 > 0 {
            let zone = |at: usize| match self.names[self.nodes[at].zone] {
                "" => "the nodes without a zone".to_owned(),
                zone => format!("zone {zone}"),
            };
            let ((here, there), (giving, taking)) = (one.in_zones, (zone(one.from), zone(one.to)));
            return format!("{here} of the shard's replicas are in {giving} and {there} in {taking}");
        }
        let mib = |bytes: u64| bytes >> 20;
        let told = |at: usize| {
            let Spot { id, load, .. } = &self.nodes[at];
            let bytes = load.cost.saturating_sub(load.replicas.saturating_mul(REPLICA_BYTES));
            format!("node {id} has {} replicas of {} MiB", load.replicas, mib(bytes))
        };
        let own = mib(self.pieces[one.piece].cost - REPLICA_BYTES);
        format!("{} and {}; this one has {own} MiB", told(one.from), told(one.to))
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

/// Bytes of one replica of a shard: the median of what is told, since one that is being compacted or filled has other ones for a while.
fn bytes(view: &View<'_>, shard: &ShardDescriptor) -> u64 {
    let (mut told, mut count) = ([0; MAX_REPLICATION as usize], 0);
    for replica in shard.replicas.iter().filter_map(|node| view.replica(*node, shard.id)).take(told.len()) {
        told[count] = replica.disk_bytes;
        count += 1;
    }
    told[..count].sort_unstable();
    told[count / 2]
}
