//! Which shard a point belongs to. The only place that hashes a point's id.

use xxhash_rust::xxh3::xxh3_64;

use crate::PointId;

/// Where a point lies on the ring of hashes: XXH3-64 of its key.
pub fn shard_hash(id: PointId) -> u64 {
    xxh3_64(id.to_key().as_ref())
}

/// An interval of hashes, both ends included. A shard holds the points whose hash lies in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// Lowest hash in the range.
    pub first: u64,
    /// Highest hash in the range.
    pub last: u64,
}

impl HashRange {
    /// Every hash.
    pub const FULL: Self = Self { first: 0, last: u64::MAX };

    /// Whether the range holds a hash.
    pub fn contains(self, hash: u64) -> bool {
        (self.first..=self.last).contains(&hash)
    }

    /// Whether the range holds the hash of a point.
    pub fn holds(self, id: PointId) -> bool {
        self == Self::FULL || self.contains(shard_hash(id))
    }

    /// The hashes below `at`, and those from there on; `None` if either has none.
    pub fn split(self, at: u64) -> Option<(Self, Self)> {
        let (lower, upper) =
            (Self { first: self.first, last: at.checked_sub(1)? }, Self { first: at, last: self.last });
        (lower.first <= lower.last && upper.first <= upper.last).then_some((lower, upper))
    }

    /// Where [`HashRange::split`] leaves both halves as many hashes, to one; `None` for a single hash.
    pub fn middle(self) -> Option<u64> {
        (self.first < self.last).then(|| self.first + (self.last - self.first) / 2 + 1)
    }

    /// All hashes in `parts` ranges of the same size (to one), ascending, without gap or overlap. `parts` is at least 1.
    pub fn partition(parts: u32) -> Vec<Self> {
        let parts = u128::from(parts.max(1));
        let bound = |part: u128| (part << 64) / parts;
        (0..parts).map(|part| Self { first: bound(part) as u64, last: (bound(part + 1) - 1) as u64 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_cover_every_hash_once() {
        for parts in [1, 2, 3, 7, 1000] {
            let ranges = HashRange::partition(parts);
            assert_eq!(ranges.len(), parts as usize);
            assert_eq!((ranges[0].first, ranges[ranges.len() - 1].last), (0, u64::MAX));
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].last + 1, pair[1].first);
            }
        }
        assert_eq!(HashRange::partition(1), [HashRange::FULL]);
    }

    #[test]
    fn a_range_splits_into_two_that_touch_and_neither_is_empty() {
        let range = |first, last| HashRange { first, last };
        assert_eq!(range(3, 9).split(4), Some((range(3, 3), range(4, 9))));
        assert_eq!(range(3, 9).split(9), Some((range(3, 8), range(9, 9))));
        for outside in [0, 2, 3, 10, u64::MAX] {
            assert_eq!(range(3, 9).split(outside), None, "at {outside}");
        }
        assert_eq!(HashRange::FULL.split(0), None);
        assert_eq!(HashRange::FULL.split(u64::MAX), Some((range(0, u64::MAX - 1), range(u64::MAX, u64::MAX))));
    }

    /// A change of these values would lose every stored point's shard.
    #[test]
    fn hashes_never_change() {
        assert_eq!(shard_hash(PointId::Num(0)), 0x313c_2dd2_ec99_6e80);
        assert_eq!(shard_hash(PointId::Num(1)), 0x9842_17a4_c022_55fc);
        assert_eq!(shard_hash(PointId::Uuid(1)), 0xcb19_967b_88ec_296b);
    }
}
