//! Keeps a node in touch with the coordinators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::Report;
use sagitta_consensus::{ClusterId, NodeId};
use sagitta_env::{Env, JoinHandle};
use sagitta_wire::Convert as _;
use sagitta_wire::control::{MAX_STATE_BYTES, state_from};
use sagitta_wire::internal as p;
use sagitta_wire::internal::control_service_client::ControlServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Uri;
use tonic::{Request, Streaming};

use crate::Seen;
use crate::peers::{AddressBook, Broken, Cause, Pace, PeerIdentity, Timing, endpoint, until_told};

/// How often a node reports at the least.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The state, and the few bytes around it.
const MAX_MESSAGE_BYTES: usize = MAX_STATE_BYTES + (64 << 10);

/// Tells every coordinator how this node is, and learns what the cluster is, until it is stopped or dropped.
pub struct Attendant {
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
}

/// What the streams to all coordinators have in common.
#[derive(Clone)]
struct Attendance {
    env: Env,
    coordinators: AddressBook,
    me: PeerIdentity,
    timing: Timing,
    reports: watch::Receiver<Report>,
    states: Arc<watch::Sender<Option<Seen>>>,
}

/// The stream to one coordinator.
struct Session {
    reports: mpsc::Sender<p::NodeReport>,
    states: Streaming<p::ControlState>,
}

impl Attendant {
    /// Attends the coordinators of an address book, but for this node itself: sends them the newest report, and publishes the
    /// newest state that any of them sends. A published state is never replaced by an older one. To be called within
    /// a tokio runtime.
    pub fn start(
        env: &Env,
        me: PeerIdentity,
        coordinators: AddressBook,
        reports: watch::Receiver<Report>,
        states: Arc<watch::Sender<Option<Seen>>>,
    ) -> Self {
        Self::start_in(env, me, coordinators, reports, states, Timing::default())
    }

    pub(super) fn start_in(
        env: &Env,
        me: PeerIdentity,
        coordinators: AddressBook,
        reports: watch::Receiver<Report>,
        states: Arc<watch::Sender<Option<Seen>>>,
        timing: Timing,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let attendance = Attendance { env: env.clone(), coordinators, me, timing, reports, states };
        Self { stop, supervisor: env.spawn(attendance.supervise(stopped)) }
    }

    /// Ends the streams.
    pub async fn stop(self) {
        // Nobody listening means that they have ended.
        let _ = self.stop.send(true);
        let _ = self.supervisor.await;
    }
}

impl Attendance {
    /// Keeps one task for each coordinator and its present address.
    async fn supervise(self, stopped: watch::Receiver<bool>) {
        let mut book = self.coordinators.watch();
        let mut tasks: BTreeMap<NodeId, (Uri, JoinHandle<()>)> = BTreeMap::new();
        loop {
            let entries = book.borrow_and_update().clone();
            for (node, (address, task)) in &tasks {
                if entries.get(node) != Some(address) {
                    task.abort();
                }
            }
            tasks.retain(|node, (address, _)| entries.get(node) == Some(address));
            for (node, address) in entries {
                if node != self.me.node && !tasks.contains_key(&node) {
                    let task = self.env.spawn(self.clone().attend(node, address.clone()));
                    tasks.insert(node, (address, task));
                }
            }
            tokio::select! {
                // The book, which holds the other end, is held here.
                _ = book.changed() => {}
                () = until_told(stopped.clone()) => break,
            }
        }
        for (_, task) in tasks.into_values() {
            task.abort();
            // Aborted, or one that panicked and has told so.
            let _ = task.await;
        }
    }

    /// Attends one coordinator, again and again.
    async fn attend(self, node: NodeId, address: Uri) {
        let mut pace = Pace::default();
        loop {
            let mut let_in = None;
            let Broken { cause, what } = match self.enter(node, &address).await {
                Ok(session) => {
                    let_in = Some(self.env.now());
                    if pace.has_complained() {
                        tracing::info!(coordinator = %node, %address, "a coordinator can be reached again");
                    }
                    self.stay(session).await
                }
                Err(broken) => broken,
            };
            let lasted = let_in.map_or(Duration::ZERO, |since| self.env.now().saturating_sub(since));
            let (wait, say) = pace.after(cause, lasted, &self.timing, &self.env);
            match cause {
                _ if !say => {
                    tracing::debug!(coordinator = %node, %address, what, ?wait, "a coordinator still cannot be reached");
                }
                Cause::Broken => {
                    tracing::warn!(coordinator = %node, %address, what, "a coordinator cannot be reached; trying on");
                }
                Cause::Refused => {
                    tracing::error!(coordinator = %node, %address, what, "a coordinator refuses this node; trying on");
                }
            }
            self.env.sleep(wait).await;
        }
    }

    async fn enter(&self, node: NodeId, address: &Uri) -> Result<Session, Broken> {
        let entered = async {
            let channel = self.coordinators.connect(endpoint(address, &self.timing)).await?;
            let mut service = ControlServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            let (reports, outgoing) = mpsc::channel(1);
            let mut request = Request::new(ReceiverStream::new(outgoing));
            self.me.hello_to(node).write_to(request.metadata_mut());
            let states = service.attend(request).await?.into_inner();
            Ok(Session { reports, states })
        };
        let late = |_| Err(Broken::new("it did not let us in in time"));
        self.env.timeout(self.timing.handshake, Box::pin(entered)).await.unwrap_or_else(late)
    }

    /// Reports and listens until the stream breaks.
    async fn stay(&self, Session { reports, mut states }: Session) -> Broken {
        let report = self.report(reports);
        tokio::pin!(report);
        let mut reporting = true;
        loop {
            tokio::select! {
                // The stream takes no more. The other direction says why.
                () = &mut report, if reporting => reporting = false,
                state = states.message() => match state {
                    Ok(Some(state)) => {
                        if let Err(broken) = self.learn(&state) {
                            return broken;
                        }
                    }
                    Ok(None) => return Broken::new("it ended the stream"),
                    Err(status) => return status.into(),
                },
            }
        }
    }

    /// Sends the newest report whenever there is room for one and it has changed, or a second has passed.
    async fn report(&self, reports: mpsc::Sender<p::NodeReport>) {
        let mut newest = self.reports.clone();
        while let Ok(room) = reports.reserve().await {
            room.send(newest.borrow_and_update().clone().into_proto());
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = self.env.sleep(REPORT_EVERY) => {}
            }
        }
    }

    /// Publishes a state if it is newer than what is known.
    fn learn(&self, message: &p::ControlState) -> Result<(), Broken> {
        let is_newer = |known: &Option<Seen>| known.as_ref().is_none_or(|known| message.applied_index > known.index);
        // All coordinators send each state; it is read once.
        if !is_newer(&self.states.borrow()) {
            return Ok(());
        }
        let refused = |what| Broken { cause: Cause::Refused, what };
        let (index, state) = state_from(message).map_err(|violation| refused(violation.to_string()))?;
        if state.cluster_id() != self.me.cluster.0 {
            let (theirs, ours) = (ClusterId(state.cluster_id()), self.me.cluster);
            return Err(refused(format!("it tells of {theirs}, this node belongs to {ours}")));
        }
        let state = Arc::new(state);
        self.states.send_if_modified(|known| {
            let newer = is_newer(known);
            if newer {
                *known = Some(Seen { index, state });
            }
            newer
        });
        Ok(())
    }
}
