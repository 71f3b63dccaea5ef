//! A network that loses what is sent: nobody is told what is wrong, nothing acknowledged is lost, and it heals by itself.

use std::time::Duration;

use sagitta_callers::{Dice, get, name, number, point, seed, told};
use sagitta_client::Client;
use sagitta_env::Env;
use sagitta_history::{Points, require};
use sagitta_model::Consistency;

use crate::harness::{Cluster, eventually, run};
use crate::network::Network;
use crate::workload::{CALL, Workload, create, settled};

/// Partitions, one after the other.
const PARTITIONS: u64 = 3;
/// Writes that must be acknowledged after each partition.
const WRITES: u64 = 40;
/// Writes that must be acknowledged during each: enough to outlast an election where the leader is on the wrong side.
const WRITES_MEANWHILE: u64 = 300;
const IDS: u64 = 24;

/// A cluster of three coordinators and three shard nodes in a network of its own.
fn start(network: &Network) -> Cluster {
    Cluster::start_with(3, 3, |at, member| network.attach(at, member))
}

#[test]
fn points_are_linearizable_while_the_network_is_cut_in_two_and_in_one_direction() {
    let (seed, partitions) = (seed(), number("SAGITTA_PARTITIONS", PARTITIONS));
    let Some(network) = Network::new() else { return };
    let cluster = start(&network);
    run(async {
        create(&cluster, 2).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 6, seed);
        let mut dice = Dice::new(seed);
        for partition in 0..partitions {
            workload.wait_for(WRITES).await;
            // One of each kind at most, which leaves a majority of both.
            let apart = [dice.pick(&cluster.coordinators()), dice.pick(&cluster.shard_nodes())];
            let apart = &apart[dice.below(2) as usize..];
            let how = match partition % 3 {
                0 => {
                    network.split(&cluster.members, apart);
                    "cut off"
                }
                1 => {
                    network.cut_out(&cluster.members, apart);
                    "not heard"
                }
                _ => {
                    network.cut_in(&cluster.members, apart);
                    "deaf"
                }
            };
            let gap = workload.wait_for(WRITES_MEANWHILE).await;
            assert!(network.has_dropped(), "nothing was lost in a partition");
            network.heal();
            println!("partition {partition}: {apart:?} {how}, longest gap {gap:?}");
        }
        workload.wait_for(WRITES).await;
        let history = workload.stop(clients).await;
        settled(&cluster, &history, IDS).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        let (writes, reads) = (workload.acknowledged(), workload.reads());
        println!("seed {seed}: {writes} writes and {reads} reads are linearizable, {partitions} partitions");
    });
}

/// With the leader goes one coordinator, so that somebody asks it.
#[test]
fn a_leader_alone_answers_neither_writes_nor_strong_reads_and_follows_when_it_is_back() {
    let Some(network) = Network::new() else { return };
    let cluster = start(&network);
    run(async {
        create(&cluster, 1).await;
        let (with, alone) = (cluster.client(1, CALL), cluster.client(0, Duration::from_secs(1)));
        with.upsert(name("points"), vec![point(1, 1)]).await.expect("written");
        let leader = cluster.leader("points").await;
        network.split(&cluster.members, &[0, leader]);
        // From the first moment on: neither side knows of it yet.
        let alone_side = Env::real().spawn(ask_a_leader_alone(alone.clone()));
        eventually("a write by the majority", async || with.upsert(name("points"), vec![point(1, 2)]).await).await;
        let read = async |client: &Client| client.get(get("points", vec![1], Consistency::Strong)).await;
        let found = eventually("a read by the majority", async || read(&with).await).await;
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), [(1, 2)]);
        let other = async || match cluster.leader_by(1, "points").await {
            same if same == leader => Err("the leader that is alone is taken for one"),
            _ => Ok(()),
        };
        eventually("another leader of the majority", other).await;
        // The majority has written: an old value would be wrong from here on, and there is nobody who could confirm a new one.
        read(&alone).await.expect_err("a strong read of a leader alone");
        alone.upsert(name("points"), vec![point(2, 1)]).await.expect_err("a write of a leader alone");
        let acknowledged = alone_side.await.expect("no panic");
        assert!(network.has_dropped(), "nothing was lost");
        network.heal();
        let all = get("points", (1..100).collect(), Consistency::Strong);
        let found = eventually("a read through who was alone", async || alone.get(all.clone()).await).await;
        let found: Vec<_> = found.iter().map(told).collect();
        println!("{acknowledged:?} acknowledged before the leader noticed, {} points found", found.len());
        assert!(found.contains(&(1, 2)), "{found:?}");
        assert!(acknowledged.iter().all(|id| found.contains(&(*id, *id))), "{acknowledged:?} of {found:?}");
        eventually("a write through who was alone", async || alone.upsert(name("points"), vec![point(1, 3)]).await)
            .await;
        let found = eventually("a read", async || read(&with).await).await;
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), [(1, 3)]);
    });
}

/// Writes other points than the majority does, and reads the one that it writes. Returns what was acknowledged.
async fn ask_a_leader_alone(alone: Client) -> Vec<u64> {
    let (mut acknowledged, mut latest) = (Vec::new(), 0);
    for id in 10..13 {
        if alone.upsert(name("points"), vec![point(id, id)]).await.is_ok() {
            acknowledged.push(id);
        }
        if let Ok(records) = alone.get(get("points", vec![1], Consistency::Strong)).await {
            let (_, value) = told(&records[0]);
            assert!(value >= latest, "{value} after {latest}");
            latest = value;
        }
    }
    acknowledged
}
