//! Lost nodes that are given up, and shards that go on without their majority.

use super::*;
use crate::collection::Floor;
use crate::merge::MergeStep;
use crate::operation::{OperationKind, OperationStep};
use crate::recovery::{Recovery, SKIPPED_IDS};
use crate::split::SplitStep;

const AT: Floor = Floor { term: 7, index: 812 };

fn give_up(id: u64) -> Command {
    Command::GiveUpNode { id }
}

fn recover(epoch: u64, survivor: u64, term: u64) -> Command {
    Command::RecoverShard { shard: 16, epoch, survivor, term, at: AT, unix_micros: 9 }
}

/// One shard on the nodes 4 to 6 of nine, or on more of them.
fn placed(replicas: &[u64]) -> State {
    let mut state = state(9);
    let replication = u32::try_from(replicas.len()).expect("few");
    apply(&mut state, create_replicated(1, "docs", 1, replication)).expect("created");
    let replicas = replicas.to_vec();
    apply(&mut state, Command::SetReplicas { shard: 16, epoch: 1, replicas }).expect("placed");
    apply(&mut state, Command::SetVoters { voters: vec![1, 2, 3] }).expect("noted");
    state
}

#[track_caller]
fn lose_for_ever(state: &mut State, nodes: &[u64]) {
    for &id in nodes {
        apply(state, status(id, NodeStatus::Lost)).expect("lost");
        apply(state, give_up(id)).expect("given up");
    }
}

fn shard(state: &State) -> &ShardDescriptor {
    state.shard(16).expect("there").1
}

fn recovery(outcome: Result<Effect, Refusal>) -> Recovery {
    match outcome {
        Ok(Effect::Recovery(recovery)) => Recovery::clone(&recovery),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_lost_node_is_given_up_and_for_ever() {
    let mut state = placed(&[4, 5, 6]);
    for (status_before, refused) in [(NodeStatus::Up, true), (NodeStatus::Draining, true), (NodeStatus::Lost, false)] {
        if state.nodes()[&4].status == NodeStatus::Draining {
            apply(&mut state, status(4, NodeStatus::Up)).expect("taken back");
        }
        apply(&mut state, status(4, status_before)).expect("stands so");
        let outcome = apply(&mut state, give_up(4));
        let expected = Refusal::NotLost { node: 4, status: status_before };
        assert_eq!(outcome.err(), refused.then_some(expected));
    }
    assert_eq!(
        (state.nodes()[&4].status, state.given_up().get(&4), state.deletions()),
        (NodeStatus::Removed, Some(&1), 1)
    );
    apply(&mut state, give_up(4)).expect("once more is harmless");
    assert_eq!(state.deletions(), 1);
    assert_eq!(apply(&mut state, join(4, place(4, "z0"))), Err(Refusal::Removed(4)));
    assert_eq!(apply(&mut state, status(4, NodeStatus::Up)), Err(Refusal::Removed(4)));
    assert_eq!(shard(&state).replicas, [4, 5, 6], "what it had is made anew by and by");
    apply(&mut state, status(2, NodeStatus::Lost)).expect("lost");
    assert_eq!(apply(&mut state, give_up(2)), Err(Refusal::Votes(2)), "the control group would lose its vote");
    assert_eq!(apply(&mut state, give_up(99)), Err(Refusal::NoNode(99)));
    // The plain removal is as careful as before.
    apply(&mut state, status(5, NodeStatus::Lost)).expect("lost");
    assert!(matches!(apply(&mut state, status(5, NodeStatus::Removed)), Err(Refusal::Wanted { node: 5, .. })));
}

#[test]
fn a_shard_goes_on_with_one_replica_once_it_has_lost_its_majority_for_ever_and_not_before() {
    let mut state = placed(&[4, 5, 6]);
    apply(&mut state, status(4, NodeStatus::Lost)).expect("lost");
    apply(&mut state, status(5, NodeStatus::Lost)).expect("lost");
    let may_come_back = Refusal::HasMajority { shard: 16, nodes: vec![4, 5, 6] };
    assert_eq!(apply(&mut state, recover(2, 6, 9)), Err(may_come_back), "lost ones may come back");
    apply(&mut state, give_up(4)).expect("given up");
    assert_eq!(apply(&mut state, recover(2, 6, 9)), Err(Refusal::HasMajority { shard: 16, nodes: vec![5, 6] }));
    apply(&mut state, give_up(5)).expect("given up");
    let invalid = |outcome: Result<Effect, Refusal>, name: &str| {
        assert!(matches!(&outcome, Err(Refusal::Invalid { field, .. }) if field == name), "{outcome:?}");
    };
    invalid(apply(&mut state, recover(2, 5, 9)), "survivor");
    invalid(apply(&mut state, recover(2, 7, 9)), "survivor");
    invalid(apply(&mut state, recover(2, 6, AT.term)), "term");
    assert!(matches!(apply(&mut state, recover(1, 6, 9)), Err(Refusal::Stale { epoch: 2, .. })));
    let begun = recovery(apply(&mut state, recover(2, 6, 9)));
    assert_eq!((begun.survivor, begun.term, begun.epoch, &*begun.kept), (6, 9, 2, &[][..]));
    assert_eq!(recovery(apply(&mut state, recover(2, 6, 9))), begun, "the answer was lost");
    let now = shard(&state).clone();
    assert_eq!((&*now.replicas, now.epoch), (&[6][..], 3));
    let floor = Floor { term: 9, index: AT.index };
    assert_eq!(now.left, BTreeMap::from([(4, floor), (5, floor)]), "whoever comes back as a member votes for no less");
    assert_eq!((state.shards_on(4).count(), state.shards_on(5).count()), (0, 0), "they remove what they have");
    // Nothing else is done about it before that is done.
    let busy = Err(Refusal::Busy { shard: 16, operation: begun.id });
    let (kind, from, reason) = (OperationKind::Repair, None, String::new());
    let repair = Command::BeginOperation { kind, shard: 16, epoch: 3, from, to: 7, reason, unix_micros: 1 };
    assert_eq!(apply(&mut state, repair.clone()), busy);
    assert_eq!(apply(&mut state, Command::SetReplicas { shard: 16, epoch: 3, replicas: vec![7] }), busy);
    let again = Command::RecoverShard { shard: 16, epoch: 3, survivor: 6, term: 10, at: AT, unix_micros: 10 };
    assert_eq!(apply(&mut state, again), busy);
    for (id, is_over) in [(begun.id + 1, false), (begun.id, true), (begun.id, true)] {
        apply(&mut state, Command::EndRecovery { shard: 16, id }).expect("harmless");
        assert_eq!(state.recovery_of(16).is_none(), is_over);
    }
    apply(&mut state, repair).expect("begun");
    apply(&mut state, give_up(4)).expect("harmless");
}

#[test]
fn what_is_left_beside_the_survivor_is_kept_until_that_leads_and_goes_on_if_it_never_does() {
    let mut state = placed(&[4, 5, 6, 7, 8]);
    lose_for_ever(&mut state, &[4, 5, 6]);
    let begun = recovery(apply(&mut state, recover(2, 7, 9)));
    assert_eq!(begun.kept, [8]);
    let here = |state: &State, node: u64| state.shards_on(node).count();
    assert_eq!((here(&state, 7), here(&state, 8), here(&state, 4)), (1, 1, 0));
    apply(&mut state, status(8, NodeStatus::Draining)).expect("draining");
    assert!(matches!(apply(&mut state, status(8, NodeStatus::Drained)), Err(Refusal::Wanted { node: 8, .. })));
    apply(&mut state, status(8, NodeStatus::Up)).expect("taken back");
    assert_eq!(apply(&mut state, recover(3, 8, 10)), Err(Refusal::Busy { shard: 16, operation: begun.id }));
    lose_for_ever(&mut state, &[7]);
    assert!(matches!(apply(&mut state, recover(3, 8, 9)), Err(Refusal::Invalid { field, .. }) if field == "term"));
    let again = recovery(apply(&mut state, recover(3, 8, 10)));
    assert_eq!((again.survivor, &*again.kept, shard(&state).epoch), (8, &[][..], 4));
    apply(&mut state, Command::EndRecovery { shard: 16, id: begun.id }).expect("harmless");
    assert_eq!(state.recovery_of(16).map(|known| known.id), Some(again.id), "that was the one before");
    apply(&mut state, Command::EndRecovery { shard: 16, id: again.id }).expect("ended");
    assert_eq!((here(&state, 7), here(&state, 8)), (0, 1));
}

#[test]
fn who_may_vote_already_counts_for_a_majority_and_whatever_was_under_way_is_over() {
    let brings = |state: &mut State, steps: &[(OperationStep, OperationStep)]| {
        let (kind, reason) = (OperationKind::Move, String::new());
        let begin = Command::BeginOperation { kind, shard: 16, epoch: 2, from: Some(4), to: 7, reason, unix_micros: 1 };
        apply(state, begin).expect("begun");
        for &(from, to) in steps {
            apply(state, Command::AdvanceOperation { id: 1, from, to, at: AT, unix_micros: 2 })
                .expect("a step further");
        }
    };
    use OperationStep::{CatchUp, Join, Switch};
    let mut state = placed(&[4, 5, 6]);
    brings(&mut state, &[(Join, CatchUp), (CatchUp, Switch)]);
    lose_for_ever(&mut state, &[5]);
    // Of {4, 5, 6}, of {5, 6, 7} and of all four, two or three are there, one of which may be needed by the others.
    assert!(matches!(apply(&mut state, recover(2, 6, 9)), Err(Refusal::HasMajority { .. })));
    lose_for_ever(&mut state, &[4]);
    let begun = recovery(apply(&mut state, recover(2, 6, 9)));
    assert_eq!((begun.survivor, &*begun.kept), (6, &[7][..]), "that may be a replica, too");
    let over = state.operation(1).expect("known");
    assert_eq!((over.step, over.ended_unix_micros), (OperationStep::Cancelled, Some(9)));
    assert_eq!(shard(&state).left.keys().copied().collect::<Vec<_>>(), [4, 5, 7]);
    // The one that was brought may as well be what is left.
    let mut state = placed(&[4, 5, 6]);
    brings(&mut state, &[(Join, CatchUp)]);
    lose_for_ever(&mut state, &[4, 5, 6]);
    assert_eq!(recovery(apply(&mut state, recover(2, 7, 9))).survivor, 7);
}

#[test]
fn a_split_goes_on_with_one_replica_of_both_halves_or_is_over() {
    use SplitStep::*;
    for steps in 0..3 {
        let mut state = placed(&[4, 5, 6]);
        let reason = String::new();
        let begin = Command::BeginSplit { shard: 16, epoch: 2, at: 1 << 63, reason, unix_micros: 6, unasked: false };
        apply(&mut state, begin).expect("begun");
        let advance = |from, to| Command::AdvanceSplit { id: 1, from, to, at: AT, unix_micros: 8 };
        for (from, to) in [(Prepare, Divide), (Divide, Found)].into_iter().take(steps) {
            apply(&mut state, advance(from, to)).expect("a step further");
        }
        lose_for_ever(&mut state, &[4, 5]);
        let left = recovery(apply(&mut state, recover(2, 6, 9)));
        let split = state.split(1).expect("known").clone();
        if steps == 0 {
            assert_eq!((split.step, state.recoveries().count()), (Cancelled, 1));
            continue;
        }
        assert_eq!((&*split.right.replicas, state.recoveries().count()), (&[6][..], 2));
        let right = state.recovery_of(17).expect("of the other half, too").clone();
        assert_eq!((right.survivor, right.term), (left.survivor, left.term));
        assert_eq!(split.right.left.keys().copied().collect::<Vec<_>>(), [4, 5]);
        if split.step == Divide {
            apply(&mut state, advance(Divide, Found)).expect("a step further");
        }
        apply(&mut state, advance(Found, Done)).expect("done");
        for recovery in [&left, &right] {
            apply(&mut state, Command::EndRecovery { shard: recovery.shard, id: recovery.id }).expect("ended");
        }
        assert_eq!(state.shard(17).expect("there").1.replicas, [6]);
    }
}

#[test]
fn a_split_that_only_lost_members_had_come_to_is_asked_for_anew() {
    use SplitStep::*;
    let later = Floor { term: AT.term, index: AT.index + 1 };
    for (entry, is_there) in [(AT, true), (later, false), (Floor { term: AT.term + 1, index: 3 }, false)] {
        let mut state = placed(&[4, 5, 6]);
        let reason = String::new();
        let begin = Command::BeginSplit { shard: 16, epoch: 2, at: 1 << 63, reason, unix_micros: 6, unasked: false };
        apply(&mut state, begin).expect("begun");
        for (from, to) in [(Prepare, Divide), (Divide, Found)] {
            apply(&mut state, Command::AdvanceSplit { id: 1, from, to, at: entry, unix_micros: 8 })
                .expect("a step further");
        }
        lose_for_ever(&mut state, &[4, 5]);
        recovery(apply(&mut state, recover(2, 6, 9)));
        let split = state.split(1).expect("known");
        let expected = if is_there { (Found, Some(entry)) } else { (Divide, None) };
        assert_eq!((split.step, split.right.split), expected);
    }
}

#[test]
fn who_is_brought_counts_for_no_majority_before_the_switch() {
    let mut state = placed(&[4, 5, 6]);
    let (kind, reason) = (OperationKind::Move, String::new());
    let begin = Command::BeginOperation { kind, shard: 16, epoch: 2, from: Some(4), to: 7, reason, unix_micros: 1 };
    apply(&mut state, begin).expect("begun");
    lose_for_ever(&mut state, &[6, 7]);
    assert!(matches!(apply(&mut state, recover(2, 4, 9)), Err(Refusal::HasMajority { .. })), "4 and 5 decide");
}

#[test]
fn a_collection_that_is_deleted_meanwhile_is_forgotten_with_what_is_under_way() {
    let mut state = placed(&[4, 5, 6]);
    lose_for_ever(&mut state, &[4, 5]);
    recovery(apply(&mut state, recover(2, 6, 9)));
    apply(&mut state, delete_and_keep_name(2, "docs")).expect("deleted");
    assert!(state.recoveries().next().is_none());
    apply(&mut state, Command::EndRecovery { shard: 16, id: 1 }).expect("harmless");
    assert_eq!(apply(&mut state, recover(3, 6, 12)), Err(Refusal::NoShard(16)));
}

#[test]
fn a_shard_that_is_merged_goes_on_alone_only_once_the_merge_is_given_up() {
    use MergeStep::{Cancelled, Copy, Freeze, Prepare, Thaw};
    let mut state = state(9);
    apply(&mut state, create_replicated(1, "docs", 2, 3)).expect("created");
    for (shard, replicas) in [(16, vec![4, 5, 6]), (17, vec![7, 8, 9])] {
        apply(&mut state, Command::SetReplicas { shard, epoch: 1, replicas }).expect("placed");
    }
    apply(&mut state, Command::SetVoters { voters: vec![1, 2, 3] }).expect("noted");
    let (floor, reason) = (Floor { term: 1, index: 5_000 }, String::new());
    let (left, right, left_epoch, right_epoch) = (16, 17, 2, 2);
    let begin =
        Command::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros: 6, unasked: false };
    apply(&mut state, begin).expect("begun");
    lose_for_ever(&mut state, &[4, 5]);
    for (from, to) in [(Prepare, Copy), (Copy, Freeze), (Freeze, Thaw)] {
        assert_eq!(apply(&mut state, recover(2, 6, 9)), Err(Refusal::Busy { shard: 16, operation: 1 }), "at {from}");
        apply(&mut state, Command::AdvanceMerge { id: 1, from, to, unix_micros: 8 }).expect("further");
    }
    // Only with a leader it can be told to work on.
    let begun = recovery(apply(&mut state, recover(2, 6, 9)));
    assert_eq!((begun.id, begun.survivor), (2, 6));
    apply(&mut state, Command::AdvanceMerge { id: 1, from: Thaw, to: Cancelled, unix_micros: 8 }).expect("ended");
    let again = Command::BeginMerge {
        left,
        left_epoch: 3,
        right,
        right_epoch,
        floor,
        reason: String::new(),
        unix_micros: 9,
        unasked: false,
    };
    assert_eq!(apply(&mut state, again), Err(Refusal::Busy { shard: 16, operation: 2 }), "it is recovered");
}

#[test]
fn the_control_group_goes_on_with_one_coordinator_in_a_new_era_and_the_other_voters_are_given_up() {
    let mut state = placed(&[3, 5, 6]);
    let recover = |survivor, lost: &[u64], era| {
        let lost = lost.to_vec();
        Command::RecoverControl { survivor, lost, era, ended: 40 }
    };
    let invalid = |outcome: Result<Effect, Refusal>, name: &str| {
        assert!(matches!(&outcome, Err(Refusal::Invalid { field, .. }) if field == name), "{outcome:?}");
    };
    invalid(apply(&mut state, recover(1, &[2, 3], 1)), "era");
    invalid(apply(&mut state, recover(99, &[1, 2, 3], 0)), "survivor");
    invalid(apply(&mut state, recover(1, &[1, 2, 3], 0)), "survivor");
    invalid(apply(&mut state, recover(1, &[2], 0)), "lost");
    invalid(apply(&mut state, recover(1, &[], 0)), "lost");
    assert_eq!(apply(&mut state, recover(1, &[2, 3, 99], 0)), Err(Refusal::NoNode(99)));
    let before = state.clone();
    for _ in 0..2 {
        let outcome = apply(&mut state, recover(1, &[2, 3], 0));
        assert_eq!(outcome, Ok(Effect::Voters(vec![1])), "also when the answer was lost");
    }
    assert_eq!((state.era(), state.voters()), (1, &[1][..]));
    assert_eq!((before.end_of_era(0), state.end_of_era(0), state.end_of_era(1)), (None, Some(40), None));
    assert_eq!(state.given_up().keys().copied().collect::<Vec<_>>(), [2, 3], "whatever they hold");
    let given_up: Vec<u64> = state.given_up().values().copied().collect();
    assert!(given_up.iter().all(|deletion| *deletion > before.deletions() + SKIPPED_IDS), "{given_up:?}");
    assert_eq!(apply(&mut state, join(2, place(2, "z0"))), Err(Refusal::Removed(2)));
    assert_eq!(shard(&state).replicas, [3, 5, 6], "made anew by the others");
    apply(&mut state, create_replicated(2, "more", 1, 1)).expect("created");
    let new = state.collections().values().find(|collection| collection.name.as_str() == "more").expect("there");
    assert!(new.shards[0].id >= 17 + SKIPPED_IDS, "the lost ones may have handed the next one out: {:?}", new.shards);
    let bytes = state.encode(3, 1);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with(r#"{"format":7,"#) && text.contains(r#""eras":[40],"requests""#), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state, 3, 1)));
    let expected = r#"{"command":"recover-control","survivor":1,"lost":[2,3],"era":0,"ended":40}"#;
    assert_eq!(String::from_utf8(recover(1, &[2, 3], 0).encode()).expect("text"), expected);
    assert_eq!(Command::decode(expected.as_bytes()).expect("readable"), recover(1, &[2, 3], 0));
}

#[test]
fn golden_snapshot_and_commands_of_format_5() {
    let mut state = placed(&[4, 5, 6, 7]);
    assert!(String::from_utf8_lossy(&state.encode(1, 1)).starts_with("{\"format\":2,"), "older programs can read it");
    for id in [4, 5] {
        apply(&mut state, status(id, NodeStatus::Lost)).expect("lost");
    }
    let commands = [give_up(4), give_up(5), recover(2, 6, 9)];
    let expected = [
        r#"{"command":"give-up-node","id":4}"#,
        r#"{"command":"give-up-node","id":5}"#,
        r#"{"command":"recover-shard","shard":16,"epoch":2,"survivor":6,"term":9,"at":{"term":7,"index":812},"unix_micros":9}"#,
    ];
    for (command, expected) in commands.into_iter().zip(expected) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), expected);
        assert_eq!(Command::decode(expected.as_bytes()).expect("readable"), command);
        apply(&mut state, command).expect("applied");
    }
    let ends = Command::EndRecovery { shard: 16, id: 1 };
    assert_eq!(String::from_utf8(ends.encode()).expect("text"), r#"{"command":"end-recovery","shard":16,"id":1}"#);
    let bytes = state.encode(9, 3);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("{\"format\":5,"), "{text}");
    let kept = concat!(
        r#""given_up":[{"node":4,"deletion":1},{"node":5,"deletion":2}],"#,
        r#""recoveries":[{"id":1,"shard":16,"epoch":2,"survivor":6,"term":9,"kept":[7],"begun_unix_micros":9}],"#
    );
    assert!(text.contains(kept), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state, 9, 3)));
}
