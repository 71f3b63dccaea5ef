//! Opening a group: whose log it is, and whether it continues what the state machine holds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::HardState;
use raft::{Config, RawNode, ReadOnlyOption};

use super::{Driver, OpenAnswer};
use crate::apply::Job;
use crate::error::ConsensusError;
use crate::group::{Group, Opened};
use crate::ids::{GroupId, NodeId, Position};
use crate::log::{GroupMeta, GroupState, LogBatch};
use crate::machine::StateMachine;
use crate::membership::Membership;
use crate::settings::{
    ELECTION_TICKS, GroupSpec, HEARTBEAT_TICKS, MAX_COMMITTED_BYTES, MAX_INFLIGHT_MESSAGES, MAX_MESSAGE_BYTES,
    MAX_UNCOMMITTED_BYTES,
};
use crate::storage::GroupStorage;

/// A log begins after this entry, which stands for the founding membership and is never written, unless its group is founded on a state.
pub(crate) const FOUNDING: Position = Position { index: 1, term: 1 };

impl Driver {
    pub(super) fn open_group(&mut self, spec: &GroupSpec, machine: Box<dyn StateMachine>) -> OpenAnswer {
        let id = spec.group;
        if let Some(why) = &self.stopped {
            return Err(ConsensusError::Stopped { why: why.clone() });
        }
        if self.shutdown.is_some() {
            return Err(ConsensusError::Stopped { why: "shutting down".to_owned() });
        }
        if self.groups.contains_key(&id) {
            return Err(ConsensusError::Open { group: id });
        }
        let (state, is_founded) = match self.log.load(id)? {
            Some(state) => (state, false),
            None => (self.found(spec, machine.applied())?, true),
        };
        self.check_identity(id, &state.meta)?;
        let applied = machine.applied();
        let state = match machine.installed() {
            Some(installed) if installed == applied => self.go_on_after(id, state, installed)?,
            _ => state,
        };
        check_continuity(id, &state, applied, |index| self.log.term(id, index))?;

        let at = applied.index.max(FOUNDING.index);
        let membership = machine.membership().unwrap_or_else(|| state.meta.founders.clone());
        let state = match spec.alone_from {
            Some(_) if at.max(state.last.index) <= FOUNDING.index => {
                let what = "it holds nothing, so it cannot be what is left of its group".to_owned();
                return Err(ConsensusError::Refused { group: id, what });
            }
            Some(term) => self.go_on_alone(id, state, (&membership, at), term)?,
            None => state,
        };
        let founders = state.meta.founders.clone();
        let node = self.raw_node(id, state, membership.clone(), at)?;
        let (durable, offers) = (machine.durable(), machine.offers());
        let opened = Opened { at, applied, durable, membership, founders, offers, floor: spec.floor };
        let mut group = Group::new(self.settings.node, id, node, opened);
        if is_founded && spec.stands_first {
            group.stand_for(ELECTION_TICKS);
        }
        group.campaign_early();
        let status = group.status.subscribe();
        self.jobs.push(Job::Open { group: id, machine });
        self.groups.insert(id, group);
        self.woken.insert(id);
        Ok(status)
    }

    /// Writes the beginning of a new log.
    fn found(&self, spec: &GroupSpec, applied: Position) -> Result<GroupState, ConsensusError> {
        let group = spec.group;
        let voters = spec.found_with.as_ref().ok_or(ConsensusError::Absent { group })?;
        if applied != spec.found_at.unwrap_or_default() {
            let what = format!("there is no log, but the state machine has applied {applied}");
            return Err(ConsensusError::Gap { group, what });
        }
        let begin = if applied.index < FOUNDING.index { FOUNDING } else { applied };
        if voters.is_empty() || voters.contains(&NodeId(0)) || group.0 == 0 {
            let what = "groups and nodes are numbered from 1, and a group has a voter".to_owned();
            return Err(ConsensusError::Refused { group, what });
        }
        let founders = Membership::of_voters(voters);
        let meta = GroupMeta { cluster: self.settings.cluster, node: self.settings.node, founders };
        let mut hard_state = HardState::default();
        // Leaders of earlier terms than the floor's may be deposed, and this member no longer knows that it has followed their successors.
        let term = spec.floor.map_or(begin.term, |floor| floor.term.max(begin.term));
        (hard_state.term, hard_state.commit) = (term, begin.index);
        let mut batch = LogBatch::default();
        let write = batch.of(group);
        write.meta = Some(meta.clone());
        write.truncate = Some(begin);
        write.hard_state = Some(hard_state.clone());
        self.log.append(&batch)?;
        Ok(GroupState { meta, hard_state, truncated: begin, last: begin })
    }

    fn check_identity(&self, group: GroupId, meta: &GroupMeta) -> Result<(), ConsensusError> {
        if meta.cluster != self.settings.cluster {
            let (stored, expected) = (meta.cluster, self.settings.cluster);
            return Err(ConsensusError::OtherCluster { group, stored, expected });
        }
        if meta.node != self.settings.node {
            let (stored, expected) = (meta.node, self.settings.node);
            return Err(ConsensusError::OtherNode { group, stored, expected });
        }
        Ok(())
    }

    /// Raft over a log, which continues what was applied.
    pub(super) fn raw_node(
        &self,
        group: GroupId,
        state: GroupState,
        membership: Membership,
        applied: u64,
    ) -> Result<RawNode<GroupStorage>, ConsensusError> {
        let storage = GroupStorage::new(group, self.log.clone(), state, membership, applied);
        let config = Config {
            id: self.settings.node.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            // Leases would trust clocks.
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            ..Config::default()
        };
        // It panics over members that make no group.
        let built = catch_unwind(AssertUnwindSafe(|| RawNode::new(&config, storage, &self.logger)));
        let refused = |what: String| ConsensusError::Refused { group, what };
        built
            .map_err(|panic| refused(format!("raft gave up: {}", sagitta_env::panic_text(&*panic))))?
            .map_err(|error| refused(error.to_string()))
    }
}

/// The log must reach back to what was applied and forward beyond it, and agree with it.
pub(crate) fn check_continuity(
    group: GroupId,
    state: &GroupState,
    applied: Position,
    term_at: impl FnOnce(u64) -> Result<u64, crate::LogError>,
) -> Result<(), ConsensusError> {
    let GroupState { truncated, last, hard_state, .. } = state;
    let gap = |what: String| Err(ConsensusError::Gap { group, what });
    let at = applied.index.max(FOUNDING.index);
    if at < truncated.index {
        let first = truncated.index + 1;
        return gap(format!("the log begins at index {first}, the state machine has applied only {applied}"));
    }
    if at > last.index {
        return gap(format!("the log ends at {last}, but the state machine has applied {applied}"));
    }
    if hard_state.commit > last.index {
        return gap(format!("the log ends at {last}, but index {} was committed", hard_state.commit));
    }
    if applied.index >= FOUNDING.index {
        let term = term_at(applied.index)?;
        if term != applied.term {
            return gap(format!("the state machine has applied {applied}, the log has term {term} there"));
        }
    }
    Ok(())
}
