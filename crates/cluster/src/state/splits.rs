//! How splits of shards begin, go on and end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use crate::collection::{Collection, Floor, ShardDescriptor};
use crate::limits::{MAX_CLUSTER_SHARDS, MAX_ENDED_OPERATIONS, MAX_REASON_BYTES, MAX_SHARDS};
use crate::outcome::{Effect, Refusal};
use crate::split::{Split, SplitStep, may_become};

impl State {
    /// All splits that are known, by their ids.
    pub fn splits(&self) -> impl DoubleEndedIterator<Item = &Arc<Split>> {
        self.splits.values()
    }

    /// One split.
    pub fn split(&self, id: u64) -> Result<&Arc<Split>, Refusal> {
        self.splits.get(&id).ok_or(Refusal::NoOperation(id))
    }

    /// The split of a shard as of an epoch of its placement: under way, or what ended that epoch.
    pub fn split_as_of(&self, shard: u64, epoch: u64) -> Option<&Arc<Split>> {
        let one = |split: &&Arc<Split>| (split.shard, split.epoch) == (shard, epoch);
        self.splits.values().find(|split| one(split) && split.step != SplitStep::Cancelled)
    }

    pub(super) fn begin_split(
        &mut self,
        (shard, epoch, at): (u64, u64, u64),
        (reason, unasked): (String, bool),
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let (collection, descriptor) = self.shard(shard)?;
        let same =
            |known: &&Arc<Split>| (known.at, known.begun_unix_micros, known.unasked) == (at, unix_micros, unasked);
        if let Some(known) = self.split_on(shard).filter(same) {
            // Begun by the same command, whose answer was lost.
            return Ok(Effect::Split(Arc::clone(known)));
        }
        self.check_is_free(shard)?;
        if descriptor.epoch != epoch {
            return Err(Refusal::Stale { shard, epoch: descriptor.epoch, expected: epoch });
        }
        let Some((_, range)) = descriptor.range.split(at) else {
            let (first, last) = (descriptor.range.first, descriptor.range.last);
            let reason = format!("is {at:#018x}, expected above {first:#018x} and up to {last:#018x}");
            return Err(Refusal::invalid("at", reason));
        };
        if reason.len() > MAX_REASON_BYTES {
            return Err(Refusal::invalid("reason", format!("is longer than {MAX_REASON_BYTES} bytes")));
        }
        let new = self.splits_under_way();
        let in_collection = new.filter(|split| collection.shards.iter().any(|shard| shard.id == split.shard)).count();
        if collection.shards.len() + in_collection >= MAX_SHARDS as usize {
            let reason = format!("is of a collection that has {MAX_SHARDS} shards, which is the most it can");
            return Err(Refusal::invalid("shard", reason));
        }
        let total = self.all_shards() + 1;
        if total > MAX_CLUSTER_SHARDS {
            return Err(Refusal::TooManyShards(total));
        }
        self.check_is_room()?;
        let replicas = descriptor.replicas.clone();
        let (founders, left, split, parent) = (replicas.clone(), BTreeMap::new(), None, Some(shard));
        let id = self.next_shard_id;
        let right = ShardDescriptor { id, range, epoch: 1, replicas, founders, left, split, parent };
        self.next_shard_id += 1;
        self.begun_operations += 1;
        let (id, step, begun_unix_micros, ended_unix_micros) =
            (self.begun_operations, SplitStep::Prepare, unix_micros, None);
        let split = Split { id, shard, epoch, at, right, step, reason, unasked, begun_unix_micros, ended_unix_micros };
        Ok(Effect::Split(self.keep_split(split)))
    }

    pub(super) fn advance_split(
        &mut self,
        id: u64,
        (from, to): (SplitStep, SplitStep),
        at: Floor,
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let known = self.split(id)?;
        if known.step == to {
            return Ok(Effect::Split(Arc::clone(known)));
        }
        if known.step != from || !may_become(from, to) {
            return Err(Refusal::OtherSplitStep { split: id, step: known.step, wanted: to });
        }
        let mut split = Split::clone(known);
        split.step = to;
        match to {
            SplitStep::Found => split.right.split = Some(at),
            SplitStep::Done => self.route_to_both(&split),
            _ => {}
        }
        if to.is_end() {
            split.ended_unix_micros = Some(unix_micros);
        }
        let split = self.keep_split(split);
        let ended: Vec<u64> = self.splits().filter(|one| !one.is_under_way()).map(|one| one.id).collect();
        for id in &ended[..ended.len().saturating_sub(MAX_ENDED_OPERATIONS)] {
            Arc::make_mut(&mut self.splits).remove(id);
        }
        Ok(Effect::Split(split))
    }

    /// Puts the new shard beside the one that it was split off from, of which a request by the old route is stale from now on.
    fn route_to_both(&mut self, split: &Split) {
        let Ok((collection, _)) = self.shard(split.shard) else { return };
        let name = collection.name.clone();
        let Some(collection) = Arc::make_mut(&mut self.collections).get_mut(&name) else { return };
        let Collection { shards, shards_wanted, .. } = Arc::make_mut(collection);
        let Some(place) = shards.iter().position(|shard| shard.id == split.shard) else { return };
        let left = &mut shards[place];
        left.range.last = split.at - 1;
        left.epoch += 1;
        left.split = split.right.split;
        shards.insert(place + 1, split.right.clone());
        if !split.unasked {
            *shards_wanted += 1;
        }
    }

    /// Forgets what was under way on shards that are gone; says which shards were to come of it.
    pub(super) fn forget_splits_on(&mut self, shards: &[u64]) -> Vec<ShardDescriptor> {
        let gone = |split: &Split| split.is_under_way() && shards.contains(&split.shard);
        let rights: Vec<_> = self.splits().filter(|split| gone(split)).map(|split| split.right.clone()).collect();
        if !rights.is_empty() {
            Arc::make_mut(&mut self.splits).retain(|_, split| !gone(split));
        }
        rights
    }

    pub(super) fn keep_split(&mut self, split: Split) -> Arc<Split> {
        let split = Arc::new(split);
        Arc::make_mut(&mut self.splits).insert(split.id, Arc::clone(&split));
        split
    }
}
