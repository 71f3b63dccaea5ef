//! Groups that have lost their majority for ever, and go on with one member.

use super::changes::{change, changed, members};
use super::crew::{Crew, node_id};
use super::*;
use crate::settings::ELECTION_TICKS;

/// Above any term that the tests come to by themselves.
const ALONE: u64 = 1_000;

/// Opens what is left of a group anew, alone.
fn go_on(crew: &mut Crew, node: usize) {
    crew.alone_from = Some((node, ALONE));
    crew.crash(node);
    crew.restart(node);
    crew.ticks(4);
}

fn others(leader: usize) -> Vec<usize> {
    (0..3).filter(|node| *node != leader).collect()
}

fn is_alone(crew: &Crew, node: usize) {
    let status = crew.status(node);
    assert_eq!((status.role, status.condition), (Role::Leader, Condition::Running));
    assert_eq!(status.membership, Membership::of_voters(&[node_id(node)]), "it is the only member");
    assert!(status.term > ALONE, "it has been elected since: {}", status.term);
}

#[test]
fn what_is_left_leads_alone_keeps_all_that_it_has_and_grows_again() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let mut outcomes: Vec<_> = (0..20).map(|number| crew.propose(leader, number)).collect();
        crew.ticks(3);
        all_applied(&mut outcomes);
        others(leader).into_iter().for_each(|node| crew.crash(node));
        // Nobody but the last one has it, so that it is not agreed; a follower cannot know that of what it has.
        let mut doubtful = crew.propose(leader, 20);
        crew.settle();
        assert!(doubtful.try_recv().is_err(), "seed {seed}: it waits for the others");
        go_on(&mut crew, leader);
        is_alone(&crew, leader);
        assert_eq!(crew.commands(leader), (0..=20).map(text).collect::<Vec<_>>(), "seed {seed}");
        let mut outcome = crew.propose(leader, 21);
        crew.settle();
        index_of(&mut outcome);
        // New members get the whole log, and with it what the members are.
        let news: Vec<_> = (0..2).map(|_| crew.join()).collect();
        changed(&mut crew, leader, &[leader], &news);
        changed(&mut crew, leader, &[leader, news[0], news[1]], &[]);
        crew.crash(leader);
        let next = crew.leader_among(&news);
        let mut outcome = crew.propose(next, 22);
        crew.ticks(3);
        index_of(&mut outcome);
        assert_eq!(crew.commands(next), (0..=22).map(text).collect::<Vec<_>>(), "seed {seed}");
        // It is done once: opened like that again, it is what it has become.
        crew.restart(leader);
        crew.leader_among(&[leader, news[0], news[1]]);
        crew.ticks(ELECTION_TICKS);
        assert_eq!(crew.status(leader).membership, crew.status(next).membership, "seed {seed}");
        assert_eq!(crew.commands(leader), crew.commands(next), "seed {seed}");
    }
}

#[test]
fn a_power_loss_at_that_moment_leaves_the_log_as_it_was_or_as_it_is_to_be() {
    for fault in [Fault::Full, Fault::PowerBeforeWrite, Fault::PowerBeforeSync, Fault::SyncFails, Fault::PowerAfterSync]
    {
        let mut crew = Crew::new(7, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let mut outcomes: Vec<_> = (0..5).map(|number| crew.propose(leader, number)).collect();
        crew.ticks(3);
        all_applied(&mut outcomes);
        others(leader).into_iter().for_each(|node| crew.crash(node));
        crew.crash(leader);
        let before = crew.log(leader);
        crew.inject(leader, 0, fault);
        crew.alone_from = Some((leader, ALONE));
        crew.restart(leader);
        assert!(!crew.is_up(leader), "{fault:?}: whoever asked is not told that it is done");
        crew.crash(leader);
        let after = crew.log(leader);
        let is_done = after.hard_state.term == ALONE;
        assert_eq!(is_done, fault == Fault::PowerAfterSync, "{fault:?}");
        match is_done {
            false => assert_eq!(after, before, "{fault:?}"),
            true => assert_eq!((after.hard_state.commit, after.last.term), (after.last.index, ALONE), "{fault:?}"),
        }
        crew.restart(leader);
        crew.ticks(4);
        is_alone(&crew, leader);
        assert_eq!(crew.commands(leader), (0..5).map(text).collect::<Vec<_>>(), "{fault:?}");
        let ended = crew.log(leader).last;
        let took_out: u64 = 2;
        // The others leave one by one, and the entry of a new leader follows.
        assert_eq!(ended.index, before.last.index + took_out + 1, "{fault:?}: it was done once");
    }
}

#[test]
fn a_change_of_members_that_was_under_way_is_over_as_well() {
    for (seed, applied_half) in [(1, true), (2, false), (3, true), (4, false)] {
        println!("seed {seed}");
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let news: Vec<_> = (0..2).map(|_| crew.join()).collect();
        changed(&mut crew, leader, &[0, 1, 2], &news);
        let gone: Vec<_> = others(leader);
        if !applied_half {
            // The entry that begins it comes to the log here and to nobody else's.
            gone.iter().chain(&news).for_each(|node| crew.crash(*node));
        }
        let _outcome = change(&mut crew, leader, &members(&[leader, news[0], news[1]], &[]));
        crew.settle();
        assert_eq!(crew.status(leader).membership.is_joint(), applied_half, "seed {seed}");
        gone.iter()
            .chain(&news)
            .filter(|node| crew.is_up(**node))
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| crew.crash(node));
        crew.machine(leader).make_durable();
        go_on(&mut crew, leader);
        is_alone(&crew, leader);
    }
}

#[test]
fn it_is_done_again_when_what_the_group_has_grown_to_is_lost_as_well() {
    let mut crew = Crew::new(11, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let mut outcome = crew.propose(leader, 0);
    crew.ticks(3);
    index_of(&mut outcome);
    others(leader).into_iter().for_each(|node| crew.crash(node));
    go_on(&mut crew, leader);
    let news: Vec<_> = (0..2).map(|_| crew.join()).collect();
    changed(&mut crew, leader, &[leader], &news);
    changed(&mut crew, leader, &[leader, news[0], news[1]], &[]);
    let mut outcome = crew.propose(leader, 1);
    crew.ticks(3);
    index_of(&mut outcome);
    // One of those that came later is left: by its log the first ones are out already.
    [leader, news[0], news[1]].into_iter().for_each(|node| crew.crash(node));
    crew.alone_from = Some((news[0], 2 * ALONE));
    crew.restart(news[0]);
    crew.ticks(4);
    is_alone(&crew, news[0]);
    assert!(crew.status(news[0]).term > 2 * ALONE, "{:?}", crew.status(news[0]));
    assert_eq!(crew.commands(news[0]), [text(0), text(1)]);
}

#[test]
fn one_that_had_no_vote_yet_can_be_what_is_left() {
    let mut crew = Crew::new(5, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let learner = crew.join();
    changed(&mut crew, leader, &[0, 1, 2], &[learner]);
    let mut outcome = crew.propose(leader, 0);
    crew.ticks(3);
    index_of(&mut outcome);
    (0..3).for_each(|node| crew.crash(node));
    go_on(&mut crew, learner);
    is_alone(&crew, learner);
    assert_eq!(crew.commands(learner), [text(0)]);
}

#[test]
fn a_member_that_holds_nothing_is_not_what_is_left() {
    let mut crew = Crew::new(5, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let mut outcome = crew.propose(leader, 0);
    crew.ticks(3);
    index_of(&mut outcome);
    (0..3).for_each(|node| crew.crash(node));
    let empty = crew.join();
    crew.alone_from = Some((empty, ALONE));
    crew.crash(empty);
    crew.restart(empty);
    assert!(!crew.is_up(empty), "it would lead a group that has lost everything");
}
