//! One group's view of the log, as raft wants to see it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};

use crate::error::LogError;
use crate::ids::{GroupId, Position};
use crate::log::{GroupState, LogStore};
use crate::machine::Offer;
use crate::membership::Membership;
use crate::settings::TAIL_BYTES;
use crate::sizes::Sizes;

/// What is written, with the newest entries in memory: committing right after writing reads nothing back.
pub(crate) struct GroupStorage {
    group: GroupId,
    log: Arc<dyn LogStore>,
    hard_state: HardState,
    membership: Membership,
    truncated: Position,
    last: Position,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    sizes: Sizes,
    /// The state that members may fetch instead of entries, and whether one was asked for that is newer.
    offer: Option<Offer>,
    offer_wanted: Cell<bool>,
    /// A failed read. Raft has no use for its text, the driver has.
    failure: RefCell<Option<LogError>>,
}

/// An entry's share of a size limit, beside its data.
const ENTRY_OVERHEAD: usize = 48;

impl GroupStorage {
    /// `applied` and `membership` as the state machine has them. The stored commit index may lie behind what was
    /// applied, since commits alone are not written.
    pub(crate) fn new(
        group: GroupId,
        log: Arc<dyn LogStore>,
        state: GroupState,
        membership: Membership,
        applied: u64,
    ) -> Self {
        let GroupState { mut hard_state, truncated, last, .. } = state;
        hard_state.commit = hard_state.commit.max(applied);
        Self {
            group,
            log,
            hard_state,
            membership,
            truncated,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            sizes: Sizes::default(),
            offer: None,
            offer_wanted: Cell::new(false),
            failure: RefCell::new(None),
        }
    }

    /// The state that members may fetch instead of entries.
    pub(crate) fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }

    pub(crate) fn set_offer(&mut self, offer: Option<Offer>) {
        if offer.is_some() {
            // It is for whoever asked while it was made. One whom it does not help asks again.
            self.offer_wanted.set(false);
        }
        self.offer = offer;
    }

    /// Whether raft has asked for a state since the last time.
    pub(crate) fn take_offer_wanted(&self) -> bool {
        self.offer_wanted.take()
    }

    /// Up to where the log will be known to be agreed after a crash.
    pub(crate) fn durable_commit(&self) -> u64 {
        self.hard_state.commit
    }

    /// Takes over what has been written to the log.
    pub(crate) fn written(&mut self, entries: Vec<Entry>, hard_state: Option<HardState>) {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state;
        }
        let Some(first) = entries.first() else {
            return;
        };
        while self.tail.back().is_some_and(|entry| entry.index >= first.index) {
            self.drop_tail_entry(VecDeque::pop_back);
        }
        if self.tail.back().is_some_and(|entry| entry.index + 1 != first.index) {
            (self.tail, self.tail_bytes) = (VecDeque::new(), 0);
        }
        for entry in entries {
            self.last = Position::of(&entry);
            self.sizes.note(entry.index, weight(&entry));
            self.tail_bytes += weight(&entry);
            self.tail.push_back(entry);
        }
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            self.drop_tail_entry(VecDeque::pop_front);
        }
    }

    /// Forgets what the state machine has applied: it is not read again soon.
    pub(crate) fn release(&mut self, applied: u64) {
        while self.tail.front().is_some_and(|entry| entry.index <= applied) {
            self.drop_tail_entry(VecDeque::pop_front);
        }
    }

    /// Takes over that the log's front has moved.
    pub(crate) fn truncated_to(&mut self, position: Position) {
        self.truncated = position;
        self.sizes.forget(position.index);
        self.release(position.index);
    }

    /// Entries of a range that was written, as many from its front as fit, at least one.
    pub(crate) fn read(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        let in_memory = self.tail.front().is_some_and(|first| first.index <= range.start);
        if !in_memory {
            return self.log.entries(self.group, range, max_bytes);
        }
        let skip = range.start - self.tail[0].index;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in self.tail.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            bytes += weight(entry) as u64;
            if entry.index >= range.end || (bytes > max_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    pub(crate) fn term_at(&self, index: u64) -> Result<u64, LogError> {
        for known in [self.last, self.truncated] {
            if known.index == index {
                return Ok(known.term);
            }
        }
        match self.tail.front() {
            Some(first) if first.index <= index && index <= self.last.index => {
                Ok(self.tail[(index - first.index) as usize].term)
            }
            _ => self.log.term(self.group, index),
        }
    }

    pub(crate) fn truncated(&self) -> Position {
        self.truncated
    }

    /// How many bytes the entries take.
    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn last(&self) -> Position {
        self.last
    }

    pub(crate) fn take_failure(&self) -> Option<LogError> {
        self.failure.borrow_mut().take()
    }

    fn drop_tail_entry(&mut self, pop: impl Fn(&mut VecDeque<Entry>) -> Option<Entry>) {
        if let Some(entry) = pop(&mut self.tail) {
            self.tail_bytes -= weight(&entry);
        }
    }

    fn failed(&self, error: LogError) -> RaftError {
        *self.failure.borrow_mut() = Some(error);
        RaftError::Store(StorageError::LogTemporarilyUnavailable)
    }
}

fn weight(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.membership.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        self.read(low..high, max_size.into().unwrap_or(u64::MAX)).map_err(|error| self.failed(error))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.index {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        self.term_at(index).map_err(|error| {
            *self.failure.borrow_mut() = Some(error);
            RaftError::Store(StorageError::Unavailable)
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.index)
    }

    /// What raft calls a snapshot is the offer of one: the state itself is fetched beside the messages. While there is no
    /// offer that the log continues, raft asks again with every heartbeat.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let least = request_index.max(self.truncated.index);
        let Some(offer) = self.offer.as_ref().filter(|offer| offer.position.index >= least) else {
            self.offer_wanted.set(true);
            return Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot { data: offer.manifest.clone(), ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (offer.position.index, offer.position.term);
        meta.set_conf_state(offer.membership.to_raft());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance::{entry, found, write_entries};
    use crate::log::memory::MemoryLog;

    fn stored(upto: u64) -> GroupStorage {
        let (log, group) = (MemoryLog::new(), GroupId(1));
        found(&log, group);
        log.append(&write_entries(group, (2..=upto).map(|index| entry(index, 1, &[0; 100])).collect())).unwrap();
        let state = log.load(group).unwrap().unwrap();
        GroupStorage::new(group, Arc::new(log), state, Membership::of_voters(&[]), 1)
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn entries_come_from_memory_and_from_the_log_alike() {
        let mut storage = stored(10);
        let fresh: Vec<_> = (11..=20).map(|index| entry(index, 2, &[1; 100])).collect();
        storage.log.append(&write_entries(GroupId(1), fresh.clone())).unwrap();
        storage.written(fresh, None);
        for (range, max_bytes, wanted) in [
            (11..21, u64::MAX, (11..21).collect::<Vec<_>>()),
            (12..14, u64::MAX, vec![12, 13]),
            (12..20, 300, vec![12, 13]),
            (12..20, 0, vec![12]),
            (9..13, u64::MAX, vec![9, 10, 11, 12]),
            (3..5, u64::MAX, vec![3, 4]),
        ] {
            assert_eq!(indexes(&storage.read(range.clone(), max_bytes).unwrap()), wanted, "{range:?}");
        }
        assert_eq!([1, 5, 11, 20].map(|index| storage.term_at(index).unwrap()), [1, 1, 2, 2]);
        storage.release(15);
        assert_eq!(storage.tail.front().unwrap().index, 16);
        assert_eq!(indexes(&storage.read(14..18, u64::MAX).unwrap()), [14, 15, 16, 17]);
    }

    #[test]
    fn a_replaced_suffix_is_replaced_in_memory() {
        let mut storage = stored(3);
        storage.written((4..=9).map(|index| entry(index, 1, b"old")).collect(), None);
        storage.written(vec![entry(6, 2, b"new")], None);
        assert_eq!(storage.last(), Position { index: 6, term: 2 });
        assert_eq!(indexes(&storage.read(4..7, u64::MAX).unwrap()), [4, 5, 6]);
        assert_eq!(storage.read(6..7, u64::MAX).unwrap()[0].data, b"new".to_vec());
        let left: usize = storage.tail.iter().map(weight).sum();
        assert_eq!(storage.tail_bytes, left);
    }

    #[test]
    fn memory_is_bounded() {
        let mut storage = stored(1);
        let data = vec![0; 1 << 20];
        for index in 2..40 {
            storage.written(vec![entry(index, 1, &data)], None);
            assert!(storage.tail_bytes <= TAIL_BYTES);
        }
        assert_eq!(storage.tail.back().unwrap().index, 39);
    }

    #[test]
    fn a_failed_read_keeps_its_text_for_the_driver() {
        let storage = stored(3);
        assert!(storage.entries(3, 9, None, GetEntriesContext::empty(false)).is_err());
        assert!(matches!(storage.take_failure(), Some(LogError::NoEntry { index: 4, .. })));
        assert!(storage.take_failure().is_none());
    }
}
