//! Splits: shards that become two, step by step. Nothing goes to the new one before all of it is there.

pub use sagitta_model::SplitStep;
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
    /// The epoch of its placement until both are routed to.
    pub epoch: u64,
    /// Lowest hash of the new shard.
    pub at: u64,
    /// The new shard as it will be. Its group is that of the same nodes, and is founded on what they split off.
    pub right: ShardDescriptor,
    /// How far it is.
    #[serde(with = "step_json")]
    pub step: SplitStep,
    /// Why it was begun, in words.
    pub reason: String,
    /// Whether the cluster began it by itself: what nobody asked for changes nothing about how many shards are wanted
    /// ([`crate::Collection::shards_wanted`]). The oldest form does not say, and counts as asked for. So, while there is nothing else, as many
    /// are wanted as there are, and whoever reads a snapshot of that form comes to the same, however many of its splits and merges were
    /// over by then and how many are yet to be read from the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
    /// When it ended, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_micros: Option<u64>,
}

/// Whether a split may come from a step to another.
pub(crate) fn may_become(step: SplitStep, next: SplitStep) -> bool {
    match step {
        SplitStep::Prepare => matches!(next, SplitStep::Divide | SplitStep::Cancelled),
        SplitStep::Divide => next == SplitStep::Found,
        SplitStep::Found => next == SplitStep::Done,
        SplitStep::Done | SplitStep::Cancelled => false,
    }
}

/// A step in JSON: its name.
pub(crate) mod step_json {
    use sagitta_model::SplitStep;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(step: &SplitStep, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(step.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SplitStep, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
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
