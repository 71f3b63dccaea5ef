//! Which shards are split unasked: those whose points take more than those of one shard should, and those that keep nodes busier than one shard
//! should while other nodes have nothing of their collection.
//!
//! It ends. What points take is told without what a split has left to be removed, so halves have half of it from the beginning, and
//! a half is split again once it has doubled. Load splits a collection until it has as many replicas as there are nodes, and none with few
//! points. What comes of merges that the cluster begins is far from both ([`super::unite`]).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Limits, View, unwell};
use crate::collection::{Collection, ShardDescriptor};
use crate::command::Command;
use crate::limits::MAX_SHARDS;
use crate::node::NodeStatus;
use crate::outcome::Refusal;
use crate::report::ReplicaReport;
use crate::split::{Split, SplitStep};
use crate::state::State;

/// Fewer points are not split: of so many a half gets 96 at the least, but for one split in some ten thousand.
pub(super) const MIN_POINTS: u64 = 256;
/// Nor for what they keep threads busy with: halves of this fill a segment each, and comparing fewer rows is not what takes the time.
pub(super) const MIN_BUSY_POINTS: u64 = 2 * 16_384;
/// A shard does too much if every one of its nodes has this part of its search threads busy with it, over ten minutes: with another one like
/// it the node would have no time left.
pub(super) const BUSY_PARTS: u64 = 2;
pub(super) const SECOND_US: u64 = 1_000_000;
/// A shard of which somebody did not want to have a split is left whole for an hour, as is one whose split a lost node cut short, and one
/// that came of a merge: somebody asked for it, or what is told of what it does says nothing yet.
const LEFT_WHOLE_MICROS: u64 = 3_600 * SECOND_US;

/// A shard that could be split, and why.
struct Candidate<'s> {
    collection: &'s Collection,
    shard: &'s ShardDescriptor,
    bytes: u64,
    /// For what it does, not for its size.
    by_load: bool,
    reason: String,
}

/// Begins as many splits as may be under way now, those of the largest shards first. Their shards become busy.
pub(super) fn splits(
    state: &State,
    view: &View<'_>,
    limits: &Limits,
    (busy, unix_micros): (&mut BTreeSet<u64>, u64),
) -> Vec<Command> {
    let mut commands = Vec::new();
    let is_full = |begun: usize| {
        state.splits_under_way().count() + begun >= limits.splits_at_once || state.under_way() + begun >= limits.at_once
    };
    let Some(above) = limits.split_above.filter(|_| !is_full(0)) else { return commands };
    let mut candidates = candidates(state, view, above);
    candidates.retain(|one| {
        let whole_at_least = if one.by_load { limits.load_known_after } else { limits.whole_at_least };
        !busy.contains(&one.shard.id) && !is_left_whole(state, one.shard.id, whole_at_least, unix_micros)
    });
    candidates.sort_by_key(|one| (Reverse(one.bytes), one.shard.id));
    let mut nodes: BTreeSet<u64> = state.splits_under_way().flat_map(|split| &split.right.replicas).copied().collect();
    // What is agreed bounds how many shards there are; so it has to be asked with those that were begun a moment ago.
    let mut after = state.clone();
    for Candidate { collection, shard, by_load, reason, .. } in candidates {
        if is_full(commands.len()) {
            break;
        }
        // One at a time on each node: what the halves do not have any more is removed by the threads that build.
        let is_near = shard.replicas.iter().any(|node| nodes.contains(node));
        if is_near
            || by_load && !others_could_help(&after, collection)
            || !has_room(state, view, shard)
            || unwell(state, view, collection, shard).is_some()
        {
            continue;
        }
        let Some(at) = shard.range.middle() else { continue };
        let (id, epoch, unasked) = (shard.id, shard.epoch, true);
        let command = Command::BeginSplit { shard: id, epoch, at, reason, unix_micros, unasked };
        match after.apply(command.clone()) {
            Ok(_) => {
                nodes.extend(&shard.replicas);
                busy.insert(shard.id);
                commands.push(command);
            }
            Err(Refusal::TooManyShards(_)) => break,
            Err(_) => {}
        }
    }
    commands
}

/// All that are too large or do too much. Nodes are asked first, since it is few shards that are.
fn candidates<'s>(state: &'s State, view: &View<'_>, above: u64) -> Vec<Candidate<'s>> {
    let reports = view.told.values().filter_map(|told| told.report.as_deref());
    let stand_out = reports.flat_map(|report| {
        let stands_out = move |one: &&ReplicaReport| one.data_bytes > above || is_busy(one, report.search_threads);
        report.replicas.iter().filter(stands_out).map(|one| one.shard)
    });
    let stand_out: BTreeSet<u64> = stand_out.collect();
    let could = |collection: &Collection| collection.shards.len() < MAX_SHARDS as usize;
    let shards = state.shards().filter(|(collection, shard)| stand_out.contains(&shard.id) && could(collection));
    let found = shards.filter_map(|(collection, shard)| {
        let told: Vec<_> = shard.replicas.iter().filter_map(|node| view.replica(*node, shard.id)).collect();
        let (points, bytes) = (median(&told, |one| one.points)?, median(&told, |one| one.data_bytes)?);
        let by_load = bytes <= above || points < MIN_POINTS;
        let reason = match by_load {
            false => format!("its points take {}, and a shard is split above {}", size(bytes), size(above)),
            true if points >= MIN_BUSY_POINTS => why_too_busy(state, view, collection, shard)?,
            true => return None,
        };
        Some(Candidate { collection, shard, bytes, by_load, reason })
    });
    found.collect()
}

/// Whether there are more nodes than replicas of the collection's shards: others can take over some of what one does only where they have
/// nothing of it yet.
fn others_could_help(state: &State, collection: &Collection) -> bool {
    let is_of_it = |split: &&Arc<Split>| collection.shards.iter().any(|shard| shard.id == split.shard);
    let shards = collection.shards.len() + state.splits_under_way().filter(is_of_it).count();
    shards * (collection.replication as usize) < state.nodes_for_replicas()
}

/// Why a shard does too much, if it does.
fn why_too_busy(state: &State, view: &View<'_>, collection: &Collection, shard: &ShardDescriptor) -> Option<String> {
    if !others_could_help(state, collection) {
        return None;
    }
    // Reads go to whichever replica is less busy: while one of them has time left, the shard has.
    let mut least: Option<(u64, u64, u32)> = None;
    for node in &shard.replicas {
        let threads = view.report(*node)?.search_threads;
        let told = view.replica(*node, shard.id).filter(|told| is_busy(told, threads))?;
        let us = told.load.lasting_us;
        if least.is_none_or(|(less, ..)| us < less) {
            least = Some((us, *node, threads));
        }
    }
    let (us, node, threads) = least?;
    let (busy, all, nodes) = (us as f64 / SECOND_US as f64, collection.shards.len(), state.nodes_for_replicas());
    Some(format!(
        "it keeps {busy:.1} of {threads} search threads of node {node} busy, and no other replica less; \
         its collection has {all} shards, and there are {nodes} nodes"
    ))
}

fn is_busy(told: &ReplicaReport, search_threads: u32) -> bool {
    let all = u64::from(search_threads) * SECOND_US;
    all > 0 && told.load.lasting_us > all / BUSY_PARTS
}

/// Whether a shard came of a split a short while ago, or was to be split and was not, or came of a merge, as far as that is known: the state
/// forgets all but the latest.
fn is_left_whole(state: &State, shard: u64, whole_at_least: Duration, unix_micros: u64) -> bool {
    let whole_at_least = u64::try_from(whole_at_least.as_micros()).unwrap_or(u64::MAX);
    let lately = |ended: Option<u64>, within: u64| ended.is_some_and(|at| unix_micros.saturating_sub(at) < within);
    let split = state.splits().any(|split| {
        let lately = |within: u64| lately(split.ended_unix_micros, within);
        match split.step {
            SplitStep::Done => [split.shard, split.right.id].contains(&shard) && lately(whole_at_least),
            SplitStep::Cancelled => split.shard == shard && lately(LEFT_WHOLE_MICROS),
            _ => false,
        }
    });
    split || state.merges().any(|merge| merge.into.id == shard && lately(merge.ended_unix_micros, LEFT_WHOLE_MICROS))
}

/// Whether all of a shard's nodes are there to stay, and take data: what one half does not have any more is written anew by merges.
fn has_room(state: &State, view: &View<'_>, shard: &ShardDescriptor) -> bool {
    shard.replicas.iter().all(|node| {
        let is_up = state.nodes().get(node).is_some_and(|node| node.status == NodeStatus::Up);
        is_up && view.report(*node).is_some_and(|report| report.shortage.is_none())
    })
}

/// A figure of which each replica tells its own: the one in the middle.
pub(super) fn median(told: &[&ReplicaReport], of: impl Fn(&ReplicaReport) -> u64) -> Option<u64> {
    let mut figures: Vec<u64> = told.iter().map(|one| of(one)).collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied()
}

/// Bytes in words.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}
