//! Which replicas move so that nodes hold alike and the replicas of a shard are in zones of their own.
//!
//! It ends. A move brings the replicas of a shard into more zones, or it keeps them as far apart as they were and makes the sum of the
//! squares of what nodes hold smaller. And it is not undone by noise: for a replica to go back, what nodes hold must have changed by
//! twice the margin that the move had to gain.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::target::Traffic;
use super::{Limits, View, unwell};
use crate::collection::{Collection, ShardDescriptor};
use crate::command::Command;
use crate::limits::MAX_REPLICATION;
use crate::operation::{Operation, OperationKind, OperationStep};
use crate::placement::takes_replicas;
use crate::report::Report;
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
    if is_full(traffic) {
        return commands;
    }
    let Some(mut held) = Held::new(state, view, busy, &left_alone(state, unix_micros)) else { return commands };
    let has_room: Vec<bool> = held.nodes.iter().map(|node| has_room(view, node.id)).collect();
    let takes = |held: &Held<'_>, traffic: &Traffic, at: usize| {
        has_room[at] && traffic.moving_to(held.nodes[at].id) < limits.balance_per_node
    };
    let gives = |held: &Held<'_>, traffic: &Traffic, at: usize| {
        held.nodes[at].takes_replicas && traffic.out_of(held.nodes[at].id) < limits.balance_per_node
    };
    let mut waiting = held.candidates(|at| gives(&held, traffic, at), |at| takes(&held, traffic, at));
    let mut moved = BTreeSet::new();
    while !is_full(traffic) {
        let Some((gain, Reverse(of))) = waiting.pop() else { break };
        if moved.contains(&of.0) || !gives(&held, traffic, of.1) {
            continue;
        }
        // What was taken since has changed what it gains.
        let Some(found) = held.best_of(of, |at| takes(&held, traffic, at)) else { continue };
        let Piece { collection, shard, .. } = &held.pieces[of.0];
        if found.gain < gain {
            waiting.push((found.gain, Reverse(of)));
        } else if unwell(state, view, collection, shard).is_none() {
            let (kind, from, to) = (OperationKind::Rebalance, held.nodes[of.1].id, held.nodes[found.to].id);
            let (shard, epoch, reason) = (shard.id, shard.epoch, held.reason(of, &found));
            commands.push(Command::BeginOperation { kind, shard, epoch, from: Some(from), to, reason, unix_micros });
            traffic.note(kind, Some(from), to);
            held.take(of, &found);
            moved.insert(of.0);
        }
    }
    commands
}

fn has_room(view: &View<'_>, node: u64) -> bool {
    view.report(node).is_some_and(|report| report.shortage.is_none())
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

/// A replica, as the numbers of its shard among the pieces and of its node.
type Replica = (usize, usize);

/// By how much a move makes it better: first the replicas of a shard that have a zone of their own more, then the sum of squares.
type Gain = (usize, i128);

/// A move of a replica that makes it better.
struct Move {
    to: usize,
    gain: Gain,
    /// Of the shard's replicas, how many are in the zone that gives and in the one that takes.
    in_zones: (usize, usize),
}

impl<'s> Held<'s> {
    /// None while nodes that are up have not told of shards that nobody else tells of: they may hold anything, as after another leader
    /// of the control group was elected.
    fn new(state: &'s State, view: &View<'_>, busy: &BTreeSet<u64>, alone: &BTreeSet<u64>) -> Option<Self> {
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
        let told: Vec<_> = held.nodes.iter().map(|node| view.report(node.id)).collect();
        for (collection, shard) in state.shards() {
            let places: Vec<usize> = shard.replicas.iter().filter_map(|node| held.place(*node)).collect();
            let bytes = median_bytes(shard.id, places.iter().filter_map(|at| told[*at]));
            if bytes.is_none() && places.iter().any(|at| held.nodes[*at].takes_replicas) {
                return None;
            }
            let cost = REPLICA_BYTES.saturating_add(bytes.unwrap_or(0));
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
        Some(held)
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

    /// The replicas that could be somewhere better, the one that gains most first; of equals the first by shard and node.
    fn candidates(
        &self,
        gives: impl Fn(usize) -> bool,
        takes: impl Fn(usize) -> bool,
    ) -> BinaryHeap<(Gain, Reverse<Replica>)> {
        let Some(emptiest) = self.zones.first().map(|zone| zone.nodes[0].0) else { return BinaryHeap::new() };
        let emptiest = emptiest.saturating_add(self.margin);
        let mut found = Vec::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            for from in piece.places.iter().copied() {
                let could = piece.is_crowded || self.nodes[from].load.cost >= emptiest.saturating_add(piece.cost);
                if could
                    && gives(from)
                    && let Some(best) = self.best_of((at, from), &takes)
                {
                    found.push((best.gain, Reverse((at, from))));
                }
            }
        }
        found.into()
    }

    /// The best place for a replica that is on this node, if there is one that is better.
    fn best_of(&self, (at, from): Replica, takes: impl Fn(usize) -> bool) -> Option<Move> {
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
                best = Some(Move { to, gain, in_zones: (here, there) });
            }
        }
        best
    }

    /// Counts a move as made.
    fn take(&mut self, (at, from): Replica, taken: &Move) {
        let cost = self.pieces[at].cost;
        self.nodes[from].load.remove(cost);
        self.nodes[taken.to].load.add(cost);
        self.sort();
    }

    fn reason(&self, (at, from): Replica, one: &Move) -> String {
        if one.gain.0 > 0 {
            let zone = |at: usize| match self.names[self.nodes[at].zone] {
                "" => "the nodes without a zone".to_owned(),
                zone => format!("zone {zone}"),
            };
            let ((here, there), (giving, taking)) = (one.in_zones, (zone(from), zone(one.to)));
            return format!("{here} of the shard's replicas are in {giving} and {there} in {taking}");
        }
        let mib = |bytes: u64| bytes >> 20;
        let told = |at: usize| {
            let Spot { id, load, .. } = &self.nodes[at];
            let bytes = load.cost.saturating_sub(load.replicas.saturating_mul(REPLICA_BYTES));
            format!("node {id} has {} replicas of {} MiB", load.replicas, mib(bytes))
        };
        let own = mib(self.pieces[at].cost - REPLICA_BYTES);
        format!("{} and {}; this one has {own} MiB", told(from), told(one.to))
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

/// Bytes of one replica of a shard, if anybody tells of it: the median, since one that is being compacted or filled has other ones for a
/// while.
fn median_bytes<'t>(shard: u64, reports: impl Iterator<Item = &'t Report>) -> Option<u64> {
    let (mut told, mut count) = ([0; MAX_REPLICATION as usize], 0);
    for replica in reports.filter_map(|report| report.of(shard)).take(told.len()) {
        told[count] = replica.disk_bytes;
        count += 1;
    }
    told[..count].sort_unstable();
    told[..count].get(count / 2).copied()
}
