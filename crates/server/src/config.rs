//! What a process is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sagitta_cluster::{Limits, Roles};
use sagitta_node::{ByteSize, MemoryBudget};
use sagitta_tls::ServerTls;

/// Where other nodes are listened for unless told otherwise.
pub const DEFAULT_PEER_LISTEN: &str = "127.0.0.1:6381";

/// How much of replicas and index files a node sends to others in a second unless told otherwise: most of what a gigabit carries, and little for a
/// disk on which searches wait.
const DEFAULT_COPY_RATE: ByteSize = ByteSize(100 << 20);
/// At less, the files that may be sent at once would each take so long for a chunk that they would be taken for stuck.
pub const MIN_COPY_RATE: ByteSize = ByteSize(1 << 20);
/// Of less the halves would be as small as what a shard costs a node beside its points: a group, a database, their files and buffers.
pub const MIN_SPLIT_ABOVE: ByteSize = ByteSize(128 << 20);

/// Where the API listens unless told otherwise, with [`sagitta_wire::DEFAULT_PORT`].
pub const DEFAULT_LISTEN: &str = "127.0.0.1:6380";

/// Settings of a server process. Everything not here has one value that suits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds everything.
    pub data: PathBuf,
    /// Where the API listens. Without authentication only loopback addresses are accepted.
    pub listen: SocketAddr,
    /// How the API's connections are encrypted; not at all if `None`.
    pub tls: Option<ServerTls>,
    /// How it takes part in a cluster of several processes; alone if `None`.
    pub cluster: Option<ClusterConfig>,
    /// Threads that search; by default one per core.
    pub search_threads: usize,
    /// Threads that one index build uses; by default one per core.
    pub build_threads: usize,
    /// What the process may use of memory that cannot be taken back from it; by default half of the machine's. Whoever
    /// makes the engines gives them their [share](MemoryBudget::shares).
    pub memory: MemoryBudget,
    /// After how long without a word from a node its replicas are made anew on others, as whichever coordinator leads goes by.
    pub repair_after: Duration,
    /// A shard whose points take more is split in two, and merged again where little is left of it, as whichever coordinator leads goes by;
    /// if `None` the cluster splits and merges none by itself.
    pub split_above: Option<ByteSize>,
    /// How much of replicas and index files this node sends to others in a second: they must not take the disk and the network from searches.
    pub copy_rate: ByteSize,
    /// Gives memory that the process holds without using it back to the system: its allocator's business, so known to
    /// whoever builds the process. Does nothing by default.
    pub release_memory: fn(),
}

/// How a process takes part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where other nodes are listened for. Only loopback addresses are accepted.
    pub peer_listen: SocketAddr,
    /// How connections between nodes are encrypted; not at all if `None`. All nodes of a cluster have to agree.
    pub peer_tls: Option<PeerTls>,
    /// What the process does.
    pub roles: Roles,
    /// What fails together with it; its replicas are kept apart from those of other zones.
    pub zone: String,
    /// Peer addresses of coordinators, to be let in by; the first process of a cluster has none.
    pub join: Vec<String>,
    /// The secret that lets it in.
    pub join_token: Option<String>,
}

/// How nodes show each other who they are: all of them have a certificate that the same authority has signed, for the address at which
/// the others reach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The certificate of this node, good for a server and for a client, in PEM.
    pub cert: PathBuf,
    /// The secret key of it, in PEM.
    pub key: PathBuf,
    /// The authorities that sign the certificates of nodes, and of nobody else, in PEM.
    pub ca: PathBuf,
}

impl Config {
    /// The embedded default: everything from the machine.
    pub fn new(data: PathBuf, listen: SocketAddr) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = MemoryBudget::of_machine();
        Self {
            data,
            listen,
            tls: None,
            cluster: None,
            search_threads: cores,
            build_threads: cores,
            memory,
            repair_after: Limits::default().repair_after,
            split_above: Limits::default().split_above.map(ByteSize),
            copy_rate: DEFAULT_COPY_RATE,
            release_memory: || {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_listens_where_clients_look_for_it() {
        let listen: SocketAddr = DEFAULT_LISTEN.parse().expect("an address");
        assert_eq!(listen.port(), sagitta_wire::DEFAULT_PORT);
    }
}
