//! Promise 13: an answer does not depend on the number of shards, to the last tie, whatever the filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_callers::{DIM, Dice, id_of, name, number, point, schema, search, seed};
use sagitta_client::{Client, CreateCollection, Write};
use sagitta_model::filter::Bounds;
use sagitta_model::{Change, CollectionName, Condition, Filter, Number, Point, PointId, Range, Scalar, Test, Wait};

use crate::harness::{Cluster, run};
use crate::workload::CALL;

/// Queries that are compared with brute force; `SAGITTA_QUERIES` runs more.
const QUERIES: u64 = 200;
const IDS: u64 = 3_000;
/// Values repeat, and several of them have the same vector, so that many points are as near as each other.
const VALUES: u64 = 400;
/// Collections with the same points in so many shards.
const SHARDS: [u32; 2] = [1, 5];
/// Hits asked for: often none of the best alone, and often more than there are.
const KS: [usize; 5] = [1, 7, 50, 300, IDS as usize];

#[test]
fn many_shards_answer_as_one_and_as_brute_force_to_the_last_tie_with_filters_and_deletes() {
    let (seed, queries) = (seed(), number("SAGITTA_QUERIES", QUERIES));
    let cluster = Cluster::start(1, 3);
    run(async {
        let client = cluster.client(0, CALL * 6);
        let mut alive = BTreeMap::new();
        for shards in SHARDS {
            let mut create = CreateCollection::new(of(shards), schema());
            (create.shards, create.replication) = (Some(shards), Some(2));
            client.create(create).await.expect("created");
            // The same for each.
            alive = fill(&client, &of(shards), &mut Dice::new(seed)).await;
        }
        let (mut dice, mut tally) = (Dice::new(seed + 1), Tally::default());
        for _ in 0..queries {
            let vector: Vec<f32> = (0..DIM).map(|_| dice.below(101) as f32 - 50.0).collect();
            let (k, filter) = (dice.pick(&KS), filter(&mut dice, 0));
            let (truth, tied) = brute_force(&alive, &vector, &filter, k);
            for shards in SHARDS {
                let mut searches = search(of(shards).as_str(), vector.clone(), k);
                searches.searches[0].query.filter = (!filter.is_empty()).then(|| Arc::new(filter.clone()));
                let answer = client.search(searches).await.expect("searched");
                let hits: Vec<u64> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
                assert_eq!(hits, truth, "{shards} shards, k = {k}, {filter:?}");
            }
            tally.compared += 1;
            tally.filtered += u64::from(!filter.is_empty());
            tally.tied += u64::from(tied);
            tally.empty += u64::from(truth.is_empty());
        }
        let Tally { compared, filtered, tied, empty } = tally;
        println!(
            "seed {seed}: {compared} queries of {SHARDS:?} shards equal brute force, {filtered} with filters, {empty} without hits, \
             {tied} where the last place was tied, {} of {IDS} points deleted",
            IDS - alive.len() as u64
        );
        assert!(compared >= queries && filtered > queries / 2 && tied > queries / 20, "fewer than {queries} queries");
    });
}

/// What the queries were like.
#[derive(Default)]
struct Tally {
    compared: u64,
    filtered: u64,
    /// Where another point is exactly as near as the last one that was answered.
    tied: u64,
    empty: u64,
}

fn of(shards: u32) -> CollectionName {
    name(&format!("of{shards}"))
}

/// Writes points, some of them into segments, changes some and deletes some of both. Returns what is left.
async fn fill(client: &Client, collection: &CollectionName, dice: &mut Dice) -> BTreeMap<u64, Point> {
    let mut alive: BTreeMap<_, _> = (0..IDS).map(|id| (id, point(id, dice.below(VALUES)))).collect();
    let (sealed, growing): (Vec<_>, Vec<_>) =
        alive.values().cloned().partition(|point| !id_of(point.id).is_multiple_of(3));
    let upsert = async |points: Vec<Point>, wait| {
        let write = Write { collection: collection.clone(), change: Change::Upsert(points), wait, request_id: None };
        client.write(write).await.expect("written");
    };
    upsert(sealed, Wait::Indexed).await;
    upsert(growing, Wait::Committed).await;
    let changed: Vec<_> = (0..IDS / 8).map(|at| point(at * 8 + dice.below(8), dice.below(VALUES))).collect();
    upsert(changed.clone(), Wait::Committed).await;
    alive.extend(changed.into_iter().map(|point| (id_of(point.id), point)));
    let deleted: Vec<u64> = (0..IDS).filter(|_| dice.below(6) == 0).collect();
    let ids = deleted.iter().map(|id| PointId::Num(*id)).collect();
    client.delete(collection.clone(), ids).await.expect("deleted");
    deleted.iter().for_each(|id| drop(alive.remove(id)));
    let some = Filter { must: vec![between(dice)], ..Filter::default() };
    client.delete_by_filter(collection.clone(), some.clone()).await.expect("deleted");
    alive.retain(|_, point| !some.matches(point.id, &point.payload));
    alive
}

/// The ids of the nearest points, and whether the next one is as near as the last of them.
fn brute_force(alive: &BTreeMap<u64, Point>, vector: &[f32], filter: &Filter, k: usize) -> (Vec<u64>, bool) {
    // Small whole numbers: their sums are exact in any order.
    let distance = |of: &[f32]| of.iter().zip(vector).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let matching = alive.values().filter(|point| filter.matches(point.id, &point.payload));
    let mut all: Vec<_> = matching.map(|point| (distance(&point.vectors["v"]), id_of(point.id))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let tied = all.len() > k && all[k - 1].0 == all[k].0;
    (all.into_iter().take(k).map(|(_, id)| id).collect(), tied)
}

/// None, or a tree of a few conditions.
fn filter(dice: &mut Dice, depth: u64) -> Filter {
    let mut filter = Filter::default();
    for _ in 0..dice.below(4) {
        let to = match dice.below(3) {
            0 => &mut filter.must,
            1 => &mut filter.should,
            _ => &mut filter.must_not,
        };
        to.push(condition(dice, depth));
    }
    filter
}

fn condition(dice: &mut Dice, depth: u64) -> Condition {
    let n = || "n".parse().expect("a path");
    match dice.below(5) {
        0 => between(dice),
        1 => Condition::Field { path: n(), test: Test::Match(Scalar::Int(dice.below(VALUES) as i64)) },
        2 => {
            let some = (0..1 + dice.below(60)).map(|_| Scalar::Int(dice.below(VALUES) as i64)).collect();
            Condition::Field { path: n(), test: Test::Any(some) }
        }
        3 => Condition::has_id((0..dice.below(IDS)).map(|_| PointId::Num(dice.below(IDS + 10))).collect()),
        _ if depth < 2 => Condition::Filter(Box::new(filter(dice, depth + 1))),
        _ => Condition::Field { path: n(), test: Test::Exists },
    }
}

/// Values from one to another.
fn between(dice: &mut Dice) -> Condition {
    let (first, more) = (dice.below(VALUES) as i64, dice.below(VALUES / 4) as i64);
    let bounds = Bounds {
        lower: Some((Number::Int(first), true)),
        upper: Some((Number::Int(first + more), dice.below(2) == 0)),
    };
    Condition::Field { path: "n".parse().expect("a path"), test: Test::Range(Range::Number(bounds)) }
}
