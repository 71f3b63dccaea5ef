//! What became of a proposal or of a read.

use bytes::Bytes;
use sagitta_model::ErrorKind;

use crate::ids::NodeId;

/// What became of a proposal. Only [`Outcome::Unknown`] leaves it open whether the proposal took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable on a quorum and applied here.
    Applied(Applied),
    /// Not proposed, or overwritten by another leader: it took no effect. Try there.
    NotLeader {
        /// The leader as far as this member knows.
        hint: Option<NodeId>,
    },
    /// Not proposed: it took no effect.
    Refused(Refusal),
    /// It may have taken effect or may still do so. Safe to retry with the same request id.
    Unknown(Doubt),
}

/// Where a proposal landed and what the state machine said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Index of its entry.
    pub index: u64,
    /// Term of its entry.
    pub term: u64,
    /// The state machine's response to it.
    pub response: Bytes,
}

/// What became of a read: the index that the local state machine has at least applied, so that reading it now is
/// linearizable; otherwise as for proposals (a read in doubt is simply repeated).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The state machine here has applied at least up to this index, and everything that was acknowledged before the read
    /// began: what it holds now is to be read, not what it held at this index.
    At(u64),
    /// Only the leader can tell. Try there.
    NotLeader {
        /// The leader as far as this member knows.
        hint: Option<NodeId>,
    },
    /// Not tried.
    Refused(Refusal),
    /// No answer in time.
    Unknown(Doubt),
}

/// What became of handing the leadership over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverOutcome {
    /// The node leads.
    Done,
    /// This member does not lead, or somebody else does now. Try there.
    NotLeader {
        /// The leader as far as this member knows.
        hint: Option<NodeId>,
    },
    /// This member leads as before.
    Refused(Refusal),
    /// No answer in time.
    Unknown(Doubt),
}

/// Why nothing was proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host holds as many proposals as it may.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// Larger than an entry may be.
    #[error("the change takes {bytes} bytes in the log, at most {max_bytes} are allowed: write fewer points at once")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Empty entries have a meaning of their own in a log.
    #[error("a proposal has no data")]
    Empty,
    /// No room on disk, for the log or for the state machine. Serves again by itself when there is.
    #[error("no room on disk: {what}")]
    Full {
        /// Which disk, in the file system's words.
        what: String,
    },
    /// Its deadline had passed before it was looked at.
    #[error("the deadline had passed before the proposal was looked at")]
    Expired,
    /// The group or the host is closing.
    #[error("closing")]
    Closing,
    /// The group or the host has stopped on a failure.
    #[error("stopped: {why}")]
    Stopped {
        /// The failure.
        why: String,
    },
    /// The group has stopped because its log or its state machine is damaged.
    #[error("stopped: {why}")]
    Damaged {
        /// What is damaged.
        why: String,
    },
    /// The group is not open here.
    #[error("the group is not open here")]
    Absent,
    /// These cannot be the members of a group.
    #[error("these cannot be the members: {what}")]
    BadMembers {
        /// What is wrong.
        what: String,
    },
    /// Another change of members, or a handover, has not ended yet.
    #[error("{what} is under way: try again when it has ended")]
    UnderWay {
        /// Which.
        what: String,
    },
    /// A voter must have what the others have, or the group could be unable to decide anything until it does.
    #[error("{node} cannot vote yet: {what}")]
    NotCaughtUp {
        /// Who lags.
        node: NodeId,
        /// By how much, or what it is instead of a learner.
        what: String,
    },
    /// Too few of the voters answer.
    #[error("these voters have not been heard of lately: {}", join(nodes))]
    Unreachable {
        /// Who is silent.
        nodes: Vec<NodeId>,
    },
    /// The leader would end its own membership.
    #[error("{leader} leads and cannot leave: hand the leadership over first")]
    LeaderLeaves {
        /// The leader.
        leader: NodeId,
    },
    /// The node did not take the leadership over in time.
    #[error("{to} has not taken over: this member leads as before")]
    NotTakenOver {
        /// Who should have.
        to: NodeId,
    },
}

/// Why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The deadline passed first.
    #[error("no answer before the deadline")]
    Deadline,
    /// The group or the host stopped first.
    #[error("stopped: {why}")]
    Stopped {
        /// What stopped it.
        why: String,
    },
}

impl Refusal {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Overloaded | Self::Full { .. } | Self::Expired => ErrorKind::Overloaded,
            Self::TooLarge { .. } | Self::Empty | Self::BadMembers { .. } => ErrorKind::Invalid,
            Self::Closing
            | Self::Stopped { .. }
            | Self::UnderWay { .. }
            | Self::NotCaughtUp { .. }
            | Self::Unreachable { .. }
            | Self::NotTakenOver { .. } => ErrorKind::Unavailable,
            Self::LeaderLeaves { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Absent => ErrorKind::NotFound,
        }
    }
}

fn join(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}
