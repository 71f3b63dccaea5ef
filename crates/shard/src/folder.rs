//! The shard's folder: names, syncing, and what becomes of folders that are not needed any more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::{SegmentId, ShardError};

/// Damaged segments that are kept for whoever wants to look at them: the newest few, so that a bad disk cannot fill itself.
const MAX_QUARANTINED: usize = 4;

/// Paths within a shard's folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes what is missing.
    pub(crate) fn create(root: &Path) -> Result<Self, ShardError> {
        let folder = Self(root.to_path_buf());
        for path in [folder.segments(), folder.quarantine()] {
            fs::create_dir_all(&path).map_err(|source| io_error(&path, source))?;
        }
        Ok(folder)
    }

    /// The paths, whatever is there.
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.to_path_buf())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("db")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.0.join("segments")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.0.join("quarantine")
    }

    /// Where the folder of the new shard of a split is made.
    pub(crate) fn half(&self) -> PathBuf {
        self.0.join("half")
    }

    pub(crate) fn segment(&self, id: SegmentId) -> PathBuf {
        self.segments().join(id.to_string())
    }

    /// Where a segment is built.
    pub(crate) fn unfinished(&self, id: SegmentId) -> PathBuf {
        self.segments().join(format!("{id}.tmp"))
    }

    /// Takes the files of a segment from elsewhere, within the same file system.
    pub(crate) fn take_in(&self, from: &Path, id: SegmentId) -> Result<(), ShardError> {
        fs::rename(from, self.unfinished(id)).map_err(|source| io_error(from, source))
    }

    /// Gives the folder of a segment that was built its name, for good.
    pub(crate) fn name_segment(&self, id: SegmentId) -> Result<(), ShardError> {
        let to = self.segment(id);
        fs::rename(self.unfinished(id), &to).map_err(|source| io_error(&to, source))?;
        sync_folder(&self.segments())
    }

    /// Removes what is in `segments/`, except for these segments.
    pub(crate) fn remove_all_but(&self, named: &[SegmentId]) -> Result<(), ShardError> {
        self.all_but(named)?.iter().try_for_each(|path| remove(path))
    }

    /// What is in `segments/` besides these segments.
    pub(crate) fn all_but(&self, named: &[SegmentId]) -> Result<Vec<PathBuf>, ShardError> {
        let is_named = |path: &PathBuf| {
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            id.is_some_and(|id| named.contains(&id))
        };
        Ok(list(&self.segments())?.into_iter().filter(|path| !is_named(path)).collect())
    }

    /// Removes the folder of a segment.
    pub(crate) fn remove_segment(&self, id: SegmentId) -> Result<(), ShardError> {
        remove(&self.segment(id))
    }

    /// Removes what is left of a build.
    pub(crate) fn remove_unfinished(&self, id: SegmentId) -> Result<(), ShardError> {
        remove(&self.unfinished(id))?;
        remove(&self.segment(id))
    }

    /// Sets the folder of a damaged segment aside.
    pub(crate) fn quarantine_segment(&self, id: SegmentId) -> Result<(), ShardError> {
        let (from, to) = (self.segment(id), self.quarantine().join(id.to_string()));
        remove(&to)?;
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&to, error)),
            _ => {}
        }
        let mut kept = self.quarantined()?;
        kept.sort_unstable();
        let excess = kept.len().saturating_sub(MAX_QUARANTINED);
        kept.iter().take(excess).try_for_each(|id| remove(&self.quarantine().join(id.to_string())))
    }

    /// The segments that were set aside.
    pub(crate) fn quarantined(&self) -> Result<Vec<SegmentId>, ShardError> {
        let id = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
        Ok(list(&self.quarantine())?.iter().filter_map(id).collect())
    }
}

/// Makes the names in a folder durable, or the content of a file.
pub(crate) fn sync_folder(path: &Path) -> Result<(), ShardError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|source| io_error(path, source))
}

/// Makes a folder durable with all that is in it.
pub(crate) fn sync_all(path: &Path) -> Result<(), ShardError> {
    for entry in list(path)? {
        if entry.is_dir() { sync_all(&entry)? } else { sync_folder(&entry)? }
    }
    sync_folder(path)
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> ShardError {
    ShardError::Io { path: path.to_path_buf(), source }
}

pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>, ShardError> {
    let entries = fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|source| io_error(path, source))
}

pub(crate) fn remove(path: &Path) -> Result<(), ShardError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}
