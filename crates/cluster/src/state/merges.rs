//! How merges of shards begin, go on and end.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_model::HashRange;

use super::State;
use crate::collection::{Collection, Floor, ShardDescriptor};
use crate::limits::{MAX_CLUSTER_SHARDS, MAX_ENDED_OPERATIONS, MAX_REASON_BYTES};
use crate::merge::{Merge, MergeStep, may_become};
use crate::outcome::{Effect, Refusal};
use crate::placement::Placement;

impl State {
    /// All merges that are known, by their ids.
    pub fn merges(&self) -> impl DoubleEndedIterator<Item = &Arc<Merge>> {
        self.merges.values()
    }

    /// One merge.
    pub fn merge(&self, id: u64) -> Result<&Arc<Merge>, Refusal> {
        self.merges.get(&id).ok_or(Refusal::NoOperation(id))
    }

    /// The shard that a shard has become part of, as far as that is known: merges that ended long ago are not.
    pub fn merged_into(&self, shard: u64) -> Option<u64> {
        let done = self.merges.values().filter(|merge| merge.step == MergeStep::Done);
        done.into_iter().find(|merge| merge.concerns(shard)).map(|merge| merge.into.id)
    }

    pub(super) fn begin_merge(
        &mut self,
        shards: [(u64, u64); 2],
        floor: Floor,
        (reason, unasked): (String, bool),
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let [(left, _), (right, _)] = shards;
        let same = |known: &&Arc<Merge>| {
            (known.left, known.right) == (left, right)
                && (known.begun_unix_micros, known.unasked) == (unix_micros, unasked)
        };
        if let Some(known) = self.merge_on(left).filter(same) {
            // Begun by the same command, whose answer was lost.
            return Ok(Effect::Merge(Arc::clone(known)));
        }
        let (collection, range) = self.both(shards)?;
        if unasked {
            self.check_is_spare(collection)?;
        }
        if reason.len() > MAX_REASON_BYTES {
            return Err(Refusal::invalid("reason", format!("is longer than {MAX_REASON_BYTES} bytes")));
        }
        if floor.index == 0 || floor.term == 0 {
            return Err(Refusal::invalid("floor", "is no entry of a log".to_owned()));
        }
        let total = self.all_shards() + 1;
        if total > MAX_CLUSTER_SHARDS {
            return Err(Refusal::TooManyShards(total));
        }
        self.check_is_room()?;
        let new = self.merges_under_way().flat_map(|merge| &merge.into.replicas);
        let held = self.shards().flat_map(|(_, shard)| &shard.replicas).chain(new);
        let mut placement = Placement::new(&self.nodes, held);
        let Some(replicas) = placement.next(collection.replication as usize) else {
            return Err(Refusal::TooFewNodes { wanted: collection.replication, nodes: placement.nodes() });
        };
        let (founders, gone, split, parent) = (replicas.clone(), BTreeMap::new(), None, None);
        let id = self.next_shard_id;
        let into = ShardDescriptor { id, range, epoch: 1, replicas, founders, left: gone, split, parent };
        self.next_shard_id += 1;
        self.begun_operations += 1;
        let (id, step, since_unix_micros, ended_unix_micros) =
            (self.begun_operations, MergeStep::Prepare, unix_micros, None);
        let begun_unix_micros = unix_micros;
        Ok(Effect::Merge(self.keep_merge(Merge {
            id,
            left,
            right,
            into,
            floor,
            step,
            since_unix_micros,
            reason,
            unasked,
            begun_unix_micros,
            ended_unix_micros,
        })))
    }

    /// The collection of two shards, and the hashes of both. Refuses those that are no neighbours, or not as they were seen.
    fn both(&self, shards: [(u64, u64); 2]) -> Result<(&Arc<Collection>, HashRange), Refusal> {
        for (shard, expected) in shards {
            let (_, descriptor) = self.shard(shard)?;
            self.check_is_free(shard)?;
            if descriptor.epoch != expected {
                return Err(Refusal::Stale { shard, epoch: descriptor.epoch, expected });
            }
        }
        let [(left, _), (right, _)] = shards;
        let (collection, lower) = self.shard(left)?;
        let next = lower.range.last.checked_add(1);
        let follows = collection.shards.iter().find(|shard| Some(shard.range.first) == next);
        let Some(upper) = follows.filter(|upper| upper.id == right) else {
            let which = follows.map_or("and there is none".to_owned(), |upper| format!("which is shard {}", upper.id));
            let expected = format!("expected the shard whose hashes follow those of shard {left}, {which}");
            return Err(Refusal::invalid("right", format!("is {right}, {expected}")));
        };
        Ok((collection, HashRange { first: lower.range.first, last: upper.range.last }))
    }

    /// Refuses to merge unasked what people want to be shards of their own. It is looked at here, too, since two leaders may begin a merge each.
    fn check_is_spare(&self, collection: &Collection) -> Result<(), Refusal> {
        let (shards, wanted) = (self.shards_after_merges(collection), collection.shards_wanted as usize);
        if shards > wanted {
            return Ok(());
        }
        let reason =
            format!("is true, and collection {} has {shards} shards of {wanted} that are wanted", collection.name);
        Err(Refusal::invalid("unasked", reason))
    }

    pub(super) fn advance_merge(
        &mut self,
        id: u64,
        (from, to): (MergeStep, MergeStep),
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let known = self.merge(id)?;
        if known.step == to {
            return Ok(Effect::Merge(Arc::clone(known)));
        }
        if known.step != from || !may_become(from, to) {
            return Err(Refusal::OtherMergeStep { merge: id, step: known.step, wanted: to });
        }
        let mut merge = Merge::clone(known);
        (merge.step, merge.since_unix_micros) = (to, unix_micros);
        if to == MergeStep::Done {
            self.route_to_one(&merge);
        }
        if to.is_end() {
            merge.ended_unix_micros = Some(unix_micros);
        }
        let merge = self.keep_merge(merge);
        let ended: Vec<u64> = self.merges().filter(|one| !one.is_under_way()).map(|one| one.id).collect();
        for id in &ended[..ended.len().saturating_sub(MAX_ENDED_OPERATIONS)] {
            Arc::make_mut(&mut self.merges).remove(id);
        }
        Ok(Effect::Merge(merge))
    }

    /// Puts the new shard in the place of the two that it has all of.
    fn route_to_one(&mut self, merge: &Merge) {
        let Ok((collection, _)) = self.shard(merge.left) else { return };
        let name = collection.name.clone();
        let Some(collection) = Arc::make_mut(&mut self.collections).get_mut(&name) else { return };
        let Collection { shards, shards_wanted, .. } = Arc::make_mut(collection);
        let Some(place) = shards.iter().position(|shard| shard.id == merge.left) else { return };
        drop(shards.splice(place..place + 2, [merge.into.clone()]));
        if !merge.unasked {
            *shards_wanted = shards_wanted.saturating_sub(1).max(1);
        }
    }

    /// Forgets what was under way on shards that are gone; says which shards were to come of it.
    pub(super) fn forget_merges_on(&mut self, shards: &[u64]) -> Vec<u64> {
        let gone = |merge: &Merge| merge.is_under_way() && shards.contains(&merge.left);
        let new: Vec<_> = self.merges().filter(|merge| gone(merge)).map(|merge| merge.into.id).collect();
        if !new.is_empty() {
            Arc::make_mut(&mut self.merges).retain(|_, merge| !gone(merge));
        }
        new
    }

    fn keep_merge(&mut self, merge: Merge) -> Arc<Merge> {
        let merge = Arc::new(merge);
        Arc::make_mut(&mut self.merges).insert(merge.id, Arc::clone(&merge));
        merge
    }
}
