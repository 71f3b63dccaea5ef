//! A cluster of real processes of the test's own. Nothing but [`Cluster::found`] knows how a cluster comes to be.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_callers::number;
use sagitta_client::{Client, ClientConfig, ListShards, RetryPolicy};
use sagitta_env::Env;
use sagitta_model::{NodeStatus, ShardInfo};
use tempfile::TempDir;

/// Clusters are large for a small machine: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How long a condition may take to come about. Nothing passes by it: it is there so that a test that hangs says why.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Ports below those that the system hands out for connections, so that a node that restarts finds its own free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Lines of a node's log shown when a test fails.
const SHOWN_LINES: usize = 40;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Coordinator,
    Shard,
}

/// A node: its folder, its ports, and its process when it runs.
pub(crate) struct Member {
    pub(crate) role: Role,
    pub(crate) data: PathBuf,
    pub(crate) api: Port,
    pub(crate) peers: Port,
    /// The group that its processes run as, by which a [`crate::network::Network`] knows them.
    pub(crate) group: Option<u32>,
    /// What its processes find in their environment.
    pub(crate) env: Vec<(&'static str, String)>,
    log: PathBuf,
    /// Where the log of the present process begins.
    log_from: usize,
    child: Option<Child>,
}

/// A port that no other test takes for as long as this lives: its UDP twin is bound.
pub(crate) struct Port {
    pub(crate) number: u16,
    _reserved: UdpSocket,
}

/// A running cluster; its processes are killed when it is dropped.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    temp: Option<TempDir>,
    /// What lets other nodes in.
    pub(crate) token: String,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts coordinators, then shard nodes, and waits until all of them are ready.
    pub(crate) fn start(coordinators: usize, shards: usize) -> Self {
        Self::start_with(coordinators, shards, |_, _| {})
    }

    /// As [`Cluster::start`], with nodes that are changed before they are started for the first time.
    pub(crate) fn start_with(coordinators: usize, shards: usize, change: impl Fn(usize, &mut Member)) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { members: Vec::new(), temp: Some(temp), token: String::new(), _alone: alone };
        for at in 0..coordinators + shards {
            let role = if at < coordinators { Role::Coordinator } else { Role::Shard };
            let mut member = cluster.new_member(role, &format!("node-{at}"));
            change(at, &mut member);
            cluster.members.push(member);
        }
        cluster.found();
        for at in 1..cluster.members.len() {
            cluster.spawn(at);
        }
        (0..cluster.members.len()).for_each(|at| cluster.wait_ready(at));
        cluster.wait_complete(coordinators);
        cluster
    }

    /// Waits until every node is up, and every coordinator votes and knows that all do: before that a cluster may not outlive one of
    /// them.
    fn wait_complete(&self, coordinators: usize) {
        let complete = async || {
            let mut voters = coordinators;
            for client in self.clients(PATIENCE) {
                voters = voters.min(client.get_cluster().await.map_err(|error| error.to_string())?.voters.len());
            }
            let client = self.client(0, PATIENCE);
            let nodes = client.list_nodes(100, String::new()).await.map_err(|error| error.to_string())?.nodes;
            let up = nodes.iter().filter(|node| node.status == NodeStatus::Up).count();
            match (voters, up) == (coordinators, self.members.len()) {
                true => Ok(()),
                false => Err(format!("{voters} voters and {up} nodes up")),
            }
        };
        run(eventually("a complete cluster", complete));
    }

    /// A node that has not been started.
    pub(crate) fn new_member(&self, role: Role, name: &str) -> Member {
        let (data, log) = (self.root().join(name), self.root().join(format!("{name}.log")));
        let (api, peers) = (Port::free(), Port::free());
        Member { role, data, log, log_from: 0, api, peers, group: None, env: Vec::new(), child: None }
    }

    /// Makes the first member found the cluster.
    fn found(&mut self) {
        self.spawn(0);
        self.members[0].wait_to_say("waiting for `sagitta cluster init`");
        let founded = run(async { self.client(0, PATIENCE).init_cluster().await });
        self.token = founded.expect("a cluster is founded").join_token;
        self.wait_ready(0);
    }

    fn root(&self) -> &Path {
        self.temp.as_ref().expect("kept until the end").path()
    }

    pub(crate) fn coordinators(&self) -> Vec<usize> {
        self.with_role(Role::Coordinator)
    }

    pub(crate) fn shard_nodes(&self) -> Vec<usize> {
        self.with_role(Role::Shard)
    }

    fn with_role(&self, role: Role) -> Vec<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].role == role).collect()
    }

    /// The command that starts a node. The first one needs nobody to be let in by.
    pub(crate) fn command(&self, member: &Member, join: Option<String>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagittad"));
        let roles = match member.role {
            Role::Coordinator => "coordinator",
            Role::Shard => "shard",
        };
        let (api, peers) = (member.api.address(), member.peers.address());
        command.arg("serve").arg("--data").arg(&member.data).args(["--listen", &api, "--peer-listen", &peers]);
        command.args(["--roles", roles, "--memory", "256MiB", "--search-threads", "1"]);
        let log = std::env::var("SAGITTA_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        command.args(["--log", &log]).env("SAGITTA_JOIN_TOKEN", &self.token).stdin(Stdio::null());
        if let Some(group) = member.group {
            command.gid(group);
        }
        command.envs(member.env.iter().map(|(name, value)| (name, value)));
        if let Some(join) = join {
            command.args(["--join", &join]);
        }
        command
    }

    /// The peer addresses of the coordinators, as a new node is told them.
    pub(crate) fn join_addresses(&self) -> String {
        let peers = self.coordinators().into_iter().map(|at| format!("http://{}", self.members[at].peers.address()));
        peers.collect::<Vec<_>>().join(",")
    }

    /// Starts a node's process and waits for nothing.
    pub(crate) fn spawn(&mut self, at: usize) {
        assert!(self.members[at].child.is_none(), "node {at} runs");
        let join = (at > 0).then(|| self.join_addresses());
        let command = self.command(&self.members[at], join);
        self.members[at].start(command);
    }

    /// Waits until a node that was spawned says that it is ready.
    pub(crate) fn wait_ready(&mut self, at: usize) {
        self.members[at].wait_to_say("sagittad is ready");
    }

    pub(crate) fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.wait_ready(at);
    }

    /// As `kill -9` does: no warning, no cleaning up.
    pub(crate) fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// Stops a process in its tracks: its connections stay open and nobody answers.
    pub(crate) fn pause_node(&mut self, at: usize) {
        self.signal(at, "-STOP");
    }

    pub(crate) fn resume_node(&mut self, at: usize) {
        self.signal(at, "-CONT");
    }

    fn signal(&self, at: usize, signal: &str) {
        let id = self.members[at].child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
    }

    /// A client of one coordinator, which tries again soon and gives up after `deadline`.
    pub(crate) fn client(&self, at: usize, deadline: Duration) -> Client {
        client(&self.members[at].api, deadline)
    }

    /// What the cluster calls a node, as a coordinator knows it.
    pub(crate) async fn node_id(&self, client: &Client, at: usize) -> u64 {
        let address = format!("http://{}", self.members[at].peers.address());
        let listed = eventually("the nodes", async || client.list_nodes(100, String::new()).await).await;
        let node = listed.nodes.into_iter().find(|node| node.peer_address == address);
        node.expect("every member is listed").id
    }

    /// Which node leads the only shard of a collection.
    pub(crate) async fn leader(&self, collection: &str) -> usize {
        self.leader_by(0, collection).await
    }

    /// As [`Cluster::leader`], as one coordinator knows it.
    pub(crate) async fn leader_by(&self, coordinator: usize, collection: &str) -> usize {
        let client = self.client(coordinator, PATIENCE);
        let leader = eventually("a leader", async || {
            let shard = only_shard(&client, collection).await?;
            shard.leader.ok_or_else(|| "nobody leads".to_owned())
        });
        let leader = leader.await;
        for at in self.shard_nodes() {
            if self.node_id(&client, at).await == leader {
                return at;
            }
        }
        panic!("{leader} leads, who is no shard node");
    }

    /// Has a node lead the only shard of a collection.
    pub(crate) async fn lead(&self, collection: &str, at: usize) {
        let client = self.client(0, PATIENCE);
        let node = self.node_id(&client, at).await;
        let lead = async || {
            let shard = only_shard(&client, collection).await?;
            if shard.leader == Some(node) {
                return Ok(());
            }
            client.transfer_leader(shard.id, node).await.map_err(|error| error.to_string())
        };
        eventually("a transfer of the leadership", lead).await;
        let leads = async || match self.leader(collection).await {
            leader if leader == at => Ok(()),
            leader => Err(format!("{leader} leads")),
        };
        eventually("the new leader", leads).await;
    }

    /// A client of each coordinator.
    pub(crate) fn clients(&self, deadline: Duration) -> Vec<Client> {
        self.coordinators().into_iter().map(|at| self.client(at, deadline)).collect()
    }
}

pub(crate) fn client(api: &Port, deadline: Duration) -> Client {
    let mut config = ClientConfig::new(format!("http://{}", api.address()));
    let (initial_backoff, max_backoff) = (Duration::from_millis(20), Duration::from_millis(200));
    config.retry = RetryPolicy { max_attempts: 100, initial_backoff, max_backoff };
    config.deadline = deadline;
    config.connect_timeout = Duration::from_secs(1);
    Client::connect(config).expect("a valid endpoint")
}

/// The shard of a collection that has one.
pub(crate) async fn only_shard(client: &Client, collection: &str) -> Result<ShardInfo, String> {
    let list = ListShards { collection: Some(collection.parse().expect("a name")), node: None };
    let page = client.list_shards(list, 10, String::new()).await.map_err(|error| error.to_string())?;
    let [shard] = <[ShardInfo; 1]>::try_from(page.shards).map_err(|shards| format!("{} shards", shards.len()))?;
    Ok(shard)
}

/// Tries until it succeeds; the last error is told when that takes too long.
pub(crate) async fn eventually<T, E: std::fmt::Display>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let env = Env::real();
    let until = env.deadline(PATIENCE);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(!until.has_passed(&env), "{what}: still {error}"),
        }
        breathe(20).await;
    }
}

/// Between two looks at a condition that nothing tells about.
pub(crate) async fn breathe(ms: u64) {
    let _ = Env::real().timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Says why a test does nothing here; fails where everything has to run.
pub(crate) fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    assert_eq!(number("SAGITTA_MUST_RUN", 0), 0, "everything has to run, but: {why}");
}

/// Runs a test's clients.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

impl Member {
    /// Each of two nodes listens where the other one did, from its next start on.
    pub(crate) fn swap_ports(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.api, &mut other.api);
        std::mem::swap(&mut self.peers, &mut other.peers);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("waited");
        }
    }

    /// Runs a command as this node's process, and waits for nothing.
    pub(crate) fn start(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        self.log_from = self.log_text().len();
        let twin = log.try_clone().expect("a log");
        self.child = Some(command.stdout(twin).stderr(log).spawn().expect("the binary is there"));
    }

    /// Waits until the present process has said something in its log.
    pub(crate) fn wait_to_say(&mut self, what: &str) {
        let env = Env::real();
        let until = env.deadline(PATIENCE);
        while !self.has_said(what) {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().expect("waited")) {
                panic!(
                    "{} ended before it said `{what}`: {status}; it said: {}",
                    self.data.display(),
                    self.log_since_start()
                );
            }
            assert!(!until.has_passed(&env), "{} does not say `{what}`", self.data.display());
            pause();
        }
    }

    /// Whether the present process has said something in its log.
    pub(crate) fn has_said(&self, what: &str) -> bool {
        self.log_since_start().contains(what)
    }

    /// Runs a command that must end with exit code 1 and say this.
    pub(crate) fn must_refuse(&mut self, mut command: Command, says: &str) {
        let (env, log) = (Env::real(), File::create(&self.log).expect("a log"));
        let twin = log.try_clone().expect("a log");
        self.child = Some(command.stdout(twin).stderr(log).spawn().expect("the binary is there"));
        let until = env.deadline(PATIENCE);
        let status = loop {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("waited"));
            if ended.is_some() || until.has_passed(&env) {
                break ended;
            }
            pause();
        };
        self.kill();
        let said = self.log_text();
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(says), "expected `{says}`: {said}");
        println!("{last}");
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Date and hour of the last line of its log, as its clock says.
    pub(crate) fn log_hours(&self) -> String {
        let text = self.log_text();
        let line = text.lines().rev().find(|line| line.starts_with("20")).expect("a line with a date");
        line["2026-".len().."2026-11-25T00".len()].to_owned()
    }

    fn log_since_start(&self) -> String {
        self.log_text().split_off(self.log_from)
    }
}

impl Port {
    fn free() -> Self {
        let span = u64::from(PORTS.end - PORTS.start);
        loop {
            let number = PORTS.start + Env::real().random_below(span) as u16;
            let reserved = UdpSocket::bind(("127.0.0.1", number));
            // The listener is closed at once, and leaves nothing behind because nobody connected.
            if let (Ok(reserved), Ok(_)) = (reserved, TcpListener::bind(("127.0.0.1", number))) {
                return Self { number, _reserved: reserved };
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// No process outlives its test, whether it belongs to a [`Cluster`] or not.
impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
        if !std::thread::panicking() {
            return;
        }
        for member in &self.members {
            let text = member.log_text();
            let lines: Vec<_> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- {}, {:?}, the end of its log:\n{}", member.data.display(), member.role, shown.join("\n"));
        }
        if let Some(temp) = self.temp.take() {
            eprintln!("--- the nodes' folders and logs are kept in {}", temp.keep().display());
        }
    }
}
