//! Bounds on what a cluster is: the whole state is in the memory of every coordinator, and sent to every node when it changes.

pub use sagitta_model::limits::{MAX_REPLICATION, MAX_SHARDS};

/// Nodes that ever joined, the removed ones included, whose ids stay taken.
pub const MAX_NODES: usize = 10_000;
/// Nodes in service with the role coordinator when another one joins: each one more is one more that every decision waits for.
pub const MAX_COORDINATORS: usize = 5;
/// Collections: each costs a Raft group and a database for every shard.
pub const MAX_COLLECTIONS: usize = 1_000;
/// Shards of all collections: what a thousand nodes host with a hundred replicas each.
pub const MAX_CLUSTER_SHARDS: usize = 100_000;
/// Length of a node's address, in bytes: the longest host name, a scheme and a port.
pub const MAX_ADDRESS_BYTES: usize = 270;
/// Length of a zone's name, in bytes.
pub const MAX_ZONE_BYTES: usize = 128;
/// Operations that have not ended: one for each shard at most, and a scheduler begins far fewer at once.
pub const MAX_OPERATIONS: usize = 1_000;
/// Operations that have ended and are still shown: so many that somebody asked for, and so many others.
pub const MAX_ENDED_OPERATIONS: usize = 100;
/// Length of an operation's reason, in bytes.
pub const MAX_REASON_BYTES: usize = 512;
/// Request ids that are remembered: retries come within seconds, administrators act a few times a minute.
pub(crate) const REMEMBERED_REQUESTS: usize = 1_024;
