//! Nodes come to hold alike, and that ends.

use super::super::balance::REPLICA_BYTES;
use super::*;
use crate::placement::takes_replicas;

const MIB: u64 = 1 << 20;

/// Where replicas are once all that is under way has ended, by shard.
fn future(played: &Played) -> BTreeMap<u64, Vec<u64>> {
    let after = |shard: &ShardDescriptor| {
        let mut nodes = shard.replicas.clone();
        let operation = played.state.operation_on(shard.id);
        if let Some(one) = operation.filter(|one| !nodes.contains(&one.to)) {
            nodes.retain(|node| Some(*node) != one.from);
            nodes.push(one.to);
        }
        nodes
    };
    played.state.shards().map(|(_, shard)| (shard.id, after(shard))).collect()
}

fn cost(played: &Played, shard: u64) -> u64 {
    REPLICA_BYTES + played.sizes.get(&shard).copied().unwrap_or(0)
}

fn zone(played: &Played, node: u64) -> &str {
    &played.state.nodes()[&node].place.zone
}

fn crowd(played: &Played, nodes: &[u64], name: &str) -> u64 {
    nodes.iter().filter(|node| zone(played, **node) == name).count() as u64
}

/// What each node holds that takes replicas.
fn loads(played: &Played) -> BTreeMap<u64, u64> {
    let taking = played.state.nodes().values().filter(|node| takes_replicas(node));
    let mut loads: BTreeMap<u64, u64> = taking.map(|node| (node.id, 0)).collect();
    for (shard, nodes) in future(played) {
        for node in nodes {
            *loads.entry(node).or_default() += cost(played, shard);
        }
    }
    loads
}

fn margin(loads: &BTreeMap<u64, u64>) -> u64 {
    loads.values().sum::<u64>() / loads.len() as u64 / 20
}

/// How crowded zones are, and the sum of the squares of what nodes hold: what makes that smaller can be done so often only.
fn potential(played: &Played) -> (u64, u128) {
    let future = future(played);
    let crowds = future.values().map(|nodes| {
        let zones: BTreeSet<&str> = nodes.iter().map(|node| zone(played, *node)).collect();
        zones.into_iter().map(|name| crowd(played, nodes, name).pow(2)).sum::<u64>()
    });
    (crowds.sum(), loads(played).values().map(|load| u128::from(*load).pow(2)).sum())
}

/// A move that would make it better by the margin, found by trying all.
fn better(played: &Played) -> Option<(u64, u64, u64)> {
    let loads = loads(played);
    let margin = margin(&loads);
    for (shard, nodes) in future(played) {
        for (from, to) in nodes.iter().flat_map(|from| loads.keys().map(move |to| (*from, *to))) {
            if nodes.contains(&to) {
                continue;
            }
            let (zone_from, zone_to) = (zone(played, from), zone(played, to));
            let (here, there) = (crowd(played, &nodes, zone_from), crowd(played, &nodes, zone_to));
            let same = zone_from == zone_to;
            let spreads = !same && there + 1 < here;
            let narrows = loads[&from] >= loads[&to] + cost(played, shard) + margin;
            if spreads || narrows && (same || there < here) {
                return Some((shard, from, to));
            }
        }
    }
    None
}

/// Runs to rest while each move that begins makes it better, and no limit is passed. Says how many began.
fn run(played: &mut Played) -> usize {
    let (mut begun, limits) = (0, played.limits);
    for _ in 0..5_000 {
        let before = (potential(played), played.state.begun_operations);
        played.step();
        let after = (potential(played), played.state.begun_operations);
        let seed = played.seed;
        match after.1 > before.1 {
            true => assert!(after.0 < before.0, "seed {seed}: {before:?} became {after:?}"),
            false => assert_eq!(after.0, before.0, "seed {seed}"),
        }
        begun += (after.1 - before.1) as usize;
        let under_way: Vec<_> = played.state.operations().filter(|one| one.is_under_way()).collect();
        assert!(under_way.len() <= limits.balance_at_once, "seed {seed}: {under_way:?}");
        for node in played.state.nodes().keys() {
            let of = |node_of: fn(&Operation) -> Option<u64>| {
                under_way.iter().filter(|one| node_of(one) == Some(*node)).count()
            };
            let most = of(|one| Some(one.to)).max(of(|one| one.from));
            assert!(most <= limits.balance_per_node, "seed {seed}: node {node}: {under_way:?}");
        }
        if under_way.is_empty() && played.plan() == Plan::default() {
            return begun;
        }
    }
    panic!("seed {}: it does not end", played.seed);
}

#[test]
fn a_new_node_fills_up_unasked_and_then_all_is_at_rest() {
    let mut played = Played::new(1, 3, 1);
    played.create(12, 3);
    assert_eq!(played.plan(), Plan::default(), "all hold alike");
    played.join(4, "z0");
    let plan = played.plan();
    let Some(Command::BeginOperation { kind, to, reason, .. }) = plan.commands.first() else { panic!("{plan:?}") };
    assert_eq!((*kind, *to, plan.commands.len()), (OperationKind::Rebalance, 4, 1), "one into a node at once");
    assert_eq!(reason, "node 1 has 12 replicas of 0 MiB and node 4 has 0 replicas of 0 MiB; this one has 0 MiB");
    assert_eq!(run(&mut played), 9);
    let held: Vec<usize> = (1..=4).map(|node| played.placed_on(node)).collect();
    assert_eq!(held, [9, 9, 9, 9]);
}

#[test]
fn what_is_on_its_way_counts_as_if_it_was_there() {
    let mut played = Played::new(1, 3, 1);
    played.create(4, 3);
    (played.limits.balance_at_once, played.limits.balance_per_node) = (8, 8);
    played.join(4, "z0");
    assert_eq!(run(&mut played), 3);
    assert_eq!([1, 2, 3, 4].map(|node| played.placed_on(node)), [3, 3, 3, 3]);
}

#[test]
fn large_shards_are_weighed_by_their_bytes_and_small_ones_by_their_number() {
    let mut played = Played::new(1, 3, 3);
    played.create(9, 1);
    // The large ones are all on node 1.
    for (_, shard) in played.state.shards().map(|(_, shard)| ((), shard.clone())).collect::<Vec<_>>() {
        let bytes = if shard.replicas == [1] { 3_000 * MIB } else { MIB };
        played.sizes.insert(shard.id, bytes);
    }
    run(&mut played);
    let large = |node: u64| {
        let on = played.state.shards().filter(|(_, shard)| shard.replicas == [node]);
        on.filter(|(_, shard)| played.sizes[&shard.id] > MIB).count()
    };
    assert_eq!([large(1), large(2), large(3)], [1, 1, 1], "by bytes");
    assert_eq!(better(&played), None);
    let small: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
    played.sizes = small.into_iter().map(|shard| (shard, MIB)).collect();
    run(&mut played);
    assert_eq!([1, 2, 3].map(|node| played.placed_on(node)), [3, 3, 3], "by number");
}

#[test]
fn replicas_go_to_a_zone_that_has_none_even_where_more_is_held() {
    let mut played = Played::new(1, 4, 2);
    played.create(4, 3);
    let crowded = potential(&played).0;
    played.join(5, "z7");
    played.join(6, "z8");
    let reason = played.plan().commands.iter().find_map(|command| match command {
        Command::BeginOperation { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.as_deref(), Some("2 of the shard's replicas are in zone z0 and 0 in zone z7"));
    run(&mut played);
    assert!(potential(&played).0 < crowded);
    for (_, shard) in played.state.shards() {
        let zones: BTreeSet<&str> = shard.replicas.iter().map(|node| zone(&played, *node)).collect();
        assert_eq!(zones.len(), 3, "{:?}", shard.replicas);
    }
}

#[test]
fn only_what_is_well_is_moved_and_nothing_while_something_urgent_waits_or_somebody_is_silent() {
    let mut played = Played::new(1, 3, 1);
    played.create(3, 3);
    played.join(4, "z0");
    let shards: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
    let moved = |played: &Played| match played.plan().commands.first() {
        Some(Command::BeginOperation { shard, .. }) => Some(*shard),
        other => {
            assert_eq!(other, None);
            None
        }
    };
    assert_eq!(moved(&played), Some(shards[0]));
    played.broken.insert((2, shards[0]));
    assert_eq!(moved(&played), Some(shards[1]));
    played.lag(3, shards[1], 300);
    assert_eq!(moved(&played), Some(shards[2]));
    played.mute_leaders(true);
    assert_eq!(moved(&played), None);
    played.mute_leaders(false);
    played.shortage(4, true);
    assert_eq!(moved(&played), None, "it has no room");
    played.shortage(4, false);
    played.silent(4, Duration::ZERO);
    assert_eq!(moved(&played), None, "it is not there");
    played.come_back(4);
    assert_eq!(moved(&played), Some(shards[2]));
    played.set(1, NodeStatus::Draining);
    let kinds = played.plan().commands.into_iter().map(|command| match command {
        Command::BeginOperation { kind, .. } => kind,
        other => panic!("{other:?}"),
    });
    let kinds: BTreeSet<_> = kinds.collect();
    assert_eq!(kinds, [OperationKind::Drain].into(), "what leaves comes first");
    // It cannot begin, as all of the cluster is busy; still nothing else does.
    played.limits.at_once = 0;
    assert!(played.plan().commands.is_empty());
    assert_eq!(played.plan().waiting.len(), 3);
}

#[test]
fn nothing_is_weighed_while_nobody_tells_of_a_shard_that_is_on_a_node_that_is_up() {
    let mut played = Played::new(1, 3, 1);
    played.create(6, 1);
    played.join(4, "z0");
    played.join(5, "z0");
    let begins = |played: &Played| !played.plan().commands.is_empty();
    assert!(begins(&played));
    played.silent(3, Duration::ZERO);
    assert!(!begins(&played), "it may hold anything");
    played.lose(3);
    assert!(begins(&played), "what it holds nobody will tell");
}

#[test]
fn a_move_that_somebody_cancelled_is_not_begun_anew_for_a_day() {
    let mut played = Played::new(1, 3, 1);
    played.create(3, 3);
    played.join(4, "z0");
    played.step();
    let one = played.state.operations().next().expect("begun").clone();
    assert_eq!((one.kind, one.step), (OperationKind::Rebalance, OperationStep::Join));
    played.apply(Command::CancelOperation { id: one.id });
    played.run_to_rest();
    assert_eq!(played.state.operation(one.id).expect("known").step, OperationStep::Cancelled);
    let others: Vec<u64> = played.state.operations().skip(1).map(|later| later.shard).collect();
    assert!(!others.is_empty() && !others.contains(&one.shard), "others go: {others:?}");
    let (_, shard) = played.state.shard(one.shard).expect("there");
    assert!(!shard.replicas.contains(&4));
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let first = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seeds {first} to {}", first + count - 1);
    first..first + count
}

/// A cluster of any shape with any data in it, into which nodes came since.
fn any(seed: u64) -> Played {
    let mut dice = Played::new(seed, 1, 1);
    let (nodes, zones) = (2 + dice.below(9), 1 + dice.below(4));
    let mut played = Played::new(seed, nodes, zones);
    for _ in 0..=dice.below(3) {
        played.create(1 + dice.below(12) as u32, 1 + dice.below(nodes.min(3)) as u32);
    }
    let shards: Vec<u64> = played.state.shards().map(|(_, shard)| shard.id).collect();
    for shard in shards {
        let bytes = match dice.below(4) {
            0 => 0,
            1 => dice.below(MIB),
            2 => dice.below(300 * MIB),
            _ => dice.below(8_000 * MIB),
        };
        played.sizes.insert(shard, bytes);
    }
    for new in 1..=dice.below(4) {
        played.join(nodes + new, &format!("z{}", dice.below(zones + 1)));
    }
    played
}

/// Each move that is begun makes it better, which is checked on the way; in the end none is left that would.
#[test]
fn from_any_cluster_moves_make_it_better_until_none_is_left_that_does() {
    let (mut moves, mut most) = (0, 0.0);
    for seed in seeds(200) {
        let mut played = any(seed);
        let replicas: usize = played.state.shards().map(|(_, shard)| shard.replicas.len()).sum();
        let begun = run(&mut played);
        assert_eq!(better(&played), None, "seed {seed}");
        assert!(begun <= 2 * replicas, "seed {seed}: {begun} moves of {replicas} replicas");
        (moves, most) = (moves + begun, f64::max(most, begun as f64 / replicas as f64));
        let loads = loads(&played);
        // Where nothing but what is held decides, the fullest node holds little more than the emptiest.
        let zones: BTreeSet<&str> = played.state.nodes().keys().map(|node| zone(&played, *node)).collect();
        if zones.len() == 1 && played.state.collections().values().all(|one| one.replication == 1) {
            let (least, full) = (loads.values().min().expect("nodes"), loads.iter().max_by_key(|(_, load)| **load));
            let (fullest, load) = full.expect("nodes");
            let on = future(&played).into_iter().filter(|(_, nodes)| nodes.contains(fullest));
            let smallest = on.map(|(shard, _)| cost(&played, shard)).min().unwrap_or(0);
            assert!(*load < least + smallest + margin(&loads), "seed {seed}: {loads:?}");
        }
    }
    println!("{moves} moves, at most {most:.2} of a cluster's replicas");
    assert!(moves > 500, "too little happened: {moves}");
}

#[test]
fn figures_that_rise_and_fall_bring_no_replica_back_once_nodes_hold_alike() {
    let (mut moves, mut late) = (0, 0);
    for seed in seeds(40) {
        let mut played = any(seed);
        moves += run(&mut played);
        played.noise = 2;
        let mut left: BTreeSet<(u64, u64)> = BTreeSet::new();
        let first = played.state.begun_operations;
        let mut last = first;
        for _ in 0..300 {
            played.step();
            for one in played.state.operations().filter(|one| one.id > last) {
                assert!(!left.contains(&(one.shard, one.to)), "seed {seed}: {one:?}");
                left.extend(one.from.map(|from| (one.shard, from)));
            }
            last = played.state.begun_operations;
        }
        late += last - first;
    }
    println!("{moves} moves, and then {late}");
    // Some were short of the margin by less than the figures rise.
    assert!(10 * late <= moves as u64, "{late} moves for nothing");
    assert!(moves > 100, "too little happened: {moves}");
}
