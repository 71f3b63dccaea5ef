//! A shard as a Raft group's state machine.

use std::sync::Arc;

use bytes::Bytes;
use sagitta_consensus::{ApplyError, Committed, Membership, Position, StateMachine};
use sagitta_model::ErrorKind;
use sagitta_shard::codec::Record as _;
use sagitta_shard::{Entry, Shard, ShardError};
use tokio::sync::watch;

use crate::builder::Bell;

/// Joins a shard to its group: entries go in, outcomes come out, and whoever waits for an index is told.
pub(crate) struct ShardMachine {
    shard: Arc<Shard>,
    applied: watch::Sender<u64>,
    builder: Bell,
}

impl ShardMachine {
    /// The machine, and what tells which index it has applied.
    pub(crate) fn new(shard: Arc<Shard>, builder: Bell) -> (Self, watch::Receiver<u64>) {
        let (applied, seen) = watch::channel(shard.applied_index());
        (Self { shard, applied, builder }, seen)
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
        let outcomes = self.shard.apply(&batch).map_err(apply_error)?;
        self.applied.send_replace(self.shard.applied_index());
        self.builder.ring();
        Ok(outcomes.into_iter().map(|outcome| Bytes::from(outcome.to_sealed())).collect())
    }

    fn applied(&self) -> Position {
        // Of one view, so that the two belong together.
        let view = self.shard.view();
        Position { index: view.applied_index(), term: view.applied_term() }
    }

    fn durable(&self) -> u64 {
        self.shard.durable_index()
    }

    fn membership(&self) -> Option<Membership> {
        self.shard.view().members().and_then(Membership::decode)
    }

    fn flush(&mut self, wait: bool) -> Result<(), ApplyError> {
        if wait {
            self.shard.flush().map(drop).map_err(apply_error)
        } else {
            self.builder.ring_for_flush();
            Ok(())
        }
    }
}

fn apply_error(error: ShardError) -> ApplyError {
    let text = error.to_string();
    match error {
        ShardError::Kv(sagitta_engine::kv::KvError::Full { .. }) => ApplyError::Full(text),
        error if error.kind() == ErrorKind::Corrupt => ApplyError::Corrupt(text),
        _ => ApplyError::Failed(text),
    }
}
