//! What is true of every state, and of every two states of which one came from the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::collection::{Collection, ShardDescriptor};
use crate::limits;
use crate::merge::{Merge, MergeStep};
use crate::node::{NodeStatus, may_become, out_of_service};
use crate::operation::OperationStep;
use crate::placement::takes_replicas;
use crate::split::{Split, SplitStep};
use crate::state::State;

/// Says what is wrong unless a condition holds.
macro_rules! hold {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

impl State {
    /// Checks everything that the rest of the system relies on: for tests and simulations, which call it after every change.
    /// `before` is the state before the change. Says what is wrong.
    pub fn check(&self, before: Option<&Self>) -> Result<(), String> {
        self.check_nodes()?;
        let (mut ids, mut collections) = (BTreeSet::new(), BTreeSet::new());
        for collection in self.collections().values() {
            hold!(collections.insert(collection.id), "collection {} has the id of another", collection.name);
            check_ranges(collection)?;
            let (name, wanted) = (&collection.name, collection.shards_wanted as usize);
            let shards = self.shards_after_merges(collection);
            hold!(
                wanted > 0 && shards >= wanted,
                "collection {name} comes to {shards} shards of {wanted} that are wanted"
            );
            for shard in &collection.shards {
                hold!(ids.insert(shard.id), "shard {} is there twice", shard.id);
                hold!(shard.id < self.next_shard_id, "the id of shard {} will be handed out again", shard.id);
                self.check_shard(shard)?;
            }
        }
        hold!(ids.len() <= limits::MAX_CLUSTER_SHARDS, "there are {} shards", ids.len());
        let named = self.collections.len() + self.leaving.len();
        hold!(named <= limits::MAX_COLLECTIONS, "there are {named} collections");
        for (name, leaving) in &*self.leaving {
            hold!(
                !self.collections.contains_key(name),
                "the name {name} is used, and that of a collection that is leaving"
            );
            hold!(leaving.deletion <= self.deletions, "the deletion of {name} will be counted again");
        }
        self.check_operations()?;
        self.check_splits(&ids)?;
        self.check_recoveries()?;
        self.check_merges(&ids)?;
        hold!(self.requests.len() <= limits::REMEMBERED_REQUESTS, "{} requests are remembered", self.requests.len());
        match before {
            Some(before) => self.check_change(before),
            None => Ok(()),
        }
    }

    fn check_nodes(&self) -> Result<(), String> {
        hold!(self.nodes.len() <= limits::MAX_NODES, "there are {} nodes", self.nodes.len());
        let living = || self.nodes.values().filter(|node| node.status != NodeStatus::Removed);
        let mut addresses = BTreeMap::new();
        for node in self.nodes.values() {
            for address in node.place.addresses().into_iter().filter(|address| !address.is_empty()) {
                let other = addresses.insert(address.to_ascii_lowercase(), node.id);
                hold!(other.is_none(), "{address} is the address of nodes {other:?} and {}", node.id);
            }
        }
        for voter in &self.voters {
            let known = living().any(|node| node.id == *voter && node.place.roles.coordinator);
            hold!(known, "voter {voter} is no coordinator of the cluster");
        }
        Ok(())
    }

    fn check_shard(&self, shard: &ShardDescriptor) -> Result<(), String> {
        let id = shard.id;
        // Until the first node joins there is nobody to place the shards of the oldest format on.
        let placed = self.nodes.values().any(|node| node.place.roles.shard);
        hold!(!placed || !shard.replicas.is_empty() && !shard.founders.is_empty(), "shard {id} is nowhere");
        hold!(shard.replicas.is_sorted_by(|a, b| a < b), "shard {id}: {:?} are not distinct", shard.replicas);
        hold!(shard.replicas.len() <= limits::MAX_REPLICATION as usize, "shard {id} has too many replicas");
        for replica in &shard.replicas {
            let node =
                self.nodes.get(replica).ok_or_else(|| format!("shard {id} is on node {replica}, which is none"))?;
            hold!(node.place.roles.shard, "shard {id} is on node {replica}, which hosts none");
            let gone = self.may_hold_nothing(*replica);
            hold!(!gone, "shard {id} is on node {replica}, which is {}", node.status);
        }
        Ok(())
    }

    fn check_operations(&self) -> Result<(), String> {
        let mut busy = BTreeSet::new();
        for operation in self.operations() {
            let id = operation.id;
            hold!(id <= self.begun_operations, "the id of operation {id} will be handed out again");
            hold!(
                operation.is_under_way() == operation.ended_unix_micros.is_none(),
                "operation {id}: when did it end?"
            );
            if !operation.is_under_way() {
                continue;
            }
            hold!(busy.insert(operation.shard), "two operations are under way on shard {}", operation.shard);
            let (_, shard) = self.shard(operation.shard).map_err(|_| format!("operation {id} is on no shard"))?;
            let placed = |node: u64| shard.replicas.contains(&node);
            let switched = operation.step == OperationStep::Drop;
            hold!(placed(operation.to) == switched, "operation {id}: {:?} at {}", shard.replicas, operation.step);
            let from = operation.from.is_none_or(|from| placed(from) != switched);
            hold!(from, "operation {id}: {:?} at {}", shard.replicas, operation.step);
            let status = self.nodes.get(&operation.to).map(|node| node.status);
            let gone = status.is_none() || self.may_hold_nothing(operation.to);
            hold!(!gone, "operation {id} brings a replica to node {}, which is {status:?}", operation.to);
        }
        Ok(())
    }

    fn check_splits(&self, ids: &BTreeSet<u64>) -> Result<(), String> {
        let mut busy = BTreeSet::new();
        for split in self.splits() {
            let id = split.id;
            hold!(id <= self.begun_operations, "the id of split {id} will be handed out again");
            hold!(!self.operations.contains_key(&id), "split {id} has the id of an operation");
            hold!(split.is_under_way() == split.ended_unix_micros.is_none(), "split {id}: when did it end?");
            if !split.is_under_way() {
                continue;
            }
            hold!(busy.insert(split.shard), "two splits are under way on shard {}", split.shard);
            hold!(self.operation_on(split.shard).is_none(), "shard {} is split and moved", split.shard);
            let (_, shard) = self.shard(split.shard).map_err(|_| format!("split {id} is of no shard"))?;
            let right = &split.right;
            hold!(right.id < self.next_shard_id && !ids.contains(&right.id), "shard {} is there already", right.id);
            let upper = shard.range.split(split.at).map(|(_, upper)| upper);
            hold!(upper == Some(right.range), "split {id} does not divide {:?}", shard.range);
            hold!(right.replicas == shard.replicas, "split {id}: its halves are on other nodes");
            hold!(right.parent == Some(shard.id), "split {id}: whose half is shard {}?", right.id);
            hold!(right.split.is_some() == (split.step == SplitStep::Found), "split {id}: where was it?");
            self.check_shard(right)?;
        }
        Ok(())
    }

    /// Whether a node is out of service, and not because it was given up with what it holds.
    fn may_hold_nothing(&self, node: u64) -> bool {
        let status = self.nodes.get(&node).map(|node| node.status);
        let given_up = self.given_up.contains_key(&node);
        status == Some(NodeStatus::Drained) || status == Some(NodeStatus::Removed) && !given_up
    }

    fn check_recoveries(&self) -> Result<(), String> {
        for (node, deletion) in &*self.given_up {
            let is_removed = self.nodes.get(node).is_some_and(|node| node.status == NodeStatus::Removed);
            hold!(is_removed, "node {node} was given up and is not removed");
            hold!(*deletion <= self.deletions, "that node {node} was given up will be counted again");
        }
        for recovery in self.recoveries() {
            let (id, shard) = (recovery.id, recovery.shard);
            hold!(id <= self.begun_operations, "the id of recovery {id} will be handed out again");
            let other =
                self.operations.contains_key(&id) || self.splits.contains_key(&id) || self.merges.contains_key(&id);
            hold!(!other, "the id {id} is there twice");
            let other = self.operation_on(shard).is_some()
                || self.merge_on(shard).is_some_and(|merge| merge.step != MergeStep::Thaw);
            hold!(!other, "shard {shard} is recovered and moved or merged");
            let half = || self.splits_under_way().map(|split| &split.right).find(|right| right.id == shard);
            let placed = self.shard(shard).map(|(_, shard)| shard).ok().or_else(half);
            let placed = placed.ok_or_else(|| format!("recovery {id} is of no shard"))?;
            hold!(placed.replicas == [recovery.survivor], "recovery {id}: {:?} go on", placed.replicas);
            hold!(!recovery.kept.contains(&recovery.survivor), "recovery {id} drops what it goes on with");
            let known = recovery.kept.iter().all(|node| self.nodes.contains_key(node) && !self.may_hold_nothing(*node));
            hold!(known, "recovery {id}: {:?} keep nothing", recovery.kept);
        }
        Ok(())
    }

    fn check_merges(&self, ids: &BTreeSet<u64>) -> Result<(), String> {
        let mut busy = BTreeSet::new();
        for merge in self.merges() {
            let id = merge.id;
            hold!(id <= self.begun_operations, "the id of merge {id} will be handed out again");
            let other = self.operations.contains_key(&id) || self.splits.contains_key(&id);
            hold!(!other, "merge {id} has the id of an operation");
            hold!(merge.is_under_way() == merge.ended_unix_micros.is_none(), "merge {id}: when did it end?");
            if !merge.is_under_way() {
                continue;
            }
            for shard in [merge.left, merge.right] {
                hold!(busy.insert(shard), "two merges are under way on shard {shard}");
                let other = self.operation_on(shard).is_some() || self.split_on(shard).is_some();
                hold!(!other, "shard {shard} is merged and moved or split");
            }
            let (collection, left) = self.shard(merge.left).map_err(|_| format!("merge {id} is of no shard"))?;
            let place = collection.shards.iter().position(|shard| shard.id == left.id).unwrap_or_default();
            let right = collection.shards.get(place + 1).filter(|right| right.id == merge.right);
            let right = right.ok_or_else(|| format!("merge {id} is of shards that are no neighbours"))?;
            let into = &merge.into;
            hold!(into.id < self.next_shard_id && !ids.contains(&into.id), "shard {} is there already", into.id);
            let both = (left.range.first, right.range.last);
            hold!((into.range.first, into.range.last) == both, "merge {id} does not join both");
            hold!(into.founders == into.replicas && into.epoch == 1, "shard {} is not new", into.id);
            self.check_shard(into)?;
        }
        Ok(())
    }

    /// The merge that has ended between two states and brought a shard about, or was of it.
    fn merge_since(&self, before: &Self, of: impl Fn(&Merge) -> bool) -> Option<&Arc<Merge>> {
        let ended = self.merges().filter(|merge| merge.step == MergeStep::Done && of(merge));
        ended.into_iter().find(|merge| before.merge(merge.id).is_ok_and(|before| before.is_under_way()))
    }

    /// The split that has ended between two states and changed a shard, or brought it about.
    fn split_since(&self, before: &Self, changed: impl Fn(&Split) -> bool) -> Option<&Arc<Split>> {
        let ended = self.splits().filter(|split| split.step == SplitStep::Done && changed(split));
        ended.into_iter().find(|split| before.split(split.id).is_ok_and(|before| before.is_under_way()))
    }

    fn check_change(&self, before: &Self) -> Result<(), String> {
        hold!(self.cluster_id == before.cluster_id, "the cluster became another");
        hold!(self.eras.starts_with(&before.eras), "the control group is in an era that is over");
        hold!(self.next_shard_id >= before.next_shard_id, "ids of shards are handed out again");
        hold!(before.founder.is_none() || self.founder == before.founder, "the cluster has another founder");
        for (id, old) in before.nodes() {
            let new = self.nodes.get(id).ok_or_else(|| format!("node {id} was forgotten"))?;
            hold!(new.incarnation == old.incarnation, "node {id} became another");
            hold!(new.run >= old.run, "node {id} came from start {} back to {}", old.run, new.run);
            let given_up = self.given_up.contains_key(id) && !before.given_up.contains_key(id);
            let may = may_become(old.status, new.status) || given_up && new.status == NodeStatus::Removed;
            hold!(may, "node {id} came from {} to {}", old.status, new.status);
        }
        let coordinators = |state: &Self| -> BTreeSet<u64> {
            let coordinators = state.nodes.values().filter(|node| node.place.roles.coordinator);
            coordinators.filter(|node| !out_of_service(node.status)).map(|node| node.id).collect()
        };
        let (serving, served) = (coordinators(self), coordinators(before));
        let came = serving.iter().any(|id| before.nodes.get(id).is_none_or(|node| !node.place.roles.coordinator));
        let fit = serving.len() <= limits::MAX_COORDINATORS || serving.len() <= served.len();
        hold!(!came || fit, "there are {} coordinators", serving.len());
        let known: BTreeMap<u64, (u128, &ShardDescriptor)> =
            before.shards().map(|(collection, shard)| (shard.id, (collection.id, shard))).collect();
        hold!(self.begun_operations >= before.begun_operations, "ids of operations are handed out again");
        for (collection, shard) in self.shards() {
            let id = shard.id;
            let Some((owner, old)) = known.get(&id) else {
                let half = self.split_since(before, |split| split.right.id == id).is_some();
                let both = self.merge_since(before, |merge| merge.into == *shard).is_some();
                hold!(half || both || id >= before.next_shard_id, "the id of shard {id} was handed out again");
                continue;
            };
            hold!(*owner == collection.id, "shard {id} came to another collection");
            let split = self.split_since(before, |split| split.shard == id);
            let range = split.and_then(|split| old.range.split(split.at)).map_or(old.range, |(lower, _)| lower);
            hold!(shard.range == range, "shard {id} has another range");
            hold!(shard.split == old.split || split.is_some(), "shard {id} was split unasked");
            // What the oldest format did not know is filled in once.
            hold!(old.founders.is_empty() || shard.founders == old.founders, "shard {id} has other founders");
            let settled = old.replicas.is_empty();
            let recovery = |state: &Self| state.recovery_of(id).map(|recovery| recovery.id);
            let recovered = recovery(self).is_some_and(|now| recovery(before) != Some(now));
            let epochs = shard.epoch.checked_sub(old.epoch);
            let expected = u64::from(!settled && shard.replicas != old.replicas || split.is_some() || recovered);
            hold!(epochs == Some(expected), "shard {id} came from epoch {} to {}", old.epoch, shard.epoch);
        }
        let present: BTreeSet<u64> = self.shards().map(|(_, shard)| shard.id).collect();
        let living: BTreeSet<u128> = self.collections().values().map(|collection| collection.id).collect();
        for (id, (owner, _)) in known.iter().filter(|(id, (owner, _))| !present.contains(id) && living.contains(owner))
        {
            let merged = self.merge_since(before, |merge| merge.concerns(*id)).is_some();
            hold!(merged, "shard {id} of collection {owner:032x} is gone");
        }
        for collection in self.collections().values() {
            match before.collections().values().find(|old| old.id == collection.id) {
                Some(old) => self.check_wanted(before, old, collection)?,
                None => self.check_spread(collection)?,
            }
        }
        Ok(())
    }

    /// How many shards of a collection are wanted is changed by what people ask for, once that has come about, and by nothing else.
    fn check_wanted(&self, before: &Self, old: &Collection, new: &Collection) -> Result<(), String> {
        let has = |shard: u64| new.shards.iter().any(|one| one.id == shard);
        let split = self.split_since(before, |split| !split.unasked && has(split.shard)).is_some();
        let merged = self.merge_since(before, |merge| !merge.unasked && has(merge.into.id)).is_some();
        let expected = match (split, merged) {
            (true, _) => old.shards_wanted + 1,
            (false, true) => old.shards_wanted.saturating_sub(1).max(1),
            (false, false) => old.shards_wanted,
        };
        let (name, wanted) = (&new.name, new.shards_wanted);
        hold!(wanted == expected, "collection {name} came from {} wanted shards to {wanted}", old.shards_wanted);
        Ok(())
    }

    /// Whether the replicas of a new collection's shards are spread over the zones as evenly as the nodes allow.
    fn check_spread(&self, collection: &Collection) -> Result<(), String> {
        let mut room: BTreeMap<&str, usize> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| takes_replicas(node)) {
            *room.entry(&node.place.zone).or_default() += 1;
        }
        hold!(collection.shards_wanted as usize == collection.shards.len(), "{} is not as wanted", collection.name);
        for shard in &collection.shards {
            hold!(shard.epoch == 1 && shard.founders == shard.replicas, "shard {} is not new", shard.id);
            let mut used: BTreeMap<&str, usize> = room.keys().map(|zone| (*zone, 0)).collect();
            for replica in &shard.replicas {
                let node = &self.nodes[replica];
                hold!(takes_replicas(node), "shard {} is on node {replica}, which takes none", shard.id);
                *used.entry(&node.place.zone).or_default() += 1;
            }
            let most = used.values().copied().max().unwrap_or(0);
            let crowded = used.iter().find(|(zone, used)| **used + 1 < most && **used < room[*zone]);
            hold!(crowded.is_none(), "shard {} could be spread better: {used:?} of {room:?}", shard.id);
        }
        Ok(())
    }
}

fn check_ranges(collection: &Collection) -> Result<(), String> {
    let name = &collection.name;
    let ranges: Vec<_> = collection.shards.iter().map(|shard| shard.range).collect();
    let ends = (ranges.first().map(|range| range.first), ranges.last().map(|range| range.last));
    hold!(ends == (Some(0), Some(u64::MAX)), "the shards of {name} do not cover every hash");
    let touch = ranges.windows(2).all(|pair| pair[0].last.checked_add(1) == Some(pair[1].first));
    hold!(touch && ranges.iter().all(|range| range.first <= range.last), "the shards of {name} overlap or leave a gap");
    Ok(())
}
