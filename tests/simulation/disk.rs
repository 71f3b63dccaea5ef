//! What a simulated node stores in: the twins of log and database, which lose what was not synced when the power goes.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagitta_consensus::{Fault, GroupId, LogError, LogStore, MemoryLog};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::{KvEngine, MemoryEngine};
use sagitta_server::{Engines, Net, OpenLog, Platform};

/// The disk of one node; clones are the same disk. Its small files are real ones, which are whole or not there.
#[derive(Clone)]
pub(crate) struct Disk {
    log: Arc<Mutex<MemoryLog>>,
    kv: Arc<dyn KvEngine>,
}

/// The control group.
const CONTROL_GROUP: GroupId = GroupId(1);
/// Appends that lie at most: more than any run makes.
const MANY_APPENDS: u64 = 100_000;

impl Disk {
    /// A disk that keeps what it promises.
    pub(crate) fn honest() -> Self {
        Self::over(Arc::new(MemoryEngine::new()))
    }

    /// One whose databases are these.
    pub(crate) fn over(kv: Arc<dyn KvEngine>) -> Self {
        Self { log: Arc::default(), kv }
    }

    /// From now on it says that the log was synced when it was not.
    pub(crate) fn lie(&self) {
        let log = self.lock();
        (log.appends()..MANY_APPENDS).for_each(|append| log.inject(append, Fault::LyingSync));
    }

    fn lock(&self) -> MutexGuard<'_, MemoryLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a server runs on.
    pub(crate) fn platform(&self, net: Net) -> Platform {
        let log = self.log.clone();
        let open_log: OpenLog = Arc::new(move |_: &Path, _| {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok::<Arc<dyn LogStore>, LogError>(Arc::new(log))
        });
        Platform { engines: Engines { kv: self.kv.clone(), index: Arc::new(ExactEngine) }, open_log, net }
    }

    /// Has the power go at the next write to the log: before it, between it and its sync, or when nobody knows of it yet.
    pub(crate) fn lose_power_at_next_write(&self, when: Fault) {
        let log = self.lock();
        log.inject(log.appends(), when);
    }

    /// The last entry of the control group's log, and what is in those after another one.
    pub(crate) fn control_entries_after(&self, index: u64) -> (u64, Vec<Vec<u8>>) {
        let log = self.lock();
        let Some(held) = log.load(CONTROL_GROUP).expect("a log in memory") else { return (0, Vec::new()) };
        let first = index.saturating_add(1).max(held.truncated.index + 1);
        if first > held.last.index {
            return (held.last.index, Vec::new());
        }
        let entries = log.entries(CONTROL_GROUP, first..held.last.index + 1, u64::MAX).expect("it holds them");
        (held.last.index, entries.into_iter().map(|entry| entry.data.to_vec()).collect())
    }

    /// The power is gone, and with it what was not synced but for the first batches of it. Databases lose what was not flushed when
    /// the server that holds them goes.
    pub(crate) fn lose_power(&self, unsynced_kept: usize) {
        let mut log = self.lock();
        let after = log.after_power_loss(unsynced_kept);
        *log = after;
    }
}
