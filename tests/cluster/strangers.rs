//! Nodes of other clusters, and addresses that have passed to another node: nobody takes one for the other.

use sagitta_callers::{get, name, point, told};
use sagitta_model::{Consistency, NewCluster, NodeStatus};

use crate::harness::{Cluster, Member, Role, client as client_of, eventually, run};
use crate::workload::{CALL, at_rest, create};

const IDS: u64 = 20;

/// Has a node found a cluster of its own.
async fn found(cluster: &Cluster, founder: &mut Member) -> NewCluster {
    let command = cluster.command(founder, None);
    founder.start(command);
    founder.wait_to_say("waiting for `sagitta cluster init`");
    let founded = client_of(&founder.api, CALL * 6).init_cluster().await.expect("a cluster is founded");
    founder.wait_to_say("sagittad is ready");
    founded
}

/// As errors name it.
fn named(cluster: u128) -> String {
    format!("cluster {cluster:032x}")
}

async fn fill(cluster: &Cluster) {
    create(cluster, 1).await;
    let points = (0..IDS).map(|id| point(id, id)).collect();
    cluster.client(0, CALL * 6).upsert(name("points"), points).await.expect("written");
}

#[test]
fn a_node_of_another_cluster_is_not_let_in_and_is_told_the_ids_of_both() {
    let cluster = Cluster::start(1, 1);
    run(async {
        let ours = cluster.client(0, CALL * 6).get_cluster().await.expect("asked").id;
        let mut founder = cluster.new_member(Role::Coordinator, "founder");
        let theirs = found(&cluster, &mut founder).await;
        let mut stranger = cluster.new_member(Role::Shard, "stranger");
        let mut command = cluster.command(&stranger, Some(format!("http://{}", founder.peers.address())));
        stranger.start({
            command.env("SAGITTA_JOIN_TOKEN", &theirs.join_token);
            command
        });
        stranger.wait_to_say("sagittad is ready");
        stranger.kill();
        // It has moved, so that it asks to be let in once more, at the wrong door and with the token that is right there.
        let mut elsewhere = cluster.new_member(Role::Shard, "elsewhere");
        stranger.swap_ports(&mut elsewhere);
        let command = cluster.command(&stranger, Some(cluster.join_addresses()));
        let says = format!("belongs to {}, and this is {}", named(theirs.id), named(ours));
        stranger.must_refuse(command, &says);
        let nodes = cluster.client(0, CALL * 6).list_nodes(100, String::new()).await.expect("asked").nodes;
        assert_eq!(nodes.len(), cluster.members.len(), "it is not in the books: {nodes:?}");
        founder.kill();
    });
}

#[test]
fn a_cluster_goes_on_when_a_node_of_another_one_listens_where_one_of_its_own_was() {
    let mut cluster = Cluster::start(1, 3);
    run(async {
        fill(&cluster).await;
        let ours = cluster.client(0, CALL * 6).get_cluster().await.expect("asked").id;
        let away = cluster.leader("points").await;
        cluster.kill(away);
        let mut stranger = cluster.new_member(Role::Coordinator, "stranger");
        let swap = |cluster: &mut Cluster, stranger: &mut Member| {
            stranger.swap_ports(&mut cluster.members[away]);
        };
        swap(&mut cluster, &mut stranger);
        let theirs = found(&cluster, &mut stranger).await;
        // The new leader calls it, learns that it is another cluster's, and says so in its log.
        let others: Vec<_> = cluster.shard_nodes().into_iter().filter(|at| *at != away).collect();
        let both = format!("belongs to {}, ", named(ours));
        let passed_on = format!("{}: its address has passed on", named(theirs.id));
        let noticed = async || match others.iter().any(|at| {
            let member = &cluster.members[*at];
            member.has_said(&both) && member.has_said(&passed_on)
        }) {
            true => Ok(()),
            false => Err("nobody has said so"),
        };
        eventually("a word about the stranger", noticed).await;
        let client = cluster.client(0, CALL * 6);
        let write = async || client.upsert(name("points"), vec![point(IDS, 7)]).await;
        eventually("a write by the two others", write).await;
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            let read = async || client.get(get("points", (0..IDS).collect(), consistency.clone())).await;
            let records = eventually("a read from the two others", read).await;
            let expected: Vec<_> = (0..IDS).map(|id| (id, id)).collect();
            assert_eq!(records.iter().map(told).collect::<Vec<_>>(), expected);
        }
        // It has taken nothing for its own, and is well.
        let there = client_of(&stranger.api, CALL * 6);
        let listed = there.list_nodes(10, String::new()).await.expect("listed").nodes;
        assert_eq!(listed.len(), 1);
        stranger.kill();
        swap(&mut cluster, &mut stranger);
        cluster.restart(away);
        cluster.lead("points", away).await;
        assert_eq!(at_rest(&client, "points", IDS + 1).await.len() as u64, IDS + 1);
    });
}

#[test]
fn an_address_is_anothers_once_its_node_is_lost_and_who_had_it_comes_back_elsewhere() {
    let mut cluster = Cluster::start(1, 3);
    run(async {
        fill(&cluster).await;
        let client = cluster.client(0, CALL * 6);
        let away = cluster.shard_nodes()[0];
        let id = cluster.node_id(&client, away).await;
        cluster.kill(away);
        let mut heir = cluster.new_member(Role::Shard, "heir");
        std::mem::swap(&mut heir.api, &mut cluster.members[away].api);
        std::mem::swap(&mut heir.peers, &mut cluster.members[away].peers);
        let command = cluster.command(&heir, Some(cluster.join_addresses()));
        heir.must_refuse(command, &format!("belongs to node {id}, which is up: give this node an address of its own"));
        let lost = async || match client.get_node(id).await.map_err(|error| error.to_string())?.status {
            NodeStatus::Lost => Ok(()),
            status => Err(format!("it is {status}")),
        };
        eventually("a lost node", lost).await;
        let command = cluster.command(&heir, Some(cluster.join_addresses()));
        heir.start(command);
        heir.wait_to_say("sagittad is ready");
        // What is meant for the one who was there does not reach the one who is: the group goes on as two of three.
        eventually("a write", async || client.upsert(name("points"), vec![point(IDS, 7)]).await).await;
        assert_eq!(at_rest(&client, "points", IDS + 1).await.len() as u64, IDS + 1);
        // The other one has a port of its own now, and says so.
        cluster.restart(away);
        let up = async || match client.get_node(id).await.map_err(|error| error.to_string())?.status {
            NodeStatus::Up => Ok(()),
            status => Err(format!("it is {status}")),
        };
        eventually("a node that is back", up).await;
        cluster.lead("points", away).await;
        assert_eq!(at_rest(&client, "points", IDS + 1).await.len() as u64, IDS + 1);
        heir.kill();
    });
}
