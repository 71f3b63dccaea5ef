//! A network within the process, which can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Transport;
use crate::ids::NodeId;

/// Mailboxes of nodes. Delivers only when somebody fetches, so that a test decides the order of events.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

/// One node's way into a [`MemoryNetwork`].
#[derive(Clone, Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: NodeId,
}

#[derive(Debug, Default)]
struct State {
    boxes: BTreeMap<NodeId, Vec<Bytes>>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

/// A mailbox that nobody empties stops growing here.
const MAX_MAILBOX: usize = 10_000;

impl MemoryNetwork {
    /// The transport of one node.
    pub fn of(&self, node: NodeId) -> MemoryTransport {
        MemoryTransport { network: self.clone(), node }
    }

    /// Takes what has arrived for a node.
    pub fn fetch(&self, node: NodeId) -> Vec<Bytes> {
        self.lock().boxes.remove(&node).unwrap_or_default()
    }

    /// Loses what is sent from one node to another from now on.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Cuts a node off in both directions.
    pub fn isolate(&self, node: NodeId, others: &[NodeId]) {
        for other in others {
            self.cut(node, *other);
            self.cut(*other, node);
        }
    }

    /// Delivers everything again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for MemoryTransport {
    fn send(&self, to: NodeId, messages: Vec<Bytes>) {
        let mut state = self.network.lock();
        if state.cut.contains(&(self.node, to)) {
            return;
        }
        let mailbox = state.boxes.entry(to).or_default();
        let room = MAX_MAILBOX.saturating_sub(mailbox.len());
        mailbox.extend(messages.into_iter().take(room));
    }
}
