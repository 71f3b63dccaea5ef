//! A steward of a node over the twins of its engines.

use sagitta_cluster::{Command, Floor, NodeStatus, Place, Roles};
use sagitta_model::{ErrorKind, Problem};

use super::*;
use crate::agent::tests::{LEFT, ME, MIDDLE, RIGHT, create, join, node, split_up_to};
use crate::agent::{Agent, Followed, Placed};

const OTHER: u64 = 2;

/// A node that hosts the shard of a collection with so many replicas, and the state that says so.
async fn hosting(dir: &std::path::Path, replicas: u32) -> (sagitta_consensus::Host, Arc<Node>, State) {
    let (host, node) = node(dir);
    let followed = Followed::open(dir.join("followed.json")).unwrap();
    let mut agent = Agent::new(Env::real(), ME, node.clone(), Placed::default(), followed);
    let mut state = State::new(1);
    let up = |id| Command::SetNodeStatus { id, status: NodeStatus::Up };
    let roles = Roles { coordinator: false, shard: true };
    let place = Place { peer_address: "http://n2:2".into(), api_address: "http://n2:1".into(), zone: "".into(), roles };
    let other = Command::Join { id: OTHER, incarnation: 2, run: 0, place, unix_micros: 1 };
    let Command::CreateCollection { request_id, id, name, schema, shards, unix_micros, .. } = create(1) else {
        panic!("another command")
    };
    let replication = replicas;
    let create = Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros };
    let others = if replicas > 1 { vec![other, up(OTHER)] } else { vec![] };
    for command in [join(), up(ME)].into_iter().chain(others).chain([create]) {
        state.apply(command).unwrap();
    }
    agent.follow(&Seen { index: 1, state: Arc::new(state.clone()) }).await.unwrap();
    (host, node, state)
}

#[tokio::test]
async fn who_does_not_lead_prepares_a_split_too_and_lets_go_of_one_that_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    // Alone, one of two leads nothing.
    let (_host, node, mut state) = hosting(dir.path(), 2).await;
    let (steward, replica) = (Steward::new(Env::real(), ME, node.clone()), node.replica(LEFT).unwrap());
    assert!(!steward.look(&state).await && !replica.is_prepared(MIDDLE));
    split_up_to(&mut state, SplitStep::Prepare);
    assert!(steward.look(&state).await);
    assert!(replica.is_prepared(MIDDLE) && replica.status().role != Role::Leader);
    let (from, to, at) = (SplitStep::Prepare, SplitStep::Cancelled, Floor { term: 0, index: 0 });
    state.apply(Command::AdvanceSplit { id: 1, from, to, at, unix_micros: 2 }).unwrap();
    assert!(!steward.look(&state).await && !replica.is_prepared(MIDDLE));
    drop(replica);
    node.close().await;
}

#[tokio::test]
async fn a_split_that_has_come_is_proposed_and_prepared_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node, mut state) = hosting(dir.path(), 1).await;
    let (steward, replica) = (Steward::new(Env::real(), ME, node.clone()), node.replica(LEFT).unwrap());
    split_up_to(&mut state, SplitStep::Prepare);
    assert!(steward.look(&state).await && replica.is_prepared(MIDDLE));
    assert!(!replica.is_split_from(RIGHT), "it may be cancelled yet");
    split_up_to(&mut state, SplitStep::Divide);
    while !replica.is_split_from(RIGHT) {
        assert!(steward.look(&state).await);
    }
    let last = replica.status().last;
    for _ in 0..3 {
        assert!(steward.look(&state).await, "the control state does not know of it yet");
    }
    assert_eq!((replica.status().last, replica.is_prepared(MIDDLE)), (last, false));
    drop(replica);
    node.close().await;
}

#[tokio::test]
async fn that_a_split_does_not_come_about_is_told_once_for_each_kind_of_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, node, mut state) = hosting(dir.path(), 1).await;
    let steward = Steward::new(Env::real(), ME, node.clone());
    let refused = |message: &str| {
        NodeError::Command(Problem { kind: ErrorKind::Invalid, message: message.to_owned(), violations: vec![] })
    };
    let failed = NodeError::Failed { what: "preparing the split" };
    assert!(
        !steward.is_news(1, &NodeError::NotLeader { hint: None }) && !steward.is_news(1, &NodeError::DeadlinePassed)
    );
    let told = [refused("one"), refused("another"), failed, refused("one")].map(|error| steward.is_news(1, &error));
    assert_eq!(told, [true, false, true, true]);
    assert!(steward.is_news(2, &refused("one")), "another split");
    split_up_to(&mut state, SplitStep::Prepare);
    steward.look(&state).await;
    assert!(!steward.is_news(1, &refused("one")), "it is under way");
    assert!(steward.is_news(2, &refused("one")), "it is over, and nothing is kept of it");
    node.close().await;
}
