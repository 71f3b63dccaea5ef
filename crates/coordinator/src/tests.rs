//! A coordinator over a control group of its own and nodes that do as the test says.

mod doubts;
mod merges;
mod moves;
mod names;
mod operations;
mod recovery;
mod replicas;
mod rig;
mod splits;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagitta_cluster::{Command, NodeStatus, ReplicaRole};
use sagitta_model::{Change, Consistency, ErrorKind, PointId, Wait};

use crate::{Decided, Elsewhere, Error, Search, Write};

use rig::{Rig, ask, failing, found, not_leader, query};

/// Nodes of the usual rig.
const NODES: u64 = 3;

#[tokio::test]
async fn a_search_calls_each_node_once_however_many_shards_it_holds() {
    let rig = Rig::start(NODES, 6, 1, |call| Ok(found(call.shard))).await;
    let (results, coverage) = rig.search(query(100)).await.expect("found");
    let ids: Vec<_> = results[0].hits.iter().map(|hit| hit.id).collect();
    let expected: Vec<_> = rig.shards().into_iter().map(PointId::Num).collect();
    assert_eq!((ids, coverage.shards, coverage.missing.len()), (expected, 6, 0));
    let mut called = rig.calls();
    called.sort_unstable();
    assert_eq!(called, [(1, 2), (2, 2), (3, 2)], "(node, shards in the call)");
}

#[tokio::test]
async fn what_fails_on_one_node_is_asked_of_another_replica() {
    let rig = Rig::start(NODES, 4, 3, |call| match call.node {
        1 | 2 => Err(failing(Elsewhere::Unreachable)),
        _ => Ok(found(call.shard)),
    })
    .await;
    for seed in 0..20 {
        let (results, coverage) = rig.search(query(100)).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!((results[0].hits.len(), coverage.missing.len()), (4, 0), "seed {seed}");
    }
}

#[tokio::test]
async fn a_shard_that_nobody_answers_for_fails_the_search_or_is_named_as_missing() {
    let lost = AtomicUsize::new(0);
    let rig = Rig::start(NODES, 3, 2, move |call| {
        // The first shard that is asked for is the lost one.
        let shard = call.shard as usize;
        let lost = lost.compare_exchange(0, shard, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|lost| lost);
        if shard == lost || lost == 0 { Err(failing(Elsewhere::NotHosted)) } else { Ok(found(call.shard)) }
    })
    .await;
    let error = rig.search(query(10)).await.expect_err("a shard is lost");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let (results, coverage) = rig.search(ask(query(10), true)).await.expect("partial");
    let [(missing, problem)] = &coverage.missing[..] else { panic!("{coverage:?}") };
    assert!(matches!(&error, Error::Shard { shard, .. } if shard == missing), "{error}");
    assert_eq!((coverage.shards, results[0].hits.len(), problem.kind), (3, 2, ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_partial_answer_comes_in_time_though_a_node_says_nothing() {
    let rig = Rig::start(NODES, 3, 1, |call| Ok(found(call.shard))).await;
    rig.hang(2);
    let mut search = ask(query(10), true);
    search.deadline = rig.env().deadline(Duration::from_millis(300));
    let (results, coverage) = rig.search(search.clone()).await.expect("partial");
    assert!(!search.deadline.has_passed(rig.env()));
    assert_eq!((results[0].hits.len(), coverage.missing.len()), (2, 1));
    search.allow_partial = false;
    search.deadline = rig.env().deadline(Duration::from_millis(50));
    assert_eq!(rig.search(search).await.expect_err("silent"), Error::DeadlineExceeded);
}

#[tokio::test]
async fn a_node_that_is_slower_than_usual_is_helped_by_another_replica_once() {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    // So many answers that the usual time of most nodes is known.
    for _ in 0..200 {
        rig.search(query(1)).await.expect("found");
    }
    rig.calls();
    rig.hang(1);
    // It is asked first at some time: the node that is drawn first changes, and old latencies count less and less.
    loop {
        let (results, _) = rig.search(query(1)).await.expect("another replica answers");
        assert_eq!(results[0].hits.len(), 1);
        let calls = rig.calls();
        assert!(calls.len() <= 2, "one more call at most: {calls:?}");
        if calls.len() == 2 {
            break;
        }
    }
    rig.hang(2);
    rig.hang(3);
    let deadline = rig.env().deadline(Duration::from_millis(500));
    assert_eq!(rig.search(Search { deadline, ..query(1) }).await, Err(Error::DeadlineExceeded));
    assert_eq!(rig.calls().len(), 2, "one more call, and not one after the other");
}

#[tokio::test]
async fn a_write_follows_the_hint_to_the_leader_and_is_not_sent_to_others_first() {
    let rig = Rig::start(NODES, 1, 3, |call| match call.node {
        3 => Ok(found(call.shard)),
        _ => Err(not_leader(Some(3))),
    })
    .await;
    rig.write(7).await.expect("written");
    rig.calls();
    rig.write(8).await.expect("written");
    assert_eq!(rig.calls(), [(3, 1)], "who leads is remembered");
}

#[tokio::test]
async fn a_leader_is_transferred_when_it_says_so_itself_and_not_when_it_is_said_to_lead() {
    let leads = std::sync::Arc::new(AtomicUsize::new(2));
    let leader = leads.clone();
    let rig = Rig::start(NODES, 1, 3, move |call| match leader.load(Ordering::Relaxed) as u64 {
        leader if leader == call.node => Ok(found(call.shard)),
        0 => Err(not_leader(None)),
        leader => Err(not_leader(Some(leader))),
    })
    .await;
    let shard = rig.shards()[0];
    rig.told(3, 1, ReplicaRole::Leader);
    rig.calls();
    rig.coordinator.transfer_leader(shard, 3, rig.deadline()).await.expect("handed over");
    assert_eq!(rig.calls(), [(3, 1), (2, 1)], "who was said to lead is asked, and then who leads");
    leads.store(0, Ordering::Relaxed);
    rig.told(3, 1, ReplicaRole::Leader);
    let soon = rig.env().deadline(Duration::from_millis(300));
    let error = rig.coordinator.transfer_leader(shard, 3, soon).await.expect_err("nobody leads");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_write_waits_for_a_leader_and_carries_the_same_request_id_every_time() {
    let elected = std::sync::Arc::new(AtomicUsize::new(0));
    let votes = elected.clone();
    let rig = Rig::start(NODES, 1, 3, move |call| {
        // Some answers until there is a leader.
        if call.node == 2 && votes.fetch_add(1, Ordering::Relaxed) >= 2 {
            return Ok(found(call.shard));
        }
        Err(not_leader(None))
    })
    .await;
    rig.write(7).await.expect("written");
    let ids = rig.request_ids();
    assert!(ids.len() >= 3 && ids.iter().all(|id| *id == 7), "{ids:?}");
    assert!(elected.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn what_no_other_node_could_do_better_is_not_tried_again() {
    let rig = Rig::start(NODES, 1, 3, |_| Err(crate::ShardError::new(ErrorKind::Invalid, "planted"))).await;
    for error in [rig.write(1).await.expect_err("refused"), rig.search(query(1)).await.expect_err("refused")] {
        assert_eq!((error.kind(), error.to_string().contains("planted")), (ErrorKind::Invalid, true), "{error}");
    }
    assert_eq!(rig.calls().len(), 2);
}

#[tokio::test]
async fn a_route_that_is_stale_is_refreshed_and_a_collection_that_is_gone_is_not_found() {
    let rig = Rig::start(NODES, 1, 2, |_| Err(failing(Elsewhere::NotHosted))).await;
    let collection = rig.collection();
    rig.coordinator.delete_collection(5, collection.name.clone(), false, rig.deadline()).await.expect("deleted");
    let change = Change::Delete(vec![PointId::Num(1)]);
    let write = Write { request_id: 9, change, wait: Wait::Committed, deadline: rig.deadline() };
    let error = rig.coordinator.write(&collection, write).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let got = rig.coordinator.count(&collection, None, &Consistency::Eventual, rig.deadline()).await;
    assert_eq!(got.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_latest_is_read_from_the_leader_only() {
    let rig = Rig::start(NODES, 2, 3, |call| match call.node {
        1 => Ok(found(call.shard)),
        _ => Err(not_leader(Some(1))),
    })
    .await;
    let mut search = query(10);
    search.consistency = Consistency::Strong;
    let (results, _) = rig.search(search).await.expect("found");
    assert_eq!(results[0].hits.len(), 2);
    let counted = rig.coordinator.count(&rig.collection(), None, &Consistency::Strong, rig.deadline()).await;
    assert_eq!(counted.expect("counted"), 2);
}

#[tokio::test]
async fn who_catches_up_is_told_of_everything_that_was_acknowledged() {
    let rig = Rig::start(NODES, 1, 1, |call| Ok(found(call.shard))).await;
    let control = rig.coordinator.control();
    for round in 0..200 {
        let status = if round % 2 == 0 { NodeStatus::Lost } else { NodeStatus::Up };
        rig.decide(Command::SetNodeStatus { id: 1, status }).await;
        let acknowledged = *control.applied().borrow();
        let Ok(Decided::Done(index)) = control.read_index(rig.deadline()).await else { panic!("it leads") };
        assert!(index >= acknowledged, "round {round}: {index} of {acknowledged}");
    }
}
