//! Groups whose state machines begin with a state.

use super::crew::{Crew, node_id};
use super::*;
use crate::ids::Position;
use crate::settings::ELECTION_TICKS;
use crate::testing::Image;

const BEGIN: Position = Position { index: 4_000, term: 7 };

/// What a state machine holds of commands that were applied elsewhere.
fn state() -> Image {
    Image { applied: BEGIN, commands: (0..3).map(|number| (number + 10, text(number))).collect(), ..Image::default() }
}

fn write(crew: &mut Crew, leader: usize, numbers: std::ops::Range<u64>) {
    let mut outcomes: Vec<_> = numbers.map(|number| crew.propose(leader, number)).collect();
    crew.ticks(3 * ELECTION_TICKS);
    all_applied(&mut outcomes);
}

#[test]
fn a_group_that_is_founded_on_a_state_goes_on_after_it_and_comes_back() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut crew = Crew::founded_on(seed, 3, &state(), &[0, 1, 2]);
        let leader = crew.leader_among(&[0, 1, 2]);
        assert!(crew.status(leader).term > BEGIN.term, "no two groups share a term's entries");
        write(&mut crew, leader, 3..9);
        // Nothing of it is flushed, and then some is.
        for flushed in [false, true] {
            for node in 0..3 {
                if flushed {
                    crew.machine(node).make_durable();
                }
                crew.crash(node);
                crew.restart(node);
            }
            let leader = crew.leader_among(&[0, 1, 2]);
            crew.ticks(3);
            let upto = if flushed { 10 } else { 9 };
            for node in 0..3 {
                assert_eq!(crew.commands(node), (0..upto).map(text).collect::<Vec<_>>(), "node at {node}");
            }
            write(&mut crew, leader, upto..upto + 1);
            crew.ticks(3);
        }
    }
}

#[test]
fn a_founder_without_the_state_decides_nothing_without_those_who_have_it_and_fetches_it() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut crew = Crew::founded_on(seed, 3, &state(), &[0]);
        crew.crash(0);
        for _ in 0..10 * ELECTION_TICKS {
            crew.ticks(1);
            assert!(
                [1, 2].iter().all(|node| crew.status(*node).role == Role::Follower),
                "seed {seed}: it leads nothing"
            );
        }
        crew.restart(0);
        let leader = crew.leader_among(&[0, 1, 2]);
        assert_eq!(leader, 0, "seed {seed}: who has the state");
        write(&mut crew, leader, 3..6);
        for node in 0..3 {
            assert_eq!(crew.commands(node), (0..6).map(text).collect::<Vec<_>>(), "node at {node}");
        }
        crew.crash(0);
        let leader = crew.leader_among(&[1, 2]);
        write(&mut crew, leader, 6..7);
    }
}

#[test]
fn a_group_is_founded_only_on_the_very_state_that_it_begins_with() {
    let open = |applied: Position, found_at: Option<Position>| {
        let machine = TestMachine::default();
        machine.lock().live.applied = applied;
        let mut bench = Bench::new(1, Arc::new(MemoryLog::new()));
        let spec = GroupSpec {
            group: GROUP,
            found_with: Some(vec![ME]),
            found_at,
            floor: None,
            stands_first: false,
            alone_from: None,
        };
        bench.open_as(spec, &machine).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(open(BEGIN, Some(BEGIN)), Ok(()));
    let later = Position { index: BEGIN.index + 1, ..BEGIN };
    for (applied, found_at) in [(BEGIN, None), (later, Some(BEGIN)), (Position::default(), Some(BEGIN))] {
        let error = open(applied, found_at).expect_err("it lacks its log");
        assert!(error.contains("there is no log"), "{error}");
    }
}

#[test]
fn who_stands_first_leads_as_soon_as_a_majority_is_there() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut crew = Crew::about_to_found(seed, 3, &state(), &[0, 1, 2]);
        crew.stands_first = Some(1);
        // Nobody hears it for a while.
        crew.restart(1);
        crew.ticks(4);
        assert_eq!(crew.status(1).leader, None, "seed {seed}: alone it leads nothing");
        let term = crew.status(1).term;
        crew.restart(2);
        crew.ticks(2);
        assert_eq!((crew.status(1).role, crew.status(2).leader), (Role::Leader, Some(node_id(1))), "seed {seed}");
        assert_eq!(crew.status(1).term, term + 1, "seed {seed}: standing in vain deposes nobody");
        crew.restart(0);
        crew.ticks(3 * ELECTION_TICKS);
        assert_eq!(crew.leader_among(&[0, 1, 2]), 1, "seed {seed}: once there is a leader it stays");
        // It is for the beginning: what comes back waits for its turn.
        [0, 1, 2].into_iter().for_each(|node| crew.crash(node));
        [1, 2].into_iter().for_each(|node| crew.restart(node));
        crew.ticks(2);
        assert!([1, 2].iter().all(|node| crew.status(*node).leader.is_none()), "seed {seed}");
    }
}

#[test]
fn who_was_to_stand_first_and_does_not_come_is_not_waited_for() {
    let mut crew = Crew::about_to_found(1, 3, &state(), &[0, 1, 2]);
    crew.stands_first = Some(1);
    [0, 2].into_iter().for_each(|node| crew.restart(node));
    crew.ticks(2 * ELECTION_TICKS);
    assert_ne!(crew.leader_among(&[0, 2]), 1);
}
