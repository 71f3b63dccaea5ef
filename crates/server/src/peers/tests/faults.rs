//! Peers that go away, move, or stop reading.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::{NodeId, Transport as _};
use sagitta_env::Env;
use sagitta_wire::internal::raft_service_server::{RaftService, RaftServiceServer};
use sagitta_wire::internal::{DeliverRequest, DeliverResponse};
use sagitta_wire::peer::Welcome;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, Uri};
use tonic::{Request, Response, Status, Streaming};

use super::super::Timing;
use super::rig::*;

#[tokio::test]
async fn a_listener_that_comes_back_on_its_port_is_reached_again_and_the_host_hears_of_the_break() {
    let receiver = Receiver::start(identity(2)).await;
    let address = receiver.listener.address().to_string();
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    sender.transport.send(NodeId(2), vec![text(0)]);
    receiver.inbox.wait_for_messages(1).await;
    receiver.listener.stop().await;
    for round in 1..=5 {
        sender.inbox.wait("the break is told", |record| record.unreachable.len() >= round).await;
        // While it is away: dropped sooner or later, and counted.
        let lost = sender.stats().dropped_unreachable;
        until("a message is lost", || {
            sender.transport.send(NodeId(2), vec![text(0)]);
            sender.stats().dropped_unreachable > lost
        })
        .await;
        let receiver = Receiver::start_at(identity(2), &address).await;
        until("a message arrives", || {
            sender.transport.send(NodeId(2), vec![text(round)]);
            receiver.stats().received > 0
        })
        .await;
        assert_eq!(sender.stats().reconnects, round as u64);
        receiver.listener.stop().await;
    }
    assert!(sender.inbox.read(|record| record.unreachable.iter().all(|node| *node == NodeId(2))));
}

#[tokio::test]
async fn a_node_that_moved_is_reached_once_the_address_book_says_so() {
    let (old, new) = (Receiver::start(identity(2)).await, Receiver::start(identity(2)).await);
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), old.uri());
    sender.transport.send(NodeId(2), vec![text(1)]);
    old.inbox.wait_for_messages(1).await;
    // The old address goes on listening: only the book tells that the node is elsewhere.
    sender.book.set(NodeId(2), new.uri());
    sender.inbox.wait("the host hears of the move", |record| record.unreachable == [NodeId(2)]).await;
    sender.transport.send(NodeId(2), vec![text(2)]);
    new.inbox.wait_for_messages(1).await;
    assert_eq!(old.inbox.read(|record| record.messages.clone()), [text(1)]);
    assert_eq!(new.inbox.read(|record| record.messages.clone()), [text(2)]);
    assert_eq!((sender.stats().reconnects, sender.stats().failures), (1, 0));
}

/// Lets everybody in and reads nothing.
struct Deaf {
    me: NodeId,
    held: Mutex<Vec<Held>>,
}

type Held = (Streaming<DeliverRequest>, mpsc::Sender<Result<DeliverResponse, Status>>);

#[tonic::async_trait]
impl RaftService for Deaf {
    type DeliverStream = ReceiverStream<Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let welcome = Welcome { receiver: self.me.0, incarnation: 0 };
        answers.try_send(Ok(welcome.into_proto())).unwrap();
        self.held.lock().await.push((request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

async fn deaf(node: NodeId) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = uri(listener.local_addr().unwrap());
    let service = RaftServiceServer::new(Deaf { me: node, held: Mutex::default() });
    let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    Env::real().spawn(serving);
    uri
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_fills_its_own_queue_and_delays_nobody_else() {
    const MESSAGE_BYTES: usize = 256 << 10;
    const MESSAGES: usize = 2_000;
    // What has left the queue: the frame that is being sent, the one that is ready, the one that waits for room, and the
    // windows of HTTP/2 and of TCP.
    const MAX_UNDER_WAY_BYTES: usize = 40 << 20;
    const QUEUE_BYTES: usize = 96 << 20;
    let (silent, receiver) = (NodeId(2), Receiver::start(identity(3)).await);
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(silent, deaf(silent).await);
    sender.book.set(NodeId(3), receiver.uri());
    let message = Bytes::from(vec![1; MESSAGE_BYTES]);
    for number in 0..MESSAGES {
        sender.transport.send(silent, vec![message.clone()]);
        assert!(sender.transport.waiting(silent).1 <= QUEUE_BYTES);
        sender.transport.send(NodeId(3), vec![text(number)]);
        // One by one: each arrives while the other peer reads nothing.
        receiver.inbox.wait_for_messages(number + 1).await;
    }
    let stats = sender.stats();
    let sent_to_silent = stats.sent as usize - MESSAGES;
    println!("{sent_to_silent} of {MESSAGES} left the queue, {} were dropped", stats.dropped_queue_full);
    assert!(sent_to_silent * MESSAGE_BYTES <= MAX_UNDER_WAY_BYTES, "{sent_to_silent} messages are under way");
    assert_eq!(sent_to_silent + sender.transport.waiting(silent).0 + stats.dropped_queue_full as usize, MESSAGES);
    sender.inbox.wait("leaders stop streaming to it", |record| record.unreachable == [silent]).await;
    assert_eq!(sender.stats().failures, 0);
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Pings would notice it, too, and later.
    let timing = Timing { handshake: Duration::from_millis(50), ping_every: Duration::from_secs(100_000), ..brisk() };
    let sender = Sender::start(identity(1), timing);
    sender.book.set(NodeId(2), uri(listener.local_addr().unwrap()));
    sender.transport.send(NodeId(2), vec![text(1)]);
    sender.inbox.wait("it is given up", |record| record.unreachable == [NodeId(2)]).await;
    assert_eq!((sender.stats().dropped_unreachable, sender.stats().connects), (1, 0));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_even_when_there_is_nothing_to_send() {
    let receiver = Receiver::start(identity(2)).await;
    let wire = Wire::to(receiver.listener.address().to_string()).await;
    let ping = Duration::from_millis(50);
    let sender = Sender::start(identity(1), Timing { ping_every: ping, ping_timeout: ping, ..brisk() });
    sender.book.set(NodeId(2), wire.uri.clone());
    until("it is reached", || {
        sender.transport.send(NodeId(2), vec![text(1)]);
        receiver.stats().received > 0
    })
    .await;
    let before = sender.inbox.read(|record| record.unreachable.len());
    wire.frozen.send_replace(true);
    sender.inbox.wait("the silence is noticed", |record| record.unreachable.len() > before).await;
    wire.frozen.send_replace(false);
    let received = receiver.stats().received;
    until("it is reached again", || {
        sender.transport.send(NodeId(2), vec![text(2)]);
        receiver.stats().received > received
    })
    .await;
}

/// Carries bytes between two sockets, or neither carries nor closes.
struct Wire {
    uri: Uri,
    frozen: Arc<watch::Sender<bool>>,
}

impl Wire {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = uri(listener.local_addr().unwrap());
        let frozen = Arc::new(watch::Sender::new(false));
        let freezing = frozen.clone();
        let env = Env::real();
        env.clone().spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut freezing) = (target.clone(), freezing.subscribe());
                env.spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let frozen = async move { drop(freezing.wait_for(|frozen| *frozen).await) };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = frozen => std::future::pending().await,
                    }
                });
            }
        });
        Self { uri, frozen }
    }
}
