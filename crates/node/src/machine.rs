//! A shard as a Raft group's state machine.

use std::sync::Arc;

use bytes::Bytes;
use sagitta_consensus::{ApplyError, Committed, Fetching, Membership, NodeId, Offer, Offering, Position, StateMachine};
use sagitta_model::ErrorKind;
use sagitta_shard::codec::Record as _;
use sagitta_shard::{Entry, Frozen, ReadView, ShardError};
use tokio::sync::watch;

use crate::builder::Bell;
use crate::load::Meter;
use crate::whole::{Present, Whole};

/// Joins a shard to its group: entries go in, outcomes come out, and whoever waits for an index is told.
pub(crate) struct ShardMachine {
    shard: Present,
    whole: Whole,
    meter: Arc<Meter>,
    applied: watch::Sender<u64>,
    builder: Bell,
    /// The newest generation that the builder was told of.
    frozen: Option<u32>,
    changes: watch::Sender<u64>,
    /// What others were told of last.
    told: Told,
}

/// What a view is after of splits and merges: others wait for it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    since: u64,
    frozen: Option<Frozen>,
    thawed: u64,
    filled: Option<u64>,
}

impl From<&ReadView> for Told {
    fn from(view: &ReadView) -> Self {
        let (since, frozen, thawed, filled) = (view.since(), view.frozen_by(), view.thawed(), view.filled_by());
        Self { since, frozen, thawed, filled }
    }
}

impl ShardMachine {
    /// The machine, and what tells which index it has applied and measures what that takes.
    pub(crate) fn new(
        shard: Present,
        whole: Whole,
        builder: Bell,
        changes: watch::Sender<u64>,
    ) -> (Self, (watch::Receiver<u64>, Arc<Meter>)) {
        let view = shard.get().view();
        let (applied, seen) = watch::channel(view.applied_index());
        let meter = Arc::new(Meter::new(view.env().clone()));
        let reported = (seen, meter.clone());
        (Self { shard, whole, meter, applied, builder, frozen: None, changes, told: Told::from(&*view) }, reported)
    }

    /// Whoever waits for the other half, or for a merge, looks again.
    fn tell(&mut self, view: &ReadView) {
        let told = Told::from(view);
        if told != self.told {
            self.told = told;
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

impl StateMachine for ShardMachine {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let members: Vec<_> = entries.iter().map(|entry| entry.membership.as_ref().map(Membership::encode)).collect();
        let batch: Vec<_> = entries
            .iter()
            .zip(&members)
            .map(|(Committed { index, term, data, .. }, members)| Entry {
                index: *index,
                term: *term,
                data,
                members: members.as_deref(),
            })
            .collect();
        let shard = self.shard.get();
        let outcomes = self.meter.measure(|| shard.apply(&batch)).map_err(apply_error)?;
        self.applied.send_replace(shard.applied_index());
        // What else a write may lead to can wait for the builder's next round, and waking it costs as much as applying a point. A
        // generation may wait for long, for the segment of another replica.
        let view = shard.view();
        self.tell(&view);
        let frozen = view.frozen().max();
        if frozen > self.frozen {
            self.builder.ring();
        }
        self.frozen = frozen;
        Ok(outcomes.into_iter().map(|outcome| Bytes::from(outcome.to_sealed())).collect())
    }

    fn applied(&self) -> Position {
        // Of one view, so that the two belong together.
        let view = self.shard.get().view();
        Position { index: view.applied_index(), term: view.applied_term() }
    }

    fn durable(&self) -> u64 {
        self.shard.get().durable_index()
    }

    fn membership(&self) -> Option<Membership> {
        self.shard.get().view().members().and_then(Membership::decode)
    }

    fn flush(&mut self, wait: bool) -> Result<(), ApplyError> {
        if wait {
            self.shard.get().flush().map(drop).map_err(apply_error)
        } else {
            self.builder.ring_for_flush();
            Ok(())
        }
    }

    fn offers(&self) -> bool {
        self.whole.is_shared()
    }

    fn offer(&mut self, done: Offering) {
        self.whole.offer(self.shard.get(), done);
    }

    fn retract(&mut self) {
        self.whole.retract();
    }

    fn fetch(&mut self, from: NodeId, offer: &Offer, done: Fetching) {
        self.whole.fetch(from, offer, done);
    }

    fn install(&mut self, offer: &Offer) -> Result<(), ApplyError> {
        self.whole.install(&self.shard, offer).map_err(apply_error)?;
        let view = self.shard.get().view();
        self.applied.send_replace(view.applied_index());
        self.tell(&view);
        self.builder.ring();
        Ok(())
    }

    fn installed(&self) -> Option<Position> {
        self.shard.get().installed().map(|(index, term)| Position { index, term })
    }
}

fn apply_error(error: ShardError) -> ApplyError {
    let text = error.to_string();
    match error {
        ShardError::Kv(sagitta_engine::kv::KvError::Full { .. }) => ApplyError::Full(text),
        ShardError::SwitchInDoubt { .. } => ApplyError::InDoubt(text),
        error if error.kind() == ErrorKind::Corrupt => ApplyError::Corrupt(text),
        _ => ApplyError::Failed(text),
    }
}
