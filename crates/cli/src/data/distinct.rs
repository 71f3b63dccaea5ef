//! Finding an id that occurs twice in a file.

use std::collections::HashSet;

use roaring::RoaringTreemap;
use sagitta_model::PointId;

/// Numbers below this are kept in a compressed bitmap, at two bytes each or far less; greater ones are hashes
/// rather than counters and would not compress.
const DENSE_BELOW: u64 = 1 << 36;

/// UUIDs and great numbers remembered at most: about 100 MB.
const MAX_SCATTERED: usize = 2_000_000;

/// The ids seen so far, to find one that comes twice. Beyond a bound on memory further ones are not remembered and
/// duplicates may go unnoticed; [`DistinctIds::complete`] then says so.
#[derive(Debug, Default)]
pub struct DistinctIds {
    dense: RoaringTreemap,
    scattered: HashSet<PointId>,
    forgetful: bool,
}

impl DistinctIds {
    /// Notes an id; false if it has been noted before.
    pub fn insert(&mut self, id: PointId) -> bool {
        match id {
            PointId::Num(n) if n < DENSE_BELOW => self.dense.insert(n),
            id if self.scattered.len() < MAX_SCATTERED => self.scattered.insert(id),
            id => {
                self.forgetful = true;
                !self.scattered.contains(&id)
            }
        }
    }

    /// Whether every id was remembered, so that no duplicate can have gone unnoticed.
    pub fn complete(&self) -> bool {
        !self.forgetful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let mut ids = DistinctIds::default();
        for id in [PointId::Num(3), PointId::Num(u64::MAX), PointId::Uuid(3), PointId::Num(DENSE_BELOW)] {
            assert!(ids.insert(id), "{id}");
            assert!(!ids.insert(id), "{id}");
        }
        assert!(ids.complete());
    }

    #[test]
    fn memory_is_bounded_and_the_bound_is_admitted() {
        let mut ids = DistinctIds::default();
        for n in 0..=MAX_SCATTERED as u64 {
            assert!(ids.insert(PointId::Num(DENSE_BELOW + n)));
        }
        assert!(!ids.complete());
        assert_eq!(ids.scattered.len(), MAX_SCATTERED);
        assert!(!ids.insert(PointId::Num(DENSE_BELOW)));
    }
}
