//! How operations begin, go on and end.

use std::sync::Arc;

use super::State;
use crate::collection::{Collection, Floor, ShardDescriptor};
use crate::limits::{MAX_ENDED_OPERATIONS, MAX_REASON_BYTES};
use crate::operation::{Operation, OperationKind, OperationStep, may_advance};
use crate::outcome::{Effect, Refusal};
use crate::placement::takes_replicas;

impl State {
    /// All operations that are known, by their ids.
    pub fn operations(&self) -> impl DoubleEndedIterator<Item = &Arc<Operation>> {
        self.operations.values()
    }

    /// One operation.
    pub fn operation(&self, id: u64) -> Result<&Arc<Operation>, Refusal> {
        self.operations.get(&id).ok_or(Refusal::NoOperation(id))
    }

    /// The shards that a node hosts: those placed on it, those that an operation brings there, those that it is to keep until another
    /// node goes on with them, those that are split off there, and those that a merge fills. These follow all others, and stay from the
    /// moment on that they may have come about: what nobody names is removed.
    pub fn shards_on(&self, node: u64) -> impl Iterator<Item = (&Arc<Collection>, &ShardDescriptor)> {
        let brought: Vec<u64> =
            self.operations.values().filter(|operation| operation.brings_to(node)).map(|one| one.shard).collect();
        let kept = move |shard: u64| self.recovery_of(shard).is_some_and(|recovery| recovery.kept.contains(&node));
        let here = move |shard: &ShardDescriptor| shard.replicas.contains(&node) || kept(shard.id);
        let placed = self.shards().filter(move |(_, shard)| here(shard) || brought.contains(&shard.id));
        let halves = self.splits_under_way().map(|split| (split.shard, &split.right));
        let filled = self.merges_under_way().map(|merge| (merge.left, &merge.into));
        let new = halves.chain(filled).filter(move |(_, shard)| here(shard));
        placed.chain(new.filter_map(|(known, shard)| Some((self.shard(known).ok()?.0, shard))))
    }

    /// `new` has neither an id nor a step yet.
    pub(super) fn begin_operation(&mut self, mut new: Operation, epoch: u64) -> Result<Effect, Refusal> {
        let (shard, to) = (new.shard, new.to);
        let (_, descriptor) = self.shard(shard)?;
        let same = |known: &&Arc<Operation>| {
            (known.kind, known.from, known.to) == (new.kind, new.from, to)
                && known.begun_unix_micros == new.begun_unix_micros
        };
        if let Some(known) = self.operation_on(shard).filter(same) {
            // Begun by the same command, whose answer was lost.
            return Ok(Effect::Operation(Arc::clone(known)));
        }
        self.check_is_free(shard)?;
        if descriptor.epoch != epoch {
            return Err(Refusal::Stale { shard, epoch: descriptor.epoch, expected: epoch });
        }
        if let Some(from) = new.from.filter(|from| !descriptor.replicas.contains(from)) {
            return Err(Refusal::invalid("from", format!("is node {from}, which has no replica of shard {shard}")));
        }
        let node = self.nodes.get(&to).ok_or(Refusal::NoNode(to))?;
        if descriptor.replicas.contains(&to) {
            return Err(Refusal::invalid("to", format!("is node {to}, which has a replica of shard {shard}")));
        }
        if !takes_replicas(node) {
            let reason = if node.place.roles.shard { format!("it is {}", node.status) } else { "it hosts none".into() };
            return Err(Refusal::TakesNoReplicas { node: to, reason });
        }
        if new.reason.len() > MAX_REASON_BYTES {
            return Err(Refusal::invalid("reason", format!("is longer than {MAX_REASON_BYTES} bytes")));
        }
        self.check_is_room()?;
        self.begun_operations += 1;
        new.id = self.begun_operations;
        let operation = Arc::new(new);
        Arc::make_mut(&mut self.operations).insert(operation.id, Arc::clone(&operation));
        Ok(Effect::Operation(operation))
    }

    pub(super) fn advance_operation(
        &mut self,
        id: u64,
        (from, to): (OperationStep, OperationStep),
        at: Floor,
        unix_micros: u64,
    ) -> Result<Effect, Refusal> {
        let known = self.operation(id)?;
        if known.step == to {
            return Ok(Effect::Operation(Arc::clone(known)));
        }
        if known.step != from || !may_advance(from, to) {
            return Err(Refusal::OtherStep { operation: id, step: known.step, wanted: to });
        }
        let mut operation = Operation::clone(known);
        operation.step = to;
        match to {
            OperationStep::Drop => self.place_by(&operation, at),
            OperationStep::Cancelled => self.note_left(operation.shard, operation.to, at),
            _ => {}
        }
        if operation.step.is_end() {
            operation.ended_unix_micros = Some(unix_micros);
        }
        let operation = self.keep_operation(operation);
        self.forget_ended();
        Ok(Effect::Operation(operation))
    }

    pub(super) fn cancel_operation(&mut self, id: u64) -> Result<Effect, Refusal> {
        let known = self.operation(id)?;
        if known.cancelled {
            return Ok(Effect::Operation(Arc::clone(known)));
        }
        if !known.step.can_be_cancelled() {
            let wanted = OperationStep::Cancelled;
            return Err(Refusal::OtherStep { operation: id, step: known.step, wanted });
        }
        let operation = Operation { cancelled: true, ..Operation::clone(known) };
        Ok(Effect::Operation(self.keep_operation(operation)))
    }

    /// Forgets what was under way on shards that are gone.
    pub(super) fn forget_operations_on(&mut self, shards: &[u64]) {
        let gone = |operation: &Operation| operation.is_under_way() && shards.contains(&operation.shard);
        if self.operations.values().any(|operation| gone(operation)) {
            Arc::make_mut(&mut self.operations).retain(|_, operation| !gone(operation));
        }
    }

    /// Which members the group of a shard may have: more than one answer while they are being changed.
    pub(super) fn possible_members(&self, shard: &ShardDescriptor) -> Vec<Vec<u64>> {
        let mut groups = vec![shard.replicas.clone()];
        if let Some(operation) = self.operation_on(shard.id).filter(|operation| operation.brings_to(operation.to)) {
            let both: Vec<u64> = shard.replicas.iter().copied().chain([operation.to]).collect();
            groups.push(both.iter().copied().filter(|node| Some(*node) != operation.from).collect());
            groups.push(both);
        }
        groups
    }

    pub(super) fn keep_operation(&mut self, operation: Operation) -> Arc<Operation> {
        let operation = Arc::new(operation);
        Arc::make_mut(&mut self.operations).insert(operation.id, Arc::clone(&operation));
        operation
    }

    pub(super) fn forget_ended(&mut self) {
        // What somebody has moved is left where it is for as long as it is known, however much else is moved meanwhile.
        for by_hand in [true, false] {
            let is_one = |one: &&Arc<Operation>| !one.is_under_way() && (one.kind == OperationKind::Move) == by_hand;
            let ended: Vec<u64> = self.operations.values().filter(is_one).map(|one| one.id).collect();
            for id in &ended[..ended.len().saturating_sub(MAX_ENDED_OPERATIONS)] {
                Arc::make_mut(&mut self.operations).remove(id);
            }
        }
    }

    /// The placement follows what the group's members are.
    fn place_by(&mut self, operation: &Operation, at: Floor) {
        if let Some(from) = operation.from {
            self.note_left(operation.shard, from, at);
        }
        self.change_shard(operation.shard, |shard| {
            shard.replicas.retain(|node| Some(*node) != operation.from);
            shard.replicas.push(operation.to);
            shard.replicas.sort_unstable();
            shard.epoch += 1;
        });
    }

    pub(super) fn note_left(&mut self, shard: u64, node: u64, at: Floor) {
        self.change_shard(shard, |shard| {
            // Two leaders may tell in the wrong order; the higher place holds for both.
            let floor = shard.left.entry(node).or_insert(at);
            if (floor.term, floor.index) < (at.term, at.index) {
                *floor = at;
            }
        });
    }

    pub(super) fn change_shard(&mut self, id: u64, change: impl FnOnce(&mut ShardDescriptor)) {
        let found = self.shard(id).map(|(collection, _)| collection.name.clone());
        let Ok(name) = found else { return };
        let Some(collection) = Arc::make_mut(&mut self.collections).get_mut(&name) else { return };
        let shards = &mut Arc::make_mut(collection).shards;
        if let Some(shard) = shards.iter_mut().find(|shard| shard.id == id) {
            change(shard);
        }
    }
}
