//! `ControlService`: the coordinators' end of what nodes and coordinators tell each other.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use sagitta_cluster::Report;
use sagitta_consensus::NodeId;
use sagitta_coordinator::NodeClient;
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::control::{
    Join, Joined, MAX_REPORT_BYTES, command_from, propose_answer, read_index_answer, state_message,
};
use sagitta_wire::internal as p;
use sagitta_wire::internal::control_service_server::{ControlService, ControlServiceServer};
use sagitta_wire::{Convert as _, Failure};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{admit, sender};
use crate::Seen;
use crate::peers::{Guests, PeerIdentity, Topic, until_told};

/// What a coordinator does with what nodes tell it.
pub trait Membership: Send + Sync + 'static {
    /// Lets a node in whose token is right, and tells it where the coordinators are.
    fn join(&self, join: Join) -> impl Future<Output = Result<Joined, Failure>> + Send;

    /// The newest state that this coordinator has applied.
    fn states(&self) -> watch::Receiver<Option<Seen>>;

    /// Hears how a node is.
    fn reported(&self, node: NodeId, report: Report);
}

/// Answers for the coordinator of this process.
pub struct ControlPlane<M, N> {
    env: Env,
    me: PeerIdentity,
    guests: Arc<Guests>,
    membership: Arc<M>,
    node: Arc<N>,
    newest: Arc<Newest>,
    stopped: watch::Receiver<bool>,
}

/// The newest state, encoded: once, however many nodes are told.
#[derive(Default)]
struct Newest(Mutex<Option<p::ControlState>>);

/// A state that is being sent, and the reason for the end.
const ANSWERS: usize = 2;

/// The service that answers for a coordinator, for `guests`; `node` is asked for what only the leader of the control group knows. Streams of
/// nodes end when `stopped` says so.
pub fn control_service<M: Membership, N: NodeClient>(
    env: Env,
    guests: Arc<Guests>,
    membership: Arc<M>,
    node: Arc<N>,
    stopped: watch::Receiver<bool>,
) -> ControlServiceServer<ControlPlane<M, N>> {
    let plane = ControlPlane { env, me: *guests.me(), guests, membership, node, newest: Arc::default(), stopped };
    ControlServiceServer::new(plane).max_decoding_message_size(MAX_REPORT_BYTES)
}

#[tonic::async_trait]
impl<M: Membership, N: NodeClient> ControlService for ControlPlane<M, N> {
    type AttendStream = ReceiverStream<Result<p::ControlState, Status>>;

    async fn join(&self, request: Request<p::JoinRequest>) -> Result<Response<p::JoinResponse>, Status> {
        let joined = self.membership.join(Join::from_proto(request.into_inner())?).await?;
        Ok(Response::new(joined.into_proto()))
    }

    async fn attend(&self, request: Request<Streaming<p::NodeReport>>) -> Result<Response<Self::AttendStream>, Status> {
        let hello = sender(request.metadata(), &self.me)?;
        let mut guest = self.guests.enter(&hello, Topic::Reports).inspect_err(|failure| {
            tracing::warn!(why = failure.message, "refused a node that wants to be heard");
        })?;
        let node = guest.node();
        let (answers, stream) = mpsc::channel(ANSWERS);
        let (membership, newest, stopped) = (self.membership.clone(), self.newest.clone(), self.stopped.clone());
        let me = self.me.node;
        self.env.spawn(async move {
            let stopping = || Failure::new(ErrorKind::Unavailable, format!("{me} is shutting down"));
            let end = tokio::select! {
                end = listen(&*membership, node, request.into_inner()) => end,
                told = tell(membership.states(), &newest, &answers) => told.then(stopping),
                () = until_told(stopped) => Some(stopping()),
                () = guest.replaced() => Some(guest.farewell()),
            };
            if let Some(failure) = end {
                tracing::debug!(%node, why = failure.message, "a node is no longer heard");
                // Whoever went away need not be told, and whoever reads nothing cannot be.
                let _ = answers.try_send(Err(failure.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn propose(&self, request: Request<p::ProposeRequest>) -> Result<Response<p::ProposeResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let command = command_from(message).map_err(Failure::from)?;
        Ok(Response::new(propose_answer(self.node.propose(self.me.node.0, command, deadline).await)))
    }

    async fn read_index(
        &self,
        request: Request<p::ReadIndexRequest>,
    ) -> Result<Response<p::ReadIndexResponse>, Status> {
        let (_, deadline) = admit(request, &self.guests, &self.env)?;
        Ok(Response::new(read_index_answer(self.node.read_index(self.me.node.0, deadline).await)))
    }
}

/// Hears a node out. The error is why it is not heard any longer, if it may be told.
async fn listen(membership: &impl Membership, node: NodeId, mut reports: Streaming<p::NodeReport>) -> Option<Failure> {
    // What ends the stream besides is known to the node, or it is gone.
    while let Ok(Some(report)) = reports.message().await {
        match Report::from_proto(report) {
            Ok(report) => membership.reported(node, report),
            Err(violation) => {
                tracing::warn!(%node, %violation, "a node reported nonsense");
                return Some(violation.into());
            }
        }
    }
    None
}

/// Tells a node every state that it has time for. Ends when nobody listens, or true when there are no more states.
async fn tell(
    mut states: watch::Receiver<Option<Seen>>,
    newest: &Newest,
    answers: &mpsc::Sender<Result<p::ControlState, Status>>,
) -> bool {
    let mut told = None;
    loop {
        let Ok(room) = answers.reserve().await else { return false };
        let seen = states.borrow_and_update().clone();
        if let Some(seen) = seen.filter(|seen| told.is_none_or(|told| seen.index > told)) {
            told = Some(seen.index);
            room.send(Ok(newest.encoded(&seen)));
        }
        if states.changed().await.is_err() {
            return true;
        }
    }
}

impl Newest {
    fn encoded(&self, seen: &Seen) -> p::ControlState {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some(message) if message.applied_index == seen.index => message.clone(),
            _ => newest.insert(state_message(seen.index, &seen.state)).clone(),
        }
    }
}
