//! What is asked arrives, and so does the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sagitta_consensus::NodeId;
use sagitta_coordinator::{Elsewhere, NodeClient as _, Page, Read, ShardError, ShardRef, Tokens};
use sagitta_env::Deadline;
use sagitta_model::*;

use super::super::RemoteNodes;
use super::rig::*;
use crate::peers::AddressBook;

/// The node 2, as node 1 reaches it.
async fn served() -> (Served, Arc<RemoteNodes>) {
    let served = Served::start(identity(2)).await;
    let book = AddressBook::default();
    book.set(NodeId(2), served.uri());
    let remote = RemoteNodes::new_in(served.env.clone(), identity(1), book, brisk());
    (served, Arc::new(remote))
}

fn point() -> Point {
    let Record { id, payload, vectors, .. } = record(PointId::Uuid(9), "text");
    Point { id, vectors, payload: payload.unwrap() }
}

#[tokio::test]
async fn every_call_arrives_as_it_was_made_and_its_answer_comes_back() {
    let (served, remote) = served().await;
    let (mut expected, answers) = (Vec::new(), served.node.answers.lock().unwrap().clone());
    let never = Deadline::NEVER;
    let places = || Tokens::AtLeast([(17, 300), (18, 1)].into());
    let changes = [
        Change::Upsert(vec![point()]),
        Change::Delete(vec![PointId::Num(1)]),
        Change::DeleteByFilter(filter()),
        Change::UpdatePayload { target: Target::Filter(filter()), change: PayloadChange::Replace(point().payload) },
    ];
    for change in changes {
        for wait in [Wait::Committed, Wait::Indexed] {
            let written = remote.write(2, SHARD, u128::MAX - 1, Arc::new(change.clone()), wait, never).await;
            assert_eq!(written, Ok(answers.written.clone()));
            expected.push(Call::Write(2, SHARD, u128::MAX - 1, change.clone(), wait));
        }
    }
    let shards = [SHARD, ShardRef { shard: 18, epoch: u64::MAX, split: u64::MAX }];
    let queries = vec![query(3), query(10)];
    let found = remote.search(2, &shards, queries.clone().into(), true, read(Tokens::Latest)).await;
    let both = || Ok(vec![answers.found.clone(); 2]);
    assert_eq!(found, [(17, both()), (18, both())]);
    let zero = &found[0].1.as_ref().unwrap()[0].hits[2];
    assert!(zero.similarity.is_sign_negative(), "even the sign of a zero arrives: {zero:?}");
    expected.push(Call::Search(2, shards.to_vec(), queries, true, Tokens::Latest));

    let ids = vec![PointId::Num(7), PointId::Uuid(8)];
    assert_eq!(remote.get(2, SHARD, ids.clone(), selection(), read(places())).await, Ok(answers.records.clone()));
    expected.push(Call::Get(2, SHARD, ids, selection(), places()));
    for some in [None, Some(filter())] {
        assert_eq!(remote.count(2, SHARD, some.clone().map(Arc::new), read(Tokens::Any)).await, Ok(300));
        expected.push(Call::Count(2, SHARD, some, Tokens::Any));
    }
    for after in [None, Some(PointId::Uuid(3))] {
        let page = Page { after, limit: 5, filter: Some(Arc::new(filter())), selection: selection() };
        assert_eq!(remote.scroll(2, SHARD, page.clone(), read(places())).await, Ok(answers.records.clone()));
        expected.push(Call::Scroll(2, SHARD, page, places()));
    }
    assert_eq!(remote.statistics(2, SHARD).await, Ok(answers.statistics));
    assert_eq!(remote.propose(2, Bytes::from_static(b"abc"), never).await, Ok(Bytes::from_static(b"cba")));
    assert_eq!(remote.read_index(2, never).await, Ok(300));
    assert_eq!(remote.hand_over(2, SHARD, 3, never).await, Ok(()));
    assert_eq!(remote.pull(2, SHARD, Bytes::from_static(b"abc"), never).await, Ok(Bytes::from_static(b"cba")));
    expected.push(Call::Statistics(2, SHARD));
    expected.push(Call::Propose(2, Bytes::from_static(b"abc")));
    expected.push(Call::ReadIndex(2));
    expected.push(Call::HandOver(2, SHARD, 3));
    expected.push(Call::Pull(2, SHARD, Bytes::from_static(b"abc")));
    assert_eq!(served.node.calls(), expected);
}

#[tokio::test]
async fn errors_of_every_kind_travel_unchanged() {
    let (served, remote) = served().await;
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Denied,
        ErrorKind::Overloaded,
        ErrorKind::Unavailable,
        ErrorKind::Corrupt,
        ErrorKind::Internal,
    ];
    let elsewhere = [
        None,
        Some(Elsewhere::NotHosted),
        Some(Elsewhere::Stale { epoch: u64::MAX }),
        Some(Elsewhere::NotLeader { hint: None }),
        Some(Elsewhere::NotLeader { hint: Some(u64::MAX) }),
    ];
    for kind in kinds {
        for elsewhere in elsewhere {
            let error = ShardError {
                kind,
                // Longer than a status could carry.
                message: format!("{kind:?} {elsewhere:?} {}", "é".repeat(1_500)),
                request_id_reused: kind == ErrorKind::Conflict,
                retry_after: elsewhere.map(|_| Duration::from_nanos(20_000_001)),
                in_doubt: elsewhere.is_none(),
                elsewhere,
            };
            served.node.fail_with(Some(error.clone()));
            let (error, never, any) = (Err::<(), _>(error), Deadline::NEVER, || read(Tokens::Any));
            let delete = Arc::new(Change::Delete(vec![PointId::Num(1)]));
            assert_eq!(remote.write(2, SHARD, 1, delete, Wait::Committed, never).await.map(drop), error);
            for (_, answer) in remote.search(2, &[SHARD], [query(1)].into(), false, any()).await {
                assert_eq!(answer.map(drop), error);
            }
            assert_eq!(remote.get(2, SHARD, vec![PointId::Num(1)], selection(), any()).await.map(drop), error);
            assert_eq!(remote.count(2, SHARD, None, any()).await.map(drop), error);
            let page = Page { after: None, limit: 1, filter: None, selection: selection() };
            assert_eq!(remote.scroll(2, SHARD, page, any()).await.map(drop), error);
            assert_eq!(remote.statistics(2, SHARD).await.map(drop), error);
            assert_eq!(remote.propose(2, Bytes::from_static(b"x"), never).await.map(drop), error);
            assert_eq!(remote.read_index(2, never).await.map(drop), error);
            assert_eq!(remote.hand_over(2, SHARD, 3, never).await, error);
        }
    }
}

#[tokio::test]
async fn what_is_larger_than_a_usual_message_passes_both_ways() {
    const POINTS: usize = 12;
    let (served, remote) = served().await;
    let text = "x".repeat(limits::MAX_PAYLOAD_BYTES - 64);
    let points = (0..POINTS as u64).map(|id| Point {
        id: PointId::Num(id),
        payload: record(PointId::Num(id), &text).payload.unwrap(),
        ..point()
    });
    let change = Change::Upsert(points.collect());
    let written = remote.write(2, SHARD, 1, Arc::new(change.clone()), Wait::Committed, Deadline::NEVER).await;
    assert!(written.is_ok(), "{written:?}");
    assert!(served.node.calls() == [Call::Write(2, SHARD, 1, change, Wait::Committed)], "all of it");
    let records = vec![record(PointId::Num(1), &text); POINTS];
    served.node.answers.lock().unwrap().records = records.clone();
    let ids = vec![PointId::Num(1); POINTS];
    let found = remote.get(2, SHARD, ids, selection(), read(Tokens::Any)).await;
    assert!(found == Ok(records), "all of them");
}

#[tokio::test]
async fn a_deadline_is_forwarded_and_none_is_none() {
    let (served, remote) = served().await;
    let asked = served.env.deadline(Duration::from_secs(3_600));
    remote.count(2, SHARD, None, Read { tokens: Tokens::Any, deadline: asked }).await.unwrap();
    remote.read_index(2, asked).await.unwrap();
    remote.count(2, SHARD, None, read(Tokens::Any)).await.unwrap();
    let forwarded: Vec<Deadline> = served.node.calls.borrow().iter().map(|(_, deadline)| *deadline).collect();
    for forwarded in &forwarded[..2] {
        // Later by the time that the call was under way, earlier by what it is rounded to.
        let bounds = asked.at() - Duration::from_millis(1)..asked.at() + Duration::from_secs(60);
        assert!(bounds.contains(&forwarded.at()), "{forwarded:?} is not {asked:?}");
    }
    assert_eq!(forwarded[2], Deadline::NEVER);

    let late =
        remote.count(2, SHARD, None, Read { tokens: Tokens::Any, deadline: served.env.deadline(Duration::ZERO) });
    assert_eq!(late.await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(served.node.calls().len(), 3, "what is late is not asked");
}

#[tokio::test]
async fn a_deadline_that_passes_ends_the_work_on_the_node() {
    let (served, remote) = served().await;
    served.node.hold.send_replace(true);
    // The first call connects, so that the second one has all of its time for itself.
    let first = beside({
        let remote = remote.clone();
        async move { remote.read_index(2, Deadline::NEVER).await }
    });
    served.node.wait_for_calls(1).await;
    let mut dropped = 0;
    // A busy machine may take longer than this to bring the call there.
    for patience in (1..=10).map(|doublings| Duration::from_millis(20 << doublings)) {
        let answer = remote.read_index(2, served.env.deadline(patience));
        let answer = within("the deadline ends the call", answer).await.unwrap_err();
        assert_eq!((answer.kind, answer.elsewhere), (ErrorKind::Unavailable, None), "{answer:?}");
        dropped = served.node.calls().len() - 1;
        if dropped > 0 {
            break;
        }
    }
    assert!(dropped > 0, "the call came to the node in time");
    served.node.wait_for_dropped(dropped).await;
    served.node.hold.send_replace(false);
    assert_eq!(first.await.unwrap(), Ok(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_calls_share_one_connection_and_dropped_ones_end_on_the_node_without_harm_to_it() {
    const CALLS: usize = 600;
    let served = Served::start(identity(2)).await;
    let wire = Wire::to(served.address()).await;
    let book = AddressBook::default();
    book.set(NodeId(2), wire.uri.clone());
    let remote = Arc::new(RemoteNodes::new_in(served.env.clone(), identity(1), book, brisk()));
    let call = |remote: Arc<RemoteNodes>| async move {
        remote.search(2, &[SHARD], [query(3)].into(), false, read(Tokens::Any)).await
    };
    for round in 1..=5 {
        served.node.hold.send_replace(true);
        let before = served.node.calls().len();
        let kept: Vec<_> = (0..CALLS).map(|_| beside(call(remote.clone()))).collect();
        let gone: Vec<_> = (0..CALLS).map(|_| beside(call(remote.clone()))).collect();
        served.node.wait_for_calls(before + 2 * CALLS).await;
        gone.iter().for_each(|gone| gone.abort());
        served.node.wait_for_dropped(round * CALLS).await;
        served.node.hold.send_replace(false);
        for answer in join_all(kept).await {
            assert!(answer.unwrap()[0].1.is_ok());
        }
    }
    assert_eq!(wire.connections(), 1);
}

#[tokio::test]
async fn calls_that_are_dropped_before_they_are_looked_at_do_not_cost_the_others_their_connection() {
    const CALLS: usize = 300;
    let served = Served::start(identity(2)).await;
    let wire = Wire::to(served.address()).await;
    let book = AddressBook::default();
    book.set(NodeId(2), wire.uri.clone());
    let remote = RemoteNodes::new_in(served.env.clone(), identity(1), book, brisk());
    assert_eq!(remote.read_index(2, Deadline::NEVER).await, Ok(300));
    let (patient, hold) = (remote.read_index(2, Deadline::NEVER), &served.node.hold);
    tokio::pin!(patient);
    hold.send_replace(true);
    // The more often others get their turn, the further these come before they are dropped.
    for turns in 0..40 {
        let hasty = join_all((0..CALLS).map(|_| remote.read_index(2, Deadline::NEVER)));
        let take_turns = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut patient => panic!("nothing is answered yet"),
            _ = hasty => panic!("nothing is answered yet"),
            () = take_turns => {}
        }
    }
    hold.send_replace(false);
    assert_eq!(within("the patient one is answered", patient).await, Ok(300));
    assert_eq!(wire.connections(), 1);
}
