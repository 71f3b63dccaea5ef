//! Operations: replicas that are made on another node, step by step, and their form in JSON.

use sagitta_model::Violation;
pub use sagitta_model::{OperationKind, OperationStep};
use serde::{Deserialize, Serialize};

use crate::report::GroupMembers;

/// A replica that is made on another node. At most one of a shard is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Identity, never handed out twice.
    pub id: u64,
    /// Why it is done.
    pub kind: OperationKind,
    /// The shard.
    pub shard: u64,
    /// The node that gives its replica up; none if the shard has too few.
    pub from: Option<u64>,
    /// The node that gets a replica.
    pub to: u64,
    /// How far it is.
    pub step: OperationStep,
    /// Why it was begun, in words.
    pub reason: String,
    /// Whether somebody wants it not to come about.
    pub cancelled: bool,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
    /// When it ended, in microseconds since 1970.
    pub ended_unix_micros: Option<u64>,
}

/// What the leader of a shard's group does next for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Makes these the members.
    Members(GroupMembers),
    /// Has one of these lead, best first: it is to leave itself, and a leader cannot.
    HandOver(Vec<u64>),
}

impl Operation {
    /// Whether it has not ended.
    pub fn is_under_way(&self) -> bool {
        !self.step.is_end()
    }

    /// Whether a node is to hold the shard although its placement does not name it yet.
    pub fn brings_to(&self, node: u64) -> bool {
        use OperationStep::{CatchUp, Join, Switch, Undo};
        self.to == node && matches!(self.step, Join | CatchUp | Switch | Undo)
    }

    /// What the leader `me` of the shard's group does next, where these are its members. Nothing when what the step asks for has come
    /// about, so that it can be asked again and again. Never makes a learner of a voter, and takes no voter out for which there is no other.
    pub fn next_change(&self, members: &GroupMembers, me: u64) -> Option<MemberChange> {
        let to = self.to;
        let from = self.from.filter(|from| members.contains(*from));
        let mut next = members.clone();
        let without = |list: &mut Vec<u64>, gone: u64| list.retain(|node| *node != gone);
        match self.step {
            OperationStep::Join | OperationStep::CatchUp if !members.contains(to) => next.learners.push(to),
            OperationStep::Undo if members.learners.contains(&to) => without(&mut next.learners, to),
            OperationStep::Switch if members.learners.contains(&to) => {
                let others: Vec<u64> = members.voters.iter().copied().filter(|voter| *voter != me).collect();
                if from == Some(me) && !others.is_empty() {
                    return Some(MemberChange::HandOver(others));
                }
                without(&mut next.learners, to);
                next.voters.push(to);
                // Whoever is the only voter makes the other one vote first, and leaves when that one leads.
                if let Some(from) = from.filter(|from| *from != me) {
                    without(&mut next.voters, from);
                    without(&mut next.learners, from);
                }
            }
            OperationStep::Switch if members.voters.contains(&to) => match from {
                Some(from) if from == me => return Some(MemberChange::HandOver(vec![to])),
                Some(from) => {
                    without(&mut next.voters, from);
                    without(&mut next.learners, from);
                }
                None => return None,
            },
            // It has to receive before it votes; a group that lost it takes it in again.
            OperationStep::Switch => next.learners.push(to),
            _ => return None,
        }
        next.voters.sort_unstable();
        next.learners.sort_unstable();
        Some(MemberChange::Members(next))
    }

    /// Whether the group has the members that the operation leads to.
    pub fn is_switched(&self, members: &GroupMembers) -> bool {
        members.voters.contains(&self.to) && self.from.is_none_or(|from| !members.contains(from))
    }
}

/// Whether an operation may come from one step to another.
pub(crate) fn may_advance(from: OperationStep, to: OperationStep) -> bool {
    use OperationStep::*;
    match from {
        Join => matches!(to, CatchUp | Undo),
        CatchUp => matches!(to, Switch | Undo),
        Switch => matches!(to, Drop | Undo),
        Drop => matches!(to, Done),
        // The group was faster.
        Undo => matches!(to, Cancelled | Switch),
        Done | Cancelled => false,
    }
}

/// JSON form of an [`Operation`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationJson {
    id: u64,
    kind: String,
    shard: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    to: u64,
    step: String,
    reason: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cancelled: bool,
    begun_unix_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_unix_micros: Option<u64>,
}

impl From<&Operation> for OperationJson {
    fn from(operation: &Operation) -> Self {
        Self {
            id: operation.id,
            kind: operation.kind.to_string(),
            shard: operation.shard,
            from: operation.from,
            to: operation.to,
            step: operation.step.to_string(),
            reason: operation.reason.clone(),
            cancelled: operation.cancelled,
            begun_unix_micros: operation.begun_unix_micros,
            ended_unix_micros: operation.ended_unix_micros,
        }
    }
}

impl TryFrom<OperationJson> for Operation {
    type Error = Violation;

    fn try_from(json: OperationJson) -> Result<Self, Violation> {
        Ok(Self {
            id: json.id,
            kind: json.kind.parse()?,
            shard: json.shard,
            from: json.from,
            to: json.to,
            step: json.step.parse()?,
            reason: json.reason,
            cancelled: json.cancelled,
            begun_unix_micros: json.begun_unix_micros,
            ended_unix_micros: json.ended_unix_micros,
        })
    }
}

#[cfg(test)]
mod tests;
