//! Nodes that show each other certificates, and those that cannot.

use sagitta_consensus::{NodeId, Transport as _};
use sagitta_env::Env;
use sagitta_tls::testing::{Authority, Identity};
use sagitta_tls::{Acceptor, ClientTls, Connector, ServerTls};
use tokio::net::TcpListener;

use super::rig::*;
use crate::net::{Door, Net};

async fn receiver(authority: &Authority, identity: &Identity) -> Receiver {
    let Identity { cert, key } = identity.clone();
    let settings = ServerTls { cert, key, client_ca: Some(authority.path()) };
    let acceptor = Acceptor::new(settings, &Env::real()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Receiver::start_behind(Door::from(listener).with_tls(Some(acceptor)), crate::peers::tests::rig::identity(2))
}

fn net(authority: &Authority, identity: Option<&Identity>) -> Net {
    let (cert, key) = identity.map(|identity| (identity.cert.clone(), identity.key.clone())).unzip();
    let settings = ClientTls { ca: Some(authority.path()), cert, key, name: None };
    Net::system().with_tls(Some(Connector::new(settings, &Env::real()).unwrap()))
}

#[tokio::test]
async fn messages_come_from_nodes_with_a_certificate_of_the_authority_and_from_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(folder.path(), name));
    let [first, second] = ["first", "second"].map(|name| ours.sign(name, &["127.0.0.1"]));
    let stranger = theirs.sign("stranger", &["127.0.0.1"]);
    let receiver = receiver(&ours, &second).await;
    let strangers = [net(&ours, Some(&stranger)), net(&ours, None), net(&theirs, Some(&first)), Net::system()];
    for (number, net) in strangers.into_iter().enumerate() {
        let sender = Sender::start_on(net, identity(3 + number as u64), brisk());
        sender.book.set(NodeId(2), receiver.uri());
        for _ in 0..3 {
            let before = sender.stats().failures;
            sender.transport.send(NodeId(2), vec![text(1)]);
            until("it is not let in", || sender.stats().failures > before).await;
        }
        assert_eq!(sender.stats().connects, 0, "stranger {number}");
        sender.sending.stop().await;
    }
    assert_eq!(receiver.stats().received, 0);

    let sender = Sender::start_on(net(&ours, Some(&first)), identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    let large = bytes::Bytes::from(vec![7; 3 << 20]);
    sender.transport.send(NodeId(2), vec![text(1), large.clone(), text(2)]);
    receiver.inbox.wait_for_messages(3).await;
    receiver.inbox.read(|record| assert_eq!(record.messages, [text(1), large, text(2)]));
    sender.sending.stop().await;
    receiver.listener.stop().await;
}

#[tokio::test]
async fn a_node_whose_certificate_is_for_another_address_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let [here, elsewhere] = [("here", "127.0.0.1"), ("elsewhere", "10.0.0.7")].map(|(name, at)| ours.sign(name, &[at]));
    let receiver = receiver(&ours, &elsewhere).await;
    let sender = Sender::start_on(net(&ours, Some(&here)), identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    sender.transport.send(NodeId(2), vec![text(1)]);
    until("it is not spoken to", || sender.stats().failures > 0).await;
    assert_eq!((sender.stats().connects, receiver.stats().received), (0, 0));
    sender.sending.stop().await;
}
