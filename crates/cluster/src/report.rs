//! What nodes tell of themselves many times a minute. Never part of the agreed state, never in a log: it may be late, and it is
//! lost without harm.

pub use sagitta_model::{ReplicaLoad, ReplicaRole};

use crate::collection::Floor;

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The replicas that it hosts, ascending by shard.
    pub replicas: Vec<ReplicaReport>,
    /// Searches that wait for a thread.
    pub searches_waiting: u32,
    /// Threads that search; 0 if it does not tell, as older ones.
    pub search_threads: u32,
    /// Why it takes no more data, if it does not.
    pub shortage: Option<String>,
    /// Up to which deletion it has followed the control state: it hosts nothing of the collections that were deleted, and neither asks nor
    /// hears the nodes that were given up, and never will again.
    pub deletions: u64,
    /// What its replicas of shards that are merged tell, ascending by shard.
    pub merges: Vec<MergeReport>,
}

/// What a replica of a shard tells of a merge that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeReport {
    /// The shard.
    pub shard: u64,
    /// The merge.
    pub merge: u64,
    /// How far it is here.
    pub stage: MergeStage,
}

/// How far a merge is as far as one replica has come, or knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeStage {
    /// Of the new shard, told by whoever fills it: it lacks next to nothing.
    Ready,
    /// Of the new shard: it has everything, and takes writes.
    Filled,
    /// Of a shard that is merged: it takes no writes.
    Frozen,
    /// Of a shard that is merged: it works on, and the merge does not freeze it any more.
    Thawed,
}

impl Report {
    /// What it tells of its replica of a shard.
    pub(crate) fn of(&self, shard: u64) -> Option<&ReplicaReport> {
        let at = self.replicas.binary_search_by_key(&shard, |replica| replica.shard).ok()?;
        Some(&self.replicas[at])
    }
}

/// What a node tells of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaReport {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement as the node knows it.
    pub epoch: u64,
    /// What the replica is in its group.
    pub role: ReplicaRole,
    /// Who leads the group, as far as it knows.
    pub leader: Option<u64>,
    /// The term that it is in: of two reports the one of the later term knows better who leads.
    pub term: u64,
    /// The last entry of the log that it has applied.
    pub applied: u64,
    /// Points that it holds.
    pub points: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes that its points take: vectors, payload and index, without what is dead, waits to be collected, or went to another shard by
    /// a split. 0 if the node does not tell, as older ones.
    pub data_bytes: u64,
    /// What it does; nothing if the node does not tell, as older ones.
    pub load: ReplicaLoad,
    /// Why it does not serve, if it does not.
    pub problem: Option<String>,
    /// The entry that split it last, or split it off, of those that it has applied.
    pub split: Option<Floor>,
    /// Who belongs to the group: told by its leader, while no change of that is under way.
    pub members: Option<GroupMembers>,
    /// Where its log ends, applied or not.
    pub last: Floor,
}

/// Who belongs to a shard's group, each ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// Members that vote.
    pub voters: Vec<u64>,
    /// Members that only receive.
    pub learners: Vec<u64>,
}

impl GroupMembers {
    /// Whether a node belongs to it in any way.
    pub fn contains(&self, node: u64) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}
