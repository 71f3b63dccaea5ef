//! Identities. Each is handed out once and never used again.

use std::fmt;

/// The cluster that everything here belongs to: a UUID drawn when it was founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

/// One Raft group: the control plane's or one shard's. Above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// One incarnation of a node, and its name as a member of every group it takes part in. Above 0.
/// A node whose disk was wiped is another node: a member that forgot its vote could elect two leaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A place in a group's log. Index 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Entries are numbered without gaps.
    pub index: u64,
    /// The term of the leader that appended the entry.
    pub term: u64,
}

impl Position {
    /// Whether a log that ends here lacks what one that ends there has, as elections judge it.
    pub(crate) fn is_before(self, other: Self) -> bool {
        (self.term, self.index) < (other.term, other.index)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:032x}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} (term {})", self.index, self.term)
    }
}
