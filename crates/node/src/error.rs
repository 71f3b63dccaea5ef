//! What can go wrong on a node.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::{ConsensusError, Doubt, NodeId, Refusal};
use sagitta_engine::kv::KvError;
use sagitta_model::{ErrorKind, Problem};
use sagitta_shard::ShardError;

use crate::resources::Shortage;

/// What can go wrong on a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The shard has no replica here.
    #[error("shard {shard} is not hosted here")]
    NotHosted {
        /// Which shard.
        shard: u64,
    },
    /// The shard failed.
    #[error("{error}")]
    Shard {
        /// Which shard.
        shard: u64,
        /// What happened.
        error: ShardError,
    },
    /// The shard's Raft group failed.
    #[error("{error}")]
    Consensus {
        /// Which shard.
        shard: u64,
        /// What happened.
        error: ConsensusError,
    },
    /// The log of the shard's Raft group is gone.
    #[error(
        "{} holds a replica whose Raft log is gone: a new log could vote twice and would lack what was acknowledged; put the log back if it was \
         moved, else remove the data folder and start it as a new node",
        folder.display()
    )]
    LogGone {
        /// The replica's folder.
        folder: PathBuf,
    },
    /// A write or read was not tried, or what became of it is unknown.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// What became of a change is unknown.
    #[error("{0}")]
    Unknown(Doubt),
    /// A read was not answered.
    #[error("{0}")]
    Unanswered(Doubt),
    /// A part of a write was applied, and then this happened.
    #[error("{0}")]
    Begun(Box<NodeError>),
    /// The replica does not lead its group.
    #[error("this replica does not lead its group")]
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<NodeId>,
    },
    /// A shard cannot be opened before it has been split off.
    #[error("shard {shard} is to be split off from shard {left}, which has not come about here yet")]
    NotSplit {
        /// The new shard.
        shard: u64,
        /// Where its points are until then.
        left: u64,
    },
    /// The command names points that are another shard's by now.
    #[error("{}", .0.message)]
    Misrouted(Problem),
    /// The command was refused when it was applied.
    #[error("{}", .0.message)]
    Command(Problem),
    /// Too many searches wait for a thread.
    #[error("too many searches are waiting: slow down, or add nodes")]
    SearchQueueFull,
    /// Sealing is too far behind.
    #[error("too many points wait to be indexed: slow down")]
    TooManyUnsealed,
    /// The database waits for its flushes and compactions.
    #[error("the database is behind with flushing and compacting: slow down")]
    DatabaseBehind,
    /// The database cannot be written.
    #[error("{0}")]
    DatabaseFailing(KvError),
    /// The writes under way are as large as they may be, together.
    #[error("too many writes are under way at once: slow down, or send smaller ones")]
    TooManyWrites,
    /// The deadline passed before a write was let in.
    #[error(
        "the deadline passed while the write waited for memory or disk to be free, and nothing was written: slow down"
    )]
    NotAdmitted,
    /// Too little memory or disk is left for more data.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The deadline passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// Work ended without a result: a bug.
    #[error("{what} failed unexpectedly; the server's log says more")]
    Failed {
        /// What work.
        what: &'static str,
    },
    /// A folder could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A shard that is merged does not say what it has.
    #[error("shard {shard}, which is merged, does not say what it has: {message}")]
    Source {
        /// Which shard.
        shard: u64,
        /// What whoever asks should do.
        kind: ErrorKind,
        /// What its replicas say.
        message: String,
    },
    /// Threads could not be started.
    #[error("cannot start threads: {source}")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// A stored answer could not be read: a bug, or damage.
    #[error("a stored answer is damaged: {0}")]
    Answer(Arc<str>),
}

impl NodeError {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotHosted { .. }
            | Self::NotLeader { .. }
            | Self::NotSplit { .. }
            | Self::Unknown(_)
            | Self::Unanswered(_)
            | Self::Begun(_)
            | Self::DeadlinePassed => ErrorKind::Unavailable,
            Self::Shard { error, .. } => error.kind(),
            Self::Consensus { error, .. } => error.kind(),
            Self::Refused(refusal) => refusal.kind(),
            Self::Command(problem) | Self::Misrouted(problem) => problem.kind,
            Self::SearchQueueFull
            | Self::TooManyUnsealed
            | Self::DatabaseBehind
            | Self::TooManyWrites
            | Self::NotAdmitted
            | Self::Shortage(_) => ErrorKind::Overloaded,
            Self::DatabaseFailing(error) => error.kind(),
            Self::Failed { .. } => ErrorKind::Internal,
            Self::Source { kind, .. } => *kind,
            Self::Io { .. } | Self::Threads { .. } => ErrorKind::Unavailable,
            Self::Answer(_) | Self::LogGone { .. } => ErrorKind::Corrupt,
        }
    }

    /// Whether a write was refused because its request id belongs to another write.
    pub fn is_request_id_reused(&self) -> bool {
        matches!(self, Self::Command(problem) if problem.kind == ErrorKind::Conflict)
    }

    /// Whether the caller goes by another split of the shard than this replica, or the shard is being merged: the route is to be looked up
    /// again, or another replica asked.
    pub fn is_of_other_points(&self) -> bool {
        matches!(
            self.cause(),
            Self::Misrouted(_)
                | Self::NotSplit { .. }
                | Self::Shard { error: ShardError::OtherPoints { .. } | ShardError::Merging { .. }, .. }
        )
    }

    /// Whether a change may have been made all the same, or a part of it.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Begun(_))
    }

    /// What happened, whatever had been done before.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Begun(cause) => cause,
            error => error,
        }
    }

    /// When coming back makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Begun(cause) => cause.retry_after(),
            // A queue of searches is worked off in milliseconds, a segment is sealed in a second or two.
            Self::SearchQueueFull => Some(Duration::from_millis(20)),
            Self::TooManyUnsealed | Self::DatabaseBehind | Self::Shortage(Shortage::Unsealed { .. }) => {
                Some(Duration::from_millis(500))
            }
            Self::DatabaseFailing(error) if error.kind() == ErrorKind::Overloaded => Some(Duration::from_millis(500)),
            // Memory comes back when something is sealed and flushed; a disk usually when a person acts.
            Self::Shortage(Shortage::Memory { .. }) => Some(Duration::from_secs(1)),
            Self::Shortage(Shortage::Disk { .. }) | Self::Refused(Refusal::Full { .. }) => Some(Duration::from_secs(5)),
            _ => match self.kind() {
                ErrorKind::Overloaded | ErrorKind::Unavailable => Some(Duration::from_millis(100)),
                _ => None,
            },
        }
    }
}
