//! The commands for operators against clusters of real processes: `cluster`, `node`, `shard`, several endpoints, `inspect`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Cluster, Role, eventually, run};
use crate::ran::{CONFLICT, DATA, DEGRADED, DONE, NOT_FOUND, Ran, UNAVAILABLE, USAGE, inspect, picture, sagitta};

impl Cluster {
    pub(crate) fn sagitta(&self, endpoint: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(sagitta());
        command.args(args).env("SAGITTA_ENDPOINT", endpoint).stdin(Stdio::null());
        command.output().expect("the program runs").into()
    }

    pub(crate) fn api(&self, at: usize) -> String {
        self.members[at].api.address()
    }

    /// Asks the first coordinator.
    pub(crate) fn ask(&self, args: &[&str]) -> Ran {
        self.sagitta(&self.api(0), args)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.ask(&[args, &["--output", "json"]].concat()).ends_with(DONE).json()
    }
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// The error that programs are told.
fn told(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.err).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    document["error"].clone()
}

/// The first column of a table, without its header.
fn first_column(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn commands_show_a_cluster_to_people_and_programs_and_say_what_is_wrong_with_names() {
    let mut cluster = Cluster::start(1, 3);
    let create = ["collection", "create", "docs", "--dim", "3", "--shards", "2", "--replication", "3"];
    cluster.ask(&create).ends_with(DONE);
    settle(&cluster);
    the_cluster(&cluster);
    nodes(&cluster);
    shards(&cluster);
    handing_over(&cluster);

    let lost = cluster.json(&["node", "show", &cluster.api(1)]);
    cluster.kill(1);
    let degraded = async || match cluster.ask(&["cluster", "health"]) {
        ran if ran.code == DEGRADED => Ok(ran),
        ran => Err(format!("{ran:?}")),
    };
    let degraded = run(eventually("a degraded cluster", degraded));
    assert_eq!(degraded.out.trim(), "degraded");
    degraded.says("error: ").says("hint: sagitta cluster status shows everything that is wrong");
    let health = cluster.ask(&["cluster", "health", "-o", "json"]).ends_with(DEGRADED);
    assert_eq!((text(&health.json(), "health"), text(&told(&health), "kind")), ("degraded", "degraded"));
    assert!(!list(&health.json(), "problems").is_empty());
    cluster.ask(&["cluster", "status"]).ends_with(DONE).shows(": degraded").shows("problem      ");
    cluster.ask(&["node", "show", text(&lost, "id")]).ends_with(DONE).shows(text(&lost, "id"));
}

/// Waits until every replica was heard of and every shard has a leader.
fn settle(cluster: &Cluster) {
    let settled = async || {
        let shards = cluster.json(&["shard", "list"]);
        let ready = |shard: &Value| shard["health"] == "healthy" && shard["leader"].is_string();
        let all = list(&shards, "shards");
        if all.len() == 2 && all.iter().all(ready) { Ok(()) } else { Err(shards.to_string()) }
    };
    run(eventually("shards that are well", settled));
}

fn the_cluster(cluster: &Cluster) {
    let status = cluster.json(&["cluster", "status"]);
    assert_eq!((text(&status, "health"), text(&status, "id").len()), ("healthy", 36));
    assert_eq!((&status["nodes"], &status["problems"]), (&json!({ "up": 4 }), &json!([])));
    assert_eq!((&status["collections"], &status["shards"]), (&json!(1), &json!(2)));
    assert_eq!((&status["leader"], list(&status, "voters")), (&status["coordinator"], &vec![status["leader"].clone()]));
    assert!(status["term"].is_u64() && status["applied_index"].is_u64(), "{status:#}");
    let people =
        cluster.ask(&["cluster", "status"]).ends_with(DONE).shows(&format!("cluster {}: healthy", text(&status, "id")));
    let people = people.shows("nodes        4 up").shows("holds        1 collection in 2 shards");
    people.shows(&format!("({})", cluster.api(0))).shows(&format!("leader       {}", &text(&status, "leader")[..8]));

    assert_eq!(cluster.ask(&["cluster", "health"]).ends_with(DONE).out, "healthy\n");
    assert_eq!(cluster.json(&["cluster", "health"]), json!({ "health": "healthy", "problems": [] }));
    let again = cluster.ask(&["cluster", "init"]).ends_with(CONFLICT).says("rotate-token");
    assert_eq!(again.out, "");
    let token = cluster.ask(&["cluster", "rotate-token"]).ends_with(DONE).out;
    let other = cluster.json(&["cluster", "rotate-token"]);
    assert!(token.starts_with("sgj_") && text(&other, "join_token") != token.trim(), "{token} {other}");
}

fn nodes(cluster: &Cluster) {
    let document = cluster.json(&["node", "list"]);
    let ids: Vec<_> = list(&document, "nodes").iter().map(|node| text(node, "id")).collect();
    assert_eq!(ids.len(), 4);
    let table = cluster.ask(&["node", "list"]).ends_with(DONE).shows("heard of").shows("replicas");
    let short = first_column(&table.out);
    for (id, short) in ids.iter().zip(&short) {
        assert!(id.starts_with(short) && short.len() < id.len() && short.len() >= 8, "{id} is shown as {short}");
    }
    let first = &list(&document, "nodes")[0];
    let [api, peers] = ["api_address", "peer_address"].map(|key| text(first, key));
    for name in [ids[0], short[0], api, peers, api.trim_start_matches("http://"), text(first, "incarnation")] {
        let node = cluster.json(&["node", "show", name]);
        assert_eq!((text(&node, "id"), text(&node, "api_address")), (ids[0], api), "by {name}");
    }
    let shown = cluster.ask(&["node", "show", short[0]]).ends_with(DONE).shows(&format!("node {}: up", ids[0]));
    shown.shows(text(first, "incarnation")).shows(api).shows("replicas     ");

    let absent = cluster.ask(&["node", "show", "0"]).ends_with(NOT_FOUND).says("there is no node `0`");
    absent.says("hint: there are: ").says(short[0]).says(&cluster.api(0));
    cluster.ask(&["node", "show", "db-9:6380"]).ends_with(NOT_FOUND).says("there is no node `db-9:6380`");
    let several = cluster.ask(&["node", "show", "127.0.0.1", "-o", "json"]).ends_with(USAGE);
    assert!(text(&told(&several), "message").contains("`127.0.0.1` may mean 4 nodes"), "{several:?}");
    assert!(ids.iter().zip(&short).all(|(_, short)| text(&told(&several), "hint").contains(short)));
}

fn shards(cluster: &Cluster) {
    let document = cluster.json(&["shard", "list"]);
    let all = list(&document, "shards");
    assert_eq!(all.iter().map(|shard| shard["id"].clone()).collect::<Vec<_>>(), [json!(16), json!(17)]);
    assert_eq!((text(&all[0], "first_hash"), text(&all[1], "last_hash")), ("0000000000000000", "ffffffffffffffff"));
    let leader = text(&all[0], "leader");
    let table = cluster.ask(&["shard", "list"]).ends_with(DONE).shows("leader").shows(&leader[..8]);
    assert_eq!(first_column(&table.out), ["16", "17"]);
    assert!(!table.out.contains(leader), "tables have short ids: {}", table.out);
    cluster.ask(&["shard", "list", "--collection", "docs", "--node", &leader[..12]]).ends_with(DONE).shows("docs");
    cluster.ask(&["shard", "list", "--node", &cluster.api(0)]).ends_with(DONE).shows("no shards");
    cluster.ask(&["shard", "list", "--collection", "dogs"]).ends_with(NOT_FOUND).says("there are: docs");
    cluster.ask(&["shard", "list", "--node", "0"]).ends_with(NOT_FOUND).says("--node: there is no node `0`");

    let shard = cluster.json(&["shard", "show", "16"]);
    assert_eq!((list(&shard, "replicas").len(), text(&shard, "health")), (3, "healthy"));
    for replica in list(&shard, "replicas") {
        let role = if text(replica, "node") == text(&shard, "leader") { "leader" } else { "follower" };
        assert_eq!((text(replica, "role"), &replica["wanted"]), (role, &json!(true)), "{shard:#}");
    }
    let shown = cluster.ask(&["shard", "show", "16"]).ends_with(DONE).shows("shard 16 of docs, healthy");
    shown.shows("hashes 0000000000000000 to 7fffffffffffffff").shows(&format!("led by {}", text(&shard, "leader")));
    let absent = cluster.ask(&["shard", "show", "99"]).ends_with(NOT_FOUND).says("99");
    absent.says("hint: sagitta shard list shows those that there are");
}

fn handing_over(cluster: &Cluster) {
    let before = cluster.json(&["shard", "show", "16"]);
    let replicas = list(&before, "replicas").iter().map(|replica| text(replica, "node"));
    let to = replicas.into_iter().find(|node| *node != text(&before, "leader")).expect("a follower");
    let done = cluster.ask(&["shard", "transfer-leader", "16", "--to", &to[..10]]).ends_with(DONE);
    done.shows(" leads shard 16").shows(&format!("node {}", &to[..8]));
    let leads = async || match cluster.json(&["shard", "show", "16"]) {
        shard if shard["leader"] == to => Ok(()),
        shard => Err(shard["leader"].to_string()),
    };
    run(eventually("the new leader", leads));
    let again = cluster.json(&["shard", "transfer-leader", "16", "--to", to]);
    assert_eq!(again, json!({ "shard": 16, "leader": to }), "whoever leads already leads");

    let coordinator = cluster.api(0);
    let refused = cluster.ask(&["shard", "transfer-leader", "16", "--to", &coordinator]).ends_with(USAGE);
    let refused = refused.says("has no replica of shard 16").says(&coordinator).says("hint: its replicas are on ");
    assert!(refused.err.contains(&to[..8]), "{refused:?}");
    cluster.ask(&["shard", "transfer-leader", "99", "--to", to]).ends_with(NOT_FOUND).says("sagitta shard list");
    cluster.ask(&["shard", "transfer-leader", "16", "--to", "0"]).ends_with(NOT_FOUND).says("--to: there is no node");
}

#[test]
fn any_coordinator_of_a_list_answers_and_folders_of_stopped_nodes_can_be_looked_at() {
    let mut cluster = Cluster::start(3, 1);
    let all = [cluster.api(0), cluster.api(1), cluster.api(2)].join(",");
    let create = ["collection", "create", "docs", "--dim", "3", "--shards", "2", "--replication", "1"];
    cluster.sagitta(&all, &create).ends_with(DONE);
    let nobody = format!("127.0.0.1:1,{all}");
    cluster.sagitta(&nobody, &["collection", "list"]).ends_with(DONE).shows("docs");
    let folder = cluster.members[0].data.clone();
    let held = inspect(&folder, &[]).ends_with(UNAVAILABLE).says("in use by a running process");
    assert_eq!(held.out, "");

    cluster.kill(0);
    let rows = cluster.members[0].data.with_file_name("rows.jsonl");
    let lines = (0..200).map(|id| format!("{{\"id\": {id}, \"vector\": [1, {id}, 2]}}\n"));
    std::fs::write(&rows, lines.collect::<String>()).expect("written");
    cluster.sagitta(&all, &["import", "docs", rows.to_str().expect("UTF-8")]).ends_with(DONE);
    let count = cluster.sagitta(&all, &["count", "docs"]).ends_with(DONE);
    assert_eq!(count.out.trim(), "200");
    stopped_nodes(&mut cluster);

    let refused = cluster.sagitta(&all, &["count", "docs", "--timeout", "3s"]).ends_with(UNAVAILABLE);
    let refused = refused.says("none of the 3 endpoints that were asked answers");
    assert!((0..3).all(|at| refused.err.contains(&format!("  http://{}: ", cluster.api(at)))), "{refused:?}");
}

/// Looks at the folders of a founder, of another coordinator, and of a node with replicas.
fn stopped_nodes(cluster: &mut Cluster) {
    (1..4).for_each(|at| cluster.kill(at));
    for at in [0, 1, 3] {
        let data = cluster.members[at].data.clone();
        let before = picture(&data);
        let report = inspect(&data, &["-o", "json"]).ends_with(DONE).json();
        assert!(picture(&data) == before, "looking has changed {}", data.display());
        let node = &report["node"];
        assert_eq!((&node["founder"], &node["known_as"]["shard"]), (&json!(at == 0), &json!(at == 3)), "{report:#}");
        let control = list(&report["log"], "groups").iter().find(|group| group["group"] == 1);
        let shards: Vec<_> = list(&report, "shards").iter().map(|shard| shard["shard"].clone()).collect();
        if at == 3 {
            assert_eq!((control, shards), (None, vec![json!(16), json!(17)]), "{report:#}");
            let points = list(&report, "shards").iter().map(|shard| shard["applied_index"].as_u64());
            assert!(points.into_iter().all(|applied| applied.is_some()), "{report:#}");
            let groups = list(&report["log"], "groups");
            assert!(groups.iter().all(|group| group["continues"] == true), "{report:#}");
            // It was killed: what was written since the last flush is in the log alone.
            let points =
                list(&report, "shards").iter().map(|shard| shard["points"].as_u64().expect("a number")).sum::<u64>();
            let to_apply = groups.iter().map(|group| group["to_apply"].as_u64().expect("a number")).sum::<u64>();
            assert!(points == 200 || to_apply > 0, "{report:#}");
        } else {
            let control = control.unwrap_or_else(|| panic!("a coordinator votes: {report:#}"));
            assert_eq!((&control["continues"], list(control, "founders").len()), (&json!(true), 1));
        }
        let people = inspect(&data, &[]).ends_with(DONE).shows(text(node, "id")).shows("Raft log").shows("All is well");
        people.shows("docs").shows(text(&node["known_as"], "api_address"));
    }
    // A log without its folder, and a log of another node.
    let (node, other) = (cluster.members[3].data.clone(), cluster.members[1].data.clone());
    let moved = node.with_file_name("moved");
    std::fs::rename(node.join("log"), &moved).expect("moved");
    inspect(&node, &[]).ends_with(DATA).shows("damage: the Raft log is missing").shows("docs");
    std::fs::rename(other.join("log"), node.join("log")).expect("moved");
    inspect(&node, &[]).ends_with(DATA).shows("the log was written by node ");
}

#[test]
fn a_node_that_belongs_to_no_cluster_says_so_and_founds_one_once() {
    let mut cluster = Cluster::start(1, 0);
    let mut alone = cluster.new_member(Role::Coordinator, "alone");
    let endpoint = alone.api.address();
    let command = cluster.command(&alone, None);
    alone.start(command);
    let waits = async || match cluster.sagitta(&endpoint, &["cluster", "status", "--timeout", "5s"]) {
        ran if ran.code == NOT_FOUND => Ok(ran),
        ran => Err(format!("{ran:?}")),
    };
    let waits = run(eventually("a node that waits", waits));
    waits.says("belongs to no cluster yet").says("hint: sagitta cluster init makes it found one");
    for args in [&["node", "list"][..], &["shard", "list"], &["cluster", "health"], &["cluster", "rotate-token"]] {
        cluster.sagitta(&endpoint, args).ends_with(NOT_FOUND).says("sagitta cluster init");
    }
    let founded = cluster.sagitta(&endpoint, &["cluster", "init", "-o", "json"]).ends_with(DONE).json();
    assert!(text(&founded, "cluster").len() == 36 && text(&founded, "join_token").starts_with("sgj_"), "{founded}");
    let again = async || match cluster.sagitta(&endpoint, &["cluster", "init", "-o", "json"]) {
        ran if ran.code == CONFLICT => Ok(ran),
        ran => Err(format!("{ran:?}")),
    };
    let again = run(eventually("a second founding", again));
    assert!(text(&told(&again), "message").contains(text(&founded, "cluster")), "{again:?}");
    alone.kill();
    let seen = inspect(&alone.data, &[]).ends_with(DONE);
    seen.shows(&format!("{}, which it founded", text(&founded, "cluster")));
    cluster.kill(0);
}
