//! Three members in one process: replication, a change of leader, and catching up.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::transport::memory::MemoryNetwork;

struct Trio {
    network: MemoryNetwork,
    clock: sagitta_env::ManualClock,
    nodes: Vec<Member>,
    trace: DefaultHasher,
}

struct Member {
    bench: Bench,
    machine: TestMachine,
    status: tokio::sync::watch::Receiver<GroupStatus>,
}

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

impl Trio {
    fn new(seed: u64) -> Self {
        let network = MemoryNetwork::default();
        let (env, clock) = Env::seeded(seed);
        let nodes = NODES.map(|node| {
            let log = Arc::new(MemoryLog::new());
            let mut bench = Bench::with(env.clone(), clock.clone(), node, log, Arc::new(network.of(node)));
            let machine = TestMachine::default();
            let status = bench.open_among(GROUP, &NODES, &machine).unwrap();
            Member { bench, machine, status }
        });
        Self { network, clock, nodes: nodes.into(), trace: DefaultHasher::new() }
    }

    /// Delivers until nothing is under way.
    fn settle(&mut self) {
        loop {
            self.nodes.iter_mut().for_each(|member| member.bench.run());
            let mail = NODES.map(|node| self.network.fetch(node));
            mail.hash(&mut self.trace);
            if mail.iter().all(Vec::is_empty) {
                break;
            }
            for (member, messages) in self.nodes.iter_mut().zip(mail) {
                member.bench.driver.handle(Input::Messages(messages));
            }
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.clock.advance(TICK);
            for member in &mut self.nodes {
                member.bench.driver.tick();
            }
            self.settle();
        }
    }

    /// Waits until exactly these nodes agree on a leader among them.
    fn leader_among(&mut self, among: &[usize]) -> usize {
        for _ in 0..200 {
            let leaders: Vec<_> =
                among.iter().copied().filter(|n| status(&self.nodes[*n].status).role == Role::Leader).collect();
            let agreed =
                |leader: usize| among.iter().all(|n| status(&self.nodes[*n].status).leader == Some(NODES[leader]));
            if let [leader] = leaders[..]
                && agreed(leader)
            {
                return leader;
            }
            self.ticks(1);
        }
        panic!("no leader after 200 ticks");
    }

    fn propose(&mut self, node: usize, number: u64) -> oneshot::Receiver<Outcome> {
        self.nodes[node].bench.propose(GROUP, text(number))
    }

    fn commands(&self, node: usize) -> Vec<Bytes> {
        self.nodes[node].machine.commands()
    }
}

fn others(node: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != node).collect()
}

fn ids(nodes: &[usize]) -> Vec<NodeId> {
    nodes.iter().map(|node| NODES[*node]).collect()
}

#[test]
fn what_the_leader_takes_is_applied_by_all_and_others_say_who_leads() {
    for seed in 0..10 {
        let mut trio = Trio::new(seed);
        let leader = trio.leader_among(&[0, 1, 2]);
        let mut outcomes: Vec<_> = (0..100).map(|number| trio.propose(leader, number)).collect();
        let follower = others(leader)[0];
        let mut turned_away = trio.propose(follower, 999);
        let mut elsewhere = trio.nodes[follower].bench.read(GROUP);
        trio.settle();
        all_applied(&mut outcomes);
        let hint = Some(NODES[leader]);
        assert_eq!(turned_away.try_recv(), Ok(Outcome::NotLeader { hint }));
        assert_eq!(elsewhere.try_recv(), Ok(ReadOutcome::NotLeader { hint }));
        trio.ticks(3);
        let wanted: Vec<_> = (0..100).map(text).collect();
        for node in 0..3 {
            assert_eq!(trio.commands(node), wanted, "seed {seed}");
        }
        let mut read = trio.nodes[leader].bench.read(GROUP);
        trio.settle();
        assert!(matches!(read.try_recv(), Ok(ReadOutcome::At(_))), "seed {seed}");
    }
}

#[test]
fn a_leader_cut_off_is_replaced_promises_nothing_and_catches_up() {
    for seed in 0..20 {
        let mut trio = Trio::new(seed);
        let old = trio.leader_among(&[0, 1, 2]);
        let mut kept = trio.propose(old, 1);
        trio.settle();
        index_of(&mut kept);

        trio.network.isolate(NODES[old], &ids(&others(old)));
        let mut lost = trio.propose(old, 2);
        let mut stale = trio.nodes[old].bench.read(GROUP);
        trio.settle();
        assert!(lost.try_recv().is_err(), "seed {seed}: acknowledged by one of three");
        assert!(stale.try_recv().is_err(), "seed {seed}: read at a leader nobody confirmed");
        let new = trio.leader_among(&others(old));
        trio.ticks(25);
        assert!(matches!(stale.try_recv(), Ok(ReadOutcome::NotLeader { .. })), "seed {seed}");
        let mut outcomes: Vec<_> = (10..700).map(|number| trio.propose(new, number)).collect();
        trio.settle();
        all_applied(&mut outcomes);

        trio.network.heal();
        trio.ticks(30);
        assert!(matches!(lost.try_recv(), Ok(Outcome::NotLeader { .. })), "seed {seed}: it was overwritten");
        let wanted: Vec<_> = std::iter::once(1).chain(10..700).map(text).collect();
        for node in 0..3 {
            assert_eq!(trio.commands(node), wanted, "seed {seed}, node {node}");
        }
    }
}

#[test]
fn proposals_of_a_leader_without_followers_are_in_doubt_at_their_deadline() {
    let mut trio = Trio::new(4);
    let leader = trio.leader_among(&[0, 1, 2]);
    trio.network.isolate(NODES[leader], &ids(&others(leader)));
    let deadline = trio.nodes[leader].bench.env.now() + TICK * 3;
    let mut outcome = trio.nodes[leader].bench.propose_until(GROUP, "doubtful", deadline);
    trio.settle();
    trio.ticks(2);
    assert!(outcome.try_recv().is_err());
    trio.ticks(1);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Unknown(Doubt::Deadline)));
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let run = |seed| {
        let mut trio = Trio::new(seed);
        let leader = trio.leader_among(&[0, 1, 2]);
        trio.network.isolate(NODES[leader], &ids(&others(leader)));
        trio.leader_among(&others(leader));
        trio.network.heal();
        trio.ticks(20);
        trio.trace.finish()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0), run(1));
}

#[test]
fn a_member_that_joins_is_stored_with_the_position_and_survives_a_restart() {
    use raft::eraftpb::{ConfChange, ConfChangeType};
    let (mut bench, log, machine) = single();
    let mut change = ConfChange::default();
    change.set_change_type(ConfChangeType::AddLearnerNode);
    change.node_id = 2;
    let group = bench.driver.groups.get_mut(&GROUP).unwrap();
    group.with_node(|node| node.propose_conf_change(vec![], change)).unwrap().unwrap();
    bench.driver.woken.insert(GROUP);
    bench.run();
    let wanted = Membership { learners: vec![NodeId(2)], ..Membership::of_voters(&[ME]) };
    assert_eq!(machine.lock().live.membership, Some(wanted.clone()));

    // The learner starts from an empty log and is caught up from ours, entry by entry.
    machine.make_durable();
    let network = MemoryNetwork::default();
    let (env, clock) = Env::seeded(5);
    let leader_log = log.after_power_loss(0);
    let mut leader = Bench::with(env.clone(), clock.clone(), ME, Arc::new(leader_log), Arc::new(network.of(ME)));
    let reopened = leader.open(GROUP, &machine).unwrap();
    assert_eq!(status(&reopened).membership, wanted);
    let learned = TestMachine::default();
    let learner_log = Arc::new(MemoryLog::new());
    let mut learner = Bench::with(env, clock, NodeId(2), learner_log, Arc::new(network.of(NodeId(2))));
    learner.open_among(GROUP, &[ME], &learned).unwrap();
    let mut outcomes = Vec::new();
    for round in 0..60 {
        if round == 40 {
            outcomes = (0..50).map(|number| leader.propose(GROUP, text(number))).collect();
        }
        leader.ticks(1);
        learner.driver.handle(Input::Messages(network.fetch(NodeId(2))));
        learner.ticks(1);
        leader.driver.handle(Input::Messages(network.fetch(ME)));
    }
    all_applied(&mut outcomes);
    assert_eq!(learned.commands(), (0..50).map(text).collect::<Vec<_>>());
    assert_eq!(learned.lock().live.membership, Some(wanted));
}
