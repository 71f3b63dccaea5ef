//! Promise 12: an answer is whole or says what is missing.

use sagitta_callers::{DIM, name, point, schema, search};
use sagitta_client::{CreateCollection, Searches};
use sagitta_model::Consistency;

use crate::harness::{Cluster, eventually, run};
use crate::workload::CALL;

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
