//! A node that left a group, lost what it held, and is a member once more.

use super::*;
use crate::ids::Position;

/// Where a group's log stands, as the control plane notes it of a member that has left.
fn stands(crew: &Crew, leader: usize) -> Position {
    let status = crew.status(leader);
    Position { index: status.applied, term: status.term }
}

#[test]
fn the_only_founder_that_comes_back_empty_leads_nothing_until_it_has_the_log() {
    for seed in 0..5 {
        let mut crew = Crew::new(seed, 1);
        let founder = crew.leader_among(&[0]);
        let mut outcomes: Vec<_> = (0..50).map(|number| crew.propose(founder, number)).collect();
        crew.settle();
        let other = crew.join();
        changed(&mut crew, founder, &[founder], &[other]);
        changed(&mut crew, founder, &[founder, other], &[]);
        let _handed = hand_over(&mut crew, founder, other);
        crew.ticks(5);
        assert_eq!(crew.leader_among(&[founder, other]), other);
        changed(&mut crew, other, &[other], &[]);
        outcomes.push(crew.propose(other, 50));
        crew.settle();
        let floor = stands(&crew, other);
        crew.wipe(founder, Some(floor));
        for _ in 0..60 {
            crew.ticks(1);
            assert_eq!(crew.status(founder).role, Role::Follower, "seed {seed}: it founded its group anew");
        }
        changed(&mut crew, other, &[other], &[founder]);
        changed(&mut crew, other, &[other, founder], &[]);
        let _handed = hand_over(&mut crew, other, founder);
        crew.ticks(5);
        assert_eq!(crew.leader_among(&[founder, other]), founder, "seed {seed}: it has all that it lacked");
        outcomes.push(crew.propose(founder, 51));
        crew.ticks(3);
        all_applied(&mut outcomes);
        assert_eq!(crew.commands(founder), (0..52).map(text).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_member_that_comes_back_empty_elects_nobody_who_lacks_what_it_held_and_remembers_the_term() {
    for seed in 0..10 {
        let mut crew = Crew::new(seed, 3);
        let leader = crew.leader_among(&[0, 1, 2]);
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let (leaves, stale) = (others[0], others[1]);
        crew.network.isolate(node_id(stale), &ids(&[leader, leaves]));
        // Acknowledged by the leader and the one that leaves; the third knows neither this nor that anybody leaves.
        let mut outcomes: Vec<_> = (0..20).map(|number| crew.propose(leader, number)).collect();
        crew.settle();
        all_applied(&mut outcomes);
        let new = crew.join();
        for node in [leader, leaves, new] {
            crew.network.isolate(node_id(stale), &ids(&[node]));
        }
        let mut added = change(&mut crew, leader, &members(&[0, 1, 2], &[new]));
        crew.ticks(6);
        index_of(&mut added);
        let mut replaced = change(&mut crew, leader, &members(&[leader, stale, new], &[]));
        crew.ticks(6);
        index_of(&mut replaced);
        let floor = stands(&crew, leader);
        crew.wipe(leaves, Some(floor));
        assert_eq!(crew.status(leaves).term, floor.term, "seed {seed}: a deposed leader could count on it");
        crew.network.heal();
        for node in [leader, new] {
            crew.network.isolate(node_id(node), &ids(&[stale, leaves]));
        }
        for _ in 0..100 {
            crew.ticks(1);
            for node in [stale, leaves] {
                assert_ne!(crew.status(node).role, Role::Leader, "seed {seed}: the group has two leaders");
            }
        }
    }
}
