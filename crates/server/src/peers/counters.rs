//! What was sent, received and lost.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what happens between this node and the others. One for both directions; for metrics.
#[derive(Debug, Default)]
pub struct PeerCounters {
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) no_address: Counter,
    pub(super) queue_full: Counter,
    pub(super) too_large: Counter,
    pub(super) unreachable: Counter,
    pub(super) inbox_full: Counter,
    pub(super) connects: Counter,
    pub(super) reconnects: Counter,
    pub(super) failures: Counter,
    pub(super) refusals: Counter,
    pub(super) refused: Counter,
    pub(super) malformed: Counter,
}

/// The figures of a [`PeerCounters`] at one moment, all since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Messages given to a connection. Some may be lost when it breaks.
    pub sent: u64,
    /// Messages handed to the host.
    pub received: u64,
    /// Messages dropped because the address book does not have their node.
    pub dropped_no_address: u64,
    /// Messages dropped because too much was waiting for their node.
    pub dropped_queue_full: u64,
    /// Messages dropped because no frame can hold them.
    pub dropped_too_large: u64,
    /// Messages dropped because the connection to their node broke or could not be made.
    pub dropped_unreachable: u64,
    /// Messages that arrived and were dropped because the host had no room.
    pub dropped_inbox_full: u64,
    /// Times that another node let this one in.
    pub connects: u64,
    /// Those of them that were not the first time.
    pub reconnects: u64,
    /// Connections that broke or could not be made.
    pub failures: u64,
    /// Those of them where the other node refused this one.
    pub refused_by_others: u64,
    /// Callers that this node refused.
    pub refused: u64,
    /// Streams that this node ended because of what was sent on them.
    pub malformed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PeerCounters {
    /// The figures now.
    pub fn read(&self) -> PeerStats {
        PeerStats {
            sent: self.sent.get(),
            received: self.received.get(),
            dropped_no_address: self.no_address.get(),
            dropped_queue_full: self.queue_full.get(),
            dropped_too_large: self.too_large.get(),
            dropped_unreachable: self.unreachable.get(),
            dropped_inbox_full: self.inbox_full.get(),
            connects: self.connects.get(),
            reconnects: self.reconnects.get(),
            failures: self.failures.get(),
            refused_by_others: self.refusals.get(),
            refused: self.refused.get(),
            malformed: self.malformed.get(),
        }
    }
}
