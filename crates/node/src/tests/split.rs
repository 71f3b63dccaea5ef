//! Shards that are split under three nodes, over the twins and in virtual time.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_consensus::{
    ClusterId, GroupId, Host, HostSettings, MemoryLog, MemoryNetwork, NodeId, Order, Position, Question, Role, Shelf,
    StateSource, States,
};
use sagitta_engine::index::Never;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::{KvEngine, MemoryEngine};
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, Filter, HashRange, IndexPolicy, Metric, PointId, Schema, Selection, VectorSpec, Wait, shard_hash,
};
use sagitta_shard::codec::Record as _;
use sagitta_shard::{Engines, Home, ShardOptions, ShardSpec, Split, Step, StepHook};

use super::{USUAL, point};
use crate::{Freshness, MemoryBudget, Node, NodeError, NodeOptions, Replica, Sight};

pub(super) const LEFT: u64 = 7;
pub(super) const RIGHT: u64 = 8;
pub(super) const AT: u64 = 1 << 63;
pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
pub(super) const ALL: [usize; 3] = [0, 1, 2];

/// The shelves of all nodes, from which files are copied.
#[derive(Clone, Default)]
struct Couriers(Arc<Mutex<Vec<(NodeId, Shelf)>>>);

impl Couriers {
    fn shelf(&self, node: NodeId) -> Shelf {
        let shelves = lock(&self.0);
        let newest = shelves.iter().rev().find(|(of, _)| *of == node);
        newest.map(|(_, shelf)| shelf.clone()).expect("a node")
    }
}

impl StateSource for Couriers {
    fn fetch(&self, order: Order) {
        let shelf = self.shelf(order.from);
        for file in order.manifest.files() {
            let to = order.into.join(&file.name);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            let Ok((mut from, _)) = shelf.open(order.group, order.manifest.offer(), &file.name) else {
                return (order.done)(Err("it was replaced meanwhile".to_owned()));
            };
            let mut to = fs::File::create(to).expect("made");
            std::io::copy(&mut from, &mut to).expect("copied");
        }
        (order.done)(Ok(()));
    }

    fn ask(&self, question: Question) {
        (question.done)(Ok(self.shelf(question.of).parts(question.group).unwrap_or_default()));
    }
}

/// What outlives a node that ends.
struct Disk {
    log: MemoryLog,
    kv: MemoryEngine,
}

struct Life {
    node: Node,
    host: Host,
    over: Arc<AtomicBool>,
}

pub(super) struct Fleet {
    pub(super) env: Env,
    network: MemoryNetwork,
    couriers: Couriers,
    disks: Vec<Disk>,
    lives: Vec<Option<Life>>,
    /// The node whose shards end at this step, once.
    cut: Arc<Mutex<Option<(usize, Step)>>>,
    pub(super) requests: u128,
    /// The split that whoever reads and writes goes by.
    asked: u64,
    /// What was written and not deleted.
    pub(super) written: BTreeSet<u64>,
    dir: tempfile::TempDir,
}

impl Fleet {
    /// Three nodes with a shard, which has points.
    pub(super) async fn start(seed: u64) -> Self {
        println!("seed {seed}");
        let disk = |_| Disk { log: MemoryLog::new(), kv: MemoryEngine::new() };
        let mut fleet = Self {
            env: Env::simulated(seed).0,
            network: MemoryNetwork::default(),
            couriers: Couriers::default(),
            disks: ALL.map(disk).into(),
            lives: ALL.map(|_| None).into(),
            cut: Arc::default(),
            requests: 0,
            asked: 0,
            written: BTreeSet::new(),
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        for at in ALL {
            fleet.run(at).await;
        }
        fleet.write(LEFT, 0..200).await;
        fleet
    }

    /// Starts a node, which hosts the left shard.
    pub(super) async fn run(&mut self, at: usize) {
        self.run_empty(at);
        self.open_left(at).await;
    }

    /// Starts a node, which opens nothing of what it has.
    fn run_empty(&mut self, at: usize) {
        let (env, network, id) = (self.env.clone(), self.network.clone(), NODES[at]);
        network.fetch(id);
        let settings = HostSettings::new(ClusterId(1), id);
        let log = Arc::new(self.disks[at].log.clone());
        let host = Host::start(&env, settings, log, Arc::new(network.of(id))).expect("a host");
        let over = Arc::new(AtomicBool::new(false));
        let (handle, clock, ended) = (host.handle(), env.clone(), over.clone());
        env.spawn(async move {
            while !ended.load(Ordering::Acquire) {
                match network.fetch(id) {
                    messages if messages.is_empty() => pause(&clock, Duration::from_millis(5)).await,
                    messages => drop(handle.receive(messages)),
                }
            }
        });
        let states = States { shelf: Shelf::default(), source: Some(Arc::new(self.couriers.clone())) };
        lock(&self.couriers.0).push((id, states.shelf.clone()));
        let cut = self.cut.clone();
        let step_hook = StepHook::new(move |step| match lock(&cut).take_if(|planned| *planned == (at, step)) {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        });
        let options = NodeOptions {
            dir: self.dir.path().join(id.0.to_string()),
            node: id,
            search_threads: 1,
            build_threads: 1,
            memory: MemoryBudget::new(1 << 40).expect("a budget"),
            release_memory: || (),
            shard: ShardOptions { seal_rows: 64, step_hook, ..ShardOptions::default() },
            states,
        };
        let engines = Engines { kv: Arc::new(self.disks[at].kv.clone()), index: Arc::new(ExactEngine) };
        let node = Node::start(env, options, engines, host.handle()).expect("a node");
        self.lives[at] = Some(Life { node, host, over });
    }

    async fn open_left(&self, at: usize) {
        self.node(at).ensure(spec(LEFT), NODES.to_vec(), None).await.expect("hosted");
    }

    pub(super) async fn open_right(&self, at: usize) -> Result<(), NodeError> {
        self.node(at).ensure_half(spec(RIGHT), NODES.to_vec(), None, LEFT).await
    }

    /// Has all nodes open the right shard, and asks for both as of the split from now on.
    pub(super) async fn serve(&mut self, split: Position) {
        self.asked = split.index;
        for at in ALL {
            while let Err(error) = self.open_right(at).await {
                assert!(matches!(error, NodeError::NotSplit { shard: RIGHT, left: LEFT }), "{error}");
                pause(&self.env, Duration::from_millis(10)).await;
            }
        }
    }

    /// Ends a node as a power cut would.
    pub(super) async fn crash(&mut self, at: usize) {
        let Life { node, host, over } = self.lives[at].take().expect("it runs");
        over.store(true, Ordering::Release);
        let disk = &mut self.disks[at];
        disk.log = disk.log.after_power_loss(0);
        for (shard, _) in node.replicas() {
            let home = Home::create(&self.dir.path().join(NODES[at].0.to_string()).join(shard.to_string()));
            disk.kv.crash(&home.and_then(|home| home.current()).expect("a home").join("db"), 0);
        }
        node.close().await;
        let _ = host.shutdown(self.env.now() + Duration::from_secs(1)).await;
    }

    pub(super) fn sight(&self, freshness: Freshness) -> Sight {
        Sight { freshness, split: self.asked }
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        &self.lives[at].as_ref().expect("it runs").node
    }

    pub(super) fn replica(&self, at: usize, shard: u64) -> Arc<Replica> {
        self.node(at).replica(shard).expect("hosted")
    }

    fn folder(&self, at: usize, shard: u64) -> std::path::PathBuf {
        self.dir.path().join(NODES[at].0.to_string()).join(shard.to_string())
    }

    pub(super) async fn leader(&self, shard: u64) -> usize {
        for _ in 0..6_000 {
            let leads = |at: &usize| {
                let replica = self.lives[*at].as_ref().and_then(|life| life.node.replica(shard).ok());
                replica.is_some_and(|replica| replica.status().role == Role::Leader)
            };
            if let Some(leader) = ALL.into_iter().find(leads) {
                return leader;
            }
            pause(&self.env, Duration::from_millis(10)).await;
        }
        panic!("nobody leads shard {shard} within a minute");
    }

    /// Does something at whoever leads, until somebody has.
    pub(super) async fn at_leader<T>(&self, shard: u64, act: impl AsyncFn(&Replica) -> Result<T, NodeError>) -> T {
        loop {
            let leader = self.replica(self.leader(shard).await, shard);
            match act(&leader).await {
                Ok(done) => return done,
                Err(NodeError::NotLeader { .. } | NodeError::Unknown(_) | NodeError::TooManyUnsealed) => {
                    pause(&self.env, Duration::from_millis(10)).await;
                }
                Err(error) => panic!("shard {shard}: {error}"),
            }
        }
    }

    /// Writes those of the points whose hashes are the shard's, ten at a time.
    pub(super) async fn write(&mut self, shard: u64, ids: std::ops::Range<u64>) {
        let (range, _) = HashRange::FULL.split(AT).expect("halves");
        let is_of = |id: &u64| shard == LEFT && self.replicas_split() == 0 || range.holds(num(*id)) == (shard == LEFT);
        let ids: Vec<u64> = ids.filter(is_of).collect();
        for ids in ids.chunks(10) {
            self.requests += 1;
            let change = Arc::new(Change::Upsert(ids.iter().map(|id| point(*id, USUAL, "")).collect()));
            let (request, asked) = (self.requests, self.asked);
            self.at_leader(shard, async |leader| {
                leader.write_as_of(asked, request, change.clone(), Wait::Committed, Deadline::NEVER).await
            })
            .await;
            self.written.extend(ids);
        }
    }

    /// How many replicas of the left shard have applied the split.
    fn replicas_split(&self) -> usize {
        let replicas = self.lives.iter().flatten().filter_map(|life| life.node.replica(LEFT).ok());
        replicas.filter(|replica| replica.shard().view().since() > 0).count()
    }

    pub(super) async fn split(&self) -> Position {
        self.at_leader(LEFT, async |leader| leader.split(u128::MAX, AT, RIGHT, Deadline::NEVER).await).await
    }

    /// Waits until all replicas of both shards have exactly what was written, each its half.
    pub(super) async fn all_have_all(&self) {
        for shard in [LEFT, RIGHT] {
            let wanted: Vec<u64> =
                self.written.iter().copied().filter(|id| (shard_hash(num(*id)) < AT) == (shard == LEFT)).collect();
            for at in ALL {
                for _ in 0..6_000 {
                    if self.held(at, shard) == wanted {
                        break;
                    }
                    pause(&self.env, Duration::from_millis(10)).await;
                }
                assert_eq!(self.held(at, shard), wanted, "shard {shard} at {at}");
            }
            let leader = self.replica(self.leader(shard).await, shard);
            let count = leader.count(None, self.sight(Freshness::Latest), Deadline::NEVER).await.expect("counted");
            assert_eq!(count, wanted.len() as u64, "shard {shard}");
        }
    }

    /// The ids of the points that a replica has.
    pub(super) fn held(&self, at: usize, shard: u64) -> Vec<u64> {
        let view = self.replica(at, shard).shard().view();
        let records = view.scroll(None, None, usize::MAX, &Selection::default(), &Never).expect("scrolled");
        let id = |id| if let PointId::Num(id) = id { id } else { panic!("{id}") };
        records.iter().map(|record| id(record.id)).collect()
    }

    /// Removes a half that was split off and not opened yet, as if the node had missed the split.
    fn lose_half(&self, at: usize) {
        let folder = self.folder(at, RIGHT);
        assert!(self.node(at).replica(RIGHT).is_err() && folder.exists());
        self.disks[at].kv.destroy(&folder.join("db")).expect("nobody has it open");
        fs::remove_dir_all(&folder).expect("removed");
    }

    /// Waits until so many replicas of the left shard have applied the split.
    async fn until_split(&self, replicas: usize) {
        while self.replicas_split() < replicas {
            pause(&self.env, Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn stop(mut self) {
        for life in self.lives.iter_mut().filter_map(Option::take) {
            life.over.store(true, Ordering::Release);
            life.node.close().await;
            life.host.shutdown(self.env.now() + Duration::from_secs(9)).await.expect("stopped");
        }
    }
}

pub(super) fn spec(shard: u64) -> ShardSpec {
    let vectors = [("v".to_owned(), VectorSpec { dim: USUAL, metric: Metric::L2, index: IndexPolicy::Flat })];
    ShardSpec { collection: 1, shard, schema: Schema { vectors: vectors.into(), ..Schema::default() } }
}

pub(super) fn num(id: u64) -> PointId {
    PointId::Num(id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn pause(env: &Env, time: Duration) {
    let _ = env.timeout(time, std::future::pending::<()>()).await;
}

#[tokio::test(start_paused = true)]
async fn halves_of_a_split_are_two_groups_of_the_same_nodes_and_come_back_after_a_power_cut() {
    for seed in 1..=3 {
        let mut fleet = Fleet::start(seed).await;
        let split = fleet.split().await;
        // At any moment: before the new group is founded, right after it, and when it has gone on.
        for round in 0..3 {
            fleet.until_split(3).await;
            for at in ALL {
                fleet.crash(at).await;
            }
            for at in ALL {
                fleet.run(at).await;
            }
            fleet.until_split(3).await;
            fleet.serve(split).await;
            fleet.all_have_all().await;
            if round > 0 {
                fleet.write(LEFT, 200 * round..200 * round + 100).await;
                fleet.write(RIGHT, 200 * round..200 * round + 100).await;
                fleet.all_have_all().await;
            }
        }
        for at in ALL {
            let status = fleet.replica(at, RIGHT).status();
            assert!(status.term > split.term && status.applied > split.index, "{status:?}");
            assert_eq!(fleet.replica(at, RIGHT).shard().born(), Some((split.index, split.term)));
        }
        assert_eq!(fleet.split().await, split, "asked once more it is not done once more");
        fleet.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_opens_no_half_before_the_split_has_come_there() {
    let mut fleet = Fleet::start(4).await;
    let behind = (fleet.leader(LEFT).await + 1) % 3;
    let others: Vec<_> = ALL.into_iter().filter(|at| *at != behind).map(|at| NODES[at]).collect();
    fleet.network.isolate(NODES[behind], &others);
    let split = fleet.split().await;
    // Also when it is told where the split was: its own half is on its way.
    let told = fleet.node(behind).ensure_half(spec(RIGHT), NODES.to_vec(), Some(split), LEFT).await;
    assert!(matches!(told, Err(NodeError::NotSplit { .. })), "{told:?}");
    let error = fleet.open_right(behind).await.expect_err("it has nothing of it");
    assert!(matches!(error, NodeError::NotSplit { shard: RIGHT, left: LEFT }) && error.is_of_other_points(), "{error}");
    assert!(!fleet.folder(behind, RIGHT).exists(), "an empty one would stay instead of the half");
    let mut changes = fleet.node(behind).changes();
    changes.mark_unchanged();
    fleet.network.heal();
    while fleet.replica(behind, LEFT).shard().view().since() == 0 {
        let told = fleet.env.timeout(Duration::from_secs(60), changes.changed()).await;
        told.expect("whoever waits is told").expect("the node is here");
    }
    fleet.serve(split).await;
    fleet.write(RIGHT, 200..260).await;
    fleet.all_have_all().await;
    assert!(fleet.replica(behind, RIGHT).shard().born().is_some(), "it has come from here");
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_the_left_half_whole_gets_the_right_one_from_its_group() {
    let mut fleet = Fleet::start(5).await;
    let leader = fleet.leader(LEFT).await;
    let behind = (leader + 1) % 3;
    let others: Vec<_> = ALL.into_iter().filter(|at| *at != behind).collect();
    fleet.network.isolate(NODES[behind], &others.iter().map(|at| NODES[*at]).collect::<Vec<_>>());
    let split = fleet.split().await;
    fleet.until_split(2).await;
    for at in others {
        fleet.replica(at, LEFT).shard().flush().expect("flushed");
        fleet.disks[at].log.crowd(GroupId(LEFT));
    }
    // Until the logs are looked at and cut.
    pause(&fleet.env, Duration::from_secs(10)).await;
    fleet.network.heal();
    fleet.until_split(3).await;
    let whole = fleet.replica(behind, LEFT).shard();
    assert!(whole.installed().is_some_and(|(index, _)| index >= split.index), "it came whole");
    assert!(!fleet.folder(behind, RIGHT).exists());
    drop(whole);
    fleet.open_right(behind).await.expect("it knows where the split was");
    fleet.asked = split.index;
    let read = fleet.replica(behind, RIGHT).count(None, fleet.sight(Freshness::Any), Deadline::NEVER).await;
    assert!(read.expect_err("it has nothing yet").is_of_other_points());
    fleet.serve(split).await;
    fleet.write(RIGHT, 200..260).await;
    fleet.all_have_all().await;
    fleet.crash(behind).await;
    fleet.run(behind).await;
    fleet.serve(split).await;
    fleet.all_have_all().await;
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_the_left_half_begins_the_right_one_where_it_is_told_that_the_split_was() {
    let mut fleet = Fleet::start(11).await;
    let split = fleet.split().await;
    fleet.until_split(3).await;
    let moved = (fleet.leader(LEFT).await + 1) % 3;
    fleet.lose_half(moved);
    fleet.node(moved).remove(LEFT).await.expect("removed");
    let begin = async |floor| fleet.node(moved).ensure_half(spec(RIGHT), NODES.to_vec(), floor, LEFT).await;
    let untold = begin(None).await;
    assert!(matches!(untold, Err(NodeError::NotSplit { .. })), "{untold:?}");
    begin(Some(split)).await.expect("hosted");
    fleet.asked = split.index;
    for at in ALL.into_iter().filter(|at| *at != moved) {
        fleet.open_right(at).await.expect("hosted");
    }
    fleet.write(RIGHT, 200..260).await;
    let wanted = fleet.held(fleet.leader(RIGHT).await, RIGHT);
    for _ in 0..6_000 {
        if fleet.held(moved, RIGHT) == wanted {
            break;
        }
        pause(&fleet.env, Duration::from_millis(10)).await;
    }
    assert_eq!(fleet.held(moved, RIGHT), wanted);
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_half_that_was_begun_empty_does_not_come_back_without_a_floor() {
    let mut fleet = Fleet::start(12).await;
    let split = fleet.split().await;
    fleet.until_split(3).await;
    let empty = (fleet.leader(LEFT).await + 1) % 3;
    fleet.lose_half(empty);
    fleet.open_right(empty).await.expect("it knows where the split was");
    fleet.crash(empty).await;
    // It does not say any more where the split was: the left half is not open.
    fleet.run_empty(empty);
    let begin = async |floor| fleet.node(empty).ensure_half(spec(RIGHT), NODES.to_vec(), floor, LEFT).await;
    let untold = begin(None).await;
    assert!(matches!(untold, Err(NodeError::NotSplit { .. })), "it would vote for anybody: {untold:?}");
    begin(Some(split)).await.expect("hosted");
    fleet.open_left(empty).await;
    fleet.serve(split).await;
    fleet.write(RIGHT, 200..230).await;
    fleet.all_have_all().await;
    // What it has fetched says where it began.
    fleet.crash(empty).await;
    fleet.run_empty(empty);
    fleet.open_right(empty).await.expect("hosted");
    fleet.open_left(empty).await;
    fleet.all_have_all().await;
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_by_filter_from_before_a_split_is_counted_by_one_half() {
    let mut fleet = Fleet::start(13).await;
    let all: Arc<_> = Change::DeleteByFilter(Filter::default()).into();
    let delete = async |fleet: &Fleet, shard| {
        let write = async |leader: &Replica| {
            leader.write_as_of(fleet.asked, 77, all.clone(), Wait::Committed, Deadline::NEVER).await
        };
        fleet.at_leader(shard, write).await.applied
    };
    assert_eq!(delete(&fleet, LEFT).await, 200);
    let split = fleet.split().await;
    fleet.serve(split).await;
    assert_eq!((delete(&fleet, LEFT).await, delete(&fleet, RIGHT).await), (200, 0), "the answer was lost");
    fleet.written.clear();
    fleet.all_have_all().await;
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_without_their_half_decide_nothing_without_one_that_has_it() {
    for seed in 6..=8 {
        let mut fleet = Fleet::start(seed).await;
        let split = fleet.split().await;
        fleet.until_split(3).await;
        for at in [1, 2] {
            fleet.lose_half(at);
        }
        fleet.crash(0).await;
        for at in [1, 2] {
            fleet.open_right(at).await.expect("hosted");
        }
        pause(&fleet.env, Duration::from_secs(60)).await;
        for at in [1, 2] {
            let status = fleet.replica(at, RIGHT).status();
            assert_eq!((status.role, status.leader, status.applied), (Role::Follower, None, 0), "node at {at}");
        }
        fleet.run(0).await;
        fleet.serve(split).await;
        assert_eq!(fleet.leader(RIGHT).await, 0);
        fleet.write(RIGHT, 200..230).await;
        fleet.all_have_all().await;
        fleet.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_by_another_split_than_the_replica_is_answered_by_none() {
    let mut fleet = Fleet::start(9).await;
    let leader = fleet.replica(fleet.leader(LEFT).await, LEFT);
    // It comes right after the split, from somebody who knows nothing of that, and reaches half of what it was meant for.
    let split = Split { request_id: u128::MAX, at: AT, right: RIGHT }.to_sealed();
    let all: Arc<_> = Change::DeleteByFilter(Filter::default()).into();
    let delete = |asked| leader.write_as_of(asked, 77, all.clone(), Wait::Committed, Deadline::NEVER);
    let (applied, deleted) = tokio::join!(leader.group().propose(split.into(), Duration::MAX), delete(0));
    let error = deleted.expect_err("it was done in part");
    assert!(error.is_in_doubt() && error.is_of_other_points(), "{applied:?}, {error}");
    let read = leader.count(None, Freshness::Any, Deadline::NEVER).await.expect_err("half of the points");
    assert!(read.is_of_other_points() && !read.is_in_doubt(), "{read}");
    let written = delete(0).await.expect_err("half of the points");
    assert!(written.is_of_other_points() && !written.is_in_doubt(), "nothing was begun: {written}");

    let split = fleet.split().await;
    let (lower, upper) = (fleet.held(fleet.leader(LEFT).await, LEFT), fleet.written.clone());
    assert!(lower.is_empty() && upper.len() == 200);
    fleet.serve(split).await;
    let again = delete(split.index).await.expect("the same request by the new route");
    let right = fleet.at_leader(RIGHT, async |right| {
        right.write_as_of(split.index, 77, all.clone(), Wait::Committed, Deadline::NEVER).await
    });
    assert_eq!(again.applied + right.await.applied, 200);
    fleet.written.clear();
    let strangers = Change::Upsert((0..20).map(|id| point(id, USUAL, "")).collect());
    let error = leader.write_as_of(split.index, 78, strangers.into(), Wait::Committed, Deadline::NEVER).await;
    let error = error.expect_err("misrouted");
    assert!(matches!(error, NodeError::Misrouted(_)) && error.is_of_other_points(), "{error}");
    fleet.all_have_all().await;
    drop(leader);
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_split_that_fails_at_any_step_is_gone_through_when_the_replica_is_opened_anew() {
    for step in Step::OF_SPLIT {
        for leads in [true, false] {
            println!("{step:?}, of the leader: {leads}");
            let mut fleet = Fleet::start(10).await;
            let leader = fleet.leader(LEFT).await;
            let fails = if leads { leader } else { (leader + 1) % 3 };
            *lock(&fleet.cut) = Some((fails, step));
            let split = Split { request_id: u128::MAX, at: AT, right: RIGHT }.to_sealed();
            let proposed = fleet.replica(leader, LEFT);
            let _outcome = proposed.group().propose(split.into(), Duration::MAX).await;
            drop(proposed);
            while fleet.node(fails).stopped().is_empty() {
                pause(&fleet.env, Duration::from_millis(10)).await;
            }
            fleet.open_left(fails).await;
            fleet.until_split(3).await;
            let split = fleet.split().await;
            fleet.serve(split).await;
            fleet.write(LEFT, 200..220).await;
            fleet.write(RIGHT, 200..220).await;
            fleet.all_have_all().await;
            assert!(ALL.into_iter().all(|at| fleet.replica(at, RIGHT).shard().born().is_some()));
            let home = Home::create(&fleet.folder(fails, LEFT)).and_then(|home| home.current()).expect("a home");
            assert!(!home.join("half").exists(), "nothing is left over");
            fleet.stop().await;
        }
    }
}
