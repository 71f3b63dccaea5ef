//! Promises 12 and 13: an answer is whole or says what is missing, and a whole one does not depend on the number of shards.

use sagitta_client::{CreateCollection, Searches};
use sagitta_model::{Consistency, PointId};

use crate::harness::{Cluster, Rng, eventually, run, seed};
use crate::workload::{CALL, DIM, id_of, name, point, schema, search};

/// Values repeat, so that many points are as near as each other.
const VALUES: u64 = 40;
const IDS: u64 = 400;

#[test]
fn a_search_without_a_shard_fails_unless_the_caller_allows_it_and_then_names_the_shard() {
    let mut cluster = Cluster::start(1, 2);
    run(async {
        let client = cluster.client(0, CALL * 6);
        let mut create = CreateCollection::new(name("points"), schema());
        (create.shards, create.replication) = (Some(2), Some(1));
        client.create(create).await.expect("created");
        let points = (0..IDS).map(|id| point(id, id)).collect();
        client.upsert(name("points"), points).await.expect("written");
        let eventual = |allow_partial| Searches {
            consistency: Consistency::Eventual,
            allow_partial,
            ..search("points", vec![0.0; DIM], IDS as usize)
        };
        let whole = client.search(eventual(true)).await.expect("searched");
        assert_eq!((whole.results[0].hits.len(), whole.coverage.missing.len()), (IDS as usize, 0));
        let away = cluster.shard_nodes()[1];
        cluster.kill(away);
        let client = client.with_deadline(CALL);
        let error = client.search(eventual(false)).await.expect_err("half of the points are missing");
        println!("refused: {error}");
        let part = client.search(eventual(true)).await.expect("what is there is searched");
        assert_eq!((part.coverage.shards, part.coverage.missing.len()), (2, 1));
        let hits = part.results[0].hits.len();
        println!("{hits} of {IDS}, missing: {:?}", part.coverage.missing);
        assert!(0 < hits && hits < IDS as usize, "{hits} hits");
        cluster.restart(away);
        let again = eventually("a whole answer", async || client.search(eventual(false)).await).await;
        assert_eq!((again.results[0].hits.len(), again.coverage.missing.len()), (IDS as usize, 0));
    });
}

#[test]
fn many_shards_answer_as_one_and_as_brute_force_to_the_last_tie() {
    let seed = seed();
    let cluster = Cluster::start(1, 2);
    run(async {
        let client = cluster.client(0, CALL * 6);
        let mut rng = Rng::new(seed);
        let points: Vec<_> = (0..IDS).map(|id| point(id, rng.below(VALUES))).collect();
        let deleted: Vec<u64> = (0..IDS).filter(|_| rng.below(4) == 0).collect();
        for shards in [1, 5] {
            let collection = name(&format!("of{shards}"));
            let mut create = CreateCollection::new(collection.clone(), schema());
            (create.shards, create.replication) = (Some(shards), Some(1));
            client.create(create).await.expect("created");
            client.upsert(collection.clone(), points.clone()).await.expect("written");
            client.delete(collection, deleted.iter().map(|id| PointId::Num(*id)).collect()).await.expect("deleted");
        }
        let alive: Vec<_> = points.iter().filter(|point| !deleted.contains(&id_of(point.id))).collect();
        for round in 0..20 {
            let vector: Vec<f32> = (0..DIM).map(|_| rng.below(101) as f32 - 50.0).collect();
            let k = [1, 7, 50, IDS as usize][round % 4];
            // Small whole numbers: their sums are exact in any order.
            let distance = |of: &[f32]| of.iter().zip(&vector).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let mut truth: Vec<_> = alive.iter().map(|p| (distance(&p.vectors["v"]), id_of(p.id))).collect();
            truth.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let truth: Vec<u64> = truth.into_iter().take(k).map(|(_, id)| id).collect();
            for collection in ["of1", "of5"] {
                let answer = client.search(search(collection, vector.clone(), k)).await.expect("searched");
                let hits: Vec<u64> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
                assert_eq!(hits, truth, "{collection}, k = {k}");
            }
        }
    });
}
