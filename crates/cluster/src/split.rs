//! Splits: shards that become two, step by step. Nothing goes to the new one before all of it is there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::collection::ShardDescriptor;

/// A shard that is split in two. It keeps the hashes below [`Split::at`]. At most one split or operation of a shard is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Identity, never handed out twice, to operations neither.
    pub id: u64,
    /// The shard.
    pub shard: u64,
    /// Lowest hash of the new shard.
    pub at: u64,
    /// The new shard as it will be. Its group is that of the same nodes, and is founded on what they split off.
    pub right: ShardDescriptor,
    /// How far it is.
    pub step: SplitStep,
    /// Why it was begun, in words.
    pub reason: String,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
    /// When it ended, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_micros: Option<u64>,
}

/// How far a split is. It is taken up from here after any crash, since each step says what should be and not what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitStep {
    /// The new shard has its number, and the nodes learn of it. Until its end all can stay as it is.
    Prepare,
    /// The leader of the shard's group has it split.
    Divide,
    /// The nodes found the new shard's group. From the split on nobody is answered by the old route.
    Found,
    /// It has ended, and both shards are routed to.
    Done,
    /// It has ended, and nothing was done.
    Cancelled,
}

impl SplitStep {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Prepare, Self::Divide, Self::Found, Self::Done, Self::Cancelled];

    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// Whether a split may come from this step to another.
    pub(crate) fn may_become(self, next: Self) -> bool {
        match self {
            Self::Prepare => matches!(next, Self::Divide | Self::Cancelled),
            Self::Divide => next == Self::Found,
            Self::Found => next == Self::Done,
            Self::Done | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for SplitStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Divide => "divide",
            Self::Found => "found",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Split {
    /// Whether it has not ended.
    pub fn is_under_way(&self) -> bool {
        !self.step.is_end()
    }

    /// The request id under which the shard's leader is asked, however often: a random number of this kind, then the split's.
    pub fn request_id(&self) -> u128 {
        const KIND: u128 = 0x5c0f_2a9d_71b3_4e66 << 64;
        KIND | u128::from(self.id)
    }
}
