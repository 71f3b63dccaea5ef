use std::fmt;

use super::Manifest;
use crate::ids::{GroupId, NodeId};

/// Parts that a member names in an answer: the newest ones. With its manifest one takes about a kilobyte.
pub const MAX_PARTS: usize = 128;

/// A part of a group's state that is costly to make, and that members who lack it may fetch instead: an immutable folder of files. For a
/// shard it is a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its files. The number of the offer is the part's name, the same on every member that has it.
    pub manifest: Manifest,
    /// Its size, in the state machine's own words.
    pub rows: u64,
    /// Index of the newest entry that it has something of.
    pub last: u64,
}

/// What a member says of the parts of a group's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Whether it leads the group, and so is the one that makes parts.
    pub leads: bool,
    /// Whether it is making a part, or about to.
    pub working: bool,
    /// What can be fetched from it, the newest last.
    pub parts: Vec<Part>,
}

/// Says which parts of a group's state others may fetch.
pub trait PartKeeper: Send + Sync {
    /// Those of this moment, at most [`MAX_PARTS`]. Takes no time.
    fn parts(&self) -> Parts;
}

/// Asks a member for the parts that it has.
pub struct Question {
    /// The group whose state is meant.
    pub group: GroupId,
    /// Who is asked.
    pub of: NodeId,
    /// Told the answer, or why there is none, on a thread that may wait.
    pub done: Box<dyn FnOnce(Result<Parts, String>) + Send + Sync>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("group", &self.group).field("of", &self.of).finish_non_exhaustive()
    }
}
