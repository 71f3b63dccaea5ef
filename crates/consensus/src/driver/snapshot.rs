//! Members that lack more than the logs of the others hold: they fetch a whole state.
//!
//! What raft calls a snapshot is here the offer of one. The leader's state machine keeps its state and describes it; the
//! offer travels as raft's message; the receiver's state machine fetches the state beside everything else and installs it;
//! then the log begins anew after it, and raft with it, as if the group had been opened so. Raft itself never sees a
//! snapshot: between installing the state and beginning the log anew a crash may come, and only [`Driver::go_on_after`]
//! knows how to go on.

use crossbeam_channel::Sender;
use raft::eraftpb::{Message, MessageType};
use raft::{Progress, RawNode, SnapshotStatus};

use super::Driver;
use crate::apply::Job;
use crate::envelope::Envelope;
use crate::error::LogError;
use crate::group::Group;
use crate::ids::{GroupId, NodeId, Position};
use crate::log::{GroupState, LogBatch};
use crate::machine::{Fetching, Offer, OfferEnded, Offering};
use crate::membership::Membership;
use crate::outcome::{Doubt, Outcome};
use crate::settings::{KEEP_OFFER_TICKS, OFFER_AGAIN_TICKS, OFFER_PAUSE_DOUBLINGS, OFFER_PAUSE_TICKS};
use crate::storage::GroupStorage;

/// A state on its way here.
pub(crate) struct Fetch {
    /// Tells it from an earlier one of the same.
    number: u64,
    offer: Offer,
    /// Who offers it.
    from: NodeId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The state machine fetches it.
    Fetching,
    /// It is here; what was handed to the state machine before is applied first.
    Fetched,
    /// It takes the place of what there is.
    Installing,
    /// The log is to begin anew after it.
    Installed,
}

impl Driver {
    /// Looks after what is offered to others, once a tick.
    pub(super) fn tend_offers(&mut self) {
        if self.held.is_some() {
            return;
        }
        for group in self.groups.values_mut() {
            group.tend_offer(self.ticks, &self.offers.0, &mut self.jobs);
        }
    }

    /// Takes over what state machines offer. Called once a tick.
    pub(super) fn take_offered(&mut self) {
        while let Ok(OfferEnded { group, result }) = self.offers.1.try_recv() {
            if let Some(group) = self.groups.get_mut(&group) {
                group.take_offer(result, self.ticks);
            }
        }
    }

    /// A leader offers its state.
    pub(super) fn offer_arrived(&mut self, id: GroupId, message: &Message) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(node) = &group.node else { return };
        if message.term < node.raft.term {
            return;
        }
        let from = NodeId(message.from);
        let meta = message.get_snapshot().get_metadata();
        let position = Position { index: meta.index, term: meta.term };
        if group.has(position) {
            return self.tell_fetched(id, from, true);
        }
        // One is on its way: the leader asks again. But a leader that is no more may be gone with what it offered.
        let goes_on = |fetch: &Fetch| fetch.stage != Stage::Fetching || fetch.from == from;
        if group.fetch.as_ref().is_some_and(goes_on) {
            return;
        }
        let manifest = message.get_snapshot().data.clone();
        let offer = Offer { position, membership: Membership::from_raft(meta.get_conf_state()), manifest };
        self.last_fetch += 1;
        let number = self.last_fetch;
        let done = Fetching { group: id, number, ended: Some(self.fetches.0.clone()) };
        tracing::info!(group = %id, %from, %position, "fetching the group's state");
        group.fetch = Some(Fetch { number, offer: offer.clone(), from, stage: Stage::Fetching });
        self.jobs.push(Job::Fetch { group: id, from, offer, done });
    }

    /// Takes up what state machines have fetched, and whatever else is to be done next for it. Called once a tick.
    pub(super) fn take_fetched(&mut self) {
        while let Ok(ended) = self.fetches.1.try_recv() {
            let Some(group) = self.groups.get_mut(&ended.group) else { continue };
            let Some(fetch) = &mut group.fetch else { continue };
            if fetch.number != ended.number || fetch.stage != Stage::Fetching {
                continue;
            }
            match ended.result {
                Ok(()) => fetch.stage = Stage::Fetched,
                Err(why) => self.give_up(ended.group, &why),
            }
        }
        if self.held.is_some() {
            return;
        }
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let Some(fetch) = group.fetch.as_ref().filter(|_| group.node.is_some()) else { continue };
            let position = fetch.offer.position;
            match fetch.stage {
                Stage::Fetched if group.has(position) => self.finish(id),
                Stage::Fetched if group.jobs == 0 && group.closing.is_none() => {
                    let offer = fetch.offer.clone();
                    group.set_stage(Stage::Installing);
                    self.jobs.push(Job::Install { group: id, offer });
                }
                Stage::Installed => self.begin_anew(id),
                _ => {}
            }
        }
    }

    /// The state machine has installed a state, or not.
    pub(super) fn installed(&mut self, id: GroupId, result: Result<(), String>) {
        match result {
            Ok(()) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.set_stage(Stage::Installed);
                }
            }
            Err(why) => self.give_up(id, &why),
        }
    }

    /// Lets the log, and raft with it, go on after the installed state.
    fn begin_anew(&mut self, id: GroupId) {
        let Some(offer) = self.groups.get(&id).and_then(|group| group.fetch.as_ref()).map(|fetch| fetch.offer.clone())
        else {
            return;
        };
        let begun = self.log.load(id).and_then(|state| match state {
            Some(state) => self.go_on_after(id, state, offer.position),
            None => Err(LogError::NoEntry { group: id, index: offer.position.index }),
        });
        self.truncations.remove(&id);
        let state = match (begun, self.groups.get_mut(&id)) {
            (Ok(state), _) => state,
            // Tried again with the next tick; until then the group takes no messages.
            (Err(LogError::Full { what }), _) => return tracing::warn!(group = %id, what, "no room in the log"),
            (Err(error @ (LogError::Corrupt { .. } | LogError::NoEntry { .. })), Some(group)) => {
                return group.stop_on(&error);
            }
            (Err(error), _) => return self.stop(&error.to_string()),
        };
        let node = self.raw_node(id, state, offer.membership.clone(), offer.position.index);
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.node.is_some()) else { return };
        match node {
            Ok(node) => group.begin_anew(node, &offer),
            Err(error) => return group.stop(&error.to_string()),
        }
        self.woken.insert(id);
        self.finish(id);
    }

    /// The log as it goes on after an installed state: as it is if it holds the state's last entry, else without any entry.
    pub(super) fn go_on_after(
        &self,
        id: GroupId,
        state: GroupState,
        position: Position,
    ) -> Result<GroupState, LogError> {
        if goes_on_after(&state, position, |index| self.log.term(id, index))? {
            return Ok(state);
        }
        let GroupState { meta, mut hard_state, .. } = state;
        if hard_state.term < position.term {
            (hard_state.term, hard_state.vote) = (position.term, 0);
        }
        hard_state.commit = position.index;
        let mut batch = LogBatch::default();
        let write = batch.of(id);
        write.restart = Some(position);
        write.hard_state = Some(hard_state.clone());
        self.log.append(&batch)?;
        Ok(GroupState { meta, hard_state, truncated: position, last: position })
    }

    fn finish(&mut self, id: GroupId) {
        if let Some(fetch) = self.groups.get_mut(&id).and_then(|group| group.fetch.take()) {
            tracing::info!(group = %id, position = %fetch.offer.position, "the group's state is here");
            self.tell_those_who_wait(id, fetch.from, true);
        }
    }

    fn give_up(&mut self, id: GroupId, why: &str) {
        if let Some(fetch) = self.groups.get_mut(&id).and_then(|group| group.fetch.take()) {
            tracing::warn!(group = %id, from = %fetch.from, why, "cannot fetch the group's state: waiting for another offer");
            self.woken.insert(id);
            self.tell_those_who_wait(id, fetch.from, false);
        }
    }

    /// Tells who offered it how it went, and who leads now: its offer came while this one was being fetched.
    fn tell_those_who_wait(&self, id: GroupId, from: NodeId, well: bool) {
        let leader = self.groups.get(&id).and_then(Group::leader).filter(|leader| *leader != from);
        for to in [from].into_iter().chain(leader).filter(|to| *to != self.settings.node) {
            self.tell_fetched(id, to, well);
        }
    }

    /// Tells the leader how it went. It would wait for ever if it were not told.
    fn tell_fetched(&self, id: GroupId, to: NodeId, well: bool) {
        let Some(node) = self.groups.get(&id).and_then(|group| group.node.as_ref()) else { return };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapStatus);
        (message.from, message.to, message.term) = (self.settings.node.0, to.0, node.raft.term);
        message.reject = !well;
        let envelope = Envelope { cluster: self.settings.cluster, group: id, message };
        self.transport.send(to, vec![envelope.encode()]);
    }
}

impl Group {
    /// Whether a state is taking the place of what there is: no message may come between.
    pub(super) fn is_installing(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| matches!(fetch.stage, Stage::Installing | Stage::Installed))
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(fetch) = &mut self.fetch {
            fetch.stage = stage;
        }
    }

    /// Whether everything up to a committed entry is applied here or in the log.
    fn has(&self, position: Position) -> bool {
        let Some(node) = &self.node else { return false };
        let store = node.store();
        let in_log =
            || position.index <= store.last().index && store.term_at(position.index).ok() == Some(position.term);
        position.index <= self.applied.index || position.index <= store.truncated().index || in_log()
    }

    /// How far the log is needed for members that lag.
    pub(super) fn needed_by_peers(&self) -> u64 {
        let Some(node) = self.node.as_ref().filter(|_| self.is_leader()) else { return 0 };
        node.raft.prs().iter().map(|(_, progress)| progress.matched).min().unwrap_or_default()
    }

    /// A member says how fetching ended there.
    pub(super) fn fetched_there(&mut self, from: NodeId, failed: bool, ticks: u64) {
        let status = if failed { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
        self.offered.remove(&from);
        if !failed {
            self.offer_failures = 0;
        }
        self.with_node(|node| node.report_snapshot(from.0, status));
        // What is offered may be broken. Raft asks again at once, and then it is made anew, unless another is fetching it.
        if let Some(node) = self.node.as_mut().filter(|_| failed)
            && node.raft.prs().iter().all(|(_, progress)| progress.pending_snapshot == 0)
        {
            node.mut_store().set_offer(None);
            self.offer_broken = true;
            self.put_off_offers(ticks);
        }
    }

    fn take_offer(&mut self, offered: Result<Offer, String>, ticks: u64) {
        // Else it was asked for before the group was opened anew.
        if self.offering.take().is_none() {
            return;
        }
        self.offer_used = ticks;
        match offered {
            Ok(offer) => {
                if let Some(node) = &mut self.node {
                    node.mut_store().set_offer(Some(offer));
                }
            }
            // Raft asks again.
            Err(why) => {
                tracing::warn!(group = %self.id, why, "cannot offer the group's state");
                self.put_off_offers(ticks);
            }
        }
    }

    /// Making an offer costs a large group much: one that fails for a lasting reason, such as a full disk, must not be
    /// repeated at once and for ever.
    fn put_off_offers(&mut self, ticks: u64) {
        let pause = OFFER_PAUSE_TICKS << self.offer_failures.min(OFFER_PAUSE_DOUBLINGS);
        self.offer_after = ticks + pause;
        self.offer_failures = self.offer_failures.saturating_add(1);
    }

    fn tend_offer(&mut self, ticks: u64, offers: &Sender<OfferEnded>, jobs: &mut Vec<Job>) {
        let leads = self.is_leader();
        let Some(node) = &mut self.node else { return };
        // It has a state of its own for that, which it does not let others name.
        let fetches = |(id, progress): (&u64, &Progress)| (progress.pending_snapshot > 0).then_some(NodeId(*id));
        let fetching: Vec<_> = node.raft.prs().iter().filter(|_| leads).filter_map(fetches).collect();
        self.offered.retain(|node, _| fetching.contains(node));
        let mut silent = Vec::new();
        for member in &fetching {
            let since = self.offered.entry(*member).or_insert(ticks);
            if ticks - *since >= OFFER_AGAIN_TICKS {
                *since = ticks;
                silent.push(member.0);
            }
        }
        let wanted = node.store().take_offer_wanted();
        if wanted || !fetching.is_empty() {
            self.offer_used = ticks;
        }
        let broken = std::mem::take(&mut self.offer_broken);
        let idle = !leads || ticks - self.offer_used > KEEP_OFFER_TICKS;
        if broken || (idle && node.store().offer().is_some()) {
            node.mut_store().set_offer(None);
            jobs.push(Job::Retract { group: self.id });
        }
        if wanted && leads && self.offers && self.offering.is_none() && ticks >= self.offer_after {
            // What it will offer is no older: it applies in order.
            self.offering = Some(self.applied.index);
            let (group, founders) = (self.id, self.founders.clone());
            let done = Offering { group, founders, ended: Some(offers.clone()) };
            jobs.push(Job::Offer { group, done });
        }
        for member in silent {
            self.with_node(|node| node.report_snapshot(member, SnapshotStatus::Failure));
        }
    }

    /// Everything begins anew after an installed state. Who still waits for an entry from before cannot be told about it.
    fn begin_anew(&mut self, node: RawNode<GroupStorage>, offer: &Offer) {
        let index = offer.position.index;
        self.node = Some(node);
        (self.committed, self.handed) = (index, index);
        self.membership = offer.membership.clone();
        self.changed_at = index;
        self.bidding = None;
        let why = "a newer state has taken the place of the log".to_owned();
        let pending = std::mem::take(&mut self.pending).into_values().map(|(_, ticket)| ticket);
        for ticket in pending.chain(self.change.take()) {
            ticket.answer(Outcome::Unknown(Doubt::Stopped { why: why.clone() }));
        }
        self.reads.turn_away(None);
    }
}

/// Whether a log goes on as it is after an installed state, because it holds the state's last entry.
pub(crate) fn goes_on_after(
    state: &GroupState,
    position: Position,
    term_at: impl FnOnce(u64) -> Result<u64, LogError>,
) -> Result<bool, LogError> {
    let GroupState { truncated, last, .. } = state;
    let within = truncated.index <= position.index && position.index <= last.index;
    Ok(position.index < truncated.index || (within && term_at(position.index)? == position.term))
}
