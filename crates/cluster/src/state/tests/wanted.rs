//! How many shards of a collection people want: what they ask for changes that, and nothing else does.

use super::*;
use crate::collection::Floor;
use crate::merge::{Merge, MergeStep};
use crate::split::SplitStep;

const AT: Floor = Floor { term: 3, index: 70 };

/// So many shards on three nodes each.
fn placed(shards: u32) -> State {
    let mut state = state(3);
    apply(&mut state, create_replicated(1, "docs", shards, 3)).expect("created");
    state
}

fn docs(state: &State) -> &Collection {
    state.collection(&"docs".parse().expect("a name")).expect("there")
}

/// How many there are, and how many are wanted.
fn counts(state: &State) -> (usize, u32) {
    (docs(state).shards.len(), docs(state).shards_wanted)
}

fn begin_split(state: &State, place: usize, unasked: bool) -> Command {
    let shard = &docs(state).shards[place];
    let (at, reason) = (shard.range.middle().expect("it has more than one hash"), String::new());
    Command::BeginSplit { shard: shard.id, epoch: shard.epoch, at, reason, unix_micros: 6, unasked }
}

fn begun_split(outcome: Result<Effect, Refusal>) -> u64 {
    match outcome {
        Ok(Effect::Split(split)) => split.id,
        other => panic!("{other:?}"),
    }
}

fn split(state: &mut State, place: usize, unasked: bool) {
    let begin = begin_split(state, place, unasked);
    let id = begun_split(apply(state, begin));
    for (from, to) in [
        (SplitStep::Prepare, SplitStep::Divide),
        (SplitStep::Divide, SplitStep::Found),
        (SplitStep::Found, SplitStep::Done),
    ] {
        apply(state, Command::AdvanceSplit { id, from, to, at: AT, unix_micros: 8 }).expect("further");
    }
}

/// Of the shard at a place and the one after it.
fn begin_merge(state: &State, place: usize, unasked: bool) -> Command {
    let [left, right] = [place, place + 1].map(|place| docs(state).shards[place].clone());
    Command::BeginMerge {
        left: left.id,
        left_epoch: left.epoch,
        right: right.id,
        right_epoch: right.epoch,
        floor: Floor { term: 1, index: 5_000 },
        reason: String::new(),
        unix_micros: 6,
        unasked,
    }
}

fn begun_merge(outcome: Result<Effect, Refusal>) -> u64 {
    match outcome {
        Ok(Effect::Merge(merge)) => merge.id,
        other => panic!("{other:?}"),
    }
}

fn end_merge(state: &mut State, id: u64) -> Merge {
    for (from, to) in [
        (MergeStep::Prepare, MergeStep::Copy),
        (MergeStep::Copy, MergeStep::Freeze),
        (MergeStep::Freeze, MergeStep::Done),
    ] {
        apply(state, Command::AdvanceMerge { id, from, to, unix_micros: 8 }).expect("further");
    }
    Merge::clone(state.merge(id).expect("known"))
}

fn merge(state: &mut State, place: usize, unasked: bool) -> Merge {
    let begin = begin_merge(state, place, unasked);
    let id = begun_merge(apply(state, begin));
    end_merge(state, id)
}

#[track_caller]
fn check_not_spare(state: &mut State, place: usize) {
    let begin = begin_merge(state, place, true);
    let outcome = apply(state, begin);
    assert!(matches!(&outcome, Err(Refusal::Invalid { field, .. }) if field == "unasked"), "{outcome:?}");
}

#[test]
fn a_split_by_hand_wants_one_more_and_a_merge_by_hand_one_fewer_and_what_nobody_asked_for_changes_nothing() {
    let mut state = placed(2);
    assert_eq!(counts(&state), (2, 2));
    check_not_spare(&mut state, 0);
    split(&mut state, 0, false);
    assert_eq!(counts(&state), (3, 3));
    check_not_spare(&mut state, 1);
    split(&mut state, 0, true);
    assert_eq!(counts(&state), (4, 3));
    merge(&mut state, 2, false);
    assert_eq!(counts(&state), (3, 2));
    merge(&mut state, 0, true);
    assert_eq!(counts(&state), (2, 2));
    check_not_spare(&mut state, 0);
    merge(&mut state, 0, false);
    assert_eq!(counts(&state), (1, 1));
    // One is wanted in any case.
    split(&mut state, 0, true);
    assert_eq!(counts(&state), (2, 1));
    merge(&mut state, 0, false);
    assert_eq!(counts(&state), (1, 1));
}

#[test]
fn what_is_cancelled_changes_nothing_about_how_many_are_wanted() {
    let mut state = placed(2);
    for unasked in [false, true] {
        let begin = begin_split(&state, 0, unasked);
        let id = begun_split(apply(&mut state, begin));
        let (from, to) = (SplitStep::Prepare, SplitStep::Cancelled);
        apply(&mut state, Command::AdvanceSplit { id, from, to, at: AT, unix_micros: 8 }).expect("cancelled");
    }
    split(&mut state, 0, true);
    for unasked in [false, true] {
        let begin = begin_merge(&state, 0, unasked);
        let id = begun_merge(apply(&mut state, begin));
        assert_eq!(counts(&state), (3, 2), "nothing has come about yet");
        let (from, to) = (MergeStep::Prepare, MergeStep::Cancelled);
        apply(&mut state, Command::AdvanceMerge { id, from, to, unix_micros: 8 }).expect("cancelled");
    }
    assert_eq!(counts(&state), (3, 2));
}

/// Two leaders may each begin one, of what they have seen.
#[test]
fn no_more_are_merged_unasked_at_once_than_there_are_beyond_those_that_are_wanted() {
    let mut state = placed(3);
    split(&mut state, 0, true);
    assert_eq!(counts(&state), (4, 3));
    let begin = begin_merge(&state, 0, true);
    let first = begun_merge(apply(&mut state, begin));
    check_not_spare(&mut state, 2);
    // What somebody asks for is another matter, and leaves as many to spare.
    let second = merge(&mut state, 2, false);
    assert_eq!(counts(&state), (3, 2));
    assert!(!second.unasked && end_merge(&mut state, first).unasked);
    assert_eq!(counts(&state), (2, 2));
}

#[test]
fn what_the_cluster_begins_by_itself_nobody_may_ask_for() {
    let state = placed(2);
    for (unasked, may_be) in [(false, true), (true, false)] {
        assert_eq!(begin_split(&state, 0, unasked).may_be_asked_for(), may_be);
        assert_eq!(begin_merge(&state, 0, unasked).may_be_asked_for(), may_be);
    }
}

#[test]
fn golden_snapshot_and_commands_of_format_7() {
    let mut state = placed(1);
    let commands = [begin_split(&state, 0, true), begin_merge(&placed(2), 0, true)];
    let expected = [
        concat!(
            r#"{"command":"begin-split","shard":16,"epoch":1,"at":9223372036854775808,"reason":"","unix_micros":6,"#,
            r#""unasked":true}"#
        ),
        concat!(
            r#"{"command":"begin-merge","left":16,"left_epoch":1,"right":17,"right_epoch":1,"floor":{"term":1,"index":5000},"#,
            r#""reason":"","unix_micros":6,"unasked":true}"#
        ),
    ];
    for (command, expected) in commands.iter().zip(expected) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), expected);
        assert_eq!(Command::decode(expected.as_bytes()).as_ref(), Ok(command));
    }
    let check = |state: &State, parts: &[&str]| {
        let bytes = state.encode(9, 3);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("{\"format\":7,"), "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "{text} lacks {part}"));
        assert_eq!(State::decode(&bytes), Ok((state.clone(), 9, 3)));
    };
    split(&mut state, 0, true);
    check(&state, &[r#","shards_wanted":1,"replication":3,"#, r#""step":"done","reason":"","unasked":true,"begun"#]);
    merge(&mut state, 0, true);
    assert_eq!(counts(&state), (1, 1));
    check(&state, &[r#","step":"done","since_unix_micros":8,"reason":"","unasked":true,"begun"#]);
    assert!(!String::from_utf8_lossy(&state.encode(9, 3)).contains("shards_wanted"), "it is their number");
}

/// Coordinators begin with snapshots of different age, of older programs, and read the rest of the log. They have to come to the same.
#[test]
fn whoever_reads_older_snapshots_and_commands_wants_as_many_as_there_are() {
    let mut early = placed(2);
    let mut commands = vec![begin_split(&early, 0, false)];
    for (from, to) in [
        (SplitStep::Prepare, SplitStep::Divide),
        (SplitStep::Divide, SplitStep::Found),
        (SplitStep::Found, SplitStep::Done),
    ] {
        commands.push(Command::AdvanceSplit { id: 1, from, to, at: AT, unix_micros: 8 });
    }
    let mut late = early.clone();
    let mut snapshots = vec![early.encode(1, 1)];
    for command in &commands {
        apply(&mut late, command.clone()).expect("applied");
        snapshots.push(late.encode(1, 1));
    }
    for (read, snapshot) in snapshots.iter().enumerate() {
        assert!(!String::from_utf8_lossy(snapshot).contains("wanted"), "an older program reads it");
        early = State::decode(snapshot).expect("readable").0;
        for command in &commands[read..] {
            let text = command.encode();
            assert!(!String::from_utf8_lossy(&text).contains("unasked"), "an older program reads it");
            apply(&mut early, Command::decode(&text).expect("readable")).expect("applied");
        }
        assert_eq!((counts(&early), &early), ((3, 3), &late), "after {read} commands");
    }
}
