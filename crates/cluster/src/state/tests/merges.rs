//! Merges as a part of the state.

use super::*;
use crate::collection::Floor;
use crate::merge::{Merge, MergeStep, may_become};

const FLOOR: Floor = Floor { term: 1, index: 5_000 };

fn begin(left: u64, right: u64) -> Command {
    Command::BeginMerge {
        left,
        left_epoch: 1,
        right,
        right_epoch: 1,
        floor: FLOOR,
        reason: "they are small".to_owned(),
        unix_micros: 6,
        unasked: false,
    }
}

fn advance(id: u64, from: MergeStep, to: MergeStep) -> Command {
    Command::AdvanceMerge { id, from, to, unix_micros: 8 }
}

/// Three shards on three nodes each, of four.
fn placed() -> State {
    let mut state = state(4);
    apply(&mut state, create_replicated(1, "docs", 3, 3)).expect("created");
    state
}

fn merge(outcome: Result<Effect, Refusal>) -> Merge {
    match outcome {
        Ok(Effect::Merge(merge)) => Merge::clone(&merge),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_step_comes_about_once_and_only_the_last_one_changes_the_route() {
    use MergeStep::*;
    let mut state = placed();
    let docs = "docs".parse().expect("a name");
    let before = state.collection(&docs).expect("there").clone();
    let begun = merge(apply(&mut state, begin(17, 18)));
    assert_eq!(merge(apply(&mut state, begin(17, 18))), begun, "the answer was lost");
    assert_eq!((begun.id, begun.step, begun.into.id, begun.floor), (1, Prepare, 19, FLOOR));
    for (from, to) in [(Prepare, Copy), (Copy, Freeze), (Freeze, Done)] {
        assert_eq!(state.collection(&docs).expect("there"), &before, "at {from}");
        assert!(begun.into.replicas.iter().all(|node| state.shards_on(*node).any(|(_, shard)| shard.id == 19)));
        let all = MergeStep::NAMES.iter().map(|(step, _)| *step);
        for wrong in all.filter(|step| ![from, to].contains(step) && !may_become(from, *step)) {
            let refused = apply(&mut state, advance(1, from, wrong));
            assert_eq!(refused, Err(Refusal::OtherMergeStep { merge: 1, step: from, wanted: wrong }));
        }
        for _ in 0..2 {
            assert_eq!(merge(apply(&mut state, advance(1, from, to))).step, to);
        }
    }
    let after = state.collection(&docs).expect("there").clone();
    assert_eq!(after.shards, [before.shards[0].clone(), begun.into.clone()]);
    assert_eq!((begun.into.range.first, begun.into.range.last), (before.shards[1].range.first, u64::MAX));
    assert_eq!((state.merged_into(17), state.merged_into(18), state.merged_into(16)), (Some(19), Some(19), None));
    for gone in [17, 18] {
        assert!((1..=4).all(|node| state.shards_on(node).all(|(_, shard)| shard.id != gone)), "nodes remove {gone}");
        assert_eq!(apply(&mut state, begin(gone, 19)), Err(Refusal::NoShard(gone)));
    }
    // What came of a merge is merged like any other.
    assert_eq!(merge(apply(&mut state, begin(16, 19))).into.range, sagitta_model::HashRange::FULL);
}

#[test]
fn a_merge_that_may_have_frozen_a_shard_is_cancelled_only_once_it_is_thawed() {
    use MergeStep::*;
    let asked = |from, to| advance(1, from, to).may_be_asked_for();
    assert!(asked(Prepare, Cancelled) && asked(Copy, Cancelled) && begin(17, 18).may_be_asked_for());
    for (from, to) in [(Prepare, Copy), (Copy, Freeze), (Freeze, Done), (Freeze, Thaw), (Thaw, Cancelled)] {
        assert!(!asked(from, to), "{from} to {to} is for the leader to find");
    }
    for steps in [&[Prepare][..], &[Prepare, Copy], &[Prepare, Copy, Freeze, Thaw]] {
        let mut state = placed();
        let before = state.collection(&"docs".parse().expect("a name")).expect("there").clone();
        apply(&mut state, begin(16, 17)).expect("begun");
        steps.windows(2).for_each(|pair| drop(apply(&mut state, advance(1, pair[0], pair[1])).expect("further")));
        let last = *steps.last().expect("a step");
        assert_eq!(merge(apply(&mut state, advance(1, last, Cancelled))).ended_unix_micros, Some(8));
        assert_eq!(*state.collection(&"docs".parse().expect("a name")).expect("there"), before);
        assert!((1..=4).all(|node| state.shards_on(node).all(|(_, shard)| shard.id != 19)), "it is thrown away");
        assert_eq!((state.merged_into(16), state.has_placed(19)), (None, true));
        assert_eq!(merge(apply(&mut state, begin(16, 17))).into.id, 20, "19 is not handed out again");
    }
    let mut state = placed();
    apply(&mut state, begin(16, 17)).expect("begun");
    for (from, to) in [(Prepare, Copy), (Copy, Freeze)] {
        apply(&mut state, advance(1, from, to)).expect("further");
    }
    let refused = apply(&mut state, advance(1, Freeze, Cancelled));
    assert_eq!(refused, Err(Refusal::OtherMergeStep { merge: 1, step: Freeze, wanted: Cancelled }));
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let mut state = placed();
    let invalid = |outcome: Result<Effect, Refusal>, name: &str| {
        assert!(matches!(&outcome, Err(Refusal::Invalid { field, .. }) if field == name), "{outcome:?}");
    };
    assert_eq!(apply(&mut state, begin(99, 16)), Err(Refusal::NoShard(99)));
    assert_eq!(apply(&mut state, begin(16, 99)), Err(Refusal::NoShard(99)));
    for (left, right) in [(16, 18), (17, 16), (16, 16)] {
        invalid(apply(&mut state, begin(left, right)), "right");
    }
    let told = |state: &mut State, left, right| {
        apply(state, begin(left, right)).expect_err("they are no neighbours").to_string()
    };
    assert!(told(&mut state, 16, 18).ends_with("whose hashes follow those of shard 16, which is shard 17"));
    assert!(told(&mut state, 18, 16).ends_with("whose hashes follow those of shard 18, and there is none"));
    apply(&mut state, create_replicated(2, "more", 1, 1)).expect("created");
    invalid(apply(&mut state, begin(18, 19)), "right");
    let change = |edit: &dyn Fn(&mut Command)| {
        let mut command = begin(16, 17);
        edit(&mut command);
        command
    };
    let stale = change(&|command| {
        if let Command::BeginMerge { right_epoch, .. } = command {
            *right_epoch = 2;
        }
    });
    assert_eq!(apply(&mut state, stale), Err(Refusal::Stale { shard: 17, epoch: 1, expected: 2 }));
    let nowhere = change(&|command| {
        if let Command::BeginMerge { floor, .. } = command {
            floor.index = 0;
        }
    });
    invalid(apply(&mut state, nowhere), "floor");
    let long = change(&|command| {
        if let Command::BeginMerge { reason, .. } = command {
            *reason = "x".repeat(crate::limits::MAX_REASON_BYTES + 1);
        }
    });
    invalid(apply(&mut state, long), "reason");
    apply(&mut state, begin(16, 17)).expect("begun");
    let busy = |shard| Err(Refusal::Busy { shard, operation: 1 });
    assert_eq!(apply(&mut state, begin(17, 18)), busy(17));
    let split =
        Command::BeginSplit { shard: 16, epoch: 1, at: 9, reason: String::new(), unix_micros: 6, unasked: false };
    assert_eq!(apply(&mut state, split), busy(16));
    assert_eq!(apply(&mut state, Command::SetReplicas { shard: 17, epoch: 1, replicas: vec![1] }), busy(17));
    for node in [2, 3, 4] {
        apply(&mut state, status(node, NodeStatus::Lost)).expect("lost");
    }
    apply(&mut state, advance(1, MergeStep::Prepare, MergeStep::Cancelled)).expect("cancelled");
    let (wanted, nodes) = (3, state.nodes_for_replicas());
    assert_eq!(apply(&mut state, begin(16, 17)), Err(Refusal::TooFewNodes { wanted, nodes }));
}

#[test]
fn a_collection_that_is_deleted_while_shards_are_merged_goes_with_what_is_filled() {
    let mut state = placed();
    apply(&mut state, begin(16, 17)).expect("begun");
    let deleted = apply(&mut state, delete_and_keep_name(2, "docs")).expect("deleted");
    assert!(matches!(&deleted, Effect::Deleted { shards, .. } if *shards == [16, 17, 18, 19]), "{deleted:?}");
    assert_eq!((state.merges().count(), state.shards_on(2).count()), (0, 0));
    assert_eq!(state.leaving()[&"docs".parse().expect("name")].groups.len(), 3, "nobody was sent to the new one");
    assert_eq!(apply(&mut state, advance(1, MergeStep::Prepare, MergeStep::Copy)), Err(Refusal::NoOperation(1)));
}

#[test]
fn golden_snapshot_and_commands_of_format_6() {
    let mut state = placed();
    let commands = [begin(16, 17), advance(1, MergeStep::Prepare, MergeStep::Copy)];
    let expected = [
        concat!(
            r#"{"command":"begin-merge","left":16,"left_epoch":1,"right":17,"right_epoch":1,"floor":{"term":1,"index":5000},"#,
            r#""reason":"they are small","unix_micros":6}"#
        ),
        r#"{"command":"advance-merge","id":1,"from":"prepare","to":"copy","unix_micros":8}"#,
    ];
    assert!(String::from_utf8_lossy(&state.encode(9, 3)).starts_with("{\"format\":2,"));
    for (command, expected) in commands.into_iter().zip(expected) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), expected);
        assert_eq!(Command::decode(expected.as_bytes()).expect("readable"), command);
        apply(&mut state, command).expect("applied");
    }
    let bytes = state.encode(9, 3);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("{\"format\":6,"), "{text}");
    let merge = concat!(
        r#""merges":[{"id":1,"left":16,"right":17,"into":{"id":19,"range":{"first":0,"last":12297829382473034409},"#,
        r#""epoch":1,"replicas":[2,3,4],"founders":[2,3,4]},"floor":{"term":1,"index":5000},"step":"copy","#,
        r#""since_unix_micros":8,"reason":"they are small","begun_unix_micros":6}]"#
    );
    assert!(text.contains(merge), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state.clone(), 9, 3)));
    for (from, to) in [(MergeStep::Copy, MergeStep::Freeze), (MergeStep::Freeze, MergeStep::Done)] {
        apply(&mut state, advance(1, from, to)).expect("further");
    }
    assert_eq!(State::decode(&state.encode(9, 3)), Ok((state, 9, 3)));
}

#[test]
fn so_many_merges_that_have_ended_are_known_and_no_more() {
    let mut state = placed();
    for id in 1..=crate::limits::MAX_ENDED_OPERATIONS as u64 + 5 {
        apply(&mut state, begin(16, 17)).expect("begun");
        apply(&mut state, advance(id, MergeStep::Prepare, MergeStep::Cancelled)).expect("ended");
    }
    assert_eq!(state.merges().count(), crate::limits::MAX_ENDED_OPERATIONS);
    assert_eq!(state.merges().next().map(|one| one.id), Some(6), "the oldest go");
}
