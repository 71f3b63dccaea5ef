//! Recoveries: groups that lost a majority of their members for ever, of which one goes on alone.

use serde::{Deserialize, Serialize};

/// Terms that a recovered group skips. What lost members may have agreed on since without the survivor is of an earlier term, so
/// whoever hears of both goes by the survivor. At one election a second the lost ones would need twelve days to get there.
pub const SKIPPED_TERMS: u64 = 1 << 20;

/// Numbers of shards, operations and deletions that a control group skips which goes on without its majority. Lost members may have handed
/// out the next ones since, and an identity that was handed out twice would be taken for the same.
pub const SKIPPED_IDS: u64 = 1 << 20;

/// A shard that one replica goes on with, alone: all that is kept of it is what that replica has. Under way until that one leads the
/// group, of which it is the only member then. Nothing else is done about the shard meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Identity, never handed out twice, to operations and splits neither.
    pub id: u64,
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement before.
    pub epoch: u64,
    /// The node whose replica goes on.
    pub survivor: u64,
    /// The term from which on the group is that of the survivor alone: one that any member was in before is earlier.
    pub term: u64,
    /// Nodes that are to keep the replica that they have, although it takes part in nothing any more, until the survivor leads: should
    /// that be lost before, one of them can go on instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u64>,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
}
