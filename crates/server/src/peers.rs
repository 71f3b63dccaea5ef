//! The network between the Raft hosts of several nodes: one gRPC stream for each ordered pair of them, and whole states
//! beside it. Its listener serves whatever else nodes say to each other, too.
//!
//! [`GrpcTransport`] takes what a host has for others, in bounded queues, and never waits; the tasks of [`Outbound`]
//! bring it there. A [`PeerListener`] takes what others bring and hands it to the host. What does not fit or cannot be
//! delivered is dropped and counted, since Raft repeats what matters. Where nodes are stands in an [`AddressBook`],
//! which may change at any time.
//!
//! Whoever reaches the listener and names the right cluster and nodes is believed, so only nodes may reach it: those with a certificate,
//! where connections between nodes are encrypted ([`PeerTls`](crate::PeerTls)). Both sides are prepared before anything here begins: the
//! book's network encrypts what this side connects to, the listener's `Door` what comes in.

mod book;
mod counters;
mod guests;
mod link;
mod listener;
mod pace;
mod queue;
mod states;
mod throttle;
mod transport;

use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::{ClusterId, HostHandle, MAX_PROPOSAL_BYTES, NodeId};
use sagitta_wire::peer::{Hello, PROTOCOL, Run};
use tokio::sync::watch;

pub use book::AddressBook;
pub use counters::{PeerCounters, PeerStats};
pub use guests::Guests;
pub(crate) use guests::{Topic, is_overtaken};
pub(crate) use link::{Broken, endpoint};
pub use listener::PeerListener;
pub(crate) use listener::let_in;
pub(crate) use pace::{Cause, Pace};
pub use states::{Lending, StateFetcher};
pub use throttle::Throttle;
pub use transport::{GrpcTransport, Outbound, Sending, outbound};

/// Who this node is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster. Another one's messages are refused.
    pub cluster: ClusterId,
    /// The node, as Raft groups name their members.
    pub node: NodeId,
    /// UUID of the data folder.
    pub incarnation: u128,
    /// Which run of it this is.
    pub run: Run,
}

impl PeerIdentity {
    /// How this node introduces itself to another one.
    pub(crate) fn hello_to(&self, receiver: NodeId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            cluster: self.cluster.0,
            sender: self.node.0,
            incarnation: self.incarnation,
            receiver: receiver.0,
            run: self.run,
        }
    }
}

/// What messages are for: a Raft host, from any thread and without waiting.
pub trait Inbox: Send + Sync + 'static {
    /// Takes the messages of a frame, in order; false when there was no room and they were dropped.
    fn receive(&self, messages: Vec<Bytes>) -> bool;

    /// Learns that what was sent to a node lately may not have arrived.
    fn unreachable(&self, node: NodeId);
}

impl Inbox for HostHandle {
    fn receive(&self, messages: Vec<Bytes>) -> bool {
        HostHandle::receive(self, messages)
    }

    fn unreachable(&self, node: NodeId) {
        HostHandle::unreachable(self, node);
    }
}

/// The largest message: the largest entry that consensus takes, 80 MiB, and what surrounds it.
const MAX_MESSAGE_BYTES: usize = MAX_PROPOSAL_BYTES + (64 << 10);
/// What a frame holds unless a single message is larger: large enough to cost nothing beside its contents, small
/// enough that copying it does not hold up the connection.
const FRAME_BYTES: usize = 4 << 20;
/// The largest frame as it is encoded: the largest message and the few bytes that protobuf puts before it.
/// The proto file names it in its comments.
const MAX_FRAME_BYTES: usize = 81 << 20;

/// How long things may take between nodes. One value suits all networks; tests have less patience.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// To connect, and then to be let in: several times the way around the world.
    pub(crate) handshake: Duration,
    /// An idle connection is asked this often whether anybody is there.
    pub(crate) ping_every: Duration,
    /// Without an answer within this, nobody is. Longer than a pause that a busy process or a moved virtual machine
    /// makes.
    pub(crate) ping_timeout: Duration,
    /// The first wait after a connection broke; doubles up to `max_backoff`.
    pub(crate) min_backoff: Duration,
    /// A node that is back is reached within this, soon enough to take part in the next election.
    pub(crate) max_backoff: Duration,
    /// The wait after a refusal, which only a person or a new address can change.
    pub(crate) refused_backoff: Duration,
    /// Without a byte of a state within this, fetching it is given up, and so is handing one out that nobody takes.
    pub(crate) fetch_patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            ping_every: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            refused_backoff: Duration::from_secs(10),
            fetch_patience: Duration::from_secs(60),
        }
    }
}

/// Waits until told to stop, or until nobody could tell any more.
pub(crate) async fn until_told(mut told: watch::Receiver<bool>) {
    let _ = told.wait_for(|told| *told).await;
}

#[cfg(test)]
pub(crate) mod tests;
