//! Operations and changes of nodes.

use super::*;
use crate::cluster::{
    CancelOperation, ChangeNode, ListOperations, MergeShards, MoveReplica, NodeChanged, OperationPage, RecoverShard,
    ReplicaMoved, ShardRecovered, ShardSplit, ShardsMerged, SplitShard,
};

fn operation() -> impl Strategy<Value = OperationInfo> {
    let kinds = select(OperationKind::NAMES.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    let steps = select(OperationStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let replica = (kinds, option::of(any::<u64>()), any::<u64>(), steps);
    let replica = replica.prop_map(|(kind, from, to, step)| Work::Replica { kind, from, to, step });
    let steps = select(SplitStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let split = (any::<[u64; 2]>(), steps).prop_map(|([right, at], step)| Work::Split { right, at, step });
    let steps = select(MergeStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let merge = (any::<[u64; 2]>(), steps).prop_map(|([right, into], step)| Work::Merge { right, into, step });
    let times = (0..i64::MAX as u64, option::of(0..i64::MAX as u64));
    let texts = (option::of(any::name()), ".{0,20}", ".{0,20}");
    (any::<[u64; 2]>(), prop_oneof![replica, split, merge], any::<bool>(), times, texts).prop_map(
        |([id, shard], work, cancelled, times, (collection, reason, waits_for))| OperationInfo {
            id,
            work,
            collection,
            shard,
            reason,
            waits_for,
            cancelled,
            begun_unix_micros: times.0,
            ended_unix_micros: times.1,
        },
    )
}

proptest! {
    #[test]
    fn operations_and_changes_of_nodes(
        operations in vec(operation(), 0..3),
        node in node(),
        follows in problems(),
        id in 1u64..,
        others in (1u64.., 1u64..),
        dry_run in any::<bool>(),
    ) {
        for operation in &operations {
            check(operation.clone())?;
        }
        check(ReplicaMoved { operation: operations.first().cloned(), notes: follows.clone() })?;
        check(ShardSplit { operation: operations.last().cloned(), notes: follows.clone() })?;
        check(ShardsMerged { operation: operations.last().cloned(), notes: follows.clone() })?;
        check(MergeShards { left: (id, others.0), right: others, dry_run })?;
        check(SplitShard { shard: id, epoch: others.0, dry_run })?;
        check(RecoverShard { shard: id, epoch: others.0, dry_run })?;
        check(ShardRecovered { survivor: id, notes: follows.clone() })?;
        check(MoveReplica { shard: id, from: others.0, to: others.1, dry_run })?;
        check(OperationPage { operations, next_page_token: "next".to_owned() })?;
        check(NodeChanged { node, follows })?;
        for change in [NodeChange::Drain, NodeChange::Undrain, NodeChange::Remove, NodeChange::GiveUp] {
            check(ChangeNode { id, change, dry_run })?;
        }
        check(CancelOperation { id, dry_run })?;
    }
}

#[test]
fn what_no_operation_can_be_is_refused_by_field() {
    let refused = |field: &str, failure: Failure| assert_eq!(failure.violations[0].field, field, "{failure:?}");
    let change = |id, change| ChangeNode::from_proto(v1::ChangeNodeRequest { id, change, dry_run: false }).unwrap_err();
    refused("id", change(0, 1).into());
    refused("change", change(1, 0).into());
    refused("change", change(1, 99).into());
    refused("id", CancelOperation::from_proto(v1::CancelOperationRequest::default()).unwrap_err().into());
    let moves = |shard, from, to| {
        MoveReplica::from_proto(v1::MoveReplicaRequest { shard, from, to, dry_run: false }).unwrap_err()
    };
    refused("shard", moves(0, 1, 2).into());
    refused("from", moves(16, 0, 2).into());
    refused("to", moves(16, 1, 0).into());
    let splits =
        |shard, epoch| SplitShard::from_proto(v1::SplitShardRequest { shard, epoch, dry_run: false }).unwrap_err();
    refused("shard", splits(0, 1).into());
    refused("epoch", splits(16, 0).into());
    let recovers =
        |shard, epoch| RecoverShard::from_proto(v1::RecoverShardRequest { shard, epoch, dry_run: false }).unwrap_err();
    refused("shard", recovers(0, 1).into());
    refused("epoch", recovers(16, 0).into());
    let merges = |left, right_epoch| {
        let request = v1::MergeShardsRequest { left, left_epoch: 1, right: 17, right_epoch, dry_run: false };
        MergeShards::from_proto(request).unwrap_err()
    };
    refused("left", merges(0, 1).into());
    refused("right_epoch", merges(16, 0).into());
    let merge = golden_merge().into_proto();
    let answer = v1::MergeShardsResponse { operation: Some(v1::Operation { merge: None, ..merge }), notes: Vec::new() };
    refused("operation.merge", ShardsMerged::from_proto(answer).unwrap_err().into());
    let good = golden_operation().into_proto();
    let moved =
        v1::MoveReplicaResponse { operation: Some(v1::Operation { kind: 99, ..good.clone() }), notes: Vec::new() };
    refused("operation.kind", ReplicaMoved::from_proto(moved).unwrap_err().into());
    let page = |operation| v1::ListOperationsResponse { operations: vec![operation], ..Default::default() };
    let read = |operation| OperationPage::from_proto(page(operation)).unwrap_err().into();
    for wrong in [0, 99] {
        refused("operations[0].kind", read(v1::Operation { kind: wrong, ..good.clone() }));
        refused("operations[0].step", read(v1::Operation { step: wrong, ..good.clone() }));
    }
    // What only a split comes to is no step of a replica that is moved, nor the other way around.
    let split = golden_split().into_proto();
    refused("operations[0].step", read(v1::Operation { step: split.step, ..good.clone() }));
    refused("operations[0].step", read(v1::Operation { step: good.step, ..split.clone() }));
    refused("operations[0].split", read(v1::Operation { split: None, ..split.clone() }));
    let answer = v1::SplitShardResponse { operation: Some(v1::Operation { kind: 99, ..split }), notes: Vec::new() };
    refused("operation.kind", ShardSplit::from_proto(answer).unwrap_err().into());
    refused("operations[0].begin_time", read(v1::Operation { begin_time: None, ..good }));
    let list = v1::ListOperationsRequest { page_token: "x".to_owned(), ..Default::default() };
    refused("page_token", ListOperations::from_proto(&list).unwrap_err().into());
}

fn golden_operation() -> OperationInfo {
    OperationInfo {
        id: 7,
        work: Work::Replica { kind: OperationKind::Drain, from: Some(0), to: 300, step: OperationStep::CatchUp },
        collection: Some("docs".parse().unwrap()),
        shard: 16,
        reason: "r".to_owned(),
        waits_for: "w".to_owned(),
        cancelled: true,
        begun_unix_micros: 1_750_000_000_123_456,
        ended_unix_micros: Some(1_750_000_001_000_000),
    }
}

fn golden_split() -> OperationInfo {
    OperationInfo { work: Work::Split { right: 17, at: 1 << 63, step: SplitStep::Found }, ..golden_operation() }
}

fn golden_merge() -> OperationInfo {
    OperationInfo { work: Work::Merge { right: 17, into: 300, step: MergeStep::Freeze }, ..golden_operation() }
}

/// One message of each kind, for the golden bytes.
pub(super) fn golden() -> Vec<(&'static str, String)> {
    let page = OperationPage { operations: vec![golden_operation()], next_page_token: "next".to_owned() };
    let changed = NodeChanged { node: golden_node(), follows: vec!["f".to_owned()] };
    let change = ChangeNode { id: 300, change: NodeChange::Remove, dry_run: true };
    let moved = ReplicaMoved { operation: Some(golden_operation()), notes: vec!["n".to_owned()] };
    let split = ShardSplit { operation: Some(golden_split()), notes: vec!["n".to_owned()] };
    let merged = ShardsMerged { operation: Some(golden_merge()), notes: vec!["n".to_owned()] };
    let merge = MergeShards { left: (16, 1), right: (17, 300), dry_run: true };
    vec![
        ("MergeShardsRequest", hex(&merge.into_proto())),
        ("MergeShardsResponse", hex(&merged.into_proto())),
        ("SplitShardRequest", hex(&SplitShard { shard: 16, epoch: 300, dry_run: true }.into_proto())),
        ("SplitShardResponse", hex(&split.into_proto())),
        ("MoveReplicaRequest", hex(&MoveReplica { shard: 16, from: 1, to: 300, dry_run: true }.into_proto())),
        ("MoveReplicaResponse", hex(&moved.into_proto())),
        ("ChangeNodeRequest", hex(&change.into_proto())),
        ("ChangeNodeResponse", hex(&changed.into_proto())),
        ("ListOperationsRequest", hex(&ListOperations.into_proto(5, "token".to_owned()))),
        ("ListOperationsResponse", hex(&page.into_proto())),
        ("GetOperationRequest", hex(&v1::GetOperationRequest { id: 7 })),
        ("CancelOperationRequest", hex(&CancelOperation { id: 7, dry_run: true }.into_proto())),
        ("RecoverShardRequest", hex(&RecoverShard { shard: 16, epoch: 300, dry_run: true }.into_proto())),
        ("RecoverShardResponse", hex(&ShardRecovered { survivor: 300, notes: vec!["n".to_owned()] }.into_proto())),
    ]
}
