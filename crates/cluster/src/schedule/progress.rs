//! How an operation that is under way goes on.

use super::{CAUGHT_UP, LOST_AFTER, View};
use crate::collection::Floor;
use crate::node::NodeStatus;
use crate::operation::{Operation, OperationKind, OperationStep};
use crate::report::ReplicaRole;
use crate::state::State;

/// Whether a step has come about, or never will.
enum Progress {
    /// This comes next.
    Next(OperationStep, Floor),
    /// This is waited for.
    Waits(String),
}

pub(super) fn next_step(state: &State, view: &View<'_>, operation: &Operation) -> Option<(OperationStep, Floor)> {
    match progress(state, view, operation) {
        Progress::Next(step, at) => Some((step, at)),
        Progress::Waits(_) => None,
    }
}

/// What an operation waits for, in words.
pub fn waits_for(state: &State, view: &View<'_>, operation: &Operation) -> String {
    match progress(state, view, operation) {
        Progress::Next(step, _) => format!("the step {step}, which is being agreed on"),
        Progress::Waits(what) => what,
    }
}

fn progress(state: &State, view: &View<'_>, operation: &Operation) -> Progress {
    use OperationStep::{Cancelled, CatchUp, Done, Drop, Join, Switch, Undo};
    let nowhere = Floor { term: 0, index: 0 };
    let (shard, to) = (operation.shard, operation.to);
    let gone = |node: u64| {
        match state.nodes().get(&node).map(|node| node.status) {
            None | Some(NodeStatus::Lost | NodeStatus::Removed) => true,
            // It is not called lost, whether it is heard of or not.
            Some(NodeStatus::Draining | NodeStatus::Drained) => view.silence(node) >= LOST_AFTER,
            Some(NodeStatus::Joining | NodeStatus::Up) => false,
        }
    };
    let leaves = |node: u64| state.nodes().get(&node).is_some_and(|node| node.status == NodeStatus::Draining);
    // What only has nodes hold alike fills no disk, and keeps no repair of its shard waiting for a replica that does not work.
    let gives_way = || {
        let is_lost = |node: &u64| *node != to && Some(*node) != operation.from && gone(*node);
        let needs_repair = || state.shard(shard).is_ok_and(|(_, shard)| shard.replicas.iter().any(is_lost));
        let works = || view.replica(to, shard).is_some_and(|told| told.problem.is_none());
        let is_full = || view.report(to).is_some_and(|report| report.shortage.is_some());
        operation.kind == OperationKind::Rebalance && (is_full() || !works() && needs_repair())
    };
    let group = view.group(shard);
    match operation.step {
        Done | Cancelled => return Progress::Waits(String::new()),
        Drop => {
            let Some(from) = operation.from else { return Progress::Next(Done, nowhere) };
            // One that is lost removes what it has when it comes back.
            let removed = view.report(from).is_some() && view.replica(from, shard).is_none();
            return match gone(from) || removed {
                true => Progress::Next(Done, nowhere),
                false => Progress::Waits(format!("node {from} to remove its replica")),
            };
        }
        Join | CatchUp if operation.cancelled || gone(to) || leaves(to) || gives_way() => {
            return Progress::Next(Undo, nowhere);
        }
        _ => {}
    }
    let Some((members, at)) = group else {
        return Progress::Waits("a leader of the shard that tells who its members are".to_owned());
    };
    match operation.step {
        Join if members.contains(to) => Progress::Next(CatchUp, at),
        Join => Progress::Waits(format!("the shard's leader to take node {to} into its group")),
        CatchUp => match view.replica(to, shard) {
            None => Progress::Waits(format!("node {to} to tell that it has a replica")),
            Some(told) => match &told.problem {
                Some(problem) => Progress::Waits(format!("the replica on node {to} to work: {problem}")),
                // An empty one that has not heard of its group yet does not know that it belongs to it.
                None if told.role == ReplicaRole::Leader
                    || told.applied + CAUGHT_UP < at.index
                    || told.term < at.term =>
                {
                    let lacks = at.index.saturating_sub(told.applied);
                    Progress::Waits(format!("node {to} to receive {lacks} entries"))
                }
                None if members.contains(to) => Progress::Next(Switch, at),
                None => Progress::Waits(format!("the shard's leader to take node {to} into its group")),
            },
        },
        Switch if operation.is_switched(members) => Progress::Next(Drop, at),
        // Only while its vote is not needed: where it is a voter already there is no way back.
        Switch if gone(to) && !members.voters.contains(&to) => Progress::Next(Undo, at),
        Switch => Progress::Waits(format!("the shard's leader to make node {to} vote in the place of the other one")),
        // The group was faster, and there is no way back.
        Undo if members.voters.contains(&to) => Progress::Next(Switch, at),
        Undo if !members.contains(to) => Progress::Next(Cancelled, at),
        Undo => Progress::Waits(format!("the shard's leader to take node {to} out of its group")),
        Drop | Done | Cancelled => Progress::Waits(String::new()),
    }
}
