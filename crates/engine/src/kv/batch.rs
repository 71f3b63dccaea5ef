use std::fmt;
use std::ops::Range;

use super::Family;

/// Changes that happen together, in order, across families.
///
/// Keys and values are copied into one buffer, so building a batch costs no allocation per row;
/// [`clear`](Self::clear) keeps the buffer. The size is bounded by whoever builds it (a proposal has a limit).
#[derive(Clone, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    ops: Vec<StoredOp>,
}

/// One change of a [`WriteBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// The key now has this value.
    Put {
        /// Where.
        family: Family,
        /// Any bytes.
        key: &'a [u8],
        /// Any bytes; empty is a value.
        value: &'a [u8],
    },
    /// The key is gone, if it was there.
    Delete {
        /// Where.
        family: Family,
        /// Any bytes.
        key: &'a [u8],
    },
    /// The keys in `start..end` are gone.
    DeleteRange {
        /// Where.
        family: Family,
        /// First key that goes.
        start: &'a [u8],
        /// First key that stays.
        end: &'a [u8],
    },
}

#[derive(Clone)]
struct StoredOp {
    kind: Kind,
    family: Family,
    first: Range<usize>,
    second: Range<usize>,
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.push(Kind::Put, family, key, value);
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(Kind::Delete, family, key, &[]);
    }

    /// Removes the keys from `start` on that are before `end`. An empty or inverted range removes nothing. Reads
    /// pay for ranges that are not compacted yet: for clearing out, not for single rows.
    pub fn delete_range(&mut self, family: Family, start: &[u8], end: &[u8]) {
        if start < end {
            self.push(Kind::DeleteRange, family, start, end);
        }
    }

    /// The changes in their order.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = Op<'_>> {
        self.ops.iter().map(|op| {
            let family = op.family;
            let (first, second) = (&self.bytes[op.first.clone()], &self.bytes[op.second.clone()]);
            match op.kind {
                Kind::Put => Op::Put { family, key: first, value: second },
                Kind::Delete => Op::Delete { family, key: first },
                Kind::DeleteRange => Op::DeleteRange { family, start: first, end: second },
            }
        })
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the changes and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
    }

    fn push(&mut self, kind: Kind, family: Family, first: &[u8], second: &[u8]) {
        let first = self.store(first);
        let second = self.store(second);
        self.ops.push(StoredOp { kind, family, first, second });
    }

    fn store(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}

/// Sizes only: keys and values are the users' data and do not belong in a log.
impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteBatch({} ops, {} bytes)", self.len(), self.size_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_come_back_in_order_and_empty_ranges_are_dropped() {
        let (a, b) = (Family::new(0), Family::new(1));
        let mut batch = WriteBatch::new();
        batch.put(a, b"k", b"v");
        batch.delete(b, b"k");
        batch.delete_range(a, b"a", b"c");
        batch.delete_range(a, b"c", b"c");
        batch.delete_range(a, b"d", b"c");
        let expected = [
            Op::Put { family: a, key: b"k", value: b"v" },
            Op::Delete { family: b, key: b"k" },
            Op::DeleteRange { family: a, start: b"a", end: b"c" },
        ];
        assert!(batch.ops().eq(expected));
        assert_eq!((batch.len(), batch.size_bytes()), (3, 5));

        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.size_bytes(), 0);
    }
}
