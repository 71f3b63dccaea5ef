//! Which rows have been acknowledged when acknowledgements come out of order.

use std::collections::BTreeMap;

/// Knows the row before which everything is acknowledged.
#[derive(Debug)]
pub(super) struct Watermark {
    next: u64,
    /// Acknowledged ranges behind a gap: first row and the one after the last.
    ahead: BTreeMap<u64, u64>,
    acknowledged: u64,
}

impl Watermark {
    pub(super) fn new(first: u64) -> Self {
        Self { next: first, ahead: BTreeMap::new(), acknowledged: 0 }
    }

    /// Notes that `count` rows from `first` on are acknowledged; each row once.
    pub(super) fn note(&mut self, first: u64, count: u64) {
        self.acknowledged += count;
        self.ahead.insert(first, first + count);
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() == self.next) {
            self.next = entry.remove();
        }
    }

    /// All rows before this one are acknowledged.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many rows were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stops_at_the_first_gap() {
        let mut mark = Watermark::new(100);
        mark.note(120, 10);
        mark.note(110, 10);
        assert_eq!((mark.next(), mark.acknowledged()), (100, 20));
        mark.note(100, 10);
        assert_eq!((mark.next(), mark.acknowledged()), (130, 30));
    }
}
