//! Clusters of real servers in one thread, from one seed: time, chance, network and disks are simulated, all else is what runs in production.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sagitta_callers::Dice;
use sagitta_client::{Client, ClientConfig, CreateCollection, ListShards, RetryPolicy};
use sagitta_consensus::Fault;
use sagitta_env::{Env, SimulatedClock};
use sagitta_model::NodeStatus;
use sagitta_server::{ByteSize, ClusterConfig, Config, Net, Roles, Server};
use tempfile::TempDir;
use tokio::sync::mpsc;
use turmoil::{Builder, Sim};

use crate::clock::VirtualClock;
use crate::disk::Disk;
use crate::network::{Digest, HostNetwork, Sockets, Trace};

const API_PORT: u16 = 6380;
const PEER_PORT: u16 = 6381;
/// How long anything may take, in virtual time. Nothing passes by it: it is there so that a run that hangs says why.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than any run: nothing is repaired where a test is about something else.
pub(crate) const NEVER: Duration = Duration::from_secs(1_000_000);
/// How long one attempt of a client may take.
pub(crate) const CALL: Duration = Duration::from_secs(5);
/// Where the clients are.
const CLIENTS: &str = "clients";

/// Which nodes there are: coordinators first, then shard nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) coordinators: usize,
    pub(crate) shards: usize,
}

/// What processes are told of what the cluster does by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// See `Config::repair_after`.
    pub(crate) repair_after: Duration,
    /// See `Config::split_above`, in bytes.
    pub(crate) split_above: Option<u64>,
}

/// A simulated cluster, its network and its clients.
pub(crate) struct World {
    sim: Sim<'static>,
    pub(crate) seed: u64,
    pub(crate) dice: Dice,
    pub(crate) nodes: Vec<Rc<Machine>>,
    shape: Shape,
    trace: Trace,
    errands: mpsc::UnboundedSender<Errand>,
    network: HostNetwork,
    client_env: Rc<RefCell<Option<Env>>>,
    faults: BTreeMap<&'static str, u64>,
    _temp: TempDir,
    /// Outlives all that asks for the time.
    clock: VirtualClock,
}

type Errand = Pin<Box<dyn Future<Output = ()>>>;

/// One node: what stays when its process goes.
pub(crate) struct Machine {
    name: String,
    address: IpAddr,
    roles: Roles,
    data: PathBuf,
    pub(crate) disk: Disk,
    join: RefCell<Option<(Vec<String>, String)>>,
    starts: Cell<u64>,
    rules: Rules,
    /// How far its clock is from the others'.
    skew_micros: Cell<i64>,
    clock: RefCell<Option<SimulatedClock>>,
    sockets: RefCell<Sockets>,
}

impl World {
    /// Founds a cluster, lets everybody in, and waits until all of it works.
    pub(crate) fn found(seed: u64, shape: Shape) -> Self {
        Self::found_on(seed, shape, |_| Disk::honest())
    }

    /// The same on these disks.
    pub(crate) fn found_on(seed: u64, shape: Shape, disk: impl Fn(usize) -> Disk) -> Self {
        Self::found_with(seed, shape, disk, NEVER)
    }

    /// The same where replicas are made anew after a node has been silent for so long.
    pub(crate) fn found_with(seed: u64, shape: Shape, disk: impl Fn(usize) -> Disk, repair_after: Duration) -> Self {
        Self::found_by(seed, shape, disk, Rules { repair_after, split_above: None })
    }

    /// The same where shards are split that have grown above so many bytes.
    pub(crate) fn found_to_grow(seed: u64, shape: Shape, split_above: u64) -> Self {
        let rules = Rules { repair_after: NEVER, split_above: Some(split_above) };
        Self::found_by(seed, shape, |_| Disk::honest(), rules)
    }

    fn found_by(seed: u64, shape: Shape, disk: impl Fn(usize) -> Disk, rules: Rules) -> Self {
        log();
        let temp = tempfile::tempdir().expect("a folder");
        let clock = VirtualClock::start();
        let mut builder = Builder::new();
        // As far as a simulation can go: it ends when its test does.
        builder
            .simulation_duration(Duration::from_secs(1_000_000))
            .rng_seed(seed)
            .tcp_capacity(1_024)
            .ephemeral_ports(20_000..=65_535);
        builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(4));
        let (mut sim, trace) = (builder.build(), Trace::new(seed));
        let client_env = Rc::new(RefCell::new(None));
        let (errands, received) = mpsc::unbounded_channel();
        let network = HostNetwork { host: sim.lookup(CLIENTS), trace: trace.clone(), sockets: Sockets::default() };
        sim.client(CLIENTS, run_errands(seed, client_env.clone(), received));
        let mut world = Self {
            sim,
            seed,
            dice: Dice::new(seed),
            nodes: Vec::new(),
            shape,
            trace,
            errands,
            network,
            client_env,
            faults: BTreeMap::new(),
            _temp: temp,
            clock,
        };
        for at in 0..shape.coordinators + shape.shards {
            let roles = Roles { coordinator: at < shape.coordinators, shard: at >= shape.coordinators };
            world.add(roles, disk(at), rules);
        }
        world.start(0);
        let founder = world.client(0, PATIENCE);
        let token = world.ask(async move { founder().init_cluster().await }).expect("founded").join_token;
        let coordinators: Vec<_> = (0..shape.coordinators).map(|at| world.nodes[at].peer_url()).collect();
        for at in 1..world.nodes.len() {
            *world.nodes[at].join.borrow_mut() = Some((coordinators.clone(), token.clone()));
            world.start(at);
        }
        world.wait_complete();
        world
    }

    fn add(&mut self, roles: Roles, disk: Disk, rules: Rules) {
        let at = self.nodes.len();
        let name = format!("node-{at}");
        let address = self.sim.lookup(name.as_str());
        let machine = Machine {
            address,
            roles,
            data: self._temp.path().join(&name),
            name,
            disk,
            join: RefCell::default(),
            starts: Cell::new(0),
            rules,
            skew_micros: Cell::new(0),
            clock: RefCell::default(),
            sockets: RefCell::default(),
        };
        self.nodes.push(Rc::new(machine));
    }

    /// Has one more shard node join, and says which it is.
    pub(crate) fn join(&mut self) -> usize {
        let (at, last) = (self.nodes.len(), self.nodes[self.nodes.len() - 1].clone());
        self.add(Roles { coordinator: false, shard: true }, Disk::honest(), last.rules);
        *self.nodes[at].join.borrow_mut() = last.join.borrow().clone();
        self.start(at);
        at
    }

    fn start(&mut self, at: usize) {
        let (machine, seed, trace) = (self.nodes[at].clone(), self.seed, self.trace.clone());
        let name = machine.name.clone();
        self.sim.host(name, move || serve(machine.clone(), seed * 1_000 + at as u64, trace.clone()));
    }

    /// Waits until every node is up and every coordinator votes: before that a cluster may not outlive one of them.
    pub(crate) fn wait_complete(&mut self) {
        let (coordinators, all) = (self.shape.coordinators, self.nodes.len());
        let client = self.client(0, CALL);
        let env = self.client_env.clone();
        self.ask(async move {
            let client = client();
            loop {
                if let (Ok(cluster), Ok(page)) =
                    (client.get_cluster().await, client.list_nodes(100, String::new()).await)
                {
                    let up = page.nodes.iter().filter(|node| node.status == NodeStatus::Up).count();
                    if (cluster.voters.len(), up) == (coordinators, all) {
                        return;
                    }
                }
                breathe(&env, 50).await;
            }
        });
    }

    /// Creates a collection with one vector and one field, and waits until all of it takes writes.
    pub(crate) fn create(&mut self, name: &str, shards: u32, replication: u32) {
        let mut create = CreateCollection::new(sagitta_callers::name(name), sagitta_callers::schema());
        (create.shards, create.replication) = (Some(shards), Some(replication));
        let client = self.client(0, PATIENCE);
        self.ask(async move { client().create(create).await }).expect("created");
    }

    /// The node that leads the one shard of a collection.
    pub(crate) fn leader(&mut self, collection: &str) -> usize {
        let list = ListShards { collection: Some(sagitta_callers::name(collection)), node: None };
        let (client, env) = (self.client(0, PATIENCE), self.client_env.clone());
        let address = self.ask(async move {
            let client = client();
            loop {
                let shards = client.list_shards(list.clone(), 10, String::new()).await.expect("listed").shards;
                let nodes = client.list_nodes(100, String::new()).await.expect("listed").nodes;
                let leader = shards[0].leader.and_then(|leader| nodes.into_iter().find(|node| node.id == leader));
                match leader {
                    Some(leader) => return leader.api_address,
                    None => breathe(&env, 50).await,
                }
            }
        });
        self.nodes.iter().position(|node| node.api_url() == address).expect("it is one of ours")
    }

    /// The id of a node.
    pub(crate) fn id(&mut self, at: usize) -> u64 {
        let (client, address) = (self.client(0, PATIENCE), self.nodes[at].api_url());
        self.ask(async move {
            let nodes = client().list_nodes(100, String::new()).await.expect("listed").nodes;
            nodes.into_iter().find(|node| node.api_address == address).expect("it is one of ours").id
        })
    }

    /// The coordinator that leads the control group.
    pub(crate) fn control_leader(&mut self) -> usize {
        let (client, env) = (self.client(0, PATIENCE), self.client_env.clone());
        let leader = self.ask(async move {
            let client = client();
            loop {
                match client.get_cluster().await.expect("told").leader {
                    Some(leader) => return leader,
                    None => breathe(&env, 50).await,
                }
            }
        });
        let coordinators = self.coordinators();
        coordinators.into_iter().find(|at| self.id(*at) == leader).expect("it is one of ours")
    }

    /// Makes a client of one coordinator, which tries again soon and gives up after `deadline`. To be called where clients are.
    pub(crate) fn client(&self, at: usize, deadline: Duration) -> impl Fn() -> Client + use<> {
        let mut config = ClientConfig::new(self.nodes[at].api_url());
        let (initial_backoff, max_backoff) = (Duration::from_millis(20), Duration::from_millis(200));
        config.retry = RetryPolicy { max_attempts: 1_000, initial_backoff, max_backoff };
        (config.deadline, config.connect_timeout) = (deadline, Duration::from_secs(1));
        let (env, network) = (self.client_env.clone(), Arc::new(self.network.clone()));
        move || {
            let env = env.borrow().clone().expect("clients have started");
            Client::connect_by(env, config.clone(), network.clone()).expect("a valid endpoint")
        }
    }

    /// Starts something where the clients are.
    pub(crate) fn spawn(&self, errand: impl Future<Output = ()> + 'static) {
        self.errands.send(Box::pin(errand)).expect("the clients run");
    }

    /// Does something where the clients are, and lets time pass until it is done.
    pub(crate) fn ask<T: 'static>(&mut self, errand: impl Future<Output = T> + 'static) -> T {
        let answer = Rc::new(RefCell::new(None));
        let told = answer.clone();
        self.spawn(async move {
            let done = errand.await;
            *told.borrow_mut() = Some(done);
        });
        self.until("an answer", || answer.borrow().is_some());
        let answered = answer.borrow_mut().take();
        answered.expect("it is there")
    }

    /// The time of the clients.
    pub(crate) fn client_env(&self) -> Rc<RefCell<Option<Env>>> {
        self.client_env.clone()
    }

    /// Lets time pass until something has come about.
    pub(crate) fn until(&mut self, what: &str, mut come_about: impl FnMut() -> bool) {
        let end = self.sim.elapsed() + PATIENCE;
        while !come_about() {
            assert!(self.sim.elapsed() < end, "seed {}: {what} does not come: {:?}", self.seed, self.faults);
            self.step();
        }
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.clock.set(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            panic!("seed {}, {:?}: {error}", self.seed, self.sim.elapsed());
        }
    }

    /// Virtual time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.trace.digest()
    }

    pub(crate) fn coordinators(&self) -> Vec<usize> {
        (0..self.shape.coordinators).collect()
    }

    pub(crate) fn shard_nodes(&self) -> Vec<usize> {
        (self.shape.coordinators..self.nodes.len()).collect()
    }

    /// What has been done to the cluster so far.
    pub(crate) fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Ends a process as `kill -9` does; its machine goes on, so what it wrote is there.
    pub(crate) fn kill(&mut self, at: usize) {
        self.count("kill");
        self.crash(at);
    }

    fn crash(&mut self, at: usize) {
        self.nodes[at].sockets.borrow().killed();
        self.sim.crash(self.nodes[at].name.as_str());
    }

    /// Takes the power from a machine: it says no more, and loses what it had not synced. `when` is where in its next write.
    pub(crate) fn cut_power(&mut self, at: usize, when: Option<Fault>, unsynced_kept: usize) {
        self.count("power cut");
        let machine = self.nodes[at].clone();
        if let Some(when) = when {
            machine.disk.lose_power_at_next_write(when);
            self.run_for(Duration::from_millis(30));
        }
        self.cut_off(at);
        self.crash(at);
        machine.disk.lose_power(unsynced_kept);
        self.reconnect(at);
    }

    /// Starts the process of a machine again.
    pub(crate) fn restart(&mut self, at: usize) {
        self.sim.bounce(self.nodes[at].name.as_str());
    }

    fn everybody_else(&self, at: usize) -> Vec<String> {
        let nodes = self.nodes.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, node)| node.name.clone());
        nodes.chain([CLIENTS.to_owned()]).collect()
    }

    fn cut_off(&mut self, at: usize) {
        for other in self.everybody_else(at) {
            self.sim.partition(self.nodes[at].name.as_str(), other.as_str());
        }
    }

    /// Loses every message from and to a node, as if its cable was out.
    pub(crate) fn isolate(&mut self, at: usize) {
        self.count("isolation");
        self.cut_off(at);
    }

    /// Loses every message between two nodes.
    pub(crate) fn part(&mut self, one: usize, other: usize) {
        self.count("partition");
        self.sim.partition(self.nodes[one].name.as_str(), self.nodes[other].name.as_str());
    }

    /// Loses what a node sends to the other nodes; it hears them all.
    pub(crate) fn mute(&mut self, at: usize) {
        self.count("one-way partition");
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.sim.partition_oneway(self.nodes[at].name.as_str(), self.nodes[other].name.as_str());
        }
    }

    /// Loses what the other nodes send to a node; they hear it.
    pub(crate) fn deafen(&mut self, at: usize) {
        self.count("one-way partition");
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.sim.partition_oneway(self.nodes[other].name.as_str(), self.nodes[at].name.as_str());
        }
    }

    /// All messages of a node get through again.
    pub(crate) fn reconnect(&mut self, at: usize) {
        for other in self.everybody_else(at) {
            self.sim.repair(self.nodes[at].name.as_str(), other.as_str());
        }
    }

    /// Keeps every message from and to a node on its way.
    pub(crate) fn hold(&mut self, at: usize) {
        self.count("hold");
        for other in self.everybody_else(at) {
            self.sim.hold(self.nodes[at].name.as_str(), other.as_str());
        }
    }

    /// Keeps messages between a node and those of its role on their way: it lags behind them, and still answers all others.
    pub(crate) fn hold_from_peers(&mut self, at: usize) {
        self.count("lag");
        let peers = if at < self.shape.coordinators { self.coordinators() } else { self.shard_nodes() };
        for other in peers.into_iter().filter(|other| *other != at) {
            self.sim.hold(self.nodes[at].name.as_str(), self.nodes[other].name.as_str());
        }
    }

    /// Lets them arrive, all at once.
    pub(crate) fn release(&mut self, at: usize) {
        for other in self.everybody_else(at) {
            self.sim.release(self.nodes[at].name.as_str(), other.as_str());
        }
    }

    /// Makes a node's clock jump.
    pub(crate) fn jump(&mut self, at: usize, by_micros: i64) {
        self.count("clock jump");
        self.nodes[at].jump(by_micros);
    }
}

impl Machine {
    fn peer_url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.address, PEER_PORT))
    }

    /// How many replicas it has a folder of.
    pub(crate) fn replicas(&self) -> usize {
        let folders = std::fs::read_dir(self.data.join("shards")).into_iter().flatten().flatten();
        folders.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".removed")).count()
    }

    fn api_url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.address, API_PORT))
    }

    /// Where it keeps the control state that it has followed last.
    pub(crate) fn followed(&self) -> PathBuf {
        self.data.join("followed.json")
    }

    /// The shards that it has something of.
    pub(crate) fn shards(&self) -> BTreeSet<u64> {
        let folders = std::fs::read_dir(self.data.join("shards")).into_iter().flatten();
        let names = folders.filter_map(|folder| folder.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    fn jump(&self, by_micros: i64) {
        self.skew_micros.set(self.skew_micros.get() + by_micros);
        if let Some(clock) = &*self.clock.borrow() {
            clock.jump(by_micros);
        }
    }
}

/// Shows what the servers log where `SAGITTA_TEST_LOG` says how much of it.
fn log() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if let Ok(filter) = std::env::var("SAGITTA_TEST_LOG") {
        ONCE.call_once(|| sagitta_server::telemetry::start(&filter, false).expect("a filter of the log"));
    }
}

/// A server's process.
async fn serve(machine: Rc<Machine>, seed: u64, trace: Trace) -> turmoil::Result {
    let sockets = Sockets::default();
    let _last_out = sockets.last_out();
    *machine.sockets.borrow_mut() = sockets.clone();
    let start = machine.starts.replace(machine.starts.get() + 1);
    let (env, clock) = Env::simulated(seed * 1_000 + start);
    clock.jump(machine.skew_micros.get());
    *machine.clock.borrow_mut() = Some(clock);
    let mut config = Config::new(machine.data.clone(), SocketAddr::new(machine.address, API_PORT));
    let (join, join_token) = machine.join.borrow().clone().unzip();
    config.cluster = Some(ClusterConfig {
        peer_listen: SocketAddr::new(machine.address, PEER_PORT),
        peer_tls: None,
        roles: machine.roles,
        zone: String::new(),
        join: join.unwrap_or_default(),
        join_token,
    });
    (config.search_threads, config.build_threads) = (1, 1);
    config.repair_after = machine.rules.repair_after;
    config.split_above = machine.rules.split_above.map(ByteSize);
    config.memory = "64GiB".parse().expect("a size");
    let net = Net::other(Arc::new(HostNetwork { host: machine.address, trace, sockets }));
    let _server = Server::start(config, machine.disk.platform(net), env).await?;
    std::future::pending().await
}

async fn run_errands(
    seed: u64,
    env: Rc<RefCell<Option<Env>>>,
    mut errands: mpsc::UnboundedReceiver<Errand>,
) -> turmoil::Result {
    *env.borrow_mut() = Some(Env::simulated(seed * 1_000 + 999).0);
    while let Some(errand) = errands.recv().await {
        tokio::task::spawn_local(errand);
    }
    Ok(())
}

/// Between two looks at a condition that nothing tells about.
pub(crate) async fn breathe(env: &Rc<RefCell<Option<Env>>>, ms: u64) {
    let env = env.borrow().clone().expect("clients have started");
    pass(&env, ms).await;
}

/// Lets virtual time pass.
pub(crate) async fn pass(env: &Env, ms: u64) {
    let _ = env.timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
}
