//! What speaks against a merge that is to begin, and how one that is under way goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Limits, Told, View, unwell};
use crate::collection::{Collection, Floor, ShardDescriptor};
use crate::command::Command;
use crate::merge::{FLOOR_MARGIN, Merge, MergeStep};
use crate::node::NodeStatus;
use crate::outcome::Refusal;
use crate::report::MergeStage;
use crate::state::State;

/// What is not copied after so long is given up: the shards are small, and nothing else is done about them meanwhile.
const COPIES_AT_MOST: Duration = Duration::from_secs(3_600);
/// Shards that are frozen take no write. What is left to be brought over is little; a merge that is not complete after so long is given up,
/// so that with what it takes to agree on that and to thaw them it is about a second.
const FROZEN_AT_MOST: Duration = Duration::from_millis(600);

/// What comes next for a merge, or what it waits for, in words.
pub(super) fn next_step(state: &State, view: &View<'_>, merge: &Merge, unix_micros: u64) -> Result<MergeStep, String> {
    let (Ok((collection, left)), Ok((_, right))) = (state.shard(merge.left), state.shard(merge.right)) else {
        return Err(String::new());
    };
    let into = &merge.into;
    // Nothing where the clock of whoever leads now is behind that of the one before.
    let lasts = unix_micros.checked_sub(merge.since_unix_micros).map(Duration::from_micros);
    match merge.step {
        MergeStep::Prepare | MergeStep::Copy => {
            let is_up = |node: &u64| state.nodes().get(node).is_some_and(|node| node.status == NodeStatus::Up);
            // A replica that is lost is made anew first, which cannot begin while this is under way.
            let all = [left, right, into].into_iter().flat_map(|shard| &shard.replicas);
            if !all.into_iter().all(is_up) || lasts.is_some_and(|lasts| lasts > COPIES_AT_MOST) {
                return Ok(MergeStep::Cancelled);
            }
            let unwell = |shard: &ShardDescriptor| {
                let why = unwell(state, view, collection, shard)?;
                Some(format!("shard {} to be well: {why}", shard.id))
            };
            if let Some(why) = [into, left, right].into_iter().find_map(unwell) {
                return Err(why);
            }
            let is_ready = view.merge_stages(merge, into).any(|stage| stage == MergeStage::Ready);
            match merge.step {
                // All nodes have it from its beginning on, so that none founds its group later, when the others are further.
                MergeStep::Prepare => Ok(MergeStep::Copy),
                _ if is_ready => Ok(MergeStep::Freeze),
                _ => Err(format!("shard {} to be filled", into.id)),
            }
        }
        // It was agreed on in their logs: whoever tells, it is so.
        MergeStep::Freeze => {
            if view.merge_stages(merge, into).any(|stage| stage == MergeStage::Filled) {
                return Ok(MergeStep::Done);
            }
            // What is frozen must not wait for a clock to come right.
            if lasts.is_none_or(|lasts| lasts > FROZEN_AT_MOST) {
                return Ok(MergeStep::Thaw);
            }
            Err(format!("shard {} to be complete", into.id))
        }
        MergeStep::Thaw => {
            let frozen = [left, right]
                .into_iter()
                .find(|shard| !view.merge_stages(merge, shard).any(|stage| stage == MergeStage::Thawed));
            frozen.map_or(Ok(MergeStep::Cancelled), |shard| Err(format!("shard {} to work on", shard.id)))
        }
        MergeStep::Done | MergeStep::Cancelled => Err(String::new()),
    }
}

/// The steps of merges that have come about. [`super::plan`] has them, too; they are few and found soon, and while the shards are
/// frozen they answer nobody.
pub fn merge_steps(state: &State, view: &View<'_>, unix_micros: u64) -> Vec<Command> {
    let steps = state.merges_under_way().filter_map(|merge| {
        let to = next_step(state, view, merge, unix_micros).ok()?;
        Some(Command::AdvanceMerge { id: merge.id, from: merge.step, to, unix_micros })
    });
    steps.collect()
}

/// How long it is until a merge that is under way is given up, whatever is told until then; none if none can be.
pub fn next_merge_deadline(state: &State, unix_micros: u64) -> Option<Duration> {
    let left = |merge: &Merge| {
        let lasts = unix_micros.checked_sub(merge.since_unix_micros).map(Duration::from_micros);
        match (merge.step, lasts) {
            (MergeStep::Freeze, lasts) => lasts.map_or(Duration::ZERO, |lasts| FROZEN_AT_MOST.saturating_sub(lasts)),
            (_, lasts) => COPIES_AT_MOST.saturating_sub(lasts.unwrap_or_default()),
        }
    };
    let timed = state.merges_under_way().filter(|merge| merge.step != MergeStep::Thaw);
    timed.map(|merge| left(merge)).min()
}

/// What a merge waits for, in words; empty when it has ended.
pub fn merge_waits_for(state: &State, view: &View<'_>, merge: &Merge, unix_micros: u64) -> String {
    match next_step(state, view, merge, unix_micros) {
        Ok(step) => format!("the step {step}, which is being agreed on"),
        Err(what) => what,
    }
}

/// The command that begins to merge two neighbouring shards, and what there is to say about it. Each comes with the epoch of the
/// placement that whoever asks has seen.
///
/// # Errors
/// What is wrong with it by what is agreed, or else why it cannot be begun now, in words.
pub fn merge_by_hand(
    state: &State,
    told: &BTreeMap<u64, Told>,
    limits: &Limits,
    shards: [(u64, u64); 2],
    unix_micros: u64,
) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    let (view, limits) = (View::new(told), &limits.for_nodes(state.nodes_for_replicas()));
    let why = ("somebody asked for it".to_owned(), false);
    let (command, into) = begin_merge((state, &view, limits), shards, why, unix_micros)?;
    let nodes = into.replicas.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let (first, last) = (into.range.first, into.range.last);
    let notes = format!("the new shard has the hashes {first:016x} to {last:016x}, on the nodes {nodes}");
    Ok((command, vec![notes]))
}

/// The command that begins to merge two neighbouring shards, and the new shard as it will be. `why` is the reason, and whether nobody
/// has asked for it; `limits` are those of a cluster as large as this.
///
/// # Errors
/// Those of [`merge_by_hand`].
pub(super) fn begin_merge(
    (state, view, limits): (&State, &View<'_>, &Limits),
    shards: [(u64, u64); 2],
    why: (String, bool),
    unix_micros: u64,
) -> Result<(Command, ShardDescriptor), Result<Refusal, String>> {
    let found = shards.map(|(id, _)| state.shard(id));
    let [Ok((collection, left)), Ok((_, right))] = found else {
        let missing = found.into_iter().find_map(Result::err);
        return Err(Ok(missing.expect("invariant: one of them was not found")));
    };
    let applied = [left, right].map(|shard| view.group(shard.id).map_or(0, |(_, at)| at.index));
    let index = applied.into_iter().max().unwrap_or(0).saturating_add(FLOOR_MARGIN);
    let [(left_id, left_epoch), (right_id, right_epoch)] = shards;
    let (reason, unasked) = why;
    let command = Command::BeginMerge {
        left: left_id,
        left_epoch,
        right: right_id,
        right_epoch,
        floor: Floor { term: 1, index },
        reason,
        unix_micros,
        unasked,
    };
    // What the state refuses says more than what follows from reports.
    let mut begun = State::clone(state);
    begun.apply(command.clone()).map_err(Ok)?;
    let Some(into) = begun.merge_on(left_id).map(|merge| merge.into.clone()) else {
        return Err(Err("it has ended already: ask again".to_owned()));
    };
    if let Some(why) = [left, right].into_iter().find_map(|shard| not_ready(state, view, collection, shard)) {
        return Err(Err(why));
    }
    let short = |node: &u64| Some((*node, view.report(*node)?.shortage.as_ref()?));
    if let Some((node, shortage)) = into.replicas.iter().find_map(short) {
        return Err(Err(format!("node {node}, which would get a replica of both, takes no more data ({shortage})")));
    }
    let under_way = state.under_way();
    if under_way >= limits.at_once {
        let wait = "wait until `sagitta operation list` shows fewer";
        return Err(Err(format!("{under_way} operations are under way, and no more are begun at once: {wait}")));
    }
    Ok((command, into))
}

/// Why a shard cannot be merged now, and what helps, in words.
pub(super) fn not_ready(
    state: &State,
    view: &View<'_>,
    collection: &Collection,
    shard: &ShardDescriptor,
) -> Option<String> {
    let not_up = |node: &&u64| state.nodes().get(node).is_none_or(|node| node.status != NodeStatus::Up);
    if let Some(node) = shard.replicas.iter().find(not_up) {
        let status = state.nodes().get(node).map_or("gone".to_owned(), |node| node.status.to_string());
        let what = format!("node {node}, which has a replica of shard {}, is {status}", shard.id);
        return Some(format!("{what}: wait until another one has it"));
    }
    let why = unwell(state, view, collection, shard)?;
    let tells = format!("`sagitta shard show {}` tells", shard.id);
    Some(format!("shard {}: {why}: wait until it is well, which {tells}", shard.id))
}
