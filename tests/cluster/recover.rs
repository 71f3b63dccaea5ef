//! Shards that have lost most of their replicas for ever, by the commands that operators have.

use std::path::Path;

use sagitta_callers::{contents, name, point};
use serde_json::Value;

use crate::commands::{list, text};
use crate::harness::{Cluster, eventually, run};
use crate::ran::{CONFLICT, DONE, UNAVAILABLE, USAGE};
use crate::workload::{CALL, create};

const IDS: u64 = 200;

fn shard(cluster: &Cluster) -> Value {
    let shards = cluster.json(&["shard", "list", "--collection", "points"]);
    let id = list(&shards, "shards")[0]["id"].to_string();
    cluster.json(&["shard", "show", &id])
}

/// Writes every point, by a coordinator.
fn write(cluster: &Cluster, value: u64) {
    run(async {
        let client = cluster.client(0, CALL * 6);
        let points = (0..IDS).map(|id| point(id, value + id)).collect();
        client.upsert(name("points"), points).await.expect("written");
    });
}

fn is_written(cluster: &Cluster, value: u64) {
    run(async {
        for client in cluster.clients(CALL * 6) {
            let found = contents(&client, "points").await.expect("read");
            assert_eq!(found, (0..IDS).map(|id| (id, value + id)).collect(), "what the survivor had");
        }
    });
}

fn folders(data: &Path) -> usize {
    std::fs::read_dir(data.join("shards")).map_or(0, Iterator::count)
}

#[test]
fn what_is_left_of_a_shard_goes_on_by_commands_that_say_what_may_be_lost() {
    let mut cluster = Cluster::start(3, 5);
    run(create(&cluster, 1));
    write(&cluster, 100);
    let level = async || {
        let shard = shard(&cluster);
        let replicas = list(&shard, "replicas").clone();
        let level = replicas.len() == 3 && replicas.iter().all(|replica| replica["lag_entries"] == 0);
        if level { Ok(shard) } else { Err(shard.to_string()) }
    };
    let before = run(eventually("three replicas that lack nothing", level));
    let id = before["id"].to_string();
    let leader = text(&before, "leader").to_owned();
    let mut holders: Vec<String> = list(&before, "replicas").iter().map(|one| text(one, "node").to_owned()).collect();
    holders.sort_by_key(|node| *node != leader);
    let (lost, survivor) = (&holders[..2], &holders[2]);
    let places: Vec<usize> = {
        let ids: Vec<(usize, String)> = cluster
            .shard_nodes()
            .into_iter()
            .map(|at| (at, text(&cluster.json(&["node", "show", &cluster.api(at)]), "id").to_owned()))
            .collect();
        lost.iter().map(|node| ids.iter().find(|(_, id)| id == node).expect("one of ours").0).collect()
    };

    // Nothing is lost yet.
    let early = cluster.ask(&["shard", "unsafe-recover", "points", &id, "--dry-run"]).ends_with(CONFLICT);
    early.says("can have its majority back").says("hint: sagitta shard show");
    places.iter().for_each(|at| cluster.kill(*at));
    for node in lost {
        let is_lost = async || match cluster.json(&["node", "show", node]) {
            shown if shown["status"] == "lost" => Ok(()),
            shown => Err(shown.to_string()),
        };
        run(eventually("a lost node", is_lost));
    }
    let health = cluster.ask(&["cluster", "health"]).ends_with(UNAVAILABLE);
    health.says("has lost its majority").says("sagitta node remove NODE --lost-for-ever");
    for node in lost {
        let kept = cluster.ask(&["node", "remove", node, "--yes"]).ends_with(CONFLICT);
        kept.says("--lost-for-ever");
        cluster.ask(&["node", "remove", node, "--lost-for-ever"]).ends_with(USAGE).says("hint: confirm with --yes");
        cluster.ask(&["node", "remove", node, "--lost-for-ever", "--yes"]).ends_with(DONE).shows("is removed");
    }
    let named = format!("sagitta shard unsafe-recover points {id}");
    cluster.ask(&["cluster", "health"]).ends_with(UNAVAILABLE).says(&named);

    let recover = |option: &str| {
        let all = ["shard", "unsafe-recover", "points", &id, option];
        cluster.ask(&all[..if option.is_empty() { 4 } else { 5 }])
    };
    // Whenever a report is late, whoever has not told may not know.
    let until = |code, option: &str| {
        let asked = async || match recover(option) {
            ran if ran.code == code => Ok(ran),
            ran => Err(format!("{ran:?}")),
        };
        run(eventually("all to know what is lost", asked))
    };
    let told = until(DONE, "--dry-run");
    told.shows("would go on with node").shows("is lost, although it may have been acknowledged");
    assert_eq!(shard(&cluster)["epoch"], before["epoch"], "that was a dry run");
    until(USAGE, "").says("hint: confirm with --yes-lose-data");
    until(DONE, "--yes-lose-data").shows("goes on with node");

    let whole = async || {
        let shard = shard(&cluster);
        let wanted = list(&shard, "replicas").iter().filter(|replica| replica["wanted"] == true);
        let wanted: Vec<_> = wanted.map(|replica| text(replica, "node")).collect();
        let is_whole = shard["health"] == "healthy" && wanted.len() == 3 && wanted.contains(&survivor.as_str());
        if is_whole { Ok(()) } else { Err(shard.to_string()) }
    };
    run(eventually("three replicas", whole));
    is_written(&cluster, 100);
    write(&cluster, 500);

    // The lost ones were not: they come back together, a majority of the group as they know it.
    places.iter().for_each(|at| cluster.spawn(*at));
    let cleared = async || {
        let left: Vec<usize> = places.iter().map(|at| folders(&cluster.members[*at].data)).collect();
        if left == [0, 0] { Ok(()) } else { Err(format!("{left:?} replicas are there")) }
    };
    run(eventually("the removal of what is not theirs", cleared));
    is_written(&cluster, 500);
    for node in lost {
        assert_eq!(cluster.json(&["node", "show", node])["status"], "removed");
    }
}
