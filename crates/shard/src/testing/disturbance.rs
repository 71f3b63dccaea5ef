//! What happens to a shard in the middle of a job.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::naive::Expected;
use crate::{Command, Entry, Shard, Step, WriteOutcome};

#[derive(Clone)]
pub(super) struct LogEntry {
    pub(super) index: u64,
    pub(super) data: Vec<u8>,
    /// None for an entry that does nothing, and for a split.
    pub(super) command: Option<Command>,
    pub(super) expected: Expected,
}

/// What happens in the middle of a job.
#[derive(Default)]
pub(super) struct Disturbance {
    shard: Mutex<Weak<Shard>>,
    /// Entries to be applied at a step.
    entries: Mutex<Option<(Step, Vec<LogEntry>)>>,
    outcomes: Mutex<Vec<(LogEntry, WriteOutcome)>>,
    cut_at: Mutex<Option<Step>>,
}

impl Disturbance {
    /// For the hook of the shard's options.
    pub(super) fn at(&self, step: Step) -> ControlFlow<()> {
        let planned = lock(&self.entries).take_if(|(at, _)| *at == step);
        if let Some((_, entries)) = planned
            && let Some(shard) = lock(&self.shard).upgrade()
        {
            let outcomes = shard.apply(&as_entries(&entries)).expect("entries apply during a job");
            lock(&self.outcomes).extend(entries.into_iter().zip(outcomes));
        }
        if *lock(&self.cut_at) == Some(step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn concerns(&self, shard: &Arc<Shard>) {
        *lock(&self.shard) = Arc::downgrade(shard);
    }

    pub(super) fn cut_at(&self, step: Option<Step>) {
        *lock(&self.cut_at) = step;
    }

    pub(super) fn plan(&self, step: Step, entries: Vec<LogEntry>) {
        *lock(&self.entries) = Some((step, entries));
    }

    /// Applies what no step came for; returns what came of all that was planned, and whether any of it was applied in a job.
    pub(super) fn finish(&self, shard: &Shard) -> (Vec<(LogEntry, WriteOutcome)>, bool) {
        let mut outcomes = std::mem::take(&mut *lock(&self.outcomes));
        let disturbed = !outcomes.is_empty();
        // Not within the condition: applying a split tells the hook, which looks here.
        let planned = lock(&self.entries).take();
        if let Some((_, entries)) = planned {
            let late = shard.apply(&as_entries(&entries)).expect("entries apply");
            outcomes.extend(entries.into_iter().zip(late));
        }
        (outcomes, disturbed)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn as_entries(entries: &[LogEntry]) -> Vec<Entry<'_>> {
    entries
        .iter()
        .map(|entry| Entry { index: entry.index, term: term_of(entry.index), data: &entry.data, members: None })
        .collect()
}

/// Leaders change now and then.
pub(super) fn term_of(index: u64) -> u64 {
    1 + index / 50
}
