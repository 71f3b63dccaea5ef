//! A group that has lost its majority for ever goes on with one member, which holds what is left of it.
//!
//! Nothing of the group's history is changed: entries are appended that take every other member out, as a leader would, and all that the
//! log holds is taken for agreed. So whoever is taken in later comes by the same members from the same log, and a crash leaves the log
//! as it was or as it is to be. What was not known to be agreed stays, since it may have been acknowledged elsewhere; that something was
//! acknowledged that is not here nobody can know.

use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};

use super::Driver;
use crate::error::ConsensusError;
use crate::ids::{GroupId, NodeId, Position};
use crate::log::{GroupState, LogBatch};
use crate::membership::Membership;
use crate::settings::MAX_APPLY_BYTES;
use crate::storage::GroupStorage;

impl Driver {
    /// Makes this node the only member, from `term` on. `membership` is as of the entry `applied`. A log that has been in that term stays
    /// as it is.
    pub(super) fn go_on_alone(
        &self,
        group: GroupId,
        state: GroupState,
        (membership, applied): (&Membership, u64),
        term: u64,
    ) -> Result<GroupState, ConsensusError> {
        if state.hard_state.term >= term {
            return Ok(state);
        }
        let me = self.settings.node;
        // Raft itself says what members the changes lead to.
        let mut scratch = self.raw_node(group, state.clone(), membership.clone(), applied)?;
        let at_end = self.membership_at_end(group, &mut scratch, membership.clone(), applied..state.last.index)?;
        let (mut index, mut entries, mut alone) = (state.last.index, Vec::new(), at_end.clone());
        for change in steps_to(&at_end, me) {
            alone = change_members(group, &mut scratch, &change)?;
            index += 1;
            let mut entry = Entry { index, term, ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.data = change.write_to_bytes().map_err(|error| refused(group, error.to_string()))?.into();
            entries.push(entry);
        }
        if !alone.is_only(me) {
            return Err(refused(group, format!("it cannot go on with {me} alone: its members would be {alone:?}")));
        }
        let known = state.hard_state.clone();
        let mut hard_state = known.clone();
        // As its leader: nobody else gets this vote in a term in which entries were written here.
        (hard_state.term, hard_state.vote, hard_state.commit) = (term, me.0, index);
        let not_known = state.last.index.saturating_sub(known.commit.max(applied));
        tracing::error!(
            %group, before = ?at_end, ended = %state.last, applied, committed = known.commit, was_in_term = known.term, taken_for_agreed = not_known, term,
            "an operator has this node go on alone with a group that has lost its majority: what other members agreed on and is not in the log here is \
             lost, and what is in it counts as agreed"
        );
        let mut batch = LogBatch::default();
        let write = batch.of(group);
        (write.entries, write.hard_state) = (entries, Some(hard_state.clone()));
        self.log.append(&batch)?;
        let last = if index == state.last.index { state.last } else { Position { index, term } };
        Ok(GroupState { hard_state, last, ..state })
    }

    /// The members once everything in the log is applied.
    fn membership_at_end(
        &self,
        group: GroupId,
        scratch: &mut RawNode<GroupStorage>,
        mut membership: Membership,
        after: std::ops::Range<u64>,
    ) -> Result<Membership, ConsensusError> {
        let mut next = after.start + 1;
        while next <= after.end {
            let entries = self.log.entries(group, next..after.end + 1, MAX_APPLY_BYTES)?;
            next += entries.len() as u64;
            for entry in entries {
                let unreadable = |error: protobuf::ProtobufError| {
                    refused(group, format!("the change of members at index {} cannot be read: {error}", entry.index))
                };
                membership = match entry.get_entry_type() {
                    EntryType::EntryNormal => continue,
                    EntryType::EntryConfChange => {
                        let change = ConfChange::parse_from_bytes(&entry.data).map_err(unreadable)?;
                        let state = scratch.apply_conf_change(&change);
                        Membership::from_raft(&state.map_err(|error| refused(group, error.to_string()))?)
                    }
                    EntryType::EntryConfChangeV2 => {
                        let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(unreadable)?;
                        change_members(group, scratch, &change)?
                    }
                };
            }
        }
        Ok(membership)
    }
}

fn change_members(
    group: GroupId,
    node: &mut RawNode<GroupStorage>,
    change: &ConfChangeV2,
) -> Result<Membership, ConsensusError> {
    let changed = node.apply_conf_change(change).map_err(|error| refused(group, error.to_string()))?;
    Ok(Membership::from_raft(&changed))
}

fn refused(group: GroupId, what: String) -> ConsensusError {
    ConsensusError::Refused { group, what }
}

/// The changes from there to a group of one: one voter at a time, which needs no joint change.
fn steps_to(from: &Membership, me: NodeId) -> Vec<ConfChangeV2> {
    let mut steps = Vec::new();
    if from.is_joint() {
        // Without a step it ends the change that is under way.
        steps.push(ConfChangeV2::default());
    }
    let mut step = |kind, node: NodeId| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = node.0;
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![single].into());
        steps.push(change);
    };
    if !from.voters.contains(&me) {
        step(ConfChangeType::AddNode, me);
    }
    let left = [&from.voters[..], &from.learners, &from.next_learners].concat();
    left.into_iter().filter(|node| *node != me).for_each(|node| step(ConfChangeType::RemoveNode, node));
    steps
}
