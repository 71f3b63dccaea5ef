//! Nodes that are not there, go away, or move.

use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::NodeId;
use sagitta_coordinator::{Elsewhere, NodeClient as _, ShardError, Tokens};
use sagitta_env::{Deadline, Env};
use sagitta_model::{Change, ErrorKind, PointId, Wait};
use tokio::net::TcpListener;

use super::super::RemoteNodes;
use super::rig::*;
use crate::peers::{AddressBook, Timing};

fn remote(book: &AddressBook) -> Arc<RemoteNodes> {
    Arc::new(RemoteNodes::new_in(Env::real(), identity(1), book.clone(), brisk()))
}

async fn ask(remote: &RemoteNodes) -> Result<u64, ShardError> {
    remote.count(2, SHARD, None, read(Tokens::Any)).await
}

/// Asks until there is an answer; what fails before must have been sure not to be there.
async fn ask_until_reached(remote: &RemoteNodes) -> u64 {
    let asking = async {
        loop {
            match ask(remote).await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.elsewhere, Some(Elsewhere::Unreachable), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    within("the node is reached", asking).await
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_known_to_have_seen_nothing_and_is_reached_once_it_is_there() {
    let book = AddressBook::default();
    let remote = remote(&book);
    let unknown = ask(&remote).await.unwrap_err();
    assert_eq!((unknown.kind, unknown.elsewhere), (ErrorKind::Unavailable, Some(Elsewhere::Unreachable)));
    assert!(unknown.message.contains(&NodeId(2).to_string()), "{unknown}");

    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    book.set(NodeId(2), uri(&address));
    for _ in 0..10 {
        let error = ask(&remote).await.unwrap_err();
        assert_eq!(error.elsewhere, Some(Elsewhere::Unreachable), "{error:?}");
    }
    let found = remote.search(2, &[SHARD], [query(1)].into(), false, read(Tokens::Any)).await;
    assert_eq!(found[0].1.as_ref().unwrap_err().elsewhere, Some(Elsewhere::Unreachable));

    let served = Served::start_at(identity(2), &address, Arc::default(), Arc::default()).await;
    assert_eq!(ask_until_reached(&remote).await, 300);
    let calls = served.node.calls().len();
    served.stop().await;
    // Idle connections end without anybody noticing: the next call does, and was not sent.
    let served = Served::start_at(identity(2), &address, Arc::default(), Arc::default()).await;
    assert_eq!(ask_until_reached(&remote).await, 300);
    assert_eq!((calls, served.node.calls().len()), (1, 1));
    served.stop().await;
    let error = ask(&remote).await.unwrap_err();
    assert_eq!(error.elsewhere, Some(Elsewhere::Unreachable), "{error:?}");
    book.remove(NodeId(2));
    within("it is forgotten", async {
        while !ask(&remote).await.unwrap_err().message.contains("address book") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_call_that_breaks_after_it_was_sent_nothing_is_known() {
    let served = Served::start(identity(2)).await;
    let wire = Wire::to(served.address()).await;
    let book = AddressBook::default();
    book.set(NodeId(2), wire.uri.clone());
    let remote = remote(&book);
    served.node.hold.send_replace(true);
    let write = beside({
        let remote = remote.clone();
        let delete = Arc::new(Change::Delete(vec![PointId::Num(1)]));
        async move { remote.write(2, SHARD, 1, delete, Wait::Committed, Deadline::NEVER).await }
    });
    served.node.wait_for_calls(1).await;
    wire.cut();
    let error = within("the call breaks", write).await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.elsewhere, error.in_doubt), (ErrorKind::Unavailable, None, true), "{error:?}");
    served.node.wait_for_dropped(1).await;
    served.node.hold.send_replace(false);
    assert_eq!(ask_until_reached(&remote).await, 300);
    assert_eq!(wire.connections(), 2);
}

#[tokio::test]
async fn a_node_that_moved_is_asked_at_its_new_address_and_the_old_one_no_more() {
    let (old, new) = (Served::start(identity(2)).await, Served::start(identity(2)).await);
    let book = AddressBook::default();
    book.set(NodeId(2), old.uri());
    let remote = remote(&book);
    assert_eq!(ask(&remote).await, Ok(300));
    old.node.hold.send_replace(true);
    let under_way = beside({
        let remote = remote.clone();
        async move { ask(&remote).await }
    });
    old.node.wait_for_calls(2).await;
    // The old address goes on listening: only the book tells that the node is elsewhere.
    book.set(NodeId(2), new.uri());
    within("the new address is asked", async {
        old.node.hold.send_replace(false);
        while new.node.calls().is_empty() {
            assert_eq!(ask(&remote).await, Ok(300), "no call fails because of a move");
        }
    })
    .await;
    assert_eq!(under_way.await.unwrap(), Ok(300), "what was under way is answered by whom it was sent to");
    let before = old.node.calls().len();
    for _ in 0..10 {
        assert_eq!(ask(&remote).await, Ok(300));
    }
    assert_eq!(old.node.calls().len(), before);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up_and_reached_again_when_it_speaks() {
    let served = Served::start(identity(2)).await;
    let wire = Wire::to(served.address()).await;
    let book = AddressBook::default();
    book.set(NodeId(2), wire.uri.clone());
    let ping = Duration::from_millis(50);
    let timing = Timing { ping_every: ping, ping_timeout: ping, ..brisk() };
    let remote = Arc::new(RemoteNodes::new_in(Env::real(), identity(1), book, timing));
    served.node.hold.send_replace(true);
    let under_way = beside({
        let remote = remote.clone();
        async move { ask(&remote).await }
    });
    served.node.wait_for_calls(1).await;
    wire.freeze(true);
    let error = within("the silence is noticed", under_way).await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.elsewhere), (ErrorKind::Unavailable, None), "{error:?}");
    let error = within("it is noticed again", ask(&remote)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    wire.freeze(false);
    served.node.hold.send_replace(false);
    let reached = async { while ask(&remote).await.is_err() {} };
    within("it is reached again", reached).await;
}
