//! The candidates of a walk: the best rows seen so far, of which some have been expanded.

/// A bounded list, best first. Sorted insertion beats two heaps at the sizes that walks use: most candidates fail the
/// comparison with the last one, and the rest move a few cache lines.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: Vec<Entry>,
    capacity: usize,
    /// No entry before this one is left to expand.
    next: usize,
}

/// A row and its key in one number: smaller is better, then the smaller row. The lowest bit tells that it was expanded.
type Entry = u64;

const EXPANDED: Entry = 1;

impl Pool {
    /// Empties the pool and bounds it.
    pub(super) fn reset(&mut self, capacity: usize) {
        self.entries.clear();
        self.capacity = capacity;
        self.next = 0;
    }

    /// Offers a row; one that is worse than all of a full pool is dropped.
    #[inline]
    pub(super) fn offer(&mut self, row: u32, key: f32) {
        let entry = pack(row, key);
        let full = self.entries.len() == self.capacity;
        if full {
            match self.entries.last() {
                Some(&worst) if entry < worst => {}
                _ => return,
            }
        }
        let at = self.entries.partition_point(|&other| other < entry);
        if full {
            let last = self.entries.len() - 1;
            self.entries.copy_within(at..last, at + 1);
            self.entries[at] = entry;
        } else {
            self.entries.insert(at, entry);
        }
        self.next = self.next.min(at);
    }

    /// The best row that was not expanded yet, which counts as expanded from now on.
    #[inline]
    pub(super) fn expand(&mut self) -> Option<u32> {
        let entry = self.entries.get_mut(self.next)?;
        *entry |= EXPANDED;
        let row = row_of(*entry);
        while self.entries.get(self.next).is_some_and(|entry| entry & EXPANDED != 0) {
            self.next += 1;
        }
        Some(row)
    }

    /// The row that [`Pool::expand`] would return now.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        self.entries.get(self.next).map(|&entry| row_of(entry))
    }

    /// The rows in the pool, best first.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().map(|&entry| row_of(entry))
    }
}

#[inline]
fn pack(row: u32, key: f32) -> Entry {
    let bits = key.to_bits();
    // Flipping all bits of a negative number, and the sign of a positive one, orders floats as integers.
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    Entry::from(!ascending) << 32 | Entry::from(row) << 1
}

#[inline]
fn row_of(entry: Entry) -> u32 {
    entry as u32 >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer_all(pool: &mut Pool, rows: &[(u32, f32)]) {
        rows.iter().for_each(|&(row, key)| pool.offer(row, key));
    }

    #[test]
    fn the_best_are_kept_in_order() {
        let mut pool = Pool::default();
        pool.reset(4);
        offer_all(&mut pool, &[(1, -2.0), (2, 3.5), (3, 0.0), (4, -1.0), (5, 0.5), (6, -9.0), (7, 0.5)]);
        assert_eq!(pool.rows().collect::<Vec<_>>(), [2, 5, 7, 3]);
    }

    #[test]
    fn each_row_is_expanded_once_and_the_best_first() {
        let mut pool = Pool::default();
        pool.reset(3);
        offer_all(&mut pool, &[(1, 1.0), (2, 2.0)]);
        assert_eq!((pool.peek(), pool.expand()), (Some(2), Some(2)));
        pool.offer(3, 3.0);
        assert_eq!((pool.peek(), pool.expand()), (Some(3), Some(3)));
        assert_eq!(pool.expand(), Some(1));
        pool.offer(4, 0.0);
        assert_eq!(pool.expand(), None, "the pool was full of better rows");
        pool.reset(1);
        assert_eq!(pool.expand(), None);
    }

    #[test]
    fn keys_of_all_sizes_are_ordered() {
        let mut pool = Pool::default();
        let keys = [f32::MAX, 1e9, 1.0, 1e-40, 0.0, -1e-40, -1.0, -1e9, f32::MIN];
        pool.reset(keys.len());
        for (row, &key) in keys.iter().enumerate().rev() {
            pool.offer(row as u32, key);
        }
        assert_eq!(pool.rows().collect::<Vec<_>>(), (0..keys.len() as u32).collect::<Vec<_>>());
    }
}
