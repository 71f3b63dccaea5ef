//! Merges: two neighbouring shards that become one, step by step. Nothing goes to the new one before all of both is there, and from then on
//! nothing to them.
//!
//! A merge decides over three groups, none of which knows what the others do. So what is decided is decided here, once: whether the new
//! shard takes the place of both ([`MergeStep::Done`]), or they work on ([`MergeStep::Thaw`]).

pub use sagitta_model::MergeStep;
use serde::{Deserialize, Serialize};

use crate::collection::{Floor, ShardDescriptor};

/// How far above the logs of two shards that of the new one begins. Its points keep their versions, which are indexes of those logs, and
/// get greater ones when they are written anew: so many entries are not written to a small shard while it is copied, and an index
/// has room for as many merges.
pub const FLOOR_MARGIN: u64 = 1 << 32;

/// Two neighbouring shards of a collection that become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Identity, never handed out twice, to operations and splits neither.
    pub id: u64,
    /// The shard of the lower hashes.
    pub left: u64,
    /// The shard of the higher hashes.
    pub right: u64,
    /// The new shard as it will be. It is placed as one of a new collection is.
    pub into: ShardDescriptor,
    /// After this entry, which is none, its log begins.
    pub floor: Floor,
    /// How far it is.
    #[serde(with = "step_json")]
    pub step: MergeStep,
    /// Since when, in microseconds since 1970.
    pub since_unix_micros: u64,
    /// Why it was begun, in words.
    pub reason: String,
    /// Whether the cluster began it by itself: see [`crate::Split::unasked`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unasked: bool,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
    /// When it ended, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_micros: Option<u64>,
}

/// Whether a merge may come from a step to another.
pub(crate) fn may_become(step: MergeStep, next: MergeStep) -> bool {
    match step {
        MergeStep::Prepare => matches!(next, MergeStep::Copy | MergeStep::Cancelled),
        MergeStep::Copy => matches!(next, MergeStep::Freeze | MergeStep::Cancelled),
        // The shards may be frozen, in part and by an entry that is still on its way: they have to be told otherwise.
        MergeStep::Freeze => matches!(next, MergeStep::Done | MergeStep::Thaw),
        MergeStep::Thaw => next == MergeStep::Cancelled,
        MergeStep::Done | MergeStep::Cancelled => false,
    }
}

/// A step in JSON: its name.
pub(crate) mod step_json {
    use sagitta_model::MergeStep;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(step: &MergeStep, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(step.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MergeStep, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Merge {
    /// Whether it has not ended.
    pub fn is_under_way(&self) -> bool {
        !self.step.is_end()
    }

    /// Whether it is about a shard that is there before it.
    pub fn concerns(&self, shard: u64) -> bool {
        shard == self.left || shard == self.right
    }
}
