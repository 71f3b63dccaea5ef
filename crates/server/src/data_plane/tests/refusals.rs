//! Callers who have come to the wrong place, and what is no request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sagitta_consensus::{ClusterId, NodeId};
use sagitta_coordinator::{Elsewhere, NodeClient as _, Tokens};
use sagitta_env::{Deadline, Env};
use sagitta_model::{ErrorKind, PointId};
use sagitta_wire::internal as p;
use sagitta_wire::internal::control_service_client::ControlServiceClient;
use sagitta_wire::internal::shard_service_client::ShardServiceClient;
use sagitta_wire::peer::{HELLO_METADATA, Hello, PROTOCOL, Run, refusal};
use sagitta_wire::shard::{Count, HandOver, search_request};
use sagitta_wire::{Convert as _, Failure};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::super::RemoteNodes;
use super::rig::*;
use crate::peers::{AddressBook, PeerIdentity};

const HELLO: Hello =
    Hello { protocol: PROTOCOL, cluster: CLUSTER.0, sender: 1, incarnation: 0xf1, receiver: 2, run: RUN };
const RUN: Run = Run { number: 1, id: 1, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6_381) };

fn request<T>(hello: Option<Hello>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(hello) = hello {
        hello.write_to(request.metadata_mut());
    }
    request
}

/// Makes every call that carries a hello; what came of each.
async fn call_everything(channel: Channel, hello: Option<Hello>) -> Vec<Result<(), Status>> {
    let (mut shards, mut control) = (ShardServiceClient::new(channel.clone()), ControlServiceClient::new(channel));
    let shard = || Some(SHARD.into_proto());
    let delete = p::shard_write_request::Change::Delete(sagitta_wire::v1::PointIdList {
        ids: vec![PointId::Num(1).into_proto()],
    });
    let write = p::ShardWriteRequest { shard: shard(), request_id: vec![1; 16].into(), wait: 0, change: Some(delete) };
    let get = p::ShardGetRequest { shard: shard(), ids: vec![PointId::Num(1).into_proto()], ..Default::default() };
    let count = Count { shard: SHARD, filter: None, tokens: Tokens::Any }.into_proto();
    let scroll = p::ShardScrollRequest { shard: shard(), limit: 1, ..Default::default() };
    let statistics = p::ShardStatisticsRequest { shard: shard() };
    let hand_over = HandOver { shard: SHARD, to: 3 }.into_proto();
    let pull = p::PullRequest { shard: shard(), question: "x".into() };
    let propose = p::ProposeRequest { command: "x".into() };
    vec![
        shards.write(request(hello, write)).await.map(drop),
        shards.search(request(hello, search_request(&[SHARD], &[query(1)], false, &Tokens::Any))).await.map(drop),
        shards.get(request(hello, get)).await.map(drop),
        shards.count(request(hello, count)).await.map(drop),
        shards.scroll(request(hello, scroll)).await.map(drop),
        shards.statistics(request(hello, statistics)).await.map(drop),
        shards.hand_over(request(hello, hand_over)).await.map(drop),
        shards.pull(request(hello, pull)).await.map(drop),
        control.propose(request(hello, propose)).await.map(drop),
        control.read_index(request(hello, p::ReadIndexRequest {})).await.map(drop),
        control.attend(request(hello, tokio_stream::iter([p::NodeReport::default()]))).await.map(drop),
    ]
}

#[tokio::test]
async fn whoever_has_come_to_the_wrong_place_is_refused_by_every_call_and_nothing_is_done() {
    let served = Served::start(identity(2)).await;
    let channel = Endpoint::from(served.uri()).connect().await.unwrap();
    let cases = [
        (Some(Hello { cluster: 0xbad, ..HELLO }), Code::PermissionDenied, refusal::OTHER_CLUSTER),
        (Some(Hello { receiver: 3, ..HELLO }), Code::PermissionDenied, refusal::OTHER_NODE),
        (Some(Hello { sender: 2, ..HELLO }), Code::PermissionDenied, refusal::OWN_MESSAGE),
        (Some(Hello { protocol: 2, ..HELLO }), Code::InvalidArgument, refusal::OTHER_PROTOCOL),
        (None, Code::InvalidArgument, "INVALID"),
    ];
    for (hello, code, reason) in cases {
        for (at, outcome) in call_everything(channel.clone(), hello).await.into_iter().enumerate() {
            let status = outcome.expect_err(reason);
            let failure = Failure::from_status(&status);
            assert_eq!((status.code(), &*failure.reason), (code, reason), "call {at}: {status:?}");
            assert!(hello.is_some() || failure.message.contains(HELLO_METADATA), "{failure:?}");
        }
    }
    assert_eq!(served.node.calls(), []);
    assert_eq!(served.members.reports.borrow().len(), 0);
    let let_in = call_everything(channel, Some(HELLO)).await;
    assert!(let_in.iter().all(Result::is_ok), "{let_in:?}");
    assert_eq!(served.node.calls().len(), let_in.len() - 1);
}

#[tokio::test]
async fn a_run_that_has_been_overtaken_is_refused_by_every_call_and_its_successor_is_not() {
    let served = Served::start(identity(2)).await;
    let channel = Endpoint::from(served.uri()).connect().await.unwrap();
    let successor = Hello { run: Run { number: 2, id: 2, ..RUN }, ..HELLO };
    let mut attending = ControlServiceClient::new(channel.clone());
    let reports = tokio_stream::iter([p::NodeReport::default()]);
    attending.attend(request(Some(successor), reports)).await.unwrap();
    for (at, outcome) in call_everything(channel.clone(), Some(HELLO)).await.into_iter().enumerate() {
        let failure = Failure::from_status(&outcome.expect_err("overtaken"));
        assert_eq!(failure.reason, refusal::OTHER_RUN, "call {at}: {failure:?}");
    }
    assert_eq!(served.node.calls(), []);
    let heard = call_everything(channel, Some(successor)).await;
    assert!(heard.iter().all(Result::is_ok), "{heard:?}");
}

#[tokio::test]
async fn a_node_that_is_found_at_the_address_of_another_has_seen_nothing_of_the_call() {
    let served = Served::start(identity(2)).await;
    let strangers =
        [(PeerIdentity { cluster: ClusterId(0xbad), ..identity(1) }, 2), (identity(1), 3), (identity(2), 2)];
    for (me, node) in strangers {
        let book = AddressBook::default();
        book.set(NodeId(node), served.uri());
        let remote = RemoteNodes::new_in(Env::real(), me, book, brisk());
        let error = remote.read_index(node, Deadline::NEVER).await.unwrap_err();
        assert_eq!((error.kind, error.elsewhere), (ErrorKind::Unavailable, Some(Elsewhere::Unreachable)), "{error:?}");
    }
    assert_eq!(served.node.calls(), []);
}

#[tokio::test]
async fn a_request_that_is_nonsense_is_refused_with_the_fields_name() {
    let served = Served::start(identity(2)).await;
    let mut client = ShardServiceClient::new(Endpoint::from(served.uri()).connect().await.unwrap());
    let mut search = search_request(&[SHARD], &[query(1)], false, &Tokens::Any);
    search.queries[0].k = 0;
    let status = client.search(request(Some(HELLO), search)).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).violations[0].field, "queries[0].k");
    let status = client.count(request(Some(HELLO), p::ShardCountRequest::default())).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).violations[0].field, "shard");
    assert_eq!(served.node.calls(), []);
}

#[tokio::test]
async fn an_answer_that_is_nonsense_is_the_nodes_fault_and_harms_nothing_else() {
    let served = Served::start(identity(2)).await;
    let book = AddressBook::default();
    book.set(NodeId(2), served.uri());
    let remote = RemoteNodes::new_in(Env::real(), identity(1), book, brisk());
    // Three hits, where one was asked for.
    let found = remote.search(2, &[SHARD], [query(1)].into(), false, read(Tokens::Any)).await;
    let error = found[0].1.as_ref().unwrap_err();
    assert_eq!((error.kind, error.elsewhere), (ErrorKind::Internal, None));
    assert!(error.message.contains("shards[0].results[0].hits"), "{error}");
    assert!(remote.search(2, &[SHARD], [query(3)].into(), false, read(Tokens::Any)).await[0].1.is_ok());
}
