//! Names of deleted collections, which are free once nobody can write to them any more.

use std::time::Duration;

use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{Change, CollectionInfo, ErrorKind, PointId, Wait};

use super::NODES;
use super::rig::{Rig, failing, found, schema};
use crate::{Elsewhere, Error, NewCollection, Write};

/// Long enough for whoever waits for nothing.
const SHORT: Duration = Duration::from_millis(300);

async fn delete(rig: &Rig, request_id: u128) {
    let name = rig.collection().name.clone();
    rig.coordinator.delete_collection(request_id, name, false, rig.deadline()).await.expect("deleted");
}

async fn create(rig: &Rig, old: &Collection, request_id: u128, deadline: Deadline) -> Result<CollectionInfo, Error> {
    let name = old.name.clone();
    let new = NewCollection { name, schema: schema(), shards: Some(1), replication: Some(3) };
    rig.coordinator.create_collection(request_id, new, deadline).await
}

/// A cluster with a collection of one shard on three nodes, none of which has followed anything.
async fn lagging() -> Rig {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    (1..=NODES).for_each(|node| rig.followed(node, 0));
    rig
}

#[tokio::test]
async fn a_name_is_taken_until_so_many_nodes_have_followed_that_the_old_shards_decide_nothing_more() {
    let rig = lagging().await;
    let old = rig.collection();
    delete(&rig, 10).await;
    let present = |rig: &Rig| rig.coordinator.control().state().collections().len();
    for followed in [&[][..], &[1]] {
        followed.iter().for_each(|node| rig.followed(*node, 1));
        let error = create(&rig, &old, 11, rig.env().deadline(SHORT)).await.expect_err("taken");
        assert_eq!((error.kind(), present(&rig)), (ErrorKind::Unavailable, 0), "{followed:?}: {error}");
        for node in 1..=NODES {
            let named = error.to_string().contains(&format!("{node}"));
            assert_eq!(named, !followed.contains(&node), "node {node}: {error}");
        }
    }
    // Two of three: the third one, which may never be reached again, cannot decide alone.
    rig.followed(3, 1);
    let created = create(&rig, &old, 12, rig.env().deadline(SHORT)).await;
    // Nobody leads the shard of the new one here.
    assert_eq!(created.expect_err("no leader").kind(), ErrorKind::Unavailable);
    assert_ne!(rig.collection().id, old.id);
}

#[tokio::test]
async fn a_deletion_waits_for_nodes_that_follow_it_and_not_for_ever_for_those_that_do_not() {
    let rig = lagging().await;
    let old = rig.collection();
    let name = old.name.clone();
    let followed = async {
        let mut applied = rig.coordinator.control().applied();
        while !rig.coordinator.control().state().collections().is_empty() {
            applied.changed().await.expect("the group is open");
        }
        assert_eq!(rig.coordinator.control().state().leaving().len(), 1);
        rig.followed(1, 1);
        rig.followed(2, 1);
    };
    tokio::join!(delete(&rig, 10), followed);
    assert!(rig.coordinator.control().state().leaving().is_empty(), "{name} is free when the deletion is acknowledged");
    // And when nobody follows, the other tests of this file delete all the same.
}

#[tokio::test]
async fn a_write_that_was_meant_for_a_collection_of_another_life_is_not_told_that_there_is_none() {
    let rig = Rig::start(NODES, 1, 3, |_| Err(failing(Elsewhere::NotHosted))).await;
    let old = rig.collection();
    delete(&rig, 10).await;
    let created = create(&rig, &old, 11, rig.env().deadline(SHORT)).await;
    assert_eq!(created.expect_err("no leader").kind(), ErrorKind::Unavailable);
    let change = Change::Delete(vec![PointId::Num(1)]);
    let write = Write { request_id: 12, change, wait: Wait::Committed, deadline: rig.deadline() };
    let error = rig.coordinator.write(&old, write).await.expect_err("another one");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("created anew"), "{error}");
}
