//! The rows that a walk has seen.

const WORD_BITS: usize = u64::BITS as usize;

/// A bit per row, cleared by undoing: a walk touches few rows of many, and the bits of a segment fit a near cache where
/// a counter per row would not.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Visited {
    /// Forgets all rows, and makes room for `rows`.
    pub(super) fn reset(&mut self, rows: usize) {
        for word in self.touched.drain(..) {
            self.words[word as usize] = 0;
        }
        if self.words.len() * WORD_BITS < rows {
            self.words.resize(rows.div_ceil(WORD_BITS), 0);
        }
    }

    /// Adds a row; false if it was seen before.
    ///
    /// # Panics
    /// If there is no room for such a row.
    #[inline]
    pub(super) fn insert(&mut self, row: u32) -> bool {
        let at = row as usize / WORD_BITS;
        let bit = 1 << (row as usize % WORD_BITS);
        let word = &mut self.words[at];
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(at as u32);
        }
        *word |= bit;
        true
    }

    /// Whether a row was seen.
    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / WORD_BITS] >> (row as usize % WORD_BITS) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_new_once_until_it_is_forgotten() {
        let mut visited = Visited::default();
        for _ in 0..2 {
            visited.reset(200);
            for row in [0, 63, 64, 199] {
                assert!(!visited.contains(row));
                assert!(visited.insert(row));
                assert!(!visited.insert(row));
                assert!(visited.contains(row) && !visited.contains(row ^ 1));
            }
        }
        visited.reset(500);
        assert!(visited.insert(499));
    }
}
