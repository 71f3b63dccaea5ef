//! A log in memory that can lose power: what was not synced is lost, or not, as the test decides.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::eraftpb::{Entry, HardState};

use super::{GroupMeta, GroupState, GroupWrite, LogBatch, LogStore};
use crate::error::LogError;
use crate::ids::{GroupId, Position};

/// The twin of the log on disk, with faults on demand. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    disk: Arc<Mutex<Disk>>,
}

/// What goes wrong at one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No room: nothing is written.
    Full,
    /// Written, but fsync fails. The writer is told; after that nothing can be written.
    SyncFails,
    /// Power fails before anything is written.
    PowerBeforeWrite,
    /// Power fails between write and fsync: [`MemoryLog::after_power_loss`] says what of it survives.
    PowerBeforeSync,
    /// Power fails when all is durable but nobody has been told.
    PowerAfterSync,
    /// The device lies: it reports an fsync that did not happen. No checker may let this pass.
    LyingSync,
}

#[derive(Debug, Default)]
struct Disk {
    durable: Image,
    live: Image,
    unsynced: Vec<LogBatch>,
    appends: u64,
    faults: BTreeMap<u64, Fault>,
    closed: Option<String>,
    crowding: Vec<GroupId>,
}

type Image = BTreeMap<GroupId, GroupLog>;

#[derive(Clone, Debug)]
struct GroupLog {
    meta: GroupMeta,
    hard_state: HardState,
    truncated: Position,
    entries: VecDeque<Entry>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the given append (counted from 0 over the life of this disk) fail.
    pub fn inject(&self, append: u64, fault: Fault) {
        self.lock().faults.insert(append, fault);
    }

    /// Lets the next [`LogStore::purge`] say that a group's entries make the log too large.
    pub fn crowd(&self, group: GroupId) {
        self.lock().crowding.push(group);
    }

    /// Appends so far, which is also the number of fsyncs.
    pub fn appends(&self) -> u64 {
        self.lock().appends
    }

    /// The log as it is found after a power loss: what was synced, and the first `unsynced_kept` of the batches
    /// that were not. A batch of which a part was written is found torn by its checksum and does not count.
    #[must_use]
    pub fn after_power_loss(&self, unsynced_kept: usize) -> Self {
        let mut old = self.lock();
        let mut image = old.durable.clone();
        for batch in old.unsynced.iter().take(unsynced_kept) {
            apply(&mut image, batch);
        }
        old.closed = Some("the power went".to_owned());
        let disk = Disk { durable: image.clone(), live: image, appends: old.appends, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore for MemoryLog {
    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        Ok(self.lock().live.keys().copied().collect())
    }

    fn load(&self, group: GroupId) -> Result<Option<GroupState>, LogError> {
        Ok(self.lock().live.get(&group).map(|log| GroupState {
            meta: log.meta.clone(),
            hard_state: log.hard_state.clone(),
            truncated: log.truncated,
            last: log.entries.back().map_or(log.truncated, Position::of),
        }))
    }

    fn append(&self, batch: &LogBatch) -> Result<(), LogError> {
        let mut disk = self.lock();
        disk.check_open()?;
        let fault = {
            let append = disk.appends;
            disk.faults.remove(&append)
        };
        disk.appends += 1;
        match fault {
            Some(Fault::Full) => return Err(LogError::Full { what: "injected".to_owned() }),
            Some(Fault::PowerBeforeWrite) => return Err(disk.close("power lost before the write")),
            _ => disk.write(batch),
        }
        match fault {
            Some(Fault::SyncFails) => {
                disk.close("an fsync failed");
                Err(LogError::SyncFailed { file: PathBuf::from("memory"), what: "injected".to_owned() })
            }
            Some(Fault::PowerBeforeSync) => Err(disk.close("power lost before the fsync")),
            Some(Fault::LyingSync) => Ok(()),
            Some(Fault::PowerAfterSync) => {
                disk.sync();
                Err(disk.close("power lost after the fsync"))
            }
            _ => {
                disk.sync();
                Ok(())
            }
        }
    }

    fn term(&self, group: GroupId, index: u64) -> Result<u64, LogError> {
        let disk = self.lock();
        let missing = LogError::NoEntry { group, index };
        let log = disk.live.get(&group).ok_or_else(|| missing.clone())?;
        if index == log.truncated.index {
            return Ok(log.truncated.term);
        }
        log.at(index).map(|entry| entry.term).ok_or(missing)
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        let disk = self.lock();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in range {
            let log = disk.live.get(&group).ok_or(LogError::NoEntry { group, index })?;
            let entry = log.at(index).ok_or(LogError::NoEntry { group, index })?;
            bytes += entry.data.len() as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn remove_group(&self, group: GroupId) -> Result<(), LogError> {
        let mut disk = self.lock();
        disk.check_open()?;
        disk.live.remove(&group);
        disk.sync();
        disk.durable.remove(&group);
        Ok(())
    }

    fn purge(&self) -> Result<Vec<GroupId>, LogError> {
        let mut disk = self.lock();
        disk.check_open()?;
        // Without room for the next append there is none for this.
        match disk.faults.get(&disk.appends) {
            Some(Fault::Full) => Err(LogError::Full { what: "injected".to_owned() }),
            _ => Ok(std::mem::take(&mut disk.crowding)),
        }
    }
}

impl Disk {
    fn check_open(&self) -> Result<(), LogError> {
        match &self.closed {
            Some(why) => Err(LogError::Closed { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn close(&mut self, why: &str) -> LogError {
        self.closed = Some(why.to_owned());
        LogError::Closed { why: why.to_owned() }
    }

    fn write(&mut self, batch: &LogBatch) {
        apply(&mut self.live, batch);
        self.unsynced.push(batch.clone());
    }

    fn sync(&mut self) {
        for batch in std::mem::take(&mut self.unsynced) {
            apply(&mut self.durable, &batch);
        }
    }
}

impl GroupLog {
    fn at(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.truncated.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

fn apply(image: &mut Image, batch: &LogBatch) {
    for write in &batch.writes {
        apply_group(image, write);
    }
}

fn apply_group(image: &mut Image, write: &GroupWrite) {
    if let Some(meta) = &write.meta {
        image.entry(write.group).or_insert_with(|| GroupLog {
            meta: meta.clone(),
            hard_state: HardState::default(),
            truncated: Position::default(),
            entries: VecDeque::new(),
        });
    }
    let log = image.get_mut(&write.group).expect("invariant: the first write of a group carries its meta");
    if let Some(truncate) = write.truncate {
        while log.entries.front().is_some_and(|entry| entry.index <= truncate.index) {
            log.entries.pop_front();
        }
        assert!(log.truncated.index <= truncate.index, "a log is not cut backwards");
        log.truncated = truncate;
    }
    if let Some(restart) = write.restart {
        log.entries.clear();
        log.truncated = restart;
    }
    if let Some(first) = write.entries.first() {
        while log.entries.back().is_some_and(|entry| entry.index >= first.index) {
            log.entries.pop_back();
        }
        let last = log.entries.back().map_or(log.truncated.index, |entry| entry.index);
        assert_eq!(last + 1, first.index, "a log has no gaps");
        log.entries.extend(write.entries.iter().cloned());
    }
    if let Some(hard_state) = &write.hard_state {
        log.hard_state = hard_state.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, entry, write_entries};
    use super::*;

    #[test]
    fn the_memory_log_conforms() {
        conformance::run(|| {
            let log = Mutex::new(MemoryLog::new());
            Box::new(move |reopen| {
                let mut log = log.lock().unwrap();
                if reopen {
                    *log = log.after_power_loss(0);
                }
                Arc::new(log.clone())
            })
        });
    }

    #[test]
    fn what_was_not_synced_is_lost_or_kept_as_the_test_decides() {
        for (fault, kept, survives) in [
            (Fault::PowerBeforeWrite, 1, false),
            (Fault::PowerBeforeSync, 0, false),
            (Fault::PowerBeforeSync, 1, true),
            (Fault::PowerAfterSync, 0, true),
            (Fault::SyncFails, 0, false),
            (Fault::LyingSync, 0, false),
        ] {
            let log = MemoryLog::new();
            let group = GroupId(1);
            conformance::found(&log, group);
            log.inject(1, fault);
            let result = log.append(&write_entries(group, vec![entry(2, 1, b"x")]));
            assert_eq!(result.is_ok(), fault == Fault::LyingSync, "{fault:?}");
            let found = log.after_power_loss(kept);
            let last = found.load(group).unwrap().unwrap().last.index;
            assert_eq!(last, if survives { 2 } else { 1 }, "{fault:?} keeping {kept}");
            assert!(log.append(&LogBatch::default()).is_err(), "the old handle is dead");
        }
    }

    #[test]
    fn a_full_disk_leaves_everything_as_it_was_and_can_be_retried() {
        let (log, group) = (MemoryLog::new(), GroupId(1));
        conformance::found(&log, group);
        log.inject(1, Fault::Full);
        let batch = write_entries(group, vec![entry(2, 1, b"x")]);
        assert!(matches!(log.append(&batch), Err(LogError::Full { .. })));
        assert_eq!(log.load(group).unwrap().unwrap().last.index, 1);
        log.append(&batch).unwrap();
        assert_eq!(log.load(group).unwrap().unwrap().last.index, 2);
    }
}
