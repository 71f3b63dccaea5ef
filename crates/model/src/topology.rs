//! What operators are shown of a cluster: its nodes and shards, and how well they are.

use std::fmt;
use std::str::FromStr;

use crate::{CollectionName, Violation};

/// How a node stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeStatus {
    /// Let in, and not yet heard of.
    Joining,
    /// Takes part.
    Up,
    /// Its replicas are moved away.
    Draining,
    /// It holds no replica, and gets none.
    Drained,
    /// Not heard of for so long that it gets no new replica.
    Lost,
    /// It never comes back: its id is refused.
    Removed,
}

impl NodeStatus {
    /// Every status, with its name.
    pub const NAMES: [(Self, &str); 6] = [
        (Self::Joining, "joining"),
        (Self::Up, "up"),
        (Self::Draining, "draining"),
        (Self::Drained, "drained"),
        (Self::Lost, "lost"),
        (Self::Removed, "removed"),
    ];

    /// As people and logs name it.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(status, _)| *status == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NodeStatus {
    type Err = Violation;

    fn from_str(name: &str) -> Result<Self, Violation> {
        let found = Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(status, _)| status);
        found.ok_or_else(|| Violation::new("status", format!("`{name}` is no status of a node")))
    }
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Takes writes.
    Leader,
    /// Votes, and has the same points a moment later.
    Follower,
    /// Receives, and has no vote yet.
    Learner,
}

impl ReplicaRole {
    /// As people name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        }
    }
}

/// How well something is; a later one is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is as it should be.
    Healthy,
    /// Everything is answered, and less may fail than was asked for.
    Degraded,
    /// Something is not answered.
    Unavailable,
}

impl Health {
    /// As people name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A cluster that was founded a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// Its id: a UUID.
    pub id: u128,
    /// What a node must know to join.
    pub join_token: String,
}

/// A cluster, as one coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its id: a UUID.
    pub id: u128,
    /// The node that answers.
    pub coordinator: u64,
    /// The node that leads the control group, as far as the answering one knows.
    pub leader: Option<u64>,
    /// The term of the control group.
    pub term: u64,
    /// The last entry of the control group's log that the answering node has applied.
    pub applied: u64,
    /// The nodes that vote in the control group, ascending.
    pub voters: Vec<u64>,
    /// How many nodes have each status that any has.
    pub nodes: Vec<(NodeStatus, u32)>,
    /// Collections.
    pub collections: u32,
    /// Shards of all collections.
    pub shards: u32,
    /// How well it is as a whole.
    pub health: Health,
    /// What is wrong, worst first, for people.
    pub problems: Vec<String>,
}

/// A node as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name as a member of groups.
    pub id: u64,
    /// UUID of its data folder.
    pub incarnation: u128,
    /// Where other nodes reach it; empty when another node has taken the address over.
    pub peer_address: String,
    /// Where clients reach it; empty when another node has taken the address over.
    pub api_address: String,
    /// What fails together with it.
    pub zone: String,
    /// It routes requests and may vote in the control group.
    pub coordinator: bool,
    /// It hosts replicas.
    pub shard: bool,
    /// How it stands to the cluster.
    pub status: NodeStatus,
    /// When it first joined, in microseconds since 1970.
    pub joined_unix_micros: u64,
    /// It votes in the control group.
    pub voter: bool,
    /// How long the answering coordinator has not heard of it; `None` if it never has.
    pub silent_ms: Option<u64>,
    /// Replicas that it should hold.
    pub wanted_replicas: u32,
    /// Replicas that it holds, as it told.
    pub hosted_replicas: u32,
    /// Shards that it leads, as it told.
    pub led_shards: u32,
    /// Searches that wait for a thread, as it told.
    pub waiting_searches: u32,
    /// What is wrong with it, for people.
    pub problems: Vec<String>,
}

/// A shard as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Identity, unique in the cluster.
    pub id: u64,
    /// Its collection.
    pub collection: CollectionName,
    /// The lowest hash of its range.
    pub first_hash: u64,
    /// The highest hash of its range.
    pub last_hash: u64,
    /// Version of its placement.
    pub epoch: u64,
    /// Its replicas, ascending by node: those that should be, and those that are.
    pub replicas: Vec<ReplicaInfo>,
    /// The node that leads it, as far as is known.
    pub leader: Option<u64>,
    /// The last entry of its log that the leader has applied.
    pub applied: u64,
    /// Points that exist, as the leader told.
    pub points: u64,
    /// Bytes on the leader's disk.
    pub disk_bytes: u64,
    /// Bytes that its points take, as the leader told.
    pub data_bytes: u64,
    /// What the leader's replica does.
    pub load: ReplicaLoad,
    /// How well it is.
    pub health: Health,
    /// What is wrong with it, for people.
    pub problems: Vec<String>,
}

/// What a replica does: microseconds of a second for which threads search in it, read it and apply to it; a thread that is never idle has a
/// million. What is built beside that does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLoad {
    /// Over about half a minute.
    pub recent_us: u64,
    /// Over about ten minutes.
    pub lasting_us: u64,
}

/// A copy of a shard on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The node.
    pub node: u64,
    /// The node should hold it.
    pub wanted: bool,
    /// What the node has told of it.
    pub told: Option<ReplicaTold>,
}

/// What a node has told of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaTold {
    /// What it is in the shard's group.
    pub role: ReplicaRole,
    /// The epoch of the placement that the node knows.
    pub epoch: u64,
    /// The term that it is in.
    pub term: u64,
    /// The last entry of the log that it has applied.
    pub applied: u64,
    /// Entries that it is behind the leader; `None` when that has told nothing.
    pub lag_entries: Option<u64>,
    /// Points that it holds.
    pub points: u64,
    /// Bytes on its disk.
    pub disk_bytes: u64,
    /// Bytes that its points take: vectors, payload and index, without what is dead, waits to be collected, or went to another shard by
    /// a split.
    pub data_bytes: u64,
    /// What it does.
    pub load: ReplicaLoad,
    /// Why it does not serve, if it does not.
    pub problem: Option<String>,
}
