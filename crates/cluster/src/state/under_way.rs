//! What is under way on shards, of operations, splits, merges and recoveries: at most one of all on a shard.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::State;
use crate::collection::Collection;
use crate::limits::MAX_OPERATIONS;
use crate::merge::{Merge, MergeStep};
use crate::operation::Operation;
use crate::outcome::Refusal;
use crate::split::Split;

impl State {
    /// The operations that have not ended, by their ids.
    pub fn operations_under_way(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.operations.values().filter(|operation| operation.is_under_way())
    }

    /// The splits that have not ended, by their ids.
    pub fn splits_under_way(&self) -> impl Iterator<Item = &Arc<Split>> {
        self.splits.values().filter(|split| split.is_under_way())
    }

    /// The merges that have not ended, by their ids.
    pub fn merges_under_way(&self) -> impl Iterator<Item = &Arc<Merge>> {
        self.merges.values().filter(|merge| merge.is_under_way())
    }

    /// The operation that is under way on a shard.
    pub fn operation_on(&self, shard: u64) -> Option<&Arc<Operation>> {
        self.operations_under_way().find(|operation| operation.shard == shard)
    }

    /// The split that is under way on a shard.
    pub fn split_on(&self, shard: u64) -> Option<&Arc<Split>> {
        self.splits_under_way().find(|split| split.shard == shard)
    }

    /// The merge that is under way of a shard and a neighbour of it.
    pub fn merge_on(&self, shard: u64) -> Option<&Arc<Merge>> {
        self.merges_under_way().find(|merge| merge.concerns(shard))
    }

    /// Whether a merge has shards frozen, or may have.
    pub fn is_any_frozen(&self) -> bool {
        self.merges_under_way().any(|merge| matches!(merge.step, MergeStep::Freeze | MergeStep::Thaw))
    }

    /// How many operations, splits and merges are under way.
    pub fn under_way(&self) -> usize {
        self.operations_under_way().count() + self.splits_under_way().count() + self.merges_under_way().count()
    }

    /// How many shards there are, and are to come of what is under way.
    pub(super) fn all_shards(&self) -> usize {
        self.shards().count() + self.splits_under_way().count() + self.merges_under_way().count()
    }

    /// How many shards a collection has once those are one that the cluster merges by itself.
    pub(crate) fn shards_after_merges(&self, collection: &Collection) -> usize {
        let is_of_it = |merge: &Merge| merge.unasked && collection.shards.iter().any(|shard| shard.id == merge.left);
        collection.shards.len() - self.merges_under_way().filter(|merge| is_of_it(merge)).count()
    }

    /// The shards on which something is under way: nothing else is begun on them.
    pub fn busy_shards(&self) -> BTreeSet<u64> {
        let splits = self.splits_under_way().map(|split| split.shard);
        let merges = self.merges_under_way().flat_map(|merge| [merge.left, merge.right]);
        let recoveries = self.recoveries().map(|recovery| recovery.shard);
        self.operations_under_way()
            .map(|operation| operation.shard)
            .chain(splits)
            .chain(merges)
            .chain(recoveries)
            .collect()
    }

    /// What is under way on a shard.
    pub(super) fn under_way_on(&self, shard: u64) -> Option<u64> {
        let operation = self.operation_on(shard).map(|operation| operation.id);
        let split = || self.split_on(shard).map(|split| split.id);
        let merge = || self.merge_on(shard).map(|merge| merge.id);
        operation.or_else(split).or_else(merge).or_else(|| self.recovery_of(shard).map(|recovery| recovery.id))
    }

    /// Refuses what a shard or the cluster has no room for.
    pub(super) fn check_is_free(&self, shard: u64) -> Result<(), Refusal> {
        match self.under_way_on(shard) {
            Some(operation) => Err(Refusal::Busy { shard, operation }),
            None => Ok(()),
        }
    }

    /// Refuses one more when as many are under way as may be.
    pub(super) fn check_is_room(&self) -> Result<(), Refusal> {
        match self.under_way() {
            count if count >= MAX_OPERATIONS => Err(Refusal::TooManyOperations(count)),
            _ => Ok(()),
        }
    }
}
