//! The server's `main`: reads arguments, picks the engines, runs until it is told to stop.
//!
//! May not know: anything that a library crate could do for it.

mod inspect;
mod recover;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sagitta_console::duration;
use sagitta_engine_faiss::{FaissEngine, release_free_memory};
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_server::{
    ByteSize, ClusterConfig, Config, DEFAULT_LISTEN, DEFAULT_PEER_LISTEN, Engines, MIN_COPY_RATE, MIN_SPLIT_ABOVE,
    MemoryBudget, PeerTls, Platform, Roles, Server, ServerTls, stop_signal, telemetry,
};

/// Sagitta: a vector search server that loses nothing and answers with the recall that was asked for.
#[derive(Parser)]
#[command(name = "sagittad", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  sagittad dev                  serves on 127.0.0.1:6380, keeps its data in ./sagitta-data
  sagittad serve --help         a node of a cluster of several
  sagittad inspect --help       what is in the data folder of a stopped node
  sagittad recover-control-group --help    when most coordinators are lost

The command line client is `sagitta`; try `sagitta --help`.";

const DEV_HELP: &str = "\
Examples:
  sagittad dev
  sagittad dev --data /var/lib/sagitta --listen 127.0.0.1:7000 --memory 4GiB
  sagittad dev --listen 127.0.0.1:0 --log warn --log-json
  deploy/certificates.sh certs server localhost 127.0.0.1      # an authority, and a certificate for the API
  sagittad dev --tls-cert certs/server.crt --tls-key certs/server.key

It says on standard output when it is ready and where; its log goes to standard error. Stop it with Ctrl-C or `kill`: \
it finishes what it is doing and closes its files. The exit code is 0 then, and 1 if it could not start.";

const SERVE_HELP: &str = "\
A cluster of three on one machine:
  sagittad serve --data ./a --listen 127.0.0.1:6380 --peer-listen 127.0.0.1:6381
  sagitta cluster init                      # founds the cluster, prints the join token
  sagittad serve --data ./b --listen 127.0.0.1:6390 --peer-listen 127.0.0.1:6391 \\
      --join http://127.0.0.1:6381 --join-token TOKEN
  sagittad serve --data ./c --listen 127.0.0.1:6400 --peer-listen 127.0.0.1:6401 \\
      --join http://127.0.0.1:6381 --join-token TOKEN

The first process waits for `sagitta cluster init`, the others ask until they are let in. Once a folder belongs to a cluster it \
does so for ever: later starts need no --join. A node with an empty folder is a new node. With --peer-tls-cert, \
--peer-tls-key and --peer-tls-ca nodes show each other certificates and talk encrypted, all of them or none; SECURITY.md says how. Addresses \
other than this machine's are refused for now.";

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process, on this machine only, without configuration
    ///
    /// Data is kept in one folder and survives crashes and restarts. The API listens on a loopback address without authentication, unless
    /// --tls-client-ca is given: whoever can open a connection on this machine can read and write.
    #[command(after_help = DEV_HELP)]
    Dev {
        #[command(flatten)]
        common: Common,
    },
    /// Run a node of a cluster
    ///
    /// A coordinator votes on what the cluster is and routes requests; a shard node holds replicas and searches them. A process may be
    /// both. A cluster has 1, 3 or 5 coordinators that vote, and as many shard nodes as it needs.
    #[command(after_help = SERVE_HELP)]
    Serve {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        member: Box<Member>,
    },
    /// Look at the data folder of a process that has stopped, without changing it
    ///
    /// Shows which node it is, the cluster as it knew it, its replicas with their segments, its Raft log, what is damaged, and what helps.
    #[command(after_help = inspect::HELP)]
    Inspect(inspect::Inspect),
    /// Go on with one coordinator, when most of them are lost for ever
    ///
    /// Works on the data folder of a coordinator that is left, while no coordinator runs.
    #[command(after_help = recover::HELP)]
    RecoverControlGroup(recover::RecoverControlGroup),
}

/// What a node of a cluster is told.
#[derive(clap::Args)]
struct Member {
    /// Address and port where other nodes reach this one; loopback only. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "SAGITTA_PEER_LISTEN", default_value = DEFAULT_PEER_LISTEN)]
    #[arg(value_parser = address)]
    peer_listen: SocketAddr,
    #[command(flatten)]
    peer_tls: PeerTlsArgs,
    /// What the process does: coordinator, shard, or both
    #[arg(long, value_name = "ROLE,...", env = "SAGITTA_ROLES", default_value = "coordinator,shard")]
    #[arg(value_parser = roles)]
    roles: Roles,
    /// What fails together with it, such as a rack: replicas are spread over zones
    #[arg(long, value_name = "NAME", env = "SAGITTA_ZONE", default_value = "")]
    zone: String,
    /// Peer addresses of coordinators to be let in by, such as http://10.0.0.7:6381
    #[arg(long, value_name = "URL,...", env = "SAGITTA_JOIN", value_delimiter = ',', requires = "join_token")]
    join: Vec<String>,
    /// The secret that `sagitta cluster init` printed. Best given by the environment, which other users cannot see
    #[arg(long, value_name = "TOKEN", env = "SAGITTA_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// How long a node may be silent before what it held is made anew on others, such as 10m or 1h; every coordinator should be
    /// told the same. By default ten minutes
    #[arg(long, value_name = "TIME", env = "SAGITTA_REPAIR_AFTER", value_parser = duration)]
    repair_after: Option<Duration>,
    /// A shard whose points take more than this is split in two, such as 8GiB, 128MiB or more, and neighbours that it was split into
    /// are merged again once they take a quarter of it together; `off`: shards are split and merged by hand only. Every coordinator
    /// should be told the same. By default 16GiB
    #[arg(long, value_name = "SIZE", env = "SAGITTA_SPLIT_ABOVE", value_parser = split_above)]
    split_above: Option<SplitAbove>,
    /// How much of replicas and index files this node sends to others in a second, 1MiB or more: searches need the disk and the
    /// network, too. By default 100MiB
    #[arg(long, value_name = "SIZE", env = "SAGITTA_COPY_RATE", value_parser = copy_rate)]
    copy_rate: Option<ByteSize>,
}

/// How nodes show each other who they are.
#[derive(clap::Args)]
struct PeerTlsArgs {
    /// The certificate of this node, in PEM, for the address of --peer-listen and good for a server and a client: with it connections
    /// between nodes are encrypted, and only nodes with one are let in. All nodes of a cluster need one
    #[arg(long, value_name = "FILE", env = "SAGITTA_PEER_TLS_CERT", requires_all = ["peer_tls_key", "peer_tls_ca"])]
    peer_tls_cert: Option<PathBuf>,
    /// The secret key of that certificate, in PEM, not encrypted
    #[arg(long, value_name = "FILE", env = "SAGITTA_PEER_TLS_KEY", requires = "peer_tls_cert")]
    peer_tls_key: Option<PathBuf>,
    /// The authorities that sign the certificates of nodes, and of nobody else, in PEM
    #[arg(long, value_name = "FILE", env = "SAGITTA_PEER_TLS_CA", requires = "peer_tls_cert")]
    peer_tls_ca: Option<PathBuf>,
}

impl PeerTlsArgs {
    /// All or none of them are given.
    fn files(self) -> Option<PeerTls> {
        let Self { peer_tls_cert, peer_tls_key, peer_tls_ca } = self;
        Some(PeerTls { cert: peer_tls_cert?, key: peer_tls_key?, ca: peer_tls_ca? })
    }
}

/// What every server process is told.
#[derive(clap::Args)]
struct Common {
    /// The folder that holds all data; made if there is none
    #[arg(long, value_name = "FOLDER", env = "SAGITTA_DATA_DIR", default_value = "./sagitta-data")]
    data: PathBuf,
    /// Address and port of the API; loopback only. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", env = "SAGITTA_LISTEN", default_value = DEFAULT_LISTEN)]
    #[arg(value_parser = address)]
    listen: SocketAddr,
    /// The certificate of the API, with those that lead to its authority, in PEM: with it connections are encrypted
    #[arg(long, value_name = "FILE", env = "SAGITTA_API_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The secret key of that certificate, in PEM, not encrypted
    #[arg(long, value_name = "FILE", env = "SAGITTA_API_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities, in PEM: callers of the API must show a certificate that one of them has signed
    #[arg(long, value_name = "FILE", env = "SAGITTA_API_TLS_CLIENT_CA", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Threads that search; by default one per core
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    search_threads: Option<usize>,
    /// Memory that the process may use beside the cache of its mapped files, such as 4GiB; by default half of what the
    /// machine or its container has. Near the limit, writes that add data are refused until there is room again
    #[arg(long, env = "SAGITTA_MEMORY", value_name = "SIZE")]
    memory: Option<MemoryBudget>,
    /// How much to log: error, warn, info, debug, or a filter such as `info,sagitta_shard=debug`
    #[arg(long, value_name = "LEVEL", env = "SAGITTA_LOG", default_value = "info")]
    log: String,
    /// Log as JSON lines, for programs
    #[arg(long)]
    log_json: bool,
}

fn main() -> std::process::ExitCode {
    let (common, member) = match Arguments::parse().command {
        Command::Dev { common } => (common, None),
        Command::Serve { common, member } => (common, Some(*member)),
        Command::Inspect(inspect) => return inspect.run(),
        Command::RecoverControlGroup(recover) => return recover.run(),
    };
    let Common { data, listen, tls_cert, tls_key, tls_client_ca, search_threads, memory, log, log_json } = common;
    let mut config = Config::new(data, listen);
    config.tls = tls_cert.zip(tls_key).map(|(cert, key)| ServerTls { cert, key, client_ca: tls_client_ca });
    config.memory = memory.unwrap_or(config.memory);
    // Alone there is no other node for which a split would be worth it.
    let by_default = config.split_above.take();
    if let Some(member) = member {
        let Member { peer_listen, peer_tls, roles, zone, join, join_token, repair_after, split_above, copy_rate } =
            member;
        config.cluster = Some(ClusterConfig { peer_listen, peer_tls: peer_tls.files(), roles, zone, join, join_token });
        config.repair_after = repair_after.unwrap_or(config.repair_after);
        config.split_above = split_above.unwrap_or(by_default);
        config.copy_rate = copy_rate.unwrap_or(config.copy_rate);
    }
    config.release_memory = release_free_memory;
    config.search_threads = search_threads.unwrap_or(config.search_threads);
    match telemetry::start(&log, log_json).map_err(anyhow::Error::from).and_then(|()| run(config)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sagittad: {}", told(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

fn roles(text: &str) -> Result<Roles, String> {
    let mut roles = Roles { coordinator: false, shard: false };
    for role in text.split(',') {
        match role.trim() {
            "coordinator" => roles.coordinator = true,
            "shard" => roles.shard = true,
            other => return Err(format!("`{other}` is no role: expected coordinator, shard, or coordinator,shard")),
        }
    }
    Ok(roles)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected an address and a port, such as {DEFAULT_LISTEN} or [::1]:6380"))
}

fn threads(text: &str) -> Result<usize, String> {
    const MOST: usize = 1024;
    let wrong = || format!("expected a whole number from 1 to {MOST}");
    text.parse().ok().filter(|threads| (1..=MOST).contains(threads)).ok_or_else(wrong)
}

/// None: shards are not split by themselves.
type SplitAbove = Option<ByteSize>;

fn split_above(text: &str) -> Result<SplitAbove, String> {
    if text == "off" {
        return Ok(None);
    }
    let above = text.parse::<ByteSize>().map_err(|error| format!("{error}, or off"))?;
    if above < MIN_SPLIT_ABOVE { Err(format!("expected {MIN_SPLIT_ABOVE} or more, or off")) } else { Ok(Some(above)) }
}

fn copy_rate(text: &str) -> Result<ByteSize, String> {
    let rate = text.parse::<ByteSize>().map_err(|error| error.to_string())?;
    if rate < MIN_COPY_RATE { Err(format!("expected {MIN_COPY_RATE} or more")) } else { Ok(rate) }
}

/// An error with its causes, without those that its own text tells already.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(config: Config) -> anyhow::Result<()> {
    let shares = config.memory.shares();
    let database = RocksBudget {
        memory_bytes: shares.database_bytes as usize,
        write_buffer_bytes: shares.write_buffer_bytes as usize,
        ..RocksBudget::default()
    };
    let engines = Engines { kv: Arc::new(RocksEngine::new(database)), index: Arc::new(FaissEngine) };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_name("network").worker_threads(network_threads()).build();
    let runtime = runtime.context("cannot start the network threads")?;
    runtime.block_on(async {
        let mut signal = pin!(stop_signal()?);
        let server = tokio::select! {
            server = Server::start(config, Platform::system(engines), Env::real()) => server?,
            // Nothing is acknowledged yet, and a start may be cut short at any point: it happens with every crash.
            () = &mut signal => return Ok(()),
        };
        println!("sagittad is ready: {}  (data in {})", server.url(), server.data().display());
        let superseded = tokio::select! {
            () = &mut signal => None,
            why = server.superseded() => Some(why),
        };
        server.stop().await?;
        superseded.map_or(Ok(()), |why| Err(why.into()))
    })
}

/// One for every four cores: they only move bytes, which is far less work than searching. More of them would wake each other
/// for every call, which costs more than it gains.
fn network_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).max(1)
}
