//! Shards that are merged while a cluster is played.

use super::*;
use crate::merge::MergeStep;
use crate::outcome::Refusal;

/// Begins a merge as somebody who asks for it does.
fn begin(played: &mut Played, left: u64, right: u64) -> Result<u64, Result<Refusal, String>> {
    let epoch = |shard| played.state.shard(shard).map_or(1, |(_, descriptor)| descriptor.epoch);
    let shards = [(left, epoch(left)), (right, epoch(right))];
    let (command, _) = merge_by_hand(&played.state, &played.told(), &played.limits, shards, played.now)?;
    played.apply(command);
    Ok(played.state.merge_on(left).expect("it is under way").id)
}

/// Two shards of three replicas on four nodes, and a merge of them.
fn begun() -> (Played, u64) {
    let mut played = Played::new(1, 4, 1);
    played.create(2, 3);
    let id = begin(&mut played, 16, 17).expect("begun");
    (played, id)
}

fn step(played: &Played, id: u64) -> MergeStep {
    played.state.merge(id).expect("known").step
}

fn run_to(played: &mut Played, id: u64, wanted: MergeStep) {
    for _ in 0..200 {
        if step(played, id) == wanted {
            return;
        }
        played.step();
    }
    panic!("it stays at {}", step(played, id));
}

/// What it waits for; empty if it goes on.
fn waits(played: &Played, id: u64) -> String {
    let told = played.told();
    let merge = played.state.merge(id).expect("known");
    let waits = merge_waits_for(&played.state, &View::new(&told), merge, played.now);
    if waits.starts_with("the step") { String::new() } else { waits }
}

#[test]
fn two_shards_become_one_that_is_placed_anew_and_begins_far_above_both() {
    let (mut played, id) = begun();
    let merge = played.state.merge(id).expect("known").clone();
    assert_eq!(merge.floor.index, 1_000 + crate::merge::FLOOR_MARGIN);
    for wanted in [MergeStep::Copy, MergeStep::Freeze] {
        run_to(&mut played, id, wanted);
        assert_eq!(played.state.shards().count(), 2, "nobody is routed to the new one at {wanted}");
    }
    run_to(&mut played, id, MergeStep::Done);
    let (collection, into) = played.state.shard(18).expect("there");
    assert_eq!((collection.shards.len(), into), (1, &merge.into));
    assert_eq!(waits(&played, id), "");
    played.run_to_rest();
    assert_eq!((1..=4).map(|node| played.hosted_on(node)).sum::<usize>(), 3, "the old ones are gone");
}

#[test]
fn a_merge_that_is_not_complete_in_time_is_given_up_and_the_shards_are_thawed_first() {
    let (mut played, id) = begun();
    played.merges_are_stuck = true;
    run_to(&mut played, id, MergeStep::Freeze);
    assert!(waits(&played, id).contains("shard 18 to be complete"), "{}", waits(&played, id));
    assert_eq!(next_merge_deadline(&played.state, played.now).map(|left| left.as_millis()), Some(600));
    played.now += 600_001;
    run_to(&mut played, id, MergeStep::Thaw);
    let waited = waits(&played, id);
    assert!(waited.is_empty() || waited.contains("to work on"), "{waited}");
    // It is complete after all, and too late: the shards may take writes already.
    let late = crate::report::MergeReport { shard: 18, merge: id, stage: MergeStage::Filled };
    played.stages.insert(18, late);
    run_to(&mut played, id, MergeStep::Cancelled);
    assert_eq!((played.state.shards().count(), played.state.shard(18).is_err()), (2, true));
    played.merges_are_stuck = false;
    played.run_to_rest();
    let again = begin(&mut played, 16, 17).expect("begun");
    run_to(&mut played, again, MergeStep::Done);
}

#[test]
fn a_merge_is_given_up_when_a_node_is_lost_while_it_copies_or_it_takes_too_long() {
    for wanted in [MergeStep::Prepare, MergeStep::Copy] {
        let (mut played, id) = begun();
        run_to(&mut played, id, wanted);
        let node = played.state.merge(id).expect("known").into.replicas[0];
        played.lose(node);
        played.silent(node, minutes(11));
        run_to(&mut played, id, MergeStep::Cancelled);
        played.run_to_rest();
        assert_eq!(played.placed_on(node), 0, "what it held was made anew");
    }
    let (mut played, id) = begun();
    run_to(&mut played, id, MergeStep::Copy);
    played.mute_leaders(true);
    assert!(waits(&played, id).contains("has no leader"), "{}", waits(&played, id));
    played.now += 3_600_000_001;
    run_to(&mut played, id, MergeStep::Cancelled);
}

#[test]
fn frozen_shards_are_not_left_alone_when_a_node_is_lost() {
    let (mut played, id) = begun();
    run_to(&mut played, id, MergeStep::Freeze);
    let node = played.state.shard(16).expect("there").1.replicas[0];
    played.lose(node);
    played.silent(node, minutes(11));
    run_to(&mut played, id, MergeStep::Done);
    played.run_to_rest();
    assert_eq!(played.placed_on(node), 0);
}

#[test]
fn nothing_is_begun_about_shards_that_are_merged_and_no_merge_of_what_is_not_well() {
    let (mut played, id) = begun();
    run_to(&mut played, id, MergeStep::Copy);
    assert_eq!(begin(&mut played, 16, 17), Err(Ok(Refusal::Busy { shard: 16, operation: id })));
    played.set(played.state.shard(16).expect("there").1.replicas[0], NodeStatus::Draining);
    let begins = |command: &Command| matches!(command, Command::BeginOperation { .. });
    assert!(!played.plan().commands.iter().any(begins), "{:?}", played.plan());
    run_to(&mut played, id, MergeStep::Cancelled);
    played.run_to_rest();

    let mut played = Played::new(1, 4, 1);
    played.create(2, 3);
    let node = played.state.shard(17).expect("there").1.replicas[1];
    played.broken.insert((node, 17));
    let refused = begin(&mut played, 16, 17).expect_err("it is not well").expect_err("by what is told");
    assert!(refused.contains("shard 17") && refused.contains("planted"), "{refused}");
    played.broken.clear();
    played.shortage(node, true);
    let into = begin(&mut played, 16, 17);
    played.shortage(node, false);
    if let Err(refused) = into {
        assert!(refused.expect_err("by what is told").contains("takes no more data"));
        begin(&mut played, 16, 17).expect("begun");
    }
    assert_eq!(begin(&mut played, 17, 16), Err(Ok(Refusal::Busy { shard: 17, operation: 1 })));
}
