//! What is lost and comes back: everything at once, most coordinators, the founder.

use sagitta_callers::{get, name, point, schema, seed, told};
use sagitta_client::View;
use sagitta_model::Consistency;

use crate::harness::{Cluster, Role, eventually, run};
use crate::workload::{CALL, Workload, create, settled};

const IDS: u64 = 200;

#[test]
fn all_nodes_killed_at_once_lose_nothing() {
    let seed = seed();
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let workload = Workload::new("points", IDS, false);
        let clients = workload.start(&cluster, 6, seed);
        for _ in 0..2 {
            workload.wait_for(150).await;
            (0..6).for_each(|at| cluster.kill(at));
            (0..6).for_each(|at| cluster.spawn(at));
            (0..6).for_each(|at| cluster.wait_ready(at));
        }
        workload.wait_for(60).await;
        let history = workload.stop(clients).await;
        settled(&cluster, &history, IDS).await;
    });
}

/// The founder remembers a cluster of itself alone until it hears from the others.
#[test]
fn a_founder_that_was_killed_long_ago_comes_back_as_one_of_several() {
    let mut cluster = Cluster::start(3, 0);
    run(async {
        cluster.kill(0);
        let client = cluster.client(1, CALL * 6);
        eventually("a list by the others", async || client.list_collections(View::Basic, 10, String::new()).await)
            .await;
        cluster.restart(0);
        let client = cluster.client(0, CALL * 6);
        eventually("a list by the founder", async || client.list_collections(View::Basic, 10, String::new()).await)
            .await;
    });
}

#[test]
fn a_lost_majority_of_coordinators_serves_again_once_it_is_back() {
    let mut cluster = Cluster::start(3, 3);
    run(async {
        cluster.client(2, CALL * 6).create_collection(name("points"), schema()).await.expect("created");
        let client = cluster.client(2, CALL);
        client.upsert(name("points"), vec![point(1, 7)]).await.expect("written");
        cluster.kill(0);
        cluster.kill(1);
        let refused = client.with_deadline(CALL / 2).create_collection(name("more"), schema()).await;
        refused.expect_err("nothing is decided by one of three");
        // What needs no decision goes on.
        eventually("a write", async || client.upsert(name("points"), vec![point(2, 8)]).await).await;
        cluster.spawn(0);
        cluster.restart(1);
        cluster.wait_ready(0);
        eventually("a collection", async || client.create_collection(name("later"), schema()).await).await;
        for client in cluster.clients(CALL * 4) {
            let records = client.get(get("points", vec![1, 2], Consistency::Strong)).await.expect("read");
            assert_eq!(records.iter().map(told).collect::<Vec<_>>(), [(1, 7), (2, 8)]);
        }
    });
}

#[test]
fn a_node_that_has_moved_is_told_to_say_so_and_found_where_it_is_then() {
    let mut cluster = Cluster::start(1, 1);
    run(async {
        let client = cluster.client(0, CALL * 6);
        client.create_collection(name("points"), schema()).await.expect("created");
        client.upsert(name("points"), vec![point(1, 7)]).await.expect("written");
        cluster.kill(1);
        let mut elsewhere = cluster.new_member(Role::Shard, "elsewhere");
        cluster.members[1].swap_ports(&mut elsewhere);
        let command = cluster.command(&cluster.members[1], None);
        cluster.members[1].must_refuse(command, "give it --join and --join-token once more");
        cluster.restart(1);
        let read = async || client.get(get("points", vec![1], Consistency::Strong)).await;
        let found = eventually("a read of the node that has moved", read).await;
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), [(1, 7)]);
    });
}
