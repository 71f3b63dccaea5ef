//! How lost nodes are given up, and shards that have lost their majority with them go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::State;
use super::nodes::is_coordinator;
use crate::collection::{Floor, ShardDescriptor};
use crate::merge::MergeStep;
use crate::node::{Node, NodeStatus};
use crate::operation::{Operation, OperationStep};
use crate::outcome::{Effect, Refusal};
use crate::recovery::{Recovery, SKIPPED_IDS};
use crate::split::{Split, SplitStep};

impl State {
    /// Lost nodes that were removed for ever although shards should have had replicas there, with the number of that among the
    /// [`State::deletions`].
    pub fn given_up(&self) -> &BTreeMap<u64, u64> {
        &self.given_up
    }

    /// The recoveries that are under way, by their shards.
    pub fn recoveries(&self) -> impl Iterator<Item = &Arc<Recovery>> {
        self.recoveries.values()
    }

    /// The recovery that is under way of a shard, or of one that is split off.
    pub fn recovery_of(&self, shard: u64) -> Option<&Arc<Recovery>> {
        self.recoveries.get(&shard)
    }

    /// The nodes that may have a replica of a shard with which it could go on: those that were not removed. Ascending.
    pub fn living(&self, shard: &ShardDescriptor) -> Vec<u64> {
        let may_have = match self.recovery_of(shard.id) {
            Some(recovery) => [&recovery.kept[..], &[recovery.survivor]].concat(),
            None => self.possible_members(shard).concat(),
        };
        let living: BTreeSet<u64> = may_have.into_iter().filter(|node| !self.is_removed(*node)).collect();
        living.into_iter().collect()
    }

    /// The nodes that may have been members of a shard's group and were removed. Ascending.
    pub fn lost_members(&self, shard: &ShardDescriptor) -> Vec<u64> {
        let lost = self.possible_members(shard).concat().into_iter().filter(|node| self.is_removed(*node));
        lost.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn is_removed(&self, node: u64) -> bool {
        self.nodes.get(&node).is_none_or(|node| node.status == NodeStatus::Removed)
    }

    /// Removes a lost node for ever, and what it holds with it.
    pub(super) fn give_up_node(&mut self, id: u64) -> Result<Effect, Refusal> {
        let node = self.nodes.get(&id).ok_or(Refusal::NoNode(id))?;
        match node.status {
            NodeStatus::Removed => return Ok(Effect::Node(Arc::clone(node))),
            NodeStatus::Lost => {}
            status => return Err(Refusal::NotLost { node: id, status }),
        }
        if self.votes(node) {
            return Err(Refusal::Votes(id));
        }
        let gone = Arc::new(Node { status: NodeStatus::Removed, ..Node::clone(node) });
        Arc::make_mut(&mut self.nodes).insert(id, Arc::clone(&gone));
        self.deletions += 1;
        Arc::make_mut(&mut self.given_up).insert(id, self.deletions);
        Ok(Effect::Node(gone))
    }

    /// Has the control group go on with one coordinator, and gives its other voters up with all that they hold. `era` is the one that ends with
    /// the entry `ended`.
    pub(super) fn recover_control(
        &mut self,
        survivor: u64,
        lost: &[u64],
        era: u64,
        ended: u64,
    ) -> Result<Effect, Refusal> {
        if self.era() == era + 1 && self.end_of_era(era) == Some(ended) && self.voters == [survivor] {
            return Ok(Effect::Voters(self.voters.clone()));
        }
        if self.era() != era {
            return Err(Refusal::invalid("era", format!("is {era}, and the control group is in {}", self.era())));
        }
        let serves = self.nodes.get(&survivor).is_some_and(|node| is_coordinator(node));
        if !serves || lost.contains(&survivor) {
            let what = format!("is node {survivor}, which is no coordinator that is left");
            return Err(Refusal::invalid("survivor", what));
        }
        if let Some(unknown) = lost.iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(Refusal::NoNode(*unknown));
        }
        let others: Vec<u64> = self.voters.iter().copied().filter(|voter| *voter != survivor).collect();
        if lost.is_empty() || others.iter().any(|voter| !lost.contains(voter)) {
            let what = format!("are {lost:?}, expected all voters but that one: {others:?}");
            return Err(Refusal::invalid("lost", what));
        }
        // What only the lost ones knew of may have had the next of these, and there are nodes that know it by them.
        self.next_shard_id += SKIPPED_IDS;
        self.begun_operations += SKIPPED_IDS;
        self.deletions += SKIPPED_IDS;
        for &id in lost {
            let node = Arc::make_mut(&mut self.nodes).get_mut(&id).expect("invariant: it was found a moment ago");
            if node.status == NodeStatus::Removed {
                continue;
            }
            Arc::make_mut(node).status = NodeStatus::Removed;
            self.deletions += 1;
            Arc::make_mut(&mut self.given_up).insert(id, self.deletions);
        }
        self.voters = vec![survivor];
        self.eras.push(ended);
        Ok(Effect::Voters(self.voters.clone()))
    }

    /// Has a shard go on with the replica of one node, whose log ends there.
    pub(super) fn recover_shard(
        &mut self,
        (shard, epoch): (u64, u64),
        (survivor, term): (u64, u64),
        at: Floor,
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let (_, descriptor) = self.shard(shard)?;
        let known = self.recovery_of(shard);
        if let Some(known) = known {
            // Begun by the same command, whose answer was lost.
            if (known.survivor, known.begun_unix_micros) == (survivor, unix_micros) {
                return Ok(Effect::Recovery(Arc::clone(known)));
            }
            if !self.is_removed(known.survivor) {
                return Err(Refusal::Busy { shard, operation: known.id });
            }
        }
        // What it is to be merged for can be cancelled, or is decided in a moment. That it works on it may yet have to be told, which takes a group.
        if let Some(merge) = self.merge_on(shard).filter(|merge| merge.step != MergeStep::Thaw) {
            return Err(Refusal::Busy { shard, operation: merge.id });
        }
        if descriptor.epoch != epoch {
            return Err(Refusal::Stale { shard, epoch: descriptor.epoch, expected: epoch });
        }
        let living = self.living(descriptor);
        let groups = self.possible_members(descriptor);
        let decides = |group: &Vec<u64>, without: Option<u64>| {
            let present = group.iter().filter(|node| living.contains(node) && Some(**node) != without).count();
            present > group.len() / 2
        };
        // Whoever is brought has no vote before the switch.
        let is_settled = self
            .operation_on(shard)
            .is_some_and(|one| matches!(one.step, OperationStep::Join | OperationStep::CatchUp));
        let now = if is_settled { &groups[..1] } else { &groups[..] };
        if now.iter().all(|group| decides(group, None)) {
            return Err(Refusal::HasMajority { shard, nodes: living });
        }
        if !living.contains(&survivor) {
            return Err(Refusal::invalid(
                "survivor",
                format!("is node {survivor}, which has no replica of shard {shard}"),
            ));
        }
        // Members of which it is not known whether they vote already.
        if known.is_none() && groups.iter().any(|group| decides(group, Some(survivor))) {
            let nodes = living.into_iter().filter(|node| *node != survivor).collect();
            return Err(Refusal::HasMajority { shard, nodes });
        }
        if term <= at.term || known.is_some_and(|known| term <= known.term) {
            return Err(Refusal::invalid("term", format!("is {term}, in which the group has been")));
        }
        let floor = Floor { term, index: at.index };
        let gone: BTreeSet<u64> = groups.into_iter().flatten().chain(living.iter().copied()).collect();
        let kept = living.into_iter().filter(|node| *node != survivor).collect();
        let new = Recovery { id: 0, shard, epoch, survivor, term, kept, begun_unix_micros: unix_micros };
        self.end_operation_on(shard, unix_micros);
        self.go_on_with_split(&new, at, floor);
        for node in gone.into_iter().filter(|node| *node != survivor) {
            self.note_left(shard, node, floor);
        }
        self.change_shard(shard, |shard| {
            shard.replicas = vec![survivor];
            shard.epoch += 1;
        });
        Ok(Effect::Recovery(self.begin_recovery(new)))
    }

    /// The survivor leads, and nobody else has a vote.
    pub(super) fn end_recovery(&mut self, shard: u64, id: u64) -> Effect {
        if self.recovery_of(shard).is_some_and(|recovery| recovery.id == id) {
            Arc::make_mut(&mut self.recoveries).remove(&shard);
        }
        Effect::RecoveryEnded
    }

    /// Forgets what was under way on shards that are gone.
    pub(super) fn forget_recoveries_of(&mut self, shards: &[u64]) {
        if shards.iter().any(|shard| self.recoveries.contains_key(shard)) {
            Arc::make_mut(&mut self.recoveries).retain(|shard, _| !shards.contains(shard));
        }
    }

    /// `new` has no id yet.
    fn begin_recovery(&mut self, new: Recovery) -> Arc<Recovery> {
        self.begun_operations += 1;
        let recovery = Arc::new(Recovery { id: self.begun_operations, ..new });
        Arc::make_mut(&mut self.recoveries).insert(recovery.shard, Arc::clone(&recovery));
        recovery
    }

    /// Whatever it led to needed the group.
    fn end_operation_on(&mut self, shard: u64, unix_micros: u64) {
        let Some(known) = self.operation_on(shard) else { return };
        let (step, ended_unix_micros) = (OperationStep::Cancelled, Some(unix_micros));
        self.keep_operation(Operation { step, ended_unix_micros, ..Operation::clone(known) });
        self.forget_ended();
    }

    /// A split that the log, which ends there, may hold goes on, with the same node alone; one that it cannot is over. `floor` is the lost
    /// members'.
    fn go_on_with_split(&mut self, of_left: &Recovery, end: Floor, floor: Floor) {
        let Some(known) = self.split_on(of_left.shard) else { return };
        let mut split = Split::clone(known);
        if split.step == SplitStep::Prepare {
            (split.step, split.ended_unix_micros) = (SplitStep::Cancelled, Some(of_left.begun_unix_micros));
            self.keep_split(split);
            return;
        }
        let has_it = |entry: Floor| (entry.term, entry.index) <= (end.term, end.index);
        if !split.right.split.is_none_or(has_it) {
            // Only lost members had come to it: the shard is split anew.
            (split.step, split.right.split) = (SplitStep::Divide, None);
        }
        let right = &mut split.right;
        for node in std::mem::replace(&mut right.replicas, vec![of_left.survivor]) {
            if node != of_left.survivor {
                right.left.insert(node, floor);
            }
        }
        self.begin_recovery(Recovery { shard: right.id, epoch: right.epoch, ..of_left.clone() });
        self.keep_split(split);
    }
}
