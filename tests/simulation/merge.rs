//! Promise 13: a whole answer does not depend on the number of shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_callers::{DIM, Dice, id_of, name, number, point, search, seed};
use sagitta_client::{Client, Searches};
use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, Filter, Number, Point, PointId, Range, Scalar, Test};

use crate::world::{CALL, Shape, World};

const IDS: u64 = 200;
/// Queries that are compared with brute force; `SAGITTA_QUERIES` runs more.
const QUERIES: u64 = 2_000;
/// Values repeat, so that many points are as near as each other.
const VALUES: u64 = 40;
/// So many queries are asked of the same points.
const BETWEEN_CHANGES: u64 = 25;
/// The same points in one shard and in five.
const COLLECTIONS: [&str; 2] = ["of1", "of5"];

/// What the collections hold.
type Truth = BTreeMap<u64, Point>;

/// Deletes some points and writes others, at first all of them.
async fn change(client: &Client, truth: &mut Truth, dice: &mut Dice) {
    let written: Vec<_> = match truth.is_empty() {
        true => (0..IDS).collect(),
        false => (0..8).map(|_| dice.below(IDS)).collect(),
    };
    let points: BTreeMap<_, _> = written.into_iter().map(|id| (id, point(id, dice.below(VALUES)))).collect();
    let mut deleted: Vec<_> = (0..IDS / 20).map(|_| dice.below(IDS)).collect();
    deleted.sort_unstable();
    deleted.dedup();
    for collection in COLLECTIONS {
        client.upsert(name(collection), points.values().cloned().collect()).await.expect("written");
        let ids = deleted.iter().map(|id| PointId::Num(*id)).collect();
        client.delete(name(collection), ids).await.expect("deleted");
    }
    truth.extend(points);
    truth.retain(|id, _| deleted.binary_search(id).is_err());
}

fn condition(dice: &mut Dice) -> Condition {
    let test = |test| Condition::Field { path: "n".parse().expect("a path"), test };
    let scalar = |dice: &mut Dice| Scalar::Int(dice.below(VALUES) as i64);
    match dice.below(4) {
        0 => test(Test::Match(scalar(dice))),
        1 => test(Test::Any((0..5).map(|_| scalar(dice)).collect())),
        2 => {
            let at = |dice: &mut Dice| Some((Number::Int(dice.below(VALUES) as i64), dice.below(2) == 0));
            let lower = at(dice);
            let upper = if dice.below(2) == 0 { at(dice) } else { None };
            test(Test::Range(Range::Number(Bounds { lower, upper })))
        }
        _ => Condition::has_id((0..20).map(|_| PointId::Num(dice.below(IDS))).collect()),
    }
}

/// Every third is none at all.
fn filter(dice: &mut Dice) -> Option<Filter> {
    let mut some = |bound| (0..dice.below(bound)).map(|_| condition(dice)).collect::<Vec<_>>();
    let (must, should, must_not) = (some(2), some(3), some(2));
    (dice.below(3) > 0).then_some(Filter { must, should, must_not })
}

/// The ids of the `k` nearest, of as near ones those with the lower ids.
fn nearest(truth: &Truth, vector: &[f32], filter: Option<&Filter>, k: usize) -> Vec<u64> {
    // Small whole numbers: their sums are exact in any order.
    let distance = |of: &[f32]| of.iter().zip(vector).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let passes = |point: &&Point| filter.is_none_or(|filter| filter.matches(point.id, &point.payload));
    let mut found: Vec<_> =
        truth.values().filter(passes).map(|point| (distance(&point.vectors["v"]), id_of(point.id))).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    found.into_iter().take(k).map(|(_, id)| id).collect()
}

fn filtered(mut searches: Searches, filter: Option<Filter>) -> Searches {
    searches.searches[0].query.filter = filter.map(Arc::new);
    searches
}

/// Asks for the nearest points, and says where the answer is not that of brute force.
async fn differs(
    client: &Client,
    collection: &str,
    query: (&[f32], usize, &Option<Filter>),
    wanted: &[u64],
) -> Option<String> {
    let (vector, k, filter) = query;
    let searches = filtered(search(collection, vector.to_vec(), k), filter.clone());
    let answer = client.search(searches).await.expect("searched");
    let hits: Vec<u64> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
    (hits != wanted).then(|| format!("{collection}, k = {k}, {filter:?}: {hits:?} and not {wanted:?}"))
}

/// Asks so many queries of a collection at rest that has these values by id, and says where the answers are not those of brute force.
pub(crate) async fn differences(
    client: &Client,
    collection: &str,
    values: &BTreeMap<u64, u64>,
    (mut dice, queries): (Dice, u64),
) -> Vec<String> {
    let truth: Truth = values.iter().map(|(id, value)| (*id, point(*id, *value))).collect();
    let mut differences = Vec::new();
    for _ in 0..queries {
        let vector = vector(&mut dice);
        let (k, filter) = (dice.pick(&[1, 7, truth.len() + 1]), filter(&mut dice));
        let wanted = nearest(&truth, &vector, filter.as_ref(), k);
        differences.extend(differs(client, collection, (&vector[..], k, &filter), &wanted).await);
    }
    differences
}

fn vector(dice: &mut Dice) -> Vec<f32> {
    (0..DIM).map(|_| dice.below(101) as f32 - 50.0).collect()
}

/// What was compared.
#[derive(Debug, Default)]
struct Compared {
    queries: u64,
    filtered: u64,
    /// Filtered queries that something passed, and that not everything passed.
    selective: u64,
    differences: Vec<String>,
}

async fn compare(client: Client, mut dice: Dice, queries: u64) -> Compared {
    let (mut truth, mut compared) = (Truth::new(), Compared::default());
    for round in 0..queries {
        if round % BETWEEN_CHANGES == 0 {
            change(&client, &mut truth, &mut dice).await;
        }
        let vector = vector(&mut dice);
        let (k, filter) = (dice.pick(&[1, 7, 50, IDS as usize]), filter(&mut dice));
        let wanted = nearest(&truth, &vector, filter.as_ref(), k);
        let all = nearest(&truth, &vector, filter.as_ref(), IDS as usize).len();
        compared.queries += 1;
        compared.filtered += u64::from(filter.is_some());
        compared.selective += u64::from(all > 0 && all < truth.len());
        for collection in COLLECTIONS {
            compared.differences.extend(differs(&client, collection, (&vector[..], k, &filter), &wanted).await);
        }
    }
    compared
}

#[test]
fn many_shards_answer_as_one_and_as_brute_force_to_the_last_tie() {
    let (seed, queries) = (seed(), number("SAGITTA_QUERIES", QUERIES));
    let mut world = World::found(seed, Shape { coordinators: 1, shards: 2 });
    COLLECTIONS.iter().zip([(1, 1), (5, 2)]).for_each(|(name, (shards, copies))| world.create(name, shards, copies));
    let (make, dice) = (world.client(0, 4 * CALL), Dice::new(seed));
    let compared = world.ask(async move { compare(make(), dice, queries).await });
    let Compared { queries: asked, filtered, selective, differences } = compared;
    println!("seed {seed}: {asked} queries compared, {filtered} with filters, of which {selective} chose");
    assert_eq!(differences, Vec::<String>::new());
    assert!(asked == queries && filtered > queries / 2 && selective > queries / 4, "too little was tried");
}
