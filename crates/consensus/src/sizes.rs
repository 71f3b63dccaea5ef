//! Where in a log its bytes are, roughly.

use std::collections::VecDeque;

/// Bytes between two marks.
const GRAIN: u64 = 1 << 20;

/// How many bytes the entries of a log take, known to a MiB or an entry, whichever is larger. What the log held when it was opened counts
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// By index.
    marks: VecDeque<Mark>,
    /// That of the last mark that was forgotten.
    begin_bytes: u64,
    /// Of all entries since the log was opened, but for those that were replaced.
    written_bytes: u64,
}

/// What had been written with an entry and before it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    index: u64,
    written_bytes: u64,
}

impl Sizes {
    /// Notes an entry, which replaces the one at its index and all that follow it.
    pub(crate) fn note(&mut self, index: u64, bytes: usize) {
        let replaced = self.marks.partition_point(|mark| mark.index < index);
        if replaced < self.marks.len() {
            self.marks.truncate(replaced);
            self.written_bytes = self.upto(index);
        }
        self.written_bytes += bytes as u64;
        if self.written_bytes - self.upto(index) >= GRAIN {
            self.marks.push_back(Mark { index, written_bytes: self.written_bytes });
        }
    }

    /// Forgets what lies before an entry, and that entry.
    pub(crate) fn forget(&mut self, index: u64) {
        self.begin_bytes = self.upto(index);
        self.marks.drain(..self.marks.partition_point(|mark| mark.index <= index));
    }

    /// How far one can go back from an entry: what follows the entry that this names, up to the given one, has at most so many bytes, as
    /// far as is known.
    pub(crate) fn back_from(&self, index: u64, bytes: u64) -> u64 {
        let upto = self.upto(index);
        if upto - self.begin_bytes <= bytes {
            return 0;
        }
        let first = self.marks.partition_point(|mark| upto.saturating_sub(mark.written_bytes) > bytes);
        self.marks.get(first).map_or(index, |mark| mark.index.min(index))
    }

    /// How many bytes follow an entry, up to another one.
    pub(crate) fn between(&self, begin: u64, end: u64) -> u64 {
        self.upto(end).saturating_sub(self.upto(begin))
    }

    fn upto(&self, index: u64) -> u64 {
        let known = self.marks.partition_point(|mark| mark.index <= index);
        known.checked_sub(1).map_or(self.begin_bytes, |last| self.marks[last].written_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Entries 1 to 100 of half a MiB each.
    fn noted() -> Sizes {
        let mut sizes = Sizes::default();
        (1..=100).for_each(|index| sizes.note(index, 1 << 19));
        sizes
    }

    #[test]
    fn bytes_are_known_to_a_grain() {
        let sizes = noted();
        assert_eq!(sizes.marks.len(), 50);
        assert_eq!((sizes.between(0, 100), sizes.between(20, 60), sizes.between(60, 20)), (50 * MIB, 20 * MIB, 0));
        assert_eq!(sizes.between(99, 100), MIB, "to a grain");
        assert_eq!([10, 0].map(|mib| sizes.back_from(100, mib * MIB)), [80, 100]);
        assert_eq!(sizes.back_from(60, 10 * MIB), 40);
        assert_eq!([50, 1_000].map(|mib| sizes.back_from(100, mib * MIB)), [0, 0], "that is all of it");
    }

    #[test]
    fn what_is_replaced_or_forgotten_counts_no_more() {
        let mut sizes = noted();
        sizes.note(61, 5 << 20);
        assert_eq!((sizes.between(0, 61), sizes.between(0, 100)), (35 * MIB, 35 * MIB));
        sizes.forget(40);
        assert_eq!((sizes.between(40, 61), sizes.between(0, 61)), (15 * MIB, 15 * MIB));
        assert_eq!((sizes.back_from(61, 10 * MIB), sizes.back_from(61, 15 * MIB)), (50, 0));
        sizes.note(3, 1);
        assert_eq!((sizes.marks.len(), sizes.between(0, 100), sizes.written_bytes), (0, 0, sizes.begin_bytes + 1));
    }

    #[test]
    fn a_log_that_was_written_before_counts_nothing() {
        let mut sizes = Sizes::default();
        assert_eq!((sizes.back_from(1_000, MIB), sizes.between(0, 1_000)), (0, 0));
        sizes.note(1_001, 3 << 20);
        assert_eq!((sizes.back_from(1_001, MIB), sizes.between(0, 1_001)), (1_001, 3 * MIB));
    }
}
