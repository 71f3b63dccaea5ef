//! Callers who have come to the wrong place, and what is no message.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sagitta_consensus::{ClusterId, NodeId, Transport as _};
use sagitta_wire::internal::raft_service_client::RaftServiceClient;
use sagitta_wire::internal::{self, DeliverRequest, DeliverResponse};
use sagitta_wire::peer::{HELLO_METADATA, Hello, PROTOCOL, Run, refusal};
use sagitta_wire::{Codec, Failure, reason};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::super::{PeerIdentity, Timing};
use super::rig::*;

const HELLO: Hello =
    Hello { protocol: PROTOCOL, cluster: CLUSTER.0, sender: 1, incarnation: 0xf1, receiver: 2, run: RUN };
const RUN: Run = Run { number: 1, id: 1, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6_381) };

async fn channel(receiver: &Receiver) -> Channel {
    Endpoint::from(receiver.uri()).connect().await.unwrap()
}

/// A stream that was let in, with both of its halves.
type Call = (Streaming<DeliverResponse>, mpsc::Sender<DeliverRequest>);

/// Introduces itself as told, with a message right behind.
async fn call(receiver: &Receiver, hello: Option<Hello>) -> Result<Call, Status> {
    let (frames, outgoing) = mpsc::channel(1);
    frames.try_send(DeliverRequest { messages: vec![text(1)] }).unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(hello) = hello {
        hello.write_to(request.metadata_mut());
    }
    let mut answers = RaftServiceClient::new(channel(receiver).await).deliver(request).await?.into_inner();
    answers.message().await?.unwrap();
    Ok((answers, frames))
}

#[tokio::test]
async fn whoever_has_come_to_the_wrong_place_is_refused_with_both_ids_and_nothing_is_read() {
    let receiver = Receiver::start(identity(2)).await;
    let other = 0xbad;
    let cases = [
        (
            Hello { cluster: other, ..HELLO },
            Code::PermissionDenied,
            refusal::OTHER_CLUSTER,
            vec![NodeId(1).to_string(), ClusterId(other).to_string(), NodeId(2).to_string(), CLUSTER.to_string()],
        ),
        (
            Hello { receiver: 3, ..HELLO },
            Code::PermissionDenied,
            refusal::OTHER_NODE,
            vec![NodeId(1).to_string(), NodeId(3).to_string(), NodeId(2).to_string()],
        ),
        (Hello { sender: 2, ..HELLO }, Code::PermissionDenied, refusal::OWN_MESSAGE, vec![NodeId(2).to_string()]),
        (
            Hello { protocol: 2, ..HELLO },
            Code::InvalidArgument,
            refusal::OTHER_PROTOCOL,
            vec![format!("{} speaks protocol 2", NodeId(1)), format!("{} speaks 1", NodeId(2))],
        ),
    ];
    let count = cases.len() as u64;
    for (hello, code, why, named) in cases {
        let status = call(&receiver, Some(hello)).await.unwrap_err();
        let failure = Failure::from_status(&status);
        assert_eq!((status.code(), &*failure.reason), (code, why), "{status:?}");
        for name in named {
            assert!(failure.message.contains(&name), "{name} in {}", failure.message);
        }
    }
    let stranger = call(&receiver, None).await.unwrap_err();
    assert!(stranger.code() == Code::InvalidArgument && stranger.message().contains(HELLO_METADATA), "{stranger:?}");
    assert_eq!(receiver.stats().refused, count + 1);
    assert_eq!(receiver.stats().received, 0);
    assert!(receiver.inbox.read(|record| record.messages.is_empty()));
}

#[tokio::test]
async fn two_data_folders_under_one_node_id_are_told_apart_and_a_reconnecting_one_takes_its_own_place() {
    let receiver = Receiver::start(identity(2)).await;
    let (mut first, _frames) = call(&receiver, Some(HELLO)).await.unwrap();
    let status = call(&receiver, Some(Hello { incarnation: 0xee, ..HELLO })).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason, refusal::OTHER_INCARNATION);
    for uuid in [0xf1, 0xee] {
        assert!(status.message().contains(&format!("{uuid:032x}")), "{status:?}");
    }
    let second = call(&receiver, Some(HELLO)).await.unwrap();
    let replaced = within("the older stream ends", first.message()).await.unwrap_err();
    assert_eq!(replaced.code(), Code::Aborted, "{replaced:?}");
    drop(second);
    until("the place is free", || receiver.stats().received == 2).await;
    within("another incarnation, once the first is gone", async {
        while call(&receiver, Some(Hello { incarnation: 0xee, ..HELLO })).await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_second_run_of_one_folder_is_refused_with_both_addresses_while_the_first_is_connected() {
    let receiver = Receiver::start(identity(2)).await;
    let first = call(&receiver, Some(HELLO)).await.unwrap();
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7_777);
    let second = Hello { run: Run { number: 2, id: 2, address }, ..HELLO };
    let status = call(&receiver, Some(second)).await.unwrap_err();
    let failure = Failure::from_status(&status);
    assert_eq!((status.code(), &*failure.reason), (Code::Aborted, refusal::OTHER_RUN));
    for address in [RUN.address, address] {
        assert!(failure.message.contains(&address.to_string()), "{failure:?}");
    }
    until("what the first one sent is here", || receiver.stats().received == 1).await;
    drop(first);
    within("the later run, once the first is gone", async { while call(&receiver, Some(second)).await.is_err() {} })
        .await;
    let status = call(&receiver, Some(HELLO)).await.unwrap_err();
    let failure = Failure::from_status(&status);
    assert_eq!((status.code(), &*failure.reason), (Code::PermissionDenied, refusal::OTHER_RUN), "never again");
}

#[tokio::test]
async fn a_refused_sender_drops_what_it_had_and_waits_instead_of_calling_again() {
    let receiver = Receiver::start(identity(2)).await;
    let right = Receiver::start(identity(3)).await;
    let witness = Sender::start(identity(4), brisk());
    witness.book.set(NodeId(2), receiver.uri());
    // Whoever did not wait after a refusal would call without end.
    let timing = Timing {
        min_backoff: Duration::ZERO,
        max_backoff: Duration::ZERO,
        refused_backoff: Duration::from_secs(100_000),
        ..Timing::default()
    };
    let stranger = PeerIdentity { cluster: ClusterId(0xbad), ..identity(1) };
    for (me, to) in [(stranger, 2), (identity(1), 3)] {
        let sender = Sender::start(me, timing);
        let before = receiver.stats().refused;
        sender.book.set(NodeId(to), receiver.uri());
        sender.transport.send(NodeId(to), vec![text(1)]);
        sender.inbox.wait("the host hears of it", |record| record.unreachable == [NodeId(to)]).await;
        for number in 0..1_000 {
            sender.transport.send(NodeId(to), vec![text(number)]);
            // The time that a message of another node takes, which is as long as a call takes.
            let arrived = receiver.inbox.read(|record| record.messages.len());
            witness.transport.send(NodeId(2), vec![text(number)]);
            receiver.inbox.wait_for_messages(arrived + 1).await;
        }
        let stats = sender.stats();
        assert_eq!((stats.refused_by_others, stats.failures, stats.connects, stats.sent), (1, 1, 0, 0));
        assert_eq!((stats.dropped_unreachable, receiver.stats().refused - before), (1, 1));
        if to == 3 {
            // Another address is another chance, at once.
            sender.book.set(NodeId(3), right.uri());
            right.inbox.wait_for_messages(1_000).await;
        }
    }
    assert_eq!(receiver.inbox.read(|record| record.messages.len()), 2_000, "only those of the witness");
}

#[tokio::test]
async fn a_frame_that_is_garbage_ends_its_stream_and_harms_nobody_else() {
    let receiver = Receiver::start(identity(2)).await;
    let honest = Sender::start(identity(3), brisk());
    honest.book.set(NodeId(2), receiver.uri());
    honest.transport.send(NodeId(2), vec![text(1)]);
    receiver.inbox.wait_for_messages(1).await;

    // Field 1 of `Hello` is a number, where a frame has messages.
    let foreign = internal::Hello { protocol: 7, ..internal::Hello::default() };
    let mut request = Request::new(tokio_stream::iter([foreign]));
    HELLO.write_to(request.metadata_mut());
    let mut client = Grpc::new(channel(&receiver).await);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/sagitta.internal.v1.RaftService/Deliver");
    let codec = Codec::<internal::Hello, DeliverResponse>::default();
    let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason, reason::MALFORMED_MESSAGE);

    // No HTTP/2 at all.
    let mut junk = TcpStream::connect(receiver.listener.address()).await.unwrap();
    junk.write_all(&[0xa5; 4_096]).await.unwrap();
    // Reset or closed.
    let _ = within("junk is cut off", junk.read_to_end(&mut Vec::new())).await;

    honest.transport.send(NodeId(2), vec![text(2)]);
    receiver.inbox.wait_for_messages(2).await;
    assert_eq!(receiver.inbox.read(|record| record.messages.clone()), [text(1), text(2)]);
    assert_eq!((receiver.stats().malformed, honest.stats().failures), (1, 0));
}

#[tokio::test]
async fn a_frame_above_the_bound_is_refused() {
    let receiver = Receiver::start(identity(2)).await;
    let mut request = Request::new(tokio_stream::iter([DeliverRequest {
        messages: vec![vec![0; super::super::MAX_FRAME_BYTES].into()],
    }]));
    HELLO.write_to(request.metadata_mut());
    let mut client = RaftServiceClient::new(channel(&receiver).await);
    let mut answers = client.deliver(request).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::OutOfRange);
    assert!(receiver.inbox.read(|record| record.messages.is_empty()));
    assert_eq!(receiver.stats().malformed, 1);
}
