use std::io;
use std::path::{Path, PathBuf};

use sagitta_model::ErrorKind;

/// What went wrong with a database, in which folder, and what the operator should do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Bytes on disk are not what was written, or a file is missing.
    #[error(
        "the database in {dir} is damaged: {what}. Do not repair it and do not delete files: \
         take this copy out of service and rebuild it from another replica or a backup",
        dir = dir.display()
    )]
    Corrupt {
        /// Folder of the database.
        dir: PathBuf,
        /// File and finding, as precisely as is known.
        what: String,
    },
    /// No space left on the disk, or the quota is used up.
    #[error(
        "the disk that holds {dir} is full: {what}. Nothing acknowledged is lost and reading goes on; \
         free some space or enlarge the volume, then writing resumes by itself",
        dir = dir.display()
    )]
    Full {
        /// Folder of the database.
        dir: PathBuf,
        /// What the operating system said.
        what: String,
    },
    /// The folder or the file system does not allow writing.
    #[error(
        "the database folder {dir} cannot be written: {what}. \
         Give the user that runs this process read and write permission, or mount the file system writable",
        dir = dir.display()
    )]
    ReadOnly {
        /// Folder of the database.
        dir: PathBuf,
        /// What the operating system said.
        what: String,
    },
    /// The database is open already.
    #[error(
        "the database in {dir} is open already, here or in another process. \
         Stop that process, or give this one a data folder of its own",
        dir = dir.display()
    )]
    Locked {
        /// Folder of the database.
        dir: PathBuf,
    },
    /// A newer version has written the folder.
    #[error(
        "the database in {dir} was written by a newer version: {found}. \
         Run that version or a later one on it; there is no way back",
        dir = dir.display()
    )]
    NewerVersion {
        /// Folder of the database.
        dir: PathBuf,
        /// What this version does not know.
        found: String,
    },
    /// Anything else that the operating system or the engine reports.
    #[error(
        "the database in {dir} failed: {what}. \
         Check the disk and the system log; restart this process if it does not go away",
        dir = dir.display()
    )]
    Io {
        /// Folder of the database.
        dir: PathBuf,
        /// What was said, with the file where known.
        what: String,
    },
}

impl KvError {
    /// An error of the operating system about a file or folder of the database in `dir`.
    #[must_use]
    pub fn from_io(dir: &Path, doing: &str, error: &io::Error) -> Self {
        let dir = dir.to_owned();
        let what = format!("{doing}: {error}");
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { dir, what },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { dir, what },
            _ => Self::Io { dir, what },
        }
    }

    /// What a caller should make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Full { .. } => ErrorKind::Overloaded,
            Self::ReadOnly { .. } | Self::Locked { .. } | Self::NewerVersion { .. } | Self::Io { .. } => {
                ErrorKind::Unavailable
            }
        }
    }

    /// Folder of the database.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Self::Corrupt { dir, .. }
            | Self::Full { dir, .. }
            | Self::ReadOnly { dir, .. }
            | Self::Locked { dir }
            | Self::NewerVersion { dir, .. }
            | Self::Io { dir, .. } => dir,
        }
    }
}
