//! Which replica a read is asked of, and which one when that does not answer.

use std::pin::Pin;
use std::time::Duration;

use sagitta_cluster::ReplicaRole;
use sagitta_model::{Consistency, ErrorKind, PointId, Selection, VersionToken};

use super::NODES;
use super::rig::{Call, Rig, found, not_leader, query};
use crate::{Error, Page, Search, ShardError};

type Reading<'a> = Pin<Box<dyn Future<Output = (&'static str, Result<(), Error>)> + 'a>>;

/// Runs a read of every kind.
async fn read_all(rig: &Rig, consistency: &Consistency) -> Vec<(&'static str, Result<(), Error>)> {
    let mut results = Vec::new();
    for reading in read_kinds(rig, consistency) {
        results.push(reading.await);
    }
    results
}

/// A read of every kind, to be run.
fn read_kinds<'a>(rig: &'a Rig, consistency: &'a Consistency) -> Vec<Reading<'a>> {
    let (coordinator, collection) = (&rig.coordinator, rig.collection());
    let (of_get, of_count, of_scroll) = (collection.clone(), collection.clone(), collection);
    let page = Page { after: None, limit: 1, filter: None, selection: Selection::default() };
    let search = Search { consistency: consistency.clone(), ..query(1) };
    vec![
        Box::pin(async { ("search", rig.search(search).await.map(drop)) }),
        Box::pin(async move {
            let ids = vec![PointId::Num(1)];
            let got = coordinator.get(&of_get, ids, Selection::default(), consistency, rig.deadline()).await;
            ("get", got.map(drop))
        }),
        Box::pin(
            async move { ("count", coordinator.count(&of_count, None, consistency, rig.deadline()).await.map(drop)) },
        ),
        Box::pin(async move {
            ("scroll", coordinator.scroll(&of_scroll, page, consistency, rig.deadline()).await.map(drop))
        }),
    ]
}

fn session(rig: &Rig, index: u64) -> Consistency {
    Consistency::Session(rig.shards().into_iter().map(|shard| VersionToken { shard, index }).collect())
}

#[tokio::test]
async fn a_session_reads_from_a_replica_that_has_applied_what_it_saw() {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    rig.told(2, 10, ReplicaRole::Follower);
    for round in 0..10 {
        rig.calls();
        for (what, read) in read_all(&rig, &session(&rig, 10)).await {
            read.unwrap_or_else(|error| panic!("round {round}: {what}: {error}"));
        }
        assert_eq!(rig.calls(), [(2, 1); 4], "round {round}");
    }
    // Nobody has told that it has this one; the leader surely has.
    rig.told(3, 10, ReplicaRole::Leader);
    for (what, read) in read_all(&rig, &session(&rig, 11)).await {
        read.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(rig.calls(), [(3, 1); 4]);
}

#[tokio::test]
async fn a_replica_that_waits_for_what_a_session_saw_does_not_keep_it_from_the_others() {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    rig.hang(1);
    rig.hang(2);
    // None is known to have it, so each may be the last to be asked.
    for round in 0..5 {
        for (what, read) in read_all(&rig, &session(&rig, 10)).await {
            read.unwrap_or_else(|error| panic!("round {round}: {what}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_node_that_says_nothing_does_not_keep_any_read_waiting() {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    for silent in 1..=NODES {
        let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
        rig.hang(silent);
        for (what, read) in read_all(&rig, &Consistency::Eventual).await {
            read.unwrap_or_else(|error| panic!("node {silent}: {what}: {error}"));
        }
    }
    for node in 1..=NODES {
        rig.hang(node);
    }
    rig.calls();
    let deadline = rig.env().deadline(Duration::from_millis(500));
    let error = rig.coordinator.count(&rig.collection(), None, &Consistency::Eventual, deadline).await;
    assert_eq!((error, rig.calls().len()), (Err(Error::DeadlineExceeded), 2), "one more call, and not a third");
}

#[tokio::test]
async fn a_replica_that_is_busy_or_damaged_or_fails_is_passed_over() {
    let answer = |call: &Call| match call.node {
        1 => Err(ShardError::new(ErrorKind::Overloaded, "planted")),
        2 => Err(ShardError::new(ErrorKind::Corrupt, "planted")),
        3 => Err(ShardError::new(ErrorKind::Internal, "planted")),
        _ => Ok(found(call.shard)),
    };
    let rig = Rig::start(4, 1, 4, answer).await;
    for round in 0..20 {
        for (what, read) in read_all(&rig, &Consistency::Eventual).await {
            read.unwrap_or_else(|error| panic!("round {round}: {what}: {error}"));
        }
    }
}

#[tokio::test]
async fn when_all_replicas_are_busy_the_caller_is_told_to_come_back_and_no_replica_is_asked_twice() {
    let retry_after = Some(Duration::from_millis(20));
    let busy = move |_: &Call| Err(ShardError { retry_after, ..ShardError::new(ErrorKind::Overloaded, "planted") });
    let rig = Rig::start(NODES, 1, 3, busy).await;
    for (what, read) in read_all(&rig, &Consistency::Eventual).await {
        let error = read.expect_err(what);
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, retry_after), "{what}: {error}");
    }
    let asked = rig.calls();
    for node in 1..=NODES {
        let times = asked.iter().filter(|(asked, _)| *asked == node).count();
        assert_eq!(times, 4, "node {node}, by four reads");
    }
}

#[tokio::test]
async fn a_busy_leader_is_not_asked_on_and_on_for_the_latest() {
    let rig = Rig::start(NODES, 1, 3, |_| Err(ShardError::new(ErrorKind::Overloaded, "planted"))).await;
    rig.told(2, 1, ReplicaRole::Leader);
    for (what, read) in read_all(&rig, &Consistency::Strong).await {
        assert_eq!(read.expect_err(what).kind(), ErrorKind::Overloaded, "{what}");
    }
    assert_eq!(rig.calls(), [(2, 1); 4]);
}

#[tokio::test]
async fn a_leader_that_finds_itself_damaged_is_succeeded_by_another() {
    let rig = Rig::start(NODES, 1, 3, |call| match call.node {
        2 => Err(ShardError::new(ErrorKind::Corrupt, "planted")),
        _ => Ok(found(call.shard)),
    })
    .await;
    for request in 1..=3 {
        rig.told(2, 1, ReplicaRole::Leader);
        rig.write(request).await.expect("another one leads by now");
    }
}

#[tokio::test]
async fn a_leader_that_says_nothing_is_waited_for_until_another_one_leads_and_no_longer() {
    let rig = Rig::start(NODES, 1, 3, |call| Ok(found(call.shard))).await;
    rig.leads(1, 5);
    rig.hang(1);
    let asked = async |what: &str| {
        while rig.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        // Who leads an older term, or the same node a newer one, is no reason to give up.
        rig.leads(2, 4);
        rig.leads(1, 6);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.calls(), [], "{what}");
        rig.leads(3, 7);
    };
    let (written, ()) = tokio::join!(rig.write(1), asked("write"));
    written.expect("the new leader took it");
    assert_eq!(rig.request_ids(), [1, 1], "under the same request id");
    for what in 0..4 {
        rig.leads(1, 8 + 3 * what);
        rig.calls();
        let mut reads = read_kinds(&rig, &Consistency::Strong);
        let superseded = async {
            while rig.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            rig.leads(3, 9 + 3 * what);
        };
        let ((what, read), ()) = tokio::join!(reads.swap_remove(what as usize), superseded);
        read.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[tokio::test]
async fn a_search_of_the_latest_gives_up_no_call_for_what_an_earlier_one_would_have_been_given_up_for() {
    let rig = Rig::start(NODES, 1, 3, |call| match call.node {
        1 => Err(not_leader(None)),
        _ => Ok(found(call.shard)),
    })
    .await;
    rig.leads(1, 5);
    rig.hang(2);
    rig.hang(3);
    let calls = async |count: usize| {
        let mut calls = Vec::new();
        while calls.len() < count {
            tokio::task::yield_now().await;
            calls.extend(rig.calls());
        }
        calls
    };
    let watched = async {
        let asked = calls(2).await;
        let second = asked[1].0;
        let third = 5 - second;
        assert_eq!(asked, [(1, 1), (second, 1)]);
        // Who has been asked after the first one leads now.
        rig.leads(second, 7);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.calls(), [], "the one that leads is being asked");
        rig.leads(third, 8);
        assert_eq!(calls(1).await, [(third, 1)]);
    };
    let latest = Search { consistency: Consistency::Strong, ..query(1) };
    tokio::select! {
        answer = rig.search(latest) => panic!("nobody answers: {answer:?}"),
        () = watched => {}
    }
}
