//! One group on its host: raft's node, who waits for what, and what the outside may know.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole};
use sagitta_model::ErrorKind;
use tokio::sync::{oneshot, watch};
use xxhash_rust::xxh3::xxh3_64;

use crate::admission::Permit;
use crate::apply::{Caller, Ticket};
use crate::driver::snapshot::Fetch;
use crate::error::LogError;
use crate::ids::{GroupId, NodeId, Position};
use crate::membership::{Members, Membership};
use crate::outcome::{Doubt, HandoverOutcome, Outcome, ReadOutcome, Refusal};
use crate::reads::Reads;
use crate::settings::ELECTION_TICKS;
use crate::storage::GroupStorage;
use crate::turns::turn;

/// What the outside may know of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// This member's part.
    pub role: Role,
    /// The leader as far as this member knows.
    pub leader: Option<NodeId>,
    /// Present term.
    pub term: u64,
    /// Known to be committed.
    pub committed: u64,
    /// Applied by the state machine.
    pub applied: u64,
    /// Made durable by the state machine.
    pub durable: u64,
    /// First entry of the log.
    pub first: u64,
    /// Last entry of the log.
    pub last: u64,
    /// Its term.
    pub last_term: u64,
    /// Who belongs to it.
    pub membership: Membership,
    /// Whether it works.
    pub condition: Condition,
}

/// A member's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
}

/// Whether a group works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does.
    Running,
    /// There is no room on disk: it takes no proposals, and goes on by itself when there is.
    Full(String),
    /// It stopped on a failure and must be opened anew.
    Stopped(String),
}

/// A proposal that raft has not seen yet.
pub(crate) struct Incoming {
    pub(crate) data: Bytes,
    pub(crate) caller: Caller,
    pub(crate) permit: Permit,
}

pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) me: NodeId,
    /// `None` once the group has stopped.
    pub(crate) node: Option<RawNode<GroupStorage>>,
    pub(crate) incoming: Vec<Incoming>,
    /// By index: the term it was appended in and its ticket.
    pub(crate) pending: BTreeMap<u64, (u64, Ticket)>,
    pub(crate) reads: Reads,
    /// Committed and durable here: may be applied.
    pub(crate) committed: u64,
    /// Handed to the applier.
    pub(crate) handed: u64,
    pub(crate) jobs: usize,
    /// Whether the applier owes an answer to a poll.
    pub(crate) polled: bool,
    /// The log is larger than it should be because of this group's entries.
    pub(crate) crowded: bool,
    pub(crate) applied: Position,
    pub(crate) durable: u64,
    pub(crate) membership: Membership,
    /// Where in the log it was changed last.
    pub(crate) changed_at: u64,
    /// A change of members that raft has not seen yet.
    pub(crate) wanted: Option<(Members, Ticket)>,
    /// Who asked for the joint change that is under way.
    pub(crate) change: Option<Ticket>,
    /// Ticks that a joint change has been under way for.
    pub(crate) joint_ticks: u64,
    /// The members that it was founded with.
    pub(crate) founders: Membership,
    /// See [`crate::GroupSpec::floor`].
    pub(crate) floor: Option<Position>,
    /// Ticks for which it stands at once. See [`crate::GroupSpec::stands_first`].
    stands_for: usize,
    /// Whether the state machine can offer its state.
    pub(crate) offers: bool,
    /// Where the state stood when the state machine was asked for an offer, which it still owes.
    pub(crate) offering: Option<u64>,
    /// Whether a member could not use what is offered.
    pub(crate) offer_broken: bool,
    /// How often in a row members could not use what was offered, and the tick before which nothing is offered again.
    pub(crate) offer_failures: u32,
    /// See there.
    pub(crate) offer_after: u64,
    /// When somebody last needed what is offered.
    pub(crate) offer_used: u64,
    /// Members that were offered the state, and when.
    pub(crate) offered: BTreeMap<NodeId, u64>,
    /// A state on its way here.
    pub(crate) fetch: Option<Fetch>,
    pub(crate) handover: Option<Handover>,
    /// A leader's message that this member is to take over, and the tick at which it came.
    pub(crate) bidding: Option<(u64, Message)>,
    /// Ticks of the host at which members were last heard of.
    pub(crate) heard: BTreeMap<NodeId, u64>,
    /// The last term that this member led, and since which tick of the host.
    pub(crate) leads_since: Option<(u64, u64)>,
    /// A change of members is agreed on and waits until a crash would not have that forgotten.
    pub(crate) commit_wanted: bool,
    pub(crate) condition: Condition,
    /// Whether it stopped because something is damaged: waiting does not help.
    pub(crate) damaged: bool,
    pub(crate) closing: Option<Closing>,
    pub(crate) status: watch::Sender<GroupStatus>,
}

/// A leadership that is being handed over.
pub(crate) struct Handover {
    pub(crate) to: NodeId,
    /// Whether raft has been told.
    pub(crate) begun: bool,
    pub(crate) deadline: Duration,
    pub(crate) answer: oneshot::Sender<HandoverOutcome>,
}

/// A group that is being closed.
pub(crate) struct Closing {
    pub(crate) deadline: Duration,
    pub(crate) answer: Option<oneshot::Sender<Result<(), String>>>,
}

impl Group {
    pub(crate) fn new(me: NodeId, id: GroupId, node: RawNode<GroupStorage>, opened: Opened) -> Self {
        let Opened { at, applied, durable, membership, founders, offers, floor } = opened;
        let status = GroupStatus {
            role: Role::Follower,
            leader: None,
            term: node.raft.term,
            committed: at,
            applied: applied.index,
            durable,
            first: node.store().truncated().index + 1,
            last: node.store().last().index,
            last_term: node.store().last().term,
            membership: membership.clone(),
            condition: Condition::Running,
        };
        Self {
            id,
            me,
            node: Some(node),
            incoming: Vec::new(),
            pending: BTreeMap::new(),
            reads: Reads::default(),
            committed: at,
            handed: at,
            jobs: 0,
            polled: false,
            crowded: false,
            applied,
            durable,
            membership,
            changed_at: 0,
            wanted: None,
            change: None,
            joint_ticks: 0,
            founders,
            floor,
            stands_for: 0,
            offers,
            offering: None,
            offer_broken: false,
            offer_failures: 0,
            offer_after: 0,
            offer_used: 0,
            offered: BTreeMap::new(),
            fetch: None,
            handover: None,
            bidding: None,
            heard: BTreeMap::new(),
            leads_since: None,
            commit_wanted: false,
            condition: Condition::Running,
            damaged: false,
            closing: None,
            status: watch::Sender::new(status),
        }
    }

    /// Lets raft do something. Raft panics where it sees no way on, and reads of the log may fail: either stops
    /// this group and no other.
    pub(crate) fn with_node<T>(&mut self, call: impl FnOnce(&mut RawNode<GroupStorage>) -> T) -> Option<T> {
        let node = self.node.as_mut()?;
        let result = catch_unwind(AssertUnwindSafe(|| call(node)));
        if let Some(failure) = node.store().take_failure() {
            self.stop_on(&failure);
            return None;
        }
        match result {
            Ok(value) => {
                self.keep_election_timeout();
                Some(value)
            }
            Err(panic) => {
                self.stop(&format!("raft gave up: {}", sagitta_env::panic_text(&*panic)));
                None
            }
        }
    }

    /// Stops the group on a failure of its log.
    pub(crate) fn stop_on(&mut self, failure: &LogError) {
        self.damaged |= failure.kind() == ErrorKind::Corrupt;
        self.stop(&failure.to_string());
    }

    /// What is said to callers of a group that has stopped.
    pub(crate) fn refusal(&self, why: &str) -> Refusal {
        let why = why.to_owned();
        if self.damaged { Refusal::Damaged { why } } else { Refusal::Stopped { why } }
    }

    /// Stops the group on a failure. The log and the state machine stay as they are.
    pub(crate) fn stop(&mut self, why: &str) {
        if !matches!(self.condition, Condition::Stopped(_)) {
            tracing::error!(group = %self.id, why, "the group stops");
            self.end(why);
        }
    }

    /// Ends the group: whoever still waits is told why.
    pub(crate) fn end(&mut self, why: &str) {
        if matches!(self.condition, Condition::Stopped(_)) {
            return;
        }
        self.condition = Condition::Stopped(why.to_owned());
        (self.node, self.fetch) = (None, None);
        let doubt = || Doubt::Stopped { why: why.to_owned() };
        let pending = std::mem::take(&mut self.pending).into_values().map(|(_, ticket)| ticket);
        for ticket in pending.chain(self.change.take()) {
            ticket.answer(Outcome::Unknown(doubt()));
        }
        if let Some(handover) = self.handover.take() {
            handover.answer(HandoverOutcome::Unknown(doubt()));
        }
        let refusal = self.refusal(why);
        for incoming in self.incoming.drain(..) {
            incoming.caller.answer(Outcome::Refused(refusal.clone()));
        }
        if let Some((_, ticket)) = self.wanted.take() {
            ticket.answer(Outcome::Refused(refusal));
        }
        for reader in self.reads.take_all() {
            reader.answer(ReadOutcome::Unknown(doubt()));
        }
        self.publish();
    }

    /// Why the group takes nothing in, if it does not.
    pub(crate) fn refuses(&self) -> Option<Refusal> {
        match &self.condition {
            Condition::Stopped(why) => Some(self.refusal(why)),
            _ if self.closing.is_some() => Some(Refusal::Closing),
            Condition::Full(what) => Some(Refusal::Full { what: what.clone() }),
            Condition::Running => None,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.raft.state == StateRole::Leader)
    }

    /// Whether this member needs nobody else for a decision.
    pub(crate) fn decides_alone(&self) -> bool {
        self.membership.decides_alone(self.me)
    }

    /// Whether a member was heard of within an election timeout.
    pub(crate) fn hears(&self, node: NodeId, ticks: u64) -> bool {
        node == self.me || self.heard.get(&node).is_some_and(|at| ticks - at <= ELECTION_TICKS as u64)
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.node.as_ref().map(|node| node.raft.leader_id).filter(|id| *id != 0).map(NodeId)
    }

    /// Whether this member has come back to a group that it left, and lacks what it may have held before: it must not be elected.
    pub(crate) fn is_below_floor(&self) -> bool {
        let Some(node) = &self.node else { return false };
        let last = Position { index: node.raft.raft_log.last_index(), term: node.raft.raft_log.last_term() };
        self.floor.is_some_and(|floor| last.is_before(floor))
    }

    /// Stands at each of so many ticks, unless somebody leads by then.
    pub(crate) fn stand_for(&mut self, ticks: usize) {
        self.stands_for = ticks;
    }

    /// Who needs nobody's vote waits for no timeout, nor does who is to stand first.
    pub(crate) fn campaign_early(&mut self) {
        if self.is_leader() || self.is_below_floor() {
            return;
        }
        if self.leader().is_some() {
            self.stands_for = 0;
        }
        // One whom a majority would elect waits for their votes.
        let is_candidate = self.node.as_ref().is_some_and(|node| node.raft.state == StateRole::Candidate);
        let stands = self.stands_for > 0 && self.membership.voters.contains(&self.me) && !is_candidate;
        self.stands_for = self.stands_for.saturating_sub(1);
        if self.decides_alone() || stands {
            self.with_node(RawNode::campaign);
        }
    }

    /// Gives raft all that has been proposed since the last round, in one step.
    pub(crate) fn propose_incoming(&mut self, now: Duration) {
        // While the leadership is handed over raft takes nothing: the next leader will.
        let hint = self
            .handover
            .as_ref()
            .filter(|handover| handover.begun)
            .map(|handover| handover.to)
            .or_else(|| self.leader());
        let is_leader = self.is_leader();
        let mut entries = Vec::new();
        let mut tickets = Vec::new();
        for Incoming { data, caller, permit } in self.incoming.drain(..) {
            if caller.deadline <= now {
                caller.answer(Outcome::Refused(Refusal::Expired));
            } else if is_leader {
                entries.push(Entry { context: seal(&data), data, ..Entry::default() });
                tickets.push(Ticket { caller: Some(caller), _permit: permit });
            } else {
                caller.answer(Outcome::NotLeader { hint });
            }
        }
        if entries.is_empty() {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.me.0;
        message.set_entries(entries.into());
        let stepped = self.with_node(|node| {
            let (next, term) = (node.raft.raft_log.last_index() + 1, node.raft.term);
            node.raft.step(message).map(|()| (next, term))
        });
        match stepped {
            Some(Ok((next, term))) => {
                for (index, ticket) in (next..).zip(tickets) {
                    // What stood there before was overwritten unseen: another leader's entry took its place.
                    if let Some((_, lost)) = self.pending.insert(index, (term, ticket)) {
                        lost.answer(Outcome::NotLeader { hint });
                    }
                }
            }
            // Leadership is being handed over, or we were removed.
            Some(Err(_)) => tickets.into_iter().for_each(|ticket| ticket.answer(Outcome::NotLeader { hint })),
            None => {
                let why = self.condition.to_string();
                tickets.into_iter().for_each(|ticket| {
                    ticket.answer(Outcome::Unknown(Doubt::Stopped { why: why.clone() }));
                });
            }
        }
    }

    /// Answers who has waited too long. The entries stay on their way.
    pub(crate) fn expire(&mut self, now: Duration) {
        for ticket in self.pending.values_mut().map(|(_, ticket)| ticket).chain(&mut self.change) {
            if let Some(late) = ticket.caller.take_if(|caller| caller.deadline <= now) {
                late.answer(Outcome::Unknown(Doubt::Deadline));
            }
        }
        if let Some((_, late)) = self.wanted.take_if(|(_, ticket)| ticket.is_late(now)) {
            late.answer(Outcome::Refused(Refusal::Expired));
        }
        for late in self.incoming.extract_if(.., |incoming| incoming.caller.deadline <= now) {
            late.caller.answer(Outcome::Refused(Refusal::Expired));
        }
        self.reads.expire(now);
    }

    /// Whether everything that was taken in has been applied.
    pub(crate) fn is_quiet(&self) -> bool {
        let settled = self.jobs == 0 && self.handed == self.committed;
        settled && self.incoming.is_empty() && self.wanted.is_none() && self.pending.is_empty() && self.reads.is_empty()
    }

    /// Shows the present state to those who watch.
    pub(crate) fn publish(&self) {
        self.status.send_if_modified(|status| {
            let mut changed = show(&mut status.applied, &self.applied.index);
            changed |= show(&mut status.durable, &self.durable);
            changed |= show(&mut status.condition, &self.condition);
            changed |= show(&mut status.membership, &self.membership);
            changed |= show(&mut status.leader, &self.leader());
            let Some(node) = &self.node else {
                return changed | show(&mut status.role, &Role::Follower);
            };
            let role = match node.raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            };
            changed |= show(&mut status.role, &role);
            changed |= show(&mut status.term, &node.raft.term);
            changed |= show(&mut status.committed, &node.raft.raft_log.committed);
            changed |= show(&mut status.first, &(node.store().truncated().index + 1));
            changed |= show(&mut status.last, &node.store().last().index);
            changed | show(&mut status.last_term, &node.store().last().term)
        });
    }

    /// Raft draws its timeouts from a generator of its own; ours take turns.
    fn keep_election_timeout(&mut self) {
        let Some(node) = &mut self.node else {
            return;
        };
        let wanted = turn(self.id, node.raft.term, self.me, &self.membership);
        if node.raft.randomized_election_timeout() != wanted {
            node.raft.set_randomized_election_timeout(wanted);
        }
    }
}

/// A checksum that stays with a proposal from here until it is applied, through memory, network and disk.
pub(crate) fn seal(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&xxh3_64(data).to_le_bytes())
}

/// Whether the value shown had to change.
fn show<T: PartialEq + Clone>(shown: &mut T, value: &T) -> bool {
    let changed = shown != value;
    if changed {
        shown.clone_from(value);
    }
    changed
}

/// What opening found out.
pub(crate) struct Opened {
    /// Where applying goes on from.
    pub(crate) at: u64,
    pub(crate) applied: Position,
    pub(crate) durable: u64,
    pub(crate) membership: Membership,
    pub(crate) founders: Membership,
    pub(crate) offers: bool,
    pub(crate) floor: Option<Position>,
}

impl Handover {
    pub(crate) fn answer(self, outcome: HandoverOutcome) {
        let _ = self.answer.send(outcome);
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Full(what) => write!(f, "no room on disk: {what}"),
            Self::Stopped(why) => write!(f, "stopped: {why}"),
        }
    }
}
