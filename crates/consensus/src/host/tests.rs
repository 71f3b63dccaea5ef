use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::handle::GroupHandle;
use crate::log::memory::{Fault, MemoryLog};
use crate::membership::Members;
use crate::outcome::{Doubt, HandoverOutcome, Outcome, ReadOutcome, Refusal};
use crate::testing::{CLUSTER, GROUP, ME, TestMachine};
use crate::transport::memory::MemoryNetwork;
use crate::{GroupId, GroupSpec, NodeId, RaftEngineLog, RaftEngineSettings, Role, SilentTransport};

const LONG: Duration = Duration::from_secs(60);

fn start(env: &Env, log: Arc<dyn LogStore>) -> Host {
    Host::start(env, HostSettings::new(CLUSTER, ME), log, Arc::new(SilentTransport)).unwrap()
}

fn on_disk(folder: &Path) -> Arc<RaftEngineLog> {
    Arc::new(RaftEngineLog::open(folder, RaftEngineSettings::default()).unwrap())
}

async fn open(host: &Host, group: GroupId, machine: &TestMachine) -> GroupHandle {
    let spec = GroupSpec {
        group,
        found_with: Some(vec![ME]),
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    host.handle().open_group(spec, Box::new(machine.clone())).await.unwrap()
}

fn text(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

#[tokio::test]
async fn many_callers_share_fsyncs_on_disk_and_a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (env, machine) = (Env::real(), TestMachine::default());
    let log = on_disk(folder.path());
    let host = start(&env, log.clone());
    let group = open(&host, GROUP, &machine).await;
    let outcomes: Vec<_> = (0..2_000).map(|number| group.propose(text(number), env.now() + LONG)).collect();
    for outcome in outcomes {
        assert!(matches!(outcome.await, Outcome::Applied(_)));
    }
    let stats = host.handle().stats();
    println!("2,000 proposals, {} appends, {} fsyncs", stats.appends, log.syncs());
    assert!(stats.appends < 200 && stats.entries == 2_001 && stats.waiting == 0, "{stats:?}");
    host.shutdown(env.now() + LONG).await.unwrap();
    assert_eq!(machine.lock().flushes, 1);
    drop((group, log));

    let lost = TestMachine::default();
    let host = start(&env, on_disk(folder.path()));
    let group = open(&host, GROUP, &lost).await;
    assert!(matches!(group.read_index(env.now() + LONG).await, ReadOutcome::At(_)));
    assert_eq!(lost.commands(), (0..2_000).map(text).collect::<Vec<_>>());
    host.shutdown(env.now() + LONG).await.unwrap();
}

#[tokio::test]
async fn too_much_at_once_is_refused_and_serves_again_afterwards() {
    let (env, machine) = (Env::real(), TestMachine::default());
    let host = start(&env, Arc::new(MemoryLog::new()));
    let group = open(&host, GROUP, &machine).await;
    machine.lock().full = usize::MAX;
    let mut waiting = Vec::new();
    let mut refused = 0;
    for number in 0..(MAX_WAITING as u64 + 100) {
        waiting.push(group.propose(text(number), env.now() + LONG));
        refused += u64::from(host.handle().stats().waiting == MAX_WAITING);
    }
    machine.lock().full = 0;
    let mut outcomes = [0; 3];
    for outcome in waiting {
        match outcome.await {
            Outcome::Applied(_) => outcomes[0] += 1,
            Outcome::Refused(Refusal::Overloaded) => outcomes[1] += 1,
            Outcome::Refused(Refusal::Full { .. }) => outcomes[2] += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("applied, overloaded, full: {outcomes:?}, at the bound {refused} times");
    assert!(outcomes[0] > 0 && outcomes[1] + outcomes[2] > 0);
    let late = group.propose(text(0), env.now() + LONG).await;
    assert!(matches!(late, Outcome::Applied(_)), "{late:?}");
    assert!(matches!(group.propose(Bytes::new(), LONG).await, Outcome::Refused(Refusal::Empty)));
    let huge = Bytes::from(vec![0; crate::settings::MAX_PROPOSAL_BYTES + 1]);
    assert!(matches!(group.propose(huge, LONG).await, Outcome::Refused(Refusal::TooLarge { .. })));
    host.shutdown(env.now() + LONG).await.unwrap();
}

#[tokio::test]
async fn callers_learn_of_a_failed_fsync_and_the_status_says_why() {
    let (env, machine) = (Env::real(), TestMachine::default());
    let log = MemoryLog::new();
    let host = start(&env, Arc::new(log.clone()));
    let mut group = open(&host, GROUP, &machine).await;
    log.inject(log.appends() + 1, Fault::SyncFails);
    let mut last = Outcome::Unknown(Doubt::Deadline);
    for number in 0..3 {
        last = group.propose(text(number), env.now() + LONG).await;
    }
    assert!(matches!(&last, Outcome::Refused(Refusal::Stopped { why }) if why.contains("fsync")), "{last:?}");
    while group.status().condition == crate::Condition::Running {
        group.changed().await.unwrap();
    }
    assert!(host.shutdown(env.now() + LONG).await.is_err(), "what stopped a group is told at the end");
}

#[tokio::test]
async fn handles_outlive_their_host_and_say_so() {
    let (env, machine) = (Env::real(), TestMachine::default());
    let host = start(&env, Arc::new(MemoryLog::new()));
    let handle = host.handle();
    let group = open(&host, GROUP, &machine).await;
    host.shutdown(env.now() + LONG).await.unwrap();
    assert!(matches!(group.propose(text(1), LONG).await, Outcome::Refused(Refusal::Stopped { .. })));
    assert!(matches!(group.read_index(LONG).await, ReadOutcome::Refused(Refusal::Stopped { .. })));
    assert!(group.close(LONG).await.is_err());
    let spec = GroupSpec {
        group: GROUP,
        found_with: Some(vec![ME]),
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    assert!(handle.open_group(spec, Box::new(machine)).await.is_err());
}

/// When, on whose word, in which term and at which index: what three members did.
type Trace = Vec<(Duration, NodeId, u64, u64)>;

/// Three hosts that elect a leader and replicate a hundred entries.
async fn three_hosts(env: &Env) -> Trace {
    let network = MemoryNetwork::default();
    let nodes = [1, 2, 3].map(NodeId);
    let stop = Arc::new(Mutex::new(false));
    let mut members = Vec::new();
    for node in nodes {
        let settings = HostSettings { tick: Duration::from_millis(20), ..HostSettings::new(CLUSTER, node) };
        let host = Host::start(env, settings, Arc::new(MemoryLog::new()), Arc::new(network.of(node))).unwrap();
        let machine = TestMachine::default();
        let spec = GroupSpec {
            group: GROUP,
            found_with: Some(nodes.to_vec()),
            found_at: None,
            floor: None,
            stands_first: false,
            alone_from: None,
        };
        let group = host.handle().open_group(spec, Box::new(machine.clone())).await.unwrap();
        members.push((host, group, machine));
    }
    let handles: Vec<_> = members.iter().map(|(host, ..)| host.handle()).collect();
    let stopped = stop.clone();
    let carrier = env.worker("carrier", move |_| {
        for (node, handle) in nodes.iter().zip(&handles) {
            handle.receive(network.fetch(*node));
        }
        std::thread::yield_now();
        if *stopped.lock().unwrap() { Turn::Over } else { Turn::Idle }
    });
    let (mut number, mut trace) = (0, Trace::new());
    while number < 100 {
        let leader = members.iter().map(|(_, group, _)| group).find(|group| group.status().role == Role::Leader);
        let Some(leader) = leader else {
            members[0].1.changed().await.unwrap();
            continue;
        };
        match leader.propose(text(number), env.now() + LONG).await {
            Outcome::Applied(_) => number += 1,
            Outcome::NotLeader { .. } => {}
            other => panic!("{other:?}"),
        }
        let status = leader.status();
        trace.extend(status.leader.map(|leader| (env.now(), leader, status.term, status.last)));
    }
    let wanted: Vec<_> = (0..100).map(text).collect();
    for (_, group, machine) in &mut members {
        while machine.commands().len() < 100 {
            group.changed().await.unwrap();
        }
        assert_eq!(machine.commands(), wanted);
    }
    for (host, ..) in members {
        host.shutdown(env.now() + LONG).await.unwrap();
    }
    *stop.lock().unwrap() = true;
    assert!(carrier.unwrap().ended(env).await);
    trace
}

#[tokio::test]
async fn three_hosts_with_threads_elect_a_leader_and_replicate() {
    three_hosts(&Env::real()).await;
}

/// A simulation has no threads: [`Env::thread`] fails in it.
#[tokio::test(start_paused = true)]
async fn three_hosts_without_threads_do_the_same_and_always_at_the_same_times() {
    let run = async |seed| three_hosts(&Env::simulated(seed).0).await;
    for seed in 0..20 {
        let (first, second) = (run(seed).await, run(seed).await);
        assert_eq!(first, second, "seed {seed}");
    }
}

/// The part of [`a_killed_process_loses_nothing_that_it_acknowledged`] that is killed. Prints what was acknowledged.
#[test]
fn killed() {
    let Some(folder) = std::env::var_os(KILL_FOLDER) else {
        return; // Only the parent runs it.
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (env, machine) = (Env::real(), TestMachine::default());
        let host = start(&env, on_disk(Path::new(&folder)));
        let group = open(&host, GROUP, &machine).await;
        group.read_index(env.now() + LONG).await;
        for batch in 0u64.. {
            let numbers = batch * 20..batch * 20 + 20;
            let outcomes: Vec<_> =
                numbers.map(|number| (number, group.propose(text(number), env.now() + LONG))).collect();
            for (number, outcome) in outcomes {
                if let Outcome::Applied(applied) = outcome.await {
                    println!("acknowledged {} {number}", applied.index);
                }
            }
        }
    });
}

const KILL_FOLDER: &str = "SAGITTA_TEST_KILL_FOLDER";

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir().unwrap();
    let env = Env::real();
    let (mut acknowledged, mut kills) = (Vec::new(), 0);
    while kills < 8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host::tests::killed", "--nocapture"])
            .env(KILL_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Somewhere after this many acknowledgements, wherever the threads happen to be.
        let enough = 1 + env.random_below(300) as usize;
        let mut heard = 0;
        for line in lines.by_ref().map_while(Result::ok) {
            acknowledged.extend(parse_acknowledged(&line));
            heard += usize::from(line.starts_with("acknowledged"));
            if heard == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        kills += 1;
    }
    let machine = TestMachine::default();
    let host = start(&env, on_disk(folder.path()));
    let group = open(&host, GROUP, &machine).await;
    assert!(matches!(group.read_index(env.now() + LONG).await, ReadOutcome::At(_)));
    let found = machine.lock().live.commands.clone();
    for wanted in &acknowledged {
        assert!(found.contains(wanted), "{wanted:?} was lost");
    }
    println!("{kills} kills, {} acknowledged, {} found, none lost", acknowledged.len(), found.len());
    assert!(acknowledged.len() >= kills);
    host.shutdown(env.now() + LONG).await.unwrap();
}

fn parse_acknowledged(line: &str) -> Option<(u64, Bytes)> {
    let (index, number) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
    Some((index.parse().ok()?, text(number.parse().ok()?)))
}

/// Needs a volume of a few megabytes of its own, named by `SAGITTA_SMALL_VOLUME`.
#[tokio::test]
async fn a_volume_that_fills_up_is_refused_writes_and_goes_on_when_there_is_room() {
    let Some(volume) = std::env::var_os("SAGITTA_SMALL_VOLUME").map(std::path::PathBuf::from) else {
        println!("SAGITTA_SMALL_VOLUME is not set: skipped");
        return;
    };
    let (env, machine) = (Env::real(), TestMachine::default());
    let ballast = volume.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let folder = volume.join("log");
    let host = start(&env, on_disk(&folder));
    let group = open(&host, GROUP, &machine).await;
    let (mut applied, mut refused) = (0, 0);
    let data = |number: u64| Bytes::from(format!("{number:0>10000}"));
    while refused == 0 {
        match group.propose(data(applied), env.now() + Duration::from_millis(500)).await {
            Outcome::Applied(_) => applied += 1,
            Outcome::Unknown(Doubt::Deadline) => applied += 1, // Held by the full disk, and written in the end.
            Outcome::Refused(Refusal::Full { .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("full after {applied} proposals: {:?}", group.status().condition);
    assert!(matches!(group.read_index(env.now() + LONG).await, ReadOutcome::At(_)), "reads stay up");
    std::fs::remove_file(ballast).unwrap();
    while !matches!(group.propose(data(applied), env.now() + LONG).await, Outcome::Applied(_)) {
        tokio::task::yield_now().await;
    }
    let wanted: Vec<_> = (0..=applied).map(data).collect();
    assert_eq!(machine.commands(), wanted);
    host.shutdown(env.now() + LONG).await.unwrap();
    drop(group);
    let again = TestMachine::default();
    let host = start(&env, on_disk(&folder));
    let group = open(&host, GROUP, &again).await;
    group.read_index(env.now() + LONG).await;
    assert_eq!(again.commands(), wanted);
    host.shutdown(env.now() + LONG).await.unwrap();
}

#[tokio::test]
async fn what_arrives_is_bounded_in_number_and_bytes_and_taken_again_when_it_was_looked_at() {
    use crate::settings::{MAX_ARRIVED, MAX_ARRIVED_BYTES};
    let (env, machine) = (Env::real(), TestMachine::default());
    let host = start(&env, Arc::new(MemoryLog::new()));
    let group = open(&host, GROUP, &machine).await;
    let handle = host.handle();
    assert!(!handle.receive(vec![Bytes::from(vec![0; MAX_ARRIVED_BYTES + 1])]));
    let room = handle.arrivals.clone();
    let rest = room.admit(MAX_ARRIVED_BYTES).expect("nothing has arrived");
    assert!(!handle.receive(vec![Bytes::from_static(b"noise")]), "no byte more");
    drop(rest);
    let all: Vec<_> = (0..MAX_ARRIVED).map(|_| room.admit(0).expect("room")).collect();
    assert!(!handle.receive(vec![Bytes::new()]), "not one more");
    drop(all);
    assert!(handle.receive(vec![Bytes::from_static(b"noise")]));
    // What came before is looked at before: the noise has given its room back.
    assert!(matches!(group.propose(text(1), env.now() + LONG).await, Outcome::Applied(_)));
    assert_eq!(room.waiting(), 0);
    host.shutdown(env.now() + LONG).await.unwrap();
}

/// Carries messages straight into the inboxes of the other hosts.
#[derive(Clone, Default)]
struct Direct(Arc<Mutex<std::collections::BTreeMap<NodeId, HostHandle>>>);

impl Transport for Direct {
    fn send(&self, to: NodeId, messages: Vec<Bytes>) {
        if let Some(host) = self.0.lock().unwrap().get(&to) {
            host.receive(messages);
        }
    }
}

#[tokio::test]
async fn a_group_grows_hands_over_and_sheds_who_led_it() {
    let (env, direct) = (Env::real(), Direct::default());
    let (a, b) = (NodeId(1), NodeId(2));
    let mut hosts = Vec::new();
    for node in [a, b] {
        let settings = HostSettings { tick: Duration::from_millis(20), ..HostSettings::new(CLUSTER, node) };
        let host = Host::start(&env, settings, Arc::new(MemoryLog::new()), Arc::new(direct.clone())).unwrap();
        direct.0.lock().unwrap().insert(node, host.handle());
        let machine = TestMachine::default();
        hosts.push((open(&host, GROUP, &machine).await, machine, host));
    }
    let [(first, _, _), (second, copy, _)] = &hosts[..] else { panic!("two hosts") };
    // A refusal for now is tried again, as an operator's loop does; anything else ends the test.
    let change = async |group: &GroupHandle, voters: &[NodeId], learners: &[NodeId]| {
        let members = Members { voters: voters.to_vec(), learners: learners.to_vec() };
        loop {
            match group.change_members(members.clone(), env.now() + LONG).await {
                Outcome::Refused(Refusal::NotCaughtUp { .. } | Refusal::Unreachable { .. }) => {
                    tokio::task::yield_now().await;
                }
                outcome => return assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}"),
            }
        }
    };
    for number in 0..300 {
        assert!(matches!(first.propose(text(number), env.now() + LONG).await, Outcome::Applied(_)));
    }
    change(first, &[a], &[b]).await;
    change(first, &[a, b], &[]).await;
    let peers = first.peers().await.unwrap();
    assert!(matches!(peers[..], [crate::Peer { node, heard: true, .. }] if node == b), "{peers:?}");
    assert_eq!(first.hand_over(b, env.now() + LONG).await, HandoverOutcome::Done);
    assert_eq!(first.peers().await.unwrap(), []);
    let mut watch = second.clone();
    while second.status().role != Role::Leader {
        watch.changed().await.unwrap();
    }
    change(second, &[b], &[]).await;
    assert!(matches!(second.propose(text(300), env.now() + LONG).await, Outcome::Applied(_)));
    assert_eq!(copy.commands(), (0..=300).map(text).collect::<Vec<_>>());
    for (_, _, host) in hosts {
        host.shutdown(env.now() + LONG).await.unwrap();
    }
}
