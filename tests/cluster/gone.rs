//! Requests to nodes that no longer have the shard: an error that says so, and never the answer of something else.

use std::time::Duration;

use sagitta_callers::{DIM, contents, get, name, point, schema, search};
use sagitta_client::{Client, CreateCollection, Searches};
use sagitta_model::{Consistency, ErrorKind};

use crate::harness::{Cluster, eventually, run};
use crate::network::Network;
use crate::workload::{CALL, at_rest};

const IDS: u64 = 20;
/// A coordinator that is cut off from the others.
const BEHIND: usize = 2;

async fn create(cluster: &Cluster, value: u64) {
    let mut create = CreateCollection::new(name("points"), schema());
    (create.shards, create.replication) = (Some(2), Some(3));
    let client = cluster.client(0, CALL * 6);
    eventually("a collection", async || client.create(create.clone()).await).await;
    let points = (0..IDS).map(|id| point(id, value + id)).collect();
    client.upsert(name("points"), points).await.expect("written");
}

/// How long a call may take: nodes refuse at once, and the coordinator goes on asking for as long as it may.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// Asks for everything that there is to ask for, and returns how each was refused.
async fn ask(client: &Client) -> Vec<(&'static str, ErrorKind, String)> {
    let mut refused = Vec::new();
    let mut note = |what, error: Option<sagitta_client::ClientError>| {
        let error = error.unwrap_or_else(|| panic!("{what} was answered, and the collection is gone"));
        refused.push((what, error.kind, error.message));
    };
    for (what, consistency) in [("an eventual get", Consistency::Eventual), ("a strong get", Consistency::Strong)] {
        note(what, client.get(get("points", (0..IDS).collect(), consistency)).await.err());
    }
    for (what, allow_partial) in [("a search", false), ("a search for what there is", true)] {
        let all = search("points", vec![0.0; DIM], IDS as usize);
        let searches = Searches { consistency: Consistency::Eventual, allow_partial, ..all };
        // A partial answer may lack everything if it says so; hits there are none any more.
        match client.search(searches).await {
            Ok(answer) if allow_partial => {
                assert_eq!(
                    (answer.results[0].hits.len(), answer.coverage.missing.len()),
                    (0, 2),
                    "{:?}",
                    answer.coverage
                );
            }
            answered => note(what, answered.err()),
        }
    }
    note("a scroll", contents(client, "points").await.err());
    note("a write", client.upsert(name("points"), vec![point(1, 1)]).await.err());
    refused
}

/// Each must say what was refused, and not only that time is up.
fn refused(answers: Vec<(&'static str, ErrorKind, String)>) {
    for (what, kind, message) in answers {
        println!("{what}: {kind:?}: {message}");
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound), "{what}: {kind:?}: {message}");
        assert!(!message.contains("Timeout expired"), "{what}: {kind:?}: {message}");
    }
}

#[test]
fn a_coordinator_that_has_not_heard_of_a_deletion_is_refused_by_the_nodes_and_answers_nothing_wrong() {
    let Some(network) = Network::new() else { return };
    let cluster = Cluster::start_with(3, 3, |at, member| network.attach(at, member));
    run(async {
        create(&cluster, 0).await;
        let (first, behind) = (cluster.client(0, CALL * 6), cluster.client(BEHIND, LONG_ENOUGH));
        assert_eq!(at_rest(&cluster.client(BEHIND, CALL * 6), "points", IDS).await.len() as u64, IDS);
        for other in [0, 1] {
            network.cut(&cluster.members[BEHIND], &cluster.members[other]);
            network.cut(&cluster.members[other], &cluster.members[BEHIND]);
        }
        let delete = async || first.delete_collection(name("points"), true).await;
        eventually("a deletion by the two others", delete).await;
        let folders = |at: usize| match std::fs::read_dir(cluster.members[at].data.join("shards")) {
            Ok(entries) => entries.count(),
            Err(_) => 0,
        };
        let removed = async || match cluster.shard_nodes().into_iter().map(folders).sum::<usize>() {
            0 => Ok(()),
            some => Err(format!("{some} replicas are there")),
        };
        eventually("the removal of all replicas", removed).await;
        refused(ask(&behind).await);
        // A younger collection of that name is another one: the coordinator that is behind cannot mistake it for the old one.
        create(&cluster, 50).await;
        refused(ask(&behind).await);
        assert!(network.has_dropped(), "nothing was lost");
        network.heal();
        let caught_up = async || contents(&behind, "points").await;
        let found = eventually("the younger collection by who was behind", caught_up).await;
        assert_eq!(found, (0..IDS).map(|id| (id, 50 + id)).collect());
    });
}
