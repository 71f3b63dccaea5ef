//! How a split that is under way goes on.

use super::{View, unwell};
use crate::collection::Floor;
use crate::node::NodeStatus;
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

/// What a split waits for, in words; empty when it has ended.
pub fn split_waits_for(state: &State, view: &View<'_>, split: &Split) -> String {
    match next_step(state, view, split) {
        Ok((step, _)) => format!("the step {step}, which is being agreed on"),
        Err(what) => what,
    }
}
