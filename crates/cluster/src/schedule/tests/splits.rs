//! Shards that are split while a cluster is played.

use sagitta_model::HashRange;

use super::*;
use crate::outcome::{Effect, Refusal};
use crate::split::SplitStep;

/// Begins to split a shard in the middle of its hashes.
fn begin(played: &mut Played, shard: u64) -> Result<u64, Refusal> {
    let (_, descriptor) = played.state.shard(shard)?;
    let HashRange { first, last } = descriptor.range;
    let (epoch, at, unix_micros) = (descriptor.epoch, first + (last - first) / 2 + 1, played.now);
    let reason = "it is large".to_owned();
    match played.state.apply(Command::BeginSplit { shard, epoch, at, reason, unix_micros, unasked: false })? {
        Effect::Split(split) => Ok(split.id),
        other => panic!("{other:?}"),
    }
}

/// One shard of three replicas on four nodes, and a split of it.
fn begun() -> (Played, u64) {
    let mut played = Played::new(1, 4, 1);
    played.create(1, 3);
    let id = begin(&mut played, 16).expect("begun");
    (played, id)
}

fn step(played: &Played, id: u64) -> SplitStep {
    played.state.split(id).expect("known").step
}

fn run_to(played: &mut Played, id: u64, wanted: SplitStep) {
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
    let waits = split_waits_for(&played.state, &View::new(&told), played.state.split(id).expect("known"));
    if waits.starts_with("the step") { String::new() } else { waits }
}

#[test]
fn a_shard_becomes_two_on_the_same_nodes_and_is_routed_to_as_one_until_both_are_there() {
    let (mut played, id) = begun();
    let before = played.state.shard(16).expect("there").1.clone();
    for wanted in [SplitStep::Divide, SplitStep::Found] {
        run_to(&mut played, id, wanted);
        assert_eq!(played.state.shards().count(), 1, "nobody is routed to the new one at {wanted}");
        assert_eq!(played.state.shard(16).expect("there").1, &before);
        for node in &before.replicas {
            let hosts: Vec<u64> = played.state.shards_on(*node).map(|(_, shard)| shard.id).collect();
            assert_eq!(hosts, [16, 17], "else the node would remove what it has split off");
        }
    }
    let at = played.state.split(id).expect("known").right.split.expect("it has come about");
    assert!(played.split.values().all(|split| *split == at));
    run_to(&mut played, id, SplitStep::Done);
    let (collection, left) = played.state.shard(16).expect("there");
    let right = &collection.shards[1];
    assert_eq!((left.range.first, right.range.last, left.range.last + 1), (0, u64::MAX, right.range.first));
    assert_eq!((left.epoch, right.epoch, right.id, right.parent, left.parent), (2, 1, 17, Some(16), None));
    assert_eq!((left.split, right.split), (Some(at), Some(at)));
    assert_eq!(
        (&left.replicas, &right.replicas, &right.founders),
        (&before.replicas, &before.replicas, &before.replicas)
    );
    let ended = played.state.split(id).expect("known").ended_unix_micros;
    assert!(ended.is_some() && waits(&played, id).is_empty());
    played.run_to_rest();
    // And once more, either of them.
    for (shard, parts) in [(17, 3), (16, 4)] {
        let id = begin(&mut played, shard).expect("begun");
        run_to(&mut played, id, SplitStep::Done);
        assert_eq!(played.state.shards().count(), parts);
    }
}

#[test]
fn a_split_can_be_cancelled_until_the_shard_may_hold_it() {
    let cancel = |id, from| Command::AdvanceSplit {
        id,
        from,
        to: SplitStep::Cancelled,
        at: Floor { term: 0, index: 0 },
        unix_micros: 9,
    };
    assert!(cancel(1, SplitStep::Prepare).may_be_asked_for());
    let (mut played, id) = begun();
    played.apply(cancel(id, SplitStep::Prepare));
    assert_eq!(played.state.split(id).expect("known").ended_unix_micros, Some(9));
    played.run_to_rest();
    assert_eq!((step(&played, id), played.state.shards().count(), played.hosted_on(1)), (SplitStep::Cancelled, 1, 1));
    let id = begin(&mut played, 16).expect("once more");
    for step in [SplitStep::Divide, SplitStep::Found] {
        run_to(&mut played, id, step);
        for from in [SplitStep::Prepare, step] {
            let refused = played.state.apply(cancel(id, from));
            assert_eq!(refused, Err(Refusal::OtherSplitStep { split: id, step, wanted: SplitStep::Cancelled }));
        }
    }
    run_to(&mut played, id, SplitStep::Done);
    assert_eq!(played.state.shard(18).map(|(_, shard)| shard.parent), Ok(Some(16)), "17 is not handed out again");
}

#[test]
fn a_shard_is_split_when_it_is_well_and_repaired_first_when_a_node_is_lost() {
    let (mut played, id) = begun();
    let replicas = played.state.shard(16).expect("there").1.replicas.clone();
    played.broken.insert((replicas[0], 16));
    assert!(waits(&played, id).contains("does not work: planted"), "{}", waits(&played, id));
    played.broken.clear();
    played.mute_leaders(true);
    assert!(waits(&played, id).contains("has no leader"), "{}", waits(&played, id));
    played.mute_leaders(false);
    assert_eq!(waits(&played, id), "");
    played.lose(replicas[0]);
    played.silent(replicas[0], minutes(11));
    run_to(&mut played, id, SplitStep::Cancelled);
    played.run_to_rest();
    assert!(!played.state.shard(16).expect("there").1.replicas.contains(&replicas[0]), "it was repaired");
}

#[test]
fn while_a_shard_is_split_nothing_else_is_begun_on_it_and_it_is_repaired_afterwards() {
    let (mut played, id) = begun();
    run_to(&mut played, id, SplitStep::Divide);
    let shard = played.state.shard(16).expect("there").1.clone();
    let busy = Err(Refusal::Busy { shard: 16, operation: id });
    assert_eq!(begin(&mut played, 16), busy.clone().map(|_: Effect| 0));
    assert_eq!(played.state.apply(Command::SetReplicas { shard: 16, epoch: 1, replicas: vec![1, 2] }), busy);
    let (kind, from, to) = (OperationKind::Move, Some(shard.replicas[0]), 4);
    let to = (1..=4).find(|node| !shard.replicas.contains(node)).unwrap_or(to);
    let reason = String::new();
    let moved = Command::BeginOperation { kind, shard: 16, epoch: 1, from, to, reason, unix_micros: 0 };
    assert_eq!(played.state.apply(moved), busy);
    played.lose(shard.replicas[2]);
    played.silent(shard.replicas[2], minutes(11));
    run_to(&mut played, id, SplitStep::Done);
    played.run_to_rest();
    for (_, one) in played.state.shards() {
        assert!(one.replicas.len() == 3 && !one.replicas.contains(&shard.replicas[2]), "{one:?}");
    }
}

#[test]
fn both_are_routed_to_once_a_majority_has_the_new_one_and_somebody_leads_it() {
    let (mut played, id) = begun();
    run_to(&mut played, id, SplitStep::Found);
    let right = played.state.split(id).expect("known").right.clone();
    let all = played.split.clone();
    let mut have = |nodes: &[u64]| {
        played.split.clone_from(&all);
        played.split.retain(|(node, shard), _| *shard != right.id || nodes.contains(node));
        waits(&played, id)
    };
    assert_eq!(have(&[]), format!("2 more nodes to have shard {}", right.id));
    assert_eq!(have(&right.replicas[..1]), format!("1 more nodes to have shard {}", right.id));
    assert_eq!(have(&right.replicas[1..]), "");
    played.mute_leaders(true);
    assert_eq!(waits(&played, id), format!("the group of shard {} to have a leader", right.id));
}

/// Whatever nodes do meanwhile: splits end, and in the end all is where it should be.
#[test]
fn whatever_happens_meanwhile_shards_that_are_split_cover_all_hashes_and_all_ends_well() {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut done, mut cancelled) = (0, 0);
    for seed in first..first + 60 {
        let mut played = Played::new(seed, 7, 3);
        played.create(3, 3);
        for _ in 0..120 {
            played.trouble();
            if played.below(10) == 0 {
                let shards: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
                let shard = shards[played.below(shards.len() as u64) as usize];
                let _busy = begin(&mut played, shard);
            }
            played.step();
        }
        played.end_trouble();
        played.run_to_rest();
        done += played.state.splits().filter(|split| split.step == SplitStep::Done).count();
        cancelled += played.state.splits().filter(|split| split.step == SplitStep::Cancelled).count();
        assert!(played.state.splits().all(|split| !split.is_under_way()), "seed {seed}");
        for (collection, shard) in played.state.shards() {
            assert_eq!(shard.replicas.len(), collection.replication as usize, "seed {seed}");
            assert_eq!(played.members(shard.id).voters, shard.replicas, "seed {seed}");
        }
    }
    println!("seeds {first} to {}: {done} splits done, {cancelled} cancelled", first + 59);
    assert!(done > 100 && cancelled > 10, "too little happened: {done}, {cancelled}");
}

fn ask(played: &Played, shard: u64, epoch: u64) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    split_by_hand(&played.state, &played.told(), &played.limits, (shard, epoch), played.now)
}

#[test]
fn a_split_that_cannot_be_begun_is_refused_with_what_helps() {
    let mut played = Played::new(1, 4, 1);
    played.create(3, 3);
    let replicas = played.state.shard(16).expect("there").1.replicas.clone();
    let check = |played: &Played, expected: &str| {
        let told = match ask(played, 16, 1).expect_err("it cannot be begun") {
            Ok(refusal) => refusal.to_string(),
            Err(why) => why,
        };
        assert!(told.contains(expected), "{told:?} does not say {expected:?}");
    };
    assert_eq!(ask(&played, 99, 1), Err(Ok(Refusal::NoShard(99))));
    assert_eq!(ask(&played, 16, 2), Err(Ok(Refusal::Stale { shard: 16, epoch: 1, expected: 2 })));
    played.broken.insert((replicas[1], 16));
    check(&played, "does not work: planted: wait until it is well, which `sagitta shard show 16` tells");
    played.broken.clear();
    played.lag(replicas[2], 16, 300);
    check(&played, "lacks 300 entries: wait");
    played.lag(replicas[2], 16, 0);
    played.shortage(replicas[0], true);
    check(&played, "which has a replica of it, takes no more data (disk)");
    played.shortage(replicas[0], false);
    played.mute_leaders(true);
    check(&played, "it has no leader that tells who its members are: wait");
    played.mute_leaders(false);
    played.set(replicas[0], NodeStatus::Draining);
    check(&played, "which has a replica of it, is draining: wait until another one has it");
    played.set(replicas[0], NodeStatus::Up);
    played.limits.at_once = 1;
    let other = begin(&mut played, 17).expect("begun");
    check(&played, "1 operations are under way, and no more are begun at once: wait until");
    played.limits.at_once = 2;
    let (command, notes) = ask(&played, 16, 1).expect("it can be begun");
    let HashRange { first, last } = played.state.shard(16).expect("there").1.range;
    let at = first + (last - first) / 2 + 1;
    assert_eq!(
        notes,
        [format!("it keeps the hashes up to {:016x}; the new shard has those from {at:016x} on", at - 1)]
    );
    assert!(matches!(command, Command::BeginSplit { at: middle, .. } if middle == at));
    played.apply(command);
    // The same command at the same time would be a repetition.
    played.now += 1;
    check(&played, &format!("operation {} is under way on shard 16: wait until", other + 1));
}

#[test]
fn a_shard_of_a_single_hash_stays_whole() {
    let mut played = Played::new(1, 3, 1);
    played.create(1, 3);
    // The upper half again and again, as operators would.
    let (mut shard, mut epoch) = (16, 1);
    for _ in 0..64 {
        let (command, _) = ask(&played, shard, epoch).expect("it has more than one hash");
        let Ok(Effect::Split(split)) = played.state.apply(command) else { panic!("not begun") };
        run_to(&mut played, split.id, SplitStep::Done);
        (shard, epoch) = (split.right.id, 1);
    }
    let refused = ask(&played, shard, epoch).expect_err("it cannot be halved").expect("by what is agreed");
    assert!(refused.to_string().contains("has the single hash ffffffffffffffff, which cannot be halved"), "{refused}");
}

#[test]
fn a_split_is_known_by_the_shard_as_it_was_when_it_was_begun() {
    let (mut played, id) = begun();
    let known = |played: &Played, epoch| played.state.split_as_of(16, epoch).map(|split| split.id);
    assert_eq!((known(&played, 1), known(&played, 2)), (Some(id), None));
    run_to(&mut played, id, SplitStep::Done);
    assert_eq!((known(&played, 1), known(&played, 2)), (Some(id), None));
    let again = begin(&mut played, 16).expect("begun");
    assert_eq!((known(&played, 1), known(&played, 2)), (Some(id), Some(again)));
    let (from, to, at) = (SplitStep::Prepare, SplitStep::Cancelled, Floor { term: 0, index: 0 });
    played.apply(Command::AdvanceSplit { id: again, from, to, at, unix_micros: 9 });
    assert_eq!(known(&played, 2), None, "it may be begun once more");
}
