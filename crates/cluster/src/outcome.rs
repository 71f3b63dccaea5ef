//! What comes of a command.

mod json;

use std::sync::Arc;

use sagitta_model::ErrorKind;

use crate::collection::{Collection, ShardDescriptor};
use crate::limits;
use crate::merge::{Merge, MergeStep};
use crate::node::{Node, NodeStatus, hint};
use crate::operation::{Operation, OperationStep};
use crate::recovery::Recovery;
use crate::split::{Split, SplitStep};

pub use json::{decode_outcome, encode_outcome};

/// What an applied command asks of the node: the difference between before and after.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This collection exists now (or already did, created by the same request).
    Created(Arc<Collection>),
    /// The collection with this id and these shards is gone.
    Deleted {
        /// Identity of the deleted collection.
        id: u128,
        /// Identities of its shards.
        shards: Vec<u64>,
    },
    /// The name of a deleted collection can be used again.
    NameFree,
    /// This node is in the cluster, like this.
    Node(Arc<Node>),
    /// The token is another one from now on.
    JoinToken,
    /// These vote in the control group, ascending.
    Voters(Vec<u64>),
    /// The shard is placed like this.
    Placed {
        /// Identity of the shard's collection.
        collection: u128,
        /// The shard.
        shard: ShardDescriptor,
    },
    /// The operation stands like this.
    Operation(Arc<Operation>),
    /// The split stands like this.
    Split(Arc<Split>),
    /// The shard goes on like this.
    Recovery(Arc<Recovery>),
    /// The shard has its survivor's group.
    RecoveryEnded,
    /// The merge stands like this.
    Merge(Arc<Merge>),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is taken.
    #[error("collection `{0}` already exists: choose another name, or delete it first")]
    AlreadyExists(String),
    /// The request id was used for something else, or what it created was deleted since.
    #[error(
        "the request id {0:032x} was used before, for another request or for a collection that was deleted since: send this request with an id of its own"
    )]
    RequestIdReused(u128),
    /// There is no such collection.
    #[error("collection `{0}` does not exist")]
    NotFound(String),
    /// A deleted collection of this name may still take writes, on nodes that have not followed its deletion.
    #[error(
        "a collection `{name}` was deleted, and these nodes have not said yet that they take no more writes for it: {}; wait for \
         them, remove them if they are gone for ever, or choose another name",
        nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    StillLeaving {
        /// The name.
        name: String,
        /// The nodes.
        nodes: Vec<u64>,
    },
    /// The cluster holds as many collections as it can.
    #[error("the cluster holds {0} collections, which is the most it can: delete one first")]
    TooMany(usize),
    /// The cluster would hold more shards than it can.
    #[error(
        "the cluster would hold {0} shards, and {most} is the most it can: ask for fewer shards, or delete a collection first",
        most = limits::MAX_CLUSTER_SHARDS
    )]
    TooManyShards(usize),
    /// There are not enough nodes for so many replicas.
    #[error(
        "{wanted} replicas need as many nodes that take data, and there are {nodes}: add nodes, or ask for fewer replicas"
    )]
    TooFewNodes {
        /// How many replicas were asked for.
        wanted: u32,
        /// How many nodes could take one.
        nodes: usize,
    },
    /// A value can never be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which value.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another data folder has this id.
    #[error(
        "node {id} is the data folder {known:032x}, not {claimed:032x}: start it with an empty data folder, so that it joins as a new node"
    )]
    OtherIncarnation {
        /// The id.
        id: u64,
        /// The folder that has it.
        known: u128,
        /// The folder that claims it.
        claimed: u128,
    },
    /// A later start of the node's folder has joined, or another one of the same number.
    #[error(
        "node {id} has joined with start {known} of its data folder, and this is start {claimed}: the folder was copied or brought back from a \
         backup, and two processes cannot be one node; remove the older copy, and start a new node with an empty data folder in its place"
    )]
    OtherRun {
        /// The node.
        id: u64,
        /// The start that has joined.
        known: u64,
        /// The start that wants to.
        claimed: u64,
    },
    /// The join token was replaced since.
    #[error("the join token was replaced by somebody else meanwhile: use theirs, or rotate it once more")]
    TokenReplaced,
    /// The node was removed for ever.
    #[error(
        "node {0} was removed from the cluster and cannot come back: start it with an empty data folder, so that it joins as a new node"
    )]
    Removed(u64),
    /// There is no such node.
    #[error("node {0} is not in the cluster")]
    NoNode(u64),
    /// The cluster has had as many nodes as it can.
    #[error("{0} nodes have joined this cluster, the removed ones included, which is the most there may be")]
    TooManyNodes(usize),
    /// There are as many coordinators as there may be.
    #[error(
        "the cluster has {0} nodes with the role coordinator, and {most} is the most there may be: start this one without it, or drain one of them first",
        most = limits::MAX_COORDINATORS
    )]
    TooManyCoordinators(usize),
    /// Another node has this address.
    #[error(
        "the address {address} belongs to node {node}, which is {status}: give this node an address of its own; if it is to take the place of node {node}, that must be drained or lost first"
    )]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        node: u64,
        /// How that node stands to the cluster.
        status: NodeStatus,
    },
    /// A node cannot come from one status to another.
    #[error("node {node} is {from} and cannot become {to}: {hint}", hint = hint(*from, *to))]
    Transition {
        /// The node.
        node: u64,
        /// How it stands to the cluster.
        from: NodeStatus,
        /// How it was to stand.
        to: NodeStatus,
    },
    /// Shards want the node.
    #[error(
        "node {node} should hold replicas of {shards} shards, such as shard {shard}: they must be moved away first"
    )]
    Wanted {
        /// The node.
        node: u64,
        /// One of the shards.
        shard: u64,
        /// How many there are.
        shards: usize,
    },
    /// The node votes in the control group.
    #[error(
        "node {0} votes in the control group: a coordinator that takes its place has to be there before it can be removed or give up the role"
    )]
    Votes(u64),
    /// There is no such shard.
    #[error("shard {0} does not exist")]
    NoShard(u64),
    /// The shard was placed anew meanwhile.
    #[error("shard {shard} was placed anew meanwhile: its epoch is {epoch}, not {expected}")]
    Stale {
        /// The shard.
        shard: u64,
        /// The epoch that it has.
        epoch: u64,
        /// The epoch that it was thought to have.
        expected: u64,
    },
    /// An operation is under way on the shard.
    #[error("operation {operation} is under way on shard {shard}: wait until it has ended, or cancel it")]
    Busy {
        /// The shard.
        shard: u64,
        /// The operation.
        operation: u64,
    },
    /// There are as many operations under way as there may be.
    #[error("{0} operations are under way, which is the most there may be: wait until some have ended")]
    TooManyOperations(usize),
    /// There is no such operation.
    #[error("operation {0} does not exist, or ended long ago: `sagitta operations list` names those that are known")]
    NoOperation(u64),
    /// The operation is at another step.
    #[error("operation {operation} is at the step {step} and cannot come to {wanted}: {}", step_hint(*step))]
    OtherStep {
        /// The operation.
        operation: u64,
        /// The step that it is at.
        step: OperationStep,
        /// The step that it was to come to.
        wanted: OperationStep,
    },
    /// The split is at another step.
    #[error("split {split} is at the step {step} and cannot come to {wanted}: {}", split_hint(*step))]
    OtherSplitStep {
        /// The split.
        split: u64,
        /// The step that it is at.
        step: SplitStep,
        /// The step that it was to come to.
        wanted: SplitStep,
    },
    /// The merge is at another step.
    #[error("merge {merge} is at the step {step} and cannot come to {wanted}: {}", merge_hint(*step))]
    OtherMergeStep {
        /// The merge.
        merge: u64,
        /// The step that it is at.
        step: MergeStep,
        /// The step that it was to come to.
        wanted: MergeStep,
    },
    /// A node cannot get a replica.
    #[error("node {node} cannot get a replica: {reason}")]
    TakesNoReplicas {
        /// The node.
        node: u64,
        /// Why not.
        reason: String,
    },
    /// A node that may come back cannot be given up.
    #[error(
        "node {node} is {status}, and only a lost one can be given up: one that runs is drained (`sagitta node drain {node}`), and one that is \
         drained already is removed; should its disk be lost, stop it, take a drain back, and wait until it is lost"
    )]
    NotLost {
        /// The node.
        node: u64,
        /// How it stands to the cluster.
        status: NodeStatus,
    },
    /// A group that may still decide goes on by itself.
    #[error(
        "shard {shard} can have its majority back: a replica is on each of the nodes {}, which were not removed; start those that do not run; \
         what is lost for ever is given up first, by `sagitta node remove NODE --lost-for-ever`",
        nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    )]
    HasMajority {
        /// The shard.
        shard: u64,
        /// The nodes.
        nodes: Vec<u64>,
    },
}

fn step_hint(step: OperationStep) -> &'static str {
    match step {
        OperationStep::Switch | OperationStep::Drop => {
            "the shard's members are those that it leads to; wait until it is done"
        }
        OperationStep::Undo => "it is being cancelled already",
        OperationStep::Done | OperationStep::Cancelled => "it has ended",
        OperationStep::Join | OperationStep::CatchUp => "look at it again",
    }
}

fn split_hint(step: SplitStep) -> &'static str {
    match step {
        SplitStep::Divide | SplitStep::Found => "the shard's log may hold the split already; wait until it is done",
        SplitStep::Done | SplitStep::Cancelled => "it has ended",
        SplitStep::Prepare => "look at it again",
    }
}

fn merge_hint(step: MergeStep) -> &'static str {
    match step {
        MergeStep::Freeze => "the shards may be frozen already; wait for a second, and it is done or given up",
        MergeStep::Thaw => "it is being given up already",
        MergeStep::Done | MergeStep::Cancelled => "it has ended",
        MergeStep::Prepare | MergeStep::Copy => "look at it again",
    }
}

impl Refusal {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Nobody is there now; otherwise it is for the caller to ask for less.
            Self::TooFewNodes { nodes: 0, .. } | Self::StillLeaving { .. } => ErrorKind::Unavailable,
            Self::Invalid { .. } | Self::TooFewNodes { .. } => ErrorKind::Invalid,
            Self::NotFound(_) | Self::NoNode(_) | Self::NoShard(_) | Self::NoOperation(_) => ErrorKind::NotFound,
            Self::TooMany(_) | Self::TooManyShards(_) | Self::TooManyNodes(_) | Self::TooManyOperations(_) => {
                ErrorKind::Overloaded
            }
            Self::AlreadyExists(_)
            | Self::RequestIdReused(_)
            | Self::OtherIncarnation { .. }
            | Self::OtherRun { .. }
            | Self::TokenReplaced
            | Self::Removed(_)
            | Self::TooManyCoordinators(_)
            | Self::AddressTaken { .. }
            | Self::Transition { .. }
            | Self::Wanted { .. }
            | Self::Votes(_)
            | Self::Stale { .. }
            | Self::Busy { .. }
            | Self::OtherStep { .. }
            | Self::OtherSplitStep { .. }
            | Self::OtherMergeStep { .. }
            | Self::TakesNoReplicas { .. }
            | Self::NotLost { .. }
            | Self::HasMajority { .. } => ErrorKind::Conflict,
        }
    }

    /// Whether it is of no use to ask again at once: the same request is refused until somebody changes what is named, or that has ended.
    /// What is not may be granted a moment later, as where something else came between, or happens just now.
    pub fn lasts(&self) -> bool {
        matches!(
            self,
            Self::OtherIncarnation { .. }
                | Self::OtherRun { .. }
                | Self::Removed(_)
                | Self::TooManyCoordinators(_)
                | Self::AddressTaken { .. }
                | Self::Transition { .. }
                | Self::Wanted { .. }
                | Self::Votes(_)
                | Self::TakesNoReplicas { .. }
                | Self::NotLost { .. }
                | Self::HasMajority { .. }
        )
    }

    /// The value that is wrong, of a kind that says so: named as in the command.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::TooFewNodes { .. } => Some("replication"),
            _ => None,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}
