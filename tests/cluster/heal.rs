//! A cluster that runs itself, by the commands that operators have: nodes join and fill up, are drained and removed, and what a lost one held
//! is made anew.

use std::time::Duration;

use sagitta_callers::{name, point};
use serde_json::{Value, json};

use crate::commands::{list, text};
use crate::harness::{Cluster, Role, eventually, run};
use crate::ran::{CONFLICT, DONE, NOT_FOUND, USAGE};
use crate::workload::{CALL, at_rest, create};

const IDS: u64 = 200;
const SHARDS: u32 = 2;

/// A collection with three replicas on four nodes, and who has some of them.
fn filled(cluster: &Cluster) -> Vec<usize> {
    run(async {
        create(cluster, SHARDS).await;
        let client = cluster.client(0, CALL * 6);
        client.upsert(name("points"), (0..IDS).map(|id| point(id, id)).collect()).await.expect("written");
        let mut holders = Vec::new();
        for at in cluster.shard_nodes() {
            let id = cluster.node_id(&client, at).await;
            let holds = async || match client.get_node(id).await {
                Ok(node) => Ok(node.wanted_replicas),
                Err(error) => Err(error.to_string()),
            };
            if eventually("a node", holds).await > 0 {
                holders.push(at);
            }
        }
        holders
    })
}

/// Waits until every shard has three replicas that work and none on a node.
fn wait_whole_without(cluster: &Cluster, node: &str) {
    let whole = async || {
        let shards = cluster.json(&["shard", "list", "--collection", "points"]);
        for shard in list(&shards, "shards") {
            let shown = cluster.json(&["shard", "show", &shard["id"].to_string()]);
            // What a node told last of a replica that is to be elsewhere is shown, too.
            let wanted = list(&shown, "replicas").iter().filter(|replica| replica["wanted"] == true);
            let replicas: Vec<_> = wanted.map(|replica| text(replica, "node")).collect();
            if shown["health"] != "healthy" || replicas.len() != 3 || replicas.contains(&node) {
                return Err(shown.to_string());
            }
        }
        Ok(())
    };
    run(eventually("whole shards", whole));
}

fn wait_for_status(cluster: &Cluster, node: &str, status: &str) {
    let reached = async || match cluster.json(&["node", "show", node]) {
        shown if shown["status"] == status => Ok(()),
        shown => Err(shown.to_string()),
    };
    run(eventually(status, reached));
}

/// Waits until a node is up and holds so many replicas, and these only.
fn wait_for_replicas(cluster: &Cluster, node: &str, count: u64) {
    let holds = async || match cluster.json(&["node", "show", node]) {
        shown if shown["status"] == "up" && shown["hosted_replicas"] == count && shown["wanted_replicas"] == count => {
            Ok(())
        }
        shown => Err(shown.to_string()),
    };
    run(eventually("the replicas of a node", holds));
}

fn operations(cluster: &Cluster) -> Vec<Value> {
    list(&cluster.json(&["operation", "list", "--all"]), "operations").clone()
}

/// All operations, once none is under way.
fn ended(cluster: &Cluster) -> Vec<Value> {
    let ended = async || {
        let all = operations(cluster);
        let have = all.iter().all(|one| ["done", "cancelled"].contains(&text(one, "step")));
        if have { Ok(all) } else { Err(format!("{all:#?}")) }
    };
    run(eventually("no operation under way", ended))
}

fn all_there(cluster: &Cluster) {
    run(async {
        assert_eq!(at_rest(&cluster.client(0, CALL * 6), "points", IDS).await.len() as u64, IDS);
    });
}

#[test]
fn a_node_is_drained_and_removed_by_commands_that_say_what_they_do() {
    let mut cluster = Cluster::start(1, 4);
    let at = filled(&cluster)[0];
    let node = text(&cluster.json(&["node", "show", &cluster.api(at)]), "id").to_owned();
    cluster.ask(&["node", "drain", "db-9"]).ends_with(NOT_FOUND).says("there is no node `db-9`");
    let coordinator = cluster.api(0);
    let refused = cluster.ask(&["node", "remove", &node, "--yes"]).ends_with(CONFLICT).says("drain it first");
    refused.says("hint: sagitta node drain ");

    let dry = cluster.ask(&["node", "drain", &node, "--dry-run"]).ends_with(DONE).shows("would be draining");
    dry.shows("is being drained");
    assert_eq!((operations(&cluster), &cluster.json(&["node", "show", &node])["status"]), (vec![], &json!("up")));

    cluster.ask(&["node", "drain", &node]).ends_with(DONE).shows("is draining");
    wait_for_status(&cluster, &node, "drained");
    wait_whole_without(&cluster, &node);
    let moved = operations(&cluster);
    assert!(!moved.is_empty(), "something was moved");
    for operation in &moved {
        assert_eq!((text(operation, "kind"), text(operation, "step")), ("drain", "done"), "{operation:#}");
        assert_eq!(text(operation, "from"), node);
    }
    let id = moved[0]["id"].to_string();
    cluster.ask(&["operation", "show", &id]).ends_with(DONE).shows(": drain, step done").shows("is being drained");
    cluster.ask(&["operation", "list"]).ends_with(DONE).shows("no operations under way");
    cluster.ask(&["operation", "show", "99"]).ends_with(NOT_FOUND).says("hint: sagitta operation list --all");
    cluster.ask(&["operation", "cancel", &id]).ends_with(CONFLICT);

    cluster.ask(&["node", "remove", &node, "--yes"]).ends_with(DONE).shows("is removed");
    cluster.kill(at);
    all_there(&cluster);
    let health = cluster.ask(&["cluster", "health"]).ends_with(DONE);
    assert_eq!(health.out.trim(), "healthy");
    // The only coordinator cannot be done without.
    cluster.ask(&["node", "remove", &coordinator, "--yes"]).ends_with(CONFLICT);
}

#[test]
fn a_coordinator_that_is_drained_gives_its_vote_to_another_even_if_it_leads() {
    let mut cluster = Cluster::start(3, 1);
    let status = || cluster.json(&["cluster", "status"]);
    let voters = |status: &Value| {
        list(status, "voters").iter().map(|voter| voter.as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let before = status();
    let leader = text(&before, "leader").to_owned();
    let at = (0..3)
        .find(|at| text(&cluster.json(&["node", "show", &cluster.api(*at)]), "id") == leader)
        .expect("a coordinator");
    // Another one is asked from here on.
    let asked = (at + 1) % 3;
    let ask = |cluster: &Cluster, args: &[&str]| cluster.sagitta(&cluster.api(asked), args);
    ask(&cluster, &["node", "drain", &leader, "--dry-run"]).ends_with(DONE).shows("start one, or it cannot be removed");
    ask(&cluster, &["node", "drain", &leader]).ends_with(DONE).shows("start one, or it cannot be removed");
    let drained = async |cluster: &Cluster| match ask(cluster, &["node", "show", &leader, "-o", "json"]).json() {
        shown if shown["status"] == "drained" => Ok(()),
        shown => Err(shown.to_string()),
    };
    run(eventually("a drained coordinator", async || drained(&cluster).await));
    ask(&cluster, &["node", "remove", &leader, "--yes"]).ends_with(CONFLICT).says("a coordinator that takes its place");

    let new = cluster.new_member(Role::Coordinator, "new");
    cluster.members.push(new);
    cluster.restart(4);
    let given = async || {
        let status = ask(&cluster, &["cluster", "status", "-o", "json"]).json();
        let voters = voters(&status);
        if voters.len() == 3 && !voters.contains(&leader) && status["leader"].is_string() {
            Ok(voters)
        } else {
            Err(status.to_string())
        }
    };
    let after = run(eventually("a vote that was given to another", given));
    let kept = voters(&before).iter().filter(|voter| after.contains(voter)).count();
    assert_eq!(kept, 2, "{before:#} {after:?}");
    // Who votes is noted in the state a moment after it is so.
    let removed = async || match ask(&cluster, &["node", "remove", &leader, "--yes"]) {
        ran if ran.code == CONFLICT => Err(ran.err),
        ran => Ok(ran),
    };
    run(eventually("a coordinator that can be removed", removed)).ends_with(DONE).shows("is removed");
    cluster.kill(at);
    ask(&cluster, &["cluster", "health"]).ends_with(DONE);
    // Decisions need a majority of those that vote now.
    ask(&cluster, &["cluster", "rotate-token"]).ends_with(DONE);
}

#[test]
fn a_node_that_joins_fills_up_unasked_takes_what_is_moved_by_hand_and_is_drained_again() {
    let mut cluster = Cluster::start(1, 3);
    let old = filled(&cluster);
    let at = cluster.members.len();
    let member = cluster.new_member(Role::Shard, "node-new");
    cluster.members.push(member);
    cluster.restart(at);
    let known = async || {
        let shown = cluster.json(&["node", "list"]);
        match list(&shown, "nodes")
            .iter()
            .find(|node| text(node, "peer_address").ends_with(&cluster.members[at].peers.address()))
        {
            Some(node) => Ok(text(node, "id").to_owned()),
            None => Err(shown.to_string()),
        }
    };
    let new = run(eventually("the new node", known));
    // Two shards with three replicas each: one of them comes here.
    wait_for_replicas(&cluster, &new, 1);
    let moved = ended(&cluster);
    let kinds: Vec<_> = moved.iter().map(|one| (text(one, "kind"), text(one, "step"), text(one, "to"))).collect();
    assert_eq!(kinds, [("rebalance", "done", new.as_str())], "{moved:#?}");
    all_there(&cluster);

    // The other one is moved here by hand, from a node that has two.
    let ids = old.iter().map(|at| text(&cluster.json(&["node", "show", &cluster.api(*at)]), "id").to_owned());
    let from = ids.into_iter().find(|id| cluster.json(&["node", "show", id])["wanted_replicas"] == 2);
    let from = from.expect("two of three have two");
    let shards = cluster.json(&["shard", "list", "--collection", "points"]);
    let has = |shard: &&Value| {
        let shown = cluster.json(&["shard", "show", &shard["id"].to_string()]);
        list(&shown, "replicas").iter().any(|replica| replica["wanted"] == true && text(replica, "node") == new)
    };
    let there = list(&shards, "shards").iter().find(has).expect("it has one")["id"].to_string();
    let other = list(&shards, "shards").iter().find(|shard| !has(shard)).expect("it has not both")["id"].to_string();
    let moving = |shard: &str, from: &str, more: &[&str]| {
        cluster.ask(&[&["shard", "move", "points", shard, "--from", from, "--to", &new], more].concat())
    };
    moving(&there, &from, &[]).ends_with(USAGE).says("has a replica of shard").says("hint: its replicas are on ");
    moving("99", &from, &[]).ends_with(NOT_FOUND).says("sagitta shard list");
    moving(&other, &from, &["--dry-run"]).ends_with(DONE).shows("would be moved from node ");
    assert_eq!(operations(&cluster).len(), 1, "nothing was begun");
    moving(&other, &from, &[]).ends_with(DONE).shows("operation 2 moves shard ");
    wait_for_replicas(&cluster, &new, 2);
    wait_for_replicas(&cluster, &from, 1);
    assert_eq!(ended(&cluster).len(), 2, "and nobody moves it back");
    all_there(&cluster);

    cluster.ask(&["node", "drain", &new]).ends_with(DONE);
    wait_for_status(&cluster, &new, "drained");
    wait_whole_without(&cluster, &new);
    all_there(&cluster);
    let by_hand = operations(&cluster).into_iter().filter(|one| text(one, "kind") == "move").count();
    assert_eq!(by_hand, 1);
}

#[test]
#[ignore = "takes a minute: `make chaos` runs it"]
fn what_a_killed_node_held_is_made_anew_and_the_node_comes_back_empty_and_fills_up_again() {
    let after = Duration::from_secs(2);
    let env = move |_, member: &mut crate::harness::Member| {
        member.env.push(("SAGITTA_REPAIR_AFTER", format!("{}s", after.as_secs())));
    };
    let mut cluster = Cluster::start_with(1, 4, env);
    let at = filled(&cluster)[0];
    let node = text(&cluster.json(&["node", "show", &cluster.api(at)]), "id").to_owned();
    cluster.kill(at);
    wait_whole_without(&cluster, &node);
    all_there(&cluster);
    let repairs = operations(&cluster);
    assert!(!repairs.is_empty(), "something was made anew");
    assert!(repairs.iter().all(|one| text(one, "kind") == "repair" && text(one, "from") == node), "{repairs:#?}");
    cluster.restart(at);
    // It removes what it held, and then gets one of the six: the other nodes have two each by now.
    wait_for_replicas(&cluster, &node, 1);
    all_there(&cluster);
    let moved = operations(&cluster);
    assert!(moved.iter().any(|one| text(one, "kind") == "rebalance" && text(one, "to") == node), "{moved:#?}");
    println!("seed 0: {} replicas of a killed node were made anew", repairs.len());
}
