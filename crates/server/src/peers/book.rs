//! Where nodes are.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_consensus::NodeId;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::net::Net;

/// The addresses of the other nodes, such as `http://10.0.0.7:6381`. Clones are the same book.
///
/// Addresses mean something on one network, the system's unless another is given. Nodes move: a change reaches the connections at once. A node that is not in it gets no messages.
#[derive(Clone, Debug, Default)]
pub struct AddressBook {
    net: Net,
    entries: Arc<watch::Sender<BTreeMap<NodeId, Uri>>>,
}

impl AddressBook {
    /// An empty book of addresses on a network.
    pub fn on(net: Net) -> Self {
        Self { net, ..Self::default() }
    }

    /// Connects to one of its addresses.
    pub(crate) async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        self.net.connect(endpoint).await
    }

    /// Notes where a node is now.
    pub fn set(&self, node: NodeId, address: Uri) {
        self.entries.send_if_modified(|entries| {
            let before = entries.insert(node, address);
            before.as_ref() != entries.get(&node)
        });
    }

    /// Forgets a node. What waits for it is dropped.
    pub fn remove(&self, node: NodeId) {
        self.entries.send_if_modified(|entries| entries.remove(&node).is_some());
    }

    /// Where a node is.
    pub fn get(&self, node: NodeId) -> Option<Uri> {
        self.entries.borrow().get(&node).cloned()
    }

    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.entries.borrow().contains_key(&node)
    }

    /// All entries, and their changes.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, Uri>> {
        self.entries.subscribe()
    }

    /// Waits until a node is elsewhere than at an address, or gone.
    pub(crate) async fn left(&self, node: NodeId, address: &Uri) {
        let mut entries = self.entries.subscribe();
        // Ends only on the condition: this book holds the sender.
        let _ = entries.wait_for(|entries| entries.get(&node) != Some(address)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_learns_of_a_move_and_of_a_removal_even_of_one_that_was_before() {
        let (book, node) = (AddressBook::default(), NodeId(7));
        let (here, there) = (Uri::from_static("http://a:1"), Uri::from_static("http://b:1"));
        assert!(!book.has(node));
        book.set(node, here.clone());
        assert!(is_pending(book.left(node, &here)), "nothing has changed");
        let (moved, ()) = tokio::join!(book.left(node, &here), async { book.set(node, there.clone()) });
        assert_eq!((moved, book.get(node)), ((), Some(there.clone())));
        book.remove(node);
        book.left(node, &there).await;
        assert!(!book.has(node));
    }

    fn is_pending(future: impl Future<Output = ()>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(future).poll(&mut context).is_pending()
    }
}
