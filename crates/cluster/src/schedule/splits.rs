//! How a split begins that somebody asks for, and how one that is under way goes on.

use std::collections::BTreeMap;

use super::{Limits, Told, View, unwell};
use crate::collection::Floor;
use crate::command::Command;
use crate::node::NodeStatus;
use crate::outcome::Refusal;
use crate::split::{Split, SplitStep};
use crate::state::State;

/// What comes next for a split, or what it waits for, in words.
pub(super) fn next_step(state: &State, view: &View<'_>, split: &Split) -> Result<(SplitStep, Floor), String> {
    let nowhere = Floor { term: 0, index: 0 };
    let Ok((collection, shard)) = state.shard(split.shard) else { return Err(String::new()) };
    let right = &split.right;
    match split.step {
        SplitStep::Prepare => {
            let status = |node: &u64| state.nodes().get(node).map(|node| node.status);
            // A replica that is lost is made anew first, which cannot begin while this is under way.
            if shard.replicas.iter().any(|node| status(node) != Some(NodeStatus::Up)) {
                return Ok((SplitStep::Cancelled, nowhere));
            }
            // All nodes should come by what they split off; one that does not fetches it from another.
            match unwell(state, view, collection, shard) {
                Some(why) => Err(format!("the shard to be well: {why}")),
                None => Ok((SplitStep::Divide, nowhere)),
            }
        }
        SplitStep::Divide => {
            let before = shard.split.map_or(0, |split| split.index);
            let told = shard.replicas.iter().filter_map(|node| view.replica(*node, shard.id)?.split);
            match told.filter(|split| split.index > before).max_by_key(|split| split.index) {
                Some(at) => Ok((SplitStep::Found, at)),
                None => Err("the leader of the shard's group to split it".to_owned()),
            }
        }
        SplitStep::Found => {
            let Some(at) = right.split else { return Err(String::new()) };
            let works = |node: &&u64| {
                let told = view.replica(**node, right.id);
                told.is_some_and(|told| told.problem.is_none() && told.split == Some(at))
            };
            let (works, wanted) = (right.replicas.iter().filter(works).count(), right.replicas.len() / 2 + 1);
            if works < wanted {
                return Err(format!("{} more nodes to have shard {}", wanted - works, right.id));
            }
            match view.group(right.id) {
                Some(_) => Ok((SplitStep::Done, at)),
                None => Err(format!("the group of shard {} to have a leader", right.id)),
            }
        }
        SplitStep::Done | SplitStep::Cancelled => Err(String::new()),
    }
}

/// The steps of splits that have come about. [`super::plan`] has them, too; they are few and found soon, and from the split on the shard
/// answers nobody until the last of them.
pub fn split_steps(state: &State, view: &View<'_>, unix_micros: u64) -> Vec<Command> {
    let steps = state.splits_under_way().filter_map(|split| {
        let (to, at) = next_step(state, view, split).ok()?;
        Some(Command::AdvanceSplit { id: split.id, from: split.step, to, at, unix_micros })
    });
    steps.collect()
}

/// What a split waits for, in words; empty when it has ended.
pub fn split_waits_for(state: &State, view: &View<'_>, split: &Split) -> String {
    match next_step(state, view, split) {
        Ok((step, _)) => format!("the step {step}, which is being agreed on"),
        Err(what) => what,
    }
}

/// The command that begins to split a shard in the middle of its hashes, and what there is to say about it. `epoch` is that of the
/// placement that whoever asks has seen.
///
/// # Errors
/// What is wrong with it by what is agreed, or else why it cannot be begun now, in words.
pub fn split_by_hand(
    state: &State,
    told: &BTreeMap<u64, Told>,
    limits: &Limits,
    (id, epoch): (u64, u64),
    unix_micros: u64,
) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    let (collection, shard) = state.shard(id).map_err(Ok)?;
    let range = shard.range;
    let Some(at) = range.middle() else {
        let reason = format!("has the single hash {:016x}, which cannot be halved", range.first);
        return Err(Ok(Refusal::invalid("shard", reason)));
    };
    let (reason, unasked) = ("somebody asked for it".to_owned(), false);
    let command = Command::BeginSplit { shard: id, epoch, at, reason, unix_micros, unasked };
    // What the state refuses says more than what follows from reports.
    State::clone(state).apply(command.clone()).map_err(Ok)?;
    let view = View::new(told);
    let not_up = |node: &&u64| state.nodes().get(node).is_none_or(|node| node.status != NodeStatus::Up);
    if let Some(node) = shard.replicas.iter().find(not_up) {
        let status = state.nodes().get(node).map_or("gone".to_owned(), |node| node.status.to_string());
        return Err(Err(format!("node {node}, which has a replica of it, is {status}: wait until another one has it")));
    }
    if let Some(why) = unwell(state, &view, collection, shard) {
        return Err(Err(format!("{why}: wait until it is well, which `sagitta shard show {id}` tells")));
    }
    // Little is written at first; but what goes to the other half is deleted here, and merges write anew what is left.
    let short = |node: &u64| Some((*node, view.report(*node)?.shortage.as_ref()?));
    if let Some((node, shortage)) = shard.replicas.iter().find_map(short) {
        return Err(Err(format!("node {node}, which has a replica of it, takes no more data ({shortage})")));
    }
    let under_way = state.under_way();
    if under_way >= limits.for_nodes(state.nodes_for_replicas()).at_once {
        let wait = "wait until `sagitta operation list` shows fewer";
        return Err(Err(format!("{under_way} operations are under way, and no more are begun at once: {wait}")));
    }
    let notes = format!("it keeps the hashes up to {:016x}; the new shard has those from {at:016x} on", at - 1);
    Ok((command, vec![notes]))
}
