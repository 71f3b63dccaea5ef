//! Three members in one process: replication, a change of leader, and catching up.

use super::changes::hand_over;
use super::crew::{Crew, ids, node_id};
use super::*;
use crate::settings::{ELECTION_TICKS, LAST_TURN};
use crate::transport::memory::MemoryNetwork;

fn others(node: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != node).collect()
}

#[test]
fn what_the_leader_takes_is_applied_by_all_and_others_say_who_leads() {
    for seed in 0..10 {
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let mut outcomes: Vec<_> = (0..100).map(|number| crew.propose(leader, number)).collect();
        let follower = others(leader)[0];
        let mut turned_away = crew.propose(follower, 999);
        let mut elsewhere = crew.read(follower);
        crew.settle();
        all_applied(&mut outcomes);
        let hint = Some(node_id(leader));
        assert_eq!(turned_away.try_recv(), Ok(Outcome::NotLeader { hint }));
        assert_eq!(elsewhere.try_recv(), Ok(ReadOutcome::NotLeader { hint }));
        crew.ticks(3);
        let wanted: Vec<_> = (0..100).map(text).collect();
        for node in 0..3 {
            assert_eq!(crew.commands(node), wanted, "seed {seed}");
        }
        let mut read = crew.read(leader);
        crew.settle();
        assert!(matches!(read.try_recv(), Ok(ReadOutcome::At(_))), "seed {seed}");
    }
}

#[test]
fn a_leader_cut_off_is_replaced_promises_nothing_and_catches_up() {
    for seed in 0..20 {
        let mut crew = Crew::new(seed, 3);
        let old = crew.leader_among(&[0, 1, 2]);
        let mut kept = crew.propose(old, 1);
        crew.settle();
        index_of(&mut kept);

        crew.network.isolate(node_id(old), &ids(&others(old)));
        let mut lost = crew.propose(old, 2);
        let mut stale = crew.read(old);
        crew.settle();
        assert!(lost.try_recv().is_err(), "seed {seed}: acknowledged by one of three");
        assert!(stale.try_recv().is_err(), "seed {seed}: read at a leader nobody confirmed");
        let new = crew.leader_among(&others(old));
        crew.ticks(25);
        assert!(matches!(stale.try_recv(), Ok(ReadOutcome::NotLeader { .. })), "seed {seed}");
        let mut outcomes: Vec<_> = (10..700).map(|number| crew.propose(new, number)).collect();
        crew.settle();
        all_applied(&mut outcomes);

        crew.network.heal();
        crew.ticks(30);
        assert!(matches!(lost.try_recv(), Ok(Outcome::NotLeader { .. })), "seed {seed}: it was overwritten");
        let wanted: Vec<_> = std::iter::once(1).chain(10..700).map(text).collect();
        for node in 0..3 {
            assert_eq!(crew.commands(node), wanted, "seed {seed}, node {node}");
        }
    }
}

#[test]
fn one_leader_after_another_is_replaced_within_two_election_timeouts() {
    for seed in 0..40 {
        let mut crew = Crew::new(seed, 5);
        let mut left = vec![0, 1, 2, 3, 4];
        while left.len() > 3 {
            let leader = crew.leader_among(&left);
            left.retain(|node| *node != leader);
            crew.crash(leader);
            let before = crew.now();
            crew.leader_among(&left);
            let ticks = (crew.now() - before).as_millis() / TICK.as_millis();
            assert!(ticks <= LAST_TURN as u128 + 1, "seed {seed}: {ticks} ticks with {} members left", left.len());
        }
    }
}

#[test]
fn a_new_leader_has_an_election_timeout_to_be_answered() {
    let mut crew = Crew::new(3, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    // Of many voters some may have answered long before the last one that it needed. Nobody answers any more.
    crew.bench(leader).driver.groups.get_mut(&GROUP).expect("open").heard.clear();
    others(leader).into_iter().for_each(|other| crew.crash(other));
    crew.ticks(ELECTION_TICKS);
    assert_eq!(crew.status(leader).role, Role::Leader, "it may be answered yet");
    crew.ticks(1);
    assert_eq!(crew.status(leader).role, Role::Follower, "and was not");
}

#[test]
fn a_leader_that_leads_once_more_has_that_time_anew() {
    let mut crew = Crew::new(4, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let other = others(leader)[0];
    for (from, to) in [(leader, other), (other, leader)] {
        let _handed = hand_over(&mut crew, from, to);
        crew.ticks(5);
        assert_eq!(crew.leader_among(&[0, 1, 2]), to);
    }
    crew.bench(leader).driver.groups.get_mut(&GROUP).expect("open").heard.clear();
    others(leader).into_iter().for_each(|other| crew.crash(other));
    crew.ticks(ELECTION_TICKS / 2);
    assert_eq!(crew.status(leader).role, Role::Leader, "it may be answered yet");
    crew.ticks(ELECTION_TICKS);
    assert_eq!(crew.status(leader).role, Role::Follower, "and was not");
}

#[test]
fn a_leader_that_hears_nobody_and_is_heard_bids_another_take_over() {
    for seed in 0..20 {
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        // Its followers go on following it, so none of them would stand by itself.
        for other in others(leader) {
            crew.network.cut(node_id(other), node_id(leader));
        }
        crew.ticks(ELECTION_TICKS + 2);
        let before = crew.now();
        crew.leader_among(&others(leader));
        assert_eq!(crew.now(), before, "seed {seed}: nobody leads {ELECTION_TICKS} ticks and two after the cut");
        assert_ne!(crew.status(leader).role, Role::Leader, "seed {seed}");
    }
}

#[test]
fn proposals_of_a_leader_without_followers_are_in_doubt_at_their_deadline() {
    let mut crew = Crew::new(4, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    crew.network.isolate(node_id(leader), &ids(&others(leader)));
    let deadline = crew.now() + TICK * 3;
    let mut outcome = crew.bench(leader).propose_until(GROUP, "doubtful", deadline);
    crew.settle();
    crew.ticks(2);
    assert!(outcome.try_recv().is_err());
    crew.ticks(1);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Unknown(Doubt::Deadline)));
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let run = |seed| {
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        crew.network.isolate(node_id(leader), &ids(&others(leader)));
        let next = crew.leader_among(&others(leader));
        for number in 0..crew.draw(50) {
            crew.propose(next, number as u64);
        }
        crew.network.heal();
        crew.ticks(20);
        crew.trace()
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
        learner.driver.handle(Input::Messages(network.fetch(NodeId(2)), None));
        learner.ticks(1);
        leader.driver.handle(Input::Messages(network.fetch(ME), None));
    }
    all_applied(&mut outcomes);
    assert_eq!(learned.commands(), (0..50).map(text).collect::<Vec<_>>());
    assert_eq!(learned.lock().live.membership, Some(wanted));
}
