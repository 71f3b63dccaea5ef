//! Shards are split unasked, and that ends.

use super::super::halve::{MIN_BUSY_POINTS, MIN_POINTS};
use super::*;
use crate::limits::MAX_SHARDS;
use crate::outcome::Effect;
use crate::split::SplitStep;

/// Above which shards are split here, in KiB and so in points.
const ABOVE: u64 = 1_000;
const SECOND_US: u64 = 1_000_000;

/// So many shards of three replicas, filled alike.
fn filled(seed: u64, nodes: u64, shards: u32, points: u64) -> Played {
    let mut played = Played::new(seed, nodes, 3);
    played.limits.split_above = Some(ABOVE << 10);
    played.limits.whole_at_least = Duration::from_micros(20);
    played.limits.load_known_after = Duration::from_micros(20);
    // The clock of a cluster is never that near to its beginning.
    played.now = 1_000_000;
    played.create(shards, 3);
    let all: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
    played.points.extend(all.into_iter().map(|shard| (shard, points)));
    played
}

/// The shards that are to be split now, and why.
fn begun(played: &Played) -> Vec<(u64, String)> {
    let begun = played.plan().commands.into_iter().filter_map(|command| match command {
        Command::BeginSplit { shard, reason, .. } => Some((shard, reason)),
        _ => None,
    });
    begun.collect()
}

fn shards(played: &Played) -> Vec<u64> {
    begun(played).into_iter().map(|(shard, _)| shard).collect()
}

/// Until nothing is to be done, also once halves have been whole for long enough.
fn run(played: &mut Played) {
    for _ in 0..64 {
        played.run_to_rest();
        let before = played.state.shards().count();
        played.now += 21;
        played.run_to_rest();
        if played.state.shards().count() == before {
            return;
        }
    }
    panic!("seed {}: it does not end", played.seed);
}

#[test]
fn a_shard_is_split_once_its_points_take_more_than_the_limit() {
    let mut played = filled(1, 4, 1, ABOVE);
    assert_eq!(begun(&played), [], "as much as it may have");
    played.points.insert(16, ABOVE + 1);
    // What is on the disk beside that does not count: garbage, and what went to another shard.
    played.sizes.insert(16, (100 * ABOVE) << 10);
    let reason = "its points take 1001.0 KiB, and a shard is split above 1000.0 KiB";
    assert_eq!(begun(&played), [(16, reason.to_owned())]);
    run(&mut played);
    let data: Vec<u64> = played.state.shards().map(|(_, shard)| played.data(shard.id) >> 10).collect();
    assert_eq!(data, [500, 501]);
    assert_eq!(begun(&played), []);
}

#[test]
fn a_shard_is_not_split_while_anything_speaks_against_it() {
    let large = || filled(1, 4, 1, 2 * ABOVE);
    assert_eq!(shards(&large()), [16]);
    let replicas = large().state.shard(16).expect("there").1.replicas.clone();
    let other = (1..=4).find(|node| !replicas.contains(node)).expect("there are four");
    let check = |what: &str, change: &dyn Fn(&mut Played)| {
        let mut played = large();
        change(&mut played);
        assert!(shards(&played).is_empty(), "{what}");
    };
    check("it is switched off", &|played| played.limits.split_above = None);
    check("none at once", &|played| played.limits.splits_at_once = 0);
    check("nothing at once", &|played| played.limits.at_once = 0);
    check("a node takes no data", &|played| played.shortage(replicas[1], true));
    check("a replica is broken", &|played| played.broken.extend([(replicas[1], 16)]));
    check("a replica lags", &|played| played.lag(replicas[1], 16, 300));
    check("nobody says who the members are", &|played| played.mute_leaders(true));
    check("a node is lost, and may come back", &|played| played.lose(replicas[1]));
    check("a node is drained", &|played| played.set(replicas[1], NodeStatus::Draining));
    check("so few points fall into halves as they like", &|played| {
        played.limits.split_above = Some(1 << 10);
        played.points.insert(16, MIN_POINTS - 1);
    });
    check("something else is done to it", &|played| {
        let (kind, from, to, reason) = (OperationKind::Move, Some(replicas[0]), other, String::new());
        played.apply(Command::BeginOperation { kind, shard: 16, epoch: 1, from, to, reason, unix_micros: 1 });
    });
    // Older nodes tell nothing of what points take.
    let played = large();
    let mut told = played.told();
    for (silent, expected) in [(replicas[0], 1), (replicas[1], 0)] {
        let report = told.get_mut(&silent).and_then(|told| told.report.as_mut()).expect("it reports");
        Arc::make_mut(report).replicas.iter_mut().for_each(|replica| replica.data_bytes = 0);
        let plan = plan(&played.state, &told, &played.limits, played.now);
        assert_eq!(plan.commands.len(), expected, "one of three is believed by nobody");
    }
}

#[test]
fn what_is_lost_or_leaves_comes_before_splits() {
    let mut played = filled(1, 5, 2, ABOVE);
    let of = |played: &Played, shard| played.state.shard(shard).expect("there").1.replicas.clone();
    played.points.insert(16, 2 * ABOVE);
    assert_eq!(shards(&played), [16]);
    let only_of_17 = of(&played, 17).into_iter().find(|node| !of(&played, 16).contains(node)).expect("one");
    played.set(only_of_17, NodeStatus::Draining);
    assert!(shards(&played).is_empty(), "another shard has to leave a node");
    played.step();
    assert!(played.state.operations_under_way().count() > 0);
    assert_eq!(shards(&played), [16], "that is under way");
}

#[test]
fn few_are_split_at_once_the_largest_first_and_one_on_each_node() {
    let mut played = filled(1, 3, 4, 2 * ABOVE);
    played.points.insert(18, 3 * ABOVE);
    assert_eq!(shards(&played), [18], "all have replicas on all of the nodes");
    let mut played = filled(1, 40, 40, 2 * ABOVE);
    assert_eq!(shards(&played).len(), 2);
    let mut most = 0;
    for _ in 0..2_000 {
        played.step();
        let under_way: Vec<_> = played.state.splits_under_way().cloned().collect();
        most = most.max(under_way.len());
        assert!(under_way.len() <= played.limits.splits_at_once, "{under_way:?}");
        let nodes: Vec<u64> = under_way.iter().flat_map(|split| split.right.replicas.clone()).collect();
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "{under_way:?}");
    }
    assert_eq!((most, played.state.shards().count()), (2, 80));
}

#[test]
fn halves_are_left_whole_for_a_while_and_what_was_cancelled_for_an_hour() {
    let mut played = filled(1, 3, 1, 8 * ABOVE);
    while played.state.splits().all(|split| split.step != SplitStep::Done) {
        played.step();
    }
    let ended = played.state.splits().find_map(|split| split.ended_unix_micros).expect("a moment ago");
    played.now = ended + 19;
    assert_eq!(begun(&played), []);
    played.now = ended + 20;
    assert_eq!(shards(&played), [16]);
    played.step();
    let id = played.state.splits_under_way().next().expect("begun").id;
    let (from, to, at) = (SplitStep::Prepare, SplitStep::Cancelled, Floor { term: 0, index: 0 });
    played.apply(Command::AdvanceSplit { id, from, to, at, unix_micros: played.now });
    let cancelled = played.now;
    played.now = cancelled + 3_600 * SECOND_US - 1;
    assert_eq!(shards(&played), [17], "the other half is another matter");
    played.now += 1;
    assert_eq!(shards(&played).len(), 1);
    played.points.insert(17, 1);
    assert_eq!(shards(&played), [16]);
}

#[test]
fn shards_that_are_merged_are_left_alone_and_what_comes_of_them_is_left_whole_for_an_hour() {
    let mut played = filled(1, 3, 2, 2 * ABOVE);
    assert_eq!(shards(&played).len(), 1, "one at a time on each node");
    let (floor, reason, unix_micros) = (Floor { term: 1, index: 1 << 32 }, String::new(), played.now);
    let (left, right, left_epoch, right_epoch) = (16, 17, 1, 1);
    played.apply(Command::BeginMerge {
        left,
        left_epoch,
        right,
        right_epoch,
        floor,
        reason,
        unix_micros,
        unasked: false,
    });
    assert_eq!(begun(&played), []);
    while played.state.merges_under_way().next().is_some() {
        assert_eq!(begun(&played), []);
        played.step();
    }
    let ended = played.state.merges().next().and_then(|merge| merge.ended_unix_micros).expect("it has ended");
    assert_eq!(played.state.shards().map(|(_, shard)| shard.id).collect::<Vec<_>>(), [18]);
    played.points.insert(18, 2 * ABOVE);
    for _ in 0..1_000 {
        played.step();
    }
    played.now = ended + 3_600 * SECOND_US - 1;
    assert!(shards(&played).is_empty());
    played.now += 1;
    assert_eq!(shards(&played), [18]);
}

#[test]
fn a_collection_has_as_many_shards_as_it_may_have_at_most() {
    let mut played = filled(1, 40, MAX_SHARDS - 1, 2 * ABOVE);
    assert_eq!(begun(&played).len(), 1, "one more");
    played.step();
    assert_eq!(begun(&played), []);
}

/// One shard of many points that keeps its nodes busy as told: the one that leads it and the others, in thousandths of a search thread.
fn busy(nodes: u64, leader: u64, others: u64) -> Played {
    let mut played = filled(1, nodes, 1, MIN_BUSY_POINTS);
    played.limits.split_above = Some(u64::MAX);
    played.loads.insert(16, (leader * 1_000, others * 1_000));
    played
}

#[test]
fn a_shard_that_keeps_all_of_its_nodes_busy_is_split_where_others_could_help() {
    // Half of the four threads of each.
    let split = begun(&busy(4, 3_500, 2_100));
    let [(16, reason)] = &split[..] else { panic!("{split:?}") };
    assert!(reason.starts_with("it keeps 2.1 of 4 search threads of node "), "{reason}");
    assert!(reason.ends_with("its collection has 1 shards, and there are 4 nodes"), "{reason}");
    assert_eq!(begun(&busy(4, 3_500, 2_000)), [], "the others have time left");
    assert_eq!(begun(&busy(3, 3_500, 3_500)), [], "every node has something of the collection");
    let mut few = busy(4, 3_500, 3_500);
    few.points.insert(16, MIN_BUSY_POINTS - 1);
    assert_eq!(begun(&few), [], "comparing so few rows is not what takes the time");
    let mut older = busy(4, 3_500, 3_500);
    older.threads = 0;
    assert_eq!(begun(&older), [], "nodes do not tell how many threads they have");
    let mut off = busy(4, 3_500, 3_500);
    off.limits.split_above = None;
    assert_eq!(begun(&off), []);
}

#[test]
fn load_alone_splits_a_collection_until_it_has_a_replica_for_every_node() {
    for nodes in [4, 7, 12, 20] {
        let mut played = busy(nodes, 4_000, 4_000);
        for _ in 0..32 {
            // However small its shards become, and however busy they stay.
            let all: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
            played.points.extend(all.iter().map(|shard| (*shard, 100 * MIN_BUSY_POINTS)));
            played.loads.extend(all.iter().map(|shard| (*shard, (4_000_000, 4_000_000))));
            played.now += 21;
            played.run_to_rest();
        }
        let count = played.state.shards().count() as u64;
        assert_eq!(count, nodes.div_ceil(3), "{nodes} nodes");
    }
}

#[test]
fn what_a_half_is_told_to_do_counts_no_sooner_than_it_is_known() {
    let mut played = busy(12, 4_000, 4_000);
    played.limits.load_known_after = Duration::from_micros(60);
    played.run_to_rest();
    let all: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
    assert_eq!(all, [16, 17]);
    played.points.extend(all.iter().map(|shard| (*shard, MIN_BUSY_POINTS)));
    played.loads.extend(all.iter().map(|shard| (*shard, (4_000_000, 4_000_000))));
    let ended = played.state.splits().find_map(|split| split.ended_unix_micros).expect("it has ended");
    played.now = ended + 59;
    assert_eq!(begun(&played), []);
    played.now += 1;
    assert!(!begun(&played).is_empty());
}

/// Filled by and by or at once: a shard that was given so much ends as so many, and what was split once is not split on.
#[test]
fn shards_that_are_filled_end_in_the_expected_number_below_the_limit() {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut done = 0;
    for seed in first..first + 40 {
        let mut dice = Played::new(seed, 1, 1);
        let (nodes, created) = (3 + dice.below(6), 1 + dice.below(3));
        let mut played = filled(seed, nodes, created as u32, 0);
        played.noise = [0, 10][dice.below(2) as usize];
        let all: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
        let mut given: BTreeMap<u64, u64> = BTreeMap::new();
        let rounds = 1 + dice.below(8);
        for _ in 0..rounds {
            for shard in &all {
                let more = dice.below(8 * ABOVE / rounds) + 1;
                *given.entry(*shard).or_default() += more;
                // Hashes spread what comes over all that the shard has become.
                for part in parts(&played, *shard, &all) {
                    *played.points.entry(part).or_default() += spread(&played, more, part);
                }
            }
            for _ in 0..dice.below(60) {
                played.step();
            }
            // A shard that holds half already is routed to as one: then it is not known where points are to go.
            while played.state.splits_under_way().next().is_some() {
                played.step();
            }
        }
        run(&mut played);
        for (shard, given) in given {
            let parts = parts(&played, shard, &all);
            let largest = parts.iter().map(|part| played.data(*part)).max().expect("itself");
            let (limit, noise) = (ABOVE << 10, played.noise);
            assert!(largest * (100 - noise) <= limit * 100, "seed {seed}: {largest}");
            // Each split was of more than the limit, as it was told.
            let least = limit / 2 * 100 / (100 + noise);
            let smallest = parts.iter().map(|part| played.data(*part)).min().expect("itself");
            assert!(parts.len() == 1 || smallest + (8 << 10) >= least, "seed {seed}: {smallest} is less than {least}");
            if noise == 0 {
                // What is spread over ranges is off by a point or two each time.
                let [few, many] = [given - given.min(64), given + 64].map(|given| given.div_ceil(ABOVE).max(1));
                let expected = few.next_power_of_two()..=many.next_power_of_two();
                let sizes: Vec<u64> = parts.iter().map(|part| played.data(*part)).collect();
                assert!(expected.contains(&(parts.len() as u64)), "seed {seed}: {given} in {sizes:?}");
            }
            done += parts.len() - 1;
        }
        assert!(played.state.splits().all(|split| split.step == SplitStep::Done), "seed {seed}");
    }
    println!("seeds {first} to {}: {done} splits", first + 39);
    assert!(done > 100, "too little happened: {done}");
}

/// The shards that one of those that were created has become.
fn parts(played: &Played, shard: u64, created: &[u64]) -> Vec<u64> {
    let mut mine = Vec::new();
    let mut current = 0;
    for (_, one) in played.state.shards() {
        if created.contains(&one.id) {
            current = one.id;
        }
        if current == shard {
            mine.push(one.id);
        }
    }
    mine
}

/// Of what comes to a shard that was created, what falls into the range of a part of it.
fn spread(played: &Played, more: u64, part: u64) -> u64 {
    let (collection, one) = played.state.shard(part).expect("there");
    let created = collection.shards.iter().filter(|shard| shard.parent.is_none()).count() as u128;
    let width = u128::from(one.range.last - one.range.first) + 1;
    ((u128::from(more) * width * created) >> 64) as u64
}

/// Whatever nodes do meanwhile.
#[test]
fn whatever_happens_meanwhile_shards_come_below_the_limit() {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut done = 0;
    for seed in first..first + 40 {
        let mut played = filled(seed, 7, 2, 5 * ABOVE);
        for _ in 0..150 {
            played.trouble();
            played.step();
        }
        played.end_trouble();
        // What a lost node cut short is tried again after an hour.
        played.now += 3_600 * SECOND_US;
        run(&mut played);
        done += played.state.splits().filter(|split| split.step == SplitStep::Done).count();
        for (collection, shard) in played.state.shards() {
            assert_eq!(shard.replicas.len(), collection.replication as usize, "seed {seed}");
            assert_eq!(played.data(shard.id), 625 << 10, "seed {seed}: {}", shard.id);
        }
        assert_eq!(played.state.shards().count(), 16, "seed {seed}");
    }
    println!("seeds {first} to {}: {done} splits", first + 39);
}

#[test]
fn a_split_by_hand_is_not_undone_or_followed_by_others() {
    let mut played = filled(1, 4, 1, ABOVE / 2);
    let (command, _) = split_by_hand(&played.state, &played.told(), &played.limits, (16, 1), played.now).expect("well");
    let Ok(Effect::Split(_)) = played.state.apply(command) else { panic!("not begun") };
    run(&mut played);
    assert_eq!((played.state.shards().count(), begun(&played)), (2, Vec::new()));
}
