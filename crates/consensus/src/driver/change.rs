//! Changes of who belongs to a group and who leads it: what is let in, and how each ends.
//!
//! The rules beyond raft's: a member begins as a learner and votes once it has caught up, so that a new voter never holds
//! up a decision; a change is refused that would leave a majority of voters nobody hears of; a leader hands over before it
//! leaves, since the library's does not step down; one change at a time.

use std::time::Duration;

use bytes::Bytes;
use raft::RawNode;
use raft::eraftpb::{ConfChangeV2, Message, MessageType};

use super::open::FOUNDING;
use super::{Driver, log_waits};
use crate::apply::Ticket;
use crate::group::{Group, Handover};
use crate::ids::{GroupId, NodeId, Position};
use crate::machine::Committed;
use crate::membership::{Members, Membership};
use crate::outcome::{Applied, Doubt, HandoverOutcome, Outcome, Refusal};
use crate::settings::{ELECTION_TICKS, PROMOTE_WITHIN, STUCK_TICKS};
use crate::storage::GroupStorage;

/// Another member, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// Up to where its log is known to be the leader's.
    pub matched: u64,
    /// Whether it was heard of within an election timeout.
    pub heard: bool,
}

impl Driver {
    pub(super) fn change_members(&mut self, id: GroupId, members: Members, ticket: Ticket) {
        let Some(group) = self.groups.get_mut(&id) else {
            return ticket.answer(Outcome::Refused(self.absent()));
        };
        let refused = group.refuses().or_else(|| self.held.is_some().then(log_waits));
        if let Some(why) = refused {
            return ticket.answer(Outcome::Refused(why));
        }
        if group.wanted.is_some() {
            return ticket.answer(Outcome::Refused(change_under_way()));
        }
        group.wanted = Some((members, ticket));
        if !group.offers {
            self.truncations.remove(&id);
        }
        self.woken.insert(id);
    }

    pub(super) fn hand_leadership_over(&mut self, id: GroupId, handover: Handover) {
        let Some(group) = self.groups.get_mut(&id) else {
            return handover.answer(HandoverOutcome::Refused(self.absent()));
        };
        let to = handover.to;
        let under_way = |other: &Handover| Refusal::UnderWay { what: format!("a handover to {}", other.to) };
        let refused = group
            .refuses()
            .or_else(|| self.held.is_some().then(log_waits))
            .or_else(|| group.handover.as_ref().map(under_way));
        if let Some(why) = refused {
            return handover.answer(HandoverOutcome::Refused(why));
        }
        // Also when it is said to lead: who does not lead may have heard of it long ago.
        if !group.is_leader() {
            return handover.answer(HandoverOutcome::NotLeader { hint: group.leader() });
        }
        if to == group.me {
            return handover.answer(HandoverOutcome::Done);
        }
        if !group.membership.voters.contains(&to) {
            let what = format!("{to} is no voter and cannot lead");
            return handover.answer(HandoverOutcome::Refused(Refusal::BadMembers { what }));
        }
        if !group.hears(to, self.ticks) {
            return handover.answer(HandoverOutcome::Refused(Refusal::Unreachable { nodes: vec![to] }));
        }
        group.handover = Some(handover);
        group.begin_handover();
        self.woken.insert(id);
    }
}

fn change_under_way() -> Refusal {
    Refusal::UnderWay { what: "a change of members".to_owned() }
}

impl Group {
    /// Takes up the change that is wanted, if there is one.
    pub(super) fn begin_change(&mut self, ticks: u64) {
        // Whoever asked for the change before may have been answered a moment before raft learns that it was applied.
        if self.is_leader() && self.change_is_being_applied() {
            return;
        }
        let Some((members, ticket)) = self.wanted.take() else { return };
        if !self.is_leader() {
            return ticket.answer(Outcome::NotLeader { hint: self.leader() });
        }
        let steps = self.membership.steps_to(&members);
        if steps.get_changes().is_empty() && !self.membership.is_joint() && members.problem().is_none() {
            let (index, term) = (self.applied.index, self.applied.term);
            return ticket.answer(Outcome::Applied(Applied { index, term, response: Bytes::new() }));
        }
        if let Some(why) = self.objection(&members, ticks) {
            return ticket.answer(Outcome::Refused(why));
        }
        self.propose_change(steps, ticket);
    }

    fn change_is_being_applied(&self) -> bool {
        let pending =
            |node: &RawNode<GroupStorage>| node.raft.has_pending_conf() && node.raft.pending_conf_index <= self.handed;
        !self.membership.is_joint() && self.node.as_ref().is_some_and(pending)
    }

    /// Why these cannot become the members now.
    fn objection(&self, target: &Members, ticks: u64) -> Option<Refusal> {
        if let Some(what) = target.problem() {
            return Some(Refusal::BadMembers { what });
        }
        if self.membership.is_joint() || self.node.as_ref().is_some_and(|node| node.raft.has_pending_conf()) {
            return Some(change_under_way());
        }
        if let Some(handover) = &self.handover {
            return Some(Refusal::UnderWay { what: format!("a handover to {}", handover.to) });
        }
        if !target.voters.contains(&self.me) {
            return Some(Refusal::LeaderLeaves { leader: self.me });
        }
        if !self.offers && self.node.as_ref().is_some_and(|node| node.store().truncated() != FOUNDING) {
            let mut all = target.voters.iter().chain(&target.learners);
            if let Some(&node) = all.find(|node| !self.membership.contains(**node)) {
                let what = "it never could: the log has been cut, and this group does not offer its state".to_owned();
                return Some(Refusal::NotCaughtUp { node, what });
            }
        }
        let news = target.voters.iter().filter(|node| !self.membership.voters.contains(node));
        if let Some(refusal) = news.into_iter().find_map(|node| self.lag(*node)) {
            return Some(refusal);
        }
        let silent: Vec<_> = target.voters.iter().copied().filter(|node| !self.hears(*node, ticks)).collect();
        (2 * silent.len() >= target.voters.len()).then_some(Refusal::Unreachable { nodes: silent })
    }

    /// Why a node must not vote yet.
    fn lag(&self, node: NodeId) -> Option<Refusal> {
        if !self.membership.learners.contains(&node) {
            let what = "add it as a learner first".to_owned();
            return Some(Refusal::NotCaughtUp { node, what });
        }
        let (raft, store) = self.node.as_ref().map(|node| (&node.raft, node.store()))?;
        let matched = raft.prs().get(node.0).map_or(0, |progress| progress.matched);
        if matched < store.truncated().index {
            let what = "it has yet to fetch the state, since the log begins after what it has".to_owned();
            return Some(Refusal::NotCaughtUp { node, what });
        }
        let behind = raft.raft_log.committed.saturating_sub(matched);
        let what = format!("it lacks {behind} entries, at most {PROMOTE_WITHIN} are allowed");
        (behind > PROMOTE_WITHIN).then_some(Refusal::NotCaughtUp { node, what })
    }

    fn propose_change(&mut self, steps: ConfChangeV2, ticket: Ticket) {
        let proposed = self.with_node(|node| {
            let (index, term) = (node.raft.raft_log.last_index() + 1, node.raft.term);
            node.propose_conf_change(Vec::new(), steps).map(|()| (index, term, node.raft.pending_conf_index))
        });
        let hint = self.leader();
        match proposed {
            Some(Ok((index, term, pending))) if pending == index => {
                if let Some((_, lost)) = self.pending.insert(index, (term, ticket)) {
                    lost.answer(Outcome::NotLeader { hint });
                }
            }
            // Raft has put an empty entry in the place of a change that it does not want, without a word.
            Some(Ok(_)) => ticket.answer(Outcome::Refused(change_under_way())),
            Some(Err(_)) => ticket.answer(Outcome::NotLeader { hint }),
            None => ticket.answer(Outcome::Unknown(Doubt::Stopped { why: self.condition.to_string() })),
        }
    }

    /// Keeps who asked for a change back until it is whole: from the entry that begins a joint change to the one that ends it.
    pub(super) fn when_whole(&mut self, committed: &Committed, ticket: Option<Ticket>) -> Option<Ticket> {
        if committed.membership.is_none() {
            return ticket;
        }
        self.joint_ticks = 0;
        self.changed_at = committed.index;
        self.heard.retain(|node, _| self.membership.contains(*node));
        if !self.membership.is_joint() {
            return ticket.or_else(|| self.change.take());
        }
        self.change = ticket;
        None
    }

    /// Ends a joint change that nobody ends: the library's leader may step down at a moment when no other takes that up.
    pub(super) fn end_stuck_change(&mut self) {
        let pending = self.node.as_ref().is_some_and(|node| node.raft.has_pending_conf());
        if !self.membership.is_joint() || !self.is_leader() || pending {
            self.joint_ticks = 0;
            return;
        }
        self.joint_ticks += 1;
        if self.joint_ticks >= STUCK_TICKS {
            self.joint_ticks = 0;
            tracing::warn!(group = %self.id, "a change of members was not ended: ending it");
            // Refused, it is tried again later.
            self.with_node(|node| node.propose_conf_change(Vec::new(), ConfChangeV2::default()));
        }
    }

    /// Tells the next leader once it knows that it may lead: to one that has yet to hear that it votes now it would mean
    /// nothing, and this member would wait for an election timeout.
    pub(super) fn begin_handover(&mut self) {
        let Some(Handover { to, begun: false, .. }) = self.handover else { return };
        let knows = self.node.as_ref().and_then(|node| node.raft.prs().get(to.0)).map(|there| there.committed_index);
        if knows.is_none_or(|index| index < self.changed_at) {
            return;
        }
        self.with_node(|node| node.transfer_leader(to.0));
        if let Some(handover) = &mut self.handover {
            handover.begun = true;
        }
    }

    /// Lets raft see a message, one that bids this member take over only once it has applied what it knows to be committed:
    /// raft passes over such a bidding, without a word, while a change of members is among that.
    pub(super) fn step(&mut self, message: Message, ticks: u64) {
        if self.must_not_vote(&message) {
            return;
        }
        let bidden = message.get_msg_type() == MessageType::MsgTimeoutNow;
        let lags = |node: &RawNode<GroupStorage>| node.raft.raft_log.applied < node.raft.raft_log.committed;
        if bidden && self.node.as_ref().is_some_and(lags) {
            self.bidding = Some((ticks, message));
            return;
        }
        // Replies of members that left meanwhile are errors to raft, nothing to us.
        self.with_node(|node| node.step(message));
    }

    /// Whether a message asks this member to elect somebody, which one that left the group and came back must not do for whoever may lack
    /// what it held: it has forgotten that, and how it voted.
    fn must_not_vote(&self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let candidate = Position { index: message.index, term: message.log_term };
                self.floor.is_some_and(|floor| candidate.is_before(floor))
            }
            MessageType::MsgTimeoutNow => self.is_below_floor(),
            _ => false,
        }
    }

    /// Takes over, if that was put off and is still wanted: the leader gives up after an election timeout.
    pub(super) fn follow_bidding(&mut self, ticks: u64) {
        if let Some((at, message)) = self.bidding.take()
            && ticks - at < ELECTION_TICKS as u64
        {
            self.step(message, ticks);
            // Put off again, its age goes on.
            self.bidding = self.bidding.take().map(|(_, message)| (at, message));
        }
    }

    /// Ends this member's lead when it does not vote any more, as one can that was elected while a change took it out, and
    /// bids another take over. The library's would lead on: it grants reads where the new voters need nobody else to
    /// decide, and panics when the next entry commits.
    pub(super) fn step_down_without_vote(&mut self) {
        if !self.is_leader() || self.membership.is_joint() || self.membership.voters.contains(&self.me) {
            return;
        }
        self.step_down();
    }

    /// Ends this member's lead when it has heard of no majority for an election timeout, and bids another take over. The library's
    /// would look only every election timeout, so take up to two, and tell nobody: while those that hear it and are not
    /// heard go on following it, and elect nobody. A new leader has an election timeout to be answered: of those that voted for
    /// it some may have done so as long ago.
    pub(super) fn step_down_unheard(&mut self, ticks: u64) {
        let Some(term) = self.node.as_ref().filter(|_| self.is_leader()).map(|node| node.raft.term) else { return };
        if self.leads_since.is_none_or(|(led, _)| led != term) {
            self.leads_since = Some((term, ticks));
        }
        if self.leads_since.is_some_and(|(_, since)| ticks - since < ELECTION_TICKS as u64) {
            return;
        }
        let heard =
            |voters: &[NodeId]| 2 * voters.iter().filter(|node| self.hears(**node, ticks)).count() > voters.len();
        let Membership { voters, outgoing, .. } = &self.membership;
        if !(heard(voters) && (outgoing.is_empty() || heard(outgoing))) {
            tracing::warn!(group = %self.id, "no majority has been heard of for an election timeout: another may lead");
            self.step_down();
        }
    }

    fn step_down(&mut self) {
        let (me, voters) = (self.me, self.membership.voters.clone());
        self.with_node(|node| {
            let able = |id: u64| id != me.0 && voters.contains(&NodeId(id));
            let able = node.raft.prs().iter().filter(|(id, _)| able(**id));
            let next = able.max_by_key(|(id, progress)| (progress.matched, **id)).map(|(id, _)| *id);
            if let Some(next) = next {
                node.raft.send_timeout_now(next);
            }
            node.raft.become_follower(node.raft.term, 0);
        });
    }

    /// Answers who waits for a handover, once it is clear how it ended.
    pub(super) fn settle_handover(&mut self, now: Duration) {
        let Some(handover) = &self.handover else { return };
        let (to, leader) = (handover.to, self.leader());
        let begun = handover.begun;
        let given_up = || begun && self.node.as_ref().is_some_and(|node| node.raft.lead_transferee != Some(to.0));
        let outcome = match leader {
            Some(leader) if leader == to => HandoverOutcome::Done,
            Some(leader) if leader != self.me => HandoverOutcome::NotLeader { hint: Some(leader) },
            Some(_) if given_up() => HandoverOutcome::Refused(Refusal::NotTakenOver { to }),
            Some(_) if !begun && handover.deadline <= now => HandoverOutcome::Refused(Refusal::NotTakenOver { to }),
            _ if handover.deadline <= now => HandoverOutcome::Unknown(Doubt::Deadline),
            _ => return,
        };
        if let Some(handover) = self.handover.take() {
            handover.answer(outcome);
        }
    }

    pub(super) fn peers(&self, ticks: u64) -> Vec<Peer> {
        let Some(node) = self.node.as_ref().filter(|_| self.is_leader()) else {
            return Vec::new();
        };
        let others = node.raft.prs().iter().filter(|(id, _)| **id != self.me.0);
        let mut peers: Vec<_> = others
            .map(|(id, progress)| {
                let node = NodeId(*id);
                Peer { node, matched: progress.matched, heard: self.hears(node, ticks) }
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.node);
        peers
    }
}
