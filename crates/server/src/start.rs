//! From settings to a serving process, and back to rest.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{Place, Roles};
use sagitta_consensus::{
    ClusterId, ConsensusError, GroupId, Host, LogError, LogStore, NodeId, RaftEngineLog, RaftEngineSettings,
};
use sagitta_coordinator::{Control, ControlError};
use sagitta_env::{Env, JoinHandle};
use sagitta_node::{ByteSize, Node, NodeError};
use sagitta_shard::Engines;
use sagitta_tls::Acceptor;
use sagitta_wire::peer::Run;
use tokio::sync::{oneshot, watch};

use crate::config::{ClusterConfig, Config};
use crate::data_dir::{DataDir, DataDirError};
use crate::encryption::Encryption;
use crate::entrance::{Entered, Entrance};
use crate::net::{Door, Net};
use crate::peers::PeerIdentity;
use crate::renewal;
use crate::roles::{Network, Parts, Started};
use crate::serve::{Health, serve};

/// How long calls that run may go on after the process was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// What a process runs on.
#[derive(Clone)]
pub struct Platform {
    /// What shards store and index with.
    pub engines: Engines,
    /// Opens the Raft log.
    pub open_log: OpenLog,
    /// How it reaches others and is reached.
    pub net: Net,
}

/// Opens the log of a folder, which is made if there is none.
pub type OpenLog = Arc<dyn Fn(&Path, RaftEngineSettings) -> Result<Arc<dyn LogStore>, LogError> + Send + Sync>;

impl Platform {
    /// The disk and the network of the system.
    pub fn system(engines: Engines) -> Self {
        let open_log: OpenLog = Arc::new(|dir, settings| Ok(Arc::new(RaftEngineLog::open(dir, settings)?)));
        Self { engines, open_log, net: Net::system() }
    }
}

/// A serving process.
pub struct Server {
    env: Env,
    at: Addresses,
    data: DataDir,
    host: Host,
    node: Arc<Node>,
    control: Option<Control>,
    tasks: Vec<JoinHandle<()>>,
    network: Option<Network>,
    superseded: watch::Receiver<Option<String>>,
    health: Health,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Where a process is found.
struct Addresses {
    api: SocketAddr,
    url: String,
    peers: Option<SocketAddr>,
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
    /// A certificate or a key cannot be used.
    #[error("--{flag}: {why}")]
    Tls {
        /// Which one.
        flag: String,
        /// What is wrong with it, with the file's name.
        why: String,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The Raft log cannot be opened.
    #[error("the Raft log: {0}")]
    Log(#[from] LogError),
    /// The Raft log is gone, or another one is in its place.
    #[error(
        "{} holds nothing of {}, of which the data folder {} says that it is a member: with a new log it could vote twice, and would lack what was \
         acknowledged; put the log back if it was moved, else remove the data folder and start it as a new node with --join and --join-token",
        log.display(), groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), data.display()
    )]
    LogGone {
        /// Where the log was looked for.
        log: PathBuf,
        /// The groups that it has to have.
        groups: Vec<GroupId>,
        /// The data folder.
        data: PathBuf,
    },
    /// Consensus could not start.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The control group could not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The node could not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The process could not take its place in the cluster.
    #[error(transparent)]
    Coordinator(#[from] sagitta_coordinator::Error),
    /// An address to be let in by is none.
    #[error("--join {address}: {why}, expected an address such as http://10.0.0.7:6381")]
    JoinAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cluster does not let the process in.
    #[error("the cluster does not let this node in: {0}")]
    NotLetIn(String),
    /// The control group has gone on without this coordinator.
    #[error("{0}")]
    Superseded(String),
    /// Signals could not be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The server ended with an error.
    #[error("serving failed: {0}")]
    Serving(#[from] tonic::transport::Error),
}

impl Server {
    /// Takes the data folder and the addresses, opens everything, serves. Ready when it returns, which for a node that belongs to
    /// no cluster yet is when it has founded one or was let in.
    pub async fn start(config: Config, platform: Platform, env: Env) -> Result<Self, StartError> {
        let Platform { engines, open_log, net } = platform;
        let Encryption { api: tls, peers: peer_tls } = Encryption::of(&config, &env).await?;
        let net = net.with_tls(peer_tls.as_ref().map(|tls| tls.connector.clone()));
        let mut data = DataDir::open(&config.data, &env)?;
        let listener = listen(&net, config.listen).await?.with_tls(tls.clone());
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        let (mut peers, mut entered, mut listener) = (None, Entered::default(), Some(listener));
        // Nobody meets a process that is its own cluster, so that its starts are not counted.
        let mut run = Run { number: 0, id: env.uuid(), address };
        let place = match &config.cluster {
            Some(cluster) => {
                let peer_listener = listen(&net, cluster.peer_listen).await?;
                let peer_listener = peer_listener.with_tls(peer_tls.as_ref().map(|tls| tls.acceptor.clone()));
                let place = place(cluster, &api(address, tls.as_ref()), &peer_listener)?;
                run = Run { number: data.count_start()?, address: peer_address(cluster, &peer_listener)?, ..run };
                peers = Some(peer_listener);
                let entrance = Entrance { env: &env, net: &net, cluster, place: place.clone(), run };
                let free = listener.take().expect("invariant: it was bound a moment ago");
                (entered, listener) = entrance.enter(&mut data, free).await?;
                place
            }
            None => {
                if data.cluster_id().is_none() {
                    data.enter(env.uuid(), true)?;
                }
                alone(&api(address, tls.as_ref()))
            }
        };
        let cluster = data.cluster_id().expect("invariant: the folder has entered a cluster");
        let (node, incarnation) = (raft_id(data.node_id()), data.node_id());
        let me = PeerIdentity { cluster: ClusterId(cluster), node, incarnation, run };
        let join_token = entered.asked.as_ref().map(|asked| asked.digest);
        let parts = Parts {
            env: &env,
            net: &net,
            config: &config,
            data: &data,
            me,
            place,
            peers,
            known: entered.known,
            join_token,
        };
        let started = parts.start(engines, &open_log).await?;
        if let Some(asked) = entered.asked {
            asked.answer().await;
        }
        let listener = match listener {
            Some(listener) => listener,
            None => listen(&net, address).await?.with_tls(tls.clone()),
        };
        let Started { host, node, coordinator, control, mut tasks, network, superseded } = started;
        tasks.extend(renewal::keep_all(&env, tls.clone(), peer_tls));
        let at =
            Addresses { api: address, url: api(address, tls.as_ref()), peers: network.as_ref().map(Network::address) };
        let (stop, stopped) = oneshot::channel();
        let (health, service) = serve(coordinator, env.clone(), listener, async {
            let _ = stopped.await;
        });
        let serving = env.spawn(service);
        health.serving().await;
        let memory = ByteSize(config.memory.bytes());
        tracing::info!(api = at.url, peers = ?at.peers, node = %me.node, data = %data.path().display(), %memory, "serving");
        Ok(Self { env, at, data, host, node, control, tasks, network, superseded, health, stop, serving })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.at.api
    }

    /// The same as a URL, which says whether connections are encrypted.
    pub fn url(&self) -> &str {
        &self.at.url
    }

    /// Where other nodes are listened for, if any are.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.at.peers
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Waits until the process has to end by itself: it learns that the cluster's control group has gone on without it, for ever. Says why, and is
    /// to be stopped then.
    pub async fn superseded(&self) -> StartError {
        let mut ends = self.superseded.clone();
        let why = ends.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => StartError::Superseded(why),
            // Who would say so has ended, as this process has or is about to.
            None => std::future::pending().await,
        }
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
        if let Some(control) = &self.control
            && let Err(error) = control.close(deadline).await
        {
            tracing::warn!(%error, "the control state was not saved; its log is kept and replayed");
        }
        // Last, so that the other members learn what this one still had to say.
        if let Some(network) = self.network {
            network.stop().await;
        }
        self.host.shutdown(deadline.at()).await?;
        tracing::info!("stopped");
        Ok(served?)
    }
}

/// Anonymous access and unencrypted traffic are for this machine only.
async fn listen(net: &Net, address: SocketAddr) -> Result<Door, StartError> {
    if !net.may_listen(address) {
        return Err(StartError::NotLoopback { address });
    }
    net.listen(address).await.map_err(|source| StartError::Listen { address, source })
}

/// The API as others are told of it.
fn api(address: SocketAddr, tls: Option<&Acceptor>) -> String {
    let scheme = if tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// The place of a process that is its own cluster.
fn alone(api: &str) -> Place {
    let roles = Roles { coordinator: true, shard: true };
    Place { peer_address: String::new(), api_address: api.to_owned(), zone: String::new(), roles }
}

fn place(cluster: &ClusterConfig, api: &str, peers: &Door) -> Result<Place, StartError> {
    let peers = peer_address(cluster, peers)?;
    let (peer_address, api_address) = (format!("http://{peers}"), api.to_owned());
    Ok(Place { peer_address, api_address, zone: cluster.zone.clone(), roles: cluster.roles })
}

/// Where other nodes are listened for.
fn peer_address(cluster: &ClusterConfig, peers: &Door) -> Result<SocketAddr, StartError> {
    let address = cluster.peer_listen;
    peers.local_addr().map_err(|source| StartError::Listen { address, source })
}

/// A log whose files suit the volume that they are on: on a small one, what is no longer needed must go soon.
pub(crate) fn log_settings(volume_bytes: Option<u64>) -> RaftEngineSettings {
    const MIN_FILE_BYTES: u64 = 1 << 20;
    let usual = RaftEngineSettings::default();
    let purge_bytes = volume_bytes.map_or(usual.purge_bytes, |bytes| usual.purge_bytes.min(bytes / 16));
    RaftEngineSettings { purge_bytes, file_bytes: usual.file_bytes.min(purge_bytes / 4).max(MIN_FILE_BYTES) }
}

/// Raft names members by 64 bits above zero: the upper half of the node's UUID, which carries 60 random bits.
pub(crate) fn raft_id(uuid: u128) -> NodeId {
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
