//! One round: what every group has ready, in the one order that is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use raft::Ready;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message};

use super::Driver;
use crate::apply::{Batch, Job};
use crate::envelope::Envelope;
use crate::error::LogError;
use crate::group::{Condition, Group, seal};
use crate::ids::{GroupId, NodeId};
use crate::log::LogBatch;
use crate::machine::Committed;
use crate::membership::Membership;
use crate::outcome::Outcome;
use crate::settings::{MAX_APPLY_BYTES, MAX_APPLY_ENTRIES, MAX_APPLY_JOBS, MAX_BACKOFF, MIN_BACKOFF};

/// A round whose log write found no room. It is tried again as it is; until then no group takes a step.
pub(super) struct Held {
    /// The groups that were woken, whether they have something ready or not.
    woken: BTreeSet<GroupId>,
    readies: Vec<(GroupId, Ready)>,
    batch: LogBatch,
    pub(super) retry_at: Duration,
    backoff: Duration,
}

impl Held {
    /// Takes a group out that is no more.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.woken.remove(&group);
        self.readies.retain(|(id, _)| *id != group);
        self.batch.writes.retain(|write| write.group != group);
    }
}

impl Driver {
    /// Carries every group that has something ready through the steps that raft prescribes, all of them together,
    /// so that one fsync serves all. Returns whether anything was done.
    ///
    /// The order is what keeps promises: nothing is said to others (4) or to callers (5) before it is durable (3);
    /// only a leader's own messages (1) may overtake the disk, since followers do not take its word for its vote.
    pub(crate) fn round(&mut self) -> bool {
        let now = self.env.now();
        let mut outbox = Outbox::default();
        let mut held = match self.held.take() {
            Some(held) if now < held.retry_at => {
                self.held = Some(held);
                return false;
            }
            Some(held) => held,
            None => {
                let mut readies = Vec::new();
                let mut batch = self.truncation_batch();
                let woken = std::mem::take(&mut self.woken);
                for &id in &woken {
                    let Some(group) = self.groups.get_mut(&id) else { continue };
                    if group.is_installing() {
                        // The state machine is ahead of raft until the log begins anew.
                        continue;
                    }
                    group.take_up(now, self.ticks, &mut self.last_read);
                    group.keep_commit(&mut batch);
                    let Some(Some(mut ready)) = group.with_node(|node| node.has_ready().then(|| node.ready())) else {
                        continue;
                    };
                    // 1. Messages that may go out before anything is durable.
                    outbox.extend(id, ready.take_messages());
                    // 2. A snapshot would be installed here. Raft never sees one: see `driver/snapshot.rs`.
                    if !ready.snapshot().is_empty() {
                        group.stop("raft was given a snapshot");
                        continue;
                    }
                    // 3. What must be durable before anybody hears of it, of all groups.
                    if ready.must_sync() {
                        let write = batch.of(id);
                        write.hard_state = group.node.as_ref().map(|node| node.raft.hard_state());
                        write.entries = ready.take_entries();
                    }
                    readies.push((id, ready));
                }
                Held { woken, readies, batch, retry_at: now, backoff: MIN_BACKOFF }
            }
        };
        if held.readies.is_empty() && held.batch.is_empty() {
            self.hand_over(&held.woken, now);
            return false;
        }
        outbox.send(self);
        if let Err(error) = self.write(&held.batch) {
            match error {
                LogError::Full { what } => self.hold(held, &what, now),
                error => self.stop(&error.to_string()),
            }
            return false;
        }
        self.written(std::mem::take(&mut held.batch));

        for (id, mut ready) in held.readies {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            // 4. Messages that promise what is durable now.
            outbox.extend(id, ready.take_persisted_messages());
            // 5. Committed entries are noted; they are handed to the applier at the end of the round.
            group.committed = ready.committed_entries().last().map_or(group.committed, |entry| entry.index);
            for read in ready.take_read_states() {
                let number = <[u8; 8]>::try_from(&read.request_ctx[..]).map_or(0, u64::from_le_bytes);
                group.reads.grant(number, read.index);
            }
            group.reads.answer_upto(group.applied.index);
            // 6. Tell raft that the Ready is durable.
            let Some(mut light) = group.with_node(|node| node.advance_append(ready)) else { continue };
            // 7. What that made possible: further messages, and entries committed by our own copy.
            outbox.extend(id, light.take_messages());
            group.committed = light.committed_entries().last().map_or(group.committed, |entry| entry.index);
            // 8. `advance_apply` comes at the start of the next round after the applier has reported.
            self.woken.insert(id);
        }
        outbox.send(self);
        self.hand_over(&held.woken, now);
        true
    }

    /// One atomic, synced write for all groups.
    fn write(&mut self, batch: &LogBatch) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.log.append(batch)?;
        let entries = batch.writes.iter().map(|write| write.entries.len() as u64).sum();
        self.counters.count_append(entries);
        Ok(())
    }

    /// Lets the groups see what has become durable.
    fn written(&mut self, batch: LogBatch) {
        for write in batch.writes {
            let Some(group) = self.groups.get_mut(&write.group) else { continue };
            group.with_node(|node| {
                let store = node.mut_store();
                store.written(write.entries, write.hard_state);
                if let Some(position) = write.truncate {
                    store.truncated_to(position);
                }
            });
        }
        for group in self.groups.values_mut().filter(|group| matches!(group.condition, Condition::Full(_))) {
            // The applier knows better if the state machine's disk is the full one.
            if group.jobs == 0 {
                group.condition = Condition::Running;
            }
        }
    }

    fn hold(&mut self, held: Held, what: &str, now: Duration) {
        tracing::warn!(what, "no room in the log: holding a round");
        for group in self.groups.values_mut() {
            if group.condition == Condition::Running {
                group.condition = Condition::Full(what.to_owned());
                group.publish();
            }
            // What the applier reports meanwhile is taken up when the round is over.
            self.woken.insert(group.id);
        }
        let backoff = (held.backoff * 2).min(MAX_BACKOFF);
        self.held = Some(Held { retry_at: now + held.backoff, backoff, ..held });
    }

    fn truncation_batch(&mut self) -> LogBatch {
        let mut batch = LogBatch::default();
        for (id, position) in std::mem::take(&mut self.truncations) {
            batch.of(id).truncate = Some(position);
        }
        batch
    }

    /// Hands committed entries to the applier, as far as it has room for them.
    fn hand_over(&mut self, woken: &BTreeSet<GroupId>, now: Duration) {
        for id in woken {
            let Some(group) = self.groups.get_mut(id) else { continue };
            while group.jobs < MAX_APPLY_JOBS && group.handed < group.committed && !group.is_installing() {
                match group.next_batch() {
                    Some(batch) => self.jobs.push(Job::Apply(batch)),
                    None => break,
                }
            }
            if group.commit_wanted {
                self.woken.insert(*id);
            }
            group.settle_handover(now);
            group.publish();
        }
        self.finish_closing();
    }
}

impl Group {
    /// Tells raft what has happened since the last round and what is wanted.
    fn take_up(&mut self, now: Duration, ticks: u64, last_read: &mut u64) {
        self.advance_apply();
        self.follow_bidding(ticks);
        self.propose_incoming(now);
        self.begin_change(ticks);
        self.begin_handover();
        self.ask_reads(last_read);
    }

    /// Has written what is agreed on, if something waits for that.
    fn keep_commit(&mut self, batch: &mut LogBatch) {
        if std::mem::take(&mut self.commit_wanted) {
            batch.of(self.id).hard_state = self.node.as_ref().map(|node| node.raft.hard_state());
        }
    }

    /// Tells raft what the state machine has applied.
    fn advance_apply(&mut self) {
        let index = self.applied.index;
        self.with_node(|node| {
            // A fresh state machine stands before the founding entry.
            if index > node.raft.raft_log.applied {
                node.advance_apply_to(index);
                node.mut_store().release(index);
            }
        });
    }

    /// The next committed entries with their callers. They are read back from the storage, where the newest are in
    /// memory, so that a state machine that lags costs no memory here.
    fn next_batch(&mut self) -> Option<Batch> {
        let end = (self.committed + 1).min(self.handed + 1 + MAX_APPLY_ENTRIES);
        let read = self.node.as_ref()?.store().read(self.handed + 1..end, MAX_APPLY_BYTES);
        let entries = match read {
            Ok(entries) => entries,
            Err(error) => {
                self.stop_on(&error);
                return None;
            }
        };
        let mut batch = Batch { group: self.id, entries: Vec::new(), tickets: Vec::new() };
        for entry in entries {
            // Otherwise the log is known again to be agreed on when it is led again. But who is left over of a group must know that by itself: the
            // others remove what they have as soon as it says so.
            let changes_members = entry.get_entry_type() != EntryType::EntryNormal;
            if changes_members && self.node.as_ref().is_some_and(|node| node.store().durable_commit() < entry.index) {
                self.commit_wanted = true;
                break;
            }
            let hint = self.leader();
            self.handed = entry.index;
            let ticket = match self.pending.remove(&entry.index) {
                Some((term, ticket)) if term == entry.term => Some(ticket),
                Some((_, overwritten)) => {
                    overwritten.answer(Outcome::NotLeader { hint });
                    None
                }
                None => None,
            };
            let sealed = entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty();
            if sealed && entry.context != seal(&entry.data) {
                self.damaged = true;
                self.stop(&format!("the entry at index {} is damaged: its checksum does not fit", entry.index));
                return None;
            }
            let committed = self.committed_entry(entry)?;
            batch.tickets.push(self.when_whole(&committed, ticket));
            batch.entries.push(committed);
        }
        if batch.entries.is_empty() {
            return None;
        }
        self.jobs += 1;
        Some(batch)
    }

    /// Turns a log entry into what the state machine sees. A change of membership takes effect here.
    fn committed_entry(&mut self, entry: Entry) -> Option<Committed> {
        let (index, term) = (entry.index, entry.term);
        let changed = match entry.get_entry_type() {
            EntryType::EntryNormal => return Some(Committed { index, term, data: entry.data, membership: None }),
            EntryType::EntryConfChange => ConfChange::parse_from_bytes(&entry.data)
                .map(|change| self.with_node(|node| node.apply_conf_change(&change))),
            EntryType::EntryConfChangeV2 => ConfChangeV2::parse_from_bytes(&entry.data)
                .map(|change| self.with_node(|node| node.apply_conf_change(&change))),
        };
        let applied = match changed {
            Ok(applied) => applied?,
            Err(error) => return self.refuse_change(index, &error.to_string()),
        };
        match applied {
            Ok(state) => {
                self.membership = Membership::from_raft(&state);
                self.step_down_without_vote();
                Some(Committed { index, term, data: Bytes::new(), membership: Some(self.membership.clone()) })
            }
            Err(error) => self.refuse_change(index, &error.to_string()),
        }
    }

    fn refuse_change(&mut self, index: u64, why: &str) -> Option<Committed> {
        self.stop(&format!("the change of membership at index {index} cannot be applied: {why}"));
        None
    }
}

/// Messages by destination, so that one round sends each node one batch.
#[derive(Default)]
struct Outbox {
    messages: BTreeMap<NodeId, Vec<(GroupId, Message)>>,
}

impl Outbox {
    fn extend(&mut self, group: GroupId, messages: Vec<Message>) {
        for message in messages {
            self.messages.entry(NodeId(message.to)).or_default().push((group, message));
        }
    }

    fn send(&mut self, driver: &Driver) {
        let cluster = driver.settings.cluster;
        for (node, messages) in std::mem::take(&mut self.messages) {
            let encode = |(group, message)| Envelope { cluster, group, message }.encode();
            driver.transport.send(node, messages.into_iter().map(encode).collect());
        }
    }
}

#[cfg(test)]
mod tests;
