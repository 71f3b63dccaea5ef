//! A fixed-length set of rows, one bit each: what a filter hands to an index.

#[cfg(test)]
mod tests;

const WORD_BITS: usize = u64::BITS as usize;

/// A set of rows of one segment, `0 .. len`, kept as a plain bit array.
///
/// Bits beyond the length are always zero, so that words can be counted and combined without a mask. The number of
/// members is kept up to date: [`Bitmap::count`] is free, which is what a planner asks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
    count: usize,
}

impl Bitmap {
    /// The empty set over `len` rows.
    pub fn new(len: usize) -> Bitmap {
        Bitmap { words: vec![0; len.div_ceil(WORD_BITS)], len, count: 0 }
    }

    /// The set of all `len` rows.
    pub fn full(len: usize) -> Bitmap {
        let mut full = Bitmap { words: vec![u64::MAX; len.div_ceil(WORD_BITS)], len, count: len };
        full.clear_padding();
        full
    }

    /// The set of the given rows, which need not be sorted or distinct; sorted ones are fastest.
    ///
    /// # Panics
    /// If a row is not below `len`.
    pub fn from_rows(len: usize, rows: &[u32]) -> Bitmap {
        let mut set = Bitmap::new(len);
        for &row in rows {
            set.set(row);
        }
        set
    }

    /// How many rows the set ranges over (members or not).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the set ranges over no rows at all. See [`Bitmap::count`] for the number of members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many rows are members.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether `row` is a member; rows beyond the length are not.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        match self.words.get(row as usize / WORD_BITS) {
            Some(word) => word >> (row as usize % WORD_BITS) & 1 != 0,
            None => false,
        }
    }

    /// Makes `row` a member.
    ///
    /// # Panics
    /// If `row` is not below the length.
    #[inline]
    pub fn set(&mut self, row: u32) {
        let (word, bit) = self.position(row);
        self.count += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Takes `row` out of the set.
    ///
    /// # Panics
    /// If `row` is not below the length.
    #[inline]
    pub fn clear(&mut self, row: u32) {
        let (word, bit) = self.position(row);
        self.count -= usize::from(self.words[word] & bit != 0);
        self.words[word] &= !bit;
    }

    /// Keeps the rows that are in `other` too.
    ///
    /// # Panics
    /// If the lengths differ, as for every operation on two sets.
    pub fn and(&mut self, other: &Bitmap) {
        self.combine(other, |a, b| a & b);
    }

    /// Adds the rows of `other`.
    pub fn or(&mut self, other: &Bitmap) {
        self.combine(other, |a, b| a | b);
    }

    /// Takes out the rows of `other`.
    pub fn and_not(&mut self, other: &Bitmap) {
        self.combine(other, |a, b| a & !b);
    }

    /// Adds the rows of another set over as many rows, given as its [`Bitmap::words`]: for sets that are stored.
    ///
    /// # Panics
    /// If the number of words differs, or a row beyond the length is among them.
    pub fn or_words(&mut self, words: impl ExactSizeIterator<Item = u64>) {
        assert_eq!(self.words.len(), words.len(), "bitmaps of different segments");
        let mut count = 0;
        for (mine, theirs) in self.words.iter_mut().zip(words) {
            *mine |= theirs;
            count += mine.count_ones() as usize;
        }
        self.count = count;
        let used = self.len % WORD_BITS;
        let last = self.words.last().copied().unwrap_or(0);
        assert!(used == 0 || last >> used == 0, "a row beyond a bitmap of {} rows", self.len);
    }

    /// Turns the set into its complement.
    pub fn not(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.clear_padding();
        self.count = self.len - self.count;
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let base = (at * WORD_BITS) as u32;
            std::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |word| base + word.trailing_zeros())
        })
    }

    /// The bits, row `r` being bit `r % 64` of word `r / 64`. On a little-endian machine these bytes are the layout of
    /// FAISS's `IDSelectorBitmap`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn position(&self, row: u32) -> (usize, u64) {
        assert!((row as usize) < self.len, "row {row} is outside a bitmap of {} rows", self.len);
        (row as usize / WORD_BITS, 1 << (row as usize % WORD_BITS))
    }

    fn combine(&mut self, other: &Bitmap, operation: impl Fn(u64, u64) -> u64) {
        assert_eq!(self.len, other.len, "bitmaps of different segments");
        let mut count = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine = operation(*mine, *theirs);
            count += mine.count_ones() as usize;
        }
        self.count = count;
    }

    fn clear_padding(&mut self) {
        let used = self.len % WORD_BITS;
        if let Some(last) = self.words.last_mut()
            && used != 0
        {
            *last &= (1 << used) - 1;
        }
    }
}
