//! Operations, and what operators make of nodes.

use sagitta_model::{
    CollectionName, MergeStep, NodeChange, NodeInfo, OperationInfo, OperationKind, OperationStep, SplitStep, Violation,
    Work,
};

use super::id_from;
use crate::common::{Convert, collection_name, each, narrow, required, unknown_enum};
use crate::error::WireError;
use crate::filter::{micros_from, micros_into};
use crate::page::{OperationPlace, Page};
use crate::v1;

/// Lists the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOperations;

/// One page of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationPage {
    /// The operations, ascending by id.
    pub operations: Vec<OperationInfo>,
    /// The token of the next page; empty when there is none.
    pub next_page_token: String,
}

/// Changes how a node stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeNode {
    /// The node.
    pub id: u64,
    /// What becomes of it.
    pub change: NodeChange,
    /// Only tell what would follow.
    pub dry_run: bool,
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChanged {
    /// The node, as it is or would be.
    pub node: NodeInfo,
    /// What follows, for people.
    pub follows: Vec<String>,
}

/// Moves a replica of a shard to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveReplica {
    /// The shard.
    pub shard: u64,
    /// The node that gives its replica up.
    pub from: u64,
    /// The node that gets it.
    pub to: u64,
    /// Only tell whether it could be.
    pub dry_run: bool,
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaMoved {
    /// The operation that does it; `None` if nothing was to be done but to tell.
    pub operation: Option<OperationInfo>,
    /// What there is to say about it, for people.
    pub notes: Vec<String>,
}

/// Splits a shard in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitShard {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement that the caller has seen.
    pub epoch: u64,
    /// Only tell whether it could be.
    pub dry_run: bool,
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSplit {
    /// The operation that does it; `None` if nothing was to be done but to tell.
    pub operation: Option<OperationInfo>,
    /// What there is to say about it, for people.
    pub notes: Vec<String>,
}

/// Has a shard that has lost its majority for ever go on with what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverShard {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement that the caller has seen.
    pub epoch: u64,
    /// Only tell what would go on.
    pub dry_run: bool,
}

/// Merges two neighbouring shards into a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeShards {
    /// The shard of the lower hashes, and the epoch of its placement that the caller has seen.
    pub left: (u64, u64),
    /// The same of the shard of the higher hashes.
    pub right: (u64, u64),
    /// Only tell whether they could be.
    pub dry_run: bool,
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecovered {
    /// The node whose replica goes on.
    pub survivor: u64,
    /// What there is to say about it, for people.
    pub notes: Vec<String>,
}

/// What comes of that.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardsMerged {
    /// The operation that does it; `None` if nothing was to be done but to tell.
    pub operation: Option<OperationInfo>,
    /// What there is to say about it, for people.
    pub notes: Vec<String>,
}

/// Wants an operation not to come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelOperation {
    /// The operation.
    pub id: u64,
    /// Only tell whether it could be.
    pub dry_run: bool,
}

impl ListOperations {
    /// Reads the request and which page it asks for.
    pub fn from_proto(proto: &v1::ListOperationsRequest) -> Result<(Self, Page<OperationPlace>), WireError> {
        let page = Page::new(proto.page_size, &proto.page_token, &v1::ListOperationsRequest::default())?;
        Ok((Self, page))
    }

    /// The request for a page of at most `page_size` (0: as many as the server likes) operations.
    pub fn into_proto(self, page_size: usize, page_token: String) -> v1::ListOperationsRequest {
        v1::ListOperationsRequest { page_size: narrow(page_size), page_token }
    }
}

impl Convert for OperationPage {
    type Proto = v1::ListOperationsResponse;
    type Error = Violation;

    fn from_proto(proto: v1::ListOperationsResponse) -> Result<Self, Violation> {
        let operations = each("operations", proto.operations, OperationInfo::from_proto)?;
        Ok(Self { operations, next_page_token: proto.next_page_token })
    }

    fn into_proto(self) -> v1::ListOperationsResponse {
        let operations = self.operations.into_iter().map(Convert::into_proto).collect();
        v1::ListOperationsResponse { operations, next_page_token: self.next_page_token }
    }
}

impl Convert for ChangeNode {
    type Proto = v1::ChangeNodeRequest;
    type Error = Violation;

    fn from_proto(proto: v1::ChangeNodeRequest) -> Result<Self, Violation> {
        let change = match v1::NodeChange::try_from(proto.change) {
            Ok(v1::NodeChange::Drain) => NodeChange::Drain,
            Ok(v1::NodeChange::Undrain) => NodeChange::Undrain,
            Ok(v1::NodeChange::Remove) => NodeChange::Remove,
            Ok(v1::NodeChange::GiveUp) => NodeChange::GiveUp,
            Ok(v1::NodeChange::Unspecified) => return Err(Violation::new("change", "is missing")),
            Err(_) => return Err(unknown_enum("change", proto.change)),
        };
        Ok(Self { id: id_from("id", proto.id)?, change, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::ChangeNodeRequest {
        let change = match self.change {
            NodeChange::Drain => v1::NodeChange::Drain,
            NodeChange::Undrain => v1::NodeChange::Undrain,
            NodeChange::Remove => v1::NodeChange::Remove,
            NodeChange::GiveUp => v1::NodeChange::GiveUp,
        };
        v1::ChangeNodeRequest { id: self.id, change: change.into(), dry_run: self.dry_run }
    }
}

impl Convert for NodeChanged {
    type Proto = v1::ChangeNodeResponse;
    type Error = Violation;

    fn from_proto(proto: v1::ChangeNodeResponse) -> Result<Self, Violation> {
        let node = NodeInfo::from_proto(required("node", proto.node)?).map_err(|v| v.within("node"))?;
        Ok(Self { node, follows: proto.follows })
    }

    fn into_proto(self) -> v1::ChangeNodeResponse {
        v1::ChangeNodeResponse { node: Some(self.node.into_proto()), follows: self.follows }
    }
}

impl Convert for MoveReplica {
    type Proto = v1::MoveReplicaRequest;
    type Error = Violation;

    fn from_proto(proto: v1::MoveReplicaRequest) -> Result<Self, Violation> {
        let (shard, from, to) = (proto.shard, proto.from, proto.to);
        let (shard, from, to) = (id_from("shard", shard)?, id_from("from", from)?, id_from("to", to)?);
        Ok(Self { shard, from, to, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::MoveReplicaRequest {
        let Self { shard, from, to, dry_run } = self;
        v1::MoveReplicaRequest { shard, from, to, dry_run }
    }
}

impl Convert for ReplicaMoved {
    type Proto = v1::MoveReplicaResponse;
    type Error = Violation;

    fn from_proto(proto: v1::MoveReplicaResponse) -> Result<Self, Violation> {
        let operation = proto.operation.map(OperationInfo::from_proto).transpose();
        Ok(Self { operation: operation.map_err(|v| v.within("operation"))?, notes: proto.notes })
    }

    fn into_proto(self) -> v1::MoveReplicaResponse {
        v1::MoveReplicaResponse { operation: self.operation.map(Convert::into_proto), notes: self.notes }
    }
}

impl Convert for SplitShard {
    type Proto = v1::SplitShardRequest;
    type Error = Violation;

    fn from_proto(proto: v1::SplitShardRequest) -> Result<Self, Violation> {
        let (shard, epoch) = (id_from("shard", proto.shard)?, id_from("epoch", proto.epoch)?);
        Ok(Self { shard, epoch, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::SplitShardRequest {
        v1::SplitShardRequest { shard: self.shard, epoch: self.epoch, dry_run: self.dry_run }
    }
}

impl Convert for ShardSplit {
    type Proto = v1::SplitShardResponse;
    type Error = Violation;

    fn from_proto(proto: v1::SplitShardResponse) -> Result<Self, Violation> {
        let operation = proto.operation.map(OperationInfo::from_proto).transpose();
        Ok(Self { operation: operation.map_err(|v| v.within("operation"))?, notes: proto.notes })
    }

    fn into_proto(self) -> v1::SplitShardResponse {
        v1::SplitShardResponse { operation: self.operation.map(Convert::into_proto), notes: self.notes }
    }
}

impl Convert for RecoverShard {
    type Proto = v1::RecoverShardRequest;
    type Error = Violation;

    fn from_proto(proto: v1::RecoverShardRequest) -> Result<Self, Violation> {
        let (shard, epoch) = (id_from("shard", proto.shard)?, id_from("epoch", proto.epoch)?);
        Ok(Self { shard, epoch, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::RecoverShardRequest {
        v1::RecoverShardRequest { shard: self.shard, epoch: self.epoch, dry_run: self.dry_run }
    }
}

impl Convert for ShardRecovered {
    type Proto = v1::RecoverShardResponse;
    type Error = Violation;

    fn from_proto(proto: v1::RecoverShardResponse) -> Result<Self, Violation> {
        Ok(Self { survivor: id_from("survivor", proto.survivor)?, notes: proto.notes })
    }

    fn into_proto(self) -> v1::RecoverShardResponse {
        v1::RecoverShardResponse { survivor: self.survivor, notes: self.notes }
    }
}

impl Convert for MergeShards {
    type Proto = v1::MergeShardsRequest;
    type Error = Violation;

    fn from_proto(proto: v1::MergeShardsRequest) -> Result<Self, Violation> {
        let left = (id_from("left", proto.left)?, id_from("left_epoch", proto.left_epoch)?);
        let right = (id_from("right", proto.right)?, id_from("right_epoch", proto.right_epoch)?);
        Ok(Self { left, right, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::MergeShardsRequest {
        let Self { left: (left, left_epoch), right: (right, right_epoch), dry_run } = self;
        v1::MergeShardsRequest { left, left_epoch, right, right_epoch, dry_run }
    }
}

impl Convert for ShardsMerged {
    type Proto = v1::MergeShardsResponse;
    type Error = Violation;

    fn from_proto(proto: v1::MergeShardsResponse) -> Result<Self, Violation> {
        let operation = proto.operation.map(OperationInfo::from_proto).transpose();
        Ok(Self { operation: operation.map_err(|v| v.within("operation"))?, notes: proto.notes })
    }

    fn into_proto(self) -> v1::MergeShardsResponse {
        v1::MergeShardsResponse { operation: self.operation.map(Convert::into_proto), notes: self.notes }
    }
}

impl Convert for CancelOperation {
    type Proto = v1::CancelOperationRequest;
    type Error = Violation;

    fn from_proto(proto: v1::CancelOperationRequest) -> Result<Self, Violation> {
        Ok(Self { id: id_from("id", proto.id)?, dry_run: proto.dry_run })
    }

    fn into_proto(self) -> v1::CancelOperationRequest {
        v1::CancelOperationRequest { id: self.id, dry_run: self.dry_run }
    }
}

impl Convert for OperationInfo {
    type Proto = v1::Operation;
    type Error = Violation;

    fn from_proto(proto: v1::Operation) -> Result<Self, Violation> {
        let micros = |field: &str, time: &prost_types::Timestamp| {
            let micros = micros_from(time).map_err(|reason| Violation::new(field, reason))?;
            Ok::<_, Violation>(u64::try_from(micros).unwrap_or_default())
        };
        let collection: Option<CollectionName> = match proto.collection.as_str() {
            "" => None,
            name => Some(collection_name(name)?),
        };
        Ok(Self {
            work: work_from(&proto)?,
            id: proto.id,
            collection,
            shard: proto.shard,
            reason: proto.reason,
            waits_for: proto.waits_for,
            cancelled: proto.cancelled,
            begun_unix_micros: micros("begin_time", &required("begin_time", proto.begin_time)?)?,
            ended_unix_micros: proto.end_time.map(|time| micros("end_time", &time)).transpose()?,
        })
    }

    fn into_proto(self) -> v1::Operation {
        let time = |micros: u64| micros_into(i64::try_from(micros).unwrap_or(i64::MAX));
        let (kind, step) = named(self.work);
        let (from, to) = match self.work {
            Work::Replica { from, to, .. } => (from, to),
            Work::Split { .. } | Work::Merge { .. } => (None, 0),
        };
        let split = match self.work {
            Work::Split { right, at, .. } => Some(v1::SplitOff { shard: right, first_hash: at }),
            _ => None,
        };
        let merge = match self.work {
            Work::Merge { right, into, .. } => Some(v1::MergeInto { right, shard: into }),
            _ => None,
        };
        v1::Operation {
            id: self.id,
            kind: kind.into(),
            collection: self.collection.map(|name| name.to_string()).unwrap_or_default(),
            shard: self.shard,
            from,
            to,
            step: step.into(),
            reason: self.reason,
            waits_for: self.waits_for,
            cancelled: self.cancelled,
            begin_time: Some(time(self.begun_unix_micros)),
            end_time: self.ended_unix_micros.map(time),
            split,
            merge,
        }
    }
}

const KINDS: [(OperationKind, v1::OperationKind); 4] = [
    (OperationKind::Repair, v1::OperationKind::Repair),
    (OperationKind::Drain, v1::OperationKind::Drain),
    (OperationKind::Move, v1::OperationKind::Move),
    (OperationKind::Rebalance, v1::OperationKind::Rebalance),
];

const STEPS: [(OperationStep, v1::OperationStep); 7] = [
    (OperationStep::Join, v1::OperationStep::Join),
    (OperationStep::CatchUp, v1::OperationStep::CatchUp),
    (OperationStep::Switch, v1::OperationStep::Switch),
    (OperationStep::Drop, v1::OperationStep::Drop),
    (OperationStep::Undo, v1::OperationStep::Undo),
    (OperationStep::Done, v1::OperationStep::Done),
    (OperationStep::Cancelled, v1::OperationStep::Cancelled),
];

const SPLIT_STEPS: [(SplitStep, v1::OperationStep); 5] = [
    (SplitStep::Prepare, v1::OperationStep::Prepare),
    (SplitStep::Divide, v1::OperationStep::Divide),
    (SplitStep::Found, v1::OperationStep::Found),
    (SplitStep::Done, v1::OperationStep::Done),
    (SplitStep::Cancelled, v1::OperationStep::Cancelled),
];

const MERGE_STEPS: [(MergeStep, v1::OperationStep); 6] = [
    (MergeStep::Prepare, v1::OperationStep::Prepare),
    (MergeStep::Copy, v1::OperationStep::Copy),
    (MergeStep::Freeze, v1::OperationStep::Freeze),
    (MergeStep::Thaw, v1::OperationStep::Thaw),
    (MergeStep::Done, v1::OperationStep::Done),
    (MergeStep::Cancelled, v1::OperationStep::Cancelled),
];

fn work_from(proto: &v1::Operation) -> Result<Work, Violation> {
    if proto.kind == i32::from(v1::OperationKind::Split) {
        let split = required("split", proto.split)?;
        let step = from_table("step", &SPLIT_STEPS, proto.step)?;
        return Ok(Work::Split { right: split.shard, at: split.first_hash, step });
    }
    if proto.kind == i32::from(v1::OperationKind::Merge) {
        let merge = required("merge", proto.merge)?;
        let step = from_table("step", &MERGE_STEPS, proto.step)?;
        return Ok(Work::Merge { right: merge.right, into: merge.shard, step });
    }
    let (kind, step) = (from_table("kind", &KINDS, proto.kind)?, from_table("step", &STEPS, proto.step)?);
    Ok(Work::Replica { kind, from: proto.from, to: proto.to, step })
}

fn named(work: Work) -> (v1::OperationKind, v1::OperationStep) {
    match work {
        Work::Replica { kind, step, .. } => (into_table(&KINDS, kind), into_table(&STEPS, step)),
        Work::Split { step, .. } => (v1::OperationKind::Split, into_table(&SPLIT_STEPS, step)),
        Work::Merge { step, .. } => (v1::OperationKind::Merge, into_table(&MERGE_STEPS, step)),
    }
}

fn from_table<T: Copy, P: Copy + Into<i32>>(field: &str, table: &[(T, P)], proto: i32) -> Result<T, Violation> {
    let found = table.iter().find(|(_, known)| (*known).into() == proto);
    found.map(|(value, _)| *value).ok_or_else(|| unknown_enum(field, proto))
}

fn into_table<T: PartialEq, P: Copy + Default>(table: &[(T, P)], value: T) -> P {
    table.iter().find(|(known, _)| *known == value).map_or_else(P::default, |(_, proto)| *proto)
}
