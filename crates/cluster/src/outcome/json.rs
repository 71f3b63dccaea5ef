//! Outcomes as a state machine answers them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Effect, Refusal};
use crate::collection::{CollectionJson, ShardDescriptor};
use crate::hex::{hex, parse_id};
use crate::merge::{Merge, MergeStep, step_json as merge_step_json};
use crate::node::{NodeJson, NodeStatus, status_json};
use crate::operation::OperationJson;
use crate::recovery::Recovery;
use crate::snapshot::SnapshotError;
use crate::split::{Split, SplitStep, step_json};

#[derive(Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
enum OutcomeJson {
    Created {
        collection: CollectionJson,
    },
    Deleted {
        id: String,
        shards: Vec<u64>,
    },
    NameFree,
    Node {
        node: NodeJson,
    },
    JoinToken,
    Voters {
        voters: Vec<u64>,
    },
    Placed {
        collection: String,
        shard: ShardDescriptor,
    },
    Operation {
        operation: OperationJson,
    },
    Split {
        split: Split,
    },
    Merge {
        merge: Merge,
    },
    AlreadyExists {
        name: String,
    },
    RequestIdReused {
        request: String,
    },
    NotFound {
        name: String,
    },
    StillLeaving {
        name: String,
        nodes: Vec<u64>,
    },
    TooMany {
        collections: usize,
    },
    TooManyShards {
        shards: usize,
    },
    TooFewNodes {
        wanted: u32,
        nodes: usize,
    },
    Invalid {
        field: String,
        reason: String,
    },
    OtherIncarnation {
        id: u64,
        known: String,
        claimed: String,
    },
    OtherRun {
        id: u64,
        known: u64,
        claimed: u64,
    },
    TokenReplaced,
    Removed {
        id: u64,
    },
    NoNode {
        id: u64,
    },
    TooManyNodes {
        nodes: usize,
    },
    TooManyCoordinators {
        coordinators: usize,
    },
    AddressTaken {
        address: String,
        node: u64,
        #[serde(with = "status_json")]
        status: NodeStatus,
    },
    Transition {
        node: u64,
        #[serde(with = "status_json")]
        from: NodeStatus,
        #[serde(with = "status_json")]
        to: NodeStatus,
    },
    Wanted {
        node: u64,
        shard: u64,
        shards: usize,
    },
    Votes {
        node: u64,
    },
    NoShard {
        shard: u64,
    },
    Stale {
        shard: u64,
        epoch: u64,
        expected: u64,
    },
    Busy {
        shard: u64,
        operation: u64,
    },
    TooManyOperations {
        operations: usize,
    },
    NoOperation {
        id: u64,
    },
    OtherStep {
        operation: u64,
        step: String,
        wanted: String,
    },
    OtherSplitStep {
        split: u64,
        #[serde(with = "step_json")]
        step: SplitStep,
        #[serde(with = "step_json")]
        wanted: SplitStep,
    },
    OtherMergeStep {
        merge: u64,
        #[serde(with = "merge_step_json")]
        step: MergeStep,
        #[serde(with = "merge_step_json")]
        wanted: MergeStep,
    },
    TakesNoReplicas {
        node: u64,
        reason: String,
    },
    Recovery {
        recovery: Recovery,
    },
    RecoveryEnded,
    NotLost {
        node: u64,
        #[serde(with = "status_json")]
        status: NodeStatus,
    },
    HasMajority {
        shard: u64,
        nodes: Vec<u64>,
    },
}

/// What came of a command, as a state machine answers it: one JSON document.
pub fn encode_outcome(outcome: &Result<Effect, Refusal>) -> Vec<u8> {
    let json: OutcomeJson = match outcome {
        Ok(effect) => effect.into(),
        Err(refusal) => refusal.clone().into(),
    };
    serde_json::to_vec(&json).expect("invariant: maps with text keys and numbers always serialise")
}

/// Reads what [`encode_outcome`] wrote.
pub fn decode_outcome(bytes: &[u8]) -> Result<Result<Effect, Refusal>, SnapshotError> {
    let json: OutcomeJson = serde_json::from_slice(bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
    Ok(match json {
        OutcomeJson::Created { collection } => Ok(Effect::Created(Arc::new(collection.try_into()?))),
        OutcomeJson::Deleted { id, shards } => Ok(Effect::Deleted { id: parse_id(&id)?, shards }),
        OutcomeJson::NameFree => Ok(Effect::NameFree),
        OutcomeJson::Node { node } => Ok(Effect::Node(Arc::new(node.try_into()?))),
        OutcomeJson::JoinToken => Ok(Effect::JoinToken),
        OutcomeJson::Voters { voters } => Ok(Effect::Voters(voters)),
        OutcomeJson::Placed { collection, shard } => Ok(Effect::Placed { collection: parse_id(&collection)?, shard }),
        OutcomeJson::Operation { operation } => Ok(Effect::Operation(Arc::new(operation.try_into()?))),
        OutcomeJson::Split { split } => Ok(Effect::Split(Arc::new(split))),
        OutcomeJson::Merge { merge } => Ok(Effect::Merge(Arc::new(merge))),
        OutcomeJson::AlreadyExists { name } => Err(Refusal::AlreadyExists(name)),
        OutcomeJson::RequestIdReused { request } => Err(Refusal::RequestIdReused(parse_id(&request)?)),
        OutcomeJson::NotFound { name } => Err(Refusal::NotFound(name)),
        OutcomeJson::StillLeaving { name, nodes } => Err(Refusal::StillLeaving { name, nodes }),
        OutcomeJson::TooMany { collections } => Err(Refusal::TooMany(collections)),
        OutcomeJson::TooManyShards { shards } => Err(Refusal::TooManyShards(shards)),
        OutcomeJson::TooFewNodes { wanted, nodes } => Err(Refusal::TooFewNodes { wanted, nodes }),
        OutcomeJson::Invalid { field, reason } => Err(Refusal::Invalid { field, reason }),
        OutcomeJson::OtherIncarnation { id, known, claimed } => {
            Err(Refusal::OtherIncarnation { id, known: parse_id(&known)?, claimed: parse_id(&claimed)? })
        }
        OutcomeJson::OtherRun { id, known, claimed } => Err(Refusal::OtherRun { id, known, claimed }),
        OutcomeJson::TokenReplaced => Err(Refusal::TokenReplaced),
        OutcomeJson::Removed { id } => Err(Refusal::Removed(id)),
        OutcomeJson::NoNode { id } => Err(Refusal::NoNode(id)),
        OutcomeJson::TooManyNodes { nodes } => Err(Refusal::TooManyNodes(nodes)),
        OutcomeJson::TooManyCoordinators { coordinators } => Err(Refusal::TooManyCoordinators(coordinators)),
        OutcomeJson::AddressTaken { address, node, status } => Err(Refusal::AddressTaken { address, node, status }),
        OutcomeJson::Transition { node, from, to } => Err(Refusal::Transition { node, from, to }),
        OutcomeJson::Wanted { node, shard, shards } => Err(Refusal::Wanted { node, shard, shards }),
        OutcomeJson::Votes { node } => Err(Refusal::Votes(node)),
        OutcomeJson::NoShard { shard } => Err(Refusal::NoShard(shard)),
        OutcomeJson::Stale { shard, epoch, expected } => Err(Refusal::Stale { shard, epoch, expected }),
        OutcomeJson::Busy { shard, operation } => Err(Refusal::Busy { shard, operation }),
        OutcomeJson::TooManyOperations { operations } => Err(Refusal::TooManyOperations(operations)),
        OutcomeJson::NoOperation { id } => Err(Refusal::NoOperation(id)),
        OutcomeJson::OtherStep { operation, step, wanted } => {
            Err(Refusal::OtherStep { operation, step: step.parse()?, wanted: wanted.parse()? })
        }
        OutcomeJson::OtherSplitStep { split, step, wanted } => Err(Refusal::OtherSplitStep { split, step, wanted }),
        OutcomeJson::OtherMergeStep { merge, step, wanted } => Err(Refusal::OtherMergeStep { merge, step, wanted }),
        OutcomeJson::TakesNoReplicas { node, reason } => Err(Refusal::TakesNoReplicas { node, reason }),
        OutcomeJson::Recovery { recovery } => Ok(Effect::Recovery(Arc::new(recovery))),
        OutcomeJson::RecoveryEnded => Ok(Effect::RecoveryEnded),
        OutcomeJson::NotLost { node, status } => Err(Refusal::NotLost { node, status }),
        OutcomeJson::HasMajority { shard, nodes } => Err(Refusal::HasMajority { shard, nodes }),
    })
}

impl From<&Effect> for OutcomeJson {
    fn from(effect: &Effect) -> Self {
        match effect {
            Effect::Created(collection) => Self::Created { collection: (&**collection).into() },
            Effect::Deleted { id, shards } => Self::Deleted { id: hex(*id), shards: shards.clone() },
            Effect::NameFree => Self::NameFree,
            Effect::Node(node) => Self::Node { node: (&**node).into() },
            Effect::JoinToken => Self::JoinToken,
            Effect::Voters(voters) => Self::Voters { voters: voters.clone() },
            Effect::Placed { collection, shard } => Self::Placed { collection: hex(*collection), shard: shard.clone() },
            Effect::Operation(operation) => Self::Operation { operation: (&**operation).into() },
            Effect::Split(split) => Self::Split { split: Split::clone(split) },
            Effect::Recovery(recovery) => Self::Recovery { recovery: Recovery::clone(recovery) },
            Effect::RecoveryEnded => Self::RecoveryEnded,
            Effect::Merge(merge) => Self::Merge { merge: Merge::clone(merge) },
        }
    }
}

impl From<Refusal> for OutcomeJson {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AlreadyExists(name) => Self::AlreadyExists { name },
            Refusal::RequestIdReused(request) => Self::RequestIdReused { request: hex(request) },
            Refusal::NotFound(name) => Self::NotFound { name },
            Refusal::StillLeaving { name, nodes } => Self::StillLeaving { name, nodes },
            Refusal::TooMany(collections) => Self::TooMany { collections },
            Refusal::TooManyShards(shards) => Self::TooManyShards { shards },
            Refusal::TooFewNodes { wanted, nodes } => Self::TooFewNodes { wanted, nodes },
            Refusal::Invalid { field, reason } => Self::Invalid { field, reason },
            Refusal::OtherIncarnation { id, known, claimed } => {
                Self::OtherIncarnation { id, known: hex(known), claimed: hex(claimed) }
            }
            Refusal::OtherRun { id, known, claimed } => Self::OtherRun { id, known, claimed },
            Refusal::TokenReplaced => Self::TokenReplaced,
            Refusal::Removed(id) => Self::Removed { id },
            Refusal::NoNode(id) => Self::NoNode { id },
            Refusal::TooManyNodes(nodes) => Self::TooManyNodes { nodes },
            Refusal::TooManyCoordinators(coordinators) => Self::TooManyCoordinators { coordinators },
            Refusal::AddressTaken { address, node, status } => Self::AddressTaken { address, node, status },
            Refusal::Transition { node, from, to } => Self::Transition { node, from, to },
            Refusal::Wanted { node, shard, shards } => Self::Wanted { node, shard, shards },
            Refusal::Votes(node) => Self::Votes { node },
            Refusal::NoShard(shard) => Self::NoShard { shard },
            Refusal::Stale { shard, epoch, expected } => Self::Stale { shard, epoch, expected },
            Refusal::Busy { shard, operation } => Self::Busy { shard, operation },
            Refusal::TooManyOperations(operations) => Self::TooManyOperations { operations },
            Refusal::NoOperation(id) => Self::NoOperation { id },
            Refusal::OtherStep { operation, step, wanted } => {
                Self::OtherStep { operation, step: step.to_string(), wanted: wanted.to_string() }
            }
            Refusal::OtherSplitStep { split, step, wanted } => Self::OtherSplitStep { split, step, wanted },
            Refusal::OtherMergeStep { merge, step, wanted } => Self::OtherMergeStep { merge, step, wanted },
            Refusal::TakesNoReplicas { node, reason } => Self::TakesNoReplicas { node, reason },
            Refusal::NotLost { node, status } => Self::NotLost { node, status },
            Refusal::HasMajority { shard, nodes } => Self::HasMajority { shard, nodes },
        }
    }
}
