//! What was split and has become small is merged unasked, down to what people want, and that ends.

use super::super::unite::{IDLE_PARTS, SMALL_PARTS};
use super::*;
use crate::merge::MergeStep;

/// Above which shards are split here, in KiB and so in points.
const ABOVE: u64 = 1_000;
/// What the points of two shards take that are merged, at most.
const SMALL: u64 = ABOVE / SMALL_PARTS;
const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 24 * 3_600 * SECOND_US;

/// Collections of so many shards of three replicas, each of which the cluster has split in so many parts, more than a day ago. They have no
/// points any more.
fn grown(seed: u64, nodes: u64, collections: usize, shards: u32, parts: u64) -> Played {
    let mut played = Played::new(seed, nodes, 3);
    played.limits.split_above = Some(ABOVE << 10);
    played.limits.whole_at_least = Duration::from_micros(20);
    played.limits.load_known_after = Duration::from_micros(20);
    // The clock of a cluster is never that near to its beginning.
    played.now = SECOND_US;
    (0..collections).for_each(|_| played.create(shards, 3));
    fill(&mut played, parts * ABOVE);
    let all = collections * shards as usize * parts as usize;
    for _ in 0..64 {
        played.run_to_rest();
        played.now += 21;
    }
    assert_eq!(ids(&played).len(), all, "seed {seed}");
    fill(&mut played, 0);
    played.now += DAY_US;
    played
}

/// All shards, in the order of their collections and hashes.
fn ids(played: &Played) -> Vec<u64> {
    played.state.shards().map(|(_, shard)| shard.id).collect()
}

/// Every shard has so many points.
fn fill(played: &mut Played, points: u64) {
    let all = ids(played);
    played.points.extend(all.into_iter().map(|shard| (shard, points)));
}

/// The shards that are to be merged now, and why.
fn begun(played: &Played) -> Vec<([u64; 2], String)> {
    let begun = played.plan().commands.into_iter().filter_map(|command| match command {
        Command::BeginMerge { left, right, reason, unasked: true, .. } => Some(([left, right], reason)),
        _ => None,
    });
    begun.collect()
}

fn pairs(played: &Played) -> Vec<[u64; 2]> {
    begun(played).into_iter().map(|(pair, _)| pair).collect()
}

/// When the last merge ended.
fn ended(played: &Played) -> u64 {
    played.state.merges().filter_map(|merge| merge.ended_unix_micros).max().expect("one has ended")
}

#[test]
fn small_neighbours_are_merged_one_pair_after_the_other_and_what_came_of_it_no_sooner_than_a_day_later() {
    let mut played = grown(1, 4, 1, 1, 4);
    fill(&mut played, 60);
    let before = ids(&played);
    let reason = "the points of both take 120.0 KiB, and neighbours are merged up to 250.0 KiB; \
                  their collection has 4 shards, and keeps 1 at the least";
    let lowest = (0..3).min_by_key(|at| before[*at]).expect("three pairs");
    assert_eq!(begun(&played), [([before[lowest], before[lowest + 1]], reason.to_owned())]);
    let mut most = 0;
    for _ in 0..400 {
        played.step();
        most = most.max(played.state.merges_under_way().count());
    }
    assert_eq!(most, 1);
    let merged = ids(&played);
    assert!(merged.len() < 4 && merged.iter().any(|shard| !before.contains(shard)), "{before:?} became {merged:?}");
    played.run_to_rest();
    // Whatever pair was first, the new shard has no other that is free beside it, or another pair was merged as well.
    let (left, last) = (ids(&played), ended(&played));
    assert!((2..=3).contains(&left.len()), "{left:?}");
    played.now = last + DAY_US - 1;
    let known = |shard: &u64| played.state.merges().any(|merge| merge.into.id == *shard);
    let free = left.windows(2).filter(|pair| !pair.iter().any(known)).count();
    assert_eq!((pairs(&played), free), (Vec::new(), 0));
    played.now = last + DAY_US;
    assert_eq!(pairs(&played).len(), 1);
    for _ in 0..4 {
        played.run_to_rest();
        played.now += DAY_US;
    }
    let [shard] = ids(&played)[..] else { panic!("{:?}", ids(&played)) };
    assert_eq!((played.data(shard) >> 10, pairs(&played)), (240, Vec::new()));
    let (collection, _) = played.state.shard(shard).expect("there");
    assert_eq!(collection.shards_wanted, 1);
    assert_eq!(played.plan(), Plan::default());
}

#[test]
fn a_collection_keeps_the_shards_that_people_want_however_small_they_are() {
    let mut created = Played::new(1, 4, 3);
    created.now = 2 * DAY_US;
    created.create(4, 3);
    assert_eq!(pairs(&created), [] as [[u64; 2]; 0], "it was created with as many");

    let mut played = grown(1, 4, 1, 2, 2);
    for _ in 0..6 {
        played.run_to_rest();
        played.now += DAY_US;
    }
    assert_eq!((ids(&played).len(), pairs(&played)), (2, Vec::new()));

    // Somebody wants one more, by and by, and one fewer again.
    let shard = ids(&played)[0];
    let epoch = played.state.shard(shard).expect("there").1.epoch;
    let split = split_by_hand(&played.state, &played.told(), &played.limits, (shard, epoch), played.now);
    played.apply(split.expect("it is well").0);
    for _ in 0..3 {
        played.run_to_rest();
        played.now += DAY_US;
    }
    assert_eq!((ids(&played).len(), pairs(&played)), (3, Vec::new()));
    let both = [0, 1].map(|at| {
        let shard = ids(&played)[at];
        (shard, played.state.shard(shard).expect("there").1.epoch)
    });
    let merge = merge_by_hand(&played.state, &played.told(), &played.limits, both, played.now);
    played.apply(merge.expect("both are well").0);
    for _ in 0..3 {
        played.run_to_rest();
        played.now += DAY_US;
    }
    assert_eq!((ids(&played).len(), pairs(&played)), (2, Vec::new()));
}

/// Two shards, of which one is wanted, that are as large as two may be that are merged.
fn two() -> Played {
    let mut played = grown(1, 4, 1, 1, 2);
    fill(&mut played, SMALL / 2);
    assert_eq!(pairs(&played), [[16, 17]]);
    played
}

#[test]
fn neighbours_are_not_merged_while_anything_speaks_against_it() {
    let replicas = two().state.shard(17).expect("there").1.replicas.clone();
    let other = (1..=4).find(|node| !replicas.contains(node)).expect("there are four");
    let check = |what: &str, change: &dyn Fn(&mut Played)| {
        let mut played = two();
        change(&mut played);
        assert!(pairs(&played).is_empty(), "{what}");
    };
    check("shards are not split unasked either", &|played| played.limits.split_above = None);
    check("none at once", &|played| played.limits.merges_at_once = 0);
    check("nothing at once", &|played| played.limits.at_once = 0);
    check("both are too large", &|played| played.points.extend([(17, SMALL / 2 + 1)]));
    check("more is on their disks than a shard is split above", &|played| {
        played.sizes.extend([(16, ABOVE << 9), (17, (ABOVE << 9) + 1)]);
    });
    check("no node has room for what comes of it", &|played| {
        (1..=4).for_each(|node| played.shortage(node, true));
    });
    check("a replica is broken", &|played| played.broken.extend([(replicas[1], 17)]));
    check("a replica lags", &|played| played.lag(replicas[1], 17, 300));
    check("nobody says who the members are", &|played| played.mute_leaders(true));
    check("a node is lost, and may come back", &|played| played.lose(replicas[1]));
    check("a node is silent", &|played| played.silent(replicas[1], Duration::from_secs(4)));
    check("a node is drained", &|played| played.set(replicas[1], NodeStatus::Draining));
    check("something else is done to one of them", &|played| {
        let (kind, from, to, reason) = (OperationKind::Move, Some(replicas[0]), other, String::new());
        let epoch = played.state.shard(17).expect("there").1.epoch;
        played.apply(Command::BeginOperation { kind, shard: 17, epoch, from, to, reason, unix_micros: 1 });
    });
    check("nodes do not tell how many threads search", &|played| played.threads = 0);
    // Older nodes tell nothing of what points take, and that is not nothing.
    let played = two();
    let mut told = played.told();
    let report = told.get_mut(&replicas[0]).and_then(|told| told.report.as_mut()).expect("it reports");
    Arc::make_mut(report).replicas.iter_mut().for_each(|replica| replica.data_bytes = 0);
    let plan = plan(&played.state, &told, &played.limits, played.now);
    assert!(!plan.commands.iter().any(|command| matches!(command, Command::BeginMerge { .. })));
}

#[test]
fn neighbours_that_do_much_are_not_merged_whoever_of_their_replicas_it_is() {
    // Of the four threads of each node, so that both together come to what may be.
    let most = 4 * SECOND_US / IDLE_PARTS;
    for (leads, follows) in [(most / 2, 0), (0, most / 2)] {
        let mut played = two();
        played.loads.extend([16, 17].map(|shard| (shard, (leads, follows))));
        assert_eq!(pairs(&played), [[16, 17]]);
        played.loads.insert(17, (leads + 4, follows));
        let more_leads = pairs(&played).is_empty();
        played.loads.insert(17, (leads, follows + 4));
        let more_follows = pairs(&played).is_empty();
        assert_eq!((more_leads, more_follows), (leads > 0, follows > 0), "the busiest of each counts");
    }
    let played = two();
    // What has just been opened has not been busy for ten minutes yet.
    let mut told = played.told();
    for told in told.values_mut() {
        let report = Arc::make_mut(told.report.as_mut().expect("it reports"));
        report.replicas.iter_mut().for_each(|replica| replica.load.recent_us = most);
    }
    let plan = plan(&played.state, &told, &played.limits, played.now);
    assert!(!plan.commands.iter().any(|command| matches!(command, Command::BeginMerge { .. })));
}

#[test]
fn what_was_split_or_not_merged_lately_is_left_as_it_is_for_a_day() {
    let mut played = two();
    let split = played.state.splits().filter_map(|split| split.ended_unix_micros).max().expect("a day ago");
    played.now = split + DAY_US - 1;
    assert_eq!(pairs(&played), [] as [[u64; 2]; 0]);
    played.now += 1;
    assert_eq!(pairs(&played), [[16, 17]]);
    // Somebody does not want it.
    played.step();
    let id = played.state.merges_under_way().next().expect("begun").id;
    let (from, to, cancelled) = (MergeStep::Prepare, MergeStep::Cancelled, played.now);
    played.apply(Command::AdvanceMerge { id, from, to, unix_micros: cancelled });
    played.run_to_rest();
    played.now = cancelled + DAY_US - 1;
    assert_eq!(pairs(&played), [] as [[u64; 2]; 0]);
    played.now += 1;
    assert_eq!(pairs(&played), [[16, 17]]);
}

#[test]
fn what_is_lost_leaves_or_has_grown_comes_before_merges() {
    let mut played = grown(1, 5, 2, 1, 2);
    assert_eq!(pairs(&played).len(), 1);
    let of_second = ids(&played)[2..].to_vec();
    played.points.insert(of_second[0], 2 * ABOVE);
    assert!(pairs(&played).is_empty(), "a shard is split first");
    let splits = |command: &Command| matches!(command, Command::BeginSplit { unasked: true, .. });
    assert!(played.plan().commands.iter().any(splits), "{:?}", played.plan());
    played.points.insert(of_second[0], 0);
    let leaves = played.state.shard(of_second[0]).expect("there").1.replicas[0];
    played.set(leaves, NodeStatus::Draining);
    assert!(pairs(&played).is_empty(), "a shard has to leave a node");
}

#[test]
fn the_smallest_are_merged_first_and_one_pair_at_once_in_the_cluster() {
    let mut played = grown(1, 5, 2, 1, 4);
    let all = ids(&played);
    for (shard, points) in all.iter().zip([100, 100, 25, 30, 90, 20, 31, 100]) {
        played.points.insert(*shard, points);
    }
    assert_eq!(pairs(&played), [[all[5], all[6]]]);
    played.points.insert(all[6], 40);
    assert_eq!(pairs(&played), [[all[2], all[3]]]);
    played.step();
    assert_eq!(played.state.merges_under_way().count(), 1);
    assert!(pairs(&played).is_empty(), "one is under way");
    played.limits.merges_at_once = 2;
    assert_eq!(pairs(&played), [[all[5], all[6]]], "in the same collection one follows the other");
    played.limits.merges_at_once = 1;
    played.run_to_rest();
    assert!(ids(&played).len() < 8);
}

#[test]
fn nothing_is_merged_in_a_collection_while_somebody_has_a_shard_of_it_split_or_merged() {
    let mut played = grown(1, 4, 1, 1, 4);
    let all = ids(&played);
    // The first two are smaller than all others, and not asked about.
    for (shard, points) in all.iter().zip([1, 1, 60, 60]) {
        played.points.insert(*shard, points);
    }
    assert_eq!(pairs(&played), [[all[0], all[1]]]);
    let of = |at: usize| (all[at], played.state.shard(all[at]).expect("there").1.epoch);
    let split = split_by_hand(&played.state, &played.told(), &played.limits, of(3), played.now).expect("well").0;
    let merge = merge_by_hand(&played.state, &played.told(), &played.limits, [of(2), of(3)], played.now);
    for command in [split, merge.expect("well").0] {
        let before = played.state.clone();
        played.apply(command);
        assert!(pairs(&played).is_empty());
        played.state = before;
    }
}

/// A merge that the cluster begins and splits that follow when data come back: each of them waits for what it undoes.
#[test]
fn what_is_merged_is_split_again_only_when_it_has_grown_to_four_times_as_much() {
    let mut played = two();
    played.run_to_rest();
    let [shard] = ids(&played)[..] else { panic!("{:?}", ids(&played)) };
    let splits = |played: &Played| {
        let begins = |command: &&Command| matches!(command, Command::BeginSplit { .. });
        played.plan().commands.iter().filter(begins).count()
    };
    played.now += DAY_US;
    for (points, count) in [(SMALL, 0), (SMALL_PARTS * SMALL, 0), (SMALL_PARTS * SMALL + 1, 1)] {
        played.points.insert(shard, points);
        assert_eq!(splits(&played), count, "{points}");
    }
}

/// Whatever nodes do meanwhile, and whenever leaders change: as many are left as are wanted, and nothing is lost.
#[test]
fn whatever_happens_meanwhile_a_collection_comes_down_to_what_is_wanted() {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut done, mut cancelled) = (0, 0);
    for seed in first..first + 20 {
        let mut played = grown(seed, 7, 2, 2, 2);
        fill(&mut played, 20);
        for _ in 0..150 {
            played.trouble();
            if played.below(30) == 0 {
                played.now += 1_800 * SECOND_US;
            }
            played.step();
            let unasked = played.state.merges_under_way().filter(|merge| merge.unasked).count();
            assert!(unasked <= played.limits.merges_at_once, "seed {seed}: {unasked}");
        }
        played.end_trouble();
        for _ in 0..6 {
            played.run_to_rest();
            played.now += DAY_US;
        }
        done += played.state.merges().filter(|merge| merge.step == MergeStep::Done).count();
        cancelled += played.state.merges().filter(|merge| merge.step == MergeStep::Cancelled).count();
        assert!(played.state.merges().all(|merge| merge.unasked && !merge.is_under_way()), "seed {seed}");
        for collection in played.state.collections().values() {
            let points = collection.shards.iter().map(|shard| played.data(shard.id) >> 10).sum::<u64>();
            let counts = (collection.shards.len(), collection.shards_wanted, points);
            assert_eq!(counts, (2, 2, 80), "seed {seed}: {}", collection.name);
            for shard in &collection.shards {
                assert_eq!(shard.replicas.len(), collection.replication as usize, "seed {seed}");
                assert_eq!(played.members(shard.id).voters, shard.replicas, "seed {seed}");
            }
        }
    }
    println!("seeds {first} to {}: {done} merges done, {cancelled} cancelled", first + 19);
    assert!(done == 80, "each of the collections has two to spare: {done}");
}
