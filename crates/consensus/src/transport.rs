//! How members reach each other.

pub(crate) mod memory;

use bytes::Bytes;

use crate::ids::NodeId;

/// Carries messages to other nodes: in order per destination where it can, and without waiting.
///
/// Messages are opaque. What cannot be delivered may be dropped, since Raft repeats what matters; a transport that
/// knows that a node is away says so with [`crate::HostHandle::unreachable`].
pub trait Transport: Send + Sync {
    /// Sends what one round of all groups has for one node.
    fn send(&self, to: NodeId, messages: Vec<Bytes>);
}

/// For a node whose groups have no other members: drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilentTransport;

impl Transport for SilentTransport {
    fn send(&self, _to: NodeId, _messages: Vec<Bytes>) {}
}
