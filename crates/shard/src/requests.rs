use std::collections::{HashMap, VecDeque};

use crate::records::Request;

/// Request ids that a shard remembers, by log order: a number and no time, since ids carry none and what is remembered must follow
/// from the log alone. A request that is repeated after as many others is applied again.
pub(crate) const MAX_REQUESTS: usize = 65_536;

/// The last commands that were applied, by request id. Their outcomes are in the database.
///
/// What is in it follows from the log alone: every replica remembers and forgets the same.
#[derive(Debug, Default)]
pub(crate) struct RequestWindow {
    by_id: HashMap<u128, Known>,
    /// Ascending by log index.
    order: VecDeque<(u64, u128)>,
}

/// A request that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The log index under which it was.
    pub(crate) index: u64,
    /// Hash of what was asked for.
    pub(crate) hash: u64,
}

impl RequestWindow {
    /// What is known of a request.
    pub(crate) fn find(&self, request_id: u128) -> Option<Known> {
        self.by_id.get(&request_id).copied()
    }

    /// Remembers a request that was not found, applied after all others.
    pub(crate) fn push(&mut self, index: u64, request: Request) {
        debug_assert!(self.order.back().is_none_or(|(last, _)| *last < index));
        self.by_id.insert(request.id, Known { index, hash: request.hash });
        self.order.push_back((index, request.id));
    }

    /// Whether so many are remembered that all others are forgotten, after `new` were pushed.
    pub(crate) fn is_full(&self, new: usize) -> bool {
        self.order.len() + new >= MAX_REQUESTS
    }

    /// The oldest ones, of which so many more than [`MAX_REQUESTS`] there will be after `new` were pushed.
    pub(crate) fn overdue(&self, new: usize) -> impl Iterator<Item = u64> + '_ {
        let excess = (self.order.len() + new).saturating_sub(MAX_REQUESTS);
        self.order.iter().take(excess).map(|(index, _)| *index)
    }

    /// Forgets the oldest until no more than [`MAX_REQUESTS`] are left.
    pub(crate) fn prune(&mut self) {
        while self.order.len() > MAX_REQUESTS
            && let Some((_, request_id)) = self.order.pop_front()
        {
            self.by_id.remove(&request_id);
        }
    }

    /// The log index of the `n`th oldest one, counting from 0.
    pub(crate) fn nth(&self, n: usize) -> Option<u64> {
        self.order.get(n).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_requests_are_forgotten_first() {
        let mut window = RequestWindow::default();
        let most = MAX_REQUESTS as u64;
        for n in 0..most + 3 {
            window.push(n * 2, Request { id: u128::from(n), hash: n });
        }
        assert_eq!(window.overdue(2).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        window.prune();
        assert_eq!((window.find(2), window.find(3), window.nth(0)), (None, Some(Known { index: 6, hash: 3 }), Some(6)));
        assert_eq!(window.overdue(0).count(), 0);
        assert_eq!(window.by_id.len(), MAX_REQUESTS);
    }
}
