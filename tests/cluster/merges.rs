//! Shards are merged while they are written to and read: what was acknowledged stays, and no read shows a point twice or not at all.

use sagitta_callers::{Dice, Look, number, seed};
use sagitta_client::Client;
use sagitta_history::{Points, require};
use sagitta_model::Consistency;
use serde_json::Value;

use crate::commands::text;
use crate::harness::{Cluster, breathe, eventually, run};
use crate::ran::{CONFLICT, DONE, NOT_FOUND, USAGE};
use crate::split::{IDS, Readers, WRITES, each_has_its_own, leader, settled, shards, write_steady};
use crate::workload::{CALL, Workload, create};

/// Times that somebody who leads a shard that is being merged is killed; `SAGITTA_MERGES` runs more.
const KILLS: u64 = 4;

/// Asks for a merge, and says which operation and which new shard that is.
async fn begin(cluster: &Cluster, left: u64, right: u64) -> (u64, u64) {
    let (first, second) = (left.to_string(), right.to_string());
    let begun = eventually("a merge", async || {
        let ran = cluster.ask(&["shard", "merge", "points", &first, &second, "--output", "json"]);
        if ran.err.is_empty() { Ok(ran.ends_with(DONE).json()) } else { Err(ran.err) }
    });
    let begun = begun.await;
    let operation = &begun["operation"];
    assert_eq!((text(operation, "kind"), &operation["shard"]), ("merge", &Value::from(left)), "{begun:#}");
    assert_eq!(operation["merge"]["right"], right, "{begun:#}");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{begun:#}"));
    (number(&operation["id"]), number(&operation["merge"]["into"]))
}

/// Waits until a merge has ended; whether it has come about.
async fn ended(client: &Client, operation: u64) -> bool {
    let ended = async || match client.get_operation(operation).await {
        Ok(shown) if shown.work.has_ended() => Ok(shown.work.step() == "done"),
        Ok(shown) => Err(format!("{shown:?}")),
        Err(error) => Err(error.to_string()),
    };
    eventually("the end of a merge", ended).await
}

/// The shards' ids in the order of their hashes.
fn in_order(cluster: &Cluster) -> Vec<u64> {
    let mut shards = shards(cluster);
    shards.sort_by_key(|shard| text(shard, "first_hash").to_owned());
    shards.iter().map(|shard| shard["id"].as_u64().expect("a number")).collect()
}

#[test]
fn shards_are_merged_while_they_are_written_to_and_no_read_shows_a_point_twice_or_not_at_all() {
    let seed = seed();
    let cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 4).await;
        let client = cluster.client(0, CALL * 6);
        let steady = write_steady(&cluster, &client).await;
        cluster.ask(&["shard", "merge", "points", "16", "99"]).ends_with(NOT_FOUND).says("sagitta shard list");
        cluster
            .ask(&["shard", "merge", "other", "16", "17"])
            .ends_with(USAGE)
            .says("shard 16 is of points, not of other");
        for (left, right) in [("16", "18"), ("17", "16"), ("16", "16")] {
            let refused = cluster.ask(&["shard", "merge", "points", left, right]).ends_with(USAGE);
            refused.says(&format!("expected the shard whose hashes follow those of shard {left}"));
        }
        let dry = cluster.ask(&["shard", "merge", "points", "16", "17", "--dry-run"]).ends_with(DONE);
        dry.shows("shards 16 and 17 would be merged").shows("the hashes 0000000000000000 to 7fffffffffffffff");
        cluster.ask(&["operation", "list", "--all"]).ends_with(DONE).shows("no operations");

        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 5, seed);
        let readers = Readers::start(&cluster, &steady);
        workload.wait_for(WRITES).await;
        let (quiet, reads) = (workload.wait_for(WRITES).await, readers.longest());
        println!("seed {seed}: longest time between two writes, longest eventual and strong reads");
        println!("without a merge: {quiet:?}, {reads:?}");
        let (mut last, mut given_up) = (0, 0);
        // Two of the first, and what they become.
        while let [left, right, ..] = in_order(&cluster)[..] {
            let (operation, into) = begin(&cluster, left, right).await;
            let (done, gap) = tokio::join!(ended(&client, operation), workload.wait_for(WRITES));
            let (eventual, strong) = readers.longest();
            println!("shards {left} and {right} become {into}, {done}: {gap:?}, {eventual:?}, {strong:?}");
            let shown = cluster.ask(&["operation", "show", &operation.to_string()]).ends_with(DONE);
            shown.shows(": merge, step ").shows("somebody asked for it");
            given_up += u64::from(!done);
            assert!(given_up < 10, "merges of a few hundred points are given up again and again");
            last = operation;
            let looks = readers.looks();
            eventually("reads of what they became", async || match readers.looks() {
                more if more > looks + 40 => Ok(()),
                more => Err(format!("{more} after {looks}")),
            })
            .await;
        }
        println!("{given_up} took too long and were given up");
        cluster.ask(&["operation", "cancel", &last.to_string()]).ends_with(CONFLICT).says("it has ended");
        cluster.ask(&["shard", "list"]).ends_with(DONE).shows("100%");
        readers.stop().await;
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        settled(&cluster, &history).await;
        assert_eq!(workload.refused(), 0, "a merge is waited for");
        each_has_its_own(&cluster, &client).await;
        for look in Look::ALL {
            steady.look(&client, look, Consistency::Strong).await.expect("read");
        }
        // What was split again and merged again is one shard again.
        let only = in_order(&cluster)[0];
        cluster.ask(&["shard", "split", "points", &only.to_string()]).ends_with(DONE);
        eventually("both halves", async || match in_order(&cluster).len() {
            2 => Ok(()),
            other => Err(format!("{other} shards")),
        })
        .await;
        while let [left, right] = in_order(&cluster)[..] {
            let (operation, _) = begin(&cluster, left, right).await;
            ended(&client, operation).await;
        }
        settled(&cluster, &history).await;
        each_has_its_own(&cluster, &client).await;
    });
}

#[test]
fn a_merge_is_done_or_given_up_when_whoever_leads_one_of_the_shards_is_killed_at_any_moment_of_it() {
    let (seed, kills) = (seed(), number("SAGITTA_MERGES", KILLS));
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let client = cluster.client(0, CALL * 6);
        let steady = write_steady(&cluster, &client).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 5, seed);
        let mut dice = Dice::new(seed);
        for kill in 0..kills {
            workload.wait_for(WRITES).await;
            let [left, right] = in_order(&cluster)[..] else { panic!("{:#?}", shards(&cluster)) };
            let (operation, into) = begin(&cluster, left, right).await;
            let after = dice.below(1_500);
            breathe(after).await;
            let step = cluster.json(&["operation", "show", &operation.to_string()])["step"].clone();
            // The new one may be led by nobody yet, and the others be gone.
            let wanted = dice.pick(&[left, right, into]);
            let led = if client.get_shard(wanted).await.is_ok() { wanted } else { in_order(&cluster)[0] };
            let killed = leader(&cluster, &client, led).await;
            cluster.kill(killed);
            let gap = workload.wait_for(WRITES).await;
            cluster.restart(killed);
            let done = ended(&client, operation).await;
            println!(
                "kill {kill}: {after} ms after shards {left} and {right} were to be merged, at {step}: done: {done}, writes went on after {gap:?}"
            );
            for look in Look::ALL {
                steady.look(&client, look, Consistency::Strong).await.expect("read");
            }
            if done {
                let split = async || match cluster.ask(&["shard", "split", "points", &into.to_string()]) {
                    ran if ran.err.is_empty() => Ok(()),
                    ran => Err(ran.err),
                };
                eventually("a split", split).await;
            }
            eventually("two shards", async || match in_order(&cluster).len() {
                2 => Ok(()),
                other => Err(format!("{other} shards")),
            })
            .await;
        }
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        settled(&cluster, &history).await;
        each_has_its_own(&cluster, &client).await;
    });
}
