//! Operations as a part of the state.

use super::*;
use crate::collection::Floor;
use crate::operation::{Operation, OperationKind, OperationStep};

const AT: Floor = Floor { term: 3, index: 70 };

fn begin(shard: u64, epoch: u64, from: Option<u64>, to: u64) -> Command {
    let (kind, reason) = (OperationKind::Drain, "node 1 is being drained".to_owned());
    Command::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros: 6 }
}

fn advance(id: u64, from: OperationStep, to: OperationStep) -> Command {
    Command::AdvanceOperation { id, from, to, at: AT, unix_micros: 8 }
}

/// One shard on the nodes 1 to 3 of four.
fn placed() -> State {
    let mut state = state(3);
    apply(&mut state, create_replicated(1, "docs", 1, 3)).expect("created");
    apply(&mut state, join(4, place(4, "z0"))).expect("joined");
    apply(&mut state, status(4, NodeStatus::Up)).expect("up");
    state
}

fn operation(outcome: Result<Effect, Refusal>) -> Operation {
    match outcome {
        Ok(Effect::Operation(operation)) => Operation::clone(&operation),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_placement_follows_the_members_and_a_repetition_changes_nothing() {
    use OperationStep::*;
    let mut state = placed();
    let begun = operation(apply(&mut state, begin(16, 1, Some(1), 4)));
    assert_eq!((begun.id, begun.step), (1, Join));
    assert_eq!(operation(apply(&mut state, begin(16, 1, Some(1), 4))), begun, "the answer was lost");
    assert!(state.shards_on(4).next().is_some(), "the node has to host it to receive it");
    for (from, to) in [(Join, CatchUp), (CatchUp, Switch)] {
        for _ in 0..2 {
            assert_eq!(operation(apply(&mut state, advance(1, from, to))).step, to);
        }
        assert_eq!(state.shard(16).expect("there").1.replicas, [1, 2, 3]);
    }
    assert_eq!(
        apply(&mut state, Command::CancelOperation { id: 1 }),
        Err(Refusal::OtherStep { operation: 1, step: Switch, wanted: Cancelled })
    );
    apply(&mut state, advance(1, Switch, Drop)).expect("switched");
    let shard = state.shard(16).expect("there").1.clone();
    assert_eq!((&*shard.replicas, shard.epoch, shard.left[&1]), (&[2, 3, 4][..], 2, AT));
    assert!(state.shards_on(1).next().is_none(), "it removes what it holds");
    assert_eq!(operation(apply(&mut state, advance(1, Drop, Done))).ended_unix_micros, Some(8));
    assert!(apply(&mut state, advance(1, Join, CatchUp)).is_err(), "late");
}

#[test]
fn what_would_get_in_its_way_is_refused() {
    let mut state = placed();
    assert!(matches!(apply(&mut state, begin(16, 2, Some(1), 4)), Err(Refusal::Stale { .. })));
    assert!(
        matches!(apply(&mut state, begin(16, 1, Some(4), 4)), Err(Refusal::Invalid { field, .. }) if field == "from")
    );
    assert!(
        matches!(apply(&mut state, begin(16, 1, Some(1), 2)), Err(Refusal::Invalid { field, .. }) if field == "to")
    );
    apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
    let busy = Err(Refusal::Busy { shard: 16, operation: 1 });
    assert_eq!(apply(&mut state, begin(16, 1, Some(2), 4)), busy);
    assert_eq!(apply(&mut state, Command::SetReplicas { shard: 16, epoch: 1, replicas: vec![1, 2] }), busy);
    for gone in [NodeStatus::Draining, NodeStatus::Drained] {
        let outcome = apply(&mut state, status(4, gone));
        assert_eq!(outcome.is_err(), gone == NodeStatus::Drained, "it is getting a replica: {outcome:?}");
    }
    assert_eq!(apply(&mut state, Command::CancelOperation { id: 2 }), Err(Refusal::NoOperation(2)));
    apply(&mut state, delete_and_keep_name(2, "docs")).expect("deleted");
    assert!(state.operations().next().is_none(), "it goes with its shard");
    let leaving = &state.leaving()[&"docs".parse().expect("name")];
    let stays = state.awaited(leaving, |node| if node == 2 || node == 3 { leaving.deletion } else { 0 });
    assert!(stays.is_empty(), "neither group has a majority: {stays:?}");
    let stays = state.awaited(leaving, |node| if node == 1 || node == 2 { leaving.deletion } else { 0 });
    assert_eq!(stays, [3, 4], "the members that it may have had by now can go on writing");
}

#[test]
fn golden_snapshot_and_commands_of_format_3() {
    let mut state = placed();
    assert!(String::from_utf8_lossy(&state.encode(1, 1)).starts_with("{\"format\":2,"), "older programs can read it");
    let commands = [
        begin(16, 1, Some(1), 4),
        advance(1, OperationStep::Join, OperationStep::CatchUp),
        Command::CancelOperation { id: 1 },
        advance(1, OperationStep::CatchUp, OperationStep::Undo),
        advance(1, OperationStep::Undo, OperationStep::Cancelled),
    ];
    let expected = [
        r#"{"command":"begin-operation","kind":"drain","shard":16,"epoch":1,"from":1,"to":4,"reason":"node 1 is being drained","unix_micros":6}"#,
        r#"{"command":"advance-operation","id":1,"from":"join","to":"catch-up","at":{"term":3,"index":70},"unix_micros":8}"#,
        r#"{"command":"cancel-operation","id":1}"#,
        r#"{"command":"advance-operation","id":1,"from":"catch-up","to":"undo","at":{"term":3,"index":70},"unix_micros":8}"#,
        r#"{"command":"advance-operation","id":1,"from":"undo","to":"cancelled","at":{"term":3,"index":70},"unix_micros":8}"#,
    ];
    for (command, expected) in commands.into_iter().zip(expected) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), expected);
        assert_eq!(Command::decode(expected.as_bytes()).expect("readable"), command);
        apply(&mut state, command).expect("applied");
    }
    let bytes = state.encode(9, 3);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("{\"format\":3,"), "{text}");
    let operation = concat!(
        r#""operations":[{"id":1,"kind":"drain","shard":16,"from":1,"to":4,"step":"cancelled","#,
        r#""reason":"node 1 is being drained","cancelled":true,"begun_unix_micros":6,"ended_unix_micros":8}],"begun_operations":1"#
    );
    assert!(text.contains(operation), "{text}");
    assert!(text.contains(r#""left":{"4":{"term":3,"index":70}}"#), "{text}");
    assert_eq!(State::decode(&bytes), Ok((state, 9, 3)));
}

#[test]
fn so_many_that_have_ended_are_known_and_no_more() {
    let mut state = placed();
    for round in 0..crate::limits::MAX_ENDED_OPERATIONS as u64 + 5 {
        let id = round + 1;
        apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
        apply(&mut state, advance(id, OperationStep::Join, OperationStep::Undo)).expect("undone");
        apply(&mut state, advance(id, OperationStep::Undo, OperationStep::Cancelled)).expect("ended");
    }
    assert_eq!(state.operations().count(), crate::limits::MAX_ENDED_OPERATIONS);
    assert_eq!(state.operations().next().map(|one| one.id), Some(6), "the oldest go");
}

#[test]
fn a_node_that_left_more_than_once_is_told_the_highest_place_that_it_may_have_reached() {
    let mut state = placed();
    let mut left = Vec::new();
    for (id, at) in (1..).zip([(3, 70), (3, 60), (2, 90), (4, 10)]) {
        apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
        apply(&mut state, advance(id, OperationStep::Join, OperationStep::Undo)).expect("undone");
        let (from, to) = (OperationStep::Undo, OperationStep::Cancelled);
        let at = Floor { term: at.0, index: at.1 };
        apply(&mut state, Command::AdvanceOperation { id, from, to, at, unix_micros: 8 }).expect("ended");
        let floor = state.shard(16).expect("there").1.left[&4];
        left.push((floor.term, floor.index));
    }
    assert_eq!(left, [(3, 70), (3, 70), (3, 70), (4, 10)], "two leaders may tell in the wrong order");
}

#[test]
fn what_begins_at_another_time_or_goes_to_a_node_that_takes_nothing_is_no_repetition_and_refused() {
    let mut state = placed();
    let reason = |bytes: usize| {
        let Command::BeginOperation { kind, shard, epoch, from, to, unix_micros, .. } = begin(16, 1, Some(1), 4) else {
            panic!("it begins one");
        };
        Command::BeginOperation { kind, shard, epoch, from, to, reason: "x".repeat(bytes), unix_micros }
    };
    let most = crate::limits::MAX_REASON_BYTES;
    let refused = apply(&mut state, reason(most + 1));
    assert!(matches!(&refused, Err(Refusal::Invalid { field, .. }) if field == "reason"), "{refused:?}");
    apply(&mut state, status(4, NodeStatus::Draining)).expect("draining");
    let refused = apply(&mut state, begin(16, 1, Some(1), 4));
    assert!(matches!(refused, Err(Refusal::TakesNoReplicas { node: 4, .. })), "{refused:?}");
    apply(&mut state, status(4, NodeStatus::Up)).expect("up");
    apply(&mut state, reason(most)).expect("begun");
    apply(&mut state, begin(16, 1, Some(1), 4)).expect("the answer was lost");
    let Command::BeginOperation { kind, shard, epoch, from, to, reason, .. } = begin(16, 1, Some(1), 4) else {
        panic!("it begins one");
    };
    let later = Command::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros: 7 };
    assert_eq!(apply(&mut state, later), Err(Refusal::Busy { shard: 16, operation: 1 }));
}

#[test]
fn no_more_operations_are_under_way_than_the_state_has_room_for() {
    let mut state = placed();
    let most = crate::limits::MAX_OPERATIONS as u64;
    apply(&mut state, create_replicated(2, "many", most as u32, 1)).expect("created");
    let shards: Vec<(u64, u64)> = state.shards().map(|(_, shard)| (shard.id, shard.replicas[0])).collect();
    // The checks after every command would take as long as the square of that.
    for (shard, held_by) in shards {
        let to = if held_by == 4 { 1 } else { 4 };
        let to = if shard == 16 { 4 } else { to };
        let outcome = state.apply(begin(shard, 1, Some(held_by), to));
        let begun = state.operations().count() as u64;
        assert!(outcome.is_ok() == (shard < 16 + most), "shard {shard}: {outcome:?}");
        assert!(begun <= most);
    }
    assert_eq!(state.check(None), Ok(()));
}

#[test]
fn an_operation_goes_only_where_its_step_leads_and_the_node_hosts_the_shard_until_it_is_cancelled() {
    use OperationStep::*;
    let all = [Join, CatchUp, Switch, Drop, Done, Undo, Cancelled];
    let ways: [(&[OperationStep], &[OperationStep]); 7] = [
        (&[Join], &[CatchUp, Undo]),
        (&[Join, CatchUp], &[Switch, Undo]),
        (&[Join, CatchUp, Switch], &[Drop, Undo]),
        (&[Join, CatchUp, Switch, Drop], &[Done]),
        (&[Join, CatchUp, Switch, Drop, Done], &[]),
        (&[Join, Undo], &[Cancelled, Switch]),
        (&[Join, Undo, Cancelled], &[]),
    ];
    for (way, next) in ways {
        let mut state = placed();
        apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
        for pair in way.windows(2) {
            apply(&mut state, advance(1, pair[0], pair[1])).expect("it leads there");
        }
        let step = way[way.len() - 1];
        assert_eq!(state.shards_on(4).next().is_some(), step != Cancelled, "{step}");
        for to in all {
            let mut state = state.clone();
            let outcome = apply(&mut state, advance(1, step, to));
            assert_eq!(outcome.is_ok(), to == step || next.contains(&to), "{step} to {to}: {outcome:?}");
        }
    }
}

#[test]
fn an_operation_can_be_cancelled_again_when_the_answer_was_lost() {
    let mut state = placed();
    apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
    for (from, to) in [(OperationStep::Join, OperationStep::Undo), (OperationStep::Undo, OperationStep::Cancelled)] {
        assert!(operation(apply(&mut state, Command::CancelOperation { id: 1 })).cancelled);
        apply(&mut state, advance(1, from, to)).expect("it leads there");
    }
    assert!(operation(apply(&mut state, Command::CancelOperation { id: 1 })).cancelled);
}

#[test]
fn a_group_of_two_may_have_three_members_while_one_takes_the_place_of_another() {
    let mut state = state(2);
    apply(&mut state, create_replicated(1, "docs", 1, 2)).expect("created");
    apply(&mut state, join(4, place(4, "z0"))).expect("joined");
    apply(&mut state, status(4, NodeStatus::Up)).expect("up");
    apply(&mut state, begin(16, 1, Some(1), 4)).expect("begun");
    apply(&mut state, delete_and_keep_name(2, "docs")).expect("deleted");
    let leaving = &state.leaving()[&"docs".parse().expect("name")];
    let stays = state.awaited(leaving, |node| if node == 2 { leaving.deletion } else { 0 });
    assert_eq!(stays, [1, 4], "two of the three can go on writing");
}

#[test]
fn what_somebody_moved_is_known_however_much_else_has_ended_since() {
    let mut state = placed();
    let (kind, reason) = (OperationKind::Move, "somebody asked for it".to_owned());
    let by_hand = Command::BeginOperation { kind, shard: 16, epoch: 1, from: Some(1), to: 4, reason, unix_micros: 6 };
    let most = crate::limits::MAX_ENDED_OPERATIONS as u64;
    for id in 1..=most + 5 {
        let command = if id == 1 { by_hand.clone() } else { begin(16, 1, Some(1), 4) };
        apply(&mut state, command).expect("begun");
        apply(&mut state, advance(id, OperationStep::Join, OperationStep::Undo)).expect("undone");
        apply(&mut state, advance(id, OperationStep::Undo, OperationStep::Cancelled)).expect("ended");
    }
    let known: Vec<u64> = state.operations().map(|one| one.id).take(2).collect();
    assert_eq!((state.operations().count() as u64, known), (most + 1, vec![1, 6]));
}
