//! Which shard a point belongs to. The only place that hashes a point's id.

use sagitta_model::PointId;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Where a point lies on the ring of hashes: XXH3-64 of its key.
pub fn shard_hash(id: PointId) -> u64 {
    xxh3_64(&id.to_key())
}

/// An interval of hashes, both ends included. A shard holds the points whose hash lies in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// A change of these values would lose every stored point's shard.
    #[test]
    fn hashes_never_change() {
        assert_eq!(shard_hash(PointId::Num(0)), 0x313c_2dd2_ec99_6e80);
        assert_eq!(shard_hash(PointId::Num(1)), 0x9842_17a4_c022_55fc);
        assert_eq!(shard_hash(PointId::Uuid(1)), 0xcb19_967b_88ec_296b);
    }
}
