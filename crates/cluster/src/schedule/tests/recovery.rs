//! Shards that have lost their majority for ever.

use super::played::Played;
use super::*;
use crate::node::{NodeStatus, Place, Roles};
use crate::outcome::Refusal;
use crate::recovery::SKIPPED_TERMS;

/// The only shard, on nodes 1 to `replicas` of twice as many.
fn played(replicas: u32) -> Played {
    let mut played = Played::new(1, u64::from(replicas), 1);
    played.create(1, replicas);
    (u64::from(replicas) + 1..=2 * u64::from(replicas)).for_each(|node| played.join(node, ""));
    played
}

fn give_up(played: &mut Played, node: u64) {
    played.lose(node);
    played.apply(Command::GiveUpNode { id: node });
}

fn asked(played: &Played) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    let epoch = played.state.shards().next().expect("there is one").1.epoch;
    recover_by_hand(&played.state, &played.told(), (16, epoch), 5)
}

/// Why it cannot be done now.
fn why_not(played: &Played) -> String {
    match asked(played) {
        Err(Err(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_goes_on_and_is_repaired_to_what_it_was() {
    let mut played = played(3);
    give_up(&mut played, 1);
    assert!(matches!(asked(&played), Err(Ok(Refusal::HasMajority { .. }))), "two of three can decide");
    give_up(&mut played, 2);
    let (command, notes) = asked(&played).expect("it has lost its majority");
    let Command::RecoverShard { survivor, term, at, .. } = &command else { panic!("{command:?}") };
    assert_eq!((*survivor, *at), (3, Floor { term: 2, index: 1_000 }));
    assert_eq!(*term, 2 + SKIPPED_TERMS, "above what the lost ones may come to by themselves");
    for (note, expected) in
        notes.iter().zip(["entry 1000 of term 2; 1000 of it are applied", "nodes 1, 2 had is lost", "3 replicas again"])
    {
        assert!(note.contains(expected), "{notes:?}");
    }
    played.apply(command);
    played.run_to_rest();
    let shard = played.state.shards().next().expect("there is one").1.clone();
    assert_eq!((shard.replicas.len(), shard.replicas.contains(&3)), (3, true));
    assert!(played.state.recoveries().next().is_none() && played.hosted_on(1) == 1, "it is down and has what it had");
    for node in [1, 2] {
        played.come_back(node);
    }
    played.run_to_rest();
    assert_eq!((played.hosted_on(1), played.hosted_on(2)), (0, 0), "whoever comes back removes what it has");
}

#[test]
fn of_several_the_one_with_the_latest_log_goes_on_and_the_others_keep_theirs_until_it_leads() {
    let mut played = played(5);
    [1, 2, 3].into_iter().for_each(|node| give_up(&mut played, node));
    played.lag(4, 16, 7);
    let (command, notes) = asked(&played).expect("it has lost its majority");
    assert!(matches!(command, Command::RecoverShard { survivor: 5, .. }), "{command:?}");
    assert!(notes.iter().any(|note| note.contains("what is on node 4 is dropped once node 5 leads")), "{notes:?}");
    // One that does not work goes on with nothing; that something is lost with it is told.
    played.broken.insert((5, 16));
    let (command, notes) = asked(&played).expect("it has lost its majority");
    assert!(matches!(command, Command::RecoverShard { survivor: 4, .. }), "{command:?}");
    assert!(notes.iter().any(|note| note.contains("the replica on node 5 does not work")), "{notes:?}");
    assert!(notes[0].starts_with("the replica on node 5 has a later log, up to entry 1000 of term 2"), "{notes:?}");
    played.broken.insert((4, 16));
    assert!(why_not(&played).contains("no replica of it works and holds anything, of those on nodes 4, 5"));
    played.broken.clear();
    let (command, _) = asked(&played).expect("it has lost its majority");
    played.apply(command);
    played.mute_leaders(true);
    (0..20).for_each(|_| played.step());
    assert_eq!(played.hosted_on(4), 1, "nobody knows yet whether node 5 leads");
    played.mute_leaders(false);
    played.run_to_rest();
    let shard = played.state.shards().next().expect("there is one").1.clone();
    assert_eq!((shard.replicas.len(), played.state.recoveries().count()), (5, 0));
}

#[test]
fn it_is_not_done_while_anybody_may_still_write_to_what_is_lost() {
    let mut played = played(3);
    let roles = Roles { coordinator: true, shard: false };
    let place = Place { peer_address: "http://c:1".into(), api_address: String::new(), zone: String::new(), roles };
    played.apply(Command::Join { id: 9, incarnation: 9, run: 0, place, unix_micros: 1 });
    played.set(9, NodeStatus::Up);
    played.behind.extend([9, 3]);
    [1, 2].into_iter().for_each(|node| give_up(&mut played, node));
    assert!(why_not(&played).starts_with("nodes 3, 9 may not know yet what is lost for ever (nodes 1, 2)"));
    played.behind.remove(&3);
    let why = why_not(&played);
    assert!(why.starts_with("node 9 may not know yet"), "a coordinator that is cut off could go on: {why}");
    assert!(why.ends_with("remove what never comes back by `sagitta node remove 9 --lost-for-ever`"), "{why}");
    // One that is silent has followed nothing that it could tell of.
    played.behind.clear();
    played.lose(9);
    assert!(why_not(&played).starts_with("node 9 may not know yet"));
    played.come_back(9);
    asked(&played).expect("all know");
}

#[test]
fn what_may_have_a_later_replica_is_waited_for_and_what_decides_is_left_alone() {
    let mut silent = played(5);
    [1, 2, 3].into_iter().for_each(|node| give_up(&mut silent, node));
    silent.lose(4);
    let why = why_not(&silent);
    assert!(why.starts_with("node 4, which may have a later replica of it, is not heard of"), "{why}");
    assert!(why.contains("sagitta node remove 4 --lost-for-ever"), "{why}");
    silent.apply(Command::GiveUpNode { id: 4 });
    asked(&silent).expect("one is left");
    silent.lose(5);
    silent.apply(Command::GiveUpNode { id: 5 });
    assert!(why_not(&silent).contains("no replica of it is left"), "{}", why_not(&silent));

    // An operation has made node 4 vote in the meantime, so that the group decides although its placement does not say so.
    let mut decides = played(2);
    decides.set(2, NodeStatus::Draining);
    while decides.state.operation_on(16).is_none_or(|one| one.step != OperationStep::Switch) {
        decides.step();
    }
    let to = decides.state.operation_on(16).expect("under way").to;
    decides.have_members(16, &[1, to], &[]);
    decides.set(2, NodeStatus::Up);
    give_up(&mut decides, 2);
    let why = why_not(&decides);
    assert!(why.contains("leads it, so it has what it needs"), "{why}");
}

#[test]
fn a_lost_node_that_is_given_up_is_not_waited_for() {
    let mut played = Played::new(1, 5, 5);
    played.create(4, 3);
    give_up(&mut played, 1);
    let plan = played.plan();
    let repairs = plan.commands.iter().filter_map(|command| match command {
        Command::BeginOperation { from: Some(1), reason, .. } => Some(reason),
        _ => None,
    });
    let repairs: Vec<_> = repairs.collect();
    assert!(
        !repairs.is_empty() && repairs.iter().all(|why| why.starts_with("node 1 was removed, lost for ever; ")),
        "{repairs:?}"
    );
    played.run_to_rest();
    assert_eq!(played.placed_on(1), 0);
}

#[test]
fn what_to_do_is_told_where_a_majority_is_lost_and_nowhere_else() {
    let mut played = played(3);
    let told = |played: &Played| {
        let (owner, shard) = played.state.shards().next().expect("there is one");
        way_out(&played.state, shard, owner.name.as_str())
    };
    assert_eq!(told(&played), None);
    played.lose(1);
    assert_eq!(told(&played), None, "two of three can decide");
    played.lose(2);
    let lost = told(&played).expect("it has lost its majority");
    assert!(lost.starts_with("it has lost its majority: start nodes 1, 2; "), "{lost}");
    assert!(lost.contains("`sagitta node remove NODE --lost-for-ever`"), "{lost}");
    played.apply(Command::GiveUpNode { id: 1 });
    assert!(told(&played).expect("still").contains("start node 2; "));
    played.apply(Command::GiveUpNode { id: 2 });
    let for_ever = told(&played).expect("still");
    assert!(for_ever.contains("for ever: `sagitta shard unsafe-recover c1 16 --dry-run`"), "{for_ever}");
    let (command, _) = asked(&played).expect("it has lost its majority");
    played.apply(command);
    assert!(told(&played).expect("still").starts_with("node 3 is about to go on with it alone"));
}
