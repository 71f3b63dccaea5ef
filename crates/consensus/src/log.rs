//! The durable log of all groups of a host.

pub(crate) mod engine;
pub(crate) mod inspect;
pub(crate) mod memory;

#[cfg(test)]
pub(crate) mod conformance;

use std::ops::Range;

use raft::eraftpb::{Entry, HardState};

use crate::codec::{Reader, put_u64, put_u128};
use crate::error::LogError;
use crate::ids::{ClusterId, GroupId, NodeId, Position};
use crate::membership::Membership;

/// Entries and votes of many groups, written together.
///
/// What a successful [`LogStore::append`] was given survives power loss. Anything else may or may not; but of one
/// batch all of it or nothing.
pub trait LogStore: Send + Sync {
    /// The groups that have a log here, ascending.
    fn groups(&self) -> Result<Vec<GroupId>, LogError>;

    /// What a group's log holds, or `None` when there is none.
    fn load(&self, group: GroupId) -> Result<Option<GroupState>, LogError>;

    /// Writes for many groups at once, synced when it returns. [`LogError::Full`] leaves everything as it was and
    /// may be retried; after any other error the log must be opened anew.
    fn append(&self, batch: &LogBatch) -> Result<(), LogError>;

    /// Term of an entry, which lies between the truncated position and the last entry, both included.
    fn term(&self, group: GroupId, index: u64) -> Result<u64, LogError>;

    /// Entries of a range that the log holds, as many from its front as fit the bytes, at least one.
    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, LogError>;

    /// Forgets a group, durably.
    fn remove_group(&self, group: GroupId) -> Result<(), LogError>;

    /// Gives back the space of truncated entries. Names groups that hold old space back: flushing their state
    /// machines would free it. [`LogError::Full`] leaves everything as it was: this, too, writes before it removes.
    fn purge(&self) -> Result<Vec<GroupId>, LogError>;
}

/// One atomic, synced write.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// One item per group.
    pub writes: Vec<GroupWrite>,
}

/// What one group writes.
#[derive(Clone, Debug)]
pub struct GroupWrite {
    /// Whose log.
    pub group: GroupId,
    /// Set when the group is founded.
    pub meta: Option<GroupMeta>,
    /// Contiguous entries; stored entries from the first one's index on are replaced.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index, if they changed.
    pub hard_state: Option<HardState>,
    /// Drops entries up to and including this one.
    pub truncate: Option<Position>,
    /// Drops all entries, and lets the log go on after this one, which it need not hold.
    pub restart: Option<Position>,
}

/// What a log holds of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupState {
    /// Whose log it is.
    pub meta: GroupMeta,
    /// Term, vote and commit index as last written.
    pub hard_state: HardState,
    /// The entry before the first.
    pub truncated: Position,
    /// The last entry, or the truncated position.
    pub last: Position,
}

/// Identity of a group's log, written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMeta {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node that writes it.
    pub node: NodeId,
    /// The membership that the group was founded with.
    pub founders: Membership,
}

impl GroupWrite {
    /// Nothing yet.
    pub fn new(group: GroupId) -> Self {
        Self { group, meta: None, entries: Vec::new(), hard_state: None, truncate: None, restart: None }
    }
}

impl LogBatch {
    /// Whether there is anything to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The item of a group, the last one if it is that group's.
    pub(crate) fn of(&mut self, group: GroupId) -> &mut GroupWrite {
        if self.writes.last().is_none_or(|write| write.group != group) {
            self.writes.push(GroupWrite::new(group));
        }
        self.writes.last_mut().expect("invariant: just pushed")
    }
}

const META_FORMAT: u8 = 1;

impl GroupMeta {
    /// Format byte, cluster u128, node u64, founders.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![META_FORMAT];
        put_u128(&mut bytes, self.cluster.0);
        put_u64(&mut bytes, self.node.0);
        bytes.extend(self.founders.encode());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != META_FORMAT {
            return None;
        }
        let (cluster, node) = (ClusterId(reader.u128()?), NodeId(reader.u64()?));
        Some(Self { cluster, node, founders: Membership::decode(reader.rest())? })
    }
}

impl Position {
    /// Index u64, term u64.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        put_u64(&mut bytes, self.index);
        put_u64(&mut bytes, self.term);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let position = Self { index: reader.u64()?, term: reader.u64()? };
        reader.is_at_end().then_some(position)
    }

    pub(crate) fn of(entry: &Entry) -> Self {
        Self { index: entry.index, term: entry.term }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_meta_format_1_stay_readable() {
        let meta =
            GroupMeta { cluster: ClusterId(0x0a0b), node: NodeId(3), founders: Membership::of_voters(&[NodeId(3)]) };
        let golden = [
            &[1][..],
            &[0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(meta.encode(), golden);
        assert_eq!(GroupMeta::decode(&golden), Some(meta));
        assert_eq!(GroupMeta::decode(&golden[1..]), None);
    }
}
