//! What somebody asks for is begun or refused with what helps, and stays.

use super::*;
use crate::operation::OperationStep;
use crate::outcome::Refusal;

const DAY_MICROS: u64 = 24 * 3_600 * 1_000_000;

fn ask(played: &Played, shard: u64, from: u64, to: u64) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    move_by_hand(&played.state, &played.told(), &played.limits, ByHand { shard, from, to }, played.now)
}

#[track_caller]
fn refused(played: &Played, shard: u64, from: u64, to: u64) -> String {
    match ask(played, shard, from, to).expect_err("it cannot be begun") {
        Ok(refusal) => refusal.to_string(),
        Err(why) => why,
    }
}

/// Shards on the nodes 1 to 3 of four, and the first of them.
fn placed(shards: u32) -> (Played, u64) {
    let mut played = Played::new(1, 3, 3);
    played.create(shards, 3);
    played.join(4, "z1");
    (played, State::FIRST_SHARD_ID)
}

#[test]
fn a_move_that_cannot_be_begun_is_refused_with_what_helps() {
    let (mut played, shard) = placed(4);
    let check = |played: &Played, from, to, expected: &str| {
        let told = refused(played, shard, from, to);
        assert!(told.contains(expected), "{told:?} does not say {expected:?}");
    };
    assert_eq!(refused(&played, 99, 1, 4), "shard 99 does not exist");
    check(&played, 4, 1, "is node 4, which has no replica of shard 16");
    check(&played, 1, 2, "is node 2, which has a replica of shard 16");
    check(&played, 1, 9, "node 9 is not in the cluster");
    played.broken.insert((2, shard));
    check(&played, 1, 4, "the replica on node 2 does not work: planted: wait until it is well");
    played.broken.clear();
    played.lag(3, shard, 300);
    check(&played, 1, 4, "the replica on node 3 lacks 300 entries: wait");
    played.lag(3, shard, 0);
    played.shortage(4, true);
    check(&played, 1, 4, "node 4 takes no more data (disk): name another node");
    played.shortage(4, false);
    played.silent(4, Duration::ZERO);
    check(&played, 1, 4, "node 4 is not heard of: start it, or name another node");
    played.come_back(4);
    played.mute_leaders(true);
    check(&played, 1, 4, "it has no leader that tells who its members are: wait");
    played.mute_leaders(false);
    played.limits.balance_at_once = 0;
    for other in [shard + 1, shard + 2] {
        let (command, _) = ask(&played, other, 1, 4).expect("begun");
        played.apply(command);
    }
    check(&played, 1, 4, "2 replicas are on their way into node 4, and no more are moved at once: wait until");
    assert!(refused(&played, shard + 1, 2, 4).contains("operation 1 is under way on shard 17: wait"));
    played.limits.at_once = 2;
    check(&played, 1, 4, "2 operations are under way, and no more are moved at once");
    played.set(4, NodeStatus::Draining);
    check(&played, 1, 4, "node 4 cannot get a replica: it is draining");
}

#[test]
fn a_move_by_hand_into_a_zone_of_another_replica_says_so() {
    let (mut played, shard) = placed(1);
    let notes = |played: &Played, from| ask(played, shard, from, 4).expect("begun").1;
    assert_eq!(notes(&played, 1), [] as [String; 0], "the same zone");
    assert_eq!(notes(&played, 2), ["it shares zone z1 with one other replica of the shard then"]);
    played.join(5, "");
    assert_eq!(ask(&played, shard, 1, 5).expect("begun").1, [] as [String; 0]);
}

#[test]
fn what_was_moved_by_hand_stays_for_a_day_and_other_replicas_make_room() {
    let mut played = Played::new(1, 3, 1);
    played.create(6, 1);
    let on = |played: &Played, node: u64| {
        let shards = played.state.shards().filter(|(_, shard)| shard.replicas == [node]);
        shards.map(|(_, shard)| shard.id).collect::<Vec<u64>>()
    };
    let moved = on(&played, 1);
    for shard in &moved {
        let (command, _) = ask(&played, *shard, 1, 2).expect("begun");
        assert!(command.may_be_asked_for());
        played.apply(command);
    }
    let limits = std::mem::replace(&mut played.limits, Limits { balance_at_once: 0, ..Limits::default() });
    played.run_to_rest();
    assert_eq!(([1, 2, 3].map(|node| on(&played, node).len())), [0, 4, 2], "two were moved");
    played.limits = limits;
    played.run_to_rest();
    assert_eq!([1, 2, 3].map(|node| on(&played, node).len()), [2, 2, 2]);
    assert!(moved.iter().all(|shard| on(&played, 2).contains(shard)), "{moved:?}");
    // With nothing else to make room they stay all the same, for a day.
    for shard in on(&played, 1).into_iter().chain(on(&played, 3)) {
        played.sizes.insert(shard, 1 << 34);
    }
    for shard in &moved {
        played.sizes.insert(*shard, 1 << 36);
    }
    let begun = |played: &Played| {
        played
            .plan()
            .commands
            .iter()
            .any(|command| matches!(command, Command::BeginOperation { shard, .. } if moved.contains(shard)))
    };
    assert!(!begun(&played));
    played.now += DAY_MICROS;
    assert!(begun(&played));
}

#[test]
fn a_move_that_is_being_undone_is_not_the_one_that_is_asked_for_again() {
    let (mut played, shard) = placed(1);
    let asked = ByHand { shard, from: 1, to: 4 };
    let (command, _) = ask(&played, shard, 1, 4).expect("begun");
    played.apply(command);
    let is_asked = |state: &State| asked.is(state.operation(1).expect("it was begun"));
    assert!(is_asked(&played.state));
    let undone = Command::AdvanceOperation {
        id: 1,
        from: OperationStep::Join,
        to: OperationStep::Undo,
        at: Floor { term: 0, index: 0 },
        unix_micros: 1,
    };
    for change in [Command::CancelOperation { id: 1 }, undone] {
        let mut state = played.state.clone();
        state.apply(change).expect("applied");
        assert!(!is_asked(&state));
    }
}
