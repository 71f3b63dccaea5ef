//! The task that brings messages to one node.

use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::NodeId;
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::internal::raft_service_client::RaftServiceClient;
use sagitta_wire::internal::{DeliverRequest, DeliverResponse};
use sagitta_wire::peer::{Welcome, refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Uri};
use tonic::{Request, Status, Streaming};

use super::pace::{Cause, Pace};
use super::queue::Queue;
use super::{AddressBook, Inbox, MAX_FRAME_BYTES, PeerCounters, PeerIdentity, Timing};

/// One direction between two nodes.
pub(super) struct Link {
    pub(super) env: Env,
    pub(super) me: PeerIdentity,
    pub(super) timing: Timing,
    pub(super) node: NodeId,
    pub(super) queue: Arc<Queue>,
    pub(super) book: AddressBook,
    pub(super) counters: Arc<PeerCounters>,
    pub(super) inbox: Arc<dyn Inbox>,
}

/// A stream that the other node has let in.
struct Session {
    frames: mpsc::Sender<DeliverRequest>,
    answers: Streaming<DeliverResponse>,
}

/// Why there is no stream, or no more.
pub(crate) struct Broken {
    pub(crate) cause: Cause,
    pub(crate) what: String,
}

/// What has been seen of the other node.
#[derive(Default)]
struct History {
    pace: Pace,
    connected_before: bool,
    /// When the present stream was let in.
    let_in: Option<Duration>,
}

/// What the receiver says; see `DeliverResponse`.
const MAX_ANSWER_BYTES: usize = 4 << 10;
/// Frames between the queue and the connection. One is being sent while the next one is ready; all others wait in the
/// queue, where they are bounded.
const FRAMES_AHEAD: usize = 1;

impl Link {
    /// Connects when there is something to send and again when the connection broke. Ends when the address book has
    /// the node no more.
    pub(super) async fn run(&self) {
        let mut history = History::default();
        while let Some(address) = self.book.get(self.node) {
            tokio::select! {
                () = self.queue.filled() => {}
                () = self.book.left(self.node, &address) => continue,
            }
            tokio::select! {
                () = self.send_for_a_while(&address, &mut history) => {}
                () = self.book.left(self.node, &address) => {
                    tracing::info!(to = %self.node, from = %address, "a node has another address now, or none");
                    // What was under way to the old one is lost.
                    self.inbox.unreachable(self.node);
                    history.pace = Pace::default();
                }
            }
        }
    }

    /// One connection, from the attempt to the end of the wait after it broke.
    async fn send_for_a_while(&self, address: &Uri, history: &mut History) {
        history.let_in = None;
        let Broken { cause, what } = match self.enter(address).await {
            Ok(session) => {
                self.note_connected(address, history);
                self.carry(session).await
            }
            Err(broken) => broken,
        };
        self.counters.failures.add(1);
        self.counters.refusals.add(usize::from(cause == Cause::Refused));
        self.counters.unreachable.add(self.queue.clear());
        self.inbox.unreachable(self.node);
        let lasted = history.let_in.map_or(Duration::ZERO, |since| self.env.now().saturating_sub(since));
        let (wait, say) = history.pace.after(cause, lasted, &self.timing, &self.env);
        match cause {
            _ if !say => tracing::debug!(to = %self.node, %address, what, ?wait, "a node still cannot be reached"),
            Cause::Broken => tracing::warn!(to = %self.node, %address, what, "a node cannot be reached; trying on"),
            Cause::Refused => tracing::error!(to = %self.node, %address, what, "a node refuses this one; trying on"),
        }
        self.env.sleep(wait).await;
    }

    fn note_connected(&self, address: &Uri, history: &mut History) {
        history.let_in = Some(self.env.now());
        self.counters.connects.add(1);
        self.counters.reconnects.add(usize::from(std::mem::replace(&mut history.connected_before, true)));
        if history.pace.has_complained() {
            tracing::info!(to = %self.node, %address, "a node can be reached again");
        }
    }

    /// Connects and is let in, or not, within the time for both.
    async fn enter(&self, address: &Uri) -> Result<Session, Broken> {
        let entered = async {
            let channel = self.book.connect(endpoint(address, &self.timing)).await?;
            let mut service = RaftServiceClient::new(channel)
                .max_encoding_message_size(MAX_FRAME_BYTES)
                .max_decoding_message_size(MAX_ANSWER_BYTES);
            let (frames, outgoing) = mpsc::channel(FRAMES_AHEAD);
            let mut request = Request::new(ReceiverStream::new(outgoing));
            self.me.hello_to(self.node).write_to(request.metadata_mut());
            let mut answers = service.deliver(request).await?.into_inner();
            let welcome = answers.message().await?.ok_or_else(|| Broken::new("it ended the stream without a word"))?;
            self.check(&welcome)?;
            Ok(Session { frames, answers })
        };
        let late = |_| Err(Broken::new("it did not let us in in time"));
        self.env.timeout(self.timing.handshake, Box::pin(entered)).await.unwrap_or_else(late)
    }

    /// Receivers refuse what is not for them; one that does not must not be talked to either.
    fn check(&self, welcome: &DeliverResponse) -> Result<(), Broken> {
        let refused = |what| Broken { cause: Cause::Refused, what };
        let welcome = Welcome::from_proto(welcome).map_err(|failure| refused(failure.message))?;
        let found = NodeId(welcome.receiver);
        if found != self.node {
            return Err(refused(format!("it says that it is {found}, {} is meant", self.node)));
        }
        Ok(())
    }

    /// Sends what is in the queue until the connection breaks.
    async fn carry(&self, session: Session) -> Broken {
        let Session { frames, mut answers } = session;
        let pump = async {
            // Only what the connection has room for leaves the queue.
            while let Ok(room) = frames.reserve().await {
                self.queue.filled().await;
                let messages = self.queue.take_frame();
                self.counters.sent.add(messages.len());
                room.send(DeliverRequest { messages });
            }
        };
        tokio::pin!(pump);
        let mut pumping = true;
        loop {
            tokio::select! {
                // The connection takes no more. The answers say why.
                () = &mut pump, if pumping => pumping = false,
                // Leaders that stream to a node slower than they are lose what they send: let them ask first.
                () = self.queue.overflowed() => self.inbox.unreachable(self.node),
                answer = answers.message() => match answer {
                    // A later version may say more.
                    Ok(Some(_)) => {}
                    Ok(None) => return Broken::new("it ended the stream"),
                    Err(status) => return status.into(),
                },
            }
        }
    }
}

/// How a connection is made.
pub(crate) fn endpoint(address: &Uri, timing: &Timing) -> Endpoint {
    Endpoint::from(address.clone())
        // A message must not wait for the acknowledgement of the one before.
        .tcp_nodelay(true)
        .connect_timeout(timing.handshake)
        .http2_keep_alive_interval(timing.ping_every)
        .keep_alive_timeout(timing.ping_timeout)
        .keep_alive_while_idle(true)
}

/// The error itself says what failed, the last of its sources why.
pub(super) fn why(error: &tonic::transport::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

impl Broken {
    pub(crate) fn new(what: &str) -> Self {
        Self { cause: Cause::Broken, what: what.to_owned() }
    }
}

impl From<tonic::transport::Error> for Broken {
    fn from(error: tonic::transport::Error) -> Self {
        Self::new(&why(&error))
    }
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        let failure = Failure::from_status(&status);
        let refused = matches!(failure.kind, ErrorKind::Denied | ErrorKind::Invalid)
            || failure.reason == refusal::OTHER_INCARNATION
            // Something else than a node listens there.
            || status.code() == tonic::Code::Unimplemented;
        let cause = if refused { Cause::Refused } else { Cause::Broken };
        Self { cause, what: failure.message }
    }
}
