//! Which nodes are connected to this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagitta_consensus::NodeId;
use tokio::sync::oneshot;

/// One place for each sender.
#[derive(Debug, Default)]
pub(super) struct Guests {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seats: BTreeMap<NodeId, Seat>,
    last_number: u64,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    incarnation: u128,
    /// Dropped when a newer stream takes the place.
    _taken: oneshot::Sender<()>,
}

/// A sender whose stream is open. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    node: NodeId,
    number: u64,
    taken: oneshot::Receiver<()>,
}

impl Guests {
    /// Lets a sender in. An older stream of the same incarnation is told to go: its connection has broken unnoticed. While
    /// another incarnation is there, the error names it.
    pub(super) fn enter(self: &Arc<Self>, node: NodeId, incarnation: u128) -> Result<Guest, u128> {
        let (seat_taken, taken) = oneshot::channel();
        let mut state = self.lock();
        match state.seats.get(&node) {
            Some(seat) if seat.incarnation != incarnation => return Err(seat.incarnation),
            _ => {}
        }
        state.last_number += 1;
        let number = state.last_number;
        state.seats.insert(node, Seat { number, incarnation, _taken: seat_taken });
        Ok(Guest { guests: self.clone(), node, number, taken })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Who it is.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Waits until a newer stream of the same sender has taken the place.
    pub(super) async fn replaced(&mut self) {
        // The other half is never used, only dropped.
        let _ = (&mut self.taken).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.guests.lock();
        if state.seats.get(&self.node).is_some_and(|seat| seat.number == self.number) {
            state.seats.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_stream_takes_the_place_and_the_older_ones_leaving_does_not_free_it() {
        let guests = Arc::new(Guests::default());
        let mut old = guests.enter(NodeId(1), 10).unwrap();
        let new = guests.enter(NodeId(1), 10).unwrap();
        old.replaced().await;
        drop(old);
        assert_eq!(guests.enter(NodeId(1), 11).unwrap_err(), 10);
        assert_eq!(guests.enter(NodeId(2), 11).unwrap().node(), NodeId(2));
        drop(new);
        assert!(guests.enter(NodeId(1), 11).is_ok());
        assert!(guests.lock().seats.is_empty());
    }
}
