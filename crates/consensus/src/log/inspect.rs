//! Looking at a log that must not be touched.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use super::engine::files::log_files;
use super::engine::mark::{FILE_NAME as MARK_FILE, MarkFile};
use super::engine::{RaftEngineLog, RaftEngineSettings};
use super::memory::MemoryLog;
use super::{GroupState, LogBatch, LogStore as _};
use crate::driver::open::check_continuity;
use crate::driver::snapshot::goes_on_after;
use crate::error::{ConsensusError, LogError};
use crate::ids::{GroupId, Position};

/// Bytes of entries that are read at a time.
const READ_BYTES: u64 = 8 << 20;
/// Names that are tried for a scratch folder: others look at logs, too.
const SCRATCH_NAMES: u32 = 1_000;

/// The log of a process that has stopped, opened as that process would open it, without a change to any of its files.
///
/// Opening a log cuts what a power loss has torn and begins files. So it is done in a scratch folder among the system's temporary
/// ones, which goes with the inspector: it holds copies of the files that could be written to, the last one of each series,
/// and links to the others.
pub struct LogInspector {
    // Closed before its folder goes.
    log: RaftEngineLog,
    scratch: Scratch,
}

struct Scratch {
    path: PathBuf,
    /// What it stands for.
    folder: PathBuf,
}

impl LogInspector {
    /// Opens the log in `folder`. Nobody may write to it meanwhile, which is up to the caller.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names a damaged file, as when the log is opened for good.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        let scratch = Scratch::make(folder)?;
        scratch.fill().map_err(|error| scratch.told(error))?;
        let log = RaftEngineLog::open(&scratch.path, RaftEngineSettings::default());
        let log = log.map_err(|error| scratch.told(error))?;
        Ok(Self { log, scratch })
    }

    /// The groups that have a log, ascending.
    ///
    /// # Errors
    /// What the log says.
    pub fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        self.log.groups().map_err(|error| self.scratch.told(error))
    }

    /// What the log holds of a group, if it holds anything.
    ///
    /// # Errors
    /// What the log says.
    pub fn state(&self, group: GroupId) -> Result<Option<GroupState>, LogError> {
        self.log.load(group).map_err(|error| self.scratch.told(error))
    }

    /// Reads every entry of a group.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for an entry that is not what was written, [`LogError::NoEntry`] for one that is missing.
    pub fn verify(&self, group: GroupId) -> Result<(), LogError> {
        let Some(state) = self.state(group)? else { return Ok(()) };
        let (mut next, end) = (state.truncated.index + 1, state.last.index + 1);
        while next < end {
            let entries = self.log.entries(group, next..end, READ_BYTES).map_err(|error| self.scratch.told(error))?;
            if let Some((at, entry)) = (next..).zip(&entries).find(|(at, entry)| entry.index != *at) {
                let what = format!("{group} has entry {} where {at} belongs", entry.index);
                return Err(LogError::Corrupt { file: self.scratch.folder.clone(), what });
            }
            next += entries.len() as u64;
        }
        Ok(())
    }

    /// A group's log in memory, where all of it counts as agreed: to see what its entries come to. Nothing that is done with it comes back here.
    ///
    /// # Errors
    /// As [`LogInspector::verify`].
    pub fn agreed(&self, group: GroupId) -> Result<Option<MemoryLog>, LogError> {
        self.verify(group)?;
        let Some(GroupState { meta, mut hard_state, truncated, last }) = self.state(group)? else { return Ok(None) };
        hard_state.commit = last.index;
        let (copy, mut batch) = (MemoryLog::new(), LogBatch::default());
        let write = batch.of(group);
        (write.meta, write.truncate, write.hard_state) = (Some(meta), Some(truncated), Some(hard_state));
        copy.append(&batch)?;
        let (mut next, end) = (truncated.index + 1, last.index + 1);
        while next < end {
            let entries = self.log.entries(group, next..end, READ_BYTES).map_err(|error| self.scratch.told(error))?;
            next += entries.len() as u64;
            let mut batch = LogBatch::default();
            batch.of(group).entries = entries;
            copy.append(&batch)?;
        }
        Ok(Some(copy))
    }

    /// Whether the group can go on: its log reaches from what its state machine has applied to what was committed.
    /// `installed` is where the state machine stood when it came here whole, if it did.
    ///
    /// # Errors
    /// [`ConsensusError::Gap`] says which two numbers disagree; [`ConsensusError::Absent`] that there is no log.
    pub fn check_continuity(
        &self,
        group: GroupId,
        applied: Position,
        installed: Option<Position>,
    ) -> Result<(), ConsensusError> {
        let term_at = |index| self.log.term(group, index).map_err(|error| self.scratch.told(error));
        let Some(state) = self.state(group)? else { return Err(ConsensusError::Absent { group }) };
        if installed == Some(applied) && !goes_on_after(&state, applied, term_at)? {
            // The crash came between the state and the new beginning of the log, which opening makes up for.
            return Ok(());
        }
        check_continuity(group, &state, applied, term_at)
    }
}

impl Scratch {
    fn make(folder: &Path) -> Result<Self, LogError> {
        let failed = |path: &Path, error: &io::Error| LogError::Io { what: format!("{}: {error}", path.display()) };
        let folder = folder.canonicalize().map_err(|error| failed(folder, &error))?;
        let base = std::env::temp_dir();
        for number in 0..SCRATCH_NAMES {
            let path = base.join(format!("sagitta-log-{}-{number}", std::process::id()));
            // A log holds what users stored, so nobody else may look; and a folder that is there already is somebody else's.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, folder }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&path, &error)),
            }
        }
        Err(LogError::Io { what: format!("{} is full of folders of others", base.display()) })
    }

    /// Copies what opening may write to, and links the rest.
    fn fill(&self) -> Result<(), LogError> {
        let failed = |path: &Path, error: io::Error| LogError::Io { what: format!("{}: {error}", path.display()) };
        let copy = |from: &Path| {
            let name = from.file_name().expect("invariant: it was found by its name");
            fs::copy(from, self.path.join(name)).map(drop).map_err(|error| failed(from, error))
        };
        let mark_file = self.folder.join(MARK_FILE);
        let mark = match mark_file.exists() {
            true => {
                copy(&mark_file)?;
                MarkFile::open(&self.path.join(MARK_FILE)).map_err(|error| failed(&mark_file, error))?
            }
            false => None,
        };
        let mark = mark.map(|file| file.mark());
        let files = log_files(&self.folder)?;
        for (at, (queue, number, path)) in files.iter().enumerate() {
            let is_last = files.get(at + 1).is_none_or(|(next, _, _)| next != queue);
            let is_written_to = mark.is_some_and(|mark| *number >= mark.of(*queue).file);
            if is_last || is_written_to {
                copy(path)?;
            } else {
                let name = path.file_name().expect("invariant: it was found by its name");
                symlink(path, self.path.join(name)).map_err(|error| failed(path, error))?;
            }
        }
        Ok(())
    }

    /// An error with the names of the files that it is really about.
    fn told(&self, error: LogError) -> LogError {
        let text = |text: String| text.replace(&*self.path.to_string_lossy(), &self.folder.to_string_lossy());
        match error {
            LogError::Corrupt { file, what } => {
                LogError::Corrupt { file: PathBuf::from(text(file.to_string_lossy().into())), what: text(what) }
            }
            LogError::Full { what } => LogError::Full { what },
            LogError::Io { what } => LogError::Io { what: text(what) },
            LogError::Closed { why } => LogError::Closed { why: text(why) },
            other => other,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Links are removed, not what they lead to.
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, folder = %self.path.display(), "a scratch folder cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests;
