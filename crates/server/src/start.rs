//! From settings to a serving process, and back to rest.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{Command, NodeStatus, Place, Report, Roles};
use sagitta_consensus::{
    ClusterId, ConsensusError, Host, HostSettings, LogError, NodeId, RaftEngineLog, RaftEngineSettings,
    SilentTransport, States,
};
use sagitta_coordinator::{Control, ControlError, Coordinator, Reports};
use sagitta_env::{Deadline, Env, JoinHandle};
use sagitta_node::{ByteSize, Node, NodeError, NodeOptions};
use sagitta_shard::{Engines, ShardOptions};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::agent::{Agent, Placed, Seen};
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::own_node::OwnNode;
use crate::serve::{Health, serve};

/// How long calls that run may go on after the process was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A serving process.
pub struct Server {
    env: Env,
    address: SocketAddr,
    data: DataDir,
    host: Host,
    node: Arc<Node>,
    coordinator: Arc<Coordinator<OwnNode>>,
    tasks: Vec<JoinHandle<()>>,
    health: Health,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Why a process could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anonymous access is for this machine only.
    #[error(
        "{address} is not a loopback address, and without authentication the API listens on those only: use 127.0.0.1 or [::1] with --listen"
    )]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address is taken or cannot be had.
    #[error("cannot listen on {address} ({source}): stop what uses it, or choose another with --listen")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The Raft log cannot be opened.
    #[error("the Raft log: {0}")]
    Log(#[from] LogError),
    /// Consensus could not start.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The control group could not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The node could not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A shard could not be opened.
    #[error(transparent)]
    Shards(#[from] sagitta_coordinator::Error),
    /// Signals could not be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The server ended with an error.
    #[error("serving failed: {0}")]
    Serving(#[from] tonic::transport::Error),
}

impl Server {
    /// Takes the data folder and the address, opens everything, serves. Ready when it returns.
    pub async fn start(config: Config, engines: Engines, env: Env) -> Result<Self, StartError> {
        if !config.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback { address: config.listen });
        }
        let data = DataDir::open(&config.data, &env)?;
        let taken = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;

        let node_id = raft_id(data.node_id());
        let host = start_consensus(&data, node_id, &env)?;
        let handle = host.handle();
        let options = NodeOptions {
            dir: data.shards(),
            node: node_id,
            search_threads: config.search_threads,
            build_threads: config.build_threads,
            memory: config.memory,
            release_memory: config.release_memory,
            shard: ShardOptions::default(),
            states: States::default(),
        };
        let node = Arc::new(Node::start(env.clone(), options, engines, handle.clone())?);
        let control =
            Control::open(&env, &data.control(), data.cluster_id(), vec![node_id], &handle, States::default()).await?;
        let placed = Placed::default();
        let own = Arc::new(OwnNode::new(node.clone(), placed.clone(), Some(control.clone())));
        let reports = Arc::new(Reports::new(env.clone()));
        let coordinator = Coordinator::new(env.clone(), node_id.0, control.clone(), own, reports.clone());
        let coordinator = Arc::new(coordinator);
        take_part(&coordinator, &data, address, env.deadline(GRACE)).await?;
        let agent = Agent::new(env.clone(), node_id.0, node.clone(), placed);
        agent.follow(&seen(&control)).await?;
        let tasks = vec![
            env.spawn(tell(agent.reports(), reports, node_id.0)),
            env.spawn(agent.run(states_of(&env, control))),
            env.spawn({
                let coordinator = coordinator.clone();
                async move { coordinator.keep().await }
            }),
        ];

        let (stop, stopped) = oneshot::channel();
        let (health, service) = serve(coordinator.clone(), env.clone(), listener, async {
            let _ = stopped.await;
        });
        let serving = env.spawn(service);
        health.serving().await;
        let memory = ByteSize(config.memory.bytes());
        tracing::info!(%address, data = %data.path().display(), %memory, "serving");
        Ok(Self { env, address, data, host, node, coordinator, tasks, health, stop, serving })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Takes no more calls, finishes those that run, makes everything durable, closes the files.
    pub async fn stop(self) -> Result<(), StartError> {
        tracing::info!("stopping");
        self.health.stopping().await;
        let _ = self.stop.send(());
        let served = match self.env.timeout(GRACE, self.serving).await {
            Ok(served) => served.unwrap_or(Ok(())),
            Err(_) => {
                tracing::warn!("some calls did not end in time and were cut off");
                Ok(())
            }
        };
        for task in self.tasks {
            task.abort();
            // Ended, so that nothing is hosted any more from here on.
            let _ = task.await;
        }
        self.node.close().await;
        let deadline = self.env.deadline(GRACE);
        if let Err(error) = self.coordinator.control().close(deadline).await {
            tracing::warn!(%error, "the control state was not saved; its log is kept and replayed");
        }
        self.host.shutdown(deadline.at()).await?;
        tracing::info!("stopped");
        Ok(served?)
    }
}

/// Registers the only node of a cluster with itself, and waits until the cluster has it.
async fn take_part(
    coordinator: &Coordinator<OwnNode>,
    data: &DataDir,
    address: SocketAddr,
    deadline: Deadline,
) -> Result<(), StartError> {
    let id = raft_id(data.node_id()).0;
    coordinator.catch_up(deadline).await?;
    let place = Place {
        peer_address: String::new(),
        api_address: format!("http://{address}"),
        zone: String::new(),
        roles: Roles { coordinator: true, shard: true },
    };
    let known = coordinator.control().state().nodes().get(&id).cloned();
    if known.as_ref().is_none_or(|node| node.place != place) {
        let unix_micros = coordinator.env().unix_micros();
        let join = Command::Join { id, incarnation: data.node_id(), place, unix_micros };
        coordinator.decide(join, deadline).await?;
    }
    if known.is_none_or(|node| node.status != NodeStatus::Up) {
        coordinator.decide(Command::SetNodeStatus { id, status: NodeStatus::Up }, deadline).await?;
    }
    Ok(())
}

/// Brings the reports of the own node to the own coordinator.
async fn tell(mut told: watch::Receiver<Report>, reports: Arc<Reports>, me: u64) {
    loop {
        let report = told.borrow_and_update().clone();
        reports.heard(me, report);
        if told.changed().await.is_err() {
            return;
        }
    }
}

fn seen(control: &Control) -> Seen {
    // The index first: a state that is later than its index is looked at once more, the other way around it would be missed.
    let index = *control.applied().borrow();
    Seen { index, state: control.state() }
}

/// The states of a control group that this process is a member of.
fn states_of(env: &Env, control: Control) -> watch::Receiver<Option<Seen>> {
    let (states, receiver) = watch::channel(Some(seen(&control)));
    env.spawn(async move {
        let mut applied = control.applied();
        while applied.changed().await.is_ok() {
            states.send_replace(Some(seen(&control)));
        }
    });
    receiver
}

fn start_consensus(data: &DataDir, node: NodeId, env: &Env) -> Result<Host, StartError> {
    let log = RaftEngineLog::open(&data.log(), log_settings(sagitta_node::volume_bytes(data.path())))?;
    let settings = HostSettings::new(ClusterId(data.cluster_id()), node);
    Ok(Host::start(env, settings, Arc::new(log), Arc::new(SilentTransport))?)
}

/// A log whose files suit the volume that they are on: on a small one, what is no longer needed must go soon.
fn log_settings(volume_bytes: Option<u64>) -> RaftEngineSettings {
    const MIN_FILE_BYTES: u64 = 1 << 20;
    let usual = RaftEngineSettings::default();
    let purge_bytes = volume_bytes.map_or(usual.purge_bytes, |bytes| usual.purge_bytes.min(bytes / 16));
    RaftEngineSettings { purge_bytes, file_bytes: usual.file_bytes.min(purge_bytes / 4).max(MIN_FILE_BYTES) }
}

/// Raft names members by 64 bits above zero: the upper half of the node's UUID, which carries 60 random bits.
fn raft_id(uuid: u128) -> NodeId {
    NodeId(((uuid >> 64) as u64).max(1))
}

/// Waits until the process is interrupted or terminated. From this call on, not only from when it is awaited, such a
/// signal is kept for whoever awaits it, and ends the process no longer by itself.
pub fn stop_signal() -> Result<impl Future<Output = ()>, StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(StartError::Signals);
    let (mut interrupted, mut terminated) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_small_volume_is_cut_early_and_of_a_large_one_as_usual() {
        let usual = RaftEngineSettings::default();
        let settings = |volume| {
            let RaftEngineSettings { purge_bytes, file_bytes } = log_settings(volume);
            (purge_bytes, file_bytes)
        };
        assert_eq!(settings(None), (usual.purge_bytes, usual.file_bytes));
        assert_eq!(settings(Some(1 << 40)), (usual.purge_bytes, usual.file_bytes));
        assert_eq!(settings(Some(1 << 30)), (64 << 20, 16 << 20));
        assert_eq!(settings(Some(64 << 20)), (4 << 20, 1 << 20));
    }
}
