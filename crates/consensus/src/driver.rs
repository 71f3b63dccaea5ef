//! The logic of a host without its threads: inputs in, one round of all groups at a time, jobs for the applier out.
//!
//! Time is an argument, so a seed decides a run. [`crate::Host`] puts threads around it; tests drive it by hand.

mod alone;
pub(crate) mod change;
pub(crate) mod open;
mod ready;
pub(crate) mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use raft::StateRole;
use raft::eraftpb::MessageType;
use sagitta_env::Env;
use slog::Logger;
use tokio::sync::oneshot;

use self::ready::Held;
use crate::admission::Permit;
use crate::apply::{Done, Job, Ticket};
use crate::drain;
use crate::driver::change::Peer;
use crate::envelope::Envelope;
use crate::error::{ConsensusError, LogError};
use crate::group::{Closing, Condition, Group, GroupStatus, Handover, Incoming};
use crate::host::Counters;
use crate::ids::{GroupId, NodeId, Position};
use crate::log::LogStore;
use crate::machine::{FetchEnded, OfferEnded, StateMachine};
use crate::membership::Members;
use crate::outcome::{Doubt, Outcome, ReadOutcome, Refusal};
use crate::reads::Reader;
use crate::settings::{
    GroupSpec, HostSettings, KEEP_BYTES, KEEP_ENTRIES, KEEP_FOR_PEERS, POLL_TICKS, PURGE_TICKS, TRUNCATE_STEP,
    TRUNCATE_STEP_BYTES,
};
use crate::transport::Transport;

/// What reaches a host.
pub(crate) enum Input {
    Propose {
        group: GroupId,
        incoming: Incoming,
    },
    Read {
        group: GroupId,
        reader: Reader,
    },
    /// With the room that they take up in the inbox.
    Messages(Vec<Bytes>, Option<Permit>),
    Unreachable(NodeId),
    Change {
        group: GroupId,
        members: Members,
        ticket: Ticket,
    },
    HandOver {
        group: GroupId,
        handover: Handover,
    },
    Peers {
        group: GroupId,
        answer: oneshot::Sender<Vec<Peer>>,
    },
    Open {
        spec: GroupSpec,
        machine: Box<dyn StateMachine>,
        answer: oneshot::Sender<OpenAnswer>,
    },
    Close {
        group: GroupId,
        deadline: Duration,
        answer: oneshot::Sender<Result<(), String>>,
    },
    Remove {
        group: GroupId,
        answer: oneshot::Sender<Result<(), ConsensusError>>,
    },
    Shutdown {
        deadline: Duration,
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// A way to watch the group's status, from which a handle is made.
pub(crate) type OpenAnswer = Result<tokio::sync::watch::Receiver<GroupStatus>, ConsensusError>;

pub(crate) struct Driver {
    env: Env,
    settings: HostSettings,
    log: Arc<dyn LogStore>,
    transport: Arc<dyn Transport>,
    logger: Logger,
    groups: BTreeMap<GroupId, Group>,
    /// Groups in which something may have happened since the last round.
    woken: BTreeSet<GroupId>,
    jobs: Vec<Job>,
    /// Where state machines tell how fetching a state ended.
    fetches: (Sender<FetchEnded>, Receiver<FetchEnded>),
    /// Where they tell how offering one ended.
    offers: (Sender<OfferEnded>, Receiver<OfferEnded>),
    /// A round that waits for room in the log.
    held: Option<Held>,
    truncations: BTreeMap<GroupId, Position>,
    closing: BTreeSet<GroupId>,
    ticks: u64,
    last_read: u64,
    last_fetch: u64,
    stopped: Option<String>,
    shutdown: Option<Shutdown>,
    counters: Arc<Counters>,
}

struct Shutdown {
    answer: Option<oneshot::Sender<Result<(), String>>>,
    failures: Vec<String>,
}

impl Driver {
    pub(crate) fn new(
        env: Env,
        settings: HostSettings,
        log: Arc<dyn LogStore>,
        transport: Arc<dyn Transport>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            env,
            settings,
            log,
            transport,
            logger: drain::logger(),
            groups: BTreeMap::new(),
            woken: BTreeSet::new(),
            jobs: Vec::new(),
            fetches: unbounded(),
            offers: unbounded(),
            held: None,
            truncations: BTreeMap::new(),
            closing: BTreeSet::new(),
            ticks: 0,
            last_read: 0,
            last_fetch: 0,
            stopped: None,
            shutdown: None,
            counters,
        }
    }

    /// Takes one input in. Nothing is written or answered durably before the next round.
    pub(crate) fn handle(&mut self, input: Input) {
        match input {
            Input::Propose { group, incoming } => self.propose(group, incoming),
            Input::Read { group, reader } => self.read(group, reader),
            Input::Messages(messages, room) => {
                messages.iter().for_each(|message| self.receive(message));
                drop(room);
            }
            Input::Unreachable(node) => self.unreachable(node),
            Input::Change { group, members, ticket } => self.change_members(group, members, ticket),
            Input::HandOver { group, handover } => self.hand_leadership_over(group, handover),
            Input::Peers { group, answer } => {
                let peers = self.groups.get(&group).map(|group| group.peers(self.ticks)).unwrap_or_default();
                let _ = answer.send(peers);
            }
            Input::Open { spec, machine, answer } => {
                let opened = self.open_group(&spec, machine);
                // Whoever asked is gone: the group stays open.
                let _ = answer.send(opened);
            }
            Input::Close { group, deadline, answer } => self.close(group, deadline, Some(answer)),
            Input::Remove { group, answer } => {
                let _ = answer.send(self.remove(group));
            }
            Input::Shutdown { deadline, answer } => {
                self.shutdown = Some(Shutdown { answer: Some(answer), failures: Vec::new() });
                for group in self.groups.keys().copied().collect::<Vec<_>>() {
                    self.close(group, deadline, None);
                }
            }
        }
    }

    /// Moves raft's time on by one tick.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        let now = self.env.now();
        for group in self.groups.values_mut() {
            group.expire(now);
            group.settle_handover(now);
            // Between a Ready and its end raft must not be touched.
            if self.held.is_none() && group.node.is_some() && !group.is_installing() {
                // Without time it stands for nothing.
                if !group.is_below_floor() {
                    group.with_node(raft::RawNode::tick);
                }
                group.step_down_unheard(self.ticks);
                group.campaign_early();
                group.end_stuck_change();
                self.woken.insert(group.id);
            }
        }
        self.take_offered();
        self.tend_offers();
        self.take_fetched();
        if self.ticks.is_multiple_of(POLL_TICKS) {
            for group in self.groups.values_mut().filter(|group| group.durable < group.applied.index) {
                group.poll(&mut self.jobs, false);
            }
        }
        if self.ticks.is_multiple_of(PURGE_TICKS) && self.stopped.is_none() {
            self.purge();
        }
        self.finish_closing();
    }

    /// Takes over what the applier reports.
    pub(crate) fn applied(&mut self, done: Done) {
        let Some(group) = self.groups.get_mut(&done.group) else {
            return;
        };
        group.jobs -= usize::from(done.batch);
        group.polled &= !done.poll;
        group.damaged |= done.damaged;
        (group.applied, group.durable) = (done.applied, done.durable);
        match (&group.condition, done.condition) {
            (Condition::Stopped(_), _) => {}
            (_, Condition::Stopped(why)) => group.stop(&why),
            (_, condition) => group.condition = condition,
        }
        self.woken.insert(done.group);
        group.reads.answer_upto(group.applied.index);
        group.publish();
        if let Some(position) = truncation(group) {
            group.crowded = false;
            self.truncations.insert(done.group, position);
        }
        if let Some(installed) = done.installed {
            self.installed(done.group, installed);
        }
        if let Some(result) = done.closed {
            self.closed(done.group, result);
        }
    }

    /// Work for the applier, in order.
    pub(crate) fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Whether another round has something to do at once.
    pub(crate) fn has_work(&self) -> bool {
        self.stopped.is_none() && self.held.is_none() && !self.woken.is_empty()
    }

    /// When a round that waits for room in the log is to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.retry_at)
    }

    /// Whether a shutdown has been carried out.
    pub(crate) fn is_finished(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.answer.is_none())
    }

    fn propose(&mut self, id: GroupId, incoming: Incoming) {
        let refuse = |incoming: Incoming, why| incoming.caller.answer(Outcome::Refused(why));
        let Some(group) = self.groups.get_mut(&id) else {
            return refuse(incoming, self.absent());
        };
        match group.refuses() {
            Some(why) => refuse(incoming, why),
            None if self.held.is_some() => refuse(incoming, log_waits()),
            None => {
                group.incoming.push(incoming);
                self.woken.insert(id);
            }
        }
    }

    fn read(&mut self, id: GroupId, reader: Reader) {
        let Some(group) = self.groups.get_mut(&id) else {
            return reader.answer(ReadOutcome::Refused(self.absent()));
        };
        match (&group.condition, &group.node) {
            (Condition::Stopped(why), _) => {
                reader.answer(ReadOutcome::Refused(group.refusal(why)));
            }
            _ if group.closing.is_some() => reader.answer(ReadOutcome::Refused(Refusal::Closing)),
            // Alone, what is committed here is committed: raft would say the same, but not while a round is held. And what was
            // acknowledged was applied here before, unless by an earlier process, that is in an earlier term: so reads need
            // not wait for what a full disk keeps from being applied.
            (_, Some(node)) if group.decides_alone() && group.is_leader() && node.raft.commit_to_current_term() => {
                let applied = group.applied;
                let index = if applied.term == node.raft.term { applied.index } else { node.raft.raft_log.committed };
                group.reads.granted.push_back((index, reader));
                group.reads.answer_upto(group.applied.index);
            }
            _ => {
                group.reads.early.push(reader);
                self.woken.insert(id);
            }
        }
    }

    fn absent(&self) -> Refusal {
        match &self.stopped {
            Some(why) => Refusal::Stopped { why: why.clone() },
            None if self.shutdown.is_some() => Refusal::Closing,
            None => Refusal::Absent,
        }
    }

    fn receive(&mut self, bytes: &Bytes) {
        let (cluster, node) = (self.settings.cluster, self.settings.node);
        let dropped = |what: String| tracing::debug!(what, "a message was dropped");
        let envelope = match Envelope::decode(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return dropped(error.to_string()),
        };
        let Some(group) = self.groups.get_mut(&envelope.group).filter(|_| self.held.is_none()) else {
            return dropped(format!("{} takes none now", envelope.group));
        };
        let last = group.node.as_ref().map_or(0, |node| node.raft.raft_log.last_index());
        if let Err(error) = envelope.check(cluster, node, last) {
            tracing::warn!(group = %envelope.group, from = envelope.message.from, %error, "a message was refused");
            return;
        }
        let from = NodeId(envelope.message.from);
        if group.membership.contains(from) {
            group.heard.insert(from, self.ticks);
        }
        match envelope.message.get_msg_type() {
            // Nothing comes between a state that is being installed and the log that goes on after it.
            _ if group.is_installing() => return,
            MessageType::MsgSnapshot => return self.offer_arrived(envelope.group, &envelope.message),
            MessageType::MsgSnapStatus => group.fetched_there(from, envelope.message.reject, self.ticks),
            _ => group.step(envelope.message, self.ticks),
        }
        self.woken.insert(envelope.group);
    }

    fn unreachable(&mut self, node: NodeId) {
        if self.held.is_some() {
            return;
        }
        for group in self.groups.values_mut() {
            group.with_node(|raft| raft.report_unreachable(node.0));
            self.woken.insert(group.id);
        }
    }

    fn close(&mut self, id: GroupId, deadline: Duration, answer: Option<oneshot::Sender<Result<(), String>>>) {
        let Some(group) = self.groups.get_mut(&id) else {
            if let Some(answer) = answer {
                let _ = answer.send(Err(self.absent().to_string()));
            }
            return;
        };
        group.closing = Some(Closing { deadline, answer });
        self.closing.insert(id);
        self.woken.insert(id);
    }

    /// Tells the applier to let go of the groups that have nothing left to do, or no more time.
    fn finish_closing(&mut self) {
        let now = self.env.now();
        let (groups, held) = (&self.groups, self.held.is_some());
        let ready = |id: &GroupId| {
            groups.get(id).is_none_or(|group| {
                let stopped = matches!(group.condition, Condition::Stopped(_));
                let late = group.closing.as_ref().is_some_and(|closing| closing.deadline <= now);
                stopped || late || (group.is_quiet() && !held)
            })
        };
        let done: Vec<_> = self.closing.iter().copied().filter(ready).collect();
        for group in done {
            self.closing.remove(&group);
            self.jobs.push(Job::Close { group });
        }
        if self.groups.is_empty()
            && let Some(shutdown) = &mut self.shutdown
        {
            shutdown.failures.extend(self.stopped.clone());
            let failures = shutdown.failures.join("; ");
            if let Some(answer) = shutdown.answer.take() {
                let _ = answer.send(if failures.is_empty() { Ok(()) } else { Err(failures) });
            }
        }
    }

    fn closed(&mut self, id: GroupId, result: Result<(), String>) {
        let Some(mut group) = self.groups.remove(&id) else {
            return;
        };
        self.woken.remove(&id);
        self.truncations.remove(&id);
        // Nothing of what it has in a round that is held was promised to anybody; and its log may be removed now.
        if let Some(held) = &mut self.held {
            held.forget(id);
        }
        let answer = group.closing.take().and_then(|closing| closing.answer);
        if let (Err(why), Some(shutdown)) = (&result, &mut self.shutdown) {
            shutdown.failures.push(format!("{id}: {why}"));
        }
        // Proposals that ran out of time are in doubt, and the status says that nobody works on it any more.
        group.end("the group was closed");
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
        self.finish_closing();
    }

    fn remove(&mut self, group: GroupId) -> Result<(), ConsensusError> {
        if self.groups.contains_key(&group) {
            return Err(ConsensusError::Open { group });
        }
        Ok(self.log.remove_group(group)?)
    }

    fn purge(&mut self) {
        match self.log.purge() {
            Ok(groups) => {
                for id in groups {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.crowded = true;
                        group.poll(&mut self.jobs, true);
                    }
                }
            }
            // What is to be kept of old files is written anew before they go. Later there will be room for that.
            Err(LogError::Full { what }) => tracing::warn!(what, "no room to give back space of the log"),
            Err(error) => self.stop(&error.to_string()),
        }
    }

    /// The log is lost to this process: nobody is told of success any more.
    fn stop(&mut self, why: &str) {
        tracing::error!(why, "the consensus host stops");
        self.stopped = Some(why.to_owned());
        self.counters.note_stopped();
        self.held = None;
        for group in self.groups.values_mut() {
            group.stop(why);
        }
        self.finish_closing();
    }
}

/// Up to where a group's log may go, if it is worth it: never past what the state machine made durable, nor past an offer
/// that somebody is fetching or will be, after which the log has to go on. Members that lag find what they lack for a while.
fn truncation(group: &Group) -> Option<Position> {
    let alone = group.membership.is_only(group.me);
    // The log begins anew after a state that is being installed; and one that cannot be offered must not be cut while
    // somebody joins who needs all of it.
    let joins = || group.wanted.is_some() || group.node.as_ref().is_some_and(|node| node.raft.has_pending_conf());
    if group.is_installing() || (!group.offers && (!alone || joins())) {
        return None;
    }
    let store = group.node.as_ref()?.store();
    // Entries may be of any size: a few large ones take as much room as many. Where the log wants it, all may go.
    let mut index = group.durable.min(group.applied.index);
    if !group.crowded {
        // Of small entries the number counts, of large ones the bytes.
        index = index.saturating_sub(KEEP_ENTRIES).max(store.sizes().back_from(index, KEEP_BYTES));
        if !alone {
            index = index.min(group.needed_by_peers().max(index.saturating_sub(KEEP_FOR_PEERS)));
        }
    }
    if let Some(offer) = store.offer() {
        index = index.min(offer.position.index);
    }
    if let Some(from) = group.offering {
        index = index.min(from);
    }
    let begin = store.truncated().index;
    let is_worth_it = index >= begin + TRUNCATE_STEP || store.sizes().between(begin, index) >= TRUNCATE_STEP_BYTES;
    if index <= begin || !(is_worth_it || group.crowded) {
        return None;
    }
    let term = store.term_at(index).ok()?;
    Some(Position { index, term })
}

impl Group {
    /// Asks the applier what is durable, unless it has yet to answer.
    fn poll(&mut self, jobs: &mut Vec<Job>, flush: bool) {
        if !self.polled {
            self.polled = true;
            jobs.push(Job::Poll { group: self.id, flush });
        }
    }

    /// Sends those away whom only a leader could help; asks raft on behalf of those it can help.
    fn ask_reads(&mut self, number: &mut u64) {
        let Some(node) = &self.node else {
            return;
        };
        if node.raft.state != StateRole::Leader {
            // Alone, leadership comes by itself.
            if !self.decides_alone() {
                let hint = self.leader();
                self.reads.turn_away(hint);
            }
            return;
        }
        // Raft would grant reads at once where the voters are one, even if that is another.
        let votes = self.membership.is_joint() || self.membership.voters.contains(&self.me);
        if self.reads.early.is_empty() || !votes || !node.raft.commit_to_current_term() {
            return;
        }
        *number += 1;
        let asked = *number;
        let readers = std::mem::take(&mut self.reads.early);
        self.reads.asked.insert(asked, readers);
        self.with_node(|node| node.read_index(asked.to_le_bytes().to_vec()));
    }
}

fn log_waits() -> Refusal {
    Refusal::Full { what: "the log waits for room".to_owned() }
}

/// What a caller knows whose answer was dropped.
pub(crate) fn gone() -> Doubt {
    Doubt::Stopped { why: "the group or its host has stopped".to_owned() }
}
