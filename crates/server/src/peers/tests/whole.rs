//! Members of groups that lack what no log holds any more, over real sockets: shards with the twins of their engines, and the
//! control group.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_cluster::{Command, Replaces};
use sagitta_consensus::{
    GroupId, GroupStatus, Host, HostSettings, Members, MemoryLog, NodeId, Outcome, Role, Shelf, States,
};
use sagitta_coordinator::{Control, Decided};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, Effort, IndexPolicy, Metric, Object, Point, PointId, Schema, SearchQuery, Selection, VectorSpec, Wait,
};
use sagitta_node::{Freshness, MemoryBudget, Node, NodeError, NodeOptions, Replica};
use sagitta_shard::{Engines, ShardOptions, ShardSpec};
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::super::transport::outbound_in;
use super::super::{AddressBook, Guests, Lending, PeerCounters, PeerListener, Sending, StateFetcher, Throttle};
use super::rig::*;

const SHARD: u64 = 7;
const CONTROL: GroupId = GroupId(1);
const DIM: usize = 4;
const LONG: Duration = Duration::from_secs(100);

/// A node: what outlives it, and what runs of it.
struct Member {
    id: u64,
    dir: tempfile::TempDir,
    log: Arc<MemoryLog>,
    engine: MemoryEngine,
    running: Option<Running>,
}

struct Running {
    host: Host,
    node: Node,
    states: States,
    counters: Arc<PeerCounters>,
    sending: Sending,
    listener: Option<PeerListener>,
}

struct Fleet {
    env: Env,
    book: AddressBook,
    members: Vec<Member>,
    /// What all of them send whole goes through it.
    throttle: Throttle,
}

impl Fleet {
    async fn start(count: u64) -> Self {
        let env = Env::real();
        let throttle = Throttle::new(&env, 1 << 40);
        let mut fleet = Self { env, book: AddressBook::default(), members: Vec::new(), throttle };
        for id in 1..=count {
            let dir = tempfile::tempdir().unwrap();
            let (log, engine) = (Arc::new(MemoryLog::new()), MemoryEngine::new());
            fleet.members.push(Member { id, dir, log, engine, running: None });
            fleet.run(fleet.members.len() - 1).await;
        }
        fleet
    }

    async fn run(&mut self, at: usize) {
        let (env, book) = (self.env.clone(), self.book.clone());
        let member = &mut self.members[at];
        let me = identity(member.id);
        let counters = Arc::new(PeerCounters::default());
        let (transport, outbound) = outbound_in(&env, me, book.clone(), counters.clone(), brisk());
        let settings = HostSettings { tick: Duration::from_millis(50), ..HostSettings::new(CLUSTER, me.node) };
        let host = Host::start(&env, settings, member.log.clone(), Arc::new(transport)).unwrap();
        let sending = outbound.start(Arc::new(host.handle()));
        let fetcher = StateFetcher::start_in(&env, me, book, brisk());
        let states = States { shelf: Shelf::default(), source: Some(Arc::new(fetcher)) };
        let options = NodeOptions {
            dir: member.dir.path().join("shards"),
            node: me.node,
            search_threads: 1,
            build_threads: 1,
            memory: MemoryBudget::new(1 << 40).unwrap(),
            release_memory: || (),
            shard: ShardOptions { seal_rows: 16, ..ShardOptions::default() },
            states: states.clone(),
        };
        let engines = Engines { kv: Arc::new(member.engine.clone()), index: Arc::new(ExactEngine) };
        let node = Node::start(env, options, engines, host.handle()).unwrap();
        member.running = Some(Running { host, node, states, counters, sending, listener: None });
        self.listen(at).await;
    }

    async fn listen(&mut self, at: usize) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let id = self.members[at].id;
        let running = self.members[at].running.as_mut().unwrap();
        let inbox = Arc::new(running.host.handle());
        let lending = Lending { shelf: running.states.shelf.clone(), throttle: self.throttle.clone() };
        let counters = running.counters.clone();
        let listener = PeerListener::start(
            &self.env,
            socket,
            Guests::of(identity(id)),
            inbox,
            lending,
            counters,
            Routes::default(),
        )
        .unwrap();
        self.book.set(NodeId(id), uri(listener.address()));
        running.listener = Some(listener);
    }

    async fn stop_listening(&mut self, at: usize) {
        let listener = self.members[at].running.as_mut().unwrap().listener.take();
        listener.unwrap().stop().await;
    }

    async fn stop(&mut self, at: usize) {
        let running = self.members[at].running.take().unwrap();
        running.node.close().await;
        if let Some(listener) = running.listener {
            listener.stop().await;
        }
        running.sending.stop().await;
        running.host.shutdown(self.env.now() + LONG).await.unwrap();
    }

    fn running(&self, at: usize) -> &Running {
        self.members[at].running.as_ref().unwrap()
    }

    async fn host_shard(&self, at: usize) {
        let vectors = [("v".to_owned(), VectorSpec { dim: DIM, metric: Metric::L2, index: IndexPolicy::Flat })];
        let schema = Schema { vectors: vectors.into(), ..Schema::default() };
        let spec = ShardSpec { collection: 1, shard: SHARD, schema };
        self.running(at).node.ensure(spec, [1, 2, 3].map(NodeId).to_vec(), None).await.unwrap();
    }

    fn replica(&self, at: usize) -> Arc<Replica> {
        self.running(at).node.replica(SHARD).unwrap()
    }

    fn status(&self, at: usize) -> GroupStatus {
        self.replica(at).status()
    }

    async fn leader(&self) -> usize {
        let find = || (0..self.members.len()).find(|at| self.status(*at).role == Role::Leader);
        until("a leader", || find().is_some()).await;
        find().unwrap_or_default()
    }

    /// Writes at whoever leads, until it is done.
    async fn write(&self, request: u128, change: Change) -> u64 {
        let change = Arc::new(change);
        loop {
            let leader = self.replica(self.leader().await);
            match leader.write(request, change.clone(), Wait::Committed, Deadline::NEVER).await {
                Ok(result) => return result.tokens[0].index,
                // Or sealing is behind.
                Err(NodeError::NotLeader { .. } | NodeError::Unknown(_) | NodeError::TooManyUnsealed) => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn upsert(&self, ids: std::ops::Range<u64>) -> u64 {
        let mut last = 0;
        let ids: Vec<_> = ids.collect();
        for part in ids.chunks(5) {
            let points = part.iter().map(|id| point(*id)).collect();
            last = self.write(u128::from(part[0]) + 1, Change::Upsert(points)).await;
        }
        last
    }

    /// What a member answers once it has an entry: points with their versions, and the nearest of a few places.
    async fn answers(&self, at: usize, index: u64) -> Vec<String> {
        let replica = self.replica(at);
        let fresh = Freshness::AtLeast(index);
        let all = replica.scroll(None, None, 10_000, Selection::default(), fresh, Deadline::NEVER).await.unwrap();
        let mut answers: Vec<_> = all.iter().map(|record| format!("{} {}", record.id, record.version)).collect();
        let queries: Vec<_> = (0..5).map(|at| (query(at as f32 * 31.0), Selection::default())).collect();
        let found = replica.search(queries.into(), false, fresh, Deadline::NEVER).await.unwrap();
        answers
            .extend(found.iter().flat_map(|result| &result.hits).map(|hit| format!("{} {}", hit.id, hit.similarity)));
        answers
    }

    async fn agree(&self, index: u64) {
        let expected = within("an answer", self.answers(0, index)).await;
        assert!(expected.len() > 50, "{expected:?}");
        for at in 1..self.members.len() {
            assert_eq!(within("an answer", self.answers(at, index)).await, expected, "member {at}");
        }
    }

    fn home(&self, at: usize) -> PathBuf {
        self.members[at].dir.path().join("shards").join(SHARD.to_string())
    }

    async fn open_control(&self, at: usize) -> Control {
        let running = self.running(at);
        let dir = self.members[at].dir.path().join("control");
        let founders = vec![NodeId(1)];
        let host = running.host.handle();
        Control::open(&self.env, &dir, CLUSTER.0, founders, &host, running.states.clone()).await.unwrap()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_follower_that_was_away_while_the_log_was_cut_catches_up_by_the_whole_state() {
    let mut fleet = Fleet::start(3).await;
    for at in 0..3 {
        fleet.host_shard(at).await;
    }
    let last = fleet.upsert(0..40).await;
    fleet.agree(last).await;
    let away = (fleet.leader().await + 1) % 3;
    fleet.stop_listening(away).await;
    fleet.upsert(40..200).await;
    let last = fleet.write(1_000, Change::Delete((0..50).step_by(3).map(PointId::Num).collect())).await;
    let had = fleet.status(away).last;
    for member in &fleet.members {
        member.log.crowd(GroupId(SHARD));
    }
    let leader = fleet.leader().await;
    until("the log is cut", || fleet.status(leader).first > had + 1).await;
    assert!(fleet.status(away).applied < last, "it hears nothing");

    fleet.listen(away).await;
    until("it has all", || fleet.status(away).applied >= last).await;
    fleet.agree(last).await;
    assert!(fleet.home(away).join("current").is_file(), "by entries alone it would not have come so far");
    assert!(fleet.throttle.was_asked(), "no file is sent faster than files may be");
    let last = fleet.upsert(200..240).await;
    fleet.agree(last).await;
    // What is of no more use goes, here and there.
    until("the old state is removed", || !fleet.home(away).join("segments").exists()).await;
    for at in 0..3 {
        until("nothing is offered any more", || fleet.running(at).states.shelf.offers().is_empty()).await;
        let offers = || std::fs::read_dir(fleet.home(at).join("offers")).map_or(0, Iterator::count);
        until("no files of offers are left", || offers() == 0).await;
    }

    // The state that was fetched is the member's own from then on.
    fleet.stop(away).await;
    fleet.run(away).await;
    fleet.host_shard(away).await;
    let last = fleet.upsert(240..260).await;
    until("it follows again", || fleet.status(away).applied >= last).await;
    fleet.agree(last).await;
    for at in 0..3 {
        fleet.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_the_leader_has_built_is_fetched_and_adopted_by_the_others() {
    let mut fleet = Fleet::start(3).await;
    for at in 0..3 {
        fleet.host_shard(at).await;
    }
    let mut last = 0;
    for round in 0..3 {
        last = fleet.upsert(round * 20..round * 20 + 20).await;
        until("all have sealed it", || {
            (0..3).all(|at| {
                fleet.status(at).applied >= last && fleet.replica(at).statistics().indexed_points > round * 20
            })
        })
        .await;
    }
    fleet.agree(last).await;
    let leader = fleet.leader().await;
    for at in (0..3).filter(|at| *at != leader) {
        let origins = fleet.replica(at).segment_origins();
        println!("{origins:?}");
        assert!(origins.adopted > 0 && origins.refused == 0, "{origins:?}");
    }
    for at in 0..3 {
        fleet.stop(at).await;
    }
}

/// Proposes at whoever leads, until it is decided: the same again changes nothing.
async fn propose(controls: &[&Control], number: u64) {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    let command = Bytes::from(Command::SetJoinToken { digest, replaces: Replaces::Any }.encode());
    let deciding = async {
        loop {
            for control in controls {
                let deadline = Env::real().deadline(LONG);
                if let Ok(Decided::Done(_)) = control.propose(command.clone(), deadline).await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    within("a decision", deciding).await;
}

async fn change(control: &Control, voters: &[u64], learners: &[u64], env: &Env) {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let members = Members { voters: nodes(voters), learners: nodes(learners) };
    loop {
        let changed = control.group().change_members(members.clone(), env.now() + LONG);
        match within("the members change", changed).await {
            Outcome::Applied(_) => return,
            // It has not caught up yet.
            Outcome::Refused(_) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_joins_when_the_log_is_cut_gets_the_control_state_whole_and_keeps_its_members() {
    let mut fleet = Fleet::start(2).await;
    let env = fleet.env.clone();
    let old = fleet.open_control(0).await;
    until("it leads", || old.group().status().role == Role::Leader).await;
    for number in 0..300 {
        propose(&[&old], number).await;
    }
    fleet.members[0].log.crowd(CONTROL);
    until("the log is cut", || old.group().status().first > 100).await;

    let new = fleet.open_control(1).await;
    change(&old, &[1], &[2], &env).await;
    until("it has all", || *new.applied().borrow() >= old.group().status().applied).await;
    let file = || std::fs::read_to_string(fleet.members[1].dir.path().join("control/state.json")).unwrap_or_default();
    assert!(file().contains("\"installed\":["), "by entries alone it would not have come so far: {}", file());
    change(&old, &[1, 2], &[], &env).await;
    propose(&[&old, &new], 1_000).await;
    until("it follows", || new.state() == old.state()).await;
    let members = old.group().status().membership;
    assert_eq!(members.voters, [1, 2].map(NodeId));

    // Both know who belongs to the group when they come back, whatever their logs hold.
    for at in [1, 0] {
        fleet.stop(at).await;
    }
    for at in [0, 1] {
        fleet.run(at).await;
    }
    let (old, new) = (fleet.open_control(0).await, fleet.open_control(1).await);
    for control in [&old, &new] {
        assert_eq!(control.group().status().membership, members);
    }
    propose(&[&old, &new], 2_000).await;
    until("they agree", || new.state() == old.state()).await;
    for at in 0..2 {
        fleet.stop(at).await;
    }
}
