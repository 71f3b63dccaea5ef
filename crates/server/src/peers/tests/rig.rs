//! What the tests share: identities, an inbox that remembers, one node's half of a connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::{ClusterId, NodeId, Shelf};
use sagitta_env::Env;
use sagitta_wire::peer::Run;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Uri;

use super::super::transport::outbound_in;
use super::super::{
    AddressBook, GrpcTransport, Guests, Inbox, PeerCounters, PeerIdentity, PeerListener, PeerStats, Sending, Timing,
};
use crate::net::{Door, Net};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
/// Hangs become failures. Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn identity(node: u64) -> PeerIdentity {
    let run = Run { number: 1, id: u128::from(node), address: ([10, 0, 0, node as u8], 6_381).into() };
    PeerIdentity { cluster: CLUSTER, node: NodeId(node), incarnation: 0xf0 + u128::from(node), run }
}

/// Little waiting between attempts.
pub(crate) fn brisk() -> Timing {
    let short = Duration::from_millis(20);
    Timing { min_backoff: Duration::from_millis(2), max_backoff: short, refused_backoff: short, ..Timing::default() }
}

/// The seed of a test: its own, or that of the environment. Printed.
pub(crate) fn seed(own: u64) -> u64 {
    let seed = std::env::var("SAGITTA_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(own);
    println!("seed {seed}");
    seed
}

/// Awaits a condition.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match Env::real().timeout(PATIENCE, Box::pin(future)).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Awaits a condition that nobody announces.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let polling = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    within(what, polling).await;
}

/// An inbox that remembers. Clones are the same.
#[derive(Clone)]
pub(crate) struct Recorder {
    state: Arc<watch::Sender<Record>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) messages: Vec<Bytes>,
    pub(crate) unreachable: Vec<NodeId>,
    /// Frames that find no room.
    pub(crate) full: bool,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(Record::default())) }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.state.borrow())
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state.send_modify(|record| record.full = full);
    }

    pub(crate) async fn wait(&self, what: &str, condition: impl FnMut(&Record) -> bool) {
        let mut watching = self.state.subscribe();
        within(what, watching.wait_for(condition)).await.unwrap();
    }

    pub(crate) async fn wait_for_messages(&self, count: usize) {
        self.wait(&format!("{count} messages"), |record| record.messages.len() >= count).await;
    }
}

impl Inbox for Recorder {
    fn receive(&self, messages: Vec<Bytes>) -> bool {
        let mut taken = false;
        self.state.send_modify(|record| {
            taken = !record.full;
            if taken {
                record.messages.extend(messages);
            }
        });
        taken
    }

    fn unreachable(&self, node: NodeId) {
        self.state.send_modify(|record| record.unreachable.push(node));
    }
}

/// A node that sends.
pub(crate) struct Sender {
    pub(crate) transport: Arc<GrpcTransport>,
    pub(crate) book: AddressBook,
    pub(crate) inbox: Recorder,
    counters: Arc<PeerCounters>,
    pub(crate) sending: Sending,
}

impl Sender {
    pub(crate) fn start(me: PeerIdentity, timing: Timing) -> Self {
        Self::start_on(Net::system(), me, timing)
    }

    pub(crate) fn start_on(net: Net, me: PeerIdentity, timing: Timing) -> Self {
        let (book, counters, inbox) = (AddressBook::on(net), Arc::new(PeerCounters::default()), Recorder::new());
        let (transport, outbound) = outbound_in(&Env::real(), me, book.clone(), counters.clone(), timing);
        let sending = outbound.start(Arc::new(inbox.clone()));
        Self { transport: Arc::new(transport), book, inbox, counters, sending }
    }

    pub(crate) fn stats(&self) -> PeerStats {
        self.counters.read()
    }
}

/// A node that receives.
pub(crate) struct Receiver {
    pub(crate) listener: PeerListener,
    pub(crate) inbox: Recorder,
    pub(crate) shelf: Shelf,
    counters: Arc<PeerCounters>,
}

impl Receiver {
    pub(crate) async fn start(me: PeerIdentity) -> Self {
        Self::start_at(me, "127.0.0.1:0").await
    }

    pub(crate) async fn start_at(me: PeerIdentity, address: &str) -> Self {
        Self::start_behind(TcpListener::bind(address).await.unwrap().into(), me)
    }

    pub(crate) fn start_behind(listener: Door, me: PeerIdentity) -> Self {
        let (counters, inbox) = (Arc::new(PeerCounters::default()), Recorder::new());
        let (taken, shelf) = (Arc::new(inbox.clone()), Shelf::default());
        let listener = PeerListener::start(
            &Env::real(),
            listener,
            Guests::of(me),
            taken,
            shelf.clone(),
            counters.clone(),
            Routes::default(),
        )
        .unwrap();
        Self { listener, inbox, shelf, counters }
    }

    pub(crate) fn uri(&self) -> Uri {
        uri(self.listener.address())
    }

    pub(crate) fn stats(&self) -> PeerStats {
        self.counters.read()
    }
}

pub(crate) fn uri(address: impl std::fmt::Display) -> Uri {
    format!("http://{address}").parse().unwrap()
}

pub(crate) fn text(number: usize) -> Bytes {
    Bytes::from(number.to_string())
}
