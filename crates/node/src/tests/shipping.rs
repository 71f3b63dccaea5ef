//! Three replicas of a shard, over the twins and in virtual time: who builds its segments, and what the others do.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_consensus::{
    ClusterId, GroupId, Host, HostSettings, MemoryLog, MemoryNetwork, NodeId, Order, Parts, Question, Role, Shelf,
    StateSource, States,
};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_engine::mapped::Damaged;
use sagitta_env::{Deadline, Env};
use sagitta_model::{Change, IndexPolicy, Metric, Schema, Selection, VectorSpec, Wait};
use sagitta_shard::{Engines, JobKind, Part, ShardOptions, ShardSpec, StepHook};

use super::{USUAL, point};
use crate::shipping::names;
use crate::{Freshness, MemoryBudget, Node, NodeError, NodeOptions, Replica, SegmentOrigins};

const SHARD: u64 = 7;
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const SEAL_ROWS: usize = 64;

/// What goes wrong between the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// No question is answered.
    Mute,
    /// Nobody says that it leads.
    Leaderless,
    /// What is asked for has gone.
    Gone,
    /// A bit of each file flips on the way.
    Flips,
    /// The leader is at work for ever.
    Promises,
}

/// The shelves of all nodes, from which files are copied.
#[derive(Clone, Default)]
struct Shelves(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    shelves: Vec<(NodeId, Shelf)>,
    trouble: Trouble,
    fetched: usize,
}

impl Shelves {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, node: NodeId) -> (Shelf, Trouble) {
        let inner = self.lock();
        let shelf = inner.shelves.iter().find(|(of, _)| *of == node).map(|(_, shelf)| shelf.clone());
        (shelf.expect("a node"), inner.trouble)
    }
}

impl StateSource for Shelves {
    fn fetch(&self, order: Order) {
        let (shelf, trouble) = self.of(order.from);
        if trouble == Trouble::Gone {
            return (order.done)(Err("planted: it is gone".to_owned()));
        }
        for file in order.manifest.files() {
            let to = order.into.join(&file.name);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            let Ok((mut from, _)) = shelf.open(order.group, order.manifest.offer(), &file.name) else {
                return (order.done)(Err("it was replaced meanwhile".to_owned()));
            };
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut from, &mut bytes).expect("read");
            if trouble == Trouble::Flips {
                bytes[0] ^= 1;
            }
            fs::write(to, bytes).expect("written");
        }
        self.lock().fetched += 1;
        (order.done)(Ok(()));
    }

    fn ask(&self, question: Question) {
        let (shelf, trouble) = self.of(question.of);
        let answer = match trouble {
            Trouble::Mute => Err("planted: no answer".to_owned()),
            Trouble::Leaderless => Ok(Parts::default()),
            Trouble::Promises => Ok(Parts { leads: true, working: true, parts: Vec::new() }),
            _ => shelf.parts(question.group).ok_or_else(|| "no such group".to_owned()),
        };
        (question.done)(answer);
    }
}

struct Trio {
    env: Env,
    source: Shelves,
    network: MemoryNetwork,
    nodes: Vec<(Node, Host)>,
    written: u64,
    /// Whether the leader says that it is at work, at each step of its jobs.
    at_work: Arc<Mutex<Vec<bool>>>,
    dir: tempfile::TempDir,
}

impl Trio {
    async fn start(seed: u64) -> Self {
        println!("seed {seed}");
        let (env, _) = Env::simulated(seed);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut trio = Self {
            env,
            source: Shelves::default(),
            network: MemoryNetwork::default(),
            nodes: Vec::new(),
            written: 0,
            at_work: Arc::default(),
            dir,
        };
        for id in NODES {
            let dir = trio.dir.path().join(id.0.to_string());
            trio.run(id, dir).await;
        }
        trio
    }

    async fn run(&mut self, id: NodeId, dir: PathBuf) {
        let (env, network) = (self.env.clone(), self.network.clone());
        let settings = HostSettings::new(ClusterId(1), id);
        let host = Host::start(&env, settings, Arc::new(MemoryLog::new()), Arc::new(network.of(id))).expect("a host");
        let handle = host.handle();
        let clock = env.clone();
        env.spawn(async move {
            loop {
                match network.fetch(id) {
                    messages if messages.is_empty() => pause(&clock, Duration::from_millis(5)).await,
                    messages => drop(handle.receive(messages)),
                }
            }
        });
        let states = States { shelf: Shelf::default(), source: Some(Arc::new(self.source.clone())) };
        self.source.lock().shelves.push((id, states.shelf.clone()));
        let (shelf, at_work) = (states.shelf.clone(), self.at_work.clone());
        let step_hook = StepHook::new(move |_| {
            let said = shelf.parts(GroupId(SHARD)).filter(|parts| parts.leads);
            at_work.lock().unwrap_or_else(PoisonError::into_inner).extend(said.map(|parts| parts.working));
            ControlFlow::Continue(())
        });
        let options = NodeOptions {
            dir,
            node: id,
            search_threads: 1,
            build_threads: 1,
            memory: MemoryBudget::new(1 << 40).expect("a budget"),
            release_memory: || (),
            shard: ShardOptions { seal_rows: SEAL_ROWS, step_hook, ..ShardOptions::default() },
            states,
        };
        let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
        let node = Node::start(env, options, engines, host.handle()).expect("a node");
        let vectors = [("v".to_owned(), VectorSpec { dim: USUAL, metric: Metric::L2, index: IndexPolicy::Flat })];
        let schema = Schema { vectors: vectors.into(), ..Schema::default() };
        node.ensure(ShardSpec { collection: 1, shard: SHARD, schema }, NODES.to_vec(), None).await.expect("hosted");
        self.nodes.push((node, host));
    }

    fn replica(&self, at: usize) -> Arc<Replica> {
        self.nodes[at].0.replica(SHARD).expect("hosted")
    }

    async fn leader(&self) -> usize {
        loop {
            if let Some(leader) = (0..NODES.len()).find(|at| self.replica(*at).status().role == Role::Leader) {
                return leader;
            }
            pause(&self.env, Duration::from_millis(10)).await;
        }
    }

    /// Writes more points, in entries of ten, at whoever leads.
    async fn write(&mut self, points: u64) {
        let end = self.written + points;
        while self.written < end {
            let ids = self.written..(self.written + 10).min(end);
            let change = Arc::new(Change::Upsert(ids.clone().map(|id| point(id, USUAL, "")).collect()));
            loop {
                let leader = self.replica(self.leader().await);
                let request = u128::from(ids.start) + 1;
                match leader.write(request, change.clone(), Wait::Committed, Deadline::NEVER).await {
                    Ok(_) => break,
                    Err(NodeError::NotLeader { .. } | NodeError::Unknown(_) | NodeError::TooManyUnsealed) => {
                        pause(&self.env, Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            self.written = ids.end;
        }
    }

    /// Waits until no replica has anything to seal or to merge; says how long that took.
    async fn settle(&self) -> Duration {
        self.settle_of(|kind| matches!(kind, JobKind::Seal { .. } | JobKind::Merge { .. })).await
    }

    /// The same for some work.
    async fn settle_of(&self, is_work: impl Fn(&JobKind) -> bool) -> Duration {
        let began = self.env.now();
        let has_work = |at: usize| self.replica(at).shard().wanted_jobs().iter().any(&is_work);
        while (0..NODES.len()).any(has_work) || self.behind() {
            pause(&self.env, Duration::from_millis(100)).await;
            assert!(self.env.now() - began < Duration::from_secs(300), "it never ends: {:?}", self.origins());
        }
        self.env.now() - began
    }

    fn behind(&self) -> bool {
        let applied: BTreeSet<_> = (0..NODES.len()).map(|at| self.replica(at).shard().applied_index()).collect();
        applied.len() > 1
    }

    fn origins(&self) -> Vec<SegmentOrigins> {
        (0..NODES.len()).map(|at| self.replica(at).segment_origins()).collect()
    }

    /// Every replica has all points, once.
    async fn check(&self) {
        for at in 0..NODES.len() {
            let replica = self.replica(at);
            let all = replica.scroll(None, None, 10_000, Selection::default(), Freshness::Any, Deadline::NEVER);
            let ids: BTreeSet<_> = all.await.expect("listed").iter().map(|record| record.id).collect();
            let points = self.replica(at).shard().view().points();
            assert_eq!((ids.len() as u64, points), (self.written, self.written), "member {at}");
        }
    }

    async fn stop(self) {
        for (node, host) in self.nodes {
            node.close().await;
            host.shutdown(self.env.now() + Duration::from_secs(9)).await.expect("stopped");
        }
    }
}

async fn pause(env: &Env, time: Duration) {
    let _ = env.timeout(time, std::future::pending::<()>()).await;
}

#[tokio::test(start_paused = true)]
async fn each_segment_is_built_once_and_adopted_by_the_others() {
    for seed in 1..=3 {
        let mut trio = Trio::start(seed).await;
        for _ in 0..20 {
            trio.write(SEAL_ROWS as u64 + 2).await;
            // Slower than segments travel, as real builds make it.
            pause(&trio.env, Duration::from_secs(1)).await;
        }
        trio.settle().await;
        trio.check().await;
        let (leader, origins) = (trio.leader().await, trio.origins());
        println!("{origins:?}");
        let at_work = trio.at_work.lock().expect("whole").clone();
        assert!(at_work.len() > 100 && at_work.iter().all(|said| *said), "seed {seed}: {at_work:?}");
        let own = origins[leader];
        assert!(own.built >= 18 && own.adopted == 0, "seed {seed}: {origins:?}");
        let named: Vec<_> = (0..NODES.len()).map(|at| names(&trio.replica(at).shard().view())).collect();
        for at in (0..NODES.len()).filter(|at| *at != leader) {
            let SegmentOrigins { built, adopted, refused } = origins[at];
            assert_eq!((built, refused), (0, 0), "seed {seed}: {origins:?}");
            // One that was merged at once needed not be fetched by itself.
            assert!(adopted > 0 && adopted <= own.built, "seed {seed}: {origins:?}");
            assert_eq!(named[at], named[leader], "seed {seed}: they have the same segments");
        }
        trio.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_builds_by_itself_whatever_keeps_the_segments_of_the_leader_from_it() {
    for trouble in [Trouble::Mute, Trouble::Leaderless, Trouble::Gone, Trouble::Flips, Trouble::Promises] {
        let mut trio = Trio::start(1).await;
        trio.source.lock().trouble = trouble;
        trio.write(3 * SEAL_ROWS as u64).await;
        // A merge that the leader says it is at work on is waited for longer than a test should take.
        let took = match trouble {
            Trouble::Promises => trio.settle_of(|kind| matches!(kind, JobKind::Seal { .. })).await,
            _ => trio.settle().await,
        };
        trio.check().await;
        let origins = trio.origins();
        println!("{trouble:?} after {took:?}: {origins:?}");
        let leader = trio.leader().await;
        for at in (0..NODES.len()).filter(|at| *at != leader) {
            let SegmentOrigins { built, adopted, refused } = origins[at];
            assert!(built >= 2 && adopted == 0, "{trouble:?}: {origins:?}");
            assert_eq!(refused > 0, trouble == Trouble::Flips, "{trouble:?}: {origins:?}");
            let left = trio.dir.path().join(NODES[at].0.to_string()).join(SHARD.to_string()).join("arrivals");
            let left = fs::read_dir(left).map_or(0, |entries| entries.count());
            assert_eq!(left, 0, "{trouble:?}: nothing of a segment that did not come is left");
        }
        // A leader that says it is at work is waited for longer, for each of the two generations.
        let most = Duration::from_secs(if trouble == Trouble::Promises { 250 } else { 60 });
        assert!(took < most, "{trouble:?}: it took {took:?}");
        trio.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_in_memory_stay_bounded_however_long_the_leader_takes() {
    let mut trio = Trio::start(1).await;
    trio.source.lock().trouble = Trouble::Promises;
    trio.write(30 * SEAL_ROWS as u64).await;
    // The leader is never held up by what others wait for, and nobody has more in memory than may be.
    let most = ShardOptions::default().max_frozen_generations + 4;
    while trio.behind() {
        pause(&trio.env, Duration::from_millis(10)).await;
    }
    pause(&trio.env, Duration::from_secs(1)).await;
    for at in 0..NODES.len() {
        let frozen = trio.replica(at).shard().view().frozen().count();
        assert!(frozen <= most, "member {at} has {frozen} frozen generations");
    }
    trio.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_the_segments_that_it_has_adopted() {
    let mut trio = Trio::start(2).await;
    trio.write(5 * SEAL_ROWS as u64).await;
    trio.settle().await;
    let before = trio.leader().await;
    let next = (before + 1) % NODES.len();
    trio.replica(before).hand_over(NODES[next], Deadline::NEVER).await.expect("handed over");
    let built: Vec<_> = trio.origins().iter().map(|origins| origins.built).collect();
    trio.write(5 * SEAL_ROWS as u64).await;
    trio.settle().await;
    trio.check().await;
    let (leader, origins) = (trio.leader().await, trio.origins());
    println!("{origins:?}");
    assert_ne!(leader, before, "it leads again");
    for at in 0..NODES.len() {
        assert_eq!(origins[at].built > built[at], at == leader, "{origins:?}, before {built:?}");
    }
    trio.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_on_offer_can_be_fetched_after_a_damaged_segment_was_built_anew() {
    let mut trio = Trio::start(1).await;
    trio.write(SEAL_ROWS as u64 + 2).await;
    trio.settle().await;
    let leader = trio.leader().await;
    let shelf = trio.source.of(NODES[leader]).0;
    let folder = |trio: &Trio| trio.replica(leader).shard().view().segments()[0].segment.dir().to_path_buf();
    let (before, offered) = (folder(&trio), shelf.parts(GroupId(SHARD)).expect("it is there").parts);
    let view = trio.replica(leader).shard().view();
    let damage = Damaged { file: before.clone(), block: None, reason: "planted" };
    view.report_damage(&view.segments()[0], Part::Payload, &damage);
    drop(view);
    while folder(&trio) == before {
        pause(&trio.env, Duration::from_millis(100)).await;
    }
    trio.write(10).await;
    pause(&trio.env, Duration::from_secs(1)).await;
    let parts = shelf.parts(GroupId(SHARD)).expect("it is there").parts;
    assert_eq!(parts, offered, "the same rows make the same segment");
    assert!(!parts.is_empty());
    for part in parts {
        for file in part.manifest.files() {
            let (mut open, _) = shelf.open(GroupId(SHARD), part.manifest.offer(), &file.name).expect("it is there");
            assert_eq!(std::io::copy(&mut open, &mut std::io::sink()).expect("read"), file.bytes, "{}", file.name);
        }
    }
    trio.stop().await;
}
