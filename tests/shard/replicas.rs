//! Replicas of a shard on three nodes, over the real engines: one that lacks what no log holds any more.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sagitta_consensus::{
    ClusterId, GroupId, GroupStatus, Host, HostSettings, MemoryLog, MemoryNetwork, NodeId, Order, Role, Shelf,
    StateSource, States,
};
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, Effort, IndexPolicy, Metric, Object, Point, PointId, Schema, SearchQuery, Selection, VectorSpec, Wait,
};
use sagitta_node::{Freshness, MemoryBudget, Node, NodeError, NodeOptions, Replica};
use sagitta_shard::testing::Rig as _;
use sagitta_shard::{ShardOptions, ShardSpec};

use crate::rig::RealRig;

const SHARD: u64 = 7;
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const DIM: usize = 8;

/// The shelves of all nodes, from which files are copied.
#[derive(Clone, Default)]
struct Shelves(Arc<Mutex<Vec<(NodeId, Shelf)>>>);

impl Shelves {
    fn of(&self, node: NodeId) -> Shelf {
        let shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.iter().rev().find(|(of, _)| *of == node).map(|(_, shelf)| shelf.clone()).expect("a node")
    }

    fn add(&self, node: NodeId, shelf: &Shelf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((node, shelf.clone()));
    }
}

impl StateSource for Shelves {
    fn fetch(&self, order: Order) {
        let shelf = self.of(order.from);
        let copy = move || {
            for file in order.manifest.files() {
                let to = order.into.join(&file.name);
                fs::create_dir_all(to.parent().expect("a folder")).expect("made");
                let (mut from, _) = shelf.open(order.group, order.manifest.offer(), &file.name).expect("it is offered");
                io::copy(&mut from, &mut fs::File::create(to).expect("a file")).expect("copied");
            }
            (order.done)(Ok(()));
        };
        drop(Env::real().thread("copy", copy).expect("a thread"));
    }
}

/// One node: what outlives it, and what runs of it.
struct Member {
    dir: PathBuf,
    log: Arc<MemoryLog>,
    running: Option<Running>,
}

struct Running {
    host: Host,
    node: Node,
    stop: Arc<AtomicBool>,
    pump: JoinHandle<()>,
}

struct Trio {
    env: Env,
    network: MemoryNetwork,
    shelves: Shelves,
    rig: RealRig,
    members: Vec<Member>,
    _temp: tempfile::TempDir,
}

impl Trio {
    async fn start() -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let member = |node: NodeId| Member {
            dir: temp.path().join(node.0.to_string()),
            log: Arc::new(MemoryLog::new()),
            running: None,
        };
        let members = NODES.map(member).into();
        let (network, shelves, rig) = (MemoryNetwork::default(), Shelves::default(), RealRig::default());
        let mut trio = Self { env: Env::real(), network, shelves, rig, members, _temp: temp };
        for at in 0..NODES.len() {
            trio.run(at).await;
        }
        trio
    }

    async fn run(&mut self, at: usize) {
        let (env, network, id) = (self.env.clone(), self.network.clone(), NODES[at]);
        let member = &mut self.members[at];
        let settings = HostSettings { tick: Duration::from_millis(50), ..HostSettings::new(ClusterId(1), id) };
        let host = Host::start(&env, settings, member.log.clone(), Arc::new(network.of(id))).expect("a host");
        let (handle, stop) = (host.handle(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let pump = move || {
            while !stopped.load(Ordering::Acquire) {
                match network.fetch(id) {
                    messages if messages.is_empty() => std::thread::park_timeout(Duration::from_millis(1)),
                    messages => drop(handle.receive(messages)),
                }
            }
        };
        let pump = env.thread("pump", pump).expect("a thread");
        let states = States { shelf: Shelf::default(), source: Some(Arc::new(self.shelves.clone())) };
        self.shelves.add(id, &states.shelf);
        let options = NodeOptions {
            dir: member.dir.clone(),
            node: id,
            search_threads: 1,
            build_threads: 1,
            memory: MemoryBudget::new(1 << 40).expect("a budget"),
            release_memory: || (),
            shard: ShardOptions { seal_rows: 64, graph_min_rows: 128, ..ShardOptions::default() },
            states,
        };
        let node = Node::start(env, options, self.rig.engines(), host.handle()).expect("a node");
        let vectors = [("v".to_owned(), VectorSpec { dim: DIM, metric: Metric::L2, index: IndexPolicy::Auto })];
        let schema = Schema { vectors: vectors.into(), ..Schema::default() };
        node.ensure(ShardSpec { collection: 1, shard: SHARD, schema }, NODES.to_vec(), None).await.expect("hosted");
        member.running = Some(Running { host, node, stop, pump });
    }

    async fn stop(&mut self, at: usize) {
        let Running { host, node, stop, pump } = self.members[at].running.take().expect("it runs");
        node.close().await;
        host.shutdown(Duration::MAX).await.expect("an orderly end");
        stop.store(true, Ordering::Release);
        pump.join().expect("no panic");
    }

    fn replica(&self, at: usize) -> Arc<Replica> {
        self.members[at].running.as_ref().expect("it runs").node.replica(SHARD).expect("hosted")
    }

    fn status(&self, at: usize) -> GroupStatus {
        self.replica(at).status()
    }

    async fn leader(&self) -> usize {
        loop {
            match (0..NODES.len()).find(|at| self.status(*at).role == Role::Leader) {
                Some(leader) => return leader,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Writes points in small batches at whoever leads; returns where the last one landed.
    async fn upsert(&self, ids: std::ops::Range<u64>) -> u64 {
        let mut last = 0;
        for part in ids.collect::<Vec<_>>().chunks(10) {
            let change = Arc::new(Change::Upsert(part.iter().map(|id| point(*id)).collect()));
            last = loop {
                let leader = self.replica(self.leader().await);
                let request_id = u128::from(part[0]) + 1;
                match leader.write(request_id, change.clone(), Wait::Committed, Deadline::NEVER).await {
                    Ok(result) => break result.tokens[0].index,
                    Err(NodeError::NotLeader { .. } | NodeError::Unknown(_) | NodeError::TooManyUnsealed) => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
        }
        last
    }

    /// All members answer the same, exactly, once they have an entry.
    async fn agree(&self, index: u64, points: usize) {
        let mut first = None;
        for at in 0..NODES.len() {
            let (replica, fresh) = (self.replica(at), Freshness::AtLeast(index));
            let all = replica.scroll(None, None, 10_000, Selection::default(), fresh, Deadline::NEVER).await;
            let ids: Vec<_> = all.expect("listed").iter().map(|record| (record.id, record.version)).collect();
            assert_eq!(ids.len(), points, "member {at}");
            let queries: Vec<_> = (0..5).map(|at| (query(at as f32 * 17.0), Selection::default())).collect();
            let found = replica.search(queries.into(), false, fresh, Deadline::NEVER).await.expect("found");
            let hits: Vec<_> =
                found.iter().flat_map(|result| &result.hits).map(|hit| (hit.id, hit.similarity)).collect();
            assert_eq!(hits.len(), 50, "member {at}");
            let answer = (ids, hits);
            assert_eq!(*first.get_or_insert_with(|| answer.clone()), answer, "member {at}");
        }
    }
}

fn point(id: u64) -> Point {
    let vector = (0..DIM).map(|at| ((id * 37 + at as u64 * 11) % 101) as f32).collect();
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vector)].into(), payload: Object::new() }
}

fn query(at: f32) -> SearchQuery {
    SearchQuery {
        vector_name: "v".to_owned(),
        vector: vec![at; DIM],
        k: 10,
        min_similarity: None,
        filter: None,
        effort: Effort::Exact,
        group_by: None,
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_follower_that_lacks_what_no_log_holds_takes_over_the_whole_state() {
    let mut trio = Trio::start().await;
    let last = trio.upsert(0..100).await;
    trio.agree(last, 100).await;
    let away = (trio.leader().await + 1) % NODES.len();
    let others: Vec<_> = NODES.into_iter().filter(|node| *node != NODES[away]).collect();
    trio.network.isolate(NODES[away], &others);
    let last = trio.upsert(100..600).await;
    let had = trio.status(away).last;
    for member in &trio.members {
        member.log.crowd(GroupId(SHARD));
    }
    let leader = trio.leader().await;
    until(|| trio.status(leader).first > had + 1).await;
    assert!(trio.status(away).applied < last);
    trio.network.heal();
    until(|| trio.status(away).applied >= last).await;
    trio.agree(last, 600).await;
    let home = trio.members[away].dir.join(SHARD.to_string());
    assert!(home.join("current").is_file());
    // RocksDB says when nobody has the old database open any more.
    until(|| !home.join("db").exists()).await;

    let last = trio.upsert(600..700).await;
    trio.agree(last, 700).await;
    trio.stop(away).await;
    trio.run(away).await;
    let last = trio.upsert(700..800).await;
    trio.agree(last, 800).await;
    assert_eq!(trio.replica(away).statistics().points, 800);
    for at in 0..NODES.len() {
        trio.stop(at).await;
    }
}
