//! What can be agreed on.

mod json;

use sagitta_model::{CollectionName, Schema};

use crate::collection::Floor;
use crate::merge::MergeStep;
use crate::node::{NodeStatus, Place};
use crate::operation::{OperationKind, OperationStep};
use crate::split::SplitStep;

/// A change of the cluster. Everything that is random or timed is in it, chosen by whoever proposed it.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Creates a collection.
    CreateCollection {
        /// The caller's request id: the same request again creates nothing new.
        request_id: u128,
        /// Identity of the new collection.
        id: u128,
        /// Its name.
        name: CollectionName,
        /// Its vectors and declared fields.
        schema: Schema,
        /// Into how many shards its points are partitioned.
        shards: u32,
        /// How many nodes hold each of them.
        replication: u32,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Deletes a collection and its points.
    DeleteCollection {
        /// The caller's request id: the same request again deletes nothing more.
        request_id: u128,
        /// Its name.
        name: CollectionName,
        /// Whether the name stays taken until [`Command::FreeName`]. The oldest form gives it free at once.
        keep_name: bool,
    },
    /// Gives the name of a deleted collection free: so many of the nodes that held it have followed its deletion that it takes no more
    /// writes. Whoever proposes it has heard that from the nodes.
    FreeName {
        /// The name.
        name: CollectionName,
        /// Which deletion: [`crate::Leaving::deletion`].
        deletion: u64,
    },
    /// Lets a node in, or notes where one that is in is now.
    Join {
        /// Its name as a member of Raft groups.
        id: u64,
        /// UUID of its data folder.
        incarnation: u128,
        /// Which start of its folder says this, counted from 1: what an earlier start said and what arrives late changes nothing.
        /// The oldest form does not say.
        run: u64,
        /// Where it is and what it does.
        place: Place,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Notes how a node stands to the cluster.
    SetNodeStatus {
        /// Which node.
        id: u64,
        /// How it stands from now on.
        status: NodeStatus,
    },
    /// Replaces the secret that a node must know to join.
    SetJoinToken {
        /// BLAKE3 of the token, which itself is kept nowhere.
        digest: [u8; 32],
        /// The token that it replaces, so that a repetition that arrives late undoes no later change.
        replaces: Replaces,
    },
    /// Notes who votes in the control group, so that none of them is removed. Whoever leads the group proposes it when the group
    /// has changed.
    SetVoters {
        /// The voters, in any order.
        voters: Vec<u64>,
    },
    /// Places a shard anew.
    SetReplicas {
        /// Which shard.
        shard: u64,
        /// The epoch of the placement that whoever proposes this has seen; a shard that was placed since keeps its place.
        epoch: u64,
        /// The nodes that should hold a replica, in any order.
        replicas: Vec<u64>,
    },
    /// Begins to make a replica of a shard on another node.
    BeginOperation {
        /// Why.
        kind: OperationKind,
        /// The shard.
        shard: u64,
        /// The epoch of the placement that whoever proposes this has seen.
        epoch: u64,
        /// The node that gives its replica up; none if the shard has too few.
        from: Option<u64>,
        /// The node that gets a replica.
        to: u64,
        /// Why, in words.
        reason: String,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Notes that an operation is a step further.
    AdvanceOperation {
        /// Which.
        id: u64,
        /// The step that it was at: a repetition that arrives late changes nothing.
        from: OperationStep,
        /// The step that it is at from now on.
        to: OperationStep,
        /// Where the shard's log stands, as its leader told together with who its members are.
        at: Floor,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Begins to split a shard in two.
    BeginSplit {
        /// The shard.
        shard: u64,
        /// The epoch of the placement that whoever proposes this has seen.
        epoch: u64,
        /// Lowest hash of the new shard; both have some.
        at: u64,
        /// Why, in words.
        reason: String,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
        /// See [`crate::Split::unasked`].
        unasked: bool,
    },
    /// Notes that a split is a step further.
    AdvanceSplit {
        /// Which.
        id: u64,
        /// The step that it was at: a repetition that arrives late changes nothing.
        from: SplitStep,
        /// The step that it is at from now on.
        to: SplitStep,
        /// The entry of the shard's log that split it, for [`SplitStep::Found`].
        at: Floor,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Begins to merge two neighbouring shards into a new one.
    BeginMerge {
        /// The shard of the lower hashes.
        left: u64,
        /// The epoch of its placement that whoever proposes this has seen.
        left_epoch: u64,
        /// The shard of the higher hashes.
        right: u64,
        /// The epoch of its placement that whoever proposes this has seen.
        right_epoch: u64,
        /// Where the log of the new shard begins: far above those of both.
        floor: Floor,
        /// Why, in words.
        reason: String,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
        /// See [`crate::Merge::unasked`].
        unasked: bool,
    },
    /// Notes that a merge is a step further.
    AdvanceMerge {
        /// Which.
        id: u64,
        /// The step that it was at: a repetition that arrives late changes nothing.
        from: MergeStep,
        /// The step that it is at from now on.
        to: MergeStep,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Wants an operation not to come about.
    CancelOperation {
        /// Which.
        id: u64,
    },
    /// Removes a lost node for ever although shards should have replicas there: what it holds is lost.
    GiveUpNode {
        /// Which node.
        id: u64,
    },
    /// Has a shard go on with one replica, alone, since a majority of its group is lost for ever.
    RecoverShard {
        /// The shard.
        shard: u64,
        /// The epoch of the placement that whoever proposes this has seen.
        epoch: u64,
        /// The node whose replica goes on: of those that are left the one with the latest log.
        survivor: u64,
        /// The term from which on the group is that of the survivor alone: above any that a member has told of.
        term: u64,
        /// Where the log of that replica ends.
        at: Floor,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Notes that the survivor leads, and that nobody else has a vote.
    EndRecovery {
        /// The shard.
        shard: u64,
        /// Which recovery: [`crate::Recovery::id`].
        id: u64,
    },
    /// The control group goes on with one coordinator, alone, since a majority of it is lost for ever: its other voters are given up.
    RecoverControl {
        /// The coordinator that goes on.
        survivor: u64,
        /// The voters that are lost.
        lost: Vec<u64>,
        /// How often that had been done before: [`crate::State::era`].
        era: u64,
        /// The last entry that the survivor has of that era.
        ended: u64,
    },
}

/// Which join token another one replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Whichever there is: the oldest form.
    Any,
    /// None: it is the first one.
    Nothing,
    /// The one of this digest.
    Token([u8; 32]),
}

impl Replaces {
    /// Whether a token is the one to be replaced.
    pub(crate) fn holds(self, present: Option<&[u8; 32]>) -> bool {
        match self {
            Self::Any => true,
            Self::Nothing => present.is_none(),
            Self::Token(digest) => present == Some(&digest),
        }
    }
}

impl From<Option<[u8; 32]>> for Replaces {
    fn from(present: Option<[u8; 32]>) -> Self {
        present.map_or(Self::Nothing, Self::Token)
    }
}

impl Command {
    /// Whether a coordinator that does not lead may ask for it. What the leader finds by itself it decides by itself: another one that
    /// took itself for the leader a moment ago may be wrong by now.
    pub fn may_be_asked_for(&self) -> bool {
        match self {
            Self::CreateCollection { .. }
            | Self::DeleteCollection { .. }
            | Self::FreeName { .. }
            | Self::Join { .. }
            | Self::CancelOperation { .. }
            | Self::GiveUpNode { .. }
            | Self::RecoverShard { .. }
            | Self::SetJoinToken { .. } => true,
            // What the cluster begins by itself its leader finds.
            Self::BeginSplit { unasked, .. } | Self::BeginMerge { unasked, .. } => !unasked,
            // Whether a node is heard of the leader finds by itself.
            Self::SetNodeStatus { status, .. } => {
                matches!(status, NodeStatus::Up | NodeStatus::Draining | NodeStatus::Removed)
            }
            // What else is begun the leader finds by itself.
            Self::BeginOperation { kind, .. } => *kind == OperationKind::Move,
            Self::AdvanceSplit { to, .. } => *to == SplitStep::Cancelled,
            // That the shards work on again is for the leader to find.
            Self::AdvanceMerge { from, to, .. } => *to == MergeStep::Cancelled && from.can_be_cancelled(),
            Self::SetVoters { .. }
            | Self::SetReplicas { .. }
            | Self::AdvanceOperation { .. }
            | Self::EndRecovery { .. }
            | Self::RecoverControl { .. } => false,
        }
    }

    /// The caller's request id, of a command that needs one for a repetition to be harmless.
    pub fn request_id(&self) -> Option<u128> {
        match self {
            Self::CreateCollection { request_id, .. } | Self::DeleteCollection { request_id, .. } => Some(*request_id),
            Self::FreeName { .. }
            | Self::Join { .. }
            | Self::SetNodeStatus { .. }
            | Self::SetJoinToken { .. }
            | Self::SetVoters { .. }
            | Self::SetReplicas { .. }
            | Self::BeginOperation { .. }
            | Self::AdvanceOperation { .. }
            | Self::BeginSplit { .. }
            | Self::AdvanceSplit { .. }
            | Self::CancelOperation { .. }
            | Self::GiveUpNode { .. }
            | Self::RecoverShard { .. }
            | Self::EndRecovery { .. }
            | Self::BeginMerge { .. }
            | Self::AdvanceMerge { .. }
            | Self::RecoverControl { .. } => None,
        }
    }
}
