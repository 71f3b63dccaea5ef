//! Members that come and go, and leaders that hand over.

use super::crew::{Crew, ids, node_id};
use super::*;
use crate::apply::{Caller, Ticket};
use crate::group::Handover;
use crate::membership::Members;
use crate::outcome::HandoverOutcome;
use crate::settings::{ELECTION_TICKS, PROMOTE_WITHIN, STUCK_TICKS};

mod returns;
mod storms;

pub(super) fn members(voters: &[usize], learners: &[usize]) -> Members {
    let mut members = Members { voters: ids(voters), learners: ids(learners) };
    members.voters.sort_unstable();
    members.learners.sort_unstable();
    members
}

pub(super) fn change(crew: &mut Crew, leader: usize, wanted: &Members) -> oneshot::Receiver<Outcome> {
    let deadline = crew.now() + TICK * 100;
    let bench = crew.bench(leader);
    let (answer, outcome) = oneshot::channel();
    let ticket = Ticket { caller: Some(Caller { answer, deadline }), _permit: bench.admission.admit(0).expect("room") };
    bench.driver.handle(Input::Change { group: GROUP, members: wanted.clone(), ticket });
    outcome
}

pub(super) fn hand_over(crew: &mut Crew, leader: usize, to: usize) -> oneshot::Receiver<HandoverOutcome> {
    let (answer, outcome) = oneshot::channel();
    let handover = Handover { to: node_id(to), begun: false, deadline: crew.now() + TICK * 100, answer };
    crew.bench(leader).driver.handle(Input::HandOver { group: GROUP, handover });
    outcome
}

/// Changes the members and waits until all of the new ones know.
pub(super) fn changed(crew: &mut Crew, leader: usize, voters: &[usize], learners: &[usize]) {
    let wanted = members(voters, learners);
    let mut outcome = change(crew, leader, &wanted);
    crew.ticks(6);
    index_of(&mut outcome);
    for &node in voters.iter().chain(learners) {
        let now = crew.status(node).membership;
        assert_eq!((now.members(), now.is_joint()), (wanted.clone(), false), "node at {node}");
    }
}

fn refused(crew: &mut Crew, leader: usize, voters: &[usize], learners: &[usize]) -> Refusal {
    let mut outcome = change(crew, leader, &members(voters, learners));
    crew.bench(leader).run();
    refusal_of(&mut outcome)
}

#[test]
fn a_group_of_one_grows_to_three_and_none_of_what_it_has_taken_is_missing_anywhere() {
    let mut crew = Crew::new(1, 1);
    let leader = crew.leader_among(&[0]);
    let mut outcomes: Vec<_> = (0..1_000).map(|number| crew.propose(leader, number)).collect();
    crew.settle();
    let (second, third) = (crew.join(), crew.join());
    changed(&mut crew, leader, &[leader], &[second, third]);
    outcomes.push(crew.propose(leader, 1_000));
    changed(&mut crew, leader, &[leader, second, third], &[]);
    outcomes.push(crew.propose(leader, 1_001));
    crew.ticks(4);
    all_applied(&mut outcomes);
    for node in [leader, second, third] {
        assert_eq!(crew.commands(node), (0..=1_001).map(text).collect::<Vec<_>>());
    }
    // Any two decide now, the founder among them or not.
    crew.crash(leader);
    let next = crew.leader_among(&[second, third]);
    let mut outcome = crew.propose(next, 1_002);
    crew.settle();
    index_of(&mut outcome);
}

#[test]
fn several_members_are_replaced_in_one_change_that_is_answered_when_it_is_whole() {
    for seed in 0..10 {
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let news: Vec<_> = (0..2).map(|_| crew.join()).collect();
        changed(&mut crew, leader, &[0, 1, 2], &news);
        let wanted = members(&[leader, news[0], news[1]], &[]);
        let mut outcome = change(&mut crew, leader, &wanted);
        crew.settle();
        assert!(crew.status(leader).membership.is_joint() && outcome.is_empty(), "seed {seed}: half of it is done");
        // Raft sends the entry that ends it with the next heartbeat.
        crew.ticks(3);
        index_of(&mut outcome);
        assert_eq!(crew.status(leader).membership, Membership::of_voters(&wanted.voters), "seed {seed}");
        // The old ones are not needed any more.
        let old: Vec<_> = (0..3).filter(|node| *node != leader).collect();
        old.iter().for_each(|node| crew.crash(*node));
        let mut outcome = crew.propose(leader, 1);
        crew.ticks(3);
        index_of(&mut outcome);
    }
}

#[test]
fn a_change_is_refused_that_is_none_or_would_hold_the_group_up() {
    let mut crew = Crew::new(3, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let [a, b]: [usize; 2] = (0..3).filter(|node| *node != leader).collect::<Vec<_>>().try_into().expect("two");
    crew.ticks(3);
    let fresh = crew.join();
    let before = crew.status(leader);

    assert!(matches!(refused(&mut crew, leader, &[], &[a]), Refusal::BadMembers { .. }));
    assert!(matches!(refused(&mut crew, leader, &[leader, a], &[a]), Refusal::BadMembers { .. }));
    assert_eq!(refused(&mut crew, leader, &[a, b], &[leader]), Refusal::LeaderLeaves { leader: node_id(leader) });
    let stranger = refused(&mut crew, leader, &[leader, a, b, fresh], &[]);
    assert!(matches!(&stranger, Refusal::NotCaughtUp { node, .. } if *node == node_id(fresh)), "{stranger}");
    let mut elsewhere = change(&mut crew, a, &members(&[a, b], &[]));
    crew.bench(a).run();
    assert_eq!(elsewhere.try_recv(), Ok(Outcome::NotLeader { hint: Some(node_id(leader)) }));
    let mut same = change(&mut crew, leader, &members(&[b, a, leader], &[]));
    crew.bench(leader).run();
    assert_eq!(index_of(&mut same), before.applied, "what is so already is answered at once");

    // A learner that lacks too much.
    crew.network.isolate(node_id(fresh), &ids(&[leader, a, b]));
    let mut outcome = change(&mut crew, leader, &members(&[leader, a, b], &[fresh]));
    crew.settle();
    index_of(&mut outcome);
    let mut outcomes: Vec<_> = (0..=PROMOTE_WITHIN).map(|number| crew.propose(leader, number)).collect();
    crew.settle();
    all_applied(&mut outcomes);
    let lagging = refused(&mut crew, leader, &[leader, a, b, fresh], &[]);
    assert!(matches!(&lagging, Refusal::NotCaughtUp { node, .. } if *node == node_id(fresh)), "{lagging}");
    crew.network.heal();
    crew.ticks(10);
    changed(&mut crew, leader, &[leader, a, b, fresh], &[]);

    // Of two that would be left, one is silent.
    crew.crash(a);
    crew.ticks(ELECTION_TICKS + 1);
    let unheard = refused(&mut crew, leader, &[leader, a], &[]);
    assert_eq!(unheard, Refusal::Unreachable { nodes: vec![node_id(a)] });
    let mut outcome = crew.propose(leader, 9);
    crew.settle();
    index_of(&mut outcome);
}

#[test]
fn a_voter_needs_what_no_log_holds_and_a_group_that_offers_nothing_takes_no_newcomer_once_its_log_is_cut() {
    for offers in [true, false] {
        let mut crew = if offers { Crew::offering(9, 1) } else { Crew::new(9, 1) };
        let leader = crew.leader_among(&[0]);
        let mut outcomes: Vec<_> = (0..50).map(|number| crew.propose(leader, number)).collect();
        crew.settle();
        all_applied(&mut outcomes);
        crew.machine(leader).make_durable();
        crew.crowd(leader);
        crew.ticks(PURGE_TICKS as usize + POLL_TICKS as usize);
        let fresh = crew.join();
        crew.machine(fresh).lock().slow = true;
        if !offers {
            let refusal = refused(&mut crew, leader, &[leader], &[fresh]);
            assert!(matches!(&refusal, Refusal::NotCaughtUp { what, .. } if what.contains("cut")), "{refusal}");
            continue;
        }
        let mut joins = change(&mut crew, leader, &members(&[leader], &[fresh]));
        crew.ticks(ELECTION_TICKS);
        index_of(&mut joins);
        // Fewer entries than may be lacking, but it has none of them and cannot get them.
        let refusal = refused(&mut crew, leader, &[leader, fresh], &[]);
        assert!(matches!(&refusal, Refusal::NotCaughtUp { what, .. } if what.contains("fetch")), "{refusal}");
        let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
        waiting.end(Ok(()));
        crew.ticks(ELECTION_TICKS);
        changed(&mut crew, leader, &[leader, fresh], &[]);
    }
}

#[test]
fn one_change_at_a_time_is_let_in() {
    let mut crew = Crew::new(4, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let fresh = crew.join();
    let mut first = change(&mut crew, leader, &members(&[0, 1, 2], &[fresh]));
    for _ in 0..2 {
        // Before raft has seen the first and after.
        let second = refused(&mut crew, leader, &[leader], &[]);
        assert!(matches!(&second, Refusal::UnderWay { what } if what.contains("members")), "{second}");
    }
    crew.settle();
    index_of(&mut first);
}

#[test]
fn a_leader_hands_over_to_whom_it_is_told_and_the_new_one_can_send_it_away() {
    for seed in 0..20 {
        let mut crew = Crew::new(seed, 2);
        let old = crew.leader_among(&[0, 1]);
        let new = 1 - old;
        crew.ticks(3);
        let mut kept: Vec<_> = (0..50).map(|number| crew.propose(old, number)).collect();
        let mut outcome = hand_over(&mut crew, old, new);
        let mut late = crew.propose(old, 99);
        crew.settle();
        assert_eq!(outcome.try_recv(), Ok(HandoverOutcome::Done), "seed {seed}");
        assert_eq!(crew.leader_among(&[0, 1]), new, "seed {seed}");
        crew.ticks(3);
        // Those before were taken or turned away, but none is in doubt, and the hint is the new leader.
        let turned_away = Ok(Outcome::NotLeader { hint: Some(node_id(new)) });
        assert_eq!(late.try_recv(), turned_away, "seed {seed}");
        let taken = kept.iter_mut().filter_map(|outcome| match outcome.try_recv() {
            Ok(Outcome::Applied(_)) => Some(()),
            other => {
                assert_eq!(other, turned_away, "seed {seed}");
                None
            }
        });
        assert_eq!(crew.commands(new).len(), taken.count(), "seed {seed}");
        // A group of two loses the one that led it.
        changed(&mut crew, new, &[new], &[]);
        crew.crash(old);
        let mut alone = crew.propose(new, 100);
        crew.settle();
        index_of(&mut alone);
    }
}

#[test]
fn whoever_is_left_alone_knows_it_after_a_crash_though_nothing_was_written_since() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut crew = Crew::new(seed, 1);
        let old = crew.leader_among(&[0]);
        let mut kept = crew.propose(old, 1);
        crew.settle();
        index_of(&mut kept);
        let new = crew.join();
        changed(&mut crew, old, &[old], &[new]);
        changed(&mut crew, old, &[old, new], &[]);
        let mut handed = hand_over(&mut crew, old, new);
        crew.ticks(4);
        assert_eq!(handed.try_recv(), Ok(HandoverOutcome::Done));
        changed(&mut crew, new, &[new], &[]);
        assert_eq!(crew.status(new).membership.voters, ids(&[new]), "so the other one removes what it has");
        crew.crash(old);
        // Nothing of what it applied is on disk.
        crew.crash(new);
        crew.restart(new);
        assert_eq!(crew.leader_among(&[new]), new, "seed {seed}: it needs nobody");
        assert_eq!(crew.commands(new), [text(1)], "seed {seed}");
    }
}

#[test]
fn a_voter_that_has_yet_to_hear_that_it_is_one_is_handed_over_to_when_it_has() {
    let mut crew = Crew::new(5, 1);
    let old = crew.leader_among(&[0]);
    let new = crew.join();
    changed(&mut crew, old, &[old], &[new]);
    crew.network.cut(node_id(old), node_id(new));
    let mut promoted = change(&mut crew, old, &members(&[old, new], &[]));
    crew.settle();
    index_of(&mut promoted);
    assert_eq!(crew.status(new).membership.voters, ids(&[old]));
    let mut outcome = hand_over(&mut crew, old, new);
    let mut meanwhile = crew.propose(old, 1);
    crew.settle();
    crew.network.heal();
    crew.ticks(8);
    index_of(&mut meanwhile);
    assert_eq!(outcome.try_recv(), Ok(HandoverOutcome::Done));
}

#[test]
fn a_voter_that_has_yet_to_apply_that_it_is_one_takes_over_when_it_has() {
    let mut crew = Crew::new(5, 1);
    let old = crew.leader_among(&[0]);
    let new = crew.join();
    changed(&mut crew, old, &[old], &[new]);
    // There is no room to apply the promotion at first.
    crew.machine(new).lock().full = 1;
    let mut promoted = change(&mut crew, old, &members(&[old, new], &[]));
    crew.settle();
    index_of(&mut promoted);
    let mut outcome = hand_over(&mut crew, old, new);
    crew.settle();
    assert!(outcome.is_empty(), "it has been told, and has yet to apply what it knows");
    crew.ticks(2);
    assert_eq!(outcome.try_recv(), Ok(HandoverOutcome::Done));
}

#[test]
fn a_leader_that_finds_itself_taken_out_steps_down_bids_another_take_over_and_grants_no_read() {
    use raft::eraftpb::{ConfChange, ConfChangeType};
    for (seed, voters) in [(1, 3), (2, 2), (3, 3), (4, 2)] {
        let mut crew = Crew::new(seed, voters);
        let all: Vec<_> = (0..voters).collect();
        let old = crew.leader_among(&all);
        crew.ticks(3);
        // As another leader would have begun it: this one is asked by nobody. Others' entries come behind.
        let bench = crew.bench(old);
        let mut step = ConfChange::default();
        step.set_change_type(ConfChangeType::RemoveNode);
        step.node_id = node_id(old).0;
        let group = bench.driver.groups.get_mut(&GROUP).expect("open");
        group.with_node(|node| node.propose_conf_change(Vec::new(), step)).expect("runs").expect("taken");
        let mut behind: Vec<_> = (0..20).map(|number| crew.propose(old, number)).collect();
        crew.settle();
        let rest: Vec<_> = all.into_iter().filter(|node| *node != old).collect();
        let now = crew.status(old);
        assert_eq!((now.condition, now.role), (Condition::Running, Role::Follower), "seed {seed}");
        let mut read = crew.read(old);
        crew.bench(old).run();
        assert!(matches!(read.try_recv(), Ok(ReadOutcome::NotLeader { .. })), "seed {seed}");
        // Well before an election timeout.
        crew.ticks(2);
        let new = crew.leader_among(&rest);
        let mut outcome = crew.propose(new, 99);
        crew.ticks(2);
        index_of(&mut outcome);
        // Who was taken out may not hear what became of them.
        crew.ticks(200);
        let applied = |outcome: &mut oneshot::Receiver<_>| matches!(outcome.try_recv(), Ok(Outcome::Applied(_)));
        let known: Vec<_> = (0..).zip(&mut behind).filter_map(|(n, outcome)| applied(outcome).then_some(n)).collect();
        let commands = crew.commands(new);
        assert!(known.iter().all(|number| commands.contains(&text(*number))), "seed {seed}: {known:?}");
    }
}

#[test]
fn a_handover_that_cannot_be_is_refused_and_one_that_fails_leaves_the_leader() {
    let mut crew = Crew::new(6, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let [a, b]: [usize; 2] = (0..3).filter(|node| *node != leader).collect::<Vec<_>>().try_into().expect("two");
    let fresh = crew.join();
    changed(&mut crew, leader, &[0, 1, 2], &[fresh]);
    let mut to_learner = hand_over(&mut crew, leader, fresh);
    assert!(matches!(to_learner.try_recv(), Ok(HandoverOutcome::Refused(Refusal::BadMembers { .. }))));
    let mut from_follower = hand_over(&mut crew, a, b);
    assert_eq!(from_follower.try_recv(), Ok(HandoverOutcome::NotLeader { hint: Some(node_id(leader)) }));
    let mut to_leader = hand_over(&mut crew, a, leader);
    let elsewhere = HandoverOutcome::NotLeader { hint: Some(node_id(leader)) };
    assert_eq!(to_leader.try_recv(), Ok(elsewhere), "that is for the leader itself to say");
    let mut to_itself = hand_over(&mut crew, leader, leader);
    assert_eq!(to_itself.try_recv(), Ok(HandoverOutcome::Done));

    // It was heard of just now, and will not be again.
    crew.network.isolate(node_id(a), &ids(&[leader, b]));
    let mut lost = hand_over(&mut crew, leader, a);
    let mut second = hand_over(&mut crew, leader, b);
    assert!(matches!(second.try_recv(), Ok(HandoverOutcome::Refused(Refusal::UnderWay { .. }))));
    crew.ticks(2 * ELECTION_TICKS);
    let not_taken = HandoverOutcome::Refused(Refusal::NotTakenOver { to: node_id(a) });
    assert_eq!(lost.try_recv(), Ok(not_taken));
    let mut unheard = hand_over(&mut crew, leader, a);
    let nodes = vec![node_id(a)];
    assert_eq!(unheard.try_recv(), Ok(HandoverOutcome::Refused(Refusal::Unreachable { nodes })));
    let mut outcome = crew.propose(leader, 1);
    crew.settle();
    index_of(&mut outcome);
}

#[test]
fn a_joint_change_that_nobody_ends_is_ended_by_the_leader() {
    use raft::eraftpb::ConfChangeTransition;
    let mut crew = Crew::new(7, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let old = crew.status(leader).membership;
    let mut steps = old.steps_to(&members(&[leader], &[]));
    // As it stands when the one that was to end it is no more.
    steps.set_transition(ConfChangeTransition::Explicit);
    let bench = crew.bench(leader);
    let group = bench.driver.groups.get_mut(&GROUP).expect("open");
    group.with_node(|node| node.propose_conf_change(Vec::new(), steps)).expect("runs").expect("taken");
    bench.driver.woken.insert(GROUP);
    crew.settle();
    assert!(crew.status(leader).membership.is_joint());
    assert!(matches!(refused(&mut crew, leader, &[0, 1, 2], &[]), Refusal::UnderWay { .. }));
    crew.ticks(STUCK_TICKS as usize + 1);
    assert_eq!(crew.status(leader).membership, Membership::of_voters(&ids(&[leader])));
    let mut outcome = crew.propose(leader, 1);
    crew.settle();
    index_of(&mut outcome);
}

#[test]
fn a_leader_knows_how_far_the_others_are() {
    let mut crew = Crew::new(8, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let [a, b]: [usize; 2] = (0..3).filter(|node| *node != leader).collect::<Vec<_>>().try_into().expect("two");
    crew.crash(a);
    crew.propose(leader, 1);
    crew.ticks(ELECTION_TICKS + 1);
    let mut peers = |node: usize| {
        let (answer, mut peers) = oneshot::channel();
        crew.bench(node).driver.handle(Input::Peers { group: GROUP, answer });
        peers.try_recv().expect("answered at once")
    };
    assert_eq!(peers(b), []);
    let seen = peers(leader);
    let last = crew.status(leader).last;
    let of = |node: usize| *seen.iter().find(|peer| peer.node == node_id(node)).expect("a member");
    assert_eq!((seen.len(), of(b).heard, of(b).matched), (2, true, last));
    assert!(!of(a).heard && of(a).matched < last);
}
