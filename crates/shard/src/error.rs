use std::io;
use std::path::PathBuf;

use sagitta_engine::index::IndexError;
use sagitta_engine::kv::KvError;
use sagitta_engine::mapped::{Damaged, FileError};
use sagitta_model::{ErrorKind, Violation};

use crate::codec::DecodeError;

/// What can go wrong in a shard.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The folder belongs to something else.
    #[error("{dir} holds {what} {found}, expected {expected}; this folder belongs to another shard", dir = dir.display())]
    Identity {
        /// Folder of the shard.
        dir: PathBuf,
        /// Which of the identities disagrees: collection, shard or schema.
        what: &'static str,
        /// In the folder.
        found: String,
        /// As asked for.
        expected: String,
    },
    /// The folder was written by a newer version.
    #[error("{dir} is in format {found}, this version knows formats up to {supported}; run the newer version", dir = dir.display())]
    NewerFormat {
        /// Folder of the shard.
        dir: PathBuf,
        /// Format of the folder.
        found: u32,
        /// Newest format known.
        supported: u32,
    },
    /// A log entry was written by a newer version.
    #[error(
        "log entry {index} is in format {found}, this version knows formats up to {supported}; run the newer version"
    )]
    NewerCommand {
        /// Position in the log.
        index: u64,
        /// Format of the entry.
        found: u32,
        /// Newest format known.
        supported: u32,
    },
    /// The database failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// An index failed.
    #[error(transparent)]
    Index(IndexError),
    /// A derived file is not what was written. It is served around and rebuilt.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The file system failed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A state may be in the place of another one or not, as far as the disk goes: which of them it is turns out when the replica is
    /// opened anew.
    #[error("{}: {source}; whether the state that was fetched is in its place is not known", path.display())]
    SwitchInDoubt {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A stored row is not what was written although the database passed it.
    #[error("{what}: {source}")]
    Row {
        /// Which row.
        what: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Rows contradict each other.
    #[error("the shard contradicts itself: {what}; take this replica out of service and rebuild it")]
    Inconsistent {
        /// What was found and what was expected.
        what: String,
    },
    /// A segment from elsewhere cannot be taken over. Everything is as it was, and what it was to save is to be built here.
    #[error("the segment in {} cannot be adopted: {reason}", dir.display())]
    Unfit {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A job works on what a segment from elsewhere would replace. Everything is as it was.
    #[error("a job is at work on what the segment would replace")]
    Occupied,
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// A bug. Everything is as it was.
    #[error("it panicked, which is a bug of this version: {what}")]
    Panicked {
        /// What the panic said.
        what: String,
    },
    /// A split cannot be applied, since it is not known where other shards are.
    #[error("shard {shard} is to be split off, but this one was opened without a place for others; open it on a node")]
    NoPlace {
        /// Number of the new shard.
        shard: u64,
    },
    /// A caller and a replica go by different splits of a shard: the one's points are not the other's.
    #[error(
        "shard {shard} has its points as of its split at log index {since} (0 for none), and was asked for those as of {asked}: look the route up \
         again, or ask another replica"
    )]
    OtherPoints {
        /// Which shard.
        shard: u64,
        /// As [`crate::ReadView::since`].
        since: u64,
        /// What the caller goes by.
        asked: u64,
    },
    /// A shard that is being merged was asked by somebody else than whoever merges it.
    #[error("shard {shard} is being merged with another (merge {merge}): look the route up again")]
    Merging {
        /// Which shard.
        shard: u64,
        /// The merge.
        merge: u64,
    },
    /// The caller gave up, or its time ran out.
    #[error("stopped")]
    Stopped,
}

impl ShardError {
    /// What a caller should make of it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Identity { .. } | Self::Unfit { .. } => ErrorKind::Conflict,
            Self::NewerFormat { .. }
            | Self::NewerCommand { .. }
            | Self::Io { .. }
            | Self::SwitchInDoubt { .. }
            | Self::Occupied
            | Self::NoPlace { .. }
            | Self::OtherPoints { .. }
            | Self::Merging { .. }
            | Self::Stopped => ErrorKind::Unavailable,
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::Kv(error) => error.kind(),
            Self::Damaged(_) | Self::Row { .. } | Self::Inconsistent { .. } => ErrorKind::Corrupt,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Index(error) => match error {
                IndexError::Io { .. } => ErrorKind::Unavailable,
                IndexError::Damaged(_) | IndexError::Format { .. } => ErrorKind::Corrupt,
                _ => ErrorKind::Internal,
            },
        }
    }
}

impl From<IndexError> for ShardError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Stopped => Self::Stopped,
            IndexError::Damaged(damage) => Self::Damaged(damage),
            IndexError::Io { path, source } => Self::Io { path, source },
            other => Self::Index(other),
        }
    }
}

impl From<FileError> for ShardError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { path, source } => Self::Io { path, source },
            FileError::Damaged(damage) => Self::Damaged(damage),
        }
    }
}
