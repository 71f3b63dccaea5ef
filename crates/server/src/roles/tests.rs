//! What a process tells the cluster of itself.

use super::*;
use crate::agent::tests::{ME, join, node};

#[tokio::test]
async fn a_start_is_announced_until_the_cluster_has_noted_its_number_and_place_and_then_no_more() {
    let (env, dir) = (Env::real(), tempfile::tempdir().unwrap());
    let (host, node) = node(dir.path());
    let folder = dir.path().join("control");
    let control = Control::open(&env, &folder, 1, vec![NodeId(ME)], &host.handle(), States::default()).await.unwrap();
    let own = Arc::new(OwnNode::new(node.clone(), Placed::default(), Some(control.clone())));
    let reports = Arc::new(Reports::new(env.clone()));
    let coordinator = Arc::new(Coordinator::new(env, ME, control.clone(), own, reports));
    let Command::Join { place: here, .. } = join() else { panic!("it joins") };
    let there = Place { peer_address: "http://n1:3".to_owned(), ..here.clone() };
    for (run, place) in [(1, &here), (2, &here), (3, &there)] {
        let this = Command::Join { id: ME, incarnation: 1, run, place: place.clone(), unix_micros: 1 };
        announce(coordinator.clone(), this.clone()).await;
        let state = control.state();
        let noted = &state.nodes()[&ME];
        assert_eq!((noted.run, &noted.place), (run, place));
        let before = *control.applied().borrow();
        announce(coordinator.clone(), this).await;
        assert_eq!(*control.applied().borrow(), before, "start {run} is noted already");
    }
    node.close().await;
}
