//! Moves that somebody asks for.

use std::collections::BTreeMap;

use super::target::Traffic;
use super::{Limits, Told, View, unwell};
use crate::collection::ShardDescriptor;
use crate::command::Command;
use crate::operation::{Operation, OperationKind, OperationStep};
use crate::outcome::Refusal;
use crate::state::State;

/// A move that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// The shard.
    pub shard: u64,
    /// The node that gives its replica up.
    pub from: u64,
    /// The node that gets it.
    pub to: u64,
}

impl ByHand {
    /// Whether an operation is this move: begun by the same request, whose answer was lost. One that is being undone is not.
    pub fn is(&self, operation: &Operation) -> bool {
        operation.kind == OperationKind::Move
            && (operation.from, operation.to) == (Some(self.from), self.to)
            && !operation.cancelled
            && operation.step != OperationStep::Undo
    }
}

/// The command that begins a move, and what there is to say about it.
///
/// # Errors
/// What is wrong with it by what is agreed, or else why it cannot be begun now, in words.
pub fn move_by_hand(
    state: &State,
    told: &BTreeMap<u64, Told>,
    limits: &Limits,
    asked: ByHand,
    unix_micros: u64,
) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    let ByHand { shard: id, from, to } = asked;
    let (collection, shard) = state.shard(id).map_err(Ok)?;
    let (kind, reason, epoch) = (OperationKind::Move, "somebody asked for it".to_owned(), shard.epoch);
    let command = Command::BeginOperation { kind, shard: id, epoch, from: Some(from), to, reason, unix_micros };
    // What the state refuses says more than what follows from reports.
    State::clone(state).apply(command.clone()).map_err(Ok)?;
    let view = View::new(told);
    if let Some(why) = unwell(state, &view, collection, shard) {
        return Err(Err(format!("{why}: wait until it is well, which `sagitta shard show {id}` tells")));
    }
    match view.report(to) {
        None => return Err(Err(format!("node {to} is not heard of: start it, or name another node"))),
        Some(report) => {
            if let Some(shortage) = &report.shortage {
                return Err(Err(format!("node {to} takes no more data ({shortage}): name another node")));
            }
        }
    }
    let under_way: Vec<_> = state.operations_under_way().collect();
    let (traffic, limits) = (Traffic::new(&under_way), limits.for_nodes(state.nodes_for_replicas()));
    let busy = [
        (traffic.total() >= limits.at_once, format!("{} operations are under way", traffic.total())),
        (
            traffic.moving_to(to) >= limits.per_node,
            format!("{} replicas are on their way into node {to}", limits.per_node),
        ),
        (traffic.out_of(from) >= limits.per_node, format!("{} replicas leave node {from}", limits.per_node)),
    ];
    if let Some((_, why)) = busy.into_iter().find(|(is_busy, _)| *is_busy) {
        return Err(Err(format!(
            "{why}, and no more are moved at once: wait until `sagitta operation list` shows fewer"
        )));
    }
    Ok((command, warnings(state, shard, asked)))
}

/// What whoever asks may not have thought of.
fn warnings(state: &State, shard: &ShardDescriptor, ByHand { from, to, .. }: ByHand) -> Vec<String> {
    let zone = |node: u64| state.nodes().get(&node).map_or("", |node| &*node.place.zone);
    let others = |name: &str| shard.replicas.iter().filter(|node| **node != from && zone(**node) == name).count();
    let (before, after) = (others(zone(from)), others(zone(to)));
    if after <= before {
        return Vec::new();
    }
    let count =
        |others: usize| if others == 1 { "one other replica".to_owned() } else { format!("{others} other replicas") };
    let name = match zone(to) {
        "" => "no zone".to_owned(),
        zone => format!("zone {zone}"),
    };
    vec![format!("it shares {name} with {} of the shard then", count(after))]
}
