//! Where the other nodes bring their messages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::{ClusterId, NodeId};
use sagitta_env::{Env, JoinHandle};
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::internal::raft_service_server::{RaftService, RaftServiceServer};
use sagitta_wire::internal::state_service_server::StateServiceServer;
use sagitta_wire::internal::{DeliverRequest, DeliverResponse};
use sagitta_wire::peer::{Hello, PROTOCOL, Welcome, refusal};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::guests::{Guest, Guests, Topic};
use super::states::{Lending, StateDesk};
use super::{Inbox, MAX_FRAME_BYTES, PeerCounters, PeerIdentity, Timing, until_told};
use crate::connections::{self, Connection, Limits};
use crate::net::Door;

/// Takes messages from other nodes until it is stopped, or a moment longer than it is dropped.
pub struct PeerListener {
    env: Env,
    address: SocketAddr,
    closing: watch::Sender<bool>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    accepting: JoinHandle<()>,
}

#[derive(Clone)]
struct Reception {
    env: Env,
    inbox: Arc<dyn Inbox>,
    counters: Arc<PeerCounters>,
    guests: Arc<Guests>,
    closing: watch::Receiver<bool>,
}

/// Connections at once: of each node of a large cluster one for its messages, one for its calls, one for its reports, and for each
/// a second one that replaces the first.
const MAX_CONNECTIONS: usize = 1_024;
/// Calls of one connection at once: a coordinator has hundreds of searches under way, and is trusted not to have more than it needs.
const STREAMS_PER_CONNECTION: u32 = 4_096;
/// HTTP/2 windows: room for a frame on its way while the one before is taken, and for several large writes.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// How long connections may take to end when the listener is stopped.
const GRACE: Duration = Duration::from_secs(2);
/// The welcome, and the reason for the end.
const ANSWERS: usize = 2;

impl PeerListener {
    /// Begins to take messages of `guests` for `inbox`, to hand out what there is of `lending`, and to serve what else nodes ask of each other. To be
    /// called within a tokio runtime.
    pub fn start(
        env: &Env,
        listener: impl Into<Door>,
        guests: Arc<Guests>,
        inbox: Arc<dyn Inbox>,
        lending: impl Into<Lending>,
        counters: Arc<PeerCounters>,
        others: Routes,
    ) -> io::Result<Self> {
        Self::start_in(env, listener, guests, inbox, lending, counters, others, Timing::default())
    }

    #[allow(clippy::too_many_arguments, reason = "all of what a listener is made of")]
    pub(super) fn start_in(
        env: &Env,
        listener: impl Into<Door>,
        guests: Arc<Guests>,
        inbox: Arc<dyn Inbox>,
        lending: impl Into<Lending>,
        counters: Arc<PeerCounters>,
        others: Routes,
        timing: Timing,
    ) -> io::Result<Self> {
        let listener = listener.into();
        let address = listener.local_addr()?;
        let (closing, closed) = watch::channel(false);
        let states = StateDesk::new(env, guests.clone(), lending.into(), timing, counters.clone(), closed.clone());
        let reception = Reception { env: env.clone(), inbox, counters, guests, closing: closed.clone() };
        let service = RaftServiceServer::new(reception)
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let (incoming, accepting) = incoming(env, listener);
        let serving = connections::bounded_server()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            // Nodes reset calls by the hundred: whenever another replica was faster, or the caller went away.
            .http2_max_pending_accept_reset_streams(Some(STREAMS_PER_CONNECTION as usize))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(timing.ping_every))
            .http2_keepalive_timeout(Some(timing.ping_timeout))
            .add_routes(others.add_service(service).add_service(StateServiceServer::new(states)))
            .serve_with_incoming_shutdown(incoming, until_told(closed));
        Ok(Self { env: env.clone(), address, closing, serving: env.spawn(serving), accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all streams and gives the address back.
    pub async fn stop(self) {
        // Nobody listening means that all has ended.
        let _ = self.closing.send(true);
        let mut serving = self.serving;
        if self.env.timeout(GRACE, &mut serving).await.is_err() {
            // Their streams are over; what is left of them ends with their pings.
            serving.abort();
            let _ = serving.await;
        }
        let _ = self.accepting.await;
    }
}

/// Accepts connections.
fn incoming(env: &Env, listener: Door) -> (impl Stream<Item = io::Result<Connection>> + use<>, JoinHandle<()>) {
    connections::accept(env, listener, Limits::at_most(MAX_CONNECTIONS))
}

#[tonic::async_trait]
impl RaftService for Reception {
    type DeliverStream = ReceiverStream<Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let guest = match self.let_guest_in(&request) {
            Ok(guest) => guest,
            Err(failure) => {
                self.counters.refused.add(1);
                tracing::debug!(from = ?request.remote_addr(), why = failure.message, "refused a caller");
                return Err(failure.into());
            }
        };
        let (answers, stream) = mpsc::channel(ANSWERS);
        let me = self.guests.me();
        let welcome = Welcome { receiver: me.node.0, incarnation: me.incarnation };
        // There is room, and whoever went away is noticed next.
        let _ = answers.try_send(Ok(welcome.into_proto()));
        self.env.spawn(self.clone().attend(guest, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Reception {
    fn let_guest_in(&self, request: &Request<Streaming<DeliverRequest>>) -> Result<Guest, Failure> {
        let hello = let_in(request.metadata(), self.guests.me())?;
        self.guests.enter(&hello, Topic::Messages)
    }

    /// Hands over what a sender brings until either side ends it.
    async fn attend(
        self,
        mut guest: Guest,
        mut frames: Streaming<DeliverRequest>,
        answers: mpsc::Sender<Result<DeliverResponse, Status>>,
    ) {
        let sender = guest.node();
        let end = loop {
            let frame = tokio::select! {
                biased;
                () = until_told(self.closing.clone()) => {
                    break Failure::new(ErrorKind::Unavailable, format!("{} is shutting down", self.guests.me().node)).into();
                }
                () = guest.replaced() => break guest.farewell().into(),
                () = answers.closed() => return,
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(DeliverRequest { messages })) => {
                    let count = messages.len();
                    let taken = self.inbox.receive(messages);
                    let counter = if taken { &self.counters.received } else { &self.counters.inbox_full };
                    counter.add(count);
                }
                Ok(None) => return,
                Err(status) => {
                    if std::error::Error::source(&status).is_none() {
                        self.counters.malformed.add(1);
                        tracing::warn!(from = %sender, why = status.message(), "a node sent what is no frame");
                    }
                    break status;
                }
            }
        };
        // There is room for one, and whoever went away need not be told.
        let _ = answers.try_send(Err(end));
    }
}

/// Who calls, if it may come in.
pub(crate) fn let_in(metadata: &MetadataMap, me: &PeerIdentity) -> Result<Hello, Failure> {
    let hello = Hello::read_from(metadata)?;
    judge(&hello, me)?;
    Ok(hello)
}

/// Whether a caller may come in.
pub(super) fn judge(hello: &Hello, me: &PeerIdentity) -> Result<(), Failure> {
    let (sender, here) = (NodeId(hello.sender), me.node);
    if hello.protocol != PROTOCOL {
        let message = format!("{sender} speaks protocol {} between nodes, {here} speaks {PROTOCOL}", hello.protocol);
        return Err(Failure::new(ErrorKind::Invalid, message).with_reason(refusal::OTHER_PROTOCOL));
    }
    let denied = |message, reason| Err(Failure::new(ErrorKind::Denied, message).with_reason(reason));
    let theirs = ClusterId(hello.cluster);
    if theirs != me.cluster {
        let message = format!("{sender} belongs to {theirs}, {here} to {}: its address has passed on", me.cluster);
        return denied(message, refusal::OTHER_CLUSTER);
    }
    let meant = NodeId(hello.receiver);
    if meant != here {
        let message = format!("{sender} means {meant}, this is {here}: the address has passed to another node");
        return denied(message, refusal::OTHER_NODE);
    }
    if sender == here {
        let message = format!("the sender calls itself {sender}, and so does the receiver: two nodes share an id");
        return denied(message, refusal::OWN_MESSAGE);
    }
    Ok(())
}
