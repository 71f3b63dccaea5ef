//! Nodes join, report, and learn what the cluster is.

use std::sync::Arc;

use sagitta_cluster::{Report, State};
use sagitta_consensus::NodeId;
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::control::{Join, Joined};
use sagitta_wire::internal as p;
use sagitta_wire::internal::control_service_client::ControlServiceClient;
use sagitta_wire::peer::refusal;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Endpoint;

use super::super::{Attendant, join};
use super::rig::*;
use crate::Seen;
use crate::net::Net;
use crate::peers::AddressBook;

/// A node that attends.
struct Attending {
    book: AddressBook,
    reports: watch::Sender<Report>,
    states: Arc<watch::Sender<Option<Seen>>>,
    attendant: Attendant,
}

impl Attending {
    fn start(node: u64) -> Self {
        let (book, reports, states) = (AddressBook::default(), watch::Sender::new(report(1)), Arc::default());
        let attendant = Attendant::start_in(
            &Env::real(),
            identity(node),
            book.clone(),
            reports.subscribe(),
            Arc::clone(&states),
            brisk(),
        );
        Self { book, reports, states, attendant }
    }

    async fn wait_for_state(&self, index: u64) -> Seen {
        let mut states = self.states.subscribe();
        let newest = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.index == index);
        let seen = within(&format!("state {index} arrives"), states.wait_for(newest)).await.unwrap().clone();
        seen.unwrap()
    }
}

fn report(searches_waiting: u32) -> Report {
    Report { searches_waiting, ..Report::default() }
}

#[tokio::test]
async fn reports_arrive_at_once_and_whenever_they_change_and_while_nothing_changes() {
    let coordinators = [Served::start(identity(2)).await, Served::start(identity(3)).await];
    let attending = Attending::start(1);
    for (node, coordinator) in [2, 3].into_iter().zip(&coordinators) {
        attending.book.set(NodeId(node), coordinator.uri());
    }
    for number in 1..=5 {
        attending.reports.send_replace(report(number));
        for coordinator in &coordinators {
            let newest = |told: &(NodeId, Report)| *told == (NodeId(1), report(number));
            coordinator.members.wait_for_report("the newest report", newest).await;
        }
    }
    let heard = coordinators[0].members.reports.borrow().len();
    let mut reports = coordinators[0].members.reports.subscribe();
    within("another one a second later", reports.wait_for(|reports| reports.len() > heard)).await.unwrap();
}

#[tokio::test]
async fn the_newest_state_arrives_at_once_and_every_later_one_that_is_the_last() {
    let coordinator = Served::start(identity(2)).await;
    coordinator.members.states.send_replace(Some(seen(1)));
    let nodes: Vec<Attending> = [1, 3, 4].into_iter().map(Attending::start).collect();
    for node in &nodes {
        node.book.set(NodeId(2), coordinator.uri());
    }
    for index in [1, 2, 3, 7, 20] {
        coordinator.members.states.send_replace(Some(seen(index)));
        for node in &nodes {
            let arrived = node.wait_for_state(index).await;
            assert_eq!(arrived.state, seen(index).state);
        }
    }
}

#[tokio::test]
async fn a_connection_that_broke_is_resumed_and_states_never_go_back() {
    let (first, second) = (Served::start(identity(2)).await, Served::start(identity(3)).await);
    let attending = Attending::start(1);
    let mut states = attending.states.subscribe();
    let history = beside(async move {
        let mut history = Vec::new();
        while states.changed().await.is_ok() {
            history.push(states.borrow_and_update().as_ref().unwrap().index);
        }
        history
    });
    let wire = Wire::to(first.address()).await;
    attending.book.set(NodeId(2), wire.uri.clone());
    attending.book.set(NodeId(3), second.uri());
    first.members.states.send_replace(Some(seen(5)));
    attending.wait_for_state(5).await;
    // Another coordinator is behind, and later ahead.
    second.members.states.send_replace(Some(seen(3)));
    for number in 2..=6 {
        wire.cut();
        attending.reports.send_replace(report(number));
        let newest = |told: &(NodeId, Report)| told.1 == report(number);
        first.members.wait_for_report("reports are resumed", newest).await;
        second.members.wait_for_report("reports go on", newest).await;
    }
    assert!(wire.connections() >= 2, "{}", wire.connections());
    assert_eq!(attending.states.borrow().as_ref().unwrap().index, 5);
    second.members.states.send_replace(Some(seen(8)));
    attending.wait_for_state(8).await;

    // It restarts from what it had on disk.
    let address = first.address();
    attending.book.set(NodeId(2), first.uri());
    first.stop().await;
    let restarted = Served::start_at(identity(2), &address, Arc::default(), Arc::default()).await;
    restarted.members.states.send_replace(Some(seen(2)));
    attending.reports.send_replace(report(9));
    let newest = |told: &(NodeId, Report)| told.1 == report(9);
    restarted.members.wait_for_report("reports are resumed", newest).await;
    restarted.members.states.send_replace(Some(seen(4)));
    second.members.states.send_replace(Some(seen(9)));
    attending.wait_for_state(9).await;
    restarted.members.states.send_replace(Some(seen(10)));
    attending.wait_for_state(10).await;
    attending.attendant.stop().await;
    drop(attending.states);
    let history = within("all is told", history).await.unwrap();
    assert!(history.is_sorted_by(|a, b| a < b), "{history:?}");
}

#[tokio::test]
async fn a_coordinator_that_left_the_book_or_is_this_node_itself_is_not_attended() {
    let (own, other) = (Served::start(identity(1)).await, Served::start(identity(2)).await);
    let attending = Attending::start(1);
    attending.book.set(NodeId(1), own.uri());
    attending.book.set(NodeId(2), other.uri());
    other.members.wait_for_report("the other one is attended", |told| told.1 == report(1)).await;
    attending.book.remove(NodeId(2));
    let moved = Served::start(identity(3)).await;
    attending.book.set(NodeId(3), moved.uri());
    moved.members.wait_for_report("the next one is attended", |told| told.1 == report(1)).await;
    let mut listening = other.members.states.subscribe();
    drop(listening.borrow_and_update());
    within("the stream of the one that left ends", async {
        while other.members.states.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let heard = other.members.reports.borrow().len();
    for number in 2..=5 {
        attending.reports.send_replace(report(number));
        moved.members.wait_for_report("reports go on", |told| told.1 == report(number)).await;
    }
    assert_eq!(other.members.reports.borrow().len(), heard);
    assert_eq!(own.members.reports.borrow().len(), 0);
}

#[tokio::test]
async fn a_state_of_another_cluster_is_not_believed() {
    let (wrong, right) = (Served::start(identity(2)).await, Served::start(identity(3)).await);
    let attending = Attending::start(1);
    let foreign = Seen { index: 50, state: Arc::new(State::new(0xbad)) };
    wrong.members.states.send_replace(Some(foreign));
    let wire = Wire::to(wrong.address()).await;
    attending.book.set(NodeId(2), wire.uri.clone());
    let mut connections = wire.connections.subscribe();
    within("it is left, and attended again", connections.wait_for(|count| *count > 1)).await.unwrap();
    assert!(attending.states.borrow().is_none());
    right.members.states.send_replace(Some(seen(3)));
    attending.book.set(NodeId(3), right.uri());
    attending.wait_for_state(3).await;
}

#[tokio::test]
async fn a_node_is_let_in_or_told_why_not() {
    let coordinator = Served::start(identity(2)).await;
    let (env, asking) = (
        Env::real(),
        Join {
            token: "secret".to_owned(),
            node: 7,
            incarnation: 8,
            place: place(),
            cluster: None,
            run: identity(7).run,
        },
    );
    let joined = Joined { cluster: CLUSTER.0, coordinators: vec![(2, "http://10.0.0.2:6381".to_owned())] };
    assert_eq!(join(&env, &Net::system(), &coordinator.uri(), asking.clone()).await, Ok(joined));
    assert_eq!(*coordinator.members.joins.borrow(), std::slice::from_ref(&asking));

    let refused = Failure::new(ErrorKind::Denied, "that is not the token of this cluster").with_reason("OTHER_TOKEN");
    *coordinator.members.joined.lock().unwrap() = Err(refused.clone());
    assert_eq!(join(&env, &Net::system(), &coordinator.uri(), asking.clone()).await, Err(refused));

    let mut client = ControlServiceClient::new(Endpoint::from(coordinator.uri()).connect().await.unwrap());
    let newer = p::JoinRequest { protocol: 2, ..Default::default() };
    let failure = Failure::from_status(&client.join(newer).await.unwrap_err());
    assert_eq!(failure.reason, refusal::OTHER_PROTOCOL);
    assert_eq!(coordinator.members.joins.borrow().len(), 2);

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = join(&env, &Net::system(), &uri(nobody), asking).await.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Unavailable);
    assert!(failure.message.contains(&nobody.to_string()), "{failure}");
}

#[tokio::test]
async fn nonsense_ends_the_stream_that_it_came_on() {
    let coordinator = Served::start(identity(2)).await;
    let mut client = ControlServiceClient::new(Endpoint::from(coordinator.uri()).connect().await.unwrap());
    let nonsense = p::NodeReport { replicas: vec![p::ReplicaReport::default()], ..Default::default() };
    let mut request = tonic::Request::new(tokio_stream::iter([nonsense]));
    identity(1).hello_to(NodeId(2)).write_to(request.metadata_mut());
    let mut states = client.attend(request).await.unwrap().into_inner();
    let failure = Failure::from_status(&states.message().await.unwrap_err());
    assert_eq!(failure.violations[0].field, "replicas[0].role");
    assert_eq!(coordinator.members.reports.borrow().len(), 0);
}
