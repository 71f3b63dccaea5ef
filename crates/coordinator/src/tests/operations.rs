//! What operators make of nodes and of operations, and what they are told of it.

use sagitta_cluster::{Command, NodeStatus, Refusal};
use sagitta_model::{NodeChange, OperationKind, OperationStep};

use super::rig::{Rig, found};
use crate::Error;

/// Four nodes, each of which leads some of the shards, and of which each lacks one of every four.
async fn start(shards: u32) -> Rig {
    let rig = Rig::start(4, shards, 3, |call| Ok(found(call.shard))).await;
    for node in 1..=4 {
        rig.leads(node, 10 + node);
    }
    rig
}

fn status(rig: &Rig, node: u64) -> NodeStatus {
    rig.coordinator.control().state().nodes()[&node].status
}

/// The status of the node that is answered, and what follows.
async fn change(rig: &Rig, node: u64, change: NodeChange, dry_run: bool) -> Result<(NodeStatus, Vec<String>), Error> {
    let changed = rig.coordinator.change_node(node, change, dry_run, rig.deadline()).await;
    changed.map(|(node, follows)| (node.status, follows))
}

#[tokio::test]
async fn a_dry_run_tells_all_that_would_follow_and_changes_nothing() {
    let rig = start(4).await;
    let (told, follows) = change(&rig, 1, NodeChange::Drain, true).await.expect("told");
    assert_eq!((told, status(&rig, 1)), (NodeStatus::Draining, NodeStatus::Up));
    assert_eq!(follows.len(), 3, "not only what would begin at once: {follows:?}");
    assert!(
        follows.iter().all(|line| line.starts_with("drain shard ") && line.contains(" of c: from node 1 to node "))
    );
    let (told, again) = change(&rig, 1, NodeChange::Drain, false).await.expect("drained");
    assert_eq!((told, status(&rig, 1), again), (NodeStatus::Draining, NodeStatus::Draining, follows));
}

#[tokio::test]
async fn what_had_to_wait_before_is_not_told_as_what_follows() {
    let rig = Rig::start(3, 1, 3, |call| Ok(found(call.shard))).await;
    rig.leads(1, 10);
    let (_, follows) = change(&rig, 1, NodeChange::Drain, false).await.expect("drained");
    assert!(matches!(&follows[..], [line] if line.contains("has to wait: node 1 is being drained")), "{follows:?}");
    let (_, follows) = change(&rig, 2, NodeChange::Drain, true).await.expect("told");
    assert_eq!(follows, [""; 0], "the shard waits for the same as before");
}

#[tokio::test]
async fn a_node_is_what_it_was_asked_to_be_and_becomes_nothing_that_is_not_for_operators_to_say() {
    let rig = start(1).await;
    let replicas = rig.collection().shards[0].replicas.clone();
    let empty = (1..=4).find(|node| !replicas.contains(node)).expect("one of four holds nothing");
    for wanted in [NodeStatus::Draining, NodeStatus::Drained] {
        rig.decide(Command::SetNodeStatus { id: empty, status: wanted }).await;
    }
    let (told, _) = change(&rig, empty, NodeChange::Drain, false).await.expect("it is drained already");
    assert_eq!((told, status(&rig, empty)), (NodeStatus::Drained, NodeStatus::Drained));
    let (told, _) = change(&rig, empty, NodeChange::Undrain, false).await.expect("undrained");
    assert_eq!((told, status(&rig, empty)), (NodeStatus::Up, NodeStatus::Up));
    rig.decide(Command::SetNodeStatus { id: empty, status: NodeStatus::Lost }).await;
    let refused = change(&rig, empty, NodeChange::Undrain, false).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::Transition { .. }))), "{refused:?}");
    let refused = change(&rig, 9, NodeChange::Drain, true).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NoNode(9)))), "{refused:?}");
    let (told, _) = change(&rig, empty, NodeChange::Remove, true).await.expect("it could be");
    assert_eq!((told, status(&rig, empty)), (NodeStatus::Removed, NodeStatus::Lost));
}

#[tokio::test]
async fn operations_are_listed_page_by_page_and_cancelled_unless_it_is_a_dry_run() {
    let rig = start(2).await;
    for shard in &rig.collection().shards {
        let to = (1..=4).find(|node| !shard.replicas.contains(node)).expect("one of four holds nothing");
        let (kind, reason) = (OperationKind::Move, "because".to_owned());
        let (epoch, from) = (shard.epoch, Some(shard.replicas[0]));
        rig.decide(Command::BeginOperation { kind, shard: shard.id, epoch, from, to, reason, unix_micros: 1 }).await;
    }
    let ids = |after, limit| {
        let (page, more) = rig.coordinator.operation_infos(after, limit);
        (page.iter().map(|one| one.id).collect::<Vec<_>>(), more)
    };
    assert_eq!((ids(None, 1), ids(Some(1), 1), ids(None, 2)), ((vec![1], true), (vec![2], false), (vec![1, 2], false)));
    for (dry_run, cancelled) in [(true, false), (false, true)] {
        rig.coordinator.cancel_operation(1, dry_run, rig.deadline()).await.expect("it has just begun");
        let told = rig.coordinator.operation_info(1).expect("known");
        assert_eq!((told.work.step(), told.cancelled), (OperationStep::Join.name(), cancelled));
    }
    let told = rig.coordinator.operation_info(2).expect("known");
    assert!(told.waits_for.contains("the shard's leader to take node"), "{told:?}");
    let refused = rig.coordinator.cancel_operation(3, true, rig.deadline()).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NoOperation(3)))), "{refused:?}");
}
