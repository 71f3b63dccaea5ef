//! What can go wrong outside of a single proposal (for those see [`crate::Outcome`]).

use std::path::PathBuf;

use sagitta_model::ErrorKind;

use crate::ids::{ClusterId, GroupId, NodeId};

/// Opening, closing and running groups.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The log could not be read or written.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The log on disk belongs to another cluster.
    #[error("{group}: the log belongs to {stored}, this node to {expected}")]
    OtherCluster {
        /// The group being opened.
        group: GroupId,
        /// What the log says.
        stored: ClusterId,
        /// What the settings say.
        expected: ClusterId,
    },
    /// The log on disk was written by another node.
    #[error("{group}: the log was written by {stored}, this is {expected}")]
    OtherNode {
        /// The group being opened.
        group: GroupId,
        /// What the log says.
        stored: NodeId,
        /// What the settings say.
        expected: NodeId,
    },
    /// The log does not continue what the state machine holds: opening would lose or repeat history.
    #[error("{group}: {what}")]
    Gap {
        /// The group being opened.
        group: GroupId,
        /// Which two numbers disagree.
        what: String,
    },
    /// There is no log of this group, and the caller did not ask to found it.
    #[error("{group}: no log of it exists here")]
    Absent {
        /// The group asked for.
        group: GroupId,
    },
    /// The group is open already, or still.
    #[error("{group}: is open")]
    Open {
        /// The group asked for.
        group: GroupId,
    },
    /// The host's inbox is full.
    #[error("the consensus host has more waiting than it may hold")]
    Overloaded,
    /// The host has ended or is ending.
    #[error("the consensus host has stopped: {why}")]
    Stopped {
        /// What stopped it.
        why: String,
    },
    /// The settings or the stored state make no valid group.
    #[error("{group}: {what}")]
    Refused {
        /// The group being opened.
        group: GroupId,
        /// What the library or the state machine said.
        what: String,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Reading and writing the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. Nothing of the batch was written: the same batch may be tried again.
    #[error("the log's disk is full: {what}")]
    Full {
        /// The file system's words.
        what: String,
    },
    /// Bytes that had been synced are damaged or missing.
    #[error("the log file {} is damaged: {what}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An fsync failed: what the disk holds is no longer known. The log takes no more writes until it is opened
    /// again, because a second fsync would report success without having written the lost pages.
    #[error("fsync of the log file {} failed: {what}", file.display())]
    SyncFailed {
        /// The file that was being synced.
        file: PathBuf,
        /// The file system's words.
        what: String,
    },
    /// The file system failed in another way.
    #[error("log: {what}")]
    Io {
        /// The file system's words.
        what: String,
    },
    /// An earlier failure closed this log.
    #[error("the log is closed after a failure: {why}")]
    Closed {
        /// The earlier failure.
        why: String,
    },
    /// Entries were asked for that the log does not hold (any more).
    #[error("{group}: the log holds no entry {index}")]
    NoEntry {
        /// Whose log.
        group: GroupId,
        /// The index asked for.
        index: u64,
    },
}

impl ConsensusError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(log) => log.kind(),
            Self::OtherCluster { .. } | Self::OtherNode { .. } | Self::Open { .. } => ErrorKind::Conflict,
            Self::Gap { .. } => ErrorKind::Corrupt,
            Self::Absent { .. } => ErrorKind::NotFound,
            Self::Overloaded => ErrorKind::Overloaded,
            Self::Stopped { .. } | Self::Thread { .. } => ErrorKind::Unavailable,
            Self::Refused { .. } => ErrorKind::Internal,
        }
    }
}

impl LogError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::Overloaded,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::SyncFailed { .. } | Self::Io { .. } | Self::Closed { .. } => ErrorKind::Unavailable,
            Self::NoEntry { .. } => ErrorKind::Internal,
        }
    }
}
