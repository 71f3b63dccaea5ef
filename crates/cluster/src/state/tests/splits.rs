//! Splits as a part of the state.

use super::*;
use crate::collection::Floor;
use crate::split::{Split, SplitStep, may_become};

const AT: Floor = Floor { term: 3, index: 70 };
const MIDDLE: u64 = 1 << 63;

fn begin(shard: u64, epoch: u64, at: u64) -> Command {
    Command::BeginSplit { shard, epoch, at, reason: "it is large".to_owned(), unix_micros: 6, unasked: false }
}

fn advance(id: u64, from: SplitStep, to: SplitStep) -> Command {
    Command::AdvanceSplit { id, from, to, at: AT, unix_micros: 8 }
}

/// One shard on three nodes.
fn placed() -> State {
    let mut state = state(3);
    apply(&mut state, create_replicated(1, "docs", 1, 3)).expect("created");
    state
}

fn split(outcome: Result<Effect, Refusal>) -> Split {
    match outcome {
        Ok(Effect::Split(split)) => Split::clone(&split),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_step_comes_about_once_and_a_repetition_changes_nothing() {
    use SplitStep::*;
    let mut state = placed();
    let begun = split(apply(&mut state, begin(16, 1, MIDDLE)));
    assert_eq!(split(apply(&mut state, begin(16, 1, MIDDLE))), begun, "the answer was lost");
    assert_eq!((begun.id, begun.step, begun.right.id, begun.right.split), (1, Prepare, 17, None));
    for (from, to) in [(Prepare, Divide), (Divide, Found), (Found, Done)] {
        let all = SplitStep::NAMES.iter().map(|(step, _)| *step);
        for wrong in all.filter(|step| ![from, to].contains(step) && !may_become(from, *step)) {
            let refused = apply(&mut state, advance(1, from, wrong));
            assert_eq!(refused, Err(Refusal::OtherSplitStep { split: 1, step: from, wanted: wrong }));
        }
        for _ in 0..2 {
            assert_eq!(split(apply(&mut state, advance(1, from, to))).step, to);
        }
    }
    let docs = state.collection(&"docs".parse().expect("a name")).expect("there").clone();
    for id in (0..200).map(PointId::Num) {
        let shard = docs.shard_of(id);
        assert!(shard.range.holds(id) && shard.id == if sagitta_model::shard_hash(id) < MIDDLE { 16 } else { 17 });
    }
    assert!(apply(&mut state, advance(1, Found, Done)).is_ok() && apply(&mut state, advance(2, Found, Done)).is_err());
    assert_eq!(docs.shards.iter().map(|shard| shard.split).collect::<Vec<_>>(), [Some(AT); 2]);
    assert_ne!(begun.request_id(), split(apply(&mut state, begin(17, 1, MIDDLE + 1))).request_id());
}

#[test]
fn what_cannot_be_split_is_refused() {
    let mut state = placed();
    let invalid = |outcome: Result<Effect, Refusal>, name: &str| {
        assert!(matches!(&outcome, Err(Refusal::Invalid { field, .. }) if field == name), "{outcome:?}");
    };
    assert_eq!(apply(&mut state, begin(99, 1, MIDDLE)), Err(Refusal::NoShard(99)));
    assert!(matches!(apply(&mut state, begin(16, 2, MIDDLE)), Err(Refusal::Stale { .. })));
    invalid(apply(&mut state, begin(16, 1, 0)), "at");
    let reason = "x".repeat(crate::limits::MAX_REASON_BYTES + 1);
    invalid(
        apply(&mut state, Command::BeginSplit { shard: 16, epoch: 1, at: 9, reason, unix_micros: 6, unasked: false }),
        "reason",
    );
    apply(&mut state, create_replicated(2, "full", crate::limits::MAX_SHARDS, 1)).expect("created");
    let full = state.collection(&"full".parse().expect("a name")).expect("there").shards[0].clone();
    invalid(apply(&mut state, begin(full.id, 1, full.range.last)), "shard");
    apply(&mut state, begin(16, 1, MIDDLE)).expect("begun");
    assert_eq!(apply(&mut state, begin(16, 1, MIDDLE + 1)), Err(Refusal::Busy { shard: 16, operation: 1 }));
    assert_eq!(apply(&mut state, Command::CancelOperation { id: 1 }), Err(Refusal::NoOperation(1)));
}

#[test]
fn a_collection_that_is_deleted_while_a_shard_is_split_goes_with_both_halves() {
    use SplitStep::*;
    for steps in 0..3 {
        let mut state = placed();
        apply(&mut state, begin(16, 1, MIDDLE)).expect("begun");
        for (from, to) in [(Prepare, Divide), (Divide, Found)].into_iter().take(steps) {
            apply(&mut state, advance(1, from, to)).expect("a step further");
        }
        assert_eq!(state.shards_on(2).count(), 2);
        let deleted = apply(&mut state, delete_and_keep_name(2, "docs")).expect("deleted");
        assert!(matches!(&deleted, Effect::Deleted { shards, .. } if *shards == [16, 17]), "{deleted:?}");
        assert_eq!((state.splits().count(), state.shards_on(2).count()), (0, 0));
        let leaving = &state.leaving()[&"docs".parse().expect("name")];
        assert_eq!(leaving.groups, [[1, 2, 3], [1, 2, 3]], "the new group might take writes, too");
        assert!(state.has_placed(17), "whoever has it removes it");
        assert_eq!(apply(&mut state, advance(1, Found, Done)), Err(Refusal::NoOperation(1)));
    }
}

#[test]
fn golden_snapshot_and_commands_of_format_4() {
    let mut state = placed();
    let commands = [
        begin(16, 1, MIDDLE),
        advance(1, SplitStep::Prepare, SplitStep::Divide),
        advance(1, SplitStep::Divide, SplitStep::Found),
    ];
    let expected = [
        r#"{"command":"begin-split","shard":16,"epoch":1,"at":9223372036854775808,"reason":"it is large","unix_micros":6}"#,
        r#"{"command":"advance-split","id":1,"from":"prepare","to":"divide","at":{"term":3,"index":70},"unix_micros":8}"#,
        r#"{"command":"advance-split","id":1,"from":"divide","to":"found","at":{"term":3,"index":70},"unix_micros":8}"#,
    ];
    for (command, expected) in commands.into_iter().zip(expected) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), expected);
        assert_eq!(Command::decode(expected.as_bytes()).expect("readable"), command);
        apply(&mut state, command).expect("applied");
    }
    let bytes = state.encode(9, 3);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("{\"format\":4,"), "{text}");
    let split = concat!(
        r#""splits":[{"id":1,"shard":16,"epoch":1,"at":9223372036854775808,"right":{"id":17,"#,
        r#""range":{"first":9223372036854775808,"last":18446744073709551615},"epoch":1,"replicas":[1,2,3],"founders":[1,2,3],"#,
        r#""split":{"term":3,"index":70},"parent":16},"step":"found","reason":"it is large","begun_unix_micros":6}]"#
    );
    assert!(text.contains(split), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state.clone(), 9, 3)));
    apply(&mut state, advance(1, SplitStep::Found, SplitStep::Done)).expect("applied");
    let bytes = state.encode(9, 3);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""split":{"term":3,"index":70},"parent":16}]"#), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state, 9, 3)));
}

#[test]
fn so_many_splits_that_have_ended_are_known_and_no_more() {
    let mut state = placed();
    for id in 1..=crate::limits::MAX_ENDED_OPERATIONS as u64 + 5 {
        apply(&mut state, begin(16, 1, MIDDLE)).expect("begun");
        apply(&mut state, advance(id, SplitStep::Prepare, SplitStep::Cancelled)).expect("ended");
    }
    assert_eq!(state.splits().count(), crate::limits::MAX_ENDED_OPERATIONS);
    assert_eq!(state.splits().next().map(|one| one.id), Some(6), "the oldest go");
}
