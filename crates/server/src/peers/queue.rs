//! What waits for one node.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{FRAME_BYTES, MAX_MESSAGE_BYTES};

/// A bounded queue from the Raft thread, which never waits, to the task of one node.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    overflowed: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    /// Something was dropped since the queue was last empty.
    overflowed: bool,
}

/// How many messages were not taken, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) closed: usize,
    pub(super) full: usize,
    pub(super) too_large: usize,
}

/// Messages that wait for one node: several rounds of thousands of groups.
const MAX_MESSAGES: usize = 16_384;
/// Their bytes: the largest message, and some more, so that it does not keep out the heartbeats behind it.
const MAX_BYTES: usize = 96 << 20;

impl Queue {
    /// Takes what fits.
    pub(super) fn push(&self, messages: Vec<Bytes>) -> Dropped {
        let mut dropped = Dropped::default();
        let mut state = self.lock();
        if state.closed {
            return Dropped { closed: messages.len(), ..dropped };
        }
        for message in messages {
            if message.len() > MAX_MESSAGE_BYTES {
                dropped.too_large += 1;
            } else if state.has_room_for(message.len()) {
                state.bytes += message.len();
                state.messages.push_back(message);
            } else {
                dropped.full += 1;
            }
        }
        let first_overflow = dropped.full > 0 && !std::mem::replace(&mut state.overflowed, true);
        drop(state);
        self.filled.notify_one();
        if first_overflow {
            self.overflowed.notify_one();
        }
        dropped
    }

    /// Waits until there is something. For one task at a time.
    pub(super) async fn filled(&self) {
        while self.lock().messages.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Waits until something did not fit, for the first time since the queue was last empty. For one task at a time.
    pub(super) async fn overflowed(&self) {
        self.overflowed.notified().await;
    }

    /// Takes out the messages of the next frame: one, and as many more as fit.
    pub(super) fn take_frame(&self) -> Vec<Bytes> {
        let mut state = self.lock();
        let (mut count, mut bytes) = (0, 0);
        for message in &state.messages {
            if count > 0 && bytes + message.len() > FRAME_BYTES {
                break;
            }
            count += 1;
            bytes += message.len();
        }
        state.bytes -= bytes;
        let frame = state.messages.drain(..count).collect();
        state.overflowed &= !state.messages.is_empty();
        frame
    }

    /// Drops what waits; returns how much that was.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.lock();
        let count = state.messages.len();
        *state = State { closed: state.closed, ..State::default() };
        count
    }

    /// Drops what waits and takes nothing any more.
    pub(super) fn close(&self) -> usize {
        self.lock().closed = true;
        self.clear()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.messages.len(), state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.messages.len() < MAX_MESSAGES && self.bytes + bytes <= MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_the_rest_leaves_in_order() {
        let queue = Queue::default();
        let numbers = |from: u64, to: u64| (from..to).map(|number| Bytes::from(number.to_string())).collect::<Vec<_>>();
        let max = MAX_MESSAGES as u64;
        assert_eq!(queue.push(numbers(0, max - 10)), Dropped::default());
        assert_eq!(queue.push(numbers(max - 10, max + 5)), Dropped { full: 5, ..Dropped::default() });
        assert_eq!(queue.waiting().0, MAX_MESSAGES);
        assert_eq!(queue.take_frame(), numbers(0, max));
        assert_eq!(queue.waiting(), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_the_largest_message_is_within_them() {
        let queue = Queue::default();
        let dropped = queue.push(vec![message(MAX_MESSAGE_BYTES + 1), message(MAX_MESSAGE_BYTES)]);
        assert_eq!(dropped, Dropped { too_large: 1, ..Dropped::default() });
        let left = MAX_BYTES - MAX_MESSAGE_BYTES;
        let dropped = queue.push(vec![message(left + 1), message(left), message(1), message(0)]);
        assert_eq!(dropped, Dropped { full: 2, ..Dropped::default() });
        assert_eq!(queue.waiting(), (3, MAX_BYTES));
        assert_eq!(queue.take_frame()[0].len(), MAX_MESSAGE_BYTES);
        assert_eq!(queue.waiting(), (2, left));
    }

    #[test]
    fn frames_hold_as_many_messages_as_fit() {
        let queue = Queue::default();
        let sizes = [FRAME_BYTES / 2, FRAME_BYTES / 2, 1, FRAME_BYTES, FRAME_BYTES + 1, 0];
        queue.push(sizes.into_iter().map(message).collect());
        let frames: Vec<usize> = std::iter::from_fn(|| Some(queue.take_frame().len()).filter(|len| *len > 0)).collect();
        assert_eq!(frames, [2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = Queue::default();
        queue.push(vec![message(1), message(1)]);
        assert_eq!(queue.close(), 2);
        assert_eq!(queue.push(vec![message(1)]), Dropped { closed: 1, ..Dropped::default() });
        assert_eq!(queue.clear(), 0);
        assert_eq!(queue.waiting(), (0, 0));
    }
}
