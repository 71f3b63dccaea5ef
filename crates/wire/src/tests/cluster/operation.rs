//! Operations and changes of nodes.

use super::*;
use crate::cluster::{
    CancelOperation, ChangeNode, ListOperations, MoveReplica, NodeChanged, OperationPage, ReplicaMoved,
};

fn operation() -> impl Strategy<Value = OperationInfo> {
    let kinds = select(OperationKind::NAMES.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    let steps = select(OperationStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let times = (0..i64::MAX as u64, option::of(0..i64::MAX as u64));
    let texts = (option::of(any::name()), ".{0,20}", ".{0,20}");
    (any::<[u64; 3]>(), option::of(any::<u64>()), kinds, steps, any::<bool>(), times, texts).prop_map(
        |([id, shard, to], from, kind, step, cancelled, times, (collection, reason, waits_for))| OperationInfo {
            id,
            kind,
            collection,
            shard,
            from,
            to,
            step,
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
        check(MoveReplica { shard: id, from: others.0, to: others.1, dry_run })?;
        check(OperationPage { operations, next_page_token: "next".to_owned() })?;
        check(NodeChanged { node, follows })?;
        for change in [NodeChange::Drain, NodeChange::Undrain, NodeChange::Remove] {
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
    refused("operations[0].begin_time", read(v1::Operation { begin_time: None, ..good }));
    let list = v1::ListOperationsRequest { page_token: "x".to_owned(), ..Default::default() };
    refused("page_token", ListOperations::from_proto(&list).unwrap_err().into());
}

fn golden_operation() -> OperationInfo {
    OperationInfo {
        id: 7,
        kind: OperationKind::Drain,
        collection: Some("docs".parse().unwrap()),
        shard: 16,
        from: Some(0),
        to: 300,
        step: OperationStep::CatchUp,
        reason: "r".to_owned(),
        waits_for: "w".to_owned(),
        cancelled: true,
        begun_unix_micros: 1_750_000_000_123_456,
        ended_unix_micros: Some(1_750_000_001_000_000),
    }
}

/// One message of each kind, for the golden bytes.
pub(super) fn golden() -> Vec<(&'static str, String)> {
    let page = OperationPage { operations: vec![golden_operation()], next_page_token: "next".to_owned() };
    let changed = NodeChanged { node: golden_node(), follows: vec!["f".to_owned()] };
    let change = ChangeNode { id: 300, change: NodeChange::Remove, dry_run: true };
    let moved = ReplicaMoved { operation: Some(golden_operation()), notes: vec!["n".to_owned()] };
    vec![
        ("MoveReplicaRequest", hex(&MoveReplica { shard: 16, from: 1, to: 300, dry_run: true }.into_proto())),
        ("MoveReplicaResponse", hex(&moved.into_proto())),
        ("ChangeNodeRequest", hex(&change.into_proto())),
        ("ChangeNodeResponse", hex(&changed.into_proto())),
        ("ListOperationsRequest", hex(&ListOperations.into_proto(5, "token".to_owned()))),
        ("ListOperationsResponse", hex(&page.into_proto())),
        ("GetOperationRequest", hex(&v1::GetOperationRequest { id: 7 })),
        ("CancelOperationRequest", hex(&CancelOperation { id: 7, dry_run: true }.into_proto())),
    ]
}
