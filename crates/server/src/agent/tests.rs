//! An agent of a node over the twins of its engines.

use sagitta_cluster::schedule::{View, merge_steps};
use sagitta_cluster::{
    Command, Floor, Limits, MergeStep, NodeStatus, OperationKind, OperationStep, Place, Roles, SplitStep, Told, plan,
};
use sagitta_consensus::{ClusterId, Host, HostSettings, Membership, MemoryLog, SilentTransport, States};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::{EngineMemory, FamilySpec, Kv, KvEngine, KvError, KvOptions, KvRead, MemoryEngine};
use sagitta_env::Deadline;
use sagitta_model::{Change, IndexPolicy, Metric, Object, Point, PointId, Schema, VectorSpec, Wait};
use sagitta_node::{Freshness, MemoryBudget, NodeOptions, Progress, Pull, Pulled, Pump, Sight, Source};
use sagitta_shard::{Engines, ShardOptions, Step, StepHook};

use super::*;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, mpsc};

/// The node.
pub(crate) const ME: u64 = 1;

/// A node of the cluster 1 that hosts nothing yet, in a folder.
pub(crate) fn node(dir: &Path) -> (Host, Arc<Node>) {
    node_with(dir, MemoryEngine::new(), ShardOptions::default())
}

/// The same with other engines and settings of its shards.
fn node_with(dir: &Path, kv: impl KvEngine + 'static, shard: ShardOptions) -> (Host, Arc<Node>) {
    let env = Env::real();
    let settings = HostSettings::new(ClusterId(1), NodeId(ME));
    let host = Host::start(&env, settings, Arc::new(MemoryLog::new()), Arc::new(SilentTransport)).unwrap();
    let options = NodeOptions {
        dir: dir.join("shards"),
        node: NodeId(ME),
        search_threads: 1,
        build_threads: 1,
        memory: MemoryBudget::new(1 << 40).unwrap(),
        release_memory: || (),
        shard,
        states: States::default(),
    };
    let engines = Engines { kv: Arc::new(kv), index: Arc::new(ExactEngine) };
    let node = Node::start(env, options, engines, host.handle()).unwrap();
    (host, Arc::new(node))
}

pub(crate) fn join() -> Command {
    let place = Place {
        peer_address: "http://n1:2".to_owned(),
        api_address: "http://n1:1".to_owned(),
        zone: String::new(),
        roles: Roles { coordinator: true, shard: true },
    };
    Command::Join { id: ME, incarnation: 1, run: 0, place, unix_micros: 1 }
}

pub(crate) fn create(request_id: u128) -> Command {
    let mut schema = Schema::default();
    schema.vectors.insert("v".to_owned(), VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Flat });
    let (id, name) = (request_id, "c".parse().unwrap());
    Command::CreateCollection { request_id, id, name, schema, shards: 1, replication: 1, unix_micros: 1 }
}

/// The shard of [`create`], and what it is split into.
pub(crate) const LEFT: u64 = 16;
pub(crate) const RIGHT: u64 = 17;
pub(crate) const MIDDLE: u64 = 1 << 63;

/// Brings the split of [`LEFT`] up to a step.
pub(crate) fn split_up_to(state: &mut State, last: SplitStep) {
    let (epoch, at, reason) = (1, MIDDLE, String::new());
    // Said once more, both change nothing.
    state.apply(Command::BeginSplit { shard: LEFT, epoch, at, reason, unix_micros: 1, unasked: false }).unwrap();
    let steps = [SplitStep::Prepare, SplitStep::Divide, SplitStep::Found, SplitStep::Done];
    for pair in steps.windows(2).take_while(|pair| pair[1] <= last) {
        let (from, to, at) = (pair[0], pair[1], Floor { term: 3, index: 70 });
        state.apply(Command::AdvanceSplit { id: 1, from, to, at, unix_micros: 2 }).unwrap();
    }
}

#[tokio::test]
async fn a_node_says_that_it_has_followed_a_deletion_once_all_is_removed_and_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    // A state can be kept once its folder is there.
    let folder = dir.path().join("state");
    let followed = Followed::open(folder.join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let reports = agent.reports();
    let told = async |agent: &Agent| {
        agent.report().await;
        let report = reports.borrow();
        (report.replicas.len(), report.deletions)
    };
    let mut state = State::new(1);
    let up = Command::SetNodeStatus { id: ME, status: NodeStatus::Up };
    for command in [join(), up, create(1)] {
        state.apply(command).unwrap();
    }
    agent.follow(&Seen { index: 1, state: Arc::new(state.clone()) }).await.unwrap();
    assert_eq!(told(&agent).await, (1, 0));
    let name = "c".parse().unwrap();
    state.apply(Command::DeleteCollection { request_id: 2, name, keep_name: true }).unwrap();
    let deleted = Seen { index: 2, state: Arc::new(state) };
    agent.follow(&deleted).await.unwrap_err();
    assert_eq!(told(&agent).await, (1, 0), "after a restart it would follow the older state");
    fs::create_dir(&folder).unwrap();
    agent.follow(&deleted).await.unwrap();
    assert_eq!(told(&agent).await, (0, 1));
    node.close().await;
}

#[tokio::test]
async fn a_node_that_never_had_the_replica_has_followed_a_deletion_only_once_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let folder = dir.path().join("state");
    let followed = Followed::open(folder.join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let mut state = State::new(1);
    let name = "c".parse().unwrap();
    let up = Command::SetNodeStatus { id: ME, status: NodeStatus::Up };
    for command in [join(), up, create(1), Command::DeleteCollection { request_id: 2, name, keep_name: true }] {
        state.apply(command).unwrap();
    }
    let deleted = Seen { index: 2, state: Arc::new(state) };
    agent.follow(&deleted).await.expect_err("to be tried again");
    assert_eq!(agent.deletions, 0);
    fs::create_dir(&folder).unwrap();
    agent.follow(&deleted).await.unwrap();
    assert_eq!(agent.deletions, 1);
    node.close().await;
}

/// Agrees on a command and has the agent follow the state.
async fn decide(agent: &mut Agent, state: &mut State, command: Command) {
    state.apply(command).unwrap();
    let index = agent.followed.last().map_or(1, |last| last.index + 1);
    agent.follow(&Seen { index, state: Arc::new(state.clone()) }).await.unwrap();
}

#[tokio::test]
async fn a_replica_goes_once_another_has_its_place_and_comes_back_above_where_the_log_stood() {
    use OperationStep::{Cancelled, CatchUp, Done, Drop, Join, Switch, Undo};
    const OTHER: u64 = 2;
    const SHARD: u64 = 16;
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let up = |id| Command::SetNodeStatus { id, status: NodeStatus::Up };
    let roles = Roles { coordinator: false, shard: true };
    let place = Place { peer_address: "http://n2:2".into(), api_address: "http://n2:1".into(), zone: "".into(), roles };
    let other = Command::Join { id: OTHER, incarnation: 2, run: 0, place, unix_micros: 1 };
    let mut state = State::new(1);
    for command in [join(), up(ME), create(1), other, up(OTHER)] {
        state.apply(command).unwrap();
    }
    let begin = |from: u64, to: u64, epoch: u64| {
        let (kind, from, reason) = (OperationKind::Move, Some(from), String::new());
        Command::BeginOperation { kind, shard: SHARD, epoch, from, to, reason, unix_micros: 1 }
    };
    let at = Floor { term: 7, index: 100 };
    let advance = |id, from, to| Command::AdvanceOperation { id, from, to, at, unix_micros: 1 };
    for command in [begin(ME, OTHER, 1), advance(1, Join, CatchUp), advance(1, CatchUp, Switch)] {
        decide(&mut agent, &mut state, command).await;
        assert!(node.replica(SHARD).is_ok(), "nobody else may have what it holds");
    }
    decide(&mut agent, &mut state, advance(1, Switch, Drop)).await;
    assert_eq!(node.hosted().unwrap(), [0; 0]);
    decide(&mut agent, &mut state, advance(1, Drop, Done)).await;
    decide(&mut agent, &mut state, begin(OTHER, ME, 2)).await;
    let status = node.replica(SHARD).unwrap().status();
    assert_eq!((status.role, status.term), (Role::Follower, at.term), "it founded its group anew");
    decide(&mut agent, &mut state, advance(2, Join, Undo)).await;
    assert_eq!(node.hosted().unwrap(), [SHARD], "it is a member yet");
    decide(&mut agent, &mut state, advance(2, Undo, Cancelled)).await;
    assert_eq!(node.hosted().unwrap(), [0; 0]);
    node.close().await;
}

#[test]
fn only_a_leader_tells_the_members_and_not_while_they_are_being_changed() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let now = Membership { voters: ids(&[3, 1, 2]), learners: ids(&[5, 4]), ..Membership::default() };
    let joint = Membership { outgoing: ids(&[1, 2, 6]), ..now.clone() };
    let told = |role, membership: &Membership| {
        let (leader, condition, membership) = (Some(NodeId(1)), Condition::Running, membership.clone());
        let (term, committed, applied, durable, first, last, last_term) = (5, 9, 9, 9, 1, 9, 5);
        let status = GroupStatus {
            role,
            leader,
            term,
            committed,
            applied,
            durable,
            first,
            last,
            last_term,
            membership,
            condition,
        };
        members(&status)
    };
    let expected = GroupMembers { voters: vec![1, 2, 3], learners: vec![4, 5] };
    assert_eq!(told(Role::Leader, &now), Some(expected));
    assert_eq!(told(Role::Leader, &joint), None, "the old voters are needed yet");
    assert_eq!((told(Role::Follower, &now), told(Role::Candidate, &now)), (None, None), "others may know more");
}

#[test]
fn what_fails_again_and_again_is_tried_at_growing_distances_up_to_a_bound_and_what_fails_anew_is_tried_soon() {
    let mut retry = Retry::default();
    let mut now = Duration::from_secs(1_000);
    let secs = |retry: &Retry, now: Duration| (retry.due.expect("to be tried again") - now).as_secs();
    retry.failed(now);
    let mut waits = Vec::new();
    for round in 0..5 {
        waits.push(secs(&retry, now));
        // A control state in between, and being told once more, put nothing off.
        retry.tried(now + Duration::from_secs(1), false);
        retry.failed(now + Duration::from_secs(2));
        assert_eq!(secs(&retry, now), waits[round]);
        now = retry.due.expect("to be tried again");
        // A replica that cannot be opened, and one that opens and stops at once.
        retry.tried(now, round % 2 == 0);
        now += Duration::from_secs(u64::from(round % 2 == 0));
        retry.failed(now);
    }
    assert_eq!(waits, [10, 20, 40, 60, 60]);
    now = retry.due.expect("to be tried again");
    retry.tried(now, true);
    assert_eq!(retry.due, None);
    now += RETRY_AT_MOST;
    retry.failed(now);
    assert_eq!(secs(&retry, now), 10, "it has worked for a minute");
}

#[tokio::test]
async fn a_shard_is_split_as_is_agreed_and_both_have_what_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let env = Env::real();
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let agent = Agent::new(env.clone(), ME, node.clone(), Placed::default(), followed);
    let mut reports = agent.reports();
    let (states, seen) = watch::channel(None);
    env.spawn(crate::steward::Steward::new(env.clone(), ME, node.clone()).run(seen.clone()));
    env.spawn(agent.run(seen));
    let mut state = State::new(1);
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }, create(1)] {
        state.apply(command).unwrap();
    }
    let mut index = 0;
    let mut agree = |state: &State| {
        index += 1;
        states.send_replace(Some(Seen { index, state: Arc::new(state.clone()) }));
    };
    agree(&state);
    let hosted = |report: &Report, shard: u64| report.replicas.iter().any(|replica| replica.shard == shard);
    reports.wait_for(|report| hosted(report, LEFT)).await.unwrap();
    let point =
        |id| Point { id: PointId::Num(id), vectors: [("v".into(), vec![1.0])].into(), payload: Object::default() };
    let change = Arc::new(Change::Upsert((0..100).map(point).collect()));
    node.replica(LEFT).unwrap().write(1, change, Wait::Committed, Deadline::NEVER).await.unwrap();

    let (epoch, at, reason) = (1, 1 << 63, String::new());
    state.apply(Command::BeginSplit { shard: LEFT, epoch, at, reason, unix_micros: 1, unasked: false }).unwrap();
    let mut steps = Vec::new();
    while steps.last() != Some(&SplitStep::Done) {
        agree(&state);
        reports.changed().await.unwrap();
        let told = Told { report: Some(Arc::new(reports.borrow_and_update().clone())), silence: Duration::ZERO };
        for command in plan(&state, &[(ME, told)].into(), &Limits::default(), 2).commands {
            if let Command::AdvanceSplit { to, .. } = &command {
                steps.push(*to);
            }
            state.apply(command).unwrap();
            state.check(None).unwrap();
        }
    }
    assert_eq!(steps, [SplitStep::Divide, SplitStep::Found, SplitStep::Done]);
    let mut counted = Vec::new();
    for shard in [LEFT, RIGHT] {
        let split = state.shard(shard).unwrap().1.split.unwrap().index;
        let sight = Sight { freshness: Freshness::Latest, split };
        counted.push(node.replica(shard).unwrap().count(None, sight, Deadline::NEVER).await.unwrap());
    }
    assert!(counted[0] > 30 && counted[1] > 30 && counted[0] + counted[1] == 100, "{counted:?}");
    drop(states);
    node.close().await;
}

#[tokio::test]
async fn a_collection_that_is_deleted_while_its_shard_is_split_leaves_neither_half() {
    let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
    let ((told, mut reached), (release, released)) = (watch::channel(false), mpsc::channel());
    let released = Mutex::new(released);
    let step_hook = StepHook::new(move |step| {
        if step == Step::HalfSynced {
            told.send_replace(true);
            released.lock().unwrap().recv().unwrap();
        }
        ControlFlow::Continue(())
    });
    let (_host, node) = node_with(dir.path(), MemoryEngine::new(), ShardOptions { step_hook, ..Default::default() });
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let mut agent = Agent::new(env.clone(), ME, node.clone(), Placed::default(), followed);
    let mut state = State::new(1);
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }, create(1)] {
        state.apply(command).unwrap();
    }
    split_up_to(&mut state, SplitStep::Divide);
    agent.follow(&Seen { index: 1, state: Arc::new(state.clone()) }).await.unwrap();
    let left = node.replica(LEFT).unwrap();
    env.spawn(async move { left.split(1, MIDDLE, RIGHT, Deadline::NEVER).await });
    reached.wait_for(|reached| *reached).await.unwrap();
    let name = "c".parse().unwrap();
    state.apply(Command::DeleteCollection { request_id: 2, name, keep_name: true }).unwrap();
    let deleted = Seen { index: 2, state: Arc::new(state) };
    // The other half gets its name once it has been looked for what is to be removed.
    let name_it = async {
        while node.replica(LEFT).is_ok() {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
    };
    let (followed, ()) = tokio::join!(agent.follow(&deleted), name_it);
    followed.unwrap();
    assert_eq!((node.hosted().unwrap(), agent.deletions), (vec![], 1));
    node.close().await;
}

#[tokio::test]
async fn a_half_that_waits_for_one_that_cannot_be_opened_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let mut state = State::new(1);
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }, create(1)] {
        state.apply(command).unwrap();
    }
    split_up_to(&mut state, SplitStep::Done);
    // Where a folder is expected.
    let left = dir.path().join("shards").join(LEFT.to_string());
    fs::write(&left, "planted").unwrap();
    let seen = Seen { index: 1, state: Arc::new(state) };
    for _ in 0..2 {
        agent.follow(&seen).await.unwrap_err();
        assert!(agent.waits_for_split && agent.blocked == [RIGHT].into());
        let (kind, message) = agent.placed.problem(RIGHT).unwrap();
        assert!(kind == ErrorKind::Unavailable && message.contains("to be split off"), "{message}");
    }
    fs::remove_file(&left).unwrap();
    agent.follow(&seen).await.unwrap();
    assert_eq!(agent.blocked, [].into());
    node.close().await;
}

/// An engine whose databases open when they may.
struct Slow {
    inner: MemoryEngine,
    opens: Mutex<mpsc::Receiver<()>>,
}

impl KvEngine for Slow {
    fn open(&self, dir: &Path, families: &[FamilySpec], options: &KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        self.opens.lock().unwrap().recv().unwrap();
        self.inner.open(dir, families, options)
    }

    fn open_read_only(
        &self,
        dir: &Path,
        families: &[FamilySpec],
        options: &KvOptions,
    ) -> Result<Box<dyn KvRead>, KvError> {
        self.inner.open_read_only(dir, families, options)
    }

    fn destroy(&self, dir: &Path) -> Result<(), KvError> {
        self.inner.destroy(dir)
    }

    fn memory(&self) -> EngineMemory {
        self.inner.memory()
    }
}

#[tokio::test]
async fn a_node_goes_on_reporting_while_a_replica_takes_long_to_open() {
    let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
    let (open, opens) = mpsc::channel();
    let slow = Slow { inner: MemoryEngine::new(), opens: Mutex::new(opens) };
    let (_host, node) = node_with(dir.path(), slow, ShardOptions::default());
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let agent = Agent::new(env.clone(), ME, node.clone(), Placed::default(), followed);
    let placed = agent.placed.clone();
    let mut reports = agent.reports();
    let mut state = State::new(1);
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }, create(1)] {
        state.apply(command).unwrap();
    }
    let (states, seen) = watch::channel(Some(Seen { index: 1, state: Arc::new(state) }));
    env.spawn(agent.run(seen));
    while placed.epoch(LEFT).is_none() {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        reports.mark_unchanged();
        env.timeout(10 * REPORT_EVERY, reports.changed()).await.expect("it reports").unwrap();
        assert_eq!(reports.borrow().replicas, []);
    }
    open.send(()).unwrap();
    reports.wait_for(|report| report.replicas.len() == 1).await.unwrap();
    drop(states);
    node.close().await;
}

#[tokio::test]
async fn a_node_follows_no_control_group_that_has_gone_on_from_before_what_it_has_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let followed = || Followed::open(dir.path().join("followed.json")).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed());
    let mut agent = agent.heeding(move |state| hearing.lock().unwrap().push(state.era()));
    let mut state = State::new(1);
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }] {
        state.apply(command).unwrap();
    }
    // Another coordinator, which is lost.
    let Command::Join { place, .. } = join() else { unreachable!("it joins") };
    let [peer_address, api_address] = [2, 1].map(|port| format!("http://n2:{port}"));
    let place = Place { peer_address, api_address, ..place };
    state.apply(Command::Join { id: 2, incarnation: 2, run: 0, place, unix_micros: 1 }).unwrap();
    let recovered = |mut state: State, ended: u64| {
        let lost = vec![2];
        state.apply(Command::RecoverControl { survivor: ME, lost, era: state.era(), ended }).unwrap();
        Seen::at(ended + 3, Arc::new(state))
    };
    // What the survivor knows, and what only this node and the lost one do: a replica has come here.
    let (before, ended) = (state.clone(), 10);
    state.apply(create(1)).unwrap();
    agent.follow(&Seen::at(ended + 1, Arc::new(state.clone()))).await.unwrap();
    assert_eq!(node.hosted().unwrap(), [LEFT]);
    agent.report().await;
    assert_eq!(agent.reports().borrow().shortage, None);
    for _ in 0..2 {
        agent.follow(&recovered(before.clone(), ended)).await.unwrap();
    }
    assert_eq!(node.hosted().unwrap(), [LEFT], "what it has heard of is not undone");
    assert_eq!(*heard.lock().unwrap(), [0, 1, 1], "but who was given up is heard no more");
    agent.report().await;
    let told = agent.reports().borrow().clone();
    let why = told.shortage.expect("it says so");
    assert!(why.contains("goes on from entry 10, and this node has followed 11"), "{why}");
    assert_eq!(told.deletions, 0, "it has not followed who was given up");
    assert_eq!(followed().last().unwrap().state.era(), 0);

    // One that has all of it is followed, and what is older is not.
    let newer = recovered(state, ended + 1);
    agent.follow(&newer).await.unwrap();
    agent.report().await;
    let told = agent.reports().borrow().clone();
    assert_eq!((told.shortage, told.deletions), (None, newer.state.deletions()));
    assert_eq!((node.hosted().unwrap(), followed().last().unwrap().index), (vec![LEFT], newer.index));
    agent.follow(&Seen::at(1 << 20, Arc::new(before))).await.unwrap();
    assert_eq!(followed().last().unwrap().state.era(), 1, "whatever the lost ones agree on");
    node.close().await;
}

#[tokio::test]
async fn a_replica_that_is_left_alone_goes_on_alone_once_the_state_that_says_so_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node) = node(dir.path());
    let folder = dir.path().join("state");
    fs::create_dir(&folder).unwrap();
    let followed = Followed::open(folder.join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let status = |id, status| Command::SetNodeStatus { id, status };
    let mut state = State::new(1);
    let point = Point { id: PointId::Num(1), vectors: [("v".to_owned(), vec![1.0])].into(), payload: Object::new() };
    let write = async |replica: &Replica, request: u128| {
        let change = || Arc::new(Change::Upsert(vec![point.clone()]));
        while replica.write(request, change(), Wait::Committed, Deadline::NEVER).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let Command::CreateCollection { request_id, id, name, schema, shards, unix_micros, .. } = create(1) else {
        unreachable!("it creates one")
    };
    let create = Command::CreateCollection { request_id, id, name, schema, shards, replication: 1, unix_micros };
    for command in [join(), status(1, NodeStatus::Up), create] {
        state.apply(command).unwrap();
    }
    agent.follow(&Seen { index: 1, state: Arc::new(state.clone()) }).await.unwrap();
    let before = node.replica(LEFT).unwrap();
    write(&before, 1).await;
    // As if it had two others, which nobody has heard of yet.
    for id in [2, 3] {
        let roles = Roles { coordinator: false, shard: true };
        let addresses = [2, 1].map(|port| format!("http://n{id}:{port}"));
        let [peer_address, api_address] = addresses;
        let place = Place { peer_address, api_address, zone: String::new(), roles };
        state.apply(Command::Join { id, incarnation: id.into(), run: 0, place, unix_micros: 1 }).unwrap();
        state.apply(status(id, NodeStatus::Up)).unwrap();
    }
    state.apply(Command::SetReplicas { shard: LEFT, epoch: 1, replicas: vec![1, 2, 3] }).unwrap();
    for id in [2, 3] {
        decide(&mut agent, &mut state, status(id, NodeStatus::Lost)).await;
        decide(&mut agent, &mut state, Command::GiveUpNode { id }).await;
    }
    let (epoch, term, at) = (2, 1 << 20, Floor { term: 1, index: 3 });
    let recover = Command::RecoverShard { shard: LEFT, epoch, survivor: ME, term, at, unix_micros: 9 };
    state.apply(recover).unwrap();
    let decided = Seen { index: 9, state: Arc::new(state.clone()) };
    fs::remove_dir_all(&folder).unwrap();
    agent.follow(&decided).await.expect_err("after a restart it would hear the others again");
    assert!(Arc::ptr_eq(&before, &node.replica(LEFT).unwrap()) && before.status().term < term);
    drop(before);
    fs::create_dir(&folder).unwrap();
    agent.follow(&decided).await.unwrap();
    let replica = node.replica(LEFT).unwrap();
    write(&replica, 2).await;
    let told = replica.status();
    assert_eq!((told.role, &*told.membership.voters), (Role::Leader, &[NodeId(ME)][..]));
    assert!(told.term > term);
    agent.follow(&Seen { index: 10, ..decided }).await.unwrap();
    assert!(Arc::ptr_eq(&replica, &node.replica(LEFT).unwrap()), "once is enough");
    agent.report().await;
    let report = agent.reports().borrow().clone();
    let last = report.replicas[0].last;
    assert!(last.term > term && last.index >= report.replicas[0].applied, "{report:?}");
    drop(replica);
    node.close().await;
}

/// A replica that is the only one of its shard.
struct Alone(Arc<Replica>);

impl Source for Alone {
    async fn pull(&self, pull: Pull) -> Result<Pulled, NodeError> {
        self.0.pull(pull, Deadline::NEVER).await
    }
}

#[tokio::test]
async fn two_shards_become_one_step_by_step_of_the_control_state_and_are_removed_then() {
    const INTO: u64 = 18;
    let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
    let (_host, node) = node(dir.path());
    let followed = Followed::open(dir.path().join("followed.json")).unwrap();
    let mut agent = Agent::new(env.clone(), ME, node.clone(), Placed::default(), followed);
    let (reports, steward) = (agent.reports(), crate::steward::Steward::new(env.clone(), ME, node.clone()));
    let mut state = State::new(1);
    let Command::CreateCollection { request_id, id, name, schema, replication, unix_micros, .. } = create(1) else {
        panic!("another command")
    };
    let shards = 2;
    let create = Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros };
    for command in [join(), Command::SetNodeStatus { id: ME, status: NodeStatus::Up }, create] {
        state.apply(command).unwrap();
    }
    let mut index = 1;
    agent.follow(&Seen { index, state: Arc::new(state.clone()) }).await.unwrap();
    let collection = state.collections().values().next().unwrap().clone();
    let points = (0..100).map(PointId::Num).map(|id| Point {
        id,
        vectors: [("v".into(), vec![1.0])].into(),
        payload: Object::new(),
    });
    for point in points {
        let replica = node.replica(collection.shard_of(point.id).id).unwrap();
        let change = Arc::new(Change::Upsert(vec![point.clone()]));
        let PointId::Num(n) = point.id else { panic!("{}", point.id) };
        while replica.write(n.into(), change.clone(), Wait::Committed, Deadline::NEVER).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    let (floor, reason) = (Floor { term: 1, index: 1 << 32 }, String::new());
    let (left, right, left_epoch, right_epoch, unasked) = (LEFT, RIGHT, 1, 1, false);
    state
        .apply(Command::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked })
        .unwrap();
    let mut pump = None;
    let mut steps = vec![MergeStep::Prepare];
    while steps.last() != Some(&MergeStep::Done) {
        index += 1;
        agent.follow(&Seen { index, state: Arc::new(state.clone()) }).await.unwrap();
        steward.look(&state).await;
        steward.look_at_merges(&state).await;
        let source = |shard| {
            (Alone(node.replica(shard).unwrap()), collection.shards.iter().find(|one| one.id == shard).unwrap().range)
        };
        let new = || Pump::new(node.replica(INTO).unwrap(), 1, [source(LEFT), source(RIGHT)]);
        let filled = pump.get_or_insert_with(new);
        if let Ok(Progress::Settled) = filled.round(Deadline::NEVER).await {
            filled.complete(Deadline::NEVER).await.unwrap();
        }
        agent.report().await;
        let report = Some(Arc::new(reports.borrow().clone()));
        let told = BTreeMap::from([(ME, Told { report, silence: Duration::ZERO })]);
        for command in merge_steps(&state, &View::new(&told), unix_micros) {
            state.apply(command).unwrap();
            steps.push(state.merge(1).unwrap().step);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(steps, [MergeStep::Prepare, MergeStep::Copy, MergeStep::Freeze, MergeStep::Done]);
    drop(pump);
    agent.follow(&Seen { index: index + 1, state: Arc::new(state.clone()) }).await.unwrap();
    assert_eq!(node.hosted().unwrap(), [INTO]);
    let into = node.replica(INTO).unwrap();
    assert_eq!(into.count(None, Freshness::Latest, Deadline::NEVER).await.unwrap(), 100);
    // What one of the two had done is not done again, whichever it was.
    for n in 0..100 {
        let change = Arc::new(Change::Upsert(vec![Point {
            id: PointId::Num(n),
            vectors: [("v".into(), vec![2.0])].into(),
            payload: Object::new(),
        }]));
        into.write(n.into(), change, Wait::Committed, Deadline::NEVER).await.unwrap();
    }
    let records =
        into.get((0..100).map(PointId::Num).collect(), Default::default(), Freshness::Latest, Deadline::NEVER);
    assert!(records.await.unwrap().iter().all(|record| record.version < floor.index));
    drop(into);
    node.close().await;
}
