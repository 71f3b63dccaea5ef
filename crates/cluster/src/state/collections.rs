//! How collections and the places of their shards change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sagitta_model::{CollectionName, HashRange};

use super::{Leaving, State};
use crate::collection::{Collection, ShardDescriptor};
use crate::limits::{MAX_CLUSTER_SHARDS, MAX_COLLECTIONS, MAX_REPLICATION, MAX_SHARDS};
use crate::outcome::{Effect, Refusal};
use crate::placement::{Placement, takes_replicas};

impl State {
    /// `collection` has no shards yet.
    pub(super) fn create(
        &mut self,
        mut collection: Collection,
        seen: Option<u128>,
        request_id: u128,
    ) -> Result<Arc<Collection>, Refusal> {
        if let Some(existing) = self.collections.get(&collection.name) {
            if seen == Some(existing.id) && existing.schema == collection.schema {
                return Ok(Arc::clone(existing));
            }
            if seen.is_some() {
                return Err(Refusal::RequestIdReused(request_id));
            }
            return Err(Refusal::AlreadyExists(collection.name.to_string()));
        }
        // A late repetition must not bring back what was deleted since.
        if seen.is_some() {
            return Err(Refusal::RequestIdReused(request_id));
        }
        let (shards, replication) = (collection.shards_wanted, collection.replication);
        for (field, value, most) in [("shards", shards, MAX_SHARDS), ("replication", replication, MAX_REPLICATION)] {
            if !(1..=most).contains(&value) {
                return Err(Refusal::invalid(field, format!("is {value}, expected 1 to {most}")));
            }
        }
        if let Some(leaving) = self.leaving.get(&collection.name) {
            let (name, nodes) = (collection.name.to_string(), self.awaited(leaving, |_| 0));
            return Err(Refusal::StillLeaving { name, nodes });
        }
        let collections = self.collections.len() + self.leaving.len();
        if collections >= MAX_COLLECTIONS {
            return Err(Refusal::TooMany(collections));
        }
        let total = self.all_shards() + shards as usize;
        if total > MAX_CLUSTER_SHARDS {
            return Err(Refusal::TooManyShards(total));
        }
        let mut placement = Placement::new(&self.nodes, self.shards().flat_map(|(_, shard)| &shard.replicas));
        let mut id = self.next_shard_id;
        for range in HashRange::partition(shards) {
            let Some(replicas) = placement.next(replication as usize) else {
                return Err(Refusal::TooFewNodes { wanted: replication, nodes: placement.nodes() });
            };
            let (epoch, founders, left) = (1, replicas.clone(), BTreeMap::new());
            let (split, parent) = (None, None);
            collection.shards.push(ShardDescriptor { id, range, epoch, replicas, founders, left, split, parent });
            id += 1;
        }
        self.next_shard_id = id;
        let collection = Arc::new(collection);
        Arc::make_mut(&mut self.collections).insert(collection.name.clone(), Arc::clone(&collection));
        Ok(collection)
    }

    /// The deleted collection and its shards; no shards if it was deleted before.
    pub(super) fn delete(
        &mut self,
        name: &CollectionName,
        seen: Option<u128>,
        keep_name: bool,
    ) -> Result<(u128, Vec<u64>), Refusal> {
        // A late repetition must not delete a younger collection of the same name.
        if let Some(id) = seen {
            return Ok((id, Vec::new()));
        }
        self.collection(name)?;
        let gone = Arc::make_mut(&mut self.collections).remove(name);
        let gone = gone.expect("invariant: it was there a moment ago");
        let mut groups: Vec<_> = gone.shards.iter().flat_map(|shard| self.possible_members(shard)).collect();
        let mut shards: Vec<u64> = gone.shards.iter().map(|shard| shard.id).collect();
        self.forget_operations_on(&shards);
        for half in self.forget_splits_on(&shards) {
            groups.push(half.replicas);
            shards.push(half.id);
        }
        self.forget_recoveries_of(&shards);
        // Nobody was ever sent to one that is being filled.
        shards.extend(self.forget_merges_on(&shards));
        if keep_name {
            self.deletions += 1;
            Arc::make_mut(&mut self.leaving).insert(name.clone(), Leaving { deletion: self.deletions, groups });
        }
        Ok((gone.id, shards))
    }

    pub(super) fn free_name(&mut self, name: &CollectionName, deletion: u64) -> Effect {
        if self.leaving.get(name).is_some_and(|leaving| leaving.deletion == deletion) {
            Arc::make_mut(&mut self.leaving).remove(name);
        }
        Effect::NameFree
    }

    pub(super) fn set_replicas(
        &mut self,
        shard: u64,
        expected: u64,
        mut replicas: Vec<u64>,
    ) -> Result<Effect, Refusal> {
        let (collection, descriptor) = self.shard(shard)?;
        replicas.sort_unstable();
        // It is placed like this already: because the answer to the first attempt was lost, or all along.
        let known = [Some(expected), expected.checked_add(1)].contains(&Some(descriptor.epoch));
        if known && descriptor.replicas == replicas {
            return Ok(Effect::Placed { collection: collection.id, shard: descriptor.clone() });
        }
        if descriptor.epoch != expected {
            return Err(Refusal::Stale { shard, epoch: descriptor.epoch, expected });
        }
        self.check_is_free(shard)?;
        self.check_replicas(descriptor, &replicas)?;
        self.change_shard(shard, |descriptor| {
            descriptor.epoch += 1;
            descriptor.replicas = replicas;
        });
        let (collection, descriptor) = self.shard(shard)?;
        Ok(Effect::Placed { collection: collection.id, shard: descriptor.clone() })
    }

    /// `replicas` are ascending.
    fn check_replicas(&self, before: &ShardDescriptor, replicas: &[u64]) -> Result<(), Refusal> {
        let refused = |reason: String| Err(Refusal::invalid("replicas", reason));
        if replicas.is_empty() || replicas.len() > MAX_REPLICATION as usize {
            return refused(format!("are {}, expected 1 to {MAX_REPLICATION}", replicas.len()));
        }
        if let Some(twice) = replicas.windows(2).find(|pair| pair[0] == pair[1]) {
            return refused(format!("name node {} twice", twice[0]));
        }
        let held: BTreeSet<u64> = before.replicas.iter().copied().collect();
        for &node in replicas.iter().filter(|node| !held.contains(node)) {
            let known = self.nodes.get(&node).ok_or(Refusal::NoNode(node))?;
            let reason = match takes_replicas(known) {
                true => continue,
                false if known.place.roles.shard => format!("it is {}", known.status),
                false => "it has not the role shard".to_owned(),
            };
            return Err(Refusal::TakesNoReplicas { node, reason });
        }
        Ok(())
    }
}
