//! Which shards are merged unasked: neighbours of a collection that was split into more of them than people want, once both are small and
//! hardly do anything.
//!
//! It ends, and takes back nothing that people asked for: a collection keeps as many shards as are wanted ([`Collection::shards_wanted`]),
//! which the cluster does not change, so there are as many merges as it has split beyond that, at most. Nor do splits and merges follow one
//! another: the new shard has a quarter of what a shard is split above, at most, and keeps a quarter as much of its nodes busy as one that
//! is split for that. Before it is split, four times as much has come in, or is done. Where that comes and goes each day, what came of a
//! split or a merge stays for a day as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::halve::{BUSY_PARTS, SECOND_US, median, size};
use super::merges::{begin_merge, not_ready};
use super::{Limits, View};
use crate::collection::{Collection, ShardDescriptor};
use crate::command::Command;
use crate::report::ReplicaReport;
use crate::state::State;

/// Two shards are small if the points of both take this part of what one is split above, at most: what comes of them is split again once it
/// has grown to four times of that, and halves of what was split for its size are merged once three of four points are gone.
pub(super) const SMALL_PARTS: u64 = 4;
/// And they hardly do anything if they keep no node's search threads busier than this together: a quarter of the part ([`BUSY_PARTS`]) from
/// which on a shard is split for what it does. A node that has replicas of both has less to do afterwards, since a graph of all points takes
/// hardly longer than that of half of them; one that had none has no more than this to do.
pub(super) const IDLE_PARTS: u64 = 4 * BUSY_PARTS;
/// What came of a split or a merge is left as it is for a day, and so is what was to be and was not: the one costs a copy of all points, the
/// other has a reason, and what people do differs between day and night.
const LEFT_APART_MICROS: u64 = 24 * 3_600 * SECOND_US;
/// Of so many collections it is tried in each look whether a merge can begin: what speaks against one speaks against most, and each try
/// looks at all shards of the cluster.
const MAX_TRIED: usize = 16;

/// Two neighbours that could be merged, and why.
struct Candidate<'s> {
    left: &'s ShardDescriptor,
    right: &'s ShardDescriptor,
    /// What the points of both take.
    bytes: u64,
    reason: String,
}

/// Begins to merge the smallest neighbours that may be merged, if one more merge may be under way now. Both become busy.
pub(super) fn merge(
    state: &State,
    view: &View<'_>,
    limits: &Limits,
    (busy, unix_micros): (&mut BTreeSet<u64>, u64),
) -> Option<Command> {
    let unasked = state.merges_under_way().filter(|merge| merge.unasked).count();
    let is_full = unasked >= limits.merges_at_once || state.under_way() >= limits.at_once;
    let above = limits.split_above.filter(|_| !is_full)?;
    // One after the other in a collection, so that each is decided by what came of the one before.
    let splits = state.splits_under_way().map(|split| split.shard);
    let changing: BTreeSet<u64> = splits.chain(state.merges_under_way().map(|merge| merge.left)).collect();
    let is_quiet = |collection: &Collection| !collection.shards.iter().any(|shard| changing.contains(&shard.id));
    let collections = state.collections().values();
    let mut spare = collections.filter(|one| one.has_spare_shards() && is_quiet(one)).peekable();
    spare.peek()?;
    let mut left_alone = left_apart(state, limits.load_known_after, unix_micros);
    left_alone.extend(&*busy);
    let found = spare.filter_map(|collection| smallest(state, view, collection, (above, &left_alone)));
    let mut candidates: Vec<Candidate<'_>> = found.collect();
    candidates.sort_by_key(|one| (one.bytes, one.left.id));
    candidates.into_iter().take(MAX_TRIED).find_map(|Candidate { left, right, reason, .. }| {
        let shards = [(left.id, left.epoch), (right.id, right.epoch)];
        let (command, into) = begin_merge((state, view, limits), shards, (reason, true), unix_micros).ok()?;
        // A node that is silent for a moment would be waited for.
        if into.replicas.iter().any(|node| view.report(*node).is_none()) {
            return None;
        }
        busy.extend([left.id, right.id]);
        Some(command)
    })
}

/// Of the neighbours in a collection that could be merged the smallest ones.
fn smallest<'s>(
    state: &State,
    view: &View<'_>,
    collection: &'s Collection,
    (above, left_alone): (u64, &BTreeSet<u64>),
) -> Option<Candidate<'s>> {
    let shards = &collection.shards;
    let pairs = shards.iter().zip(shards.iter().skip(1));
    let free = pairs.filter(|(left, right)| ![left.id, right.id].iter().any(|shard| left_alone.contains(shard)));
    // Whether they are well is asked last, since it is few that are small.
    let could_be = free.filter_map(|(left, right)| {
        let bytes = small(view, [left, right], above)?;
        let is_ready = [left, right].into_iter().all(|shard| not_ready(state, view, collection, shard).is_none());
        (is_ready && is_idle(view, [left, right])).then_some((bytes, left, right))
    });
    let (bytes, left, right) = could_be.min_by_key(|(bytes, left, _)| (*bytes, left.id))?;
    let (count, wanted) = (shards.len(), collection.shards_wanted);
    let reason = format!(
        "the points of both take {}, and neighbours are merged up to {}; their collection has {count} shards, and keeps {wanted} at \
         the least",
        size(bytes),
        size(above / SMALL_PARTS)
    );
    Some(Candidate { left, right, bytes, reason })
}

/// What the points of two shards take, if that is little.
fn small(view: &View<'_>, shards: [&ShardDescriptor; 2], above: u64) -> Option<u64> {
    let (mut bytes, mut on_disk) = (0_u64, 0_u64);
    for shard in shards {
        let told = shard.replicas.iter().map(|node| view.replica(*node, shard.id)).collect::<Option<Vec<_>>>()?;
        // Nodes that tell nothing of what points take are older.
        if told.iter().any(|one| one.data_bytes == 0 && one.points > 0) {
            return None;
        }
        bytes = bytes.saturating_add(median(&told, |one| one.data_bytes)?);
        on_disk = on_disk.saturating_add(median(&told, |one| one.disk_bytes)?);
    }
    // A node that has just started has not looked at payloads yet, and tells less than it is. On the disk all of it is, and so the new shard is
    // not split at once in any case.
    (bytes <= above / SMALL_PARTS && on_disk <= above).then_some(bytes)
}

/// Whether two shards hardly do anything, as far as their nodes tell.
fn is_idle(view: &View<'_>, shards: [&ShardDescriptor; 2]) -> bool {
    let busiest = |shard: &ShardDescriptor| -> Option<u64> {
        let told = shard.replicas.iter().map(|node| {
            let threads = view.report(*node)?.search_threads;
            busy_millionths(view.replica(*node, shard.id)?, threads)
        });
        told.collect::<Option<Vec<u64>>>()?.into_iter().max()
    };
    let both = shards.into_iter().try_fold(0_u64, |both, shard| Some(both.saturating_add(busiest(shard)?)));
    both.is_some_and(|both| both <= SECOND_US / IDLE_PARTS)
}

/// What a replica keeps busy of its node's search threads, if the node tells how many it has.
fn busy_millionths(told: &ReplicaReport, search_threads: u32) -> Option<u64> {
    // What has just been opened has not done anything for ten minutes, however much it does.
    let us = told.load.lasting_us.max(told.load.recent_us);
    us.checked_div(u64::from(search_threads))
}

/// The shards that came of a split or a merge a short while ago, or were to become others and did not, as far as that is known: the state forgets
/// all but the latest.
fn left_apart(state: &State, load_known_after: Duration, unix_micros: u64) -> BTreeSet<u64> {
    let load_known_after = u64::try_from(load_known_after.as_micros()).unwrap_or(u64::MAX);
    let within = LEFT_APART_MICROS.max(load_known_after);
    let lately = |ended: Option<u64>| ended.is_some_and(|at| unix_micros.saturating_sub(at) < within);
    let splits = state.splits().filter(|split| lately(split.ended_unix_micros));
    let merges = state.merges().filter(|merge| lately(merge.ended_unix_micros));
    // Of these some are not there, which does no harm.
    let of_splits = splits.flat_map(|split| [split.shard, split.right.id]);
    of_splits.chain(merges.flat_map(|merge| [merge.left, merge.right, merge.into.id])).collect()
}
