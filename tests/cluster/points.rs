//! Promises 1 and 7: what was acknowledged stays, and happens once.

use std::time::Duration;

use sagitta_client::{CreateCollection, RequestId, Write};
use sagitta_env::Env;
use sagitta_history::unsettled;
use sagitta_model::{Change, Consistency, Wait};

use crate::harness::{Cluster, Rng, breathe, eventually, number, run, seed};
use crate::workload::{CALL, Workload, agreed, get, name, point, schema, told};

const IDS: u64 = 300;
const KILLS: u64 = 6;
const WRITES: u64 = 60;

#[test]
fn acknowledged_writes_survive_kill_9_of_random_nodes() {
    let (seed, kills) = (seed(), number("SAGITTA_KILLS", KILLS));
    let mut cluster = Cluster::start(3, 3);
    run(async {
        let mut create = CreateCollection::new(name("points"), schema());
        (create.shards, create.replication) = (Some(2), Some(3));
        cluster.client(0, CALL * 6).create(create).await.expect("created");
        let workload = Workload::new("points", IDS, false);
        let clients = workload.start(&cluster, 6, seed);
        let mut rng = Rng::new(seed);
        for kill in 0..kills {
            // One of each kind at most, which leaves a majority of both.
            let away = [rng.pick(&cluster.coordinators()), rng.pick(&cluster.shard_nodes())];
            let away = &away[rng.below(2) as usize..];
            workload.wait_for(WRITES).await;
            away.iter().for_each(|at| cluster.kill(*at));
            let gap = workload.wait_for(WRITES).await;
            away.iter().for_each(|at| cluster.restart(*at));
            println!("kill {kill}: {away:?}, longest gap {gap:?}");
        }
        workload.wait_for(WRITES).await;
        let history = workload.stop(clients).await;
        for client in cluster.clients(CALL * 4) {
            let found = agreed(&client, "points", IDS).await;
            assert_eq!(unsettled(&history, &found), [], "of {} points", found.len());
        }
    });
}

#[test]
fn a_retried_write_has_one_effect_though_nodes_are_killed_between_the_tries() {
    let seed = seed();
    let mut cluster = Cluster::start(3, 3);
    run(async {
        cluster.client(0, CALL * 6).create_collection(name("points"), schema()).await.expect("created");
        let (mut rng, mut acknowledged) = (Rng::new(seed), 0);
        // Every shard node, and with it certainly the leader, then every coordinator.
        for (id, at) in [3, 4, 5, 0, 1, 2].into_iter().enumerate() {
            let id = id as u64;
            let write = move |value: u64, request: u64| {
                let change = Change::Upsert(vec![point(id, value)]);
                let request_id = Some(RequestId(u128::from(seed) << 64 | u128::from(id * 100 + request + 1)));
                Write { collection: name("points"), change, wait: Wait::Committed, request_id }
            };
            let away = if at < 3 { at } else { 0 };
            let first = cluster.client(away, Duration::from_secs(3));
            let tried = Env::real().spawn(async move { first.write(write(1_000 + id, 0)).await });
            breathe(rng.below(30)).await;
            cluster.kill(at);
            acknowledged += u64::from(tried.await.expect("no panic").is_ok());
            let other = cluster.client((away + 1) % 3, CALL);
            let retried = eventually("the retry", async || other.write(write(1_000 + id, 0)).await).await;
            eventually("the next write", async || other.write(write(2_000 + id, 1)).await).await;
            let again = eventually("the third try", async || other.write(write(1_000 + id, 0)).await).await;
            assert_eq!(again, retried, "a repeated request is answered as before");
            let read = async || other.get(get("points", vec![id], Consistency::Strong)).await;
            let records = eventually("a read", read).await;
            assert_eq!(told(&records[0]), (id, 2_000 + id), "the first write came once more");
            cluster.restart(at);
        }
        println!("{acknowledged} of 6 first tries were answered");
    });
}
