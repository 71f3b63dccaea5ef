//! Lost nodes that are given up, and shards that go on without their majority.

use std::time::Duration;

use sagitta_cluster::{Command, NodeStatus, Refusal};
use sagitta_model::{ErrorKind, NodeChange};

use super::rig::{Rig, found};
use crate::Error;

/// One shard on three of four nodes, two of which are lost.
async fn start() -> (Rig, [u64; 2], u64) {
    let rig = Rig::start(4, 1, 3, |call| Ok(found(call.shard))).await;
    let replicas = rig.collection().shards[0].replicas.clone();
    let lost = [replicas[0], replicas[1]];
    for id in lost {
        rig.decide(Command::SetNodeStatus { id, status: NodeStatus::Lost }).await;
    }
    (rig, lost, replicas[2])
}

async fn recover(rig: &Rig, dry_run: bool) -> Result<(u64, Vec<String>), Error> {
    let shard = rig.collection().shards[0].clone();
    rig.coordinator.recover_shard(shard.id, shard.epoch, dry_run, rig.deadline()).await
}

async fn give_up(rig: &Rig, node: u64, dry_run: bool) -> Result<Vec<String>, Error> {
    let changed = rig.coordinator.change_node(node, NodeChange::GiveUp, dry_run, rig.deadline()).await;
    changed.map(|(node, follows)| {
        assert_eq!(node.status, NodeStatus::Removed);
        follows
    })
}

#[tokio::test]
async fn a_shard_is_recovered_only_once_what_it_lacks_is_given_up_and_what_is_asked_dryly_changes_nothing() {
    let (rig, lost, left) = start().await;
    let shard = rig.collection().shards[0].id;
    let problems = || rig.coordinator.shard_info(shard).expect("there").problems.join("; ");
    assert!(problems().contains("sagitta node remove NODE --lost-for-ever"), "{}", problems());
    let refused = recover(&rig, false).await.expect_err("they may come back");
    assert!(matches!(&refused, Error::Refused(Refusal::HasMajority { .. })), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    for (node, dry_run) in [(left, true), (left, false)] {
        let refused = give_up(&rig, node, dry_run).await.expect_err("it is up");
        assert!(matches!(refused, Error::Refused(Refusal::NotLost { .. })), "{refused:?}");
    }
    give_up(&rig, lost[0], false).await.expect("given up");
    let told = give_up(&rig, lost[1], true).await.expect("it could be");
    let status = |node: u64| rig.coordinator.control().state().nodes()[&node].status;
    assert_eq!(status(lost[1]), NodeStatus::Lost, "that was a dry run");
    let expected = format!(
        "shard {shard} of c: it has lost its majority for ever: `sagitta shard unsafe-recover c {shard} --dry-run`"
    );
    assert!(told.iter().any(|line| line.starts_with(&expected)), "{told:?}");
    give_up(&rig, lost[1], false).await.expect("given up");
    assert!(problems().contains("sagitta shard unsafe-recover c"), "{}", problems());
    let (survivor, notes) = recover(&rig, true).await.expect("it could be");
    assert_eq!(survivor, left);
    assert!(notes.iter().any(|note| note.contains("is lost, although it may have been acknowledged")), "{notes:?}");
    assert_eq!(rig.collection().shards[0].epoch, 1, "that was a dry run");
    let epoch = 1;
    for _ in 0..2 {
        // Once more, since the answer was lost.
        let recovered = rig.coordinator.recover_shard(shard, epoch, false, rig.deadline()).await.expect("recovered");
        assert_eq!(recovered.0, left);
    }
    let now = rig.collection().shards[0].clone();
    assert_eq!((&*now.replicas, now.epoch), (&[left][..], 2));
    assert!(problems().contains("is about to go on with it alone"), "{}", problems());
    rig.leads(left, 1 << 30);
    rig.coordinator.keep_replicas(Duration::ZERO, rig.deadline()).await.expect("looked after");
    assert!(rig.coordinator.control().state().recoveries().next().is_none(), "it leads");
    let stale = rig.coordinator.recover_shard(shard, epoch, false, rig.deadline()).await.expect_err("it has ended");
    assert!(matches!(stale, Error::Refused(Refusal::HasMajority { .. } | Refusal::Stale { .. })), "{stale:?}");
}
