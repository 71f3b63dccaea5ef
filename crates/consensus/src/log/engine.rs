//! The log on disk: one `raft-engine` per host.
//!
//! What that library does by itself, and what is added here so that synced data is never silently dropped:
//!
//! * It checks every record on opening and, in the mode used here, cuts the newest file at the first bad record,
//!   since that is what power loss leaves behind. It cannot tell a torn record from a damaged one that had been
//!   synced. [`mark`] remembers how far each queue was synced, and [`files`] refuses a cut below that.
//! * It panics when an fsync fails. [`files`] notes the failure, the panic ends at [`RaftEngineLog::append`], and
//!   the log stays closed; the mark says so too, and the next opening cuts what was never acknowledged.
//! * A file that is missing in the middle makes it drop the files before: found here as a gap in some group.
//! * Its `sync` without data does nothing, and it does not sync what it recovered: done here on opening.

pub(super) mod files;
pub(super) mod mark;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use raft_engine::{Command, Config, Engine, MessageExt, ReadableSize, RecoveryMode};

use self::files::{Watch, WatchedFiles};
use super::{GroupMeta, GroupState, GroupWrite, LogBatch, LogStore};
use crate::error::LogError;
use crate::ids::{GroupId, Position};

/// A log in a folder of its own.
pub struct RaftEngineLog {
    engine: Engine<WatchedFiles>,
    watch: Arc<Watch>,
}

/// Sizes of a [`RaftEngineLog`].
#[derive(Clone, Copy, Debug)]
pub struct RaftEngineSettings {
    /// A file is closed and the next one begun at this size.
    pub file_bytes: u64,
    /// Space of truncated entries is given back once the log is larger than this.
    pub purge_bytes: u64,
}

impl Default for RaftEngineSettings {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, purge_bytes: 256 << 20 }
    }
}

const META: &[u8] = b"m";
const HARD_STATE: &[u8] = b"h";
const TRUNCATED: &[u8] = b"t";

struct RaftEntries;

impl MessageExt for RaftEntries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl RaftEngineLog {
    /// Opens the log in `folder`, which is created when missing. A record that was being written when the power
    /// went is dropped; anything else that is damaged is an error that names the file.
    pub fn open(folder: &Path, settings: RaftEngineSettings) -> Result<Self, LogError> {
        let watch = Watch::open(folder)?;
        let config = Config {
            dir: folder.to_string_lossy().into_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // One after the other, so that the last file read is the one an error is about.
            recovery_threads: 1,
            // Vectors do not shrink, and the log is short-lived.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(settings.file_bytes),
            purge_threshold: ReadableSize(settings.purge_bytes),
            // A reused file ends in records of its former life, which look like damage.
            enable_log_recycle: false,
            ..Config::default()
        };
        let files = Arc::new(WatchedFiles::new(watch.clone()));
        let engine = guarded(&watch, || Engine::open_with_file_system(config, files))?;
        watch.sync_all(folder)?;
        let log = Self { engine, watch };
        for group in log.groups()? {
            log.load(group)?;
        }
        Ok(log)
    }

    /// Fsyncs of log files since opening.
    pub fn syncs(&self) -> u64 {
        self.watch.syncs()
    }

    fn decoded<T>(
        &self,
        group: GroupId,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, LogError> {
        let Some(bytes) = self.engine.get(group.0, key) else {
            return Ok(None);
        };
        let what = || format!("{group} has an unreadable value under {:?}", String::from_utf8_lossy(key));
        decode(&bytes).map(Some).ok_or_else(|| self.watch.corrupt(what()))
    }

    fn truncated(&self, group: GroupId) -> Result<Position, LogError> {
        Ok(self.decoded(group, TRUNCATED, Position::decode)?.unwrap_or_default())
    }
}

impl LogStore for RaftEngineLog {
    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        let mut groups: Vec<_> = self.engine.raft_groups().into_iter().map(GroupId).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    fn load(&self, group: GroupId) -> Result<Option<GroupState>, LogError> {
        let (first, last) = (self.engine.first_index(group.0), self.engine.last_index(group.0));
        let Some(meta) = self.decoded(group, META, GroupMeta::decode)? else {
            return match first {
                None => Ok(None),
                Some(_) => Err(self.watch.corrupt(format!("{group} has entries but no identity"))),
            };
        };
        let truncated = self.truncated(group)?;
        if let Some(first) = first.filter(|first| *first > truncated.index + 1) {
            let expected = truncated.index + 1;
            let what = format!("{group} begins at entry {first}, the entries from {expected} on are missing");
            return Err(self.watch.corrupt(what));
        }
        let hard_state =
            self.decoded(group, HARD_STATE, |bytes| HardState::parse_from_bytes(bytes).ok())?.unwrap_or_default();
        let last = match last {
            Some(index) if index > truncated.index => Position { index, term: self.term(group, index)? },
            _ => truncated,
        };
        Ok(Some(GroupState { meta, hard_state, truncated, last }))
    }

    fn append(&self, batch: &LogBatch) -> Result<(), LogError> {
        self.watch.check_open()?;
        let mut records = raft_engine::LogBatch::default();
        for write in &batch.writes {
            let end = self.engine.last_index(write.group.0).unwrap_or_default();
            add(&mut records, write, end).map_err(|error| LogError::Io { what: error.to_string() })?;
        }
        guarded(&self.watch, || self.engine.write(&mut records, true))?;
        Ok(())
    }

    fn term(&self, group: GroupId, index: u64) -> Result<u64, LogError> {
        let truncated = self.truncated(group)?;
        if index <= truncated.index {
            return if index == truncated.index { Ok(truncated.term) } else { Err(LogError::NoEntry { group, index }) };
        }
        let entry = guarded(&self.watch, || self.engine.get_entry::<RaftEntries>(group.0, index))?;
        entry.map(|entry| entry.term).ok_or(LogError::NoEntry { group, index })
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let truncated = self.truncated(group)?;
        if range.start <= truncated.index {
            return Err(LogError::NoEntry { group, index: range.start });
        }
        // The library sums lengths in 32 bits.
        let max_bytes = usize::try_from(max_bytes.min(1 << 30)).unwrap_or(1 << 30);
        let mut entries = Vec::new();
        let (start, end) = (range.start, range.end);
        let fetched = guarded(&self.watch, || {
            match self.engine.fetch_entries_to::<RaftEntries>(group.0, start, end, Some(max_bytes), &mut entries) {
                Err(raft_engine::Error::EntryNotFound | raft_engine::Error::EntryCompacted) => Ok(0),
                other => other,
            }
        })?;
        if fetched == 0 { Err(LogError::NoEntry { group, index: range.start }) } else { Ok(entries) }
    }

    fn remove_group(&self, group: GroupId) -> Result<(), LogError> {
        self.watch.check_open()?;
        let mut records = raft_engine::LogBatch::default();
        records.add_command(group.0, Command::Clean);
        guarded(&self.watch, || self.engine.write(&mut records, true))?;
        Ok(())
    }

    fn purge(&self) -> Result<Vec<GroupId>, LogError> {
        self.watch.check_open()?;
        let groups = guarded(&self.watch, || self.engine.purge_expired_files())?;
        Ok(groups.into_iter().map(GroupId).collect())
    }
}

/// `end` is the last entry that the log holds before.
fn add(records: &mut raft_engine::LogBatch, write: &GroupWrite, end: u64) -> raft_engine::Result<()> {
    let group = write.group.0;
    if let Some(meta) = &write.meta {
        records.put(group, META.to_vec(), meta.encode())?;
    }
    if let Some(truncate) = write.truncate {
        records.put(group, TRUNCATED.to_vec(), truncate.encode())?;
        records.add_command(group, Command::Compact { index: truncate.index + 1 });
    }
    if let Some(restart) = write.restart {
        records.put(group, TRUNCATED.to_vec(), restart.encode())?;
        records.add_command(group, Command::Compact { index: end.max(restart.index) + 1 });
    }
    records.add_entries::<RaftEntries>(group, &write.entries)?;
    if let Some(hard_state) = &write.hard_state {
        records.put_message(group, HARD_STATE.to_vec(), hard_state)?;
    }
    Ok(())
}

/// Calls the library; its errors and panics become ours. What a panic leaves behind is not used again: after one
/// the log is closed.
fn guarded<T>(watch: &Watch, call: impl FnOnce() -> raft_engine::Result<T>) -> Result<T, LogError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(watch.explain(&error)),
        Err(panic) => Err(watch.explain_panic(&sagitta_env::panic_text(&*panic))),
    }
}
